"""Looking at the outbox and steering it, over `Rows`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from automate_kernel.outbox import lanes
from automate_kernel.outbox.item import (
    FINISHED,
    SECONDS_PER_PRIORITY,
    WAITING,
    ItemStatus,
    OutboxItem,
    storable,
)
from automate_kernel.outbox.store import OutboxStats
from automate_kernel.storage.rows import Now, Row, Rows, Storage, Where
from automate_kernel.storage.tables import OUTBOX, PAUSE

__all__ = ["Control"]

_CANCELLED: dict[str, Any] = {"status": ItemStatus.CANCELLED.value, "waiting_for": None}


class Control:
    """The half of `OutboxStore` that operators use."""

    storage: Storage
    on_cancelled: Callable[[Rows, OutboxItem], None] | None
    _paused_until: float

    def get(self, item_id: str) -> OutboxItem | None:
        """The item with this id, or None."""
        try:
            item_id = str(UUID(str(item_id)))
        except ValueError:
            return None
        with self.storage.begin() as rows:
            found = rows.select(OUTBOX, [Where("id", "eq", item_id)])
        return OutboxItem.from_row(found[0]) if found else None

    def find(
        self,
        *,
        status: ItemStatus | str | None = None,
        kind: str | None = None,
        tenant_id: str | None = None,
        limit: int = 50,
    ) -> list[OutboxItem]:
        """Items that match, the newest first."""
        wanted = {
            "status": status and ItemStatus(status).value,
            "kind": kind,
            "tenant_id": tenant_id,
        }
        where = [Where(name, "eq", value) for name, value in wanted.items() if value is not None]
        with self.storage.begin() as rows:
            found = rows.select(OUTBOX, where, order_by=("-id",), limit=limit)
        return [OutboxItem.from_row(row) for row in found]

    def stats(self) -> OutboxStats:
        """Counts per kind and state, the age of the oldest due item, and the paused kinds."""
        counts: dict[str, dict[str, int]] = {}
        with self.storage.begin() as rows:
            for row in rows.count(OUTBOX, ("kind", "status")):
                counts.setdefault(row["kind"], {})[row["status"]] = row["n"]
            paused = tuple(sorted(row["kind"] for row in rows.select(PAUSE)))
            oldest = _oldest_due(rows)
        return OutboxStats(dict(sorted(counts.items())), oldest, paused)

    def cancel(self, item_ids: Sequence[str]) -> int:
        """Cancel items that wait. Returns how many there were."""
        ids, cancelled = [str(item_id) for item_id in item_ids], 0
        with self.storage.begin() as rows:
            # Waiting ones alone: a lock on a running item would hold up who finishes it.
            waiting = [Where("id", "in", sorted(ids)), Where("status", "in", WAITING)]
            for row in rows.select(OUTBOX, waiting, order_by=("id",), lock=True):
                where = [Where("id", "eq", row["id"]), Where("status", "in", WAITING)]
                changes = {**_CANCELLED, "completed_at": Now(), "updated_at": Now()}
                if not rows.update(OUTBOX, where, changes):
                    continue
                cancelled += 1
                if self.on_cancelled is not None:
                    self.on_cancelled(rows, OutboxItem.from_row({**row, **_CANCELLED}))
                if row["ordering_key"]:
                    lanes.wake(rows, row["ordering_key"])
        return cancelled

    def requeue(self, item_ids: Sequence[str]) -> int:
        """Make failed or cancelled items wait again. Returns how many there were."""
        ids = sorted(str(item_id) for item_id in item_ids)
        with self.storage.begin() as rows:
            found = rows.select(OUTBOX, [Where("id", "in", ids)], columns=("id", "priority"))
            return sum(
                self._requeue(rows, priority, group) for priority, group in _by_priority(found)
            )

    def _requeue(self, rows: Rows, priority: int, ids: list[str]) -> int:
        again = [ItemStatus.FAILED.value, ItemStatus.CANCELLED.value]
        return rows.update(
            OUTBOX,
            [Where("id", "in", ids), Where("status", "in", again)],
            {
                "status": ItemStatus.PENDING.value,
                "waiting_for": "worker",
                "attempt_count": 0,
                "next_attempt_at": Now(),
                "sort_at": Now(-priority * SECONDS_PER_PRIORITY),
                "lease_owner": None,
                "lease_token": None,
                "lease_expires_at": None,
                "completed_at": None,
                "updated_at": Now(),
            },
        )

    def purge(self, *, older_than_seconds: float, limit: int = 1000) -> int:
        """Delete items that finished that long ago, the oldest first. Returns how many."""
        over = [
            Where("status", "in", FINISHED),
            Where("completed_at", "le", Now(-older_than_seconds)),
        ]
        with self.storage.begin() as rows:
            # Ids are in order of time, so what finished long ago is found first in their index.
            found = rows.select(
                OUTBOX, over, order_by=("id",), limit=limit, lock=True, skip_locked=True,
                columns=("id",),
            )  # fmt: skip
            ids = sorted(row["id"] for row in found)
            return rows.delete(OUTBOX, [Where("id", "in", ids), *over])

    def pause(self, kind: str, reason: str = "") -> None:
        """Stop claiming items of *kind* until `resume`."""
        row = {"kind": kind, "reason": storable(reason), "created_at": Now()}
        with self.storage.begin() as rows:
            rows.insert(PAUSE, [row])
        self._paused_until = 0.0

    def resume(self, kind: str) -> None:
        """Claim items of *kind* again."""
        parked = [Where("kind", "eq", kind), Where("waiting_for", "eq", "resume")]
        with self.storage.begin() as rows:
            rows.delete(PAUSE, [Where("kind", "eq", kind)])
            rows.update(OUTBOX, parked, {"waiting_for": "worker"})
        self._paused_until = 0.0


def next_due(rows: Rows) -> float | None:
    """Seconds until the next waiting item is due, 0 or less if one is; None if none waits."""
    for waiting_for, order in (("worker", ("sort_at", "id")), ("time", ("next_attempt_at",))):
        where = [Where("waiting_for", "eq", waiting_for)]
        found = rows.select(
            OUTBOX, where, order_by=order, limit=1, columns=("next_attempt_at", *order)
        )
        if found:
            due: datetime = found[0]["next_attempt_at"]
            remaining = (due - rows.now()).total_seconds()
            return min(0.0, remaining) if waiting_for == "worker" else remaining
    return None


def _oldest_due(rows: Rows) -> float | None:
    # The first in claim order, which is the oldest but for priorities: near enough for a gauge.
    due = next_due(rows)
    return None if due is None or due > 0 else -due


def _by_priority(found: list[Row]) -> list[tuple[int, list[str]]]:
    groups: dict[int, list[str]] = {}
    for row in found:
        groups.setdefault(row["priority"], []).append(row["id"])
    return list(groups.items())
