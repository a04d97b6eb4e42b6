"""The beginning of executions: each once, in the host's transaction or claimed by who drives it."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from automate_kernel.base.errors import AutomateError
from automate_kernel.outbox import ItemStatus, NewItem, OutboxItem, OutboxStore
from automate_kernel.outbox.item import new_id, redacted_json, seconds
from automate_kernel.outbox.labels import add_labels, joined_labels, label_rows, redacted_labels
from automate_kernel.storage.checkpoint import LIVE
from automate_kernel.storage.codec import with_sorted_keys
from automate_kernel.storage.dialects import Dialect
from automate_kernel.storage.query import Now, Where
from automate_kernel.storage.rows import Row, Rows, Storage
from automate_kernel.storage.tables import AWAITED, DEFINITION, EXECUTION, LABEL, OUTBOX
from automate_kernel.storage.values import MAX_PAYLOAD_BYTES, encode_around, encode_json
from automate_kernel.workflows.decide.admission import Admission, SkippedError
from automate_kernel.workflows.definition.admission import Concurrency, Debounce
from automate_kernel.workflows.definition.model import Workflow
from automate_kernel.workflows.execution import Event, Execution, ExecutionStatus
from automate_kernel.workflows.store import start_locks
from automate_kernel.workflows.store.locked_starts import LockedStarts
from automate_kernel.workflows.store.relatives import outside_items
from automate_kernel.workflows.store.signal_store import SignalStore
from automate_kernel.workflows.store.stored import (
    GOING,
    RUNNING,
    Loaded,
    begin_cancelling,
    cleaning_up,
    definition_row,
    end_cancelled,
    wake_up,
)

if TYPE_CHECKING:
    from automate_kernel.workflows.store.catalogue import Catalogue

_NAMESPACE = uuid.UUID("6ba7b812-9dad-11d1-80b4-00c04fd430c8").bytes
_NO_LABELS: Mapping[str, str] = {}
SCHEDULED = "schedule"
"""The *about* of a label that has the event of a schedule's time: no label of an execution."""


@dataclass(frozen=True, slots=True)
class NewExecution:
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
        return self.label_rows_of(self.id)

    def label_rows_of(self, execution_id: str) -> list[Row]:
        """Return the rows by which the execution is found that takes its event."""
        found = label_rows(execution_id, "execution", self.labels, self.event.tenant_id)
        if self.workflow.debounce is not None and self.event.type == "schedule":
            # Its id need not follow from this event: it may have begun to wait with another one.
            its = {"event": self.event.id}
            found += label_rows(execution_id, SCHEDULED, its, self.event.tenant_id)
        return found

    @property
    def id(self) -> str:
        """The execution's id."""
        return str(self.row["id"])

    def loaded(self, item: OutboxItem, dialect: Dialect) -> Loaded:
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
                "events_taken",
                "concurrency_key",
                "seed",
            )
        )
        texts, now = ((name, self.row[name]) for name in ("event", "labels")), item.created_at
        read = {name: None if text is None else json.loads(text) for name, text in texts}
        if dialect.sorts_keys:
            read = with_sorted_keys(read)
        row = {**nothing, **self.row, **read, "created_at": now, "updated_at": now}
        return Loaded(Execution.from_row(row), {}, now, new=True, sorts_keys=dialect.sorts_keys)


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


def backfilled(rows: Rows, workflow: Workflow, event: Event) -> str | None:
    """
    Return the id of the execution to begin for *event*, a past time of a schedule; None if it has.

    Of a workflow with ``debounce``, an execution that began to wait with one time runs with another
    that took its place. Take the start lock of its key before, under which that is decided.
    """
    own = execution_id_of(event, workflow.name)
    if workflow.debounce is None:
        its = [Where("id", "eq", own)]
        begun = rows.select(EXECUTION, its, columns=("id",)) or _was_continued(rows, own)
        return None if begun else own
    taken = [Where("value", "eq", event.id), Where("about", "eq", SCHEDULED)]
    if rows.select(LABEL, taken, limit=1, columns=("id",)):
        return None
    # Another time may have taken that execution.
    return _uuid5(f"backfilled\n{own}")


def _was_continued(rows: Rows, execution_id: str) -> bool:
    """Return True if a chain has begun with this execution, which may be purged by now."""
    its = [Where("chain_id", "eq", execution_id)]
    return bool(rows.select(EXECUTION, its, limit=1, columns=("id",)))


