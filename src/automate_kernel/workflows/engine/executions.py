"""Executions in the host's database: begun once, saved step by step, ended once."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from automate_kernel.errors import AutomateError, ErrorCodes
from automate_kernel.logs import get_logger
from automate_kernel.outbox import NewItem, OutboxItem, OutboxStore
from automate_kernel.outbox.failed_attempts import (
    MOST_LABELLED,
    MOST_OF_EXECUTION,
    ErrorGroup,
    FailedAttempt,
    failed_attempts,
    forget_attempts,
    keep_attempts,
    new_attempt,
)
from automate_kernel.outbox.ids import new_id
from automate_kernel.outbox.item import (
    MAX_PAYLOAD_BYTES,
    bounded_seconds,
    encode_json,
    redacted_json,
    storable,
)
from automate_kernel.outbox.labels import add_labels, forget_labels, label_rows, labelled_ids
from automate_kernel.storage.rows import Now, Row, Rows, Storage, Where
from automate_kernel.storage.tables import DEFINITION, EXECUTION, EXECUTION_ACTIVITY, STEP
from automate_kernel.tracebacks import MAX_GROUP
from automate_kernel.workflows.definition.model import Workflow
from automate_kernel.workflows.engine.statistics import (
    ExecutionActivity,
    ExecutionStats,
    WorkflowActivity,
    note_end,
    read_activity,
    write_activity,
)
from automate_kernel.workflows.execution import (
    Event,
    Execution,
    ExecutionStatus,
    StepRun,
    StepStatus,
)

__all__ = [
    "ADVANCE",
    "LIVE",
    "ExecutionEndedError",
    "ExecutionRows",
    "ExecutionStore",
    "Loaded",
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


ADVANCE = "automate.advance"
"""The kind of the outbox item that is an execution's wake-up."""

LIVE = (ExecutionStatus.PENDING.value, ExecutionStatus.RUNNING.value)
_NAMESPACE = uuid.UUID("6ba7b812-9dad-11d1-80b4-00c04fd430c8")
# How often the worker of one execution may die before it is given up.
_MAX_CRASHES = 10
# Accepted already, at whose limit its id may be one thing too much.
_MOST_EVENT_BYTES = 2 * MAX_PAYLOAD_BYTES


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


