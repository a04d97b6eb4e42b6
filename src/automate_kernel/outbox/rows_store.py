"""The outbox over `Rows`: everything that a SQL database, or memory, needs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from automate_kernel.errors import LeaseLostError, StorageError
from automate_kernel.outbox import lanes
from automate_kernel.outbox.control import Control, next_due
from automate_kernel.outbox.item import (
    SECONDS_PER_PRIORITY,
    ItemStatus,
    NewItem,
    OutboxItem,
    bounded_seconds,
    new_id,
    storable,
)
from automate_kernel.outbox.retry import Backoff
from automate_kernel.outbox.store import OutboxStore, Outcome, ReapResult
from automate_kernel.storage.rows import Now, Plus, Row, Rows, Storage, Wakeup, Where
from automate_kernel.storage.tables import OUTBOX, PAUSE

__all__ = [
    "CHANNEL",
    "OptimisticClaimOutboxStore",
    "RowsOutboxStore",
    "SkipLockedClaimOutboxStore",
]

CHANNEL = "automate_outbox"
# How many items that have become due one claim moves to the ready ones.
_PROMOTE = 1000
_FREE: Mapping[str, Any] = {"lease_owner": None, "lease_token": None, "lease_expires_at": None}


@dataclass(slots=True)
class _Lease:
    """What the store remembers of a claim: the fence, and what finishing the item needs."""

    worker_id: str
    token: str
    ordering_key: str | None
    priority: int
    attempt_count: int
    max_attempts: int

    @classmethod
    def of(cls, row: Row, worker_id: str, token: str) -> _Lease:
        return cls(
            worker_id,
            token,
            row["ordering_key"],
            row["priority"],
            row["attempt_count"],
            row["max_attempts"],
        )


class RowsOutboxStore(Control, OutboxStore):
    """
    The outbox in a host's database.

    *backoff* delays items whose worker died. *on_failed* is called with the rows and the item, in
    the same transaction, when an item is given up. *control_seconds* is for how long a worker may
    not notice that a kind was paused elsewhere; while it is busy, what has become due is looked for
    twenty times in that.
    """

    skip_locked = True

    def __init__(
        self,
        storage: Storage,
        *,
        lease_seconds: float = 300.0,
        backoff: Backoff | None = None,
        on_failed: Callable[[Rows, OutboxItem], None] | None = None,
        control_seconds: float = 1.0,
    ) -> None:
        if lease_seconds <= 0:
            raise StorageError("lease_seconds must be above 0")
        self.storage = storage
        self.lease_seconds = lease_seconds
        self.backoff = backoff or Backoff()
        self.on_failed = on_failed
        self._control_seconds = control_seconds
        self._leases: dict[str, _Lease] = {}
        self._paused: frozenset[str] = frozenset()
        self._paused_until = 0.0
        self._busy = False
        self._promote_at = 0.0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} in {self.storage.describe()}>"

    # -- entering ----------------------------------------------------------------------------

    def enqueue_many(self, items: Iterable[NewItem], *, transaction: Any = None) -> list[str]:
        """Accept items in the host's transaction; see `OutboxStore.enqueue_many`."""
        # Before a transaction is opened: what can't be stored must not leave a lock behind.
        new = [item.to_row() for item in items]
        with self.storage.begin(transaction) as rows:
            return self.add(rows, new)

    async def aenqueue_many(self, items: Iterable[NewItem], transaction: Any = None) -> list[str]:
        """`enqueue_many` in an asynchronous host transaction."""
        new = [item.to_row() for item in items]
        return await self.storage.abegin(transaction, lambda rows: self.add(rows, new))

    def add(self, rows: Rows, new: list[Row]) -> list[str]:
        """Insert rows made by `NewItem.to_row`, and return the ids, of the first with a key."""
        added = rows.insert(OUTBOX, new, notify=CHANNEL)
        if added == len(new):
            return [row["id"] for row in new]
        keys: set[str] = {row["idempotency_key"] for row in new if row["idempotency_key"]}
        by_key = _holders(rows, sorted(keys))
        # A snapshot that the host's transaction took earlier may not show the winner of a race; a
        # read that locks does.
        by_key |= _holders(rows, sorted(keys - set(by_key)), lock=True)
        ids = [str(by_key.get(row["idempotency_key"]) or row["id"]) for row in new]
        found = rows.select(OUTBOX, [Where("id", "in", sorted(set(ids)))], columns=("id",))
        if missing := set(ids) - {row["id"] for row in found} - set(by_key.values()):
            raise StorageError(
                f"the database did not store {len(missing)} of {len(new)} items",
                hint="MariaDB refuses JSON that is nested deeper than 31 levels",
            )
        return ids

    # -- working -----------------------------------------------------------------------------

    def claim_batch(
        self, worker_id: str, limit: int = 10, *, kinds: Sequence[str] | None = None
    ) -> list[OutboxItem]:
        """Lease due items to *worker_id*; see `OutboxStore.claim_batch`."""
        if limit < 1:
            return []
        token = new_id()
        claimed: list[Row] = []
        with self.storage.begin() as rows:
            if self._promotes():
                self._promote(rows)
            paused = self._paused_kinds(rows)
            # What can't run yet is put aside and more is taken, a bounded number of times.
            for _ in range(10):
                taken = self._take(rows, worker_id, token, limit - len(claimed), kinds)
                admitted = self._admit(rows, taken, token, paused)
                claimed += admitted
                if len(admitted) == len(taken) or len(claimed) >= limit:
                    break
        self._busy = len(claimed) == limit
        for row in claimed:
            self._leases[row["id"]] = _Lease.of(row, worker_id, token)
        return [OutboxItem.from_row(row) for row in claimed]

    def _promotes(self) -> bool:
        # While every batch is full, an item that has become due can wait for a few claims.
        now = time.monotonic()
        if self._busy and now < self._promote_at:
            return False
        self._promote_at = now + self._control_seconds / 20
        return True

    def _promote(self, rows: Rows) -> None:
        rows.take(
            OUTBOX,
            [Where("waiting_for", "eq", "time"), Where("next_attempt_at", "le", Now())],
            order_by=("next_attempt_at",),
            limit=_PROMOTE,
            changes={"waiting_for": "worker"},
            skip_locked=self.skip_locked,
        )

    def _paused_kinds(self, rows: Rows) -> frozenset[str]:
        now = time.monotonic()
        if now >= self._paused_until:
            self._paused = frozenset(row["kind"] for row in rows.select(PAUSE))
            self._paused_until = now + self._control_seconds
        return self._paused

    def _take(
        self, rows: Rows, worker_id: str, token: str, limit: int, kinds: Sequence[str] | None
    ) -> list[Row]:
        where = [Where("waiting_for", "eq", "worker")]
        if kinds is not None:
            where.append(Where("kind", "in", list(kinds)))
        return rows.take(
            OUTBOX,
            where,
            order_by=("sort_at", "id"),
            limit=limit,
            changes={
                "status": ItemStatus.RUNNING.value,
                "waiting_for": None,
                # At the claim, so that an item which kills its worker spends an attempt too.
                "attempt_count": Plus(1),
                "lease_owner": worker_id,
                "lease_token": token,
                "lease_expires_at": Now(self.lease_seconds),
                "updated_at": Now(),
            },
            skip_locked=self.skip_locked,
        )

    def _admit(self, rows: Rows, taken: list[Row], token: str, paused: frozenset[str]) -> list[Row]:
        """Those of *taken* that may run now; the others go back to wait for their reason."""
        if suspects := sorted({row["kind"] for row in taken} & paused):
            # What is remembered may be old, and nobody would wake what is parked after a resume:
            # locked, the pause can't end before the parked items can be seen.
            found = rows.select(
                PAUSE, [Where("kind", "in", suspects)], order_by=("kind",), lock=True
            )
            paused = frozenset(row["kind"] for row in found)
        parked = {row["id"] for row in taken if row["kind"] in paused}
        self._put_back(rows, [row for row in taken if row["id"] in parked], "resume")
        keyed = [row for row in taken if row["ordering_key"] and row["id"] not in parked]
        held = lanes.enter(rows, keyed, token) if keyed else set()
        self._put_back(rows, [row for row in keyed if row["id"] in held], "key")
        return [row for row in taken if row["id"] not in parked and row["id"] not in held]

    def _put_back(self, rows: Rows, taken: list[Row], waiting_for: str) -> None:
        for status, group in (
            (ItemStatus.PENDING, [row["id"] for row in taken if row["attempt_count"] <= 1]),
            (ItemStatus.RETRY, [row["id"] for row in taken if row["attempt_count"] > 1]),
        ):
            changes = {"status": status.value, "waiting_for": waiting_for, **_FREE}
            rows.update(OUTBOX, [Where("id", "in", group)], {**changes, "attempt_count": Plus(-1)})

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        """A transaction of the host's database, as the host's framework knows it."""
        with self.storage.begin() as rows:
            yield rows.native

    def next_due_seconds(self) -> float | None:
        """Seconds until the next waiting item is due; see `OutboxStore.next_due_seconds`."""
        with self.storage.begin() as rows:
            return next_due(rows)

    def wakeup(self) -> Wakeup | None:
        """What the storage has to wait with."""
        return self.storage.wakeup(CHANNEL)

    def extend(self, item_ids: Sequence[str], worker_id: str) -> set[str]:
        """Renew leases; see `OutboxStore.extend`."""
        held = {i: lease.token for i in item_ids if (lease := self._lease(i, worker_id))}
        lost = set(item_ids) - set(held)
        with self.storage.begin() as rows:
            for token, ids in _by_token(held.items()):
                where = _fence(ids, token)
                if rows.update(OUTBOX, where, {"lease_expires_at": Now(self.lease_seconds)}) < len(
                    ids
                ):
                    still = rows.select(OUTBOX, where, columns=("id",))
                    lost |= set(ids) - {row["id"] for row in still}
        return lost

    def renew(
        self, item_id: str, worker_id: str, *, token: str | None = None, transaction: Any = None
    ) -> None:
        """Renew one lease inside a transaction; see `OutboxStore.renew`."""
        lease = self._lease(item_id, worker_id)
        token = token or (lease.token if lease else None)
        with self.storage.begin(transaction) as rows:
            changes = {"lease_expires_at": Now(self.lease_seconds)}
            if token is None or not rows.update(OUTBOX, _fence([item_id], token), changes):
                raise LeaseLostError(f"the lease of item {item_id} is lost")

    def _lease(self, item_id: str, worker_id: str) -> _Lease | None:
        lease = self._leases.get(item_id)
        return lease if lease is not None and lease.worker_id == worker_id else None

    # -- finishing ---------------------------------------------------------------------------

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

    def forget(self, item_ids: Iterable[str], *, token: str | None = None) -> None:
        """Drop what is remembered of claims that are over."""
        for item_id in item_ids:
            lease = self._leases.get(item_id)
            if lease is not None and token in (None, lease.token):
                self._leases.pop(item_id, None)

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

    def _lease_for(self, rows: Rows, worker_id: str, outcome: Outcome) -> _Lease | None:
        lease = self._lease(outcome.item_id, worker_id)
        if lease is not None and outcome.token in (None, lease.token):
            return lease
        if outcome.token is None:
            return None
        where = [Where("id", "eq", outcome.item_id), Where("lease_token", "eq", outcome.token)]
        found = rows.select(OUTBOX, where)
        return _Lease.of(found[0], worker_id, outcome.token) if found else None

    def _complete(self, rows: Rows, done: list[tuple[str, str]]) -> set[str]:
        lost: set[str] = set()
        for token, ids in _by_token(done):
            changes = {
                "status": ItemStatus.COMPLETED.value,
                "lease_expires_at": None,
                "completed_at": Now(),
                "updated_at": Now(),
            }
            if rows.update(OUTBOX, _fence(ids, token), changes) < len(ids):
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

    def _settle_one(self, rows: Rows, lease: _Lease, outcome: Outcome) -> bool:
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
            changes |= {**_FREE, **_due(outcome.next_attempt, lease.priority)}
        if status is ItemStatus.PENDING:
            changes["attempt_count"] = Plus(-1)
            changes["status"] = (
                ItemStatus.PENDING if lease.attempt_count <= 1 else ItemStatus.RETRY
            ).value
        if rows.update(OUTBOX, _fence([outcome.item_id], lease.token), changes) == 0:
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

    # -- recovering --------------------------------------------------------------------------

    def reap(self, limit: int = 500, *, grace_seconds: float = 0.0) -> ReapResult:
        """Recover items whose worker is gone; see `OutboxStore.reap`."""
        result = ReapResult()
        over = Where("lease_expires_at", "lt", Now(-grace_seconds))
        with self.storage.begin() as rows:
            stale = rows.select(
                OUTBOX, [over], order_by=("lease_expires_at",), limit=limit, lock=True,
                skip_locked=True,
            )  # fmt: skip
            for row in stale:
                self._reap_one(rows, row, over, result)
            reaped = [*result.retried, *result.failed]
            keyed = [(item.ordering_key, item.id) for item in reaped if item.ordering_key]
            if keyed:
                lanes.leave(rows, keyed)
            lanes.mend(rows)
        return result

    def _reap_one(self, rows: Rows, row: Row, over: Where, result: ReapResult) -> None:
        spent = row["attempt_count"] >= row["max_attempts"]
        changes: dict[str, Any] = {
            "last_error_code": "LEASE_EXPIRED",
            "last_error": f"worker {row['lease_owner']} did not finish in time, or died",
            "updated_at": Now(),
        }
        if spent:
            changes |= {"status": ItemStatus.FAILED.value, "completed_at": Now()}
            # The token goes: what comes late from the lost worker must not pass for a repeat.
            changes |= _FREE
        else:
            delay = self.backoff.delay(row["attempt_count"])
            changes |= {"status": ItemStatus.RETRY.value, **_FREE, **_due(delay, row["priority"])}
        # Decided from the row alone, and again when it is written: without row locks its holder
        # may have renewed or finished it in between.
        where = [*_fence([row["id"]], row["lease_token"]), over]
        if not rows.update(OUTBOX, where, changes):
            return
        item = OutboxItem.from_row(rows.select(OUTBOX, [Where("id", "eq", row["id"])])[0])
        (result.failed if spent else result.retried).append(item)
        if spent and self.on_failed is not None:
            self.on_failed(rows, item)


