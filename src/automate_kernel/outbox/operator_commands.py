"""Operator commands: cancel, requeue, reschedule and discard one item or a hundred thousand."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Protocol

from automate_kernel.arguments import check_choice, check_limit
from automate_kernel.errors import AutomateError, ErrorCodes
from automate_kernel.outbox import concurrency_keys, ordering_keys
from automate_kernel.outbox.item import (
    FINISHED,
    FREE,
    WAITING,
    ItemStatus,
    OutboxItem,
    end_changes,
    waiting_changes,
)
from automate_kernel.outbox.queries import conditions, item_ids_of
from automate_kernel.outbox.retention import forget
from automate_kernel.storage.checkpoint import RECALL
from automate_kernel.storage.deadlocks import write_bounded
from automate_kernel.storage.query import Now, Where
from automate_kernel.storage.rows import Row, Rows, Storage
from automate_kernel.storage.tables import OUTBOX

BATCH = 200
"""The number of items that one transaction changes, so that nobody waits for it for long."""


class OutboxListener(Protocol):
    """
    A listener, which hears of items in the transaction that changes them.

    What it writes stands or falls with the change; if it raises, nothing is changed. A method
    ``committed`` is called, if there is one, after each transaction of an operator's command.
    """

    def ended(self, rows: Rows, item: OutboxItem) -> None:
        """Note that *item* is FAILED or CANCELLED now."""

    def requeued(self, rows: Rows, item: OutboxItem) -> bool:
        """Let *item*, which FAILED or was CANCELLED, wait again; False keeps it as it is."""


Progress = Callable[[int], Any]
"""Is called with how many items have been changed so far, after each batch."""


@dataclass(frozen=True, slots=True)
class BulkAction:
    """
    An operator command for all items that *matching* finds, and its progress.

    *command* is ``requeue``, ``cancel``, ``discard`` or ``reschedule``. Items are come to in the
    order of their ids, each once. What is enqueued after the action *began_at* is not among them.
    *after* is the last item that the action came to, *seen* counts those, and *done* those that it
    changed. *delay* is for ``reschedule``: seconds from now. *per_second* is for ``requeue``: so
    many become due in a second.

    All fields are JSON, if the times in *matching* are text: so it can be kept and gone on with.
    """

    command: str
    matching: Mapping[str, Any]
    delay: float = 0.0
    per_second: float | None = None
    began_at: str = ""
    after: str = ""
    seen: int = 0
    done: int = 0
    finished: bool = False


def _statuses(action: BulkAction) -> list[str]:
    """
    Return the statuses whose items *action* changes.

    Raises ``INVALID_ARGUMENT`` for a status that it can't change, and if the filter is empty: to
    mean every item, name a status.
    """
    if action.command not in _STATUSES:
        raise AutomateError(ErrorCodes.INVALID_ARGUMENT, f"no command is called {action.command!r}")
    able, usual = _STATUSES[action.command]
    if all(value is None for value in action.matching.values()):
        raise AutomateError(
            ErrorCodes.INVALID_ARGUMENT, "no filter says which items are meant",
            hint='to mean all of them, name their status: status="FAILED"',
        )  # fmt: skip
    if (given := action.matching.get("status")) is None:
        return list(usual)
    status = check_choice(given, ItemStatus, "status").value
    if status not in able:
        raise AutomateError(
            ErrorCodes.INVALID_ARGUMENT, f"this can't be done to items that are {status}",
            hint=f"only to those that are {', '.join(able)}",
        )  # fmt: skip
    return [status]


_RUNNING = ItemStatus.RUNNING.value
_AGAIN = (ItemStatus.FAILED.value, ItemStatus.CANCELLED.value)
# Items that become due together, when so many a second are to.
_SLICES_PER_SECOND = 10
# Per command the statuses that it can change, and those that it changes if none is named.
_STATUSES: Mapping[str, tuple[Sequence[str], Sequence[str]]] = {
    "requeue": (_AGAIN, (ItemStatus.FAILED.value,)),
    "cancel": ((*WAITING, _RUNNING), WAITING),
    "discard": (FINISHED, _AGAIN),
    "reschedule": (WAITING, WAITING),
}


class OperatorCommands:
    """The commands of an operator: they change items, and *listeners* hear of it."""

    def __init__(self, storage: Storage, listeners: Sequence[OutboxListener]) -> None:
        self._storage, self._listeners = storage, listeners
        self._changes: Mapping[str, Callable[..., int]] = {
            "cancel": self._cancel,
            "requeue": self._requeue,
            "discard": self._discard,
            "reschedule": self._reschedule,
        }

    def run(self, command: str, item_ids: Iterable[str], **options: Any) -> int:
        """Carry *command* out for items, in small transactions; return how many it changed."""
        ids = item_ids_of(item_ids)
        batches = (ids[start : start + BATCH] for start in range(0, len(ids), BATCH))
        try:
            return sum(self._changes[command](batch, **options) for batch in batches)
        finally:
            self._tell()

    def _tell(self) -> None:
        """Call the ``committed`` of the listeners that have one."""
        for listener in self._listeners:
            getattr(listener, "committed", lambda: None)()

    def run_bulk(
        self,
        action: BulkAction,
        seconds: float | None,
        limit: int | None,
        progress: Progress | None,
    ) -> BulkAction:
        """Carry a bulk action on; see `OutboxStore.run_bulk`."""
        if limit is not None:
            limit = check_limit(limit, least=0)
        statuses = Where("status", "in", _statuses(action))
        until = None if seconds is None else time.monotonic() + seconds
        with self._storage.begin(atomic=False) as rows:
            where = [statuses, *conditions(rows, action.matching)]
            action = replace(action, began_at=action.began_at or rows.now().isoformat())
        began = datetime.fromisoformat(action.began_at)
        # So that this ends however fast new ones come.
        where.append(Where("created_at", "le", began))
        change = self._change_of(action, began)
        while not action.finished:
            size = BATCH if limit is None else min(BATCH, limit - action.seen)
            beyond = [Where("id", "gt", action.after)] if action.after else []
            with self._storage.begin(atomic=False) as rows:
                # One more tells whether another go is needed.
                found = rows.select(
                    OUTBOX, [*where, *beyond], order_by=("id",), limit=size + 1, columns=("id",)
                )
            ids = [row["id"] for row in found[:size]]
            done = change(ids) if ids else 0
            action = replace(
                action,
                after=ids[-1] if ids else action.after,
                seen=action.seen + len(ids),
                done=action.done + done,
                finished=len(found) <= size or action.seen + len(ids) == limit,
            )
            self._tell()
            if progress is not None and ids:
                progress(action.done)
            if until is not None and time.monotonic() >= until:
                break
        return action

    def _change_of(self, action: BulkAction, began: datetime) -> Callable[[list[str]], int]:
        change = self._changes[action.command]
        if action.command == "reschedule":
            return partial(change, due=action.delay)
        if action.command == "requeue" and action.per_second is not None:
            return _Spread(change, began, action.per_second, action.done)
        return change

    def _cancel(self, ids: list[str], transaction: Any = None) -> int:
        left, done = set(ids), 0
        # What waits may be claimed, and what runs put back, between the look and the change.
        for _ in range(3):
            found = write_bounded(self._storage, transaction, partial(_live, ids=left))
            running = [row["id"] for row in found if row["status"] == _RUNNING]
            hit = self._ask(running, transaction)
            # A key at a time: who finishes an item of it needs the rows of that key alone.
            for key in sorted({row["ordering_key"] for row in found}, key=str):
                waiting = [r for r in found if r["status"] in WAITING and r["ordering_key"] == key]
                hit |= self._cancel_waiting([row["id"] for row in waiting], key, transaction)
            done += len(hit)
            left = {row["id"] for row in found if row["waiting_for"] != "cancel"} - hit
            if not left:
                break
        return done

    def _cancel_waiting(self, ids: list[str], key: str | None, transaction: Any = None) -> set[str]:
        if not ids:
            return set()
        cancelled = end_changes(ItemStatus.CANCELLED)

        def work(rows: Rows) -> set[str]:
            found = _locked(rows, ids, [Where("status", "in", WAITING)])
            hit = [row["id"] for row in found]
            rows.update(OUTBOX, [Where("id", "in", hit)], cancelled)
            if self._listeners:
                for row in found:
                    item = OutboxItem.from_row(
                        {**row, "status": cancelled["status"], "waiting_for": None}
                    )
                    for listener in self._listeners:
                        listener.ended(rows, item)
            # Else another one is next, or runs: two who cancel items of one line need not wait.
            if key is not None and any(row["waiting_for"] != "key" for row in found):
                ordering_keys.wake(rows, [key])
            if bounded := [row for row in found if row["concurrency_key"] is not None]:
                # It may have kept a slot.
                pairs = [(row["concurrency_key"], row["id"]) for row in bounded]
                concurrency_keys.leave(rows, pairs)
            return set(hit)

        return write_bounded(self._storage, transaction, work)

    def _ask(self, ids: list[str], transaction: Any = None) -> set[str]:
        """Leave word on the rows of running items; their worker looks for it."""
        if not ids:
            return set()
        running = [Where("status", "eq", _RUNNING), Where("waiting_for", "eq", None)]

        def work(rows: Rows) -> set[str]:
            hit = [row["id"] for row in _locked(rows, ids, running, ("id",))]
            rows.update(OUTBOX, [Where("id", "in", hit)], {"waiting_for": "cancel"})
            return set(hit)

        return write_bounded(self._storage, transaction, work)

    def _requeue(self, ids: list[str], due: datetime | float = 0.0, *, ready: bool = False) -> int:
        def work(rows: Rows) -> int:
            found = _locked(rows, ids, [Where("status", "in", _AGAIN)])
            for listener in self._listeners:
                found = [row for row in found if listener.requeued(rows, OutboxItem.from_row(row))]
            for priority, group in _by_priority(found):
                changes = {
                    "status": ItemStatus.PENDING.value,
                    "attempt_count": 0,
                    "completed_at": None,
                    "updated_at": Now(),
                    **FREE,
                    **waiting_changes(due, priority),
                    **({"waiting_for": "worker"} if ready else {}),
                }
                rows.update(OUTBOX, [Where("id", "in", group)], changes)
            return len(found)

        return write_bounded(self._storage, None, work)

    def _reschedule(self, ids: list[str], due: datetime | float) -> int:
        read = ("id", "priority", "concurrency_key")

        def work(rows: Rows) -> int:
            found = _locked(rows, ids, [Where("status", "in", WAITING)], read)
            for priority, group in _by_priority(found):
                # One that waits for its key or for a resumption finds out again when it is claimed.
                changes = {"updated_at": Now(), **waiting_changes(due, priority)}
                rows.update(OUTBOX, [Where("id", "in", group)], changes)
            concurrency_keys.wake(rows, (row["concurrency_key"] for row in found))
            return len(found)

        return write_bounded(self._storage, None, work)

    def _discard(self, ids: list[str]) -> int:
        def work(rows: Rows) -> int:
            found = [
                row["id"] for row in _locked(rows, ids, [Where("status", "in", FINISHED)], ("id",))
            ]
            forget(rows, found)
            return rows.delete(OUTBOX, [Where("id", "in", found)])

        return write_bounded(self._storage, None, work)


def recall(rows: Rows, item_ids: Iterable[str]) -> int:
    """Make waiting items due, and leave word on running ones; see `OutboxStore.recall`."""
    live = [Where("status", "in", (*WAITING, _RUNNING))]
    columns = ("id", "status", "priority", "waiting_for")
    found = _locked(rows, item_ids_of(item_ids), live, columns)
    running = [row for row in found if row["status"] == _RUNNING]
    for priority, group in _by_priority([row for row in found if row["status"] in WAITING]):
        changes = {"updated_at": Now(), **waiting_changes(0.0, priority)}
        rows.update(OUTBOX, [Where("id", "in", group)], changes)
    # One that is asked to stop stays so.
    free = [row["id"] for row in running if row["waiting_for"] is None]
    rows.update(OUTBOX, [Where("id", "in", free)], {"waiting_for": RECALL})
    return len(found)


class _Spread:
    """Requeues batches so that *per_second* items a second become due, counted over all of them."""

    def __init__(
        self, requeue: Callable[..., int], start: datetime, per_second: float, count: int
    ) -> None:
        if not per_second > 0:
            raise AutomateError(ErrorCodes.INVALID_ARGUMENT, "per_second must be above 0")
        self._requeue, self._start, self._per_second = requeue, start, per_second
        self._slice = max(1, round(per_second / _SLICES_PER_SECOND))
        self._count = count

    def __call__(self, ids: list[str]) -> int:
        before, position = self._count, 0
        while position < len(ids):
            # To the end of the slice that the last batch began, then whole ones.
            begun = self._count % self._slice
            size, first = self._slice - begun, self._count - begun
            due = self._start + timedelta(seconds=first / self._per_second)
            some = ids[position : position + size]
            self._count += self._requeue(some, due, ready=first == 0)
            position += size
        return self._count - before


def _live(rows: Rows, ids: Iterable[str]) -> list[Row]:
    live = [Where("id", "in", sorted(ids)), Where("status", "in", (*WAITING, _RUNNING))]
    return rows.select(OUTBOX, live, columns=("id", "status", "waiting_for", "ordering_key"))


def _locked(
    rows: Rows, ids: Iterable[str], where: Sequence[Where], columns: Sequence[str] = ()
) -> list[Row]:
    """Return those of the items *ids* that match, which nobody else changes meanwhile."""
    where = [Where("id", "in", sorted(ids)), *where]
    return rows.select(OUTBOX, where, order_by=("id",), lock=True, columns=columns)


def _by_priority(found: Sequence[Row]) -> list[tuple[int, list[str]]]:
    groups: dict[int, list[str]] = {}
    for row in found:
        groups.setdefault(row["priority"], []).append(row["id"])
    return list(groups.items())
