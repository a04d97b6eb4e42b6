"""Steps whose calls go on elsewhere: the wait for the outcome of a task, and its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.operations.tasks import TaskOutcome, error_of
from automate_kernel.storage.codec import JsonText
from automate_kernel.workflows.decide.waits import Wait, wait_key
from automate_kernel.workflows.execution import Event, Execution, StepRun, StepStatus


@dataclass(frozen=True, slots=True)
class WaitEnd:
    """The end of a wait: an output and its JSON, or an error."""

    output: Any = None
    error: AutomateError | None = None
    encoded: JsonText | None = None
    ref: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


def task_signal(task_id: str) -> str:
    """Return the name of the signal that brings the outcome of a task."""
    return f"automate.task.{task_id}"


def task_key(execution: Execution, task_id: str) -> str:
    """
    Return the key of the signal that brings the outcome of a task.

    It is no key of `signal_key`: whoever may send signals can't make up an outcome.
    """
    return wait_key("task", execution.chain_id or execution.id, task_id)


def task_wait(
    execution: Execution, run: StepRun, executor: str, task_id: str, seconds: float | None
) -> Wait:
    """Return the wait for the outcome of a task, of *seconds* at most."""
    key = task_key(execution, task_id)
    return Wait(run, "task", key, {"executor": executor, "task_id": task_id}, seconds)


def task_payload(outcome: TaskOutcome) -> dict[str, Any]:
    """Return the payload of the signal that brings *outcome*."""
    ended = StepStatus.COMPLETED if outcome.error is None else StepStatus.FAILED
    return {
        "status": ended.value, "output": outcome.output, "output_ref": None,
        "unread": outcome.output_ref, "error": outcome.error, "labels": outcome.labels,
    }  # fmt: skip


def task_end(event: Event) -> WaitEnd:
    """Return the end of a wait for which a task's outcome has come."""
    payload = event.payload
    if payload["status"] != StepStatus.COMPLETED.value:
        lost = AutomateError(ErrorCodes.DATA_LOSS, "its output is gone")
        error = error_of(payload["error"]) if payload.get("error") else lost
        return WaitEnd(error=error, labels=payload["labels"])
    return WaitEnd(payload["output"], ref=payload["output_ref"], labels=payload["labels"])
