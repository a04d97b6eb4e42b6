"""What operators see and do."""

from __future__ import annotations

import pytest

from automate_kernel.errors import LeaseLostError
from automate_kernel.outbox import ItemStatus, NewItem, OutboxStore
from automate_kernel.testing.clock import FakeClock
from automate_kernel.testing.outbox.finishing import UNKNOWN_ID
from automate_kernel.testing.outbox.hooks import StoreHooks

__all__ = ["SteeringContract"]


class SteeringContract(StoreHooks):
    """Looking, cancelling, requeueing, purging and pausing."""

    def one_of_each(self, store: OutboxStore) -> dict[str, str]:
        """An item in every state: PENDING, RUNNING, RETRY, COMPLETED, FAILED, CANCELLED."""
        names = ("RUNNING", "RETRY", "COMPLETED", "FAILED")
        new = [NewItem("k", name) for name in names]
        ids = dict(zip(names, store.enqueue_many(new), strict=True))
        store.claim_batch("worker")
        store.mark_retry(ids["RETRY"], "worker", 3600)
        store.mark_success(ids["COMPLETED"], "worker")
        store.mark_failed(ids["FAILED"], "worker", "INTERNAL", "broke")
        ids["PENDING"] = store.enqueue("k", "PENDING")
        ids["CANCELLED"] = store.enqueue("k", "CANCELLED")
        assert store.cancel([ids["CANCELLED"]]) == 1
        return ids

    def test_unknown_item(self, store: OutboxStore) -> None:
        """What doesn't exist is None, or not counted, whatever its id looks like."""
        for item_id in (UNKNOWN_ID, "no id at all", ""):
            assert store.get(item_id) is None
        assert store.cancel([UNKNOWN_ID]) == store.requeue([UNKNOWN_ID]) == 0
        assert store.cancel([]) == store.requeue([]) == 0

    def test_find(self, store: OutboxStore) -> None:
        """Items are found by state, kind and tenant, the newest first."""
        ids = store.enqueue_many(
            NewItem(kind, tenant_id=tenant)
            for kind, tenant in [("a", "x"), ("b", "x"), ("a", "y"), ("a", None)]
        )
        store.claim_batch("worker", 1)
        assert [item.id for item in store.find()] == ids[::-1]
        assert [item.id for item in store.find(limit=2)] == [ids[3], ids[2]]
        assert [item.id for item in store.find(limit=2, before_id=ids[2])] == [ids[1], ids[0]]
        assert [item.id for item in store.find(kind="a")] == [ids[3], ids[2], ids[0]]
        assert [item.id for item in store.find(tenant_id="x")] == [ids[1], ids[0]]
        assert [item.id for item in store.find(status="RUNNING")] == [ids[0]]
        pending = store.find(status=ItemStatus.PENDING, kind="a")
        assert [item.id for item in pending] == [ids[3], ids[2]]

    def test_stats(self, store: OutboxStore) -> None:
        """Counts per kind and state."""
        self.one_of_each(store)
        store.enqueue("other")
        stats = store.stats()
        assert stats.counts == {"k": {str(s): 1 for s in ItemStatus}, "other": {"PENDING": 1}}
        assert stats.total(ItemStatus.PENDING) == 2

    def test_lateness(self, store: OutboxStore, clock: FakeClock) -> None:
        """How long the oldest due item waits; None if nothing is due."""
        self.need("clock")
        assert store.stats().oldest_due_seconds is None
        store.enqueue("k", delay=10)
        assert store.stats().oldest_due_seconds is None
        clock.advance(25)
        assert store.stats().oldest_due_seconds == pytest.approx(15)
        self.claim_one(store)
        assert store.stats().oldest_due_seconds is None

    def test_cancel(self, store: OutboxStore) -> None:
        """What waits is cancelled, what is finished stays; what runs is its worker's to stop."""
        ids = self.one_of_each(store)
        assert store.cancel([ids[name] for name in ids if name != "RUNNING"]) == 2
        assert {name: str(self.see(store, item_id).status) for name, item_id in ids.items()} == {
            **{name: name for name in ids},
            "PENDING": "CANCELLED",
            "RETRY": "CANCELLED",
        }
        assert store.claim_batch("worker") == []
        assert self.see(store, ids["PENDING"]).completed_at is not None

    def test_requeue_failed_and_cancelled_items_only(self, store: OutboxStore) -> None:
        """What failed or was cancelled starts anew with all its attempts; the rest stays."""
        ids = self.one_of_each(store)
        store.cancel([ids["PENDING"]])
        assert store.requeue(list(ids.values())) == 3
        again = store.claim_batch("worker-2")
        assert {item.payload for item in again} == {"PENDING", "FAILED", "CANCELLED"}
        assert {item.attempt_count for item in again} == {1}
        assert {item.completed_at for item in again} == {None}
        assert self.statuses(store, [ids["COMPLETED"]]) == [ItemStatus.COMPLETED]

    def test_requeue_shuts_out_the_old_claim(self, store: OutboxStore) -> None:
        """The token of a claim before the requeue finishes nothing after it."""
        item_id = store.enqueue("k", max_attempts=1)
        token = self.claim_one(store).lease_token
        store.mark_failed(item_id, "worker", token=token)
        store.requeue([item_id])
        with pytest.raises(LeaseLostError):
            store.mark_failed(item_id, "worker", token=token)
        assert self.claim_one(store).id == item_id

    def test_purge(self, store: OutboxStore, clock: FakeClock) -> None:
        """Finished items go once they are old enough; what waits or runs never does."""
        self.need("clock")
        ids = self.one_of_each(store)
        clock.advance(100)
        assert store.purge(older_than_seconds=101) == 0
        assert store.purge(older_than_seconds=99, limit=2) == 2
        assert store.purge(older_than_seconds=99) == 1
        left = {name for name, item_id in ids.items() if store.get(item_id)}
        assert left == {"PENDING", "RUNNING", "RETRY"}

    def test_purged_item_frees_its_key(self, store: OutboxStore) -> None:
        """An idempotency key may be used again once its item is purged."""
        first = store.enqueue("k", idempotency_key="key")
        store.cancel([first])
        assert store.purge(older_than_seconds=-1) == 1
        assert store.enqueue("k", idempotency_key="key") != first

    def test_pause_and_resume(self, store: OutboxStore) -> None:
        """A paused kind is not claimed, the others are; after the resumption all is."""
        before = store.enqueue("slow")
        store.pause("slow", "the service is down")
        store.pause("slow")
        after, other = store.enqueue("slow"), store.enqueue("fast")
        assert store.stats().paused == ("slow",)
        assert self.claim_ids(store) == [other]
        assert self.claim_ids(store) == []
        store.resume("slow")
        assert store.stats().paused == ()
        claimed = store.claim_batch("worker")
        assert [(item.id, item.attempt_count) for item in claimed] == [(before, 1), (after, 1)]

    def test_pause_lets_running_items_finish(self, store: OutboxStore) -> None:
        """A pause takes nothing from a worker."""
        item_id = store.enqueue("k")
        self.claim_one(store)
        store.pause("k")
        assert store.extend([item_id], "worker") == set()
        store.mark_success(item_id, "worker")

    def test_resume_reaches_a_store_that_has_not_noticed(self, store: OutboxStore) -> None:
        """A worker that still thinks a kind is paused strands none of its items."""
        other = self.another(store)
        store.pause("k")
        item_id = store.enqueue("k")
        assert self.claim_ids(other) == []
        late = store.enqueue("k")
        store.resume("k")
        claimed = self.claim_ids(other)
        assert claimed + self.claim_ids(store) == [item_id, late]

    def test_cancelled_while_paused(self, store: OutboxStore) -> None:
        """An item of a paused kind can be cancelled, and stays so after the resumption."""
        store.pause("k")
        item_id = store.enqueue("k")
        assert store.claim_batch("worker") == []
        assert store.cancel([item_id]) == 1
        store.resume("k")
        assert store.claim_batch("worker") == []
        assert self.statuses(store, [item_id]) == [ItemStatus.CANCELLED]
