"""Recording what became of claimed items."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from automate_kernel.outbox import concurrency_keys as slots
from automate_kernel.outbox import ordering_keys as lanes
from automate_kernel.outbox.failed_attempts import (
    MOST_OF_ITEM,
    forget_attempts,
    keep_attempts,
    new_attempt,
)
from automate_kernel.outbox.item import (
    SECONDS_PER_PRIORITY,
    ItemStatus,
    OutboxItem,
    Outcome,
    Redaction,
    bounded_seconds,
    storable,
)
from automate_kernel.outbox.labels import forget_labels
from automate_kernel.outbox.leases import Lease, Leases, by_token, fence
from automate_kernel.storage.rows import Now, Plus, Row, Rows, Where
from automate_kernel.storage.tables import OUTBOX
from automate_kernel.tracebacks import MAX_GROUP

__all__ = ["Finishing", "due_changes"]


class Finishing(Leases):
    """The part of `RowsOutboxStore` that finishes items."""

    on_failed: Callable[[Rows, OutboxItem], None] | None
    on_cancelled: Callable[[Rows, OutboxItem], None] | None
    retention_seconds: float | None
    redact: Redaction | None

    def acknowledge(
        self, worker_id: str, outcomes: Sequence[Outcome], *, transaction: Any = None
    ) -> set[str]:
        """Record outcomes in one transaction; see `OutboxStore.acknowledge`."""
        if not outcomes:
            return set()
        if transaction is None and (done := self._all_done(worker_id, outcomes)):
            token, ids = done
            with self.storage.begin(atomic=False) as rows:
                lost = self._complete(rows, token, ids)
            self.forget(ids, token=token)
            return lost
        with self.storage.begin(transaction) as rows:
            lost = self._settle(rows, worker_id, outcomes)
        if transaction is None:
            for outcome in outcomes:
                # Its own claims alone: a late outcome must not make the store forget who holds it
                # now.
                if (lease := self._lease(outcome.item_id, worker_id)) is not None:
                    self.forget([outcome.item_id], token=outcome.token or lease.token)
        return lost

    def _all_done(
        self, worker_id: str, outcomes: Sequence[Outcome]
    ) -> tuple[str, list[str]] | None:
        """The claim's token and the ids, if nothing is to be recorded but success without keys."""
        token, leases, completed = outcomes[0].token, self._leases, ItemStatus.COMPLETED
        ids: list[str] = []
        for outcome in outcomes:
            lease = leases.get(outcome.item_id)
            if (
                lease is None
                or outcome.status is not completed
                or not token == outcome.token == lease.token
                or lease.worker_id != worker_id
                or lease.keyed
                or (lease.followed and self.retention_seconds == 0)
            ):
                return None
            ids.append(outcome.item_id)
        # Sorted, so that two transactions lock their rows in the same order.
        return (token, sorted(ids)) if token is not None else None

    def _settle(self, rows: Rows, worker_id: str, outcomes: Sequence[Outcome]) -> set[str]:
        # Ids with tokens: a worker may tell of an item twice at once, when it was taken from it
        # while the database was away, and claimed again. It has lost the first claim alone.
        lost: set[tuple[str, str | None]] = set()
        done: list[tuple[str, str]] = []
        keyed: list[tuple[str, Lease]] = []
        attempts: list[Row] = []
        completed = ItemStatus.COMPLETED
        for outcome in outcomes:
            lease = self._lease_for(rows, worker_id, outcome)
            if lease is None:
                lost.add((outcome.item_id, outcome.token))
                continue
            if outcome.status is completed:
                done.append((outcome.item_id, lease.token))
            elif not self._settle_one(rows, lease, self._redacted(outcome)):
                lost.add((outcome.item_id, lease.token))
            elif outcome.error_code is not None:
                attempts.append(_attempt(lease, outcome, outcome.error_code))
            if lease.keyed:
                keyed.append((outcome.item_id, lease))
        for token, ids in by_token(done):
            lost |= {(item_id, token) for item_id in self._complete(rows, token, ids)}
        keep_attempts(rows, attempts, MOST_OF_ITEM)
        kept = [(item_id, lease) for item_id, lease in keyed if (item_id, lease.token) not in lost]
        self._leave(
            rows,
            [(lease.ordering_key, item_id) for item_id, lease in kept if lease.ordering_key],
            [(lease.concurrency_key, item_id) for item_id, lease in kept if lease.concurrency_key],
        )
        return {item_id for item_id, _ in lost}

    def _leave(
        self, rows: Rows, left: list[tuple[str, str]], slotted: list[tuple[str, str]]
    ) -> None:
        """Free lanes and slots, of (key, item id) pairs."""
        # Slots first: a claim may hold them while it waits for a lane that is being left.
        if slotted:
            slots.leave(rows, slotted)
        if left:
            lanes.leave(rows, left)

    def _lease_for(self, rows: Rows, worker_id: str, outcome: Outcome) -> Lease | None:
        lease = self._leases.get(outcome.item_id)
        if (
            lease is not None
            and lease.worker_id == worker_id
            and outcome.token in (None, lease.token)
        ):
            return lease
        if outcome.token is None:
            return None
        where = [Where("id", "eq", outcome.item_id), Where("lease_token", "eq", outcome.token)]
        found = rows.select(OUTBOX, where)
        return Lease.of(found[0], worker_id, outcome.token) if found else None

    def _complete(self, rows: Rows, token: str, ids: Sequence[str]) -> set[str]:
        """Complete items of one claim; returns those that were lost."""
        if self.retention_seconds == 0:
            removed = rows.remove(OUTBOX, fence(ids, token))
            self._forget_with(rows, removed)
            return set(ids).difference(removed)
        changes = {
            "status": ItemStatus.COMPLETED.value,
            "waiting_for": None,  # it may have been asked to stop
            "lease_expires_at": None,
            "completed_at": Now(),
            "updated_at": Now(),
        }
        if rows.update(OUTBOX, fence(ids, token), changes) == len(ids):
            return set()
        return self._not_finished(rows, ids, token, ItemStatus.COMPLETED)

    def _forget_with(self, rows: Rows, removed: Sequence[str]) -> None:
        """Delete what belongs to items that are done and deleted at once."""
        leases = self._leases
        followed = [i for i in removed if (lease := leases.get(i)) is None or lease.followed]
        if followed:
            forget_attempts(rows, followed)
            forget_labels(rows, followed)

    def _not_finished(
        self, rows: Rows, ids: Sequence[str], token: str, *statuses: ItemStatus
    ) -> set[str]:
        # The token stays on the row until the next claim: it tells a repeated call (its reply was
        # lost) from one by a worker whose lease was taken over.
        where = [
            Where("id", "in", ids),
            Where("lease_token", "eq", token),
            Where("status", "in", [status.value for status in statuses]),
        ]
        return set(ids) - {row["id"] for row in rows.select(OUTBOX, where, columns=("id",))}

    def _redacted(self, outcome: Outcome) -> Outcome:
        if not outcome.error or self.redact is None:
            return outcome
        return replace(outcome, error=self.redact(outcome.error))

    def _settle_one(self, rows: Rows, lease: Lease, outcome: Outcome) -> bool:
        fenced, again = fence([outcome.item_id], lease.token), outcome.status in _WAITS_AGAIN
        status = _next_status(lease, outcome)
        # One that is asked to stop does not wait again, nor does it fail for want of attempts.
        held = [*fenced, Where("waiting_for", "eq", None)] if again else fenced
        if not rows.update(OUTBOX, held, _changes(lease, outcome, status)):
            if not again or not rows.update(OUTBOX, fenced, _ended(outcome, ItemStatus.CANCELLED)):
                recorded = [status]
                if again:
                    waits = _WAITS_AGAIN if status in _WAITS_AGAIN else (status,)
                    recorded = [*waits, ItemStatus.CANCELLED]
                return not self._not_finished(rows, [outcome.item_id], lease.token, *recorded)
            status = ItemStatus.CANCELLED
        if status is ItemStatus.FAILED:
            self._tell(rows, outcome.item_id, self.on_failed)
        elif status is ItemStatus.CANCELLED:
            self._tell(rows, outcome.item_id, self.on_cancelled)
        return True

    def _tell(
        self, rows: Rows, item_id: str, whom: Callable[[Rows, OutboxItem], None] | None
    ) -> None:
        if whom is not None:
            row = rows.select(OUTBOX, [Where("id", "eq", item_id)])[0]
            whom(rows, OutboxItem.from_row(row))


