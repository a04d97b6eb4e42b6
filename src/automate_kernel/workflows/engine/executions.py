"""
Executions in the host's database: begun once, saved step by step, and ended.

An execution has no lease of its own. The outbox item that wakes it has one, and every save renews
that lease in the same transaction. So only the worker that holds the item can save.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from automate_kernel.errors import AutomateError, ErrorCodes, LeaseLostError, UnknownHereError
from automate_kernel.outbox import (
    ItemStatus,
    NewItem,
    OutboxItem,
    OutboxStore,
    Outcome,
    RowsOutboxStore,
)
from automate_kernel.outbox.failed_attempts import (
    MOST_OF_EXECUTION,
    ErrorGroup,
    FailedAttempt,
    error_groups,
    failed_attempts,
    keep_attempts,
    new_attempt,
    seconds_between,
)
from automate_kernel.outbox.handover import NOTE, Handover
from automate_kernel.outbox.ids import new_id
from automate_kernel.outbox.item import (
    TRACE_HEADERS,
    WAITING,
    bounded_seconds,
    redacted_json,
    seconds,
)
from automate_kernel.outbox.labels import (
    MAX_LABELS,
    MOST_LABELLED,
    add_labels,
    joined_labels,
    label_rows,
    labelled_ids,
    redacted_labels,
    replace_labels,
)
from automate_kernel.outbox.queries import item_ids_of
from automate_kernel.outbox.retention import forget
from automate_kernel.secrets.logs import get_logger
from automate_kernel.secrets.tracebacks import MAX_GROUP
from automate_kernel.storage.checkpoint import (
    LIVE,
    Checkpoint,
    Saved,
    save_checkpoints,
    save_progress,
)
from automate_kernel.storage.codec import NULL, JsonText
from automate_kernel.storage.output_store import OutputStore
from automate_kernel.storage.paging import LOOK
from automate_kernel.storage.rows import Now, Row, Rows, Storage, Where
from automate_kernel.storage.tables import (
    AWAITED,
    DEFINITION,
    EXECUTION,
    EXECUTION_ACTIVITY,
    LABEL,
    OUTBOX,
    STEP,
    WAIT,
)
from automate_kernel.storage.values import MAX_PAYLOAD_BYTES, Redaction, encode_json, storable
from automate_kernel.workflows.attempts import StepAttempt, step_attempts
from automate_kernel.workflows.definition.admission import Debounce
from automate_kernel.workflows.definition.model import CodeWorkflow, Workflow
from automate_kernel.workflows.engine import admission as admissions
from automate_kernel.workflows.engine.admission import Admission, SkippedError
from automate_kernel.workflows.engine.advance import Turn
from automate_kernel.workflows.engine.children import (
    Child,
    cancel_items,
    end_items,
    outside_items,
)
from automate_kernel.workflows.engine.continuations import (
    Successor,
    check_not_continued,
    live_successor,
)
from automate_kernel.workflows.engine.definitions import purge_definitions
from automate_kernel.workflows.engine.execution_pages import (
    ExecutionFilter,
    ExecutionPage,
    read_execution_page,
)
from automate_kernel.workflows.engine.large_outputs import NOT_HERE, LargeOutputs
from automate_kernel.workflows.engine.pauses import WorkflowPauses
from automate_kernel.workflows.engine.record import LONGEST_PLACE, in_order
from automate_kernel.workflows.engine.repair import (
    check_fits,
    cleaning_again,
    copied_steps,
    delete_runs,
    forgotten,
    reopen_rows,
    reopening,
)
from automate_kernel.workflows.engine.signal_store import SignalStore
from automate_kernel.workflows.engine.statistics import (
    ExecutionActivity,
    ExecutionCounts,
    ExecutionStats,
    note_end,
    read_activity,
    write_activity,
)
from automate_kernel.workflows.engine.waits import Arrived, OpenWait, WaitingFor
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
    "SAME",
    "ExecutionStore",
    "Loaded",
    "Save",
    "begin_cancelling",
    "change_status",
    "concurrency_of",
    "end_from_outside",
    "keyed_execution_id",
    "must_clean_up",
    "reopen",
    "wake_up",
]

logger: logging.Logger = get_logger(__name__)

ADVANCE = "automate.advance"
"""The kind of the outbox item that is an execution's wake-up."""

PENDING, RUNNING, PAUSED = (
    ExecutionStatus.PENDING.value, ExecutionStatus.RUNNING.value, ExecutionStatus.PAUSED.value
)  # fmt: skip
_GOING = (PENDING, RUNNING, PAUSED)
SAME: Any = object()
"""In place of a payload: the same as before."""

_ENDED = [status for status in ExecutionStatus if status.finished]
# An execution may be resumed with another item between two looks at it, but not for ever.
_TRIES = 3
_MOST_LINKS = 20
# In a store that can't park an item, it is looked at so often.
_LATE_SECONDS = 60.0
_NAMESPACE = uuid.UUID("6ba7b812-9dad-11d1-80b4-00c04fd430c8").bytes
# So many workers may die over one execution before it is given up.
_MAX_CRASHES = 10
# Accepted already, at whose limit its id may be one thing too much.
_MOST_EVENT_BYTES = 2 * MAX_PAYLOAD_BYTES
_NO_LABELS: Mapping[str, str] = {}
_MOST_REASON = 1000
# So many executions are resumed in one transaction, so that nobody waits for it for long.
_RESUMED_AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class Loaded:
    """An execution with its steps, the seconds until some of them are due, and the time of it."""

    execution: Execution
    waits: dict[StepKey, float]
    now: datetime
    open: Mapping[StepKey, OpenWait] = field(default_factory=dict)
    """The waits that go on, without those for a time."""
    arrived: Mapping[StepKey, Arrived] = field(default_factory=dict)
    """The signals that have come for them."""
    new: bool = False
    """True if it was begun a moment ago, by who drives it: it is RUNNING, and nothing is saved."""


@dataclass(frozen=True, slots=True)
class _NewExecution:
    """An execution that is to begin, as its row, with the item that wakes it."""

    workflow: Workflow
    event: Event
    row: Row
    item: NewItem
    labels: Mapping[str, str] = field(default_factory=dict)
    """All of its labels: the workflow's own, and its event's."""

    @property
    def label_rows(self) -> list[Row]:
        """The rows by which it is found."""
        return label_rows(self.id, "execution", self.labels, self.event.tenant_id)

    @property
    def id(self) -> str:
        """The execution's id."""
        return str(self.row["id"])

    def loaded(self, item: OutboxItem) -> Loaded:
        """Return the execution as it was begun a moment ago, with *item* claimed."""
        nothing = dict.fromkeys(
            (
                "output",
                "output_ref",
                "error_code",
                "error",
                "error_group",
                "completed_at",
                "chain_id",
                "successor_id",
            )
        )
        texts, now = ((name, self.row[name]) for name in ("event", "labels")), item.created_at
        read = {name: None if text is None else json.loads(text) for name, text in texts}
        row = {**nothing, **self.row, **read, "created_at": now, "updated_at": now}
        return Loaded(Execution.from_row(row), {}, now, new=True)


def execution_id_of(event: Event, workflow: str) -> str:
    """Return the id of the execution that *event* begins: the same one each time."""
    return _uuid5(f"{event.id}\n{workflow}")


def keyed_execution_id(workflow: str, tenant_id: str | None, idempotency_key: str) -> str:
    """Return the id of the execution that a start with *idempotency_key* begins."""
    about = json.dumps(["idempotency", workflow, tenant_id, idempotency_key])
    return _uuid5(about)


