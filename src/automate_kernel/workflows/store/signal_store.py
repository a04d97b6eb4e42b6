"""
Signals in the application's database: kept for those that wait, and for those that soon will.

What is sent to an execution is kept in the transaction that sends it, and as long as the execution
is; an event in the transaction that finishes its item. What brings them later only wakes, so that a
worker may die and another one do it again.

None is missed. A wait is committed before its execution is deferred, and whoever defers it looks
for signals after the change of its item. A signal is committed before the look for waits, and that
look waits for whoever defers an item. So each sees the other. A wait's time is
over once the watermark has passed its end: what was sent in time has come by then.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from operator import itemgetter
from typing import Any

from automate_kernel.base.errors import PayloadError
from automate_kernel.outbox import NewItem, OutboxItem, OutboxStore, Outcome
from automate_kernel.outbox.controls import controls_of
from automate_kernel.outbox.item import ACCEPTED_MAX_ATTEMPTS, WAITING, new_id, waiting_changes
from automate_kernel.storage.checkpoint import LIVE
from automate_kernel.storage.errors import LockedError
from automate_kernel.storage.query import Now, Portion, Where
from automate_kernel.storage.rows import Row, Rows, Storage, write
from automate_kernel.storage.statuses import ItemWait
from automate_kernel.storage.tables import APPROVER, AWAITED, EXECUTION, OUTBOX, SIGNAL, WAIT
from automate_kernel.storage.values import Redaction, encode_json
from automate_kernel.workflows.decide.children import end_event
from automate_kernel.workflows.decide.continuations import (
    MORE,
    Successor,
    events_left,
    events_since,
    last_taken,
)
from automate_kernel.workflows.decide.questions import decision_event
from automate_kernel.workflows.decide.waits import (
    ANYONE,
    MOST_BYTES,
    SENT,
    Arrived,
    OpenWait,
    Wait,
    WaitingFor,
    approver_id,
    child_key,
    kept_signal_items,
    signal_id,
    signal_key,
    wait_id,
    wait_key,
)
from automate_kernel.workflows.decide.waits import SIGNAL as SIGNAL_KIND
from automate_kernel.workflows.execution import Event, Execution, ExecutionStatus, StepKey
from automate_kernel.workflows.store.relatives import ends_of_chains
from automate_kernel.workflows.store.watermark import Watermarks

Awaited = tuple[str, str]
"""The name of an event, and the field of its payload that it is found by, or ""."""

# So many executions are woken in one transaction, so that nobody waits for it for long.
_WOKEN_AT_ONCE = 200
_PURGED_AT_ONCE = 500
# Beside an event's own fields: when it was sent, by the database's clock.
_SENT_AT = "sent_at"
# And that it was sent with a key.
_ONCE = "once"
# The key of what a chain has taken, of which the id alone is needed: nobody waits for it.
_TAKEN = "taken"
_KEPT_SECONDS = 3600.0
# Of those that an execution of a chain has not waited for.
_UNSEEN_SECONDS = 7 * 86_400.0

_PARKED = (Where("status", "in", WAITING), Where("waiting_for", "eq", ItemWait.TIME.value))
# A statement that changes rows names so many values. MariaDB reads the whole table instead of the
# index, and locks it, from some 16,000 on.
_MOST_VALUES = 5_000
_FOR_PEOPLE = ("step_id", "position", "about", "details", "created_at", "expires_at")


class SignalStore:
    """
    The signals and waits of a host.

    *outbox* holds the items of executions, in the same *storage*.
    """

    def __init__(self, storage: Storage, outbox: OutboxStore) -> None:
        self._storage, self._outbox = storage, outbox
        self._shares_tables = outbox.tables is not None
        self._watermarks = Watermarks(outbox)

    # -- awaited events ----------------------------------------------------------------------

    def register(self, rows: Rows, awaited: Iterable[Awaited]) -> None:
        """Let events be kept from the commit of *rows* on."""
        rows.insert(AWAITED, self.registration(awaited))

    def registration(self, awaited: Iterable[Awaited]) -> list[Row]:
        """Return the rows that let events be kept."""
        # Nothing is remembered: a host may roll back, and a test may empty the tables.
        return [
            {
                "id": wait_key("awaited", name, path), "name": name, "field": path,
                "created_at": Now(),
            }
            for name, path in sorted(set(awaited))
        ]  # fmt: skip

    def pass_on(self, rows: Rows, events: Sequence[tuple[Event, int, datetime]]) -> None:
        """
        Keep *events* as signals, and enqueue what wakes those who wait.

        Each comes with its priority, and the time at which it was sent.
        """
        names = sorted({event.name for event, _, _ in events})
        found = rows.select(AWAITED, [Where("name", "in", names)], columns=("name", "field"))
        if not found:
            return
        awaited = [(row["name"], row["field"]) for row in found]
        items: list[NewItem] = []
        kept: list[Row] = []
        for event, priority, sent_at in events:
            its = list(kept_signal_items(event, awaited, priority=priority))
            items += its
            for item in its:
                key = item.payload["key"]
                kept.append(_signal_row(signal_id(item.id or "", key), key, event, sent_at))
        if items:
            rows.insert(SIGNAL, kept)
            self._outbox.enqueue_many(items, transaction=rows.native)

    def send(
        self,
        rows: Rows,
        execution: Execution,
        event: Event,
        idempotency_key: str | None = None,
        *,
        key: str | None = None,
    ) -> str:
        """
        Keep *event* as a signal to *execution*, and enqueue what wakes it; return the signal's id.

        A second one to it, or to its chain, with the same *idempotency_key* is the first. Steps
        wait for it by its name, or by *key*.
        """
        key, to = key or signal_key(execution, event.name), execution.chain_id or execution.id
        once = idempotency_key is not None
        id_ = new_id() if idempotency_key is None else signal_id(idempotency_key, key)
        row = _signal_row(id_, key, event, redact=self._outbox.redact, once=once)
        if rows.insert(SIGNAL, [{**row, "execution_id": to}], fresh=not once):
            about = {"key": key, "signal": event.name, "execution_id": to}
            item = NewItem(
                SIGNAL_KIND, about, id=id_, tenant_id=execution.tenant_id, lane=event.name,
                max_attempts=ACCEPTED_MAX_ATTEMPTS,
            )  # fmt: skip
            self._outbox.enqueue_many([item], transaction=rows.native)
        return id_

    # -- delivery ----------------------------------------------------------------------------

    def deliver(self, items: Sequence[OutboxItem]) -> Generator[None, None, set[str]]:
        """
        Wake those that wait for the signals of claimed *items*, and finish the items.

        It yields after each small number that it has woken: who has other work does some of that
        before the next. Returns the items whose leases were lost. Raises `LockedError`, once the
        others are woken, if a transaction that goes on has changed one that waits, by an operator's
        act say.
        """
        keys = [str(item.payload["key"]) for item in items]
        # Decisions and ends of sub-workflows: they are read where they stand. That there is news is
        # noted before anybody is woken, and may be noted twice.
        new = [
            _signal_row(signal_id(item.id, key), key, Event.from_json(item.payload["event"]))
            for item, key in zip(items, keys, strict=True) if "event" in item.payload
        ]  # fmt: skip
        if new:
            with self._storage.begin() as rows:
                rows.insert(SIGNAL, new)
        locked: LockedError | None = None
        for waiting in self._waiting_for(keys):
            left = self._wake_parked(waiting)
            yield
            for item_id in left:
                try:
                    self._wake_one(item_id)
                except LockedError as error:
                    locked = error
                yield
        self._forget_late(items)
        if locked is not None:
            raise locked
        outcomes = [Outcome(item.id, token=item.lease_token) for item in items]
        return self._outbox.acknowledge(items[0].lease_owner or "", outcomes)

    def _forget_late(self, items: Sequence[OutboxItem]) -> None:
        """Delete what was sent to executions that were purged before its sender committed."""
        sent = {str(each.payload.get("execution_id", "")) for each in items} - {""}
        if not sent:
            return
        with self._storage.begin(atomic=False) as rows:
            ended = sent - _lasting(rows, sent, [Where("status", "in", LIVE)])
        if ended:
            with self._storage.begin() as rows:
                rows.wait_briefly()
                for column in ("chain_id", "id"):
                    # Whoever purges one this moment is waited for.
                    its = [Where(column, "in", sorted(ended))]
                    rows.select(EXECUTION, its, order_by=("id",), lock=True, columns=("id",))
                self.forget(rows, ended - _lasting(rows, ended))

    def _waiting_for(self, keys: Sequence[str]) -> Iterator[list[str]]:
        """Yield the items of the executions that wait for these keys, in small lists."""
        beyond: list[Where] = []
        while True:
            with self._storage.begin(atomic=False) as rows:
                where = [Where("key", "in", sorted(set(keys))), *beyond]
                waits = rows.select(
                    WAIT, where, order_by=("id",), limit=_WOKEN_AT_ONCE,
                    columns=("id", "execution_id"),
                )  # fmt: skip
                ids = sorted({row["execution_id"] for row in waits})
                live = [Where("id", "in", ids), Where("status", "in", LIVE)]
                found = rows.select(EXECUTION, live, columns=("item_id",))
            if found:
                yield sorted(row["item_id"] for row in found)
            if len(waits) < _WOKEN_AT_ONCE:
                return
            beyond = [Where("id", "gt", waits[-1]["id"])]

    def _wake_parked(self, item_ids: Sequence[str]) -> list[str]:
        """
        Let items be due now, in a transaction for those that are deferred.

        Returns those that a worker has, or somebody has locked.
        """
        if not self._shares_tables:
            controls_of(self._outbox).reschedule(item_ids)
            return []
        with self._storage.begin() as rows:
            deferred = rows.select(
                OUTBOX, [Where("id", "in", item_ids), *_PARKED], order_by=("id",), lock=True,
                skip_locked=True, columns=("id", "priority"),
            )  # fmt: skip
            _make_due(rows, deferred)
        left = set(item_ids) - {row["id"] for row in deferred}
        if not left:
            return []
        with self._storage.begin(atomic=False) as rows:
            # Those that are due already are claimed later than this, and look then.
            where = [
                Where("id", "in", sorted(left)),
                Where("waiting_for", "eq", ItemWait.WORKER.value),
            ]
            return sorted(left - {row["id"] for row in rows.select(OUTBOX, where, columns=("id",))})

    def _wake_one(self, item_id: str) -> None:
        """Let an item be due now that a worker has, if that defers it this very moment."""
        # Locked by its id alone, so that whoever defers it is waited for; and alone, so that nobody
        # who holds others waits for this one.
        with self._storage.begin() as rows:
            rows.wait_briefly()  # it may be the application's transaction, which takes long
            found = rows.select(
                OUTBOX, [Where("id", "eq", item_id)], lock=True,
                columns=("id", "status", "waiting_for", "priority"),
            )  # fmt: skip
            _make_due(rows, [
                row for row in found
                if row["status"] in WAITING and row["waiting_for"] == ItemWait.TIME
            ])  # fmt: skip

    def wake(self, rows: Rows, item_ids: Sequence[str]) -> None:
        """Let items be due now that were deferred in this transaction."""
        if not item_ids:
            return
        if not self._shares_tables:
            controls_of(self._outbox).reschedule(item_ids)
            return
        where = [Where("id", "in", sorted(item_ids)), *_PARKED]
        _make_due(rows, rows.select(OUTBOX, where, columns=("id", "priority")))

    # -- waits -------------------------------------------------------------------------------

    def begin(self, rows: Rows, waits: Sequence[tuple[Wait, str | None]]) -> None:
        """Write waits that begin, each with its tenant; the step's row is written beside it."""
        self.register(rows, [wait.awaited for wait, _ in waits if wait.awaited is not None])
        redact = self._outbox.redact
        new = [_wait_row(wait, tenant, redact) for wait, tenant in waits if wait.key is not None]
        rows.insert(WAIT, new)
        asked = [row for row in new if row["about"] == "approval"]
        rows.insert(APPROVER, [one for row in asked for one in approver_rows(row)])

    def end(self, rows: Rows, ended: Sequence[tuple[str, StepKey]]) -> None:
        """Delete the waits of steps that have ended: of each its execution and key."""
        for ids in _parts(wait_id(execution_id, *key) for execution_id, key in ended):
            rows.delete(WAIT, [Where("id", "in", ids)])

    def leave_to_successor(
        self, rows: Rows, execution: Execution, successor: Successor
    ) -> tuple[datetime, dict[str, Any]]:
        """
        Leave what an execution has not taken to the one that continues it.

        Its own signals that it has taken are deleted; of those that were sent with a key the rows
        stay, so that the key counts as long as the chain. Events may answer others, too: of those,
        the time from which they count for the successor is returned, and what was taken since then.
        """
        events = list(_event_outputs(execution))
        sent = {one.id for one in events if one.source == SENT}
        keys = sorted({signal_key(execution, one.name) for one in events if one.source == SENT})
        own = rows.select(SIGNAL, [Where("key", "in", keys)], columns=("id", "event"))
        taken = [row for row in own if row["event"]["id"] in sent]
        for ids in _parts(row["id"] for row in taken if _ONCE not in row["event"]):
            rows.delete(SIGNAL, [Where("id", "in", ids)])
        for ids in _parts(row["id"] for row in taken if _ONCE in row["event"]):
            emptied = {"key": _TAKEN, "event": encode_json({}, "signal")}
            rows.update(SIGNAL, [Where("id", "in", ids)], emptied)
        found = self._taken_events(rows, [one for one in events if one.source != SENT])
        # What came meanwhile is left to the next one, also by an execution that didn't look at it.
        seen = successor.waited.union(one.name for one in events)
        unseen = {name for name, _ in successor.workflow.awaited} - seen
        kept = timedelta(seconds=_UNSEEN_SECONDS if unseen else _KEPT_SECONDS)
        stored = _taken_before(rows, [(execution, row["key"]) for row in found])
        before = {key: its for (_, key), its in stored.items()} | (execution.events_taken or {})
        since, left, more = events_left(execution, before, found, rows.now(), kept=kept)
        if MORE in left:
            self._keep_taken(rows, execution.chain_id or execution.id, more, since)
        return since, left

    def _keep_taken(
        self, rows: Rows, chain_id: str, more: Mapping[str, Any], since: datetime
    ) -> None:
        """Write what a chain has taken of so many keys, and delete what no longer counts."""
        chain_key = wait_key("taken", chain_id)
        new = {
            signal_id(chain_id, key): {
                "key": chain_key, "execution_id": chain_id,
                "event": encode_json({"taken": its}, "events that were taken"),
                "received_at": datetime.fromisoformat(its[0]),
            }
            for key, its in more.items()
        }  # fmt: skip
        over = [Where("key", "eq", chain_key), Where("received_at", "lt", since)]
        old = [row["id"] for row in rows.select(SIGNAL, over, columns=("id",))]
        for ids in _parts({*old, *new}):
            rows.delete(SIGNAL, [Where("id", "in", ids)])
        rows.insert(SIGNAL, [{"id": row_id, **row} for row_id, row in new.items()])

    def _taken_events(self, rows: Rows, events: Sequence[Event]) -> list[Row]:
        """Return the signals that have brought *events*, in the order in which they came."""
        names = sorted({one.name for one in events})
        awaited = rows.select(AWAITED, [Where("name", "in", names)], columns=("name", "field"))
        pairs = [(row["name"], row["field"]) for row in awaited]
        ids = {
            signal_id(item.id or "", item.payload["key"])
            for event in events for item in kept_signal_items(event, pairs)
        }  # fmt: skip
        found = _select(rows, SIGNAL, ids, ("id", "key", "received_at"))
        return sorted(found, key=itemgetter("received_at"))

    def open(self, rows: Rows, execution_ids: Sequence[str]) -> dict[str, dict[StepKey, OpenWait]]:
        """Return the waits of executions, which go on."""
        found: dict[str, dict[StepKey, OpenWait]] = {}
        where = [Where("execution_id", "in", sorted(execution_ids))]
        for row in rows.select(WAIT, where, order_by=("created_at", "id")):
            key = (row["step_id"], row["position"])
            one = OpenWait(row["key"], row["about"], row["details"] or {}, row["expires_at"])
            found.setdefault(row["execution_id"], {})[key] = one
        return found

    def waiting(self, rows: Rows, execution_id: str) -> list[WaitingFor]:
        """Return the waits of an execution, for people."""
        where = [Where("execution_id", "eq", execution_id)]
        found = rows.select(WAIT, where, order_by=("created_at", "id"), columns=_FOR_PEOPLE)
        return [_waiting_for(row) for row in found]

    def first_waiting(self, rows: Rows, execution_ids: Sequence[str]) -> dict[str, WaitingFor]:
        """Return the longest wait of each execution that has some."""
        parts = [Portion([Where("execution_id", "eq", each)], 1) for each in execution_ids]
        columns, order = (*_FOR_PEOPLE, "id"), ("created_at", "id")
        found = rows.select_parts(WAIT, parts, order_by=order, columns=columns)
        return {
            each: _waiting_for(row)
            for each, its in zip(execution_ids, found, strict=True)
            for row in its
        }

    def received(self, rows: Rows, execution_id: str, limit: int) -> list[Event]:
        """Return the latest signals that were sent to an execution, or the first of its chain."""
        where = [Where("execution_id", "eq", execution_id)]
        latest = rows.select(SIGNAL, where, order_by=("-received_at", "-id"), limit=limit)
        return [Event.from_json(row["event"]) for row in latest]

    def unseen(
        self, rows: Rows, waiting: Mapping[str, tuple[Execution, Sequence[OpenWait]]]
    ) -> set[str]:
        """Return the keys of *waiting* for whose waits there are signals not looked at yet."""
        found, taken = _signals(rows, waiting.values())
        return {
            name
            for name, (execution, waits) in waiting.items()
            if any(_new_to(one, execution, found, taken) for one in waits)
        }

    def arrived(
        self,
        rows: Rows,
        waiting: Mapping[str, tuple[Execution, Mapping[StepKey, OpenWait]]],
        *,
        now: datetime | None = None,
        told: bool = False,
    ) -> dict[str, dict[StepKey, Arrived]]:
        """
        Return the signals that have not been looked at, by the keys of *waiting* and by step.

        The ends of sub-workflows are read where they stand. With *told* only those are of which a
        signal tells, or whose time is over: for a look that follows others, however many go on.
        *now* is the database's time, if it is known.
        """
        over = self._over(rows, waiting, now)
        found, taken = _signals(rows, [(one, list(its.values())) for one, its in waiting.values()])
        new = {
            (name, key): _new_to(one, execution, found, taken)
            for name, (execution, its) in waiting.items()
            for key, one in its.items()
        }
        # Of the others only the news counts: their ends and decisions are read where they stand.
        heard = {
            each
            for (name, key), ids in new.items()
            if waiting[name][1][key].about not in ("workflow", "approval")
            for each in ids
        }
        events = _events(rows, heard)
        ends = _ends(rows, (
            waiting[name][1][key] for (name, key), ids in new.items()
            if ids or not told or (name, key) in over
        ))  # fmt: skip
        decisions = _decisions(rows, waiting.values())
        arrived: dict[str, dict[StepKey, Arrived]] = {}
        for (name, key), ids in new.items():
            one, ends_here = waiting[name][1][key], (name, key) in over
            # Of those that were kept together, the one that was sent first comes first.
            known = sorted(
                (at, events[each].event.id, each)
                for each, at in ids.items() if each in events
                # Not what was sent before its own event, however late it was brought.
                if _counts(one, waiting[name][0], events[each])
            )  # fmt: skip
            come = [events[each].event for _, _, each in known]
            if one.about == "workflow":
                come = [ends[one.subject]] if one.subject in ends else []
            elif one.about == "approval":
                # What has come may be the decision of an earlier asking.
                come = decisions.get((waiting[name][0].id, *key), [])
                ends_here = (waiting[name][0].id, *key) in decisions
            if ids or come or ends_here:
                arrived.setdefault(name, {})[key] = Arrived(one, come, set(ids), ends_here)
        return arrived

    def _over(
        self,
        rows: Rows,
        waiting: Mapping[str, tuple[Execution, Mapping[StepKey, OpenWait]]],
        now: datetime | None,
    ) -> set[tuple[str, StepKey]]:
        """Return the waits whose time is over: what was sent in time has come, and is kept."""
        ends = [
            (name, key, execution.tenant_id, one)
            for name, (execution, its) in waiting.items()
            for key, one in its.items()
            # Of an approval its decision tells.
            if one.expires_at is not None and one.about != "approval"
        ]
        if not ends:
            return set()
        at, has_passed = now or rows.now(), self._watermarks.has_passed
        return {
            (name, key)
            for name, key, tenant_id, one in ends
            if one.expires_at is not None and one.expires_at <= at
            # A sub-workflow's end is read where it stands.
            if one.about == "workflow"
            or has_passed(rows, (name, key), tenant_id, one.expires_at, at)
        }

    def awaited_ends(self, rows: Rows, executions: Mapping[str, str]) -> set[str]:
        """Return those of these executions whose ends are waited for, by the first of the chain."""
        keys = {child_key(first): each for each, first in executions.items()}
        found = rows.select(WAIT, [Where("key", "in", sorted(keys))], columns=("key",))
        return {keys[row["key"]] for row in found}

    # -- retention ---------------------------------------------------------------------------

    def purge(self, *, older_than_seconds: float = _KEPT_SECONDS) -> int:
        """
        Delete the events that are older than each execution that goes on; return their number.

        A step may still take those, since events count from its execution's start on. Those of the
        last *older_than_seconds* are kept. A worker does so now and then. What was sent to one
        execution goes with it: see `forget`.
        """
        purged = 0
        for ids in self._old(older_than_seconds):
            with self._storage.begin() as rows:
                purged += rows.delete(SIGNAL, [Where("id", "in", sorted(ids))])
        after: str | None = ""
        while after is not None:
            after = write(self._storage, None, partial(_forget_approvers, after=after))
        return purged

    def forget(self, rows: Rows, execution_ids: Iterable[str]) -> None:
        """Delete what was sent to executions, or to chains, that are deleted: by their first id."""
        for some in _parts(execution_ids):
            its = [Where("execution_id", "in", some)]
            found = [row["id"] for row in rows.select(SIGNAL, its, columns=("id",))]
            for ids in _parts(found):
                rows.delete(SIGNAL, [Where("id", "in", ids)])

    def _old(self, age: float) -> Iterator[list[str]]:
        while True:
            with self._storage.begin(atomic=False) as rows:
                old = Where("received_at", "lt", Now(-age))
                before: list[Where] = [Where("execution_id", "eq", None), old]
                for status in ExecutionStatus:
                    if not status.finished:
                        oldest = rows.select(
                            EXECUTION, [Where("status", "eq", status.value)],
                            order_by=("created_at",), limit=1, columns=("created_at",),
                        )  # fmt: skip
                        before += [Where("received_at", "lt", row["created_at"]) for row in oldest]
                        # And of the chains the one that has the oldest to take.
                        chains = rows.select(
                            EXECUTION, [
                                Where("status", "eq", status.value),
                                Where("events_since", "lt", Now(-age)),
                            ],
                            order_by=("events_since",), limit=1, columns=("events_since",),
                        )  # fmt: skip
                        before += [
                            Where("received_at", "lt", row["events_since"]) for row in chains
                        ]
                found = rows.select(
                    SIGNAL, before, order_by=("received_at",), limit=_PURGED_AT_ONCE,
                    columns=("id",),
                )  # fmt: skip
            if not found:
                return
            yield [row["id"] for row in found]


