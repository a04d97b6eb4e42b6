"""Executions in the host's database: begun once, saved step by step, ended once."""

from __future__ import annotations

from collections.abc import Sequence

from automate_kernel.errors import ErrorCodes
from automate_kernel.outbox import OutboxItem
from automate_kernel.outbox.failed_attempts import (
    ErrorGroup,
    FailedAttempt,
    failed_attempts,
    forget_attempts,
)
from automate_kernel.outbox.ids import new_id
from automate_kernel.outbox.insight import MOST_LABELLED
from automate_kernel.outbox.labels import forget_labels, labelled_ids
from automate_kernel.storage.rows import Now, Row, Rows, Where
from automate_kernel.storage.tables import DEFINITION, EXECUTION, STEP
from automate_kernel.workflows.execution import (
    Execution,
    ExecutionStatus,
)
from automate_kernel.workflows.model import Workflow
from automate_kernel.workflows.saving import ADVANCE, ExecutionEndedError, ExecutionRows, Loaded
from automate_kernel.workflows.step_rows import (
    forget_steps,
    steps_to_repeat,
)

__all__ = ["ADVANCE", "ExecutionEndedError", "ExecutionStore", "Loaded"]


class ExecutionStore(ExecutionRows):
    """The state of executions: what a worker does with them, and what people look for and steer."""

    # -- looking and steering ----------------------------------------------------------------

    def get(self, execution_id: str) -> Execution | None:
        """The execution with this id and its steps, or None."""
        loaded = self.load(execution_id)
        return loaded.execution if loaded else None

    def find(
        self,
        *,
        status: ExecutionStatus | str | None = None,
        workflow: str | None = None,
        tenant_id: str | None = None,
        error_group: str | None = None,
        limit: int = 50,
    ) -> list[Execution]:
        """Executions that match, with their steps, the newest first."""
        wanted = {
            "status": status and str(status),
            "workflow": workflow,
            "tenant_id": tenant_id,
            "error_group": error_group,
        }
        where = [Where(name, "eq", value) for name, value in wanted.items() if value is not None]
        with self.storage.begin(atomic=False) as rows:
            found = rows.select(EXECUTION, where, order_by=("-created_at", "-id"), limit=limit)
            runs = self._runs(rows, [row["id"] for row in found])
        return [Execution.from_row(row, runs.get(row["id"], ())) for row in found]

    def labelled(
        self,
        label: str,
        *,
        status: ExecutionStatus | str | None = None,
        workflow: str | None = None,
        tenant_id: str | None = None,
        limit: int = 50,
    ) -> list[Execution]:
        """
        Executions with *label*, with their steps, the newest first.

        A label is ``order=4711``, or ``4711`` under any name. It is an index that finds them.
        """
        wanted = {"status": status and str(status), "workflow": workflow, "tenant_id": tenant_id}
        where = [Where(name, "eq", value) for name, value in wanted.items() if value is not None]
        with self.storage.begin(atomic=False) as rows:
            known = labelled_ids(
                rows, label, about="execution", tenant_id=tenant_id, limit=MOST_LABELLED
            )
            where.append(Where("id", "in", [each.id for each in known]))
            found = rows.select(EXECUTION, where, order_by=("-created_at", "-id"), limit=limit)
            runs = self._runs(rows, [row["id"] for row in found])
        return [Execution.from_row(row, runs.get(row["id"], ())) for row in found]

    def failed_attempts(self, execution_id: str) -> list[FailedAttempt]:
        """
        The errors of all attempts of an execution's steps, the earliest first.

        Those before it was resumed too. The first is kept, and the latest 199.
        """
        with self.storage.begin(atomic=False) as rows:
            return failed_attempts(rows, execution_id)

    def error_groups(
        self, *, workflow: str | None = None, tenant_id: str | None = None, limit: int = 100
    ) -> list[ErrorGroup]:
        """
        The FAILED executions, grouped by workflow and by where their error came from.

        The largest groups first; `ErrorGroup.kind` is the workflow's name.
        """
        failed = [Where("status", "eq", ExecutionStatus.FAILED.value)]
        given = {"workflow": workflow, "tenant_id": tenant_id}
        failed += [Where(name, "eq", value) for name, value in given.items() if value is not None]
        by = ("workflow", "error_group", "error_code")
        with self.storage.begin(atomic=False) as rows:
            counted = rows.count(EXECUTION, by, failed)
            counted.sort(key=lambda row: (-row["n"], row["workflow"], row["error_group"] or ""))
            return [_group(rows, row, failed) for row in counted[:limit]]

    def cancel(self, execution_id: str) -> bool:
        """
        End an execution as CANCELLED; False if it had ended.

        A step that runs is not interrupted, but nothing follows it: the worker that has the
        execution is asked to stop.
        """
        with self.storage.begin() as rows:
            found = rows.select(EXECUTION, [Where("id", "eq", execution_id)], lock=True)
            if not found:
                return False
            execution = Execution.from_row(found[0])
            cancelled = self.change(rows, execution, ExecutionStatus.CANCELLED)
        if cancelled:
            self.outbox.cancel([found[0]["item_id"]])
        return cancelled

    def cancel_with(self, rows: Rows, item: OutboxItem) -> None:
        """Cancel the execution whose wake-up item was cancelled, in the same transaction."""
        if item.kind != ADVANCE:
            return
        where = [Where("id", "eq", item.payload["execution_id"]), Where("item_id", "eq", item.id)]
        for row in rows.select(EXECUTION, where):
            self.change(rows, Execution.from_row(row), ExecutionStatus.CANCELLED)

    def resume(self, execution_id: str, *, step_id: str | None = None) -> bool:
        """
        Run a failed execution again from the steps that failed; False if it had not failed.

        With *step_id* it is any execution that has ended, whatever its end, and that step and all
        that follow from it are done again, though they were done. Raises `WorkflowError` if there
        is no such step.
        """
        item_id = new_id()
        with self.storage.begin() as rows:
            found = rows.select(EXECUTION, [Where("id", "eq", execution_id)])
            if not found:
                return False
            stored = rows.select(DEFINITION, [Where("id", "eq", found[0]["definition_id"])])[0]
            again = steps_to_repeat(Workflow.from_dict(stored["body"]), step_id)
            if not self._reopen(rows, execution_id, item_id, any_end=step_id is not None):
                return False
            forget_steps(rows, execution_id, again)
            self._wake(rows, execution_id, item_id, found[0]["tenant_id"])
        return True

    def resume_with(self, rows: Rows, item: OutboxItem) -> bool:
        """
        Resume the execution whose wake-up item is put back to wait, in the same transaction.

        False if the item drives no execution any more: that was resumed with another, ended well,
        or is gone.
        """
        if item.kind != ADVANCE:
            return True
        ended = [ExecutionStatus.FAILED.value, ExecutionStatus.CANCELLED.value]
        execution_id = item.payload["execution_id"]
        its = [
            Where("id", "eq", execution_id),
            Where("item_id", "eq", item.id),
            Where("status", "in", ended),
        ]
        found = rows.select(EXECUTION, its, lock=True)
        if not found:
            return False
        stored = rows.select(DEFINITION, [Where("id", "eq", found[0]["definition_id"])])[0]
        again = steps_to_repeat(Workflow.from_dict(stored["body"]), None)
        self._reopen(rows, execution_id, item.id, any_end=True)
        forget_steps(rows, execution_id, again)
        return True

    def _reopen(self, rows: Rows, execution_id: str, item_id: str, *, any_end: bool) -> bool:
        ended = [status.value for status in ExecutionStatus if status.finished]
        resumable = ended if any_end else [ExecutionStatus.FAILED.value]
        changes = {
            "status": ExecutionStatus.PENDING.value,
            "output": None,
            "error_code": None,
            "error": None,
            "error_group": None,
            "completed_at": None,
            "item_id": item_id,
            "updated_at": Now(),
        }
        where = [Where("id", "eq", execution_id), Where("status", "in", resumable)]
        return bool(rows.update(EXECUTION, where, changes))

    def purge(
        self,
        *,
        older_than_seconds: float,
        limit: int = 1000,
        statuses: Sequence[ExecutionStatus | str] = (),
    ) -> int:
        """
        Delete up to *limit* executions that ended that long ago, with their steps.

        Only those that are in one of *statuses*, by default however they ended.
        """
        purged = 0
        for status in statuses or [status for status in ExecutionStatus if status.finished]:
            if purged < limit:
                purged += self._purge(str(status), older_than_seconds, limit - purged)
        return purged

    def _purge(self, status: str, age: float, limit: int) -> int:
        over = [
            Where("status", "eq", status),
            # It follows from the other, and ends the walk along the index.
            Where("created_at", "le", Now(-age)),
            Where("completed_at", "le", Now(-age)),
        ]
        with self.storage.begin() as rows:
            found = rows.select(
                EXECUTION, over, order_by=("created_at",), limit=limit, lock=True,
                skip_locked=True, columns=("id",),
            )  # fmt: skip
            ids = sorted(row["id"] for row in found)
            rows.delete(STEP, [Where("execution_id", "in", ids)])
            forget_attempts(rows, ids)
            forget_labels(rows, ids)
            return rows.delete(EXECUTION, [Where("id", "in", ids)])

    def give_up(self, rows: Rows, item: OutboxItem) -> None:
        """Fail the execution whose wake-up item was given up, in the same transaction."""
        if item.kind != ADVANCE:
            return
        # Of this item alone: the execution may have been resumed with another.
        its = [Where("id", "eq", item.payload["execution_id"]), Where("item_id", "eq", item.id)]
        found = rows.select(EXECUTION, its)
        for row in found:
            execution = Execution.from_row(row)
            execution.error_code = str(item.last_error_code or ErrorCodes.ABORTED)
            execution.error = f"given up after {item.attempt_count} attempts: {item.last_error}"
            execution.error_group = item.last_error_group
            self.change(rows, execution, ExecutionStatus.FAILED)


def _group(rows: Rows, counted: Row, failed: list[Where]) -> ErrorGroup:
    names = ("workflow", "error_group", "error_code")
    its = [*failed, *(Where(name, "eq", counted[name]) for name in names)]
    read = ("id", "created_at", "completed_at", "error")
    latest = rows.select(EXECUTION, its, order_by=("-created_at",), limit=1, columns=read)
    row: Row = latest[0] if latest else dict.fromkeys(read)
    return ErrorGroup(
        kind=counted["workflow"],
        group=counted["error_group"] or "",
        error_code=counted["error_code"] or "",
        count=counted["n"],
        latest_id=row["id"] or "",
        latest_at=row["completed_at"],
        error=row["error"] or "",
    )
