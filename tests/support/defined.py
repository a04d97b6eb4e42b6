"""Workflows as tests define them, by their steps, and their executions as they stand."""

from __future__ import annotations

from typing import Any

from automate_kernel import Kernel
from automate_kernel.outbox import OutboxItem
from automate_kernel.workflows import Workflow
from automate_kernel.workflows.execution import Execution


def define(kernel: Kernel, *steps: dict[str, Any], name: str = "w", **more: Any) -> list[Workflow]:
    """Add a workflow with these steps, which is started by hand unless *more* says otherwise."""
    more.setdefault("trigger", {"type": "manual"})
    return kernel.add_workflow({"name": name, "steps": list(steps), **more})


def see(kernel: Kernel, execution_id: str) -> Execution:
    """Return an execution that is there, as it stands now."""
    found = kernel.executions.get(execution_id)
    assert found is not None
    return found


def item_of(kernel: Kernel, execution_id: str) -> OutboxItem:
    """Return the item that drives an execution."""
    item = kernel.outbox.get(see(kernel, execution_id).item_id or "")
    assert item is not None
    return item


def is_over(kernel: Kernel, execution_id: str) -> bool:
    """Return whether an execution has ended."""
    return see(kernel, execution_id).status.finished
