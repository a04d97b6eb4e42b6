"""Promise 7: strictly one at a time per ordering key, in the order of enqueueing."""

from __future__ import annotations

from automate_kernel.outbox import ItemStatus, NewItem, OutboxStore, Outcome
from automate_kernel.testing.clock import FakeClock
from automate_kernel.testing.outbox.hooks import StoreHooks

__all__ = ["OrderingContract"]


class OrderingContract(StoreHooks):
    """How items with an ordering key take turns."""

    def in_line(self, store: OutboxStore, count: int = 3) -> list[str]:
        """Items of one key."""
        self.need("ordering_keys")
        return store.enqueue_many(NewItem("k", ordering_key="key") for _ in range(count))

    def test_one_at_a_time(self, store: OutboxStore) -> None:
        """While an item of a key runs, no other one does, whoever asks; then the next does."""
        ids = self.in_line(store, 4)
        for turn, item_id in enumerate(ids):
            worker = f"worker-{turn % 2}"
            assert self.claim_ids(store, worker) == [item_id]
            assert self.claim_ids(store, "worker-other") == []
            store.mark_success(item_id, worker)
        assert self.claim_ids(store) == []

    def test_two_stores_take_turns(self, store: OutboxStore) -> None:
        """Workers of two processes share the line."""
        stores = [store, self.another(store)]
        for turn, item_id in enumerate(self.in_line(store, 4)):
            mine, other = stores[turn % 2], stores[1 - turn % 2]
            assert self.claim_ids(mine, "worker") == [item_id]
            assert self.claim_ids(other, "worker") == []
            mine.mark_success(item_id, "worker")

    def test_keys_and_plain_items_do_not_wait_for_each_other(self, store: OutboxStore) -> None:
        """One item per key runs at once, and those without a key as they come."""
        self.need("ordering_keys")
        keys = ["a", "a", None, "b", "a", None, "b"]
        ids = store.enqueue_many(NewItem("k", ordering_key=key) for key in keys)
        assert self.claim_ids(store) == [ids[0], ids[2], ids[3], ids[5]]

    def test_long_line_does_not_hide_what_is_due(self, store: OutboxStore) -> None:
        """Behind a busy key's items, what is due is claimed at once."""
        ids = self.in_line(store, 15)
        plain = store.enqueue("k")
        assert self.claim_ids(store, limit=3) == [ids[0], plain]

    def test_a_late_outcome_beside_the_right_one(
        self, store: OutboxStore, clock: FakeClock
    ) -> None:
        """
        Told together, the lost claim's changes nothing, and the other lets the next one run.

        So it is where a worker could not tell for so long that its item was taken away, and got it
        again.
        """
        self.need("clock")
        first, second = self.in_line(store, 2)
        late = self.claim_one(store)
        clock.advance(store.lease_seconds + 1)
        store.reap()
        clock.advance(3600)
        right = self.claim_one(store)
        assert late.id == right.id == first
        outcomes = [Outcome(first, token=item.lease_token) for item in (late, right)]
        assert store.acknowledge("worker", outcomes) == {first}
        assert self.see(store, first).status is ItemStatus.COMPLETED
        assert self.claim_ids(store) == [second]

    def test_waiting_spends_no_attempt(self, store: OutboxStore) -> None:
        """An item that had to wait its turn starts with its first attempt."""
        ids = self.in_line(store)
        for item_id in ids:
            item = self.claim_one(store)
            assert (item.id, item.attempt_count) == (item_id, 1)
            self.claim_ids(store)
            store.mark_success(item_id, "worker")

    def test_priority_does_not_jump_the_line(self, store: OutboxStore) -> None:
        """Within a key the order of enqueueing counts alone."""
        self.need("ordering_keys")
        first = store.enqueue("k", ordering_key="key", priority=0)
        second = store.enqueue("k", ordering_key="key", priority=9)
        assert self.claim_ids(store) == [first]
        store.mark_success(first, "worker")
        assert self.claim_ids(store) == [second]

    def test_retry_keeps_its_place(self, store: OutboxStore, clock: FakeClock) -> None:
        """The others wait until the first one's retry is over."""
        self.need("clock")
        first, second, _ = self.in_line(store)
        self.claim_one(store)
        store.mark_retry(first, "worker", 60)
        assert self.claim_ids(store) == []
        clock.advance(60)
        assert self.claim_ids(store) == [first]
        store.mark_success(first, "worker")
        assert self.claim_ids(store) == [second]

    def test_delayed_item_keeps_its_place(self, store: OutboxStore, clock: FakeClock) -> None:
        """An item that is not due yet is not overtaken by later ones of its key."""
        self.need("ordering_keys", "clock")
        first = store.enqueue("k", ordering_key="key", delay=60)
        second = store.enqueue("k", ordering_key="key")
        assert self.claim_ids(store) == []
        clock.advance(60)
        assert self.claim_ids(store) == [first]
        store.mark_success(first, "worker")
        assert self.claim_ids(store) == [second]

    def test_release_and_snooze_keep_the_place(self, store: OutboxStore, clock: FakeClock) -> None:
        """An item that is handed back is the first again."""
        self.need("clock")
        first, second, _ = self.in_line(store)
        self.claim_one(store)
        store.release([first], "worker")
        assert self.claim_ids(store) == [first]
        store.snooze(first, "worker", 60)
        assert self.claim_ids(store) == []
        clock.advance(60)
        assert self.claim_ids(store) == [first]
        store.mark_success(first, "worker")
        assert self.claim_ids(store) == [second]

    def test_failure_lets_the_next_go(self, store: OutboxStore) -> None:
        """An item that is given up blocks nobody."""
        first, second, third = self.in_line(store)
        self.claim_one(store)
        store.mark_failed(first, "worker")
        assert self.claim_ids(store) == [second]
        store.mark_success(second, "worker")
        assert self.claim_ids(store) == [third]

    def test_cancelling_the_first_lets_the_next_go(self, store: OutboxStore) -> None:
        """A cancelled item blocks nobody, whether it is the first in line or amid it."""
        first, second, third, fourth = self.in_line(store, 4)
        assert self.claim_ids(store) == [first]
        assert self.claim_ids(store) == []
        store.mark_retry(first, "worker", 3600)
        assert store.cancel([first, third]) == 2
        assert self.claim_ids(store) == [second]
        store.mark_success(second, "worker")
        assert self.claim_ids(store) == [fourth]

    def test_dead_worker_frees_the_key(self, store: OutboxStore, clock: FakeClock) -> None:
        """After a crash the same item is tried again first; once it has failed, the next one."""
        self.need("ordering_keys", "clock")
        first = store.enqueue("k", ordering_key="key", max_attempts=2)
        second = store.enqueue("k", ordering_key="key")
        assert self.claim_ids(store) == [first]
        assert self.claim_ids(store) == []
        self.expire(store, clock)
        assert self.claim_ids(store) == [first]
        self.expire(store, clock)
        assert self.claim_ids(store) == [second]

    def test_requeued_item_waits_for_the_running_one(self, store: OutboxStore) -> None:
        """An item that comes back to a busy key runs next, not beside."""
        first, second, third = self.in_line(store)
        self.claim_one(store)
        store.mark_failed(first, "worker")
        assert self.claim_ids(store) == [second]
        assert store.requeue([first]) == 1
        assert self.claim_ids(store) == []
        store.mark_success(second, "worker")
        assert self.claim_ids(store) == [first]
        store.mark_success(first, "worker")
        assert self.claim_ids(store) == [third]

    def test_group_acknowledgement_frees_all_keys(self, store: OutboxStore) -> None:
        """Finishing items of several keys in one group lets the next of each go."""
        self.need("ordering_keys")
        keys = ["a", "b", "c"] * 2
        ids = store.enqueue_many(NewItem("k", ordering_key=key) for key in keys)
        assert self.claim_ids(store) == ids[:3]
        assert store.release(ids[:1], "worker") == 1
        for item_id in ids[1:3]:
            store.mark_success(item_id, "worker")
        assert sorted(self.claim_ids(store)) == sorted([ids[0], ids[4], ids[5]])

    def test_an_item_cancelled_while_it_ran_leaves_its_key(
        self, store: OutboxStore, clock: FakeClock
    ) -> None:
        """If its worker dies before it could stop, recovery cancels it, and the next one runs."""
        self.need("clock", "control")
        first, second, _ = self.in_line(store)
        assert self.claim_ids(store) == [first]
        assert self.claim_ids(store) == []
        store.cancel([first])
        clock.advance(store.lease_seconds + 1)
        store.reap()
        assert self.see(store, first).status is ItemStatus.CANCELLED
        assert self.claim_ids(store) == [second]
