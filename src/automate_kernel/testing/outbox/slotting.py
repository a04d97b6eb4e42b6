"""Limits per concurrency key."""

from __future__ import annotations

import pytest

from automate_kernel.errors import PayloadError
from automate_kernel.outbox import ItemStatus, NewItem, OutboxStore, Outcome
from automate_kernel.testing.clock import FakeClock
from automate_kernel.testing.outbox.hooks import StoreHooks

__all__ = ["ConcurrencyKeyContract"]


class ConcurrencyKeyContract(StoreHooks):
    """How many items of a key run at once, whatever their kinds."""

    def keyed(self, store: OutboxStore, count: int, limit: int = 2, kind: str = "k") -> list[str]:
        """Items of one key."""
        self.need("concurrency_keys")
        return store.enqueue_many(
            NewItem(kind, concurrency_key="key", concurrency_limit=limit) for _ in range(count)
        )

    def test_so_many_of_a_key_at_once(self, store: OutboxStore) -> None:
        """No more than the limit run, over all kinds and workers; what ends makes room."""
        first, other = self.keyed(store, 2), self.keyed(store, 2, kind="other")
        plain = store.enqueue("k")
        assert self.claim_ids(store) == [*first, plain]
        assert self.claim_ids(self.another(store)) == []
        item = self.see(store, other[0])
        assert (item.waiting_for, item.attempt_count) == ("key", 0)
        assert (item.concurrency_key, item.concurrency_limit) == ("key", 2)
        store.mark_success(first[0], "worker")
        assert self.claim_ids(self.another(store)) == other[:1]
        store.mark_failed(first[1], "worker")
        assert self.claim_ids(store) == other[1:]

    def test_a_late_outcome_leaves_the_slot_to_the_right_one(
        self, store: OutboxStore, clock: FakeClock
    ) -> None:
        """Told together, the lost claim's changes nothing, and the other makes room."""
        self.need("clock")
        (first,) = self.keyed(store, 1, limit=1)
        late = self.claim_one(store)
        clock.advance(store.lease_seconds + 1)
        store.reap()
        clock.advance(3600)
        right = self.claim_one(store)
        outcomes = [Outcome(first, token=item.lease_token) for item in (late, right)]
        assert store.acknowledge("worker", outcomes) == {first}
        assert self.see(store, first).status is ItemStatus.COMPLETED
        (second,) = self.keyed(store, 1, limit=1)
        assert self.claim_ids(store) == [second]

    @pytest.mark.parametrize("how", ["retry", "release", "cancel", "stop", "die", "die stopping"])
    def test_every_way_out_makes_room(self, store: OutboxStore, clock: FakeClock, how: str) -> None:
        """However an item stops running, the next one runs."""
        self.need("clock", "control")
        first, second = self.keyed(store, 2, limit=1)
        assert self.claim_ids(store) == [first]
        assert self.claim_ids(store) == []
        if how == "retry":
            store.mark_retry(first, "worker", 3600)
        elif how == "release":
            store.release([first], "worker")
            store.reschedule([first], delay=3600)
        elif how == "cancel":
            store.release([first], "worker")
            store.cancel([first])
        elif how == "stop":
            store.cancel([first])
            store.acknowledge("worker", [Outcome(first, ItemStatus.CANCELLED)])
        elif how == "die stopping":
            store.cancel([first])
            clock.advance(store.lease_seconds + 1)
            store.reap()
            assert self.see(store, first).status is ItemStatus.CANCELLED
        else:
            clock.advance(store.lease_seconds + 1)
            store.reap()
            store.cancel([first])
        assert self.claim_ids(store) == [second]

    def test_ends_of_many_make_room_for_as_many(self, store: OutboxStore) -> None:
        """Each of several that end together lets one run; what is still taken stays taken."""
        ids = self.keyed(store, 8, limit=3)
        assert self.claim_ids(store) == ids[:3]
        assert self.claim_ids(store) == []
        outcomes = [Outcome(item_id, token=self.see(store, item_id).lease_token) for item_id in ids]
        assert store.acknowledge("worker", outcomes[:2]) == set()
        ran = [*self.claim_ids(store), *self.claim_ids(store)]
        assert sorted(ran) == ids[3:5]
        assert self.claim_ids(store) == []

    def test_others_overtake_one_that_waits(self, store: OutboxStore, clock: FakeClock) -> None:
        """Unlike an ordering key: an item that is not due yet holds up no other."""
        self.need("concurrency_keys", "clock")
        store.enqueue("k", concurrency_key="key", concurrency_limit=1, delay=3600)
        (other,) = self.keyed(store, 1, limit=1)
        assert self.claim_ids(store) == [other]

    def test_paused_item_gives_its_turn_away(self, store: OutboxStore) -> None:
        """One that was woken and is of a paused kind lets another run."""
        (first,) = self.keyed(store, 1, limit=1)
        (paused,) = self.keyed(store, 1, limit=1, kind="paused")
        (third,) = self.keyed(store, 1, limit=1)
        assert self.claim_ids(store) == [first]
        assert self.claim_ids(store) == []
        store.pause("paused")
        store.mark_success(first, "worker")
        assert self.claim_ids(store) == [third]
        store.resume("paused")
        store.mark_success(third, "worker")
        assert self.claim_ids(store) == [paused]

    def test_a_kind_that_nobody_works_on(self, store: OutboxStore) -> None:
        """Items of a kind without workers keep no other kind from running."""
        (first,) = self.keyed(store, 1, limit=1)
        self.keyed(store, 1, limit=1, kind="nobody's")
        (third,) = self.keyed(store, 1, limit=1)
        assert self.claim_ids(store) == [first]
        assert self.claim_ids(store) == []
        store.mark_success(first, "worker")
        assert [item.id for item in store.claim_batch("worker", kinds=["k"])] == [third]

    def test_limits_that_differ(self, store: OutboxStore) -> None:
        """Each item counts all that run, against its own limit."""
        wide, narrow = self.keyed(store, 3, limit=3), self.keyed(store, 1, limit=1)
        assert self.claim_ids(store) == wide
        store.mark_success(wide[0], "worker")
        assert self.claim_ids(store) == []
        store.mark_success(wide[1], "worker")
        assert self.claim_ids(store) == []
        store.mark_success(wide[2], "worker")
        assert self.claim_ids(store) == narrow

    def test_a_full_key_does_not_hide_what_is_due(self, store: OutboxStore) -> None:
        """Behind a full key's items, what is due is claimed at once."""
        ids = self.keyed(store, 15)
        plain = store.enqueue("k")
        assert self.claim_ids(store, limit=3) == [*ids[:2], plain]

    def test_tenants_have_keys_of_their_own(self, store: OutboxStore) -> None:
        """The same key of two tenants is two keys."""
        self.need("concurrency_keys")
        ids = store.enqueue_many(
            NewItem("k", tenant_id=tenant, concurrency_key="key", concurrency_limit=1)
            for tenant in ("t1", "t2", "t1")
        )
        assert self.claim_ids(store) == ids[:2]
        assert [self.see(store, item_id).concurrency_key for item_id in ids] == ["key"] * 3

    @pytest.mark.parametrize(
        "wrong",
        [
            {"concurrency_key": "key"},
            {"concurrency_limit": 1},
            {"concurrency_key": "key", "concurrency_limit": 0},
            {"concurrency_key": "key", "concurrency_limit": 2, "ordering_key": "key"},
            {"concurrency_key": "x" * 201, "concurrency_limit": 2},
        ],
    )
    def test_no_such_key(self, store: OutboxStore, wrong: dict[str, object]) -> None:
        """What makes no sense is refused when it is enqueued."""
        self.need("concurrency_keys")
        with pytest.raises(PayloadError):
            store.enqueue("k", **wrong)  # type: ignore[arg-type]