class ExecutionRows:
    """
    The state of executions, as a worker writes it.

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
                    "event": encode_json(
                        event.to_json(),
                        "payload",
                        _MOST_EVENT_BYTES,
                        inside=1,
                        redact=self.outbox.redact,
                    ),
                    "tenant_id": event.tenant_id,
                    "item_id": item_id,
                    "created_at": Now(),
                    "updated_at": Now(),
                }
            ],
        )
        if begun:
            labels = label_rows(execution_id, "execution", event.labels, event.tenant_id)
            add_labels(rows, labels)
            self._wake(rows, execution_id, item_id, event.tenant_id, priority)
        return execution_id

    def redacted(self, event: Event) -> Event:
        """*event*, or a copy without the secrets that are known here in its payload."""
        redact = self.outbox.redact
        if redact is None:
            return event
        payload = redacted_json(event.payload, "payload", redact, _MOST_EVENT_BYTES)
        return event if payload is event.payload else replace(event, payload=payload)

    def _wake(
        self,
        rows: Rows,
        execution_id: str,
        item_id: str,
        tenant_id: str | None,
        priority: int = 0,
        *,
        run_at: datetime | None = None,
    ) -> None:
        item = NewItem(
            ADVANCE,
            {"execution_id": execution_id},
            id=item_id,
            tenant_id=tenant_id,
            priority=priority,
            run_at=run_at,
            max_attempts=_MAX_CRASHES,
        )
        self.outbox.enqueue_many([item], transaction=rows.native)

    # -- working -----------------------------------------------------------------------------

    def load(self, execution_id: str) -> Loaded | None:
        """An execution as it was saved last, or None."""
        with self.storage.begin(atomic=False) as rows:
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
        with self.storage.begin(atomic=False) as rows:
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
        *,
        failures: Sequence[FailedAttempt] = (),
        claim: str = "",
    ) -> None:
        """
        Write *runs*; *stored* holds the keys of those that have a row already.

        *failures* are attempts that failed since the last save, and *claim* is the token of the
        claim that they were made in.
        Raises `ExecutionEndedError` if the execution was cancelled meanwhile.
        """
        live = [
            Where("id", "eq", execution.id),
            Where("status", "in", LIVE),
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
        keep_attempts(rows, attempt_rows(failures, execution.id, claim), MOST_OF_EXECUTION)

    def change(
        self, rows: Rows, execution: Execution, status: ExecutionStatus, output: Any = None
    ) -> bool:
        """Set the status of an execution that has not ended; False if it had."""
        changes: dict[str, Any] = {
            "status": status.value,
            "error_code": execution.error_code,
            "error": storable(execution.error) if execution.error else None,
            "error_group": (
                storable(execution.error_group, MAX_GROUP) if execution.error_group else None
            ),
            "updated_at": Now(),
        }
        if status.finished:
            changes["completed_at"] = Now()
            if self.outbox.redact is not None:
                output = redacted_json(output, "output of the workflow", self.outbox.redact)
            changes["output"] = encode_json(output, "output of the workflow")
        where = [Where("id", "eq", execution.id), Where("status", "in", LIVE)]
        changed = bool(rows.update(EXECUTION, where, changes))
        if changed:
            execution.status = status
            execution.output = output
        return changed

    def _runs(self, rows: Rows, execution_ids: Sequence[str]) -> dict[str, list[StepRun]]:
        where = [Where("execution_id", "in", list(execution_ids))]
        runs: dict[str, list[StepRun]] = {}
        # Ids are made in the order in which runs begin.
        for row in rows.select(STEP, where, order_by=("id",)):
            runs.setdefault(row["execution_id"], []).append(StepRun.from_row(row))
        return runs


logger: logging.Logger = get_logger(__name__)


# How many executions one transaction resumes, so that nobody waits for it for long.
_AT_ONCE = 50


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

    # -- counting ------------------------------------------------------------------------------

    def stats(self) -> ExecutionStats:
        """How many have not ended, and how many FAILED, by workflow; looks at these rows alone."""
        where = [Where("status", "in", [*LIVE, ExecutionStatus.FAILED.value])]
        with self.storage.begin(atomic=False) as rows:
            found = rows.count(EXECUTION, ("workflow", "status"), where)
        counts: dict[str, dict[str, int]] = {}
        for row in found:
            counts.setdefault(row["workflow"], {})[row["status"]] = row["n"]
        return ExecutionStats(dict(sorted(counts.items())))

    def activity(self, *, seconds: float = 3600.0) -> list[WorkflowActivity]:
        """
        What became of executions and their steps in the last *seconds*, by minute and workflow.

        It counts what workers have told so far, which they do every few seconds, and goes back a
        week. Reads no execution.
        """
        with self.storage.begin(atomic=False) as rows:
            return read_activity(rows, seconds)

    def report(self, log: ExecutionActivity, worker_id: str) -> None:
        """Write down what *log* has gathered. A worker does so every few seconds."""
        with log.writing:
            if log.idle:
                return
            with self.storage.begin() as rows:
                write_activity(rows, log, worker_id)
            log.saved()

    def purge_activity(self, *, older_than_seconds: float = 7 * 86_400.0) -> int:
        """Forget old activity; returns how many rows. A worker does so every hour."""
        with self.storage.begin() as rows:
            return rows.delete(EXECUTION_ACTIVITY, [Where("at", "lt", Now(-older_than_seconds))])

    # -- steering ------------------------------------------------------------------------------

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
                note_end(rows, execution)
        if cancelled:
            self.outbox.cancel([found[0]["item_id"]])
        return cancelled

    def cancel_with(self, rows: Rows, item: OutboxItem) -> None:
        """Cancel the execution whose wake-up item was cancelled, in the same transaction."""
        if item.kind != ADVANCE:
            return
        where = [Where("id", "eq", item.payload["execution_id"]), Where("item_id", "eq", item.id)]
        for row in rows.select(EXECUTION, where):
            execution = Execution.from_row(row)
            if self.change(rows, execution, ExecutionStatus.CANCELLED):
                note_end(rows, execution)

    def resume(self, execution_id: str, *, step_id: str | None = None) -> bool:
        """
        Run a failed execution again from the steps that failed; False if it had not failed.

        With *step_id* it is any execution that has ended, whatever its end, and that step and all
        that follow from it are done again, though they were done. Raises `WorkflowError` if there
        is no such step.
        """
        with self.storage.begin() as rows:
            return self._resume(rows, execution_id, step_id)

    def resume_matching(
        self,
        *,
        status: ExecutionStatus | str | None = None,
        workflow: str | None = None,
        tenant_id: str | None = None,
        error_code: str | None = None,
        created_before: datetime | None = None,
        created_after: datetime | None = None,
        limit: int | None = None,
        per_second: float | None = None,
        progress: Callable[[int], Any] | None = None,
    ) -> int:
        """
        Resume the failed executions that match all of what is given; returns how many.

        The oldest first and at most *limit*, in small transactions, so that workers never wait for
        thousands; *progress* is told after each how many there were so far, and if it is cut short,
        what was resumed stays resumed. With *per_second* so many go on in a second, so that
        whatever they failed of is not overrun. One that cannot be resumed (its definition is gone)
        is logged and left. Raises ``INVALID_ARGUMENT`` if nothing is given: who means all says
        ``status="FAILED"``.
        """
        given = (status, workflow, tenant_id, error_code, created_before, created_after)
        _check_filter(given, status, per_second)
        with self.storage.begin(atomic=False) as rows:
            start = rows.now()
        # Whatever fails anew while this goes on is not meant.
        until = Where("created_at", "lt" if created_before else "le", created_before or start)
        given_too = (
            Where("workflow", "eq", workflow),
            Where("tenant_id", "eq", tenant_id),
            Where("error_code", "eq", error_code),
            Where("created_at", "ge", created_after),
        )
        where = [Where("status", "eq", ExecutionStatus.FAILED.value), until]
        where += [one for one in given_too if one.value is not None]
        count, begun = 0, 0
        for ids in self._failed(where, limit):
            due = [
                start + timedelta(seconds=(begun + number) / per_second) if per_second else None
                for number in range(len(ids))
            ]
            begun += len(ids)
            count += self._resume_all(ids, due, start)
            if progress is not None:
                progress(count)
        return count

    def _failed(self, where: list[Where], limit: int | None) -> Iterator[list[str]]:
        """The ids of executions that match, the oldest first, some at a time and each once."""
        count, beyond = 0, list[Where]()
        # Of the moment that the last ones ended with: they may have stayed, or failed again.
        seen: set[str] = set()
        while limit is None or count < limit:
            most = _AT_ONCE if limit is None else min(_AT_ONCE, limit - count)
            with self.storage.begin(atomic=False) as rows:
                found = rows.select(
                    EXECUTION, [*where, *beyond], order_by=("created_at", "id"),
                    limit=most + len(seen), columns=("id", "created_at"),
                )  # fmt: skip
            new = [row for row in found if row["id"] not in seen][:most]
            if not new:
                return
            count += len(new)
            last = new[-1]["created_at"]
            if beyond and beyond[0].value != last:
                seen = set()
            seen |= {row["id"] for row in new if row["created_at"] == last}
            beyond = [Where("created_at", "ge", last)]
            yield [row["id"] for row in new]

    def _resume_all(
        self, ids: Sequence[str], due: Sequence[datetime | None], start: datetime
    ) -> int:
        count = 0
        with self.storage.begin() as rows:
            for execution_id, at in zip(ids, due, strict=True):
                run_at = at if at is not None and at > start else None
                try:
                    count += self._resume(rows, execution_id, None, run_at)
                except AutomateError as error:
                    if error.retryable:
                        raise
                    logger.warning("execution %s can't be resumed: %s", execution_id, error)
        return count

    def _resume(
        self,
        rows: Rows,
        execution_id: str,
        step_id: str | None,
        run_at: datetime | None = None,
    ) -> bool:
        item_id = new_id()
        found = rows.select(EXECUTION, [Where("id", "eq", execution_id)])
        if not found:
            return False
        definition_id = found[0]["definition_id"]
        stored = rows.select(DEFINITION, [Where("id", "eq", definition_id)])
        if not stored:
            raise AutomateError(
                ErrorCodes.DATA_LOSS, f"workflow definition {definition_id[:12]} is missing"
            )
        again = steps_to_repeat(Workflow.from_dict(stored[0]["body"]), step_id)
        if not self._reopen(rows, execution_id, item_id, any_end=step_id is not None):
            return False
        forget_steps(rows, execution_id, again)
        self._wake(rows, execution_id, item_id, found[0]["tenant_id"], run_at=run_at)
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
            if self.change(rows, execution, ExecutionStatus.FAILED):
                note_end(rows, execution)


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


def _check_filter(
    given: Sequence[object], status: ExecutionStatus | str | None, per_second: float | None
) -> None:
    problem, hint = "", None
    if all(each is None for each in given):
        problem = "no filter says which executions are meant"
        hint = 'to mean all that failed, say so: status="FAILED"'
    elif status is not None and str(status) != ExecutionStatus.FAILED.value:
        problem = f"executions that are {status} can't be resumed together"
        hint = "only those that are FAILED"
    elif per_second is not None and not per_second > 0:
        problem = "per_second must be above 0"
    if problem:
        raise AutomateError(ErrorCodes.INVALID_ARGUMENT, problem, hint=hint)