class SkipLockedClaimOutboxStore(RowsOutboxStore):
    """Claims with ``FOR UPDATE SKIP LOCKED``: workers never wait for each other."""

    skip_locked = True


class OptimisticClaimOutboxStore(RowsOutboxStore):
    """Claims without row locks: of two workers that want an item, the second finds it gone."""

    skip_locked = False


def _holders(rows: Rows, keys: list[str], *, lock: bool = False) -> dict[str, str]:
    """Which item has each of these idempotency keys."""
    where = [Where("idempotency_key", "in", keys)]
    found = rows.select(OUTBOX, where, lock=lock, columns=("id", "idempotency_key"))
    return {row["idempotency_key"]: row["id"] for row in found}


def _fence(ids: Sequence[str], token: str) -> list[Where]:
    return [
        Where("id", "in", list(ids)),
        Where("lease_token", "eq", token),
        Where("status", "eq", ItemStatus.RUNNING.value),
    ]


def _by_token(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    groups: dict[str, list[str]] = {}
    for item_id, token in pairs:
        groups.setdefault(token, []).append(item_id)
    # Sorted, so that two transactions lock their rows in the same order.
    return [(token, sorted(ids)) for token, ids in groups.items()]


def _due(next_attempt: float | datetime, priority: int) -> dict[str, Any]:
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
