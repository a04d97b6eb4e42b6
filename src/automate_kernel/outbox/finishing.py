"""Recording what became of claimed items."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from automate_kernel.outbox import lanes
from automate_kernel.outbox.item import (
    SECONDS_PER_PRIORITY,
    ItemStatus,
    OutboxItem,
    bounded_seconds,
    storable,
)
from automate_kernel.outbox.leases import FREE, Lease, Leases, by_token, fence
from automate_kernel.outbox.store import Outcome
from automate_kernel.storage.rows import Now, Plus, Rows, Where
from automate_kernel.storage.tables import OUTBOX

__all__ = ["Finishing", "due_changes"]


class Finishing(Leases):
    """The part of `RowsOutboxStore` that finishes items."""

    on_failed: Callable[[Rows, OutboxItem], None] | None

    def acknowledge(
        self, worker_id: str, outcomes: Sequence[Outcome], *, transaction: Any = None
    ) -> set[str]:
        """Record outcomes in one transaction; see `OutboxStore.acknowledge`."""
        if not outcomes:
            return set()
        with self.storage.begin(transaction) as rows:
            lost = self._settle(rows, worker_id, outcomes)
        if transaction is None:
            # Its own claims alone: a late outcome must not make the store forget who holds it now.
            self.forget(
                outcome.item_id
                for outcome in outcomes
                if (lease := self._lease(outcome.item_id, worker_id))
                and outcome.token in (None, lease.token)
            )
        return lost

    def _settle(self, rows: Rows, worker_id: str, outcomes: Sequence[Outcome]) -> set[str]:
        lost: set[str] = set()
        done: list[tuple[str, str]] = []
        left: list[tuple[str, str]] = []
        for outcome in outcomes:
            lease = self._lease_for(rows, worker_id, outcome)
            if lease is None:
                lost.add(outcome.item_id)
            elif outcome.status is ItemStatus.COMPLETED:
                done.append((outcome.item_id, lease.token))
            elif not self._settle_one(rows, lease, outcome):
                lost.add(outcome.item_id)
            if lease is not None and lease.ordering_key is not None:
                left.append((lease.ordering_key, outcome.item_id))
        lost |= self._complete(rows, done)
        left = [pair for pair in left if pair[1] not in lost]
        if left:
            lanes.leave(rows, left)
        return lost

    def _lease_for(self, rows: Rows, worker_id: str, outcome: Outcome) -> Lease | None:
        lease = self._lease(outcome.item_id, worker_id)
        if lease is not None and outcome.token in (None, lease.token):
            return lease
        if outcome.token is None:
            return None
        where = [Where("id", "eq", outcome.item_id), Where("lease_token", "eq", outcome.token)]
        found = rows.select(OUTBOX, where)
        return Lease.of(found[0], worker_id, outcome.token) if found else None

    def _complete(self, rows: Rows, done: list[tuple[str, str]]) -> set[str]:
        lost: set[str] = set()
        for token, ids in by_token(done):
            changes = {
                "status": ItemStatus.COMPLETED.value,
                "lease_expires_at": None,
                "completed_at": Now(),
                "updated_at": Now(),
            }
            if rows.update(OUTBOX, fence(ids, token), changes) < len(ids):
                lost |= self._not_finished(rows, ids, token, ItemStatus.COMPLETED)
        return lost

    def _not_finished(
        self, rows: Rows, ids: Sequence[str], token: str, status: ItemStatus
    ) -> set[str]:
        # The token stays on the finished row: it tells a repeated call (its reply was lost) from
        # one by a worker whose lease was taken over.
        where = [
            Where("id", "in", ids),
            Where("lease_token", "eq", token),
            Where("status", "eq", status.value),
        ]
        return set(ids) - {row["id"] for row in rows.select(OUTBOX, where, columns=("id",))}

    def _settle_one(self, rows: Rows, lease: Lease, outcome: Outcome) -> bool:
        status = outcome.status
        if status is ItemStatus.RETRY and lease.attempt_count >= lease.max_attempts:
            status = ItemStatus.FAILED
        changes: dict[str, Any] = {"status": status.value, "updated_at": Now()}
        if outcome.error_code is not None:
            changes["last_error_code"] = storable(outcome.error_code, 64)
            changes["last_error"] = storable(outcome.error or "")
        if status is ItemStatus.FAILED:
            changes |= {"lease_expires_at": None, "completed_at": Now()}
        else:
            changes |= {**FREE, **due_changes(outcome.next_attempt, lease.priority)}
        if status is ItemStatus.PENDING:
            changes["attempt_count"] = Plus(-1)
            changes["status"] = (
                ItemStatus.PENDING if lease.attempt_count <= 1 else ItemStatus.RETRY
            ).value
        if rows.update(OUTBOX, fence([outcome.item_id], lease.token), changes) == 0:
            return status is ItemStatus.FAILED and not self._not_finished(
                rows, [outcome.item_id], lease.token, status
            )
        if status is ItemStatus.FAILED:
            self._tell_failed(rows, outcome.item_id)
        return True

    def _tell_failed(self, rows: Rows, item_id: str) -> None:
        if self.on_failed is not None:
            row = rows.select(OUTBOX, [Where("id", "eq", item_id)])[0]
            self.on_failed(rows, OutboxItem.from_row(row))


def due_changes(next_attempt: float | datetime, priority: int) -> dict[str, Any]:
    """The changes that make an item wait until then."""
    ahead = priority * SECONDS_PER_PRIORITY
    if not isinstance(next_attempt, datetime):
        # One absurd delay must not fail the transaction that finishes many items.
        next_attempt = bounded_seconds(next_attempt)
    if isinstance(next_attempt, datetime):
        return {
            "waiting_for": "time",
            "next_attempt_at": next_attempt,
            "sort_at": next_attempt - timedelta(seconds=ahead),
        }
    return {
        "waiting_for": "time" if next_attempt > 0 else "worker",
        "next_attempt_at": Now(next_attempt),
        "sort_at": Now(next_attempt - ahead),
    }