def _signals(
    rows: Rows, waiting: Iterable[tuple[Execution, Sequence[OpenWait]]]
) -> tuple[dict[str, list[Row]], dict[tuple[str, str], Any]]:
    """Return ids and times of the signals that may answer, by key; and what was taken before."""
    waiting = list(waiting)
    keys = sorted({one.key for _, waits in waiting for one in waits})
    if not keys:
        return {}, {}
    times = [time for one, _ in waiting if (time := _since(one)) is not None]
    since = [Where("received_at", "ge", min(times))] if len(times) == len(waiting) else []
    found: dict[str, list[Row]] = {}
    where = [Where("key", "in", keys), *since]
    for row in rows.select(SIGNAL, where, columns=("id", "key", "received_at")):
        found.setdefault(row["key"], []).append(row)
    its = [(execution, one.key) for execution, waits in waiting for one in waits]
    return found, _taken_before(rows, its)


def _taken_before(rows: Rows, its: Iterable[tuple[Execution, str]]) -> dict[tuple[str, str], Any]:
    """
    Return what chains have taken of these keys, if their executions don't have it themselves.

    By execution and key.
    """
    ids = {
        (execution.id, key): signal_id(execution.chain_id or execution.id, key)
        for execution, key in its
        if MORE in (execution.events_taken or {})
    }
    found = _select(rows, SIGNAL, set(ids.values()), ("id", "event")) if ids else []
    taken = {row["id"]: row["event"]["taken"] for row in found}
    return {each: taken[row_id] for each, row_id in ids.items() if row_id in taken}


