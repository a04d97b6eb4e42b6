"""Executions in the host's database: begun once, saved step by step, ended once."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from automate_kernel.errors import AutomateError, ErrorCodes
from automate_kernel.outbox import NewItem, OutboxItem, OutboxStore
from automate_kernel.outbox.ids import new_id
from automate_kernel.outbox.payloads import MAX_PAYLOAD_BYTES, encode_json, storable
from automate_kernel.storage.rows import Now, Rows, Storage, Where
from automate_kernel.storage.tables import DEFINITION, EXECUTION, STEP
from automate_kernel.workflows.execution import (
    Event,
    Execution,
    ExecutionStatus,
    StepRun,
    StepStatus,
)
from automate_kernel.workflows.model import Workflow
from automate_kernel.workflows.step_rows import (
    forget_steps,
    new_step_row,
    step_row,
    steps_to_repeat,
    unfinished,
)

__all__ = ["ADVANCE", "ExecutionEndedError", "ExecutionStore", "Loaded"]

ADVANCE = "automate.advance"
"""The kind of the outbox item that is an execution's wake-up."""

_LIVE = (ExecutionStatus.PENDING.value, ExecutionStatus.RUNNING.value)
_NAMESPACE = uuid.UUID("6ba7b812-9dad-11d1-80b4-00c04fd430c8")
# How often the worker of one execution may die before it is given up.
_MAX_CRASHES = 10


@dataclass(frozen=True, slots=True)
class Loaded:
    """
    An execution with its steps, the seconds that its retries still wait, and when that was.
    """

    execution: Execution
    waits: dict[tuple[str, int], float]
    now: datetime


class ExecutionEndedError(AutomateError):
    """The execution was cancelled while it ran."""

    default_code = ErrorCodes.CANCELLED


