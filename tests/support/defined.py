"""Workflows as tests define them: by their steps."""

from __future__ import annotations

from typing import Any

from automate_kernel import Kernel
from automate_kernel.workflows import Workflow


def define(kernel: Kernel, *steps: dict[str, Any], name: str = "w", **more: Any) -> list[Workflow]:
    """Add a workflow with these steps, which is started by hand unless *more* says otherwise."""
    more.setdefault("trigger", {"type": "manual"})
    return kernel.add_workflow({"name": name, "steps": list(steps), **more})