def _lasting(rows: Rows, first_ids: Iterable[str], its: Sequence[Where] = ()) -> set[str]:
    """Return those of *first_ids* that are there, or the last of their chains is, and are *its*."""
    lasting = set()
    for column in ("id", "chain_id"):
        last = [Where(column, "in", sorted(first_ids)), Where("successor_id", "eq", None), *its]
        lasting |= {row[column] for row in rows.select(EXECUTION, last, columns=(column,))}
    return lasting


def _since(execution: Execution) -> datetime | None:
    """Return the time from which signals count; None if those to its predecessors do."""
    return events_since(execution) if execution.chain_id is None else None


def _event_outputs(execution: Execution) -> Iterator[Event]:
    """Yield the events that steps have taken; an action may return one, too."""
    for run in execution.steps:
        if isinstance(run.output, dict):
            with suppress(PayloadError):
                yield Event.from_json(run.output)


def _new_to(
    wait: OpenWait,
    execution: Execution,
    found: Mapping[str, list[Row]],
    before: Mapping[tuple[str, str], Any],
) -> dict[str, datetime]:
    """Return the signals that have come for *wait* and were not looked at: their ids and times."""
    since = _since(execution) if wait.about in ("signal", "task") else events_since(execution)
    new = {
        row["id"]: row["received_at"]
        for row in found.get(wait.key, ())
        if row["id"] not in wait.seen and (since is None or row["received_at"] >= since)
    }
    own = execution.events_taken or {}
    taken = own.get(wait.key) or before.get((execution.id, wait.key))
    time, ids = last_taken({wait.key: taken}, wait.key)
    if time is not None:
        # Those of one moment come in an order that time doesn't tell.
        new = {one: at for one, at in new.items() if at >= time and one not in ids}
    return new