def _uuid5(name: str) -> str:
    """Return what `uuid.uuid5` does, in less than half of its time."""
    digest = hashlib.sha1(_NAMESPACE + name.encode(), usedforsecurity=False).digest()[:16]
    value = int.from_bytes(digest, "big") & ~(0xF000 << 64 | 0xC000 << 48)
    text = f"{value | 5 << 76 | 0x8000 << 48:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _new_execution(
    workflow: Workflow,
    event: Event,
    priority: int,
    redact: Redaction | None,
    execution_id: str | None = None,
    parent_id: str | None = None,
    own: Mapping[str, str] = _NO_LABELS,
) -> _NewExecution:
    # It follows from both: the same event starts the same workflow once.
    execution_id = execution_id or execution_id_of(event, workflow.name)
    item = wake_up(execution_id, new_id(), event.tenant_id, priority)
    row = {
        "id": execution_id,
        "workflow": workflow.name,
        "definition_id": workflow.hash(),
        "status": ExecutionStatus.PENDING.value,
        "event": encode_json(
            event.to_json(), "payload", _MOST_EVENT_BYTES, inside=1, redact=redact
        ),
        "tenant_id": event.tenant_id,
        "item_id": item.id,
        "parent_id": parent_id,
        "labels": encode_json(own, "labels") if own else None,
        "created_at": Now(),
        "updated_at": Now(),
    }
    labels = joined_labels(own, event.labels) if own else event.labels
    return _NewExecution(workflow, event, row, item, labels)


def _definition(workflow: Workflow) -> Row:
    about = {"name": workflow.name, "body": workflow.body()}
    return {"id": workflow.hash(), **about, "created_at": Now()}


def wake_up(
    execution_id: str,
    item_id: str,
    tenant_id: str | None,
    priority: int = 0,
    run_at: datetime | None = None,
    concurrency: tuple[str, int] | None = None,
) -> NewItem:
    """Return the outbox item that drives an execution."""
    key, limit = concurrency or (None, None)
    return NewItem(
        ADVANCE,
        {"execution_id": execution_id},
        id=item_id,
        tenant_id=tenant_id,
        priority=priority,
        run_at=run_at,
        max_attempts=_MAX_CRASHES,
        concurrency_key=key,
        concurrency_limit=limit,
        # It goes on while it waits for a retry, a time or an event.
        keeps_slot=concurrency is not None,
    )


@dataclass(slots=True)
class Save:
    """
    The progress of an execution since its last checkpoint: a turn of `advance`.

    *begun* has, of the runs that began here, the id of their row and the seconds since then.
    *stored* is False for the first checkpoint of an execution. *waiting* are the waits of one that
    is parked. *advanced* is True once a step has ended under this claim. *moment* is about the time
    of the database.
    """

    item: OutboxItem
    execution: Execution
    turn: Turn
    begun: Mapping[StepKey, tuple[str, float]]
    stored: bool
    waiting: Sequence[OpenWait] = ()
    advanced: bool = False
    moment: datetime | None = None


def change_status(
    rows: Rows, execution: Execution, status: ExecutionStatus, output: JsonText = NULL
) -> bool:
    """Set the status and the error of an execution that has not ended; return False if it had."""
    code, error, group = _stored_error(execution)
    changes: dict[str, Any] = {
        "status": status.value,
        "error_code": code,
        "error": error,
        "error_group": group,
        "updated_at": Now(),
    }
    if status.finished:
        changes |= {"completed_at": Now(), "output": output}
    where = [Where("id", "eq", execution.id), Where("status", "in", LIVE)]
    changed = bool(rows.update(EXECUTION, where, changes))
    if changed:
        execution.status = status
    return changed


def must_clean_up(rows: Rows, row: Row) -> bool:
    """Return True if the execution of *row* goes on, and must clean up once it is cancelled."""
    if row["status"] not in _GOING:
        return False
    try:
        return _stored_workflow(rows, row["definition_id"]).cleans_up
    except AutomateError as error:
        logger.warning("execution %s can't be cleaned up: %s", row["id"], error)
        return False


def begin_cancelling(rows: Rows, row: Row, **changes: Any) -> bool:
    """Let the execution of *row*, which is locked, clean up, and then be CANCELLED."""
    cancelling = {"status": ExecutionStatus.CANCELLING.value, "updated_at": Now(), **changes}
    able = [Where("id", "eq", row["id"]), Where("status", "in", LIVE)]
    return bool(rows.update(EXECUTION, able, cancelling))


def end_from_outside(rows: Rows, execution: Execution, status: ExecutionStatus) -> bool:
    """End an execution that no worker ends, and its steps; return False if it had ended."""
    if not change_status(rows, execution, status):
        return False
    live = [each.value for each in StepStatus if not each.finished]
    its = [Where("execution_id", "eq", execution.id), Where("status", "in", live)]
    rows.update(STEP, its, {"status": StepStatus.CANCELLED.value, "completed_at": Now()})
    rows.delete(WAIT, [Where("execution_id", "eq", execution.id)])
    note_end(rows, execution)
    return True


def reopen(
    rows: Rows,
    row: Row,
    item_id: str,
    statuses: Sequence[ExecutionStatus],
    step_id: str | None = None,
    workflow: Workflow | None = None,
) -> bool:
    """
    Let the ended execution of *row* wait for the item *item_id*; return False if it can't.

    It must be in one of *statuses*. The steps that did not come to their end are forgotten, with
    those that cleaned up, and those that were undone with all that follow from them. With *step_id*
    that step and all that follow from it are forgotten too. With *workflow* it goes on with this
    definition of it, and raises ``FAILED_PRECONDITION`` if that lacks a step that has completed.
    """
    known = _stored_workflow(rows, row["definition_id"])
    in_code = isinstance(known, CodeWorkflow)
    gone = forgotten(rows, row["id"], known, step_id if workflow is None or in_code else None)
    changes = reopening(item_id)
    if workflow is not None:
        if step_id is not None and not in_code:
            gone.steps |= set(workflow.followers(step_id))
        gone.steps |= {step.id for step in workflow.every_step() if step not in workflow.steps}
        check_fits(rows, row["id"], known, workflow, gone)
        rows.insert(DEFINITION, [_definition(workflow)])
        changes["definition_id"] = workflow.hash()
    if not reopen_rows(rows, row, statuses, changes):
        return False
    gone.delete(rows, row["id"], known)
    return True


def _stored_workflow(rows: Rows, definition_id: str) -> Workflow:
    found = rows.select(DEFINITION, [Where("id", "eq", definition_id)])
    if not found:
        raise AutomateError(
            ErrorCodes.DATA_LOSS, f"workflow definition {definition_id[:12]} is missing"
        )
    try:
        return Workflow.from_dict(found[0]["body"])
    except ValidationError as error:
        # It was read where it was saved: by a version with other fields.
        place = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise UnknownHereError(
            f"can't read the definition of workflow {found[0]['name']!r}:"
            f" {place or 'it'} is of another version",
            reason="UNREADABLE_DEFINITION",
            hint="update automate-kernel here",
        ) from None


def concurrency_of(rows: Rows, row: Row) -> tuple[str, int] | None:
    """Return the concurrency key and its limit of an execution that has one."""
    if row["concurrency_key"] is None:
        return None
    workflow = _stored_workflow(rows, row["definition_id"])
    return row["concurrency_key"], workflow.concurrency.limit if workflow.concurrency else 1


def _same_workflow(name: str, workflow: Workflow) -> Workflow:
    if workflow.name == name:
        return workflow
    raise AutomateError(
        ErrorCodes.INVALID_ARGUMENT,
        f"the execution is one of workflow {name!r}, not of {workflow.name!r}",
        hint="pass a definition with the same name, or start the other workflow",
    )


