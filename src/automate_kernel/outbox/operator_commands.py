"""Operator commands: cancel, requeue, reschedule and discard one item or a hundred thousand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from automate_kernel.outbox import concurrency_keys, ordering_keys
from automate_kernel.outbox.bulk_actions import BulkAction, BulkTarget, Progress, carry_on
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
from automate_kernel.outbox.store import OutboxListener
from automate_kernel.storage.checkpoint import RELEASE
from automate_kernel.storage.query import Now, Where
from automate_kernel.storage.rows import Row, Rows, Storage, write_bounded
from automate_kernel.storage.statuses import ItemWait
from automate_kernel.storage.tables import OUTBOX

BATCH = 200
"""The number of items that one transaction changes, so that nobody waits for it for long."""


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


def _items() -> BulkTarget:
    """Return the items as the target of bulk actions."""
    return BulkTarget(
        "items", OUTBOX, ("id",), BATCH, _STATUSES, ItemStatus, ("requeue", "discard"), conditions
    )


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
        return carry_on(
            self._storage, _items(), action, self._change_batch, seconds=seconds, limit=limit,
            progress=progress,
        )  # fmt: skip

    def _change_batch(self, action: BulkAction, ids: list[str]) -> int:
        change = self._changes[action.command]
        try:
            if action.command == "reschedule":
                return change(ids, due=action.delay)
            if action.command == "requeue" and action.per_second is not None:
                return self._requeue_spread(action, action.per_second, ids)
            return change(ids)
        finally:
            self._tell()

    def _requeue_spread(self, action: BulkAction, per_second: float, ids: list[str]) -> int:
        """Requeue a batch so that *per_second* become due, counted over all batches."""
        whole = max(1, round(per_second / _SLICES_PER_SECOND))
        done = position = 0
        while position < len(ids):
            # To the end of the slice that the last batch began, then whole ones.
            begun = (action.seen + position) % whole
            size, first = whole - begun, action.seen + position - begun
            due = action.paced_from + timedelta(seconds=first / per_second)
            done += self._requeue(ids[position : position + size], due, ready=first == 0)
            position += size
        return done

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
            left = {row["id"] for row in found if row["waiting_for"] != ItemWait.CANCEL} - hit
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
            if self._listeners and found:
                ended = {"status": cancelled["status"], "waiting_for": None}
                items = [OutboxItem.from_row({**row, **ended}) for row in found]
                for listener in self._listeners:
                    listener.ended(rows, items)
            # Else another one is next, or runs: two who cancel items of one line need not wait.
            if key is not None and any(row["waiting_for"] != ItemWait.KEY for row in found):
                ordering_keys.wake(rows, [key])
            if bounded := [row for row in found if row["concurrency_key"] is not None]:
                # It may have kept a slot.
                pairs = [(row["concurrency_key"], row["id"]) for row in bounded]
                concurrency_keys.release(rows, pairs)
            if key is not None or bounded:
                rows.notify()  # the next of the key may be due
            return set(hit)

        return write_bounded(self._storage, transaction, work)

    def _ask(self, ids: list[str], transaction: Any = None) -> set[str]:
        """Leave word on the rows of running items; their worker looks for it."""
        if not ids:
            return set()
        running = [Where("status", "eq", _RUNNING), Where("waiting_for", "eq", None)]

        def work(rows: Rows) -> set[str]:
            hit = [row["id"] for row in _locked(rows, ids, running, ("id",))]
            rows.update(OUTBOX, [Where("id", "in", hit)], {"waiting_for": ItemWait.CANCEL.value})
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
                    **({"waiting_for": ItemWait.WORKER.value} if ready else {}),
                }
                rows.update(OUTBOX, [Where("id", "in", group)], changes)
            if found:
                rows.notify()
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
            if found:
                rows.notify()
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


def request_release(rows: Rows, item_ids: Iterable[str]) -> int:
    """Make waiting items due, and leave word on running ones; see `OutboxStore.request_release`."""
    live = [Where("status", "in", (*WAITING, _RUNNING))]
    columns = ("id", "status", "priority", "waiting_for")
    found = _locked(rows, item_ids_of(item_ids), live, columns)
    running = [row for row in found if row["status"] == _RUNNING]
    for priority, group in _by_priority([row for row in found if row["status"] in WAITING]):
        changes = {"updated_at": Now(), **waiting_changes(0.0, priority)}
        rows.update(OUTBOX, [Where("id", "in", group)], changes)
    # One that is asked to stop stays so.
    free = [row["id"] for row in running if row["waiting_for"] is None]
    rows.update(OUTBOX, [Where("id", "in", free)], {"waiting_for": RELEASE})
    if len(running) < len(found):
        rows.notify()
    return len(found)


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