def _signal_row(
    row_id: str,
    key: str,
    event: Event,
    sent_at: datetime | None = None,
    *,
    redact: Redaction | None = None,
    once: bool = False,
) -> Row:
    told = event.to_json()
    if sent_at is not None:
        told[_SENT_AT] = sent_at.isoformat()
    if once:
        told[_ONCE] = True
    return {
        "id": row_id,
        "key": key,
        "event": encode_json(told, "signal", MOST_BYTES, inside=1, redact=redact),
        "received_at": Now(),
    }


def _forget_approvers(rows: Rows, after: str) -> str | None:
    """Delete some of who may decide on waits that have ended; return the place to go on from."""
    beyond = [Where("id", "gt", after)] if after else []
    found = rows.select(
        APPROVER, beyond, order_by=("id",), limit=_MOST_VALUES, columns=("id", "wait_id")
    )
    going_on = _select(rows, WAIT, {row["wait_id"] for row in found}, ("id",))
    waits = {row["id"] for row in going_on}
    gone = [row["id"] for row in found if row["wait_id"] not in waits]
    rows.delete(APPROVER, [Where("id", "in", gone)])
    return found[-1]["id"] if len(found) == _MOST_VALUES else None


def approver_rows(row: Row) -> Iterator[Row]:
    """Yield the rows of who may decide on an approval, given the row of its wait."""
    for who in json.loads(row["details"])["by"] or [ANYONE]:
        yield {
            "id": approver_id(row["id"], who),
            "wait_id": row["id"],
            "who": who[:200],  # redacted, it may be longer
            "tenant_id": row["tenant_id"],
            "created_at": row["created_at"],
        }


