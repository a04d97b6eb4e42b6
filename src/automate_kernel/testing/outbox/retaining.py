"""What becomes of finished items: deleted at once, after a time, or never."""

from __future__ import annotations

import pytest

from automate_kernel.errors import LeaseLostError
from automate_kernel.outbox import ItemStatus, NewItem, OutboxStore, Outcome
from automate_kernel.testing.clock import FakeClock
from automate_kernel.testing.outbox.hooks import StoreHooks

__all__ = ["RetentionContract"]


class RetentionContract(StoreHooks):
    """Deleting what is finished."""

    def finished(self, store: OutboxStore) -> dict[ItemStatus, str]:
        """An item in each state in which one is finished."""
        self.need("retention")
        done, failed, cancelled = store.enqueue_many(NewItem("k") for _ in range(3))
        store.cancel([cancelled])
        store.claim_batch("worker")
        store.acknowledge("worker", [Outcome(done), Outcome(failed, ItemStatus.FAILED)])
        return {
            ItemStatus.COMPLETED: done,
            ItemStatus.FAILED: failed,
            ItemStatus.CANCELLED: cancelled,
        }

    def left(self, store: OutboxStore, ids: dict[ItemStatus, str]) -> list[str]:
        """The states of those items that are still there."""
        return [str(status) for status, item_id in ids.items() if store.get(item_id)]

    def test_kept_for_ever(self, store: OutboxStore, clock: FakeClock) -> None:
        """Nothing goes by itself unless that is said."""
        self.need("clock")
        ids = self.finished(store)
        clock.advance(10 * 365 * 86_400)
        assert store.sweep() == 0
        assert self.left(store, ids) == ["COMPLETED", "FAILED", "CANCELLED"]

    def test_kept_for_a_time(self, store: OutboxStore, clock: FakeClock) -> None:
        """What went well goes first; what somebody should look at has a time of its own."""
        self.need("clock")
        store = self.kept(store, 60, 3600)
        ids, waiting = self.finished(store), store.enqueue("k")
        clock.advance(59)
        assert store.sweep() == 0
        clock.advance(1)
        assert store.sweep() == 1
        assert self.left(store, ids) == ["FAILED", "CANCELLED"]
        clock.advance(3540)
        assert store.sweep() == 2
        assert [item.id for item in store.find()] == [waiting]

    def test_failures_are_kept_without_a_time_of_their_own(
        self, store: OutboxStore, clock: FakeClock
    ) -> None:
        """How long successes are kept says nothing of failures."""
        self.need("clock")
        store = self.kept(store, 60)
        ids = self.finished(store)
        clock.advance(86_400)
        assert store.sweep() == 1
        assert self.left(store, ids) == ["FAILED", "CANCELLED"]

    def test_deleted_at_once(self, store: OutboxStore) -> None:
        """A success is gone when it is recorded; a failure is not."""
        store = self.kept(store, 0)
        ids = self.finished(store)
        assert self.left(store, ids) == ["FAILED", "CANCELLED"]
        assert store.stats().total(ItemStatus.COMPLETED) == 0

    def test_deleting_at_once_is_fenced(self, store: OutboxStore, clock: FakeClock) -> None:
        """Who lost the item deletes nothing, and is told so, even after the item is gone."""
        self.need("clock", "retention")
        store = self.kept(store, 0)
        lost, mine = store.enqueue("k"), store.enqueue("k")
        old = {item.id: item.lease_token for item in store.claim_batch("worker-1")}
        self.expire(store, clock)
        new = {item.id: item.lease_token for item in store.claim_batch("worker-2")}
        outcomes = [Outcome(lost, token=old[lost]), Outcome(mine, token=new[mine])]
        assert store.acknowledge("worker-2", outcomes) == {lost}
        assert (store.get(lost) is None, store.get(mine) is None) == (False, True)
        store.mark_success(lost, "worker-2", token=new[lost])
        assert store.get(lost) is None
        with pytest.raises(LeaseLostError):
            store.mark_success(lost, "worker-1", token=old[lost])

    def test_deleting_at_once_is_fenced_by_the_row(
        self, store: OutboxStore, clock: FakeClock
    ) -> None:
        """A process that remembers its own claim alone deletes nothing that another one holds."""
        self.need("clock", "retention")
        late, holder = self.kept(store, 0), self.kept(self.another(store), 0)
        ids = {late.enqueue("k"), late.enqueue("k")}
        old = {item.id: item.lease_token for item in late.claim_batch("worker")}
        # The late one neither reaps nor claims again: nothing tells it but the row.
        self.expire(holder, clock)
        new = {item.id: item.lease_token for item in holder.claim_batch("worker")}
        assert set(old) == set(new) == ids
        outcomes = [Outcome(item_id, token=token) for item_id, token in old.items()]
        assert late.acknowledge("worker", outcomes) == ids
        assert self.statuses(holder, sorted(ids)) == [ItemStatus.RUNNING] * 2
        outcomes = [Outcome(item_id, token=token) for item_id, token in new.items()]
        assert holder.acknowledge("worker", outcomes) == set()
        assert [holder.get(item_id) for item_id in ids] == [None, None]

    def test_deleted_with_the_hosts_transaction(self, store: OutboxStore) -> None:
        """After a rollback it is still there, and its holder's."""
        self.need("retention", "transactions")
        store = self.kept(store, 0)
        item_id = store.enqueue("k")
        self.claim_one(store)
        with pytest.raises(ZeroDivisionError), self.transaction(store) as transaction:
            store.mark_success(item_id, "worker", transaction=transaction)
            raise ZeroDivisionError
        assert self.statuses(store, [item_id]) == [ItemStatus.RUNNING]
        store.mark_success(item_id, "worker")
        assert store.get(item_id) is None

    def test_deleted_items_leave_their_keys(self, store: OutboxStore) -> None:
        """The next of an ordering or concurrency key runs, and an idempotency key is free."""
        self.need("retention", "ordering_keys", "concurrency_keys")
        store = self.kept(store, 0)
        ordered = [store.enqueue("k", ordering_key="a", idempotency_key="once")]
        slotted = [store.enqueue("k", concurrency_key="b", concurrency_limit=1)]
        ordered.append(store.enqueue("k", ordering_key="a"))
        slotted.append(store.enqueue("k", concurrency_key="b", concurrency_limit=1))
        assert self.claim_ids(store) == [ordered[0], slotted[0]]
        assert self.claim_ids(store) == []
        store.acknowledge("worker", [Outcome(ordered[0]), Outcome(slotted[0])])
        assert store.enqueue("k", idempotency_key="once", delay=60) != ordered[0]
        assert self.claim_ids(store) == [ordered[1], slotted[1]]

    def test_purge_of_some_states(self, store: OutboxStore, clock: FakeClock) -> None:
        """A purge may be of failures alone, or of successes."""
        self.need("clock")
        ids = self.finished(store)
        clock.advance(60)
        assert store.purge(older_than_seconds=60, statuses=["FAILED"]) == 1
        assert self.left(store, ids) == ["COMPLETED", "CANCELLED"]
        assert store.purge(older_than_seconds=60, statuses=[ItemStatus.COMPLETED]) == 1
        assert self.left(store, ids) == ["CANCELLED"]

    def test_purge_finds_what_ends_late(self, store: OutboxStore, clock: FakeClock) -> None:
        """An old item that was passed while it waited goes once it has been finished for long."""
        self.need("clock", "retention")
        old = store.enqueue("k", delay=3600)
        new = store.enqueue_many(NewItem("k") for _ in range(3))
        store.claim_batch("worker")
        store.acknowledge("worker", [Outcome(item_id) for item_id in new])
        clock.advance(3600)
        assert store.purge(older_than_seconds=60, limit=2) == 2
        assert self.claim_ids(store) == [old]
        store.mark_success(old, "worker")
        clock.advance(60)
        assert store.purge(older_than_seconds=60) == 2
        assert store.find() == []