def _step_row(save: Save, run: StepRun) -> Row:
    """Return the row of *run*; the database's clock gives it its times."""
    output, delay = save.turn.outputs.get(run.key), save.turn.delays.get(run.key)
    if run.output_ref is not None:
        output = NOT_HERE
    elif output is None:
        output = encode_json(run.output, f"output of step {run.step_id!r}")
    # Ids are made when runs begin: their order is that of the rows.
    row_id, since = save.begun.get(run.key) or (new_id(), None)
    code, error, group = _stored_error(run)
    return {
        "id": row_id,
        "execution_id": run.execution_id,
        "step_id": run.step_id,
        "position": run.position,
        "status": run.status.value,
        "attempts": run.attempts,
        "output": output,
        "error_code": code,
        "error": error,
        "trace": storable(run.trace) if run.trace else None,
        "error_group": group,
        "started_at": None if since is None else Now(-since),
        "next_attempt_at": Now(bounded_seconds(delay)) if delay is not None else None,
        "completed_at": Now() if run.status.finished else None,
        "place": run.place and storable(run.place, LONGEST_PLACE),
        "output_ref": run.output_ref,
        # Of its latest attempt, if that was made here.
        "attempted_at": None if since is None else Now(-since),
        "worker_id": None if since is None else save.item.lease_owner,
    }


def _stored_error(failed: Execution | StepRun) -> tuple[str | None, str | None, str | None]:
    """Return an error as columns take it: code, text and group."""
    return (
        failed.error_code,
        storable(failed.error) if failed.error else None,
        storable(failed.error_group, MAX_GROUP) if failed.error_group else None,
    )


def _attempts(save: Save) -> list[Row]:
    """Return the rows of attempts that have failed since the last checkpoint."""
    claim, now, id_ = save.item.lease_token or "", save.moment, save.execution.id
    return [
        # As long ago as by the clock here: the two agree about no millisecond.
        new_attempt(id_, claim, each, began=seconds_between(each.started_at, now))
        for each in save.turn.failures
    ]


def _is_saved(rows: Rows, save: Save) -> bool:
    """Return True if *save* was committed before, by a call whose reply was lost."""
    if not save.turn.last:
        return False
    mine = [Where("id", "eq", save.item.id), Where("lease_token", "eq", save.item.lease_token)]
    items = rows.select(OUTBOX, [*mine, Where("status", "ne", "RUNNING")], columns=("id",))
    status = str(save.turn.end or ExecutionStatus.RUNNING)
    where = [Where("id", "eq", save.execution.id), Where("status", "eq", status)]
    return bool(items) and bool(rows.select(EXECUTION, where, columns=("id",)))


def _waits(runs: Iterable[StepRun], now: datetime) -> dict[StepKey, float]:
    """Return the seconds until those of *runs* are due that wait for a retry or a time."""
    timed = (StepStatus.RETRY, StepStatus.WAITING)
    return {
        run.key: (run.next_attempt_at - now).total_seconds()
        for run in runs
        if run.status in timed and run.next_attempt_at is not None
    }


def _runs(rows: Rows, execution_ids: Sequence[str]) -> dict[str, list[StepRun]]:
    where = [Where("execution_id", "in", list(execution_ids))]
    runs: dict[str, list[StepRun]] = {}
    # Ids are made in the order in which runs begin.
    for row in rows.select(STEP, where, order_by=("id",)):
        runs.setdefault(row["execution_id"], []).append(StepRun.from_row(row))
    return {execution_id: list(in_order(its)) for execution_id, its in runs.items()}


def _writes_beside(save: Save) -> bool:
    """Return True if *save* writes more than steps, its execution and its item."""
    turn = save.turn
    tells = turn.end is not None and save.execution.parent_id is not None
    tells = tells or turn.successor is not None
    beside = (turn.waits, turn.answered, turn.children, turn.abandoned, turn.past, turn.labels)
    return tells or any(beside)


def _no_labels(workflow: Workflow, event: Event) -> Mapping[str, str]:
    return _NO_LABELS


def _traced(item: NewItem, cause: OutboxItem) -> NewItem:
    """Return *item*, now in the trace of the item that it follows from, if that is in one."""
    found = {name: cause.headers[name] for name in TRACE_HEADERS if name in cause.headers}
    if found:
        item.headers = {**found, **item.headers}
    return item


def _equal(**values: Any) -> list[Where]:
    """Return a condition for each of *values* that is not None."""
    return [Where(name, "eq", value) for name, value in values.items() if value is not None]


def _newest(rows: Rows, where: list[Where], limit: int) -> list[Execution]:
    found = rows.select(EXECUTION, where, order_by=("-created_at", "-id"), limit=limit)
    runs = _runs(rows, [row["id"] for row in found])
    return [Execution.from_row(row, runs.get(row["id"], ())) for row in found]