def _waiting_for(row: Row) -> WaitingFor:
    return WaitingFor(**{name: row[name] for name in _FOR_PEOPLE if name != "details"},
                      details=row["details"] or {})  # fmt: skip


def _wait_row(wait: Wait, tenant_id: str | None, redact: Redaction | None) -> Row:
    run = wait.run
    return {
        "id": wait_id(run.execution_id, *run.key),
        "key": wait.key,
        "about": wait.about,
        "execution_id": run.execution_id,
        "step_id": run.step_id,
        "position": run.position,
        "tenant_id": tenant_id,
        "details": encode_json(dict(wait.details), "details of the wait", redact=redact),
        "created_at": Now(),
        "expires_at": None if wait.seconds is None else Now(wait.seconds),
    }


@dataclass(frozen=True, slots=True)
class _Sent:
    """The event of a signal, and when it was sent, if that is known."""

    event: Event
    at: datetime | None


def _events(rows: Rows, ids: Iterable[str]) -> dict[str, _Sent]:
    found = _select(rows, SIGNAL, ids, ("id", "event"))
    return {
        row["id"]: _Sent(Event.from_json(row["event"]), at and datetime.fromisoformat(at))
        for row in found
        for at in (row["event"].get(_SENT_AT),)
    }


def _counts(wait: OpenWait, execution: Execution, sent: _Sent) -> bool:
    """Return True if an event was sent since that which has begun the execution."""
    if wait.about != "event" or execution.chain_id is not None:
        return True
    since = execution.events_since
    return since is None or sent.at is None or sent.at >= since


