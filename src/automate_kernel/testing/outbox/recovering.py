"""Promises 4 and 5: leases that are kept alive, and what becomes of those that were not."""

from __future__ import annotations

import pytest

from automate_kernel.errors import LeaseLostError
from automate_kernel.outbox import ItemStatus, NewItem, OutboxStore
from automate_kernel.testing.clock import FakeClock
from automate_kernel.testing.outbox.hooks import LONG_SECONDS, StoreHooks
from automate_kernel.worker import OutboxReaper

__all__ = ["RecoveringContract"]


class RecoveringContract(StoreHooks):
    """How items come back from workers that are gone."""

    def test_live_lease_is_left_alone(self, store: OutboxStore, clock: FakeClock) -> None:
        """Reaping takes nothing from a worker whose lease runs."""
        self.need("clock")
        item_id = store.enqueue("k")
        self.claim_one(store)
        clock.advance(store.lease_seconds - 1)
        assert len(store.reap()) == 0
        store.mark_success(item_id, "worker")

    def test_extended_lease_lives_on(self, store: OutboxStore, clock: FakeClock) -> None:
        """A heartbeat keeps an item for as long as it goes on."""
        self.need("clock")
        item_id = store.enqueue("k")
        self.claim_one(store)
        for _ in range(5):
            clock.advance(store.lease_seconds * 0.9)
            assert store.extend([item_id], "worker") == set()
            assert len(store.reap()) == 0
        store.mark_success(item_id, "worker")

    def test_heartbeat_tells_what_is_lost(self, store: OutboxStore, clock: FakeClock) -> None:
        """Once an item was recovered, its old worker hears so from the heartbeat."""
        self.need("clock")
        item_id = store.enqueue("k")
        self.claim_one(store)
        clock.advance(store.lease_seconds + 1)
        store.reap()
        assert store.extend([item_id], "worker") == {item_id}
        assert self.see(store, item_id).lease_expires_at is None

    def test_ended_lease_is_recovered(self, store: OutboxStore, clock: FakeClock) -> None:
        """An item whose worker died waits again, keeps its priority, and says why."""
        self.need("clock")
        item_id = store.enqueue("k", priority=4)
        self.claim_one(store, "worker-1")
        clock.advance(store.lease_seconds + 1)
        result = store.reap()
        assert ([item.id for item in result.retried], result.failed) == ([item_id], [])
        item = self.see(store, item_id)
        assert (item.status, item.attempt_count, item.priority) == (ItemStatus.RETRY, 1, 4)
        assert (item.lease_owner, item.lease_token, item.lease_expires_at) == (None, None, None)
        assert item.last_error_code
        clock.advance(LONG_SECONDS)
        assert self.claim_one(store, "worker-2").attempt_count == 2

    def test_item_that_kills_its_workers_fails(self, store: OutboxStore, clock: FakeClock) -> None:
        """Each worker that dies of an item spends an attempt, and the last one fails it."""
        self.need("clock")
        item_id = store.enqueue("k", max_attempts=3)
        for _ in range(2):
            self.claim_one(store)
            self.expire(store, clock)
        self.claim_one(store)
        clock.advance(store.lease_seconds + 1)
        result = store.reap()
        assert ([item.id for item in result.failed], result.retried) == ([item_id], [])
        item = self.see(store, item_id)
        assert (item.status, item.attempt_count) == (ItemStatus.FAILED, 3)
        assert item.completed_at is not None
        assert len(store.reap()) == 0
        with pytest.raises(LeaseLostError):
            store.mark_success(item_id, "worker")
        assert self.statuses(store, [item_id]) == [ItemStatus.FAILED]

    def test_finished_items_are_not_reaped(self, store: OutboxStore, clock: FakeClock) -> None:
        """Reaping looks at running items only, however old the others are."""
        self.need("clock")
        done, failed, retried, waiting = store.enqueue_many(NewItem("k") for _ in range(4))
        store.claim_batch("worker", 3)
        store.mark_success(done, "worker")
        store.mark_failed(failed, "worker")
        store.mark_retry(retried, "worker", 0)
        clock.advance(LONG_SECONDS)
        assert len(store.reap()) == 0
        assert self.statuses(store, [done, failed, retried, waiting]) == [
            ItemStatus.COMPLETED,
            ItemStatus.FAILED,
            ItemStatus.RETRY,
            ItemStatus.PENDING,
        ]

    def test_late_but_not_reaped_holder_finishes(
        self, store: OutboxStore, clock: FakeClock
    ) -> None:
        """Until someone recovers it, the item is its holder's, even when the lease is over."""
        self.need("clock")
        item_id = store.enqueue("k")
        self.claim_one(store)
        clock.advance(store.lease_seconds * 2)
        assert store.claim_batch("worker-2") == []
        store.mark_success(item_id, "worker")

    def test_reaping_in_small_bites(self, store: OutboxStore, clock: FakeClock) -> None:
        """No more than *limit* items are recovered at a time, and each of them once."""
        self.need("clock")
        ids = store.enqueue_many(NewItem("k") for _ in range(5))
        store.claim_batch("worker")
        clock.advance(store.lease_seconds + 1)
        bites = [[item.id for item in store.reap(2).retried] for _ in range(4)]
        assert [len(bite) for bite in bites] == [2, 2, 1, 0]
        assert sorted(item_id for bite in bites for item_id in bite) == sorted(ids)

    def test_grace(self, store: OutboxStore, clock: FakeClock) -> None:
        """*grace_seconds* after the lease's end pass before an item is recovered."""
        self.need("clock")
        store.enqueue("k")
        self.claim_one(store)
        clock.advance(store.lease_seconds + 50)
        assert len(store.reap(grace_seconds=60)) == 0
        assert len(store.reap(grace_seconds=40)) == 1

    def test_reaper_never_undercuts_the_lease(self, store: OutboxStore, clock: FakeClock) -> None:
        """A stale threshold below the lease changes nothing; one above it waits longer."""
        self.need("clock")
        hasty = OutboxReaper(store, stale_threshold_seconds=store.lease_seconds / 10)
        patient = OutboxReaper(store, stale_threshold_seconds=store.lease_seconds * 3)
        store.enqueue_many(NewItem("k") for _ in range(5))
        store.claim_batch("worker")
        clock.advance(store.lease_seconds - 1)
        assert hasty.reap_stale_items() == 0
        clock.advance(store.lease_seconds)
        assert patient.reap_stale_items() == 0
        assert hasty.reap_stale_items(batch=2) == 5