_WAITS_AGAIN = (ItemStatus.RETRY, ItemStatus.PENDING)


def _next_status(lease: Lease, outcome: Outcome) -> ItemStatus:
    if outcome.status is ItemStatus.RETRY and lease.attempt_count >= lease.max_attempts:
        return ItemStatus.FAILED
    if outcome.status is ItemStatus.PENDING and lease.attempt_count > 1:
        return ItemStatus.RETRY
    return outcome.status


def _changes(lease: Lease, outcome: Outcome, status: ItemStatus) -> dict[str, Any]:
    if status not in _WAITS_AGAIN:
        return _ended(outcome, status)
    changes: dict[str, Any] = {
        "status": status.value,
        **_error(outcome),
        "updated_at": Now(),
        "lease_owner": None,
        "lease_expires_at": None,
        **due_changes(outcome.next_attempt, lease.priority),
    }
    if outcome.status is ItemStatus.PENDING:
        changes["attempt_count"] = Plus(-1)
    return changes


def _ended(outcome: Outcome, status: ItemStatus) -> dict[str, Any]:
    return {
        "status": status.value,
        "waiting_for": None,
        **_error(outcome),
        "lease_expires_at": None,
        "completed_at": Now(),
        "updated_at": Now(),
    }


def _error(outcome: Outcome) -> dict[str, str]:
    if outcome.error_code is None:
        return {}
    return {
        "last_error_code": storable(outcome.error_code, 64),
        "last_error": storable(outcome.error or ""),
        "last_error_group": storable(outcome.group or outcome.error_code, MAX_GROUP),
    }


def _attempt(lease: Lease, outcome: Outcome, code: str) -> Row:
    return new_attempt(
        outcome.item_id, lease.token, attempt=lease.attempt_count, code=code,
        group=outcome.group, error=outcome.error or "", trace=outcome.trace,
    )  # fmt: skip


def due_changes(next_attempt: float | datetime | None, priority: int) -> dict[str, Any]:
    """The changes that make an item wait until then; at its old place in the line if None."""
    if next_attempt is None:
        return {"waiting_for": "worker"}
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