def _decisions(
    rows: Rows, waiting: Iterable[tuple[Execution, Mapping[StepKey, OpenWait]]]
) -> dict[tuple[str, str, int], list[Event]]:
    """
    Return the decisions on approvals, by execution, step and position; none where the time is over.

    Approvals that may still be decided are left out, and those that are being decided this moment:
    such a decision was made in time.
    """
    ids = sorted(
        wait_id(execution.id, *key)
        for execution, its in waiting for key, one in its.items() if one.about == "approval"
    )  # fmt: skip
    if not ids:
        return {}
    where = [Where("id", "in", ids)]
    found, now = rows.select(WAIT, where), rows.now()
    over = {row["id"] for row in found if row["expires_at"] and row["expires_at"] <= now}
    if any(row["id"] in over and not decision_event(row) for row in found):
        found = _undisputed(rows, where)
    return {
        (row["execution_id"], row["step_id"], row["position"]): events
        for row in found
        if (events := list(decision_event(row))) or row["id"] in over
    }


def _undisputed(rows: Rows, where: Sequence[Where]) -> list[Row]:
    """Return the waits that *where* finds and nobody decides on in a transaction that goes on."""
    if rows.dialect.skip_locked:
        # That transaction is the application's, and may take long: a worker doesn't wait for it.
        return rows.select(WAIT, where, lock=True, skip_locked=True)
    # The one writer of a file is waited for, as for any checkpoint. A write is the only lock there.
    rows.update(WAIT, where, {"about": "approval"})
    return rows.select(WAIT, where)