class ExecutionStarts:
    """
    Begins executions in the tables of *storage*, with the items of *outbox* that wake them.

    *signals* learns for which events their steps will wait. *workflows* knows the labels of
    workflows, their conditions on a start, and the events that workflows in code wait for.
    """

    def __init__(
        self, storage: Storage, outbox: OutboxStore, signals: SignalStore, workflows: Catalogue
    ) -> None:
        self._storage, self._outbox, self._signals = storage, outbox, signals
        self._tables = outbox.tables
        self._workflows = workflows
        self.locked_starts: LockedStarts = LockedStarts()
        """The starts that another transaction holds up, as far as is known here."""

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
        sent_at: datetime | None = None,
    ) -> str:
        """
        Begin an execution of *workflow* for *event*, in the transaction of *rows*.

        The same event starts the same workflow only once, since the id follows from both; so does
        the same *execution_id*. The execution waits for *delay* seconds or until *run_at*. Its
        steps may wait for what comes from now on, or since *event* was sent, if that is known.
        *admission* has the workflow's own conditions on a start. Then the id may be that of an
        execution that waits for the last of many events, and `SkippedError` is raised if as many
        as may go on at once do.
        """
        if execution_id is not None and _was_continued(rows, execution_id):
            return execution_id
        new = self.new(workflow, event, priority, sent_at, execution_id=execution_id)
        new.item.delay, new.item.run_at = delay, run_at
        if admission is not None:
            return self.admit(rows, new, admission)
        if self.insert(rows, [new]):
            self._outbox.enqueue_many([new.item], transaction=rows.native)
        return new.id

    def new(
        self,
        workflow: Workflow,
        event: Event,
        priority: int = 0,
        sent_at: datetime | None = None,
        *,
        execution_id: str | None = None,
        parent_id: str | None = None,
        own: Mapping[str, str] = _NO_LABELS,
    ) -> NewExecution:
        """Return an execution that is to begin, with its workflow's labels beside its *own*."""
        if workflow.labels:
            own = joined_labels(self._workflows.labels(workflow, event), own)
        redact = self._outbox.redact
        own = redacted_labels(own, redact) if own else own
        # It follows from both: the same event starts the same workflow once.
        execution_id = execution_id or execution_id_of(event, workflow.name)
        item = wake_up(execution_id, workflow.name, new_id(), event.tenant_id, priority)
        row = {
            "id": execution_id,
            "workflow": workflow.name,
            "definition_id": workflow.hash(),
            "status": ExecutionStatus.PENDING.value,
            "event": encode_around(
                event.to_json(), event.payload if event.type == "manual" else None, redact=redact
            ),
            "tenant_id": event.tenant_id,
            "item_id": item.id,
            "parent_id": parent_id,
            "labels": encode_json(own, "labels") if own else None,
            "events_since": sent_at,
            "created_at": Now(),
            "updated_at": Now(),
        }
        labels = joined_labels(own, event.labels) if own else event.labels
        return NewExecution(workflow, event, row, item, labels)

    def start_admitted(
        self, rows: Rows, starts: Sequence[tuple[Workflow, Event, int, datetime, Admission]]
    ) -> list[tuple[Workflow, Event, SkippedError]]:
        """
        Begin executions as their conditions allow, and return those that were skipped.

        Call it before anything else is written in the transaction of *rows*.
        """
        if not starts:
            return []
        self.lock(rows, [start[4] for start in starts])
        skipped = []
        for workflow, event, priority, sent_at, admission in starts:
            try:
                self.start(
                    rows, workflow, event, priority=priority, admission=admission, sent_at=sent_at
                )
            except SkippedError as error:
                skipped.append((workflow, event, error))
        return skipped

    def lock(self, rows: Rows, given: Sequence[Admission]) -> None:
        """
        Lock what starts with these conditions decide by, before anything else in the transaction.

        All at once and in order, so that two of these never wait for each other in a circle: start
        locks, then the items of executions that have to make room, in the order of a checkpoint:
        those of its group run, and those that it wakes wait.
        """
        start_locks.acquire_start_locks(rows, start_locks.start_locks_of(given))
        ids = start_locks.items_in_the_way(rows, given)
        if self._tables is not None:
            for status in ([Where("status", "eq", ItemStatus.RUNNING.value)], []):
                its = [Where("id", "in", sorted(ids)), *status]
                rows.select(OUTBOX, its, order_by=("id",), lock=True, columns=("id",))

    def admit(self, rows: Rows, new: NewExecution, admission: Admission) -> str:
        """Begin *new* as its conditions allow; return its id, or that of one which waits for it."""
        locks = start_locks.acquire_start_locks(rows, admission.locks)
        if rows.select(EXECUTION, [Where("id", "eq", new.id)], columns=("id",)):
            return new.id
        if admission.concurrency is not None and admission.concurrency_key is not None:
            new.row["concurrency_key"] = new.item.concurrency_key = admission.concurrency_key
            new.item.concurrency_limit = admission.concurrency.limit
            new.item.keeps_slot = True
        if admission.debounce is not None:
            waiting = self._postponed(rows, new, admission.debounce, locks[admission.debounce_lock])
            if waiting is not None:
                return waiting
            new.item.delay, new.item.run_at = admission.debounce.for_, None
        if admission.concurrency is not None:
            self._make_room(rows, new, admission.concurrency)
        begins = start_locks.begin_time(rows, admission, locks)
        if begins is not None:
            given = new.item.run_at or rows.now() + timedelta(seconds=seconds(new.item.delay))
            new.item.delay, new.item.run_at = 0.0, max(begins, given)
        # Another start of the same event may have been quicker, if it had no start lock to pass.
        if self.insert(rows, [new]):
            self._outbox.enqueue_many([new.item], transaction=rows.native)
            start_locks.mark_start_locks(rows, admission, new.id)
        return new.id

    def _postponed(
        self, rows: Rows, new: NewExecution, debounce: Debounce, lock: Row
    ) -> str | None:
        # As a start of its own would be: with the definition, key and labels that it has now.
        given = ("definition_id", "event", "concurrency_key", "events_since", "labels")
        changes: Row = {name: new.row.get(name) for name in given}
        item = new.item.to_row()
        its_item = {name: item.get(name) for name in ("concurrency_key", "concurrency_limit")}
        waiting = start_locks.postpone(rows, debounce, lock, changes, its_item)
        if waiting is None:
            return None
        if "kept" in waiting:
            return str(waiting["id"])
        if waiting["definition_id"] != new.row["definition_id"]:
            self._define(rows, [new])
        its = [Where("subject_id", "eq", waiting["id"])]
        ids = [row["id"] for row in rows.select(LABEL, its, columns=("id",))]
        rows.delete(LABEL, [Where("id", "in", sorted(ids))])
        add_labels(rows, new.label_rows_of(waiting["id"]))
        return str(waiting["id"])

    def _make_room(self, rows: Rows, new: NewExecution, concurrency: Concurrency) -> None:
        """Skip *new*, or cancel older ones, if all places of its key are taken."""
        key = new.item.concurrency_key
        if key is None:
            return
        if concurrency.when_full == "skip":
            live = start_locks.live_executions(rows, key, most=concurrency.limit)
            if len(live) >= concurrency.limit:
                raise SkippedError(new.workflow.name, live[0]["id"])
        elif concurrency.when_full == "cancel_older":
            live = start_locks.live_executions(rows, key)
            self._cancel_within(rows, live[: max(0, len(live) - concurrency.limit + 1)])

    def _cancel_within(self, rows: Rows, found: Sequence[Row]) -> None:
        """Cancel executions in the transaction of *rows*; those that clean up do so first."""
        if not found:
            return
        ids = [Where("id", "in", [row["id"] for row in found])]
        # Those that are CANCELLING already are left to their clean-up.
        going = [
            row for row in rows.select(EXECUTION, ids, order_by=("id",))
            if row["status"] in GOING
        ]  # fmt: skip
        cleaning = cleaning_up(rows, going)
        ending = [row for row in going if row not in cleaning]
        # Their items first, in the order in which a checkpoint locks both.
        if cleaning:
            self._outbox.request_release(
                [row["item_id"] for row in cleaning], transaction=rows.native
            )
        item_ids = [row["item_id"] for row in ending]
        if self._tables is not None:
            self._tables.cancel_within(rows, item_ids)
        else:
            self._outbox.cancel(item_ids)
        begin_cancelling(rows, cleaning)
        # Most of them ended with their items.
        left = [Where("id", "in", [row["id"] for row in ending]), Where("status", "in", LIVE)]
        locked = rows.select(EXECUTION, left, order_by=("id",), lock=True)
        self.tell_of_ends(rows, end_cancelled(rows, locked))

    def tell_of_ends(self, rows: Rows, ended: Sequence[Execution]) -> None:
        """Tell the parents and the children of executions that no worker has ended."""
        if items := outside_items(rows, ended):
            self._outbox.enqueue_many(items, transaction=rows.native)

    def start_claimed(
        self, rows: Rows, starts: Sequence[tuple[Workflow, Event, int, datetime]], worker_id: str
    ) -> list[tuple[OutboxItem, Loaded]]:
        """
        Begin executions that *worker_id* drives, each of workflow, event, priority and `sent_at`.

        Returns those that are its own, with their items. Those that there were already are left
        out, and all of them where their items must be claimed like any other: they wait then.
        """
        given = [self.new(*start) for start in starts]
        tables, items = self._tables, [one.item for one in given]
        # Not past those of other tenants: they would take more than their fair share.
        if tables is None or not tables.may_claim(rows, items):
            self._outbox.enqueue_many(
                [one.item for one in self.insert(rows, given)], transaction=rows.native
            )
            return []
        for one in given:
            one.row["status"] = RUNNING
        new = self.insert(rows, given)
        claimed = tables.insert_claimed(rows, [one.item for one in new], worker_id) if new else []
        return [
            (item, one.loaded(item, rows.dialect)) for item, one in zip(claimed, new, strict=True)
        ]

    def start_new(
        self, workflow: Workflow, event: Event, worker_id: str
    ) -> tuple[str, OutboxItem | None, Loaded | None]:
        """
        Begin an execution for an event that nobody knows yet, driven by *worker_id*.

        Returns its id; and its item and itself, unless the item must be claimed like any other.
        """
        new = self.new(workflow, event)
        awaited = self._signals.registration(workflow.awaited)
        beside = [
            (DEFINITION, [definition_row(workflow)]), (EXECUTION, [new.row]),
            (LABEL, new.label_rows), (AWAITED, awaited),
        ]  # fmt: skip
        # One statement, where the database has one for all of it.
        atomic, tables = not self._storage.supports_skip_locked, self._tables
        with (
            self.freed_if_lost([new.item.id], worker_id),
            self._storage.begin(atomic=atomic) as rows,
        ):
            if tables is not None and tables.may_claim(rows, [new.item], in_line=False):
                new.row["status"] = RUNNING
                (item,) = tables.insert_claimed(rows, [new.item], worker_id, beside=beside)
                return new.id, item, new.loaded(item, rows.dialect)
        with self._storage.begin() as rows:
            return self.start(rows, workflow, event), None, None

    @contextmanager
    def freed_if_lost(self, item_ids: Sequence[str], worker_id: str) -> Iterator[None]:
        """Release items that are claimed in the block if it fails: the reply alone may be lost."""
        try:
            yield
        except BaseException:
            # Nobody would drive their executions until the leases end.
            with suppress(AutomateError):
                self._outbox.release(item_ids, worker_id)
            self._outbox.forget_claims(item_ids)
            raise

    def insert(self, rows: Rows, given: Sequence[NewExecution]) -> Sequence[NewExecution]:
        """Insert executions with their definitions; return those that were not there."""
        self._define(rows, given)
        new = given
        if rows.insert(EXECUTION, [one.row for one in given]) < len(given):
            where = [Where("id", "in", sorted(one.id for one in given))]
            found = rows.select(EXECUTION, where, columns=("id", "item_id"))
            theirs = {row["item_id"] for row in found}
            new = [one for one in given if one.item.id in theirs]
        add_labels(rows, [row for one in new for row in one.label_rows])
        return new

    def _define(self, rows: Rows, given: Sequence[NewExecution]) -> None:
        definitions = {one.workflow.hash(): one.workflow for one in given}
        rows.insert(DEFINITION, [definition_row(definitions[key]) for key in sorted(definitions)])
        # Before any of their steps may cause such an event.
        self._signals.register(rows, (each for one in given for each in one.workflow.awaited))

    def redacted(self, event: Event) -> Event:
        """Return *event*, or a copy whose payload lacks the secrets that are known here."""
        redact = self._outbox.redact
        if redact is None:
            return event
        payload = redacted_json(event.payload, "payload", redact, 2 * MAX_PAYLOAD_BYTES)
        return event if payload is event.payload else replace(event, payload=payload)