class ExecutionStore:
    """
    The executions of a host: a worker saves them, people find and steer them.

    *outbox* holds the items that wake them, in the same *storage*. Outputs that are too large for a
    row are in *output_store*.
    """

    def __init__(
        self,
        storage: Storage,
        outbox: OutboxStore,
        output_store: OutputStore | None = None,
    ) -> None:
        self.storage = storage
        self.outbox = outbox
        self.outputs: LargeOutputs = LargeOutputs(output_store)
        """The outputs that are too large for a row."""
        self.signals: SignalStore = SignalStore(storage, outbox)
        """The signals that steps wait for."""
        self.pauses: WorkflowPauses = WorkflowPauses(storage, outbox)
        """The workflows of which no execution goes on."""
        self.labels_of: Callable[[Workflow, Event], Mapping[str, str]] = _no_labels
        """Renders the labels that a workflow gives its executions."""
        self.on_cancelled: Callable[[Execution], object] = bool
        """Is called with an execution that `cancel` has ended."""

    # -- beginning ---------------------------------------------------------------------------

    def start(
        self,
        rows: Rows,
        workflow: Workflow,
        event: Event,
        *,
        priority: int = 0,
        delay: float | timedelta = 0.0,
        run_at: datetime | None = None,
        execution_id: str | None = None,
        admission: Admission | None = None,
    ) -> str:
        """
        Begin an execution of *workflow* for *event*, in the transaction of *rows*.

        The same event starts the same workflow only once, since the id follows from both; so does
        the same *execution_id*. The execution waits for *delay* seconds or until *run_at*.
        *admission* has the workflow's own conditions on a start. Then the id may be that of an
        execution that waits for the last of many events, and `SkippedError` is raised if as many
        as may go on at once do.
        """
        new = self._new(workflow, event, priority, execution_id)
        new.item.delay, new.item.run_at = delay, run_at
        if admission is not None:
            return self._start_admitted(rows, new, admission)
        if self._insert(rows, [new]):
            self.outbox.enqueue_many([new.item], transaction=rows.native)
        return new.id

    def _new(
        self,
        workflow: Workflow,
        event: Event,
        priority: int = 0,
        execution_id: str | None = None,
        parent_id: str | None = None,
        own: Mapping[str, str] = _NO_LABELS,
    ) -> _NewExecution:
        """Return an execution that is to begin, with its workflow's labels beside its *own*."""
        if workflow.labels:
            own = joined_labels(self.labels_of(workflow, event), own)
        redact = self.outbox.redact
        own = redacted_labels(own, redact) if own else own
        return _new_execution(workflow, event, priority, redact, execution_id, parent_id, own)

    def start_admitted(
        self, rows: Rows, starts: Sequence[tuple[Workflow, Event, int, Admission]]
    ) -> list[tuple[Workflow, Event, SkippedError]]:
        """
        Begin executions as their conditions allow, and return those that were skipped.

        Call it before anything else is written in the transaction of *rows*.
        """
        if not starts:
            return []
        # All at once and in order, so that two of these never wait for each other in a circle.
        admissions.lock_gates(rows, admissions.gates_of([start[3] for start in starts]))
        skipped = []
        for workflow, event, priority, admission in starts:
            try:
                self.start(rows, workflow, event, priority=priority, admission=admission)
            except SkippedError as error:
                skipped.append((workflow, event, error))
        return skipped

    def _start_admitted(self, rows: Rows, new: _NewExecution, admission: Admission) -> str:
        gates = admissions.lock_gates(rows, admission.gates)
        if rows.select(EXECUTION, [Where("id", "eq", new.id)], columns=("id",)):
            return new.id
        if admission.debounce is not None:
            waiting = self._postponed(rows, new, admission.debounce, gates[admission.debounce_gate])
            if waiting is not None:
                return waiting
            new.item.delay, new.item.run_at = admission.debounce.for_, None
        if admission.concurrency is not None:
            self._make_room(rows, new, admission)
        begins = admissions.begin_time(rows, admission, gates)
        if begins is not None:
            given = new.item.run_at or rows.now() + timedelta(seconds=seconds(new.item.delay))
            new.item.delay, new.item.run_at = 0.0, max(begins, given)
        # Another start of the same event may have been quicker, if it had no gate to pass.
        if self._insert(rows, [new]):
            self.outbox.enqueue_many([new.item], transaction=rows.native)
            admissions.pass_gates(rows, admission, new.id)
        return new.id

    def _postponed(
        self, rows: Rows, new: _NewExecution, debounce: Debounce, gate: Row
    ) -> str | None:
        waiting = admissions.postpone(rows, debounce, gate, new.row["event"])
        if waiting is not None:
            its = [Where("subject_id", "eq", waiting)]
            ids = [row["id"] for row in rows.select(LABEL, its, columns=("id",))]
            rows.delete(LABEL, [Where("id", "in", sorted(ids))])
            labels, tenant_id = new.labels, new.event.tenant_id
            add_labels(rows, label_rows(waiting, "execution", labels, tenant_id))
            if new.workflow.labels:
                rows.update(EXECUTION, [Where("id", "eq", waiting)], {"labels": new.row["labels"]})
        return waiting

    def _make_room(self, rows: Rows, new: _NewExecution, admission: Admission) -> None:
        """Give *new* its concurrency key; skip it, or cancel older ones, if it is to be so."""
        concurrency, key = admission.concurrency, admission.concurrency_key
        if concurrency is None or key is None:
            return
        new.row["concurrency_key"] = new.item.concurrency_key = key
        new.item.concurrency_limit, new.item.keeps_slot = concurrency.limit, True
        if concurrency.when_full == "skip":
            live = admissions.live_executions(rows, key, most=concurrency.limit)
            if len(live) >= concurrency.limit:
                raise SkippedError(new.workflow.name, live[0]["id"])
        elif concurrency.when_full == "cancel_older":
            live = admissions.live_executions(rows, key)
            self._cancel_within(rows, live[: max(0, len(live) - concurrency.limit + 1)])

    def _cancel_within(self, rows: Rows, found: Sequence[Row]) -> None:
        """Cancel executions in the transaction of *rows*; those that clean up do so first."""
        if not found:
            return
        ids = [Where("id", "in", [row["id"] for row in found])]
        # Those that are CANCELLING already are left to their clean-up.
        going = [
            row for row in rows.select(EXECUTION, ids, order_by=("id",))
            if row["status"] in _GOING
        ]  # fmt: skip
        cleaning = [row for row in going if must_clean_up(rows, row)]
        ending = [row for row in going if row not in cleaning]
        # Their items first, in the order in which a checkpoint locks both.
        if cleaning:
            self.outbox.recall([row["item_id"] for row in cleaning], transaction=rows.native)
        item_ids = [row["item_id"] for row in ending]
        if isinstance(self.outbox, RowsOutboxStore):
            self.outbox.cancel_within(rows, item_ids)
        else:
            self.outbox.cancel(item_ids)
        for row in cleaning:
            begin_cancelling(rows, row)
        for execution in map(Execution.from_row, ending):
            if end_from_outside(rows, execution, ExecutionStatus.CANCELLED):
                self._tell_of_end(rows, execution)

    def _tell_of_end(self, rows: Rows, execution: Execution) -> None:
        """Tell the parent and the children of an execution that no worker has ended."""
        if items := outside_items(rows, execution):
            self.outbox.enqueue_many(items, transaction=rows.native)

    def start_claimed(
        self, rows: Rows, starts: Sequence[tuple[Workflow, Event, int]], worker_id: str
    ) -> list[tuple[OutboxItem, Loaded]]:
        """
        Begin executions that *worker_id* drives, of (workflow, event, priority) triples.

        Returns those that are its own, with their items. Those that there were already are left
        out, and all of them where their items must be claimed like any other: they wait then.
        """
        given = [self._new(*start) for start in starts]
        outbox, items = self.outbox, [one.item for one in given]
        # Not past those of other tenants: they would take more than their fair share.
        if not isinstance(outbox, RowsOutboxStore) or not outbox.may_claim(rows, items):
            outbox.enqueue_many(
                [one.item for one in self._insert(rows, given)], transaction=rows.native
            )
            return []
        for one in given:
            one.row["status"] = RUNNING
        new = self._insert(rows, given)
        claimed = outbox.insert_claimed(rows, [one.item for one in new], worker_id) if new else []
        return [(item, one.loaded(item)) for item, one in zip(claimed, new, strict=True)]

    def start_new(
        self, workflow: Workflow, event: Event, worker_id: str
    ) -> tuple[str, OutboxItem | None, Loaded | None]:
        """
        Begin an execution for an event that nobody knows yet, driven by *worker_id*.

        Returns its id; and its item and itself, unless the item must be claimed like any other.
        """
        new = self._new(workflow, event)
        awaited = self.signals.registration(workflow.awaited)
        beside = [
            (DEFINITION, [_definition(workflow)]), (EXECUTION, [new.row]), (LABEL, new.label_rows),
            (AWAITED, awaited),
        ]  # fmt: skip
        # One statement, where the database has one for all of it.
        atomic, outbox = not self.storage.supports_skip_locked, self.outbox
        with (
            self.freed_if_lost([new.item.id], worker_id),
            self.storage.begin(atomic=atomic) as rows,
        ):
            if isinstance(outbox, RowsOutboxStore) and outbox.may_claim(
                rows, [new.item], in_line=False
            ):
                new.row["status"] = RUNNING
                (item,) = outbox.insert_claimed(rows, [new.item], worker_id, beside=beside)
                return new.id, item, new.loaded(item)
        with self.storage.begin() as rows:
            return self.start(rows, workflow, event), None, None

    @contextmanager
    def freed_if_lost(self, item_ids: Sequence[str], worker_id: str) -> Iterator[None]:
        """Release items that are claimed in the block if it fails: the reply alone may be lost."""
        try:
            yield
        except BaseException:
            # Nobody would drive their executions until the leases end.
            with suppress(AutomateError):
                self.outbox.release(item_ids, worker_id)
            self.outbox.forget(item_ids)
            raise

    def _insert(self, rows: Rows, given: Sequence[_NewExecution]) -> Sequence[_NewExecution]:
        """Insert executions with their definitions; return those that were not there."""
        definitions = {one.workflow.hash(): one.workflow for one in given}
        rows.insert(DEFINITION, [_definition(definitions[key]) for key in sorted(definitions)])
        # Before any of their steps may cause such an event.
        self.signals.register(rows, (each for one in given for each in one.workflow.awaited))
        new = given
        if rows.insert(EXECUTION, [one.row for one in given]) < len(given):
            where = [Where("id", "in", sorted(one.id for one in given))]
            found = rows.select(EXECUTION, where, columns=("id", "item_id"))
            theirs = {row["item_id"] for row in found}
            new = [one for one in given if one.item.id in theirs]
        add_labels(rows, [row for one in new for row in one.label_rows])
        return new

    def redacted(self, event: Event) -> Event:
        """Return *event*, or a copy whose payload lacks the secrets that are known here."""
        redact = self.outbox.redact
        if redact is None:
            return event
        payload = redacted_json(event.payload, "payload", redact, _MOST_EVENT_BYTES)
        return event if payload is event.payload else replace(event, payload=payload)

    # -- saving ------------------------------------------------------------------------------

    def load(self, execution_id: str) -> Loaded | None:
        """Read an execution as it was saved last; None if there is none."""
        return self.load_all([execution_id]).get(execution_id)

    def load_all(
        self, execution_ids: Sequence[str], now: datetime | None = None
    ) -> dict[str, Loaded]:
        """
        Read executions as they were saved last, by their ids.

        *now* is the database's time, if it is known.
        """
        with self.storage.begin(atomic=False) as rows:
            found = rows.select(EXECUTION, [Where("id", "in", sorted(execution_ids))])
            runs = _runs(rows, [row["id"] for row in found])
            now = now or rows.now()
            loaded = {
                row["id"]: Loaded(
                    Execution.from_row(row, runs.get(row["id"], ())),
                    _waits(runs.get(row["id"], ()), now),
                    now,
                )
                for row in found
            }
            self._load_waits(rows, loaded)
        return loaded

    def _load_waits(self, rows: Rows, loaded: dict[str, Loaded]) -> None:
        """Add the waits of those that have any, and what has come for them."""
        waiting = [
            key for key, one in loaded.items()
            if any(run.status is StepStatus.WAITING for run in one.execution.steps)
        ]  # fmt: skip
        if not waiting:
            return
        opened = self.signals.open(rows, waiting)
        arrived = self.signals.arrived(
            rows, {key: (loaded[key].execution, its) for key, its in opened.items()}
        )
        for key, its in opened.items():
            loaded[key] = replace(loaded[key], open=its, arrived=arrived.get(key, {}))

    def definition(self, definition_id: str) -> Workflow:
        """Read the definition that an execution is pinned to."""
        with self.storage.begin(atomic=False) as rows:
            return _stored_workflow(rows, definition_id)

    def checkpoint(self, group: Sequence[Save], *, within: Rows | None = None) -> Saved:
        """
        Save what executions have come to, in one transaction: that of *within*, if given.

        Returns the items that were held, and the time by the database's clock.

        Of an execution that has ended meanwhile, or whose item is another's by now, nothing is
        saved. The leases of those that go on are renewed.
        """
        checkpoints = [self._checkpoint(save) for save in group]
        failures = [row for save in group for row in _attempts(save)]
        # What finishes an item in more than one statement; nearly always there is nothing.
        outcomes = [
            save for save, one in zip(group, checkpoints, strict=True)
            if save.turn.last and not one.ends
        ]  # fmt: skip
        parked = [save for save in outcomes if save.waiting and save.turn.lack is None]
        beside = any(map(_writes_beside, group))
        plain = self._shares_tables and not failures and not outcomes and not beside
        atomic = not plain or not self.storage.supports_skip_locked
        opened: AbstractContextManager[Rows]
        opened = self.storage.begin(atomic=atomic) if within is None else nullcontext(within)
        with opened as rows:
            saved = self._save(rows, group, checkpoints)
            held = saved.items
            if plain and len(held) == len(group):
                return saved
            if beside:
                self._write_beside(rows, [save for save in group if save.item.id in held])
            for save in outcomes:
                if save.item.id in held and save not in parked:
                    self._finish(rows, save, saved.at)
            kept = {save.execution.id for save in group if save.item.id in held}
            keep_attempts(
                rows, [row for row in failures if row["subject_id"] in kept], MOST_OF_EXECUTION
            )
            if len(held) < len(group):
                done = {
                    one.item.id for one in group if one.item.id not in held if _is_saved(rows, one)
                }
                parked = [save for save in parked if save.item.id in held]
                held |= done
        if parked:
            # The waits are committed: who sends a signal from now on finds them.
            held -= self._park(parked)
        return replace(saved, items=held)

    def _write_beside(self, rows: Rows, saves: Sequence[Save]) -> None:
        """Write waits, sub-workflows, and what parents and abandoned children are told."""
        plain: list[_NewExecution] = []
        for save in saves:
            for child in save.turn.children:
                begun = self._child(save, child)
                if child.admission is None:
                    plain.append(begun)
                else:
                    self._start_admitted(rows, begun, child.admission)
        items = [one.item for one in self._insert(rows, plain)] if plain else []
        for save in saves:
            its = [*cancel_items(save.execution, save.turn.abandoned)]
            if save.turn.successor is not None:
                its += self._continue(rows, save, save.turn.successor)
            elif save.turn.end is not None:
                its += end_items(save.execution)
            its += [item for wait in save.turn.waits for item in wait.items]
            items += [_traced(item, save.item) for item in its]
        if items:
            self.outbox.enqueue_many(items, transaction=rows.native)
        for save in saves:
            delete_runs(rows, save.execution.id, save.turn.past)
            if save.turn.labels:
                self._write_labels(rows, save)
        self.signals.end(
            rows, [(save.execution.id, key) for save in saves for key in save.turn.answered]
        )
        self.signals.begin(
            rows, [(wait, save.execution.tenant_id) for save in saves for wait in save.turn.waits]
        )

    def _write_labels(self, rows: Rows, save: Save) -> None:
        execution = save.execution
        changed = redacted_labels(save.turn.labels, self.outbox.redact)
        # With the age of the execution: what has a label is listed by that.
        replace_labels(rows, label_rows(
            execution.id, "execution", changed, execution.tenant_id, execution.created_at
        ))  # fmt: skip
        own = encode_json({**execution.own_labels, **changed}, "labels")
        rows.update(EXECUTION, [Where("id", "eq", execution.id)], {"labels": own})

    def _child(self, save: Save, child: Child) -> _NewExecution:
        parent_id = save.execution.id if child.waited else None
        new = self._new(child.workflow, child.event, save.item.priority, child.id, parent_id)
        _traced(new.item, save.item)
        return new

    def _continue(self, rows: Rows, save: Save, successor: Successor) -> list[NewItem]:
        """Begin the execution that follows one which has ended; return the item that wakes it."""
        its = [Where("id", "eq", save.execution.id)]
        rows.update(EXECUTION, its, {"successor_id": successor.id})
        self.signals.leave_to_successor(rows, save.execution)
        new = self._insert(rows, [self._successor(save, successor)])
        return [one.item for one in new]

    def _successor(self, save: Save, successor: Successor) -> _NewExecution:
        """Return the execution that goes on in the place of that of *save*."""
        execution, item = save.execution, save.item
        new = self._new(
            successor.workflow, successor.event, item.priority, successor.id,
            execution.parent_id, execution.own_labels,
        )  # fmt: skip
        new.row["chain_id"] = execution.chain_id or execution.id
        new.row["concurrency_key"] = item.concurrency_key
        if item.concurrency_key is not None:
            concurrency = (item.concurrency_key, item.concurrency_limit or 1)
            woken = wake_up(
                new.id, new.item.id, execution.tenant_id, item.priority, concurrency=concurrency
            )
            new = replace(new, item=woken)
        return new

    def _park(self, saves: Sequence[Save]) -> set[str]:
        """
        Put executions back that wait for signals; return the items whose leases were lost.

        One for which a signal has come since it was looked at last is due at once.
        """
        outcomes = [
            Outcome(save.item.id, ItemStatus.PENDING, save.turn.wait, token=save.item.lease_token)
            for save in saves
        ]
        owner = saves[0].item.lease_owner or ""
        with self.storage.begin() as rows:
            for save in saves:
                self._change_note(rows, save.item, None)
            lost = self.outbox.acknowledge(owner, outcomes, transaction=rows.native)
            waiting = {save.item.id: (save.execution, save.waiting) for save in saves}
            come = self.signals.unseen(rows, waiting)
            self.signals.wake(rows, sorted(come - lost))
        return lost

    @property
    def _shares_tables(self) -> bool:
        """True if the items are in the tables that the executions are in."""
        return isinstance(self.outbox, RowsOutboxStore)

    def _save(self, rows: Rows, group: Sequence[Save], checkpoints: Sequence[Checkpoint]) -> Saved:
        if isinstance(self.outbox, RowsOutboxStore):
            saved = save_checkpoints(rows, checkpoints, self.outbox.lease_seconds)
            for save, one in zip(group, checkpoints, strict=True):
                if one.progress and one.item_id in saved.items:
                    self.outbox.progressed(save.item)
            return saved
        held = []
        for save, one in zip(group, checkpoints, strict=True):
            item, owner = save.item, save.item.lease_owner or ""
            with suppress(LeaseLostError):
                self.outbox.renew(item.id, owner, token=item.lease_token, transaction=rows.native)
                held.append(one)
        live, steered = save_progress(rows, held)
        return Saved(live, rows.now(), live, steered)

    def _checkpoint(self, save: Save) -> Checkpoint:
        item, turn, execution = save.item, save.turn, save.execution
        one = Checkpoint(
            item.id,
            item.lease_token or "",
            execution.id,
            [_step_row(save, run) for run in turn.saves],
            progress=any(run.status is not StepStatus.RUNNING for run in turn.saves),
        )
        if turn.end is None and turn.failed is None and save.stored:
            return one
        cancelling = execution.status is ExecutionStatus.CANCELLING
        one.status = str(turn.end or (execution.status if cancelling else ExecutionStatus.RUNNING))
        one.error_code, one.error, one.error_group = _stored_error(execution)
        if turn.end is not None:
            one.output_ref = turn.output_ref
            one.output = self.final_output(turn) if turn.output_ref is None else NOT_HERE
            keyed = item.ordering_key or item.concurrency_key
            one.ends = self._shares_tables and not keyed and self.outbox.retention_seconds != 0
        return one

    def final_output(self, turn: Turn) -> JsonText:
        """Return the output of the execution that *turn* ends, as JSON without secrets."""
        name, redact = "output of the workflow", self.outbox.redact
        text = turn.encoded or self.outputs.encode(turn.output, name)
        if redact is not None and redact.finds(text):
            turn.output = redact(json.loads(text))
            text = self.outputs.encode(turn.output, name)
        return text

    def _finish(self, rows: Rows, save: Save, now: datetime) -> None:
        """Record the outcome of an item in the transaction that saves its execution."""
        item, wait = save.item, save.turn.wait
        outcome = Outcome(item.id, token=item.lease_token)
        if save.turn.lack is not None:
            outcome = self._handover(rows, item, save.turn.lack, now, anew=save.advanced)
        elif wait is not None:
            self._change_note(rows, item, None)
            outcome = Outcome(item.id, ItemStatus.PENDING, wait, token=item.lease_token)
        if self.outbox.acknowledge(item.lease_owner or "", [outcome], transaction=rows.native):
            raise LeaseLostError(f"the lease of item {item.id} is lost")

    def hand_on(self, item: OutboxItem, lack: UnknownHereError) -> Outcome:
        """Let the execution of a claimed item wait for another worker; return what was recorded."""
        with self.storage.begin() as rows:
            outcome = self._handover(rows, item, lack, rows.now())
            owner = item.lease_owner or ""
            if self.outbox.acknowledge(owner, [outcome], transaction=rows.native):
                raise LeaseLostError(f"the lease of item {item.id} is lost")
        return outcome

    def _handover(
        self,
        rows: Rows,
        item: OutboxItem,
        lack: UnknownHereError,
        now: datetime,
        *,
        anew: bool = False,
    ) -> Outcome:
        """
        Note on *item* why another worker has to go on; return the outcome to record.

        It follows on the note that is there, unless it is to be one *anew*.
        """
        worker = item.lease_owner or ""
        reason = f"worker {worker} {lack}"
        if self.outbox.redact is not None:
            reason = self.outbox.redact(reason)
        note = Handover(lack.reason, reason[:_MOST_REASON], worker, now)
        note = note if anew else note.after(item.headers)
        self._change_note(rows, item, note)
        return Outcome(
            item.id, ItemStatus.PENDING, note.delay(), note.code, note.reason, item.lease_token,
            note.code,
        )  # fmt: skip

    def _change_note(self, rows: Rows, item: OutboxItem, note: Handover | None) -> None:
        """Write the note of a handover, or take away the one that is there."""
        if not self._shares_tables or (note is None and NOTE not in item.headers):
            return
        headers = {name: value for name, value in item.headers.items() if name != NOTE}
        changes: dict[str, Any]
        changes = dict.fromkeys(("last_error_code", "last_error", "last_error_group"))
        if note is not None:
            headers[NOTE], changes = note.to_json(), {}
        changes["headers"] = encode_json(headers, "headers")
        mine = [Where("id", "eq", item.id), Where("lease_token", "eq", item.lease_token)]
        rows.update(OUTBOX, mine, changes)

    def holds(self, item: OutboxItem) -> bool:
        """Renew the lease of *item*; return False if it is another's by now."""
        try:
            self.outbox.renew(item.id, item.lease_owner or "", token=item.lease_token)
        except LeaseLostError:
            return False
        return True

    # -- finding -----------------------------------------------------------------------------

    def get(
        self, execution_id: str, *, tenant_id: str | None = None, large_outputs: bool = True
    ) -> Execution | None:
        """
        Return the execution with this id and its steps, or None.

        With *tenant_id* another tenant's is not there. Outputs in the output store are read too;
        without *large_outputs* they are None, and have an ``output_ref``.
        """
        with self.storage.begin(atomic=False) as rows:
            found = rows.select(EXECUTION, _equal(id=execution_id, tenant_id=tenant_id))
            if not found:
                return None
            runs = _runs(rows, [execution_id]).get(execution_id, ())
        execution = Execution.from_row(found[0], runs)
        if large_outputs:
            self.outputs.fill(execution)
        return execution

    def output(
        self,
        execution_id: str,
        step_id: str | None = None,
        position: int = -1,
        *,
        tenant_id: str | None = None,
    ) -> Any:
        """
        Return the output of an execution, or of one of its steps, wherever it is kept.

        *position* is that of an element of the step's ``for_each``. Raises ``NOT_FOUND`` if there
        is no such execution, or the step has not begun.
        """
        execution = self.get(execution_id, tenant_id=tenant_id, large_outputs=False)
        one: Execution | StepRun | None = execution
        if execution is not None and step_id is not None:
            one = execution.step(step_id, position)
        if one is None:
            what = f"execution {execution_id!r}" if execution is None else f"step {step_id!r} there"
            raise AutomateError(ErrorCodes.NOT_FOUND, f"there is no {what}")
        return one.output if one.output_ref is None else self.outputs.read(one.output_ref)

    def waits(self, execution_id: str) -> list[WaitingFor]:
        """List what steps of an execution wait for, beside a time; the longest waits come first."""
        with self.storage.begin(atomic=False) as rows:
            return self.signals.waiting(rows, execution_id)

    def live(self, rows: Rows, execution_id: str, *, tenant_id: str | None = None) -> Execution:
        """
        Return an execution that goes on, without its steps, in the transaction of *rows*.

        Of one that was continued as new it is the last of the chain.
        Raises ``NOT_FOUND``, with *tenant_id* for another tenant's too; and ``FAILED_PRECONDITION``
        if it has ended.
        """
        ids = item_ids_of([execution_id])
        found = rows.select(EXECUTION, [Where("id", "in", ids), *_equal(tenant_id=tenant_id)])
        if not found:
            raise AutomateError(ErrorCodes.NOT_FOUND, f"there is no execution {execution_id}")
        execution = Execution.from_row(found[0])
        if execution.status.finished:
            goes_on = live_successor(rows, [Where("id", "eq", execution.id)])
            if goes_on is not None:
                return self.live(rows, goes_on, tenant_id=tenant_id)
            raise AutomateError(
                ErrorCodes.FAILED_PRECONDITION,
                f"execution {execution_id} has ended: it is {execution.status}",
            )
        return execution

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

    def attempts(self, execution_id: str) -> list[StepAttempt]:
        """
        List all attempts of an execution's steps, the earliest first, with times and workers.

        Of those that failed, as many as `failed_attempts` has.
        """
        with self.storage.begin(atomic=False) as rows:
            runs = _runs(rows, [execution_id]).get(execution_id, ())
            return step_attempts(runs, failed_attempts(rows, execution_id))

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

    def handover(self, execution: Execution) -> Handover | None:
        """Return the note of the worker that handed *execution* on, if it waits for another one."""
        if execution.status.finished or execution.item_id is None:
            return None
        item = self.outbox.get(execution.item_id)
        return None if item is None else item.handover

    # -- statistics --------------------------------------------------------------------------

    def stats(self) -> ExecutionStats:
        """
        Count by workflow those that have not ended and those that FAILED; reads only these.

        And the steps that wait for a signal, by what it is.
        """
        where = [Where("status", "in", [*LIVE, ExecutionStatus.FAILED.value])]
        with self.storage.begin(atomic=False) as rows:
            found = rows.count(EXECUTION, ("workflow", "status"), where)
            waits = rows.count(WAIT, ("about",))
        counts: dict[str, dict[str, int]] = {}
        for row in found:
            counts.setdefault(row["workflow"], {})[row["status"]] = row["n"]
        waiting = {row["about"]: row["n"] for row in waits}
        return ExecutionStats(dict(sorted(counts.items())), waiting)

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

    def cancel(
        self, execution_id: str, *, tenant_id: str | None = None, force: bool = False
    ) -> bool:
        """
        Cancel an execution; return False if it had ended.

        The worker that has it is asked to stop: an ``async def`` step is cancelled, a ``def`` step
        ends as it will, and nothing follows. It is CANCELLED at once, unless its workflow has
        something to clean up: then it is CANCELLING until its steps are undone, and those under
        ``on_cancel`` and ``finally`` have run. With *force*, or if it is CANCELLING already, it is
        CANCELLED at once all the same. Of one that was continued as new, the execution that goes on
        is cancelled. With *tenant_id* another tenant's is not there.
        """
        its = _equal(id=execution_id, tenant_id=tenant_id)
        live: str | None = execution_id
        # It may be continued between two looks at it, but not for ever.
        for _ in range(_MOST_LINKS):
            if live is None or self._cancel(_equal(id=live, tenant_id=tenant_id), force=force):
                return live is not None
            with self.storage.begin(atomic=False) as rows:
                live = live_successor(rows, its)
        return False

    def _cancel(self, its: list[Where], *, force: bool = False, again: bool = True) -> bool:
        """Cancel an execution; without *again*, leave one to its clean-up that is CANCELLING."""
        with self.storage.begin() as rows:
            found = rows.select(EXECUTION, its)
            if not found or (not again and found[0]["status"] not in _GOING):
                return False
            if not force and must_clean_up(rows, found[0]):
                row = self._recalled(rows, its)
                return row is not None and begin_cancelling(rows, row)
            found = rows.select(EXECUTION, its, lock=True)
            if not found:
                return False
            execution = Execution.from_row(found[0])
            cancelled = end_from_outside(rows, execution, ExecutionStatus.CANCELLED)
            if cancelled:
                self._tell_of_end(rows, execution)
        if cancelled:
            self.outbox.cancel([found[0]["item_id"]])
            self.on_cancelled(execution)
        return cancelled

    def cancel_children(
        self, *, parent_id: str | None = None, execution_ids: Sequence[str] = (), limit: int = 50
    ) -> bool:
        """
        Cancel up to *limit* sub-workflows, of a parent or those given; True if there may be more.

        Each takes a transaction of its own, and its own sub-workflows follow.
        """
        # What is CANCELLING already would be ended at once.
        live, ids = Where("status", "in", _GOING), list(execution_ids)
        which = [Where("id", "in", ids), Where("chain_id", "in", ids)]
        if parent_id is not None:
            which = [Where("parent_id", "eq", parent_id)]
        found: list[Row] = []
        with self.storage.begin(atomic=False) as rows:
            for its in which:
                found += rows.select(
                    EXECUTION, [live, its], order_by=("created_at",), limit=limit, columns=("id",)
                )
        # An operator may have cancelled it meanwhile: twice would end it at once.
        done = [self._cancel(_equal(id=row["id"]), again=False) for row in found]
        # One that has just ended may have been continued as new.
        return len(found) >= limit or not all(done)

    def _recalled(self, rows: Rows, its: list[Where]) -> Row | None:
        """Return the row of an execution that goes on, locked, with its item taken up anew soon."""
        for _ in range(_TRIES):
            found = rows.select(EXECUTION, its, columns=("item_id", "status"))
            if not found or found[0]["status"] not in LIVE:
                return None
            # The item first, as a checkpoint does: two that lock them in turns would wait for ever.
            self.outbox.recall([found[0]["item_id"]], transaction=rows.native)
            locked = rows.select(EXECUTION, its, lock=True)
            # It may have ended meanwhile, and even been resumed with another item.
            if locked and locked[0]["item_id"] == found[0]["item_id"]:
                return locked[0] if locked[0]["status"] in LIVE else None
        return None

    def pause(self, execution_id: str, *, tenant_id: str | None = None) -> bool:
        """
        Let no more steps of an execution begin until `unpause`; return False if it can't be paused.

        What runs ends and is saved. One that has ended, is cancelled or paused can't be paused. The
        times of its retries, and of its workflow's timeout, go on. With *tenant_id* another
        tenant's is not there.
        """
        return self._set_paused(execution_id, tenant_id, (PENDING, RUNNING), PAUSED)

    def unpause(self, execution_id: str, *, tenant_id: str | None = None) -> bool:
        """Let a PAUSED execution go on; return False if it is not PAUSED."""
        return self._set_paused(execution_id, tenant_id, (PAUSED,), RUNNING)

    def _set_paused(
        self, execution_id: str, tenant_id: str | None, able: Sequence[str], status: str
    ) -> bool:
        with self.storage.begin() as rows:
            row = self._recalled(rows, _equal(id=execution_id, tenant_id=tenant_id))
            if row is None or row["status"] not in able:
                return False
            its = Where("execution_id", "eq", execution_id)
            if status == RUNNING and not rows.select(STEP, [its], limit=1, columns=("id",)):
                status = PENDING  # nothing of it has begun
            changes = {"status": status, "updated_at": Now()}
            return bool(rows.update(EXECUTION, [Where("id", "eq", row["id"])], changes))

    def is_cancelling(self, execution_id: str) -> bool:
        """Return True if an execution is CANCELLING."""
        where = [Where("id", "eq", execution_id), Where("status", "eq", "CANCELLING")]
        with self.storage.begin(atomic=False) as rows:
            return bool(rows.select(EXECUTION, where, columns=("id",)))

    def is_held(self, execution: Execution) -> bool:
        """Return True if *execution* must not go on now: it is paused, or its workflow may be."""
        if execution.status is ExecutionStatus.PAUSED:
            return True
        goes_on = execution.status.value in (PENDING, RUNNING)
        return goes_on and self.pauses.holds(execution.name, execution.tenant_id)

    def park(self, item: OutboxItem, execution: Execution) -> None:
        """Put a claimed item back until its execution, and its workflow, may go on."""
        late = None if self._shares_tables else _LATE_SECONDS
        outcome = Outcome(item.id, ItemStatus.PENDING, late, token=item.lease_token)
        with self.storage.begin() as rows:
            native = rows.native
            if self.outbox.acknowledge(item.lease_owner or "", [outcome], transaction=native):
                return
            # Looked at again, and locked: who lets it go on finds it parked, or it is not parked.
            its = Where("id", "eq", execution.id)
            found = rows.select(EXECUTION, [its], lock=True, columns=("status",))
            paused = bool(found) and found[0]["status"] == PAUSED
            if not paused and not self.pauses.locked(rows, execution.name, execution.tenant_id):
                self.outbox.recall([item.id], transaction=native)
            elif self._shares_tables:
                waits = [Where("id", "eq", item.id), Where("status", "in", WAITING)]
                rows.update(OUTBOX, waits, {"waiting_for": "resume"})

    def resume(
        self,
        execution_id: str,
        *,
        step_id: str | None = None,
        definition: Workflow | None = None,
        tenant_id: str | None = None,
    ) -> bool:
        """
        Run a failed execution again from the steps that failed; return False if it had not failed.

        A step that was undone runs again too, with all that follow from it. With *step_id* it may
        be any execution that has ended, whatever its end. That step and all that follow from it run
        again, though they had completed. Raises `WorkflowError` if there is no such step.

        With *definition* it goes on with this corrected definition of its workflow. Raises
        ``INVALID_ARGUMENT`` if that is of another workflow, and ``FAILED_PRECONDITION`` if it lacks
        a step that has completed. With *tenant_id* another tenant's execution is not there.
        """
        with self.storage.begin() as rows:
            return self._resume(
                rows, execution_id, step_id, definition=definition, tenant_id=tenant_id
            )

    def retry_step(
        self,
        execution_id: str,
        step_id: str,
        position: int = -1,
        *,
        tenant_id: str | None = None,
    ) -> bool:
        """
        Run one failed step again, and all that follows; return False if it has not failed.

        Of a step with ``for_each``, the elements that failed run again: *position* names one. In an
        execution that goes on, a step that waits for its retry is due now. In one that has ended,
        other steps that have failed, and may, stay as they are; what was undone runs again. A step
        that cleans up runs again by itself: so a compensation that failed can be tried once more.
        Raises `WorkflowError` if there is no such step.
        """
        its = _equal(id=execution_id, tenant_id=tenant_id)
        with self.storage.begin() as rows:
            found = rows.select(EXECUTION, its)
            if not found:
                return False
            workflow = _stored_workflow(rows, found[0]["definition_id"])
            in_code = isinstance(workflow, CodeWorkflow)
            step = None if in_code else workflow.step(step_id)
            if found[0]["status"] in LIVE:
                return self._retry_now(rows, its, step_id, position)
            workflow.check_outside(step_id)
            where = [Where("execution_id", "eq", execution_id), Where("step_id", "eq", step_id)]
            where += [Where("position", "eq", position), Where("status", "eq", "FAILED")]
            if not rows.select(STEP, where, columns=("id",)):
                return False
            row, item_id = found[0], new_id()
            check_not_continued(row)
            changes = reopening(item_id)
            gone = None
            if step is None:
                gone = forgotten(rows, execution_id, workflow, step_id)
            elif step in workflow.steps:
                followers = workflow.followers(step_id)
                gone = forgotten(rows, execution_id, workflow)
                gone.steps |= set(followers[1:])
                gone.spared = {
                    each.id for each in workflow.steps
                    if each.on_failure == "continue" and each.id not in followers
                }  # fmt: skip
            else:
                changes |= cleaning_again(rows, row, workflow, step_id)
            if not reopen_rows(rows, row, _ENDED, changes):
                return False
            if gone is not None:
                gone.delete(rows, execution_id, workflow)
            concurrency = concurrency_of(rows, row)
            item = wake_up(execution_id, item_id, row["tenant_id"], concurrency=concurrency)
            self.outbox.enqueue_many([item], transaction=rows.native)
            return True

    def _retry_now(self, rows: Rows, its: list[Where], step_id: str, position: int) -> bool:
        row = self._recalled(rows, its)
        if row is None:
            return False
        waits = [
            Where("execution_id", "eq", row["id"]),
            Where("step_id", "eq", step_id),
            Where("position", "eq", position),
            Where("status", "eq", StepStatus.RETRY.value),
        ]
        return bool(rows.update(STEP, waits, {"next_attempt_at": Now()}))

    def fork(
        self,
        execution_id: str,
        step_id: str,
        *,
        payload: Any = SAME,
        definition: Workflow | None = None,
        tenant_id: str | None = None,
    ) -> str:
        """
        Begin a copy of an execution that runs from *step_id* on, and return its id.

        The steps that have ended, and don't follow from that step, are copied with their outputs
        and not called again. With *payload* the copy's event has this payload: only the steps that
        run see it. With *definition* it runs this definition of the workflow. The label
        ``forked_from`` leads to the original, which stays as it is. Raises ``NOT_FOUND`` if there
        is no such execution, and `WorkflowError` if there is no such step.
        """
        with self.storage.begin() as rows:
            found = rows.select(EXECUTION, _equal(id=execution_id, tenant_id=tenant_id))
            if not found:
                raise AutomateError(ErrorCodes.NOT_FOUND, f"there is no execution {execution_id}")
            first = Execution.from_row(found[0])
            known = _stored_workflow(rows, first.definition_id)
            workflow = known if definition is None else _same_workflow(first.name, definition)
            in_code = isinstance(known, CodeWorkflow)
            gone = forgotten(rows, execution_id, known, step_id if in_code else None)
            if not in_code:
                gone.steps |= set(workflow.followers(step_id))
            if workflow is not known:
                check_fits(rows, execution_id, known, workflow, gone)
            labels = {**first.event.labels, "forked_from": execution_id}
            event = replace(
                first.event,
                id=new_id(),
                payload=first.event.payload if payload is SAME else payload,
                labels=labels if len(labels) <= MAX_LABELS else first.event.labels,
            )
            new = self._new(workflow, event, own=first.own_labels)
            item, concurrency = new.item, concurrency_of(rows, found[0])
            if concurrency is not None:
                new.row["concurrency_key"] = concurrency[0]
                item = wake_up(new.id, item.id, event.tenant_id, concurrency=concurrency)
            self._insert(rows, [new])
            copies = copied_steps(rows, execution_id, new.id, gone)
            self.outputs.copy(copies)
            if copies:
                rows.insert(STEP, copies)
            self.outbox.enqueue_many([item], transaction=rows.native)
            return new.id

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
        definition: Workflow | None = None,
        tenant_id: str | None = None,
    ) -> bool:
        found = rows.select(EXECUTION, _equal(id=execution_id, tenant_id=tenant_id))
        if not found:
            return False
        statuses = [ExecutionStatus.FAILED] if step_id is None else _ENDED
        if definition is not None:
            definition = _same_workflow(found[0]["workflow"], definition)
        item_id = new_id()
        if ExecutionStatus(found[0]["status"]) in statuses:
            check_not_continued(found[0])
        if not reopen(rows, found[0], item_id, statuses, step_id, definition):
            return False
        concurrency = concurrency_of(rows, found[0])
        item = wake_up(
            execution_id, item_id, found[0]["tenant_id"], run_at=run_at, concurrency=concurrency
        )
        self.outbox.enqueue_many([item], transaction=rows.native)
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

    def purge_definitions(
        self, *, older_than_seconds: float, keep: Collection[str] = (), limit: int = 100
    ) -> int:
        """
        Delete up to *limit* definitions that no execution is pinned to; return their number.

        Only those that were stored that long ago. *keep* are the hashes of definitions that stay.
        A definition with which an execution begins at that moment stays too.
        """
        return purge_definitions(
            self.storage, older_than_seconds=older_than_seconds, keep=keep, limit=limit
        )

    def purge_gates(self) -> int:
        """Delete what starts of one key locked a day ago or earlier; return the number."""
        total, after = 0, ""
        while True:
            with self.storage.begin() as rows:
                deleted, last = admissions.purge_gates(rows, after)
            total += deleted
            if last is None:
                return total
            after = last

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
                skip_locked=True, columns=("id", "parent_id", "chain_id", "successor_id"),
            )  # fmt: skip
            children = {
                row["id"]: row["chain_id"] or row["id"]
                for row in found
                if row["parent_id"] is not None and row["successor_id"] is None
            }
            # Their parents have not taken the results yet.
            needed = self.signals.awaited_ends(rows, children)
            ids = sorted({row["id"] for row in found} - needed)
            keys = self.outputs.keys_of(rows, ids)
            rows.delete(STEP, [Where("execution_id", "in", ids)])
            forget(rows, ids)
            deleted = rows.delete(EXECUTION, [Where("id", "in", ids)])
        self.outputs.delete(keys)
        return deleted

    def purge_outputs(self, *, older_than_seconds: float = 86_400.0) -> int:
        """
        Delete outputs in the output store that no execution has; return the number.

        Only those that were put there that long ago, and a day ago at least.
        """
        return self.outputs.purge(self.storage, older_than_seconds=older_than_seconds)


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