def _ends(rows: Rows, waits: Iterable[OpenWait]) -> dict[str, Event]:
    """Return the ends of the sub-workflows that have ended, by their ids."""
    ids = {one.subject for one in waits if one.about == "workflow"}
    known = _select(rows, EXECUTION, ids, ("id", "status", "successor_id"))
    # Of a chain the last one counts; the first may be gone already.
    alone = {row["id"] for row in known if row["successor_id"] is None}
    subjects = {each: each for each in ids}
    if chains := ids - alone:
        last = ends_of_chains(rows, sorted(chains))
        subjects = {last.get(each, each): each for each in ids}
        known = _select(rows, EXECUTION, subjects, ("id", "status"))
    ended = [row["id"] for row in known if ExecutionStatus(row["status"]).finished]
    columns = ("id", "workflow", "status", "output", "output_ref", "error_code", "error")
    found = _select(rows, EXECUTION, ended, columns)
    gone = subjects.keys() - {row["id"] for row in known}
    return {
        **{subjects[each]: end_event(None, each) for each in gone},
        **{subjects[row["id"]]: end_event(row, row["id"]) for row in found},
    }


def _make_due(rows: Rows, deferred: Sequence[Row]) -> None:
    for priority in sorted({row["priority"] for row in deferred}):
        ids = [row["id"] for row in deferred if row["priority"] == priority]
        changes = {"updated_at": Now(), **waiting_changes(0.0, priority)}
        rows.update(OUTBOX, [Where("id", "in", ids)], changes)
    if deferred:
        rows.notify()


def _select(rows: Rows, table: str, ids: Iterable[str], columns: Sequence[str]) -> list[Row]:
    return rows.select(table, [Where("id", "in", sorted(ids))], columns=columns)


def _parts(values: Iterable[str]) -> Iterator[list[str]]:
    ordered = sorted(values)
    for start in range(0, len(ordered), _MOST_VALUES):
        yield ordered[start : start + _MOST_VALUES]
