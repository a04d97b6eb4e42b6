"""
Executions in the host's database: begun once, saved step by step, and ended.

An execution has no lease of its own. The outbox item that wakes it has one, and every save renews
that lease in the same transaction. So only the worker that holds the item can save.
"""

from __future__ import annotations

import itertools
import json
import logging
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from automate_kernel.errors import AutomateError, ErrorCodes, LeaseLostError
from automate_kernel.outbox import NewItem, OutboxItem, OutboxStore, Outcome
from automate_kernel.outbox.failed_attempts import (
    MOST_OF_EXECUTION,
    ErrorGroup,
    FailedAttempt,
    error_groups,
    failed_attempts,
    keep_attempts,
    new_attempt,
)
from automate_kernel.outbox.ids import new_id
from automate_kernel.outbox.item import bounded_seconds, redacted_json
from automate_kernel.outbox.labels import (
    MOST_LABELLED,
    add_labels,
    label_rows,
    labelled_ids,
)
from automate_kernel.outbox.retention import forget
from automate_kernel.secrets.logs import get_logger
from automate_kernel.secrets.tracebacks import MAX_GROUP
from automate_kernel.storage.codec import JsonText
from automate_kernel.storage.paging import LOOK
from automate_kernel.storage.rows import Now, Row, Rows, Storage, Where
from automate_kernel.storage.tables import DEFINITION, EXECUTION, EXECUTION_ACTIVITY, STEP
from automate_kernel.storage.values import MAX_PAYLOAD_BYTES, encode_json, storable
from automate_kernel.workflows.definition.model import Workflow
from automate_kernel.workflows.engine.execution_pages import (
    ExecutionFilter,
    ExecutionPage,
    read_execution_page,
)
from automate_kernel.workflows.engine.statistics import (
    ExecutionActivity,
    ExecutionCounts,
    ExecutionStats,
    note_end,
    read_activity,
    write_activity,
)
from automate_kernel.workflows.execution import (
    Event,
    Execution,
    ExecutionStatus,
    StepKey,
    StepRun,
    StepStatus,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = [
    "ADVANCE",
    "ExecutionEndedError",
    "ExecutionStore",
    "Loaded",
    "change_status",
    "reopen",
]

logger: logging.Logger = get_logger(__name__)

ADVANCE = "automate.advance"
"""The kind of the outbox item that is an execution's wake-up."""

_LIVE = (ExecutionStatus.PENDING.value, ExecutionStatus.RUNNING.value)
_NAMESPACE = uuid.UUID("6ba7b812-9dad-11d1-80b4-00c04fd430c8")
# So many workers may die over one execution before it is given up.
_MAX_CRASHES = 10
# Accepted already, at whose limit its id may be one thing too much.
_MOST_EVENT_BYTES = 2 * MAX_PAYLOAD_BYTES
_NO_OUTPUT = JsonText("null")
# So many executions are resumed in one transaction, so that nobody waits for it for long.
_RESUMED_AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class Loaded:
    """An execution with its steps, the seconds that its retries still wait, and the time of it."""

    execution: Execution
    waits: dict[StepKey, float]
    now: datetime


class ExecutionEndedError(AutomateError):
    """The execution was cancelled while it ran."""

    default_code = ErrorCodes.CANCELLED


def change_status(
    rows: Rows, execution: Execution, status: ExecutionStatus, output: JsonText = _NO_OUTPUT
) -> bool:
    """Set the status and the error of an execution that has not ended; return False if it had."""
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
        changes |= {"completed_at": Now(), "output": output}
    where = [Where("id", "eq", execution.id), Where("status", "in", _LIVE)]
    changed = bool(rows.update(EXECUTION, where, changes))
    if changed:
        execution.status = status
    return changed


def reopen(
    rows: Rows,
    row: Row,
    item_id: str,
    statuses: Sequence[ExecutionStatus],
    step_id: str | None = None,
) -> bool:
    """
    Let the ended execution of *row* wait for the item *item_id*; return False if it can't.

    It must be in one of *statuses*. The steps that did not come to their end are forgotten, with
    those that recover from a failure. With *step_id* that step and all that follow from it are
    forgotten too.
    """
    workflow = _stored_workflow(rows, row["definition_id"])
    again = [step.id for step in workflow.on_failure]
    again += [] if step_id is None else workflow.followers(step_id)
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
    able = [Where("id", "eq", row["id"]), Where("status", "in", [each.value for each in statuses])]
    if not rows.update(EXECUTION, able, changes):
        return False
    its = Where("execution_id", "eq", row["id"])
    stopped = (StepStatus.FAILED, StepStatus.CANCELLED, StepStatus.RUNNING)
    rows.delete(STEP, [its, Where("status", "in", [status.value for status in stopped])])
    if again:
        rows.delete(STEP, [its, Where("step_id", "in", again)])
    return True


def _stored_workflow(rows: Rows, definition_id: str) -> Workflow:
    found = rows.select(DEFINITION, [Where("id", "eq", definition_id)])
    if not found:
        raise AutomateError(
            ErrorCodes.DATA_LOSS, f"workflow definition {definition_id[:12]} is missing"
        )
    return Workflow.from_dict(found[0]["body"])


def _unfinished(run: StepRun) -> list[Where]:
    """Select the row of *run*, as long as it has not ended."""
    live = [status.value for status in StepStatus if not status.finished]
    return [
        Where("execution_id", "eq", run.execution_id),
        Where("step_id", "eq", run.step_id),
        Where("position", "eq", run.position),
        Where("status", "in", live),
    ]


def _step_changes(run: StepRun, output: JsonText | None, delay: float | None) -> Row:
    """Return the columns that a save writes; *output* is encoded, *delay* is that of a retry."""
    if output is None:
        output = encode_json(run.output, f"output of step {run.step_id!r}")
    row: Row = {
        "status": run.status.value,
        "attempts": run.attempts,
        "output": output,
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


def _new_step(run: StepRun, changes: Row) -> Row:
    """Return the first row of *run*."""
    return {
        "id": new_id(),
        "execution_id": run.execution_id,
        "step_id": run.step_id,
        "position": run.position,
        "started_at": None,
        "completed_at": None,
        **changes,
    }


def _attempts(failures: Sequence[FailedAttempt], execution_id: str, claim: str) -> list[Row]:
    """Return the rows of attempts that have failed in the claim with this token."""
    return [new_attempt(execution_id, claim, each) for each in failures]


def _runs(rows: Rows, execution_ids: Sequence[str]) -> dict[str, list[StepRun]]:
    where = [Where("execution_id", "in", list(execution_ids))]
    runs: dict[str, list[StepRun]] = {}
    # Ids are made in the order in which runs begin.
    for row in rows.select(STEP, where, order_by=("id",)):
        runs.setdefault(row["execution_id"], []).append(StepRun.from_row(row))
    return runs


def _equal(**values: Any) -> list[Where]:
    """Return a condition for each of *values* that is not None."""
    return [Where(name, "eq", value) for name, value in values.items() if value is not None]


def _newest(rows: Rows, where: list[Where], limit: int) -> list[Execution]:
    found = rows.select(EXECUTION, where, order_by=("-created_at", "-id"), limit=limit)
    runs = _runs(rows, [row["id"] for row in found])
    return [Execution.from_row(row, runs.get(row["id"], ())) for row in found]


class ExecutionStore:
    """
    The executions of a host: a worker saves them, people find, cancel and resume them.

    *outbox* holds the items that wake them, in the same *storage*.
    """

    def __init__(self, storage: Storage, outbox: OutboxStore) -> None:
        self.storage = storage
        self.outbox = outbox

    # -- beginning ---------------------------------------------------------------------------

    def start(self, rows: Rows, workflow: Workflow, event: Event, *, priority: int = 0) -> str:
        """
        Begin an execution of *workflow* for *event*, in the transaction of *rows*.

        The same event starts the same workflow only once, since the id follows from both.
        """
        execution_id = str(uuid.uuid5(_NAMESPACE, f"{event.id}\n{workflow.name}"))
        definition_id, item_id = workflow.hash(), new_id()
        definition = {
            "id": definition_id,
            "name": workflow.name,
            "body": encode_json(workflow.to_dict(), "workflow"),
            "created_at": Now(),
        }
        execution = {
            "id": execution_id,
            "workflow": workflow.name,
            "definition_id": definition_id,
            "status": ExecutionStatus.PENDING.value,
            "event": encode_json(
                event.to_json(), "payload", _MOST_EVENT_BYTES, inside=1, redact=self.outbox.redact
            ),
            "tenant_id": event.tenant_id,
            "item_id": item_id,
            "created_at": Now(),
            "updated_at": Now(),
        }
        rows.insert(DEFINITION, [definition])
        if rows.insert(EXECUTION, [execution]):
            labels = label_rows(execution_id, "execution", event.labels, event.tenant_id)
            add_labels(rows, labels)
            self._wake(rows, execution_id, item_id, event.tenant_id, priority)
        return execution_id

    def redacted(self, event: Event) -> Event:
        """Return *event*, or a copy whose payload lacks the secrets that are known here."""
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

    # -- saving ------------------------------------------------------------------------------

    def load(self, execution_id: str) -> Loaded | None:
        """Read an execution as it was saved last; None if there is none."""
        with self.storage.begin(atomic=False) as rows:
            found = rows.select(EXECUTION, [Where("id", "eq", execution_id)])
            if not found:
                return None
            runs = _runs(rows, [execution_id]).get(execution_id, [])
            now = rows.now()
        waits = {
            run.key: (run.next_attempt_at - now).total_seconds()
            for run in runs
            if run.status is StepStatus.RETRY and run.next_attempt_at is not None
        }
        return Loaded(Execution.from_row(found[0], runs), waits, now)

    def definition(self, definition_id: str) -> Workflow:
        """Read the definition that an execution is pinned to."""
        with self.storage.begin(atomic=False) as rows:
            return _stored_workflow(rows, definition_id)

    @contextmanager
    def holding(self, item: OutboxItem) -> Iterator[Rows]:
        """
        Open a transaction that renews the lease of *item*, and commits only if we hold it.

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

    def finish(self, rows: Rows, item: OutboxItem, outcome: Outcome) -> None:
        """
        Record the *outcome* of *item* in the transaction that saves its execution.

        Raises `LeaseLostError` if we don't hold its lease any more.
        """
        owner = item.lease_owner or ""
        if self.outbox.acknowledge(owner, [outcome], transaction=rows.native):
            raise LeaseLostError(f"the lease of item {item.id} is lost")

    def save(
        self,
        rows: Rows,
        execution: Execution,
        runs: Sequence[StepRun],
        delays: Mapping[StepKey, float],
        stored: set[StepKey],
        *,
        outputs: Mapping[StepKey, JsonText] | None = None,
        failures: Sequence[FailedAttempt] = (),
        claim: str = "",
    ) -> None:
        """
        Write *runs*; *stored* holds the keys of those that have a row already.

        *outputs* are those of runs that are encoded already. *failures* are attempts that failed
        since the last save, and *claim* is the token of the claim that they were made in.
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
            row = _step_changes(run, (outputs or {}).get(run.key), delays.get(run.key))
            if run.key in stored:
                rows.update(STEP, _unfinished(run), row)
            else:
                new.append(_new_step(run, row))
        if new:
            rows.insert(STEP, new)
        keep_attempts(rows, _attempts(failures, execution.id, claim), MOST_OF_EXECUTION)

    def change(
        self, rows: Rows, execution: Execution, status: ExecutionStatus, output: Any = None
    ) -> bool:
        """Set the status of an execution that has not ended; return False if it had."""
        if not status.finished:
            return change_status(rows, execution, status)
        text, redact = encode_json(output, "output of the workflow"), self.outbox.redact
        if redact is not None and redact.finds(text):
            output = redact(json.loads(text))
            text = encode_json(output, "output of the workflow")
        changed = change_status(rows, execution, status, text)
        if changed:
            execution.output = output
        return changed

    # -- finding -----------------------------------------------------------------------------

    def get(self, execution_id: str) -> Execution | None:
        """Return the execution with this id and its steps, or None."""
        loaded = self.load(execution_id)
        return loaded.execution if loaded else None

    def page(
        self,
        *,
        after: str = "",
        limit: int = 50,
        look: int = LOOK,
        seconds: float = 0.0,
        events: bool = False,
        **matching: Unpack[ExecutionFilter],
    ) -> ExecutionPage:
        """
        Return a page of executions without their outputs and steps, the newest first.

        Events are read with *events* only, since their payloads may be large.
        The index of one condition is read. The others are looked for along it: among *look*
        executions, and again as many, for as many *seconds*, as long as nothing is found.
        `ExecutionPage.after` leads to the next page; pass it as *after*.
        """
        with self.storage.begin(atomic=False) as rows:
            return read_execution_page(
                rows, matching, events=events, after=after, limit=limit, look=look,
                seconds=seconds,
            )  # fmt: skip

    def find(
        self,
        *,
        status: ExecutionStatus | str | None = None,
        workflow: str | None = None,
        tenant_id: str | None = None,
        error_group: str | None = None,
        limit: int = 50,
    ) -> list[Execution]:
        """Find executions that match, with their steps, the newest first."""
        where = _equal(
            status=status and str(status),
            workflow=workflow,
            tenant_id=tenant_id,
            error_group=error_group,
        )
        with self.storage.begin(atomic=False) as rows:
            return _newest(rows, where, limit)

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
        Find executions with *label*, with their steps, the newest first.

        A label is ``order=4711``, or ``4711`` under any name. An index finds them.
        """
        where = _equal(status=status and str(status), workflow=workflow, tenant_id=tenant_id)
        with self.storage.begin(atomic=False) as rows:
            known = labelled_ids(
                rows, label, about="execution", tenant_id=tenant_id, limit=MOST_LABELLED
            )
            return _newest(rows, [*where, Where("id", "in", [each.id for each in known])], limit)

    def failed_attempts(self, execution_id: str) -> list[FailedAttempt]:
        """
        List the errors of all attempts of an execution's steps, the earliest first.

        Those before it was resumed count too. The first is kept, and the latest 199.
        """
        with self.storage.begin(atomic=False) as rows:
            return failed_attempts(rows, execution_id)

    def error_groups(
        self, *, workflow: str | None = None, tenant_id: str | None = None, limit: int = 100
    ) -> list[ErrorGroup]:
        """
        Group the FAILED executions by workflow and by the place that their error came from.

        The largest groups come first; `ErrorGroup.kind` is the workflow's name.
        """
        failed = _equal(status=ExecutionStatus.FAILED.value, workflow=workflow, tenant_id=tenant_id)
        with self.storage.begin(atomic=False) as rows:
            return error_groups(
                rows, EXECUTION, failed, kind="workflow", newest="-created_at", limit=limit
            )

    # -- statistics --------------------------------------------------------------------------

    def stats(self) -> ExecutionStats:
        """Count by workflow those that have not ended and those that FAILED; reads only these."""
        where = [Where("status", "in", [*_LIVE, ExecutionStatus.FAILED.value])]
        with self.storage.begin(atomic=False) as rows:
            found = rows.count(EXECUTION, ("workflow", "status"), where)
        counts: dict[str, dict[str, int]] = {}
        for row in found:
            counts.setdefault(row["workflow"], {})[row["status"]] = row["n"]
        return ExecutionStats(dict(sorted(counts.items())))

    def activity(self, *, seconds: float = 3600.0) -> list[ExecutionCounts]:
        """
        Count the ends of executions and steps in the last *seconds*, by minute and workflow.

        Workers write these counts every few seconds, and they are kept for a week. No execution is
        read.
        """
        with self.storage.begin(atomic=False) as rows:
            return read_activity(rows, seconds)

    def report(self, activity: ExecutionActivity, worker_id: str) -> None:
        """Write down what *activity* has gathered. A worker does so every few seconds."""
        with activity.writing:
            if activity.idle:
                return
            with self.storage.begin() as rows:
                write_activity(rows, activity, worker_id)
            activity.saved()

    def purge_activity(self, *, older_than_seconds: float = 7 * 86_400.0) -> int:
        """Delete old activity; return the number of rows. A worker does so every hour."""
        with self.storage.begin() as rows:
            return rows.delete(EXECUTION_ACTIVITY, [Where("at", "lt", Now(-older_than_seconds))])

    # -- operator commands -------------------------------------------------------------------

    def cancel(self, execution_id: str) -> bool:
        """
        End an execution as CANCELLED; return False if it had ended.

        A step that runs is not interrupted, but nothing follows it: the worker that has the
        execution is asked to stop.
        """
        with self.storage.begin() as rows:
            found = rows.select(EXECUTION, [Where("id", "eq", execution_id)], lock=True)
            if not found:
                return False
            execution = Execution.from_row(found[0])
            cancelled = change_status(rows, execution, ExecutionStatus.CANCELLED)
            if cancelled:
                note_end(rows, execution)
        if cancelled:
            self.outbox.cancel([found[0]["item_id"]])
        return cancelled

    def resume(self, execution_id: str, *, step_id: str | None = None) -> bool:
        """
        Run a failed execution again from the steps that failed; return False if it had not failed.

        With *step_id* it may be any execution that has ended, whatever its end. That step and all
        that follow from it run again, though they had completed. Raises `WorkflowError` if there
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
        error_group: str | None = None,
        created_before: datetime | None = None,
        created_after: datetime | None = None,
        limit: int | None = None,
        per_second: float | None = None,
        progress: Callable[[int], Any] | None = None,
    ) -> int:
        """
        Resume the failed executions that match all of the filters; return their number.

        The oldest come first, and at most *limit*. It takes small transactions, so that workers
        never wait for thousands. *progress* gets the number so far after each. If it is cut short,
        what was resumed stays resumed. With *per_second* so many go on in a second, so that the
        cause of their failure is not overrun. An execution that can't be resumed (its definition is
        gone) is logged and left. Raises ``INVALID_ARGUMENT`` without any filter: to mean all, pass
        ``status="FAILED"``.
        """
        given = (
            status, workflow, tenant_id, error_code, error_group, created_before, created_after
        )  # fmt: skip
        _check_filter(given, status, per_second)
        with self.storage.begin(atomic=False) as rows:
            start = rows.now()
        # Whatever fails anew while this goes on is not meant.
        until = Where("created_at", "lt" if created_before else "le", created_before or start)
        where = _equal(
            status=ExecutionStatus.FAILED.value,
            workflow=workflow,
            tenant_id=tenant_id,
            error_code=error_code,
            error_group=error_group,
        )
        where.append(until)
        if created_after is not None:
            where.append(Where("created_at", "ge", created_after))
        count, place = 0, itertools.count()
        for ids in self._failed(where, limit):
            with self.storage.begin() as rows:
                for execution_id in ids:
                    delay = next(place) / per_second if per_second else 0.0
                    run_at = start + timedelta(seconds=delay) if delay else None
                    count += self._resume_or_leave(rows, execution_id, run_at)
            if progress is not None:
                progress(count)
        return count

    def _failed(self, where: list[Where], limit: int | None) -> Iterator[list[str]]:
        """Yield the ids of executions that match, the oldest first, each once, in small lists."""
        count, beyond = 0, list[Where]()
        # Of the moment that the last ones ended with: they may have stayed, or failed again.
        seen: set[str] = set()
        while limit is None or count < limit:
            most = _RESUMED_AT_ONCE if limit is None else min(_RESUMED_AT_ONCE, limit - count)
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

    def _resume_or_leave(self, rows: Rows, execution_id: str, run_at: datetime | None) -> bool:
        try:
            return self._resume(rows, execution_id, None, run_at)
        except AutomateError as error:
            if error.retryable:
                raise
            logger.warning("execution %s can't be resumed: %s", execution_id, error)
            return False

    def _resume(
        self,
        rows: Rows,
        execution_id: str,
        step_id: str | None,
        run_at: datetime | None = None,
    ) -> bool:
        found = rows.select(EXECUTION, [Where("id", "eq", execution_id)])
        if not found:
            return False
        ended = [status for status in ExecutionStatus if status.finished]
        statuses = [ExecutionStatus.FAILED] if step_id is None else ended
        item_id = new_id()
        if not reopen(rows, found[0], item_id, statuses, step_id):
            return False
        self._wake(rows, execution_id, item_id, found[0]["tenant_id"], run_at=run_at)
        return True

    def purge(
        self,
        *,
        older_than_seconds: float,
        limit: int = 1000,
        statuses: Sequence[ExecutionStatus | str] = (),
    ) -> int:
        """
        Delete up to *limit* executions that ended that long ago, with their steps.

        Only those in one of *statuses*, by default in any.
        """
        purged = 0
        for status in statuses or [each for each in ExecutionStatus if each.finished]:
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
            forget(rows, ids)
            return rows.delete(EXECUTION, [Where("id", "in", ids)])


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
