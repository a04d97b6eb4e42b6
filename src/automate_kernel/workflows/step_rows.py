"""The runs of steps as rows: what is written of them, and what is forgotten of them."""

from __future__ import annotations

from collections.abc import Sequence

from automate_kernel.outbox.failed_attempts import FailedAttempt, new_attempt
from automate_kernel.outbox.ids import new_id
from automate_kernel.outbox.item import bounded_seconds
from automate_kernel.outbox.payloads import encode_json, storable
from automate_kernel.storage.rows import Now, Row, Rows, Where
from automate_kernel.storage.tables import STEP
from automate_kernel.tracebacks import MAX_GROUP
from automate_kernel.workflows.execution import StepRun, StepStatus
from automate_kernel.workflows.model import Workflow

__all__ = [
    "attempt_rows",
    "forget_steps",
    "new_step_row",
    "step_row",
    "steps_to_repeat",
    "unfinished",
]

_AGAIN = (StepStatus.FAILED, StepStatus.CANCELLED, StepStatus.RUNNING)


def steps_to_repeat(workflow: Workflow, step_id: str | None) -> list[str]:
    """
    The steps that are done again though they may be done: those that recover from a failure.

    With *step_id* that step too, and what follows from it; raises `WorkflowError` if it is none.
    """
    recovery = [step.id for step in workflow.on_failure]
    return recovery if step_id is None else [*recovery, *workflow.followers(step_id)]


def forget_steps(rows: Rows, execution_id: str, again: list[str]) -> None:
    """Forget the steps *again* of an execution that goes on, and what had not come to its end."""
    its = Where("execution_id", "eq", execution_id)
    rows.delete(STEP, [its, Where("status", "in", [status.value for status in _AGAIN])])
    if again:
        rows.delete(STEP, [its, Where("step_id", "in", again)])


def unfinished(run: StepRun) -> list[Where]:
    """The row of *run*, as long as it has not ended."""
    live = [status.value for status in StepStatus if not status.finished]
    return [
        Where("execution_id", "eq", run.execution_id),
        Where("step_id", "eq", run.step_id),
        Where("position", "eq", run.position),
        Where("status", "in", live),
    ]


def step_row(run: StepRun, delay: float | None) -> Row:
    """What a save changes of a row; *delay* is how long a retry waits."""
    row: Row = {
        "status": run.status.value,
        "attempts": run.attempts,
        "output": encode_json(run.output, f"output of step {run.step_id!r}"),
        "error_code": run.error_code,
        "error": storable(run.error) if run.error else None,
        "trace": storable(run.trace) if run.trace else None,
        "error_group": storable(run.error_group, MAX_GROUP) if run.error_group else None,
        "next_attempt_at": Now(bounded_seconds(delay)) if delay is not None else None,
    }
    if run.status is StepStatus.RUNNING and run.attempts <= 1:
        row["started_at"] = Now()
    if run.status.finished:
        row["completed_at"] = Now()
    return row


def attempt_rows(failures: Sequence[FailedAttempt], execution_id: str, claim: str) -> list[Row]:
    """The rows of attempts that have failed in the claim with this token."""
    return [
        new_attempt(
            execution_id, claim, attempt=each.attempt, code=each.error_code,
            group=each.error_group, error=each.error, trace=each.trace, step_id=each.step_id,
            position=each.position,
        )
        for each in failures
    ]  # fmt: skip


def new_step_row(run: StepRun, row: Row) -> Row:
    """The first *row* of *run*, complete."""
    return {
        "id": new_id(),
        "execution_id": run.execution_id,
        "step_id": run.step_id,
        "position": run.position,
        "started_at": None,
        "completed_at": None,
        **row,
    }
