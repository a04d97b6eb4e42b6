"""Changing what waits, runs or is finished, over `Rows`: one item or a hundred thousand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from automate_kernel.errors import AutomateError, ErrorCodes
from automate_kernel.outbox import concurrency_keys as slots
from automate_kernel.outbox import ordering_keys as lanes
from automate_kernel.outbox.failed_attempts import forget_attempts
from automate_kernel.outbox.finishing import due_changes
from automate_kernel.outbox.item import FINISHED, WAITING, ItemStatus, OutboxItem
from automate_kernel.outbox.labels import forget_labels
from automate_kernel.outbox.leases import FREE
from automate_kernel.outbox.store import Progress
from automate_kernel.storage.rows import Now, Row, Rows, Storage, Where
from automate_kernel.storage.tables import OUTBOX

__all__ = [
    "BATCH",
    "Matching",
    "Steering",
    "batches_of",
    "item_ids_of",
    "matching_rows",
]

BATCH = 200
"""How many items one transaction changes, so that nobody waits for it for long."""

_COLUMNS = ("id", "kind", "status")


@dataclass(frozen=True, slots=True)
class Matching:
    """What items have in common; a condition that is None holds for all."""

    status: ItemStatus | str | None = None
    kind: str | None = None
    tenant_id: str | None = None
    error_code: str | None = None
    error_group: str | None = None
    created_before: datetime | None = None
    created_after: datetime | None = None

    def where(self, able: Sequence[str], usual: Sequence[str]) -> list[Where]:
        """
        The conditions on a row; without a status they are those of *usual*.

        Raises ``INVALID_ARGUMENT`` for a status that is not in *able*, and if nothing is named at
        all: who means every item says so with its status.
        """
        if all(getattr(self, each.name) is None for each in fields(self)):
            raise AutomateError(
                ErrorCodes.INVALID_ARGUMENT, "no filter says which items are meant",
                hint='to mean all of them, name their status: status="FAILED"',
            )  # fmt: skip
        return [Where("status", "in", self._statuses(able, usual)), *self._others()]

    def _statuses(self, able: Sequence[str], usual: Sequence[str]) -> Sequence[str]:
        if self.status is None:
            return usual
        status = ItemStatus(self.status).value
        if status not in able:
            raise AutomateError(
                ErrorCodes.INVALID_ARGUMENT, f"this can't be done to items that are {status}",
                hint=f"only to those that are {', '.join(able)}",
            )  # fmt: skip
        return [status]

    def _others(self) -> list[Where]:
        conditions = (
            Where("kind", "eq", self.kind),
            Where("tenant_id", "eq", self.tenant_id),
            Where("last_error_code", "eq", self.error_code),
            Where("last_error_group", "eq", self.error_group),
            Where("created_at", "lt", self.created_before),
            Where("created_at", "ge", self.created_after),
        )
        return [one for one in conditions if one.value is not None]


def matching_rows(
    storage: Storage, where: Sequence[Where], limit: int | None
) -> Iterator[list[Row]]:
    """
    Up to *limit* matching items as rows of id, kind and status, the oldest first.

    They come `BATCH` at a time, each batch read in a transaction of its own. What is enqueued
    meanwhile is not among them, so that this ends however fast new ones come.
    """
    left = limit
    beyond: list[Where] = []
    with storage.begin(atomic=False) as rows:
        where = [*where, Where("created_at", "le", rows.now())]
    while left is None or left > 0:
        size = BATCH if left is None else min(BATCH, left)
        with storage.begin(atomic=False) as rows:
            found = rows.select(
                OUTBOX, [*where, *beyond], order_by=("id",), limit=size, columns=_COLUMNS
            )
        if not found:
            return
        yield found
        beyond = [Where("id", "gt", found[-1]["id"])]
        left = None if left is None else left - len(found)


def item_ids_of(given: Iterable[str]) -> list[str]:
    """The ids among *given*, each once and in order; what can't be one is no item's."""
    ids = set()
    for item_id in given:
        try:
            ids.add(str(UUID(str(item_id))))
        except ValueError:
            continue
    return sorted(ids)


def batches_of(ids: Sequence[str]) -> Iterator[list[str]]:
    """*ids*, `BATCH` at a time."""
    for start in range(0, len(ids), BATCH):
        yield list(ids[start : start + BATCH])


_RUNNING = ItemStatus.RUNNING.value
_AGAIN = (ItemStatus.FAILED.value, ItemStatus.CANCELLED.value)
# Items that become due together, when so many a second are to.
_SLICES_PER_SECOND = 10


class Steering:
    """The part of `RowsOutboxStore` that cancels, requeues, reschedules and discards."""

    storage: Storage
    on_cancelled: Callable[[Rows, OutboxItem], None] | None
    on_requeued: Callable[[Rows, OutboxItem], bool] | None

    # -- cancelling ----------------------------------------------------------------------------

    def cancel(self, item_ids: Sequence[str]) -> int:
        """Cancel what waits, ask what runs to stop; see `OutboxStore.cancel`."""
        return sum(map(self._cancel, batches_of(item_ids_of(item_ids))))

    def cancel_matching(
        self, *, limit: int | None = None, progress: Progress | None = None, **matching: Any
    ) -> int:
        """Cancel by filter; see `OutboxStore.cancel_matching`."""
        where = Matching(**matching).where((*WAITING, _RUNNING), WAITING)
        return self._each(where, limit, progress, self._cancel)

    def _each(
        self,
        where: Sequence[Where],
        limit: int | None,
        progress: Progress | None,
        change: Callable[[list[str]], int],
    ) -> int:
        changed = 0
        for found in matching_rows(self.storage, where, limit):
            changed += change([row["id"] for row in found])
            if progress is not None:
                progress(changed)
        return changed

    def _cancel(self, ids: list[str]) -> int:
        left, done = set(ids), 0
        # What waits may be claimed, and what runs put back, between the look and the change.
        for _ in range(3):
            live = [Where("id", "in", sorted(left)), Where("status", "in", (*WAITING, _RUNNING))]
            with self.storage.begin() as rows:
                found = rows.select(
                    OUTBOX, live, columns=("id", "status", "waiting_for", "ordering_key")
                )
            running = [row["id"] for row in found if row["status"] == _RUNNING]
            hit = self._ask(running)
            # A key at a time: who finishes an item of it needs the rows of that key alone.
            for key in sorted({row["ordering_key"] for row in found}, key=str):
                waiting = [r for r in found if r["status"] in WAITING and r["ordering_key"] == key]
                hit |= self._cancel_waiting([row["id"] for row in waiting], key)
            done += len(hit)
            left = {row["id"] for row in found if row["waiting_for"] != "cancel"} - hit
            if not left:
                break
        return done

    def _cancel_waiting(self, ids: list[str], key: str | None) -> set[str]:
        waiting = [Where("id", "in", ids), Where("status", "in", WAITING)]
        changes = {
            "status": ItemStatus.CANCELLED.value,
            "waiting_for": None,
            "completed_at": Now(),
            "updated_at": Now(),
        }
        if not ids:
            return set()
        with self.storage.begin() as rows:
            found = rows.select(OUTBOX, waiting, order_by=("id",), lock=True)
            hit = [row["id"] for row in found]
            rows.update(OUTBOX, [Where("id", "in", hit)], changes)
            if self.on_cancelled is not None:
                for row in found:
                    gone = {**row, "status": ItemStatus.CANCELLED.value, "waiting_for": None}
                    self.on_cancelled(rows, OutboxItem.from_row(gone))
            if found and key is not None:
                lanes.wake(rows, key)
            _wake_slots(rows, found)
        return set(hit)

    def _ask(self, ids: list[str]) -> set[str]:
        """Leave word on the rows of running items; their worker looks for it."""
        if not ids:
            return set()
        running = [
            Where("id", "in", sorted(ids)),
            Where("status", "eq", _RUNNING),
            Where("waiting_for", "eq", None),
        ]
        with self.storage.begin() as rows:
            found = rows.select(OUTBOX, running, order_by=("id",), lock=True, columns=("id",))
            hit = [row["id"] for row in found]
            rows.update(OUTBOX, [Where("id", "in", hit)], {"waiting_for": "cancel"})
        return set(hit)

    def stop_requests(self, worker_id: str) -> dict[str, str]:
        """What a worker must stop; see `OutboxStore.stop_requests`."""
        asked = [
            Where("waiting_for", "eq", "cancel"),
            # So that a database without partial indexes has one to use.
            Where("lease_expires_at", "ne", None),
            Where("lease_owner", "eq", worker_id),
        ]
        with self.storage.begin(atomic=False) as rows:
            found = rows.select(OUTBOX, asked, columns=("id", "lease_token"))
        return {row["id"]: row["lease_token"] for row in found}

    # -- trying again --------------------------------------------------------------------------

    def requeue(self, item_ids: Sequence[str]) -> int:
        """Make failed or cancelled items wait again; see `OutboxStore.requeue`."""
        return sum(self._requeue(batch) for batch in batches_of(item_ids_of(item_ids)))

    def requeue_matching(
        self,
        *,
        limit: int | None = None,
        per_second: float | None = None,
        progress: Progress | None = None,
        **matching: Any,
    ) -> int:
        """Requeue by filter; see `OutboxStore.requeue_matching`."""
        where = Matching(**matching).where(_AGAIN, [ItemStatus.FAILED.value])
        if per_second is None:
            return self._each(where, limit, progress, self._requeue)
        if not per_second > 0:
            raise AutomateError(ErrorCodes.INVALID_ARGUMENT, "per_second must be above 0")
        with self.storage.begin(atomic=False) as rows:
            start = rows.now()
        return self._each(where, limit, progress, _Spread(self._requeue, start, per_second))

    def _requeue(self, ids: list[str], due: datetime | float = 0.0, *, ready: bool = False) -> int:
        able = [Where("id", "in", ids), Where("status", "in", _AGAIN)]
        with self.storage.begin() as rows:
            found = rows.select(OUTBOX, able, order_by=("id",), lock=True)
            if self.on_requeued is not None:
                again = self.on_requeued
                found = [row for row in found if again(rows, OutboxItem.from_row(row))]
            for priority, group in _by_priority(found):
                changes = {
                    "status": ItemStatus.PENDING.value,
                    "attempt_count": 0,
                    "completed_at": None,
                    "updated_at": Now(),
                    **FREE,
                    **due_changes(due, priority),
                    **({"waiting_for": "worker"} if ready else {}),
                }
                rows.update(OUTBOX, [Where("id", "in", group)], changes)
        return len(found)

    # -- the rest ------------------------------------------------------------------------------

    def reschedule(
        self, item_ids: Sequence[str], *, delay: float = 0.0, run_at: datetime | None = None
    ) -> int:
        """Change due times; see `OutboxStore.reschedule`."""
        if run_at is not None and run_at.tzinfo is None:
            raise AutomateError(
                ErrorCodes.INVALID_ARGUMENT,
                "run_at has no time zone",
                hint="pass an aware datetime",
            )
        due = delay if run_at is None else run_at
        return sum(self._reschedule(batch, due) for batch in batches_of(item_ids_of(item_ids)))

    def _reschedule(self, ids: list[str], due: datetime | float) -> int:
        waiting = [Where("id", "in", ids), Where("status", "in", WAITING)]
        with self.storage.begin() as rows:
            found = rows.select(
                OUTBOX, waiting, order_by=("id",), lock=True,
                columns=("id", "priority", "concurrency_key"),
            )  # fmt: skip
            for priority, group in _by_priority(found):
                # One that waits for its key or for a resumption finds out again when it is claimed.
                changes = {"updated_at": Now(), **due_changes(due, priority)}
                rows.update(OUTBOX, [Where("id", "in", group)], changes)
            _wake_slots(rows, found)
        return len(found)

    def discard(self, item_ids: Sequence[str]) -> int:
        """Delete finished items; see `OutboxStore.discard`."""
        return sum(map(self._discard, batches_of(item_ids_of(item_ids))))

    def discard_matching(
        self, *, limit: int | None = None, progress: Progress | None = None, **matching: Any
    ) -> int:
        """Delete by filter; see `OutboxStore.discard_matching`."""
        where = Matching(**matching).where(FINISHED, _AGAIN)
        return self._each(where, limit, progress, self._discard)

    def _discard(self, ids: list[str]) -> int:
        finished = [Where("id", "in", ids), Where("status", "in", FINISHED)]
        with self.storage.begin() as rows:
            found = rows.select(OUTBOX, finished, order_by=("id",), lock=True, columns=("id",))
            ids = [row["id"] for row in found]
            forget_attempts(rows, ids)
            forget_labels(rows, ids)
            return rows.delete(OUTBOX, [Where("id", "in", ids)])


class _Spread:
    """Requeues batches so that *per_second* items a second become due, counted over all of them."""

    def __init__(self, requeue: Callable[..., int], start: datetime, per_second: float) -> None:
        self._requeue, self._start, self._per_second = requeue, start, per_second
        self._slice = max(1, round(per_second / _SLICES_PER_SECOND))
        self._count = 0

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


def _wake_slots(rows: Rows, gone: Sequence[Row]) -> None:
    """Let others have the turn of items that may have been woken to take a slot, and now won't."""
    slots.wake(rows, (row["concurrency_key"] for row in gone if row["concurrency_key"]))


def _by_priority(found: Sequence[Row]) -> list[tuple[int, list[str]]]:
    groups: dict[int, list[str]] = {}
    for row in found:
        groups.setdefault(row["priority"], []).append(row["id"])
    return list(groups.items())
