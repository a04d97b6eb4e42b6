"""Promises 4, 6, 7 and 9: what is due, in which order, and what a claim counts."""

from __future__ import annotations

from datetime import timedelta

import pytest

from automate_kernel.outbox import ItemStatus, NewItem, OutboxStore
from automate_kernel.testing.clock import FakeClock
from automate_kernel.testing.outbox.hooks import StoreHooks

__all__ = ["ClaimingContract"]


class ClaimingContract(StoreHooks):
    """How items are claimed."""

    def test_claim_leases_the_item(self, store: OutboxStore, clock: FakeClock) -> None:
        """A claimed item runs, has spent an attempt, and is its worker's until the lease ends."""
        item_id = store.enqueue("k")
        item = self.claim_one(store, "worker-1")
        assert (item.id, item.status, item.attempt_count) == (item_id, ItemStatus.RUNNING, 1)
        assert item.lease_owner == "worker-1"
        assert item.lease_token
        assert item.lease_expires_at is not None
        if self.supports_clock:
            assert item.lease_expires_at == clock() + timedelta(seconds=store.lease_seconds)
        assert self.see(store, item_id) == item

    def test_claimed_item_is_not_claimed_again(self, store: OutboxStore) -> None:
        """What one worker has, no other gets."""
        store.enqueue("k")
        self.claim_one(store, "worker-1")
        assert store.claim_batch("worker-2") == []
        assert store.claim_batch("worker-1") == []

    def test_empty_store_gives_nothing(self, store: OutboxStore) -> None:
        """A claim of nothing is empty."""
        assert store.claim_batch("worker") == []

    @pytest.mark.parametrize(("limit", "got"), [(-1, 0), (0, 0), (1, 1), (2, 2), (9, 3)])
    def test_limit(self, store: OutboxStore, limit: int, got: int) -> None:
        """No more than *limit* items are claimed, and the others stay for the next claim."""
        store.enqueue_many(NewItem("k") for _ in range(3))
        assert len(store.claim_batch("worker", limit)) == got
        assert len(store.claim_batch("worker", 9)) == 3 - got

    def test_kinds(self, store: OutboxStore) -> None:
        """A worker gets the kinds it asks for only."""
        ids = {kind: store.enqueue(kind) for kind in ("a", "b", "c")}
        assert store.claim_batch("worker", kinds=[]) == []
        assert store.claim_batch("worker", kinds=["unknown"]) == []
        claimed = store.claim_batch("worker", kinds=["a", "c"])
        assert [item.id for item in claimed] == [ids["a"], ids["c"]]
        assert self.claim_ids(store) == [ids["b"]]

    def test_oldest_first(self, store: OutboxStore) -> None:
        """Items of one priority are claimed in the order of enqueueing."""
        ids = store.enqueue_many(NewItem("k") for _ in range(25))
        assert self.claim_ids(store, limit=10) == ids[:10]
        assert self.claim_ids(store, limit=20) == ids[10:]

    def test_priority_first(self, store: OutboxStore) -> None:
        """A higher priority goes first, and a lower one last."""
        low, middle, high = (store.enqueue("k", priority=priority) for priority in (-1, 0, 5))
        assert self.claim_ids(store) == [high, middle, low]

    def test_delay(self, store: OutboxStore, clock: FakeClock) -> None:
        """A delayed item is claimed once it is due, and not before."""
        self.need("clock")
        seconds, delta = (
            store.enqueue("k", delay=60),
            store.enqueue("k", delay=timedelta(minutes=2)),
        )
        assert self.claim_ids(store) == []
        clock.advance(59.5)
        assert self.claim_ids(store) == []
        clock.advance(0.5)
        assert self.claim_ids(store) == [seconds]
        clock.advance(60)
        assert self.claim_ids(store) == [delta]

    def test_far_future_is_not_due(self, store: OutboxStore) -> None:
        """What is not due is not claimed, whatever its priority."""
        store.enqueue("k", delay=86_400, priority=1000)
        now = store.enqueue("k")
        assert self.claim_ids(store) == [now]
        assert self.claim_ids(store) == []

    def test_run_at(self, store: OutboxStore, clock: FakeClock) -> None:
        """An item may name the instant from which on it is due, in the past too."""
        self.need("clock")
        later = store.enqueue("k", run_at=clock() + timedelta(hours=1))
        past = store.enqueue("k", run_at=clock() - timedelta(hours=1))
        assert self.claim_ids(store) == [past]
        clock.advance(3600)
        assert self.claim_ids(store) == [later]

    def test_due_time_before_id(self, store: OutboxStore, clock: FakeClock) -> None:
        """Of two items the one that was due first goes first, though it was enqueued later."""
        self.need("clock")
        late = store.enqueue("k", delay=20)
        early = store.enqueue("k", delay=10)
        clock.advance(30)
        assert self.claim_ids(store) == [early, late]

    def test_old_item_is_not_starved(self, store: OutboxStore, clock: FakeClock) -> None:
        """An item that waited long goes before a new one of higher priority."""
        self.need("clock", "ageing")
        old = store.enqueue("k", priority=0)
        clock.advance(7 * 86_400)
        new = store.enqueue("k", priority=1)
        assert self.claim_ids(store) == [old, new]

    def test_attempts_count_at_claim(self, store: OutboxStore) -> None:
        """Each claim is an attempt, and has a token of its own."""
        store.enqueue("k")
        tokens = set()
        for attempt in (1, 2, 3):
            item = self.claim_one(store)
            assert item.attempt_count == attempt
            tokens.add(item.lease_token)
            store.mark_retry(item.id, "worker", 0)
        assert len(tokens) == 3