class ExecutionStore:
    """
    The state of executions.

    There is no lease here: the execution's outbox item has one, and every save renews it in the
    same transaction, so that only the worker which holds the item can save.
    """

    def __init__(self, storage: Storage, outbox: OutboxStore) -> None:
        self.storage = storage
        self.outbox = outbox

    # -- beginning ---------------------------------------------------------------------------

    def start(self, rows: Rows, workflow: Workflow, event: Event, *, priority: int = 0) -> str:
        """
        Begin an execution of *workflow* for *event*, in the transaction of *rows*.

        The same event starts the same workflow only once; the id says which they were.
        """
        execution_id = str(uuid.uuid5(_NAMESPACE, f"{event.id}\n{workflow.name}"))
        definition, item_id = workflow.hash(), new_id()
        body = encode_json(workflow.to_dict(), "workflow")
        rows.insert(
            DEFINITION,
            [{"id": definition, "name": workflow.name, "body": body, "created_at": Now()}],
        )
        begun = rows.insert(
            EXECUTION,
            [
                {
                    "id": execution_id,
                    "workflow": workflow.name,
                    "definition_id": definition,
                    "status": ExecutionStatus.PENDING.value,
                    # Accepted already, at whose limit its id may be one thing too much.
                    "event": encode_json(event.to_json(), "event", 2 * MAX_PAYLOAD_BYTES),
                    "tenant_id": event.tenant_id,
                    "item_id": item_id,
                    "created_at": Now(),
                    "updated_at": Now(),
                }
            ],
        )
        if begun:
            self._wake(rows, execution_id, item_id, event.tenant_id, priority)
        return execution_id

    def _wake(
        self, rows: Rows, execution_id: str, item_id: str, tenant_id: str | None, priority: int = 0
    ) -> None:
        item = NewItem(
            ADVANCE,
            {"execution_id": execution_id},
            id=item_id,
            tenant_id=tenant_id,
            priority=priority,
            max_attempts=_MAX_CRASHES,
        )
        self.outbox.enqueue_many([item], transaction=rows.native)

    # -- working -----------------------------------------------------------------------------

    def load(self, execution_id: str) -> Loaded | None:
        """An execution as it was saved last, or None."""
        with self.storage.begin() as rows:
            found = rows.select(EXECUTION, [Where("id", "eq", execution_id)])
            if not found:
                return None
            runs = self._runs(rows, [execution_id]).get(execution_id, [])
            now = rows.now()
        waits = {
            (run.step_id, run.position): (run.next_attempt_at - now).total_seconds()
            for run in runs
            if run.status is StepStatus.RETRY and run.next_attempt_at is not None
        }
        return Loaded(Execution.from_row(found[0], runs), waits, now)

    def definition(self, definition_id: str) -> Workflow:
        """The definition that an execution is pinned to."""
        with self.storage.begin() as rows:
            found = rows.select(DEFINITION, [Where("id", "eq", definition_id)])
        if not found:
            raise AutomateError(
                ErrorCodes.DATA_LOSS, f"workflow definition {definition_id[:12]} is missing"
            )
        return Workflow.from_dict(found[0]["body"])

    @contextmanager
    def holding(self, item: OutboxItem) -> Iterator[Rows]:
        """
        A transaction that commits only if *item* is still ours, and renews its lease.

        Raises `LeaseLostError`, and nothing is saved.
        """
        with self.storage.begin() as rows:
            self.outbox.renew(
                item.id,
                item.lease_owner or "",
                token=item.lease_token,
                transaction=rows.native,
            )
            yield rows

    def save(
        self,
        rows: Rows,
        execution: Execution,
        runs: Sequence[StepRun],
        delays: dict[tuple[str, int], float],
        stored: set[tuple[str, int]],
    ) -> None:
        """
        Write *runs*; *stored* holds the keys of those that have a row already.

        Raises `ExecutionEndedError` if the execution was cancelled meanwhile.
        """
        live = [
            Where("id", "eq", execution.id),
            Where("status", "in", _LIVE),
            # It may have been cancelled and resumed, and then it is another item's to drive.
            Where("item_id", "eq", execution.item_id),
        ]
        changes = {"status": ExecutionStatus.RUNNING.value, "updated_at": Now()}
        if not rows.update(EXECUTION, live, changes):
            raise ExecutionEndedError(message=f"execution {execution.id} has ended")
        execution.status = ExecutionStatus.RUNNING
        new = []
        for run in runs:
            row = step_row(run, delays.get((run.step_id, run.position)))
            if (run.step_id, run.position) in stored:
                rows.update(STEP, unfinished(run), row)
            else:
                new.append(new_step_row(run, row))
        if new:
            rows.insert(STEP, new)

    def change(
        self, rows: Rows, execution: Execution, status: ExecutionStatus, output: Any = None
    ) -> bool:
        """Set the status of an execution that has not ended; False if it had."""
        changes: dict[str, Any] = {
            "status": status.value,
            "error_code": execution.error_code,
            "error": storable(execution.error) if execution.error else None,
            "updated_at": Now(),
        }
        if status.finished:
            changes["completed_at"] = Now()
            changes["output"] = encode_json(output, "output of the workflow")
        where = [Where("id", "eq", execution.id), Where("status", "in", _LIVE)]
        changed = bool(rows.update(EXECUTION, where, changes))
        if changed:
            execution.status = status
            execution.output = output
        return changed

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
        limit: int = 50,
    ) -> list[Execution]:
        """Executions that match, with their steps, the newest first."""
        wanted = {"status": status and str(status), "workflow": workflow, "tenant_id": tenant_id}
        where = [Where(name, "eq", value) for name, value in wanted.items() if value is not None]
        with self.storage.begin() as rows:
            found = rows.select(EXECUTION, where, order_by=("-created_at", "-id"), limit=limit)
            runs = self._runs(rows, [row["id"] for row in found])
        return [Execution.from_row(row, runs.get(row["id"], ())) for row in found]

    def _runs(self, rows: Rows, execution_ids: Sequence[str]) -> dict[str, list[StepRun]]:
        where = [Where("execution_id", "in", list(execution_ids))]
        runs: dict[str, list[StepRun]] = {}
        # Ids are made in the order in which runs begin.
        for row in rows.select(STEP, where, order_by=("id",)):
            runs.setdefault(row["execution_id"], []).append(StepRun.from_row(row))
        return runs

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
            self.change(rows, execution, ExecutionStatus.FAILED)
