"""Promises 4, 6, 7 and 9: due items, their order, and what a claim counts."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from automate_kernel.outbox import ItemStatus, NewItem, OutboxItem, OutboxStore
from automate_testing.clock import FakeClock
from automate_testing.contracts.outbox.hooks import StoreHooks


class ClaimContract(StoreHooks):
    """Tests of which items are due, and in which order they are claimed."""

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
        """No other worker gets a claimed item."""
        self.claimed(store, "worker-1")
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

    def test_delay(self, store: OutboxStore, time: FakeClock) -> None:
        """A delayed item is claimed once it is due, and not before."""
        seconds, delta = (store.enqueue("k", delay=late) for late in (60, timedelta(minutes=2)))
        for wait, due in ((0, []), (59.5, []), (0.5, [seconds]), (60, [delta])):
            time.advance(wait)
            assert self.claim_ids(store) == due

    def test_far_future_is_not_due(self, store: OutboxStore) -> None:
        """An item that is not due is not claimed, whatever its priority."""
        store.enqueue("k", delay=86_400, priority=1000)
        now = store.enqueue("k")
        assert self.claim_ids(store) == [now]
        assert self.claim_ids(store) == []

    def test_run_at(self, store: OutboxStore, time: FakeClock) -> None:
        """An item may name the instant from which on it is due, in the past too."""
        later = store.enqueue("k", run_at=time() + timedelta(hours=1))
        past = store.enqueue("k", run_at=time() - timedelta(hours=1))
        assert self.claim_ids(store) == [past]
        time.advance(3600)
        assert self.claim_ids(store) == [later]

    def test_due_time_before_id(self, store: OutboxStore, time: FakeClock) -> None:
        """The item that was due first goes first, though it was enqueued later."""
        late, early = (store.enqueue("k", delay=delay) for delay in (20, 10))
        time.advance(30)
        assert self.claim_ids(store) == [early, late]

    def test_old_item_is_not_starved(self, store: OutboxStore, time: FakeClock) -> None:
        """An item that waited long goes before a new one of higher priority."""
        self.need("ageing")
        old = store.enqueue("k", priority=0)
        time.advance(7 * 86_400)
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


class OrderingContract(StoreHooks):
    """Tests of how items with an ordering key take turns."""

    _needs = ("ordering_keys",)

    def in_line(self, store: OutboxStore, count: int = 3) -> list[str]:
        """Enqueue items of one key."""
        return store.enqueue_many(NewItem("k", ordering_key="key") for _ in range(count))

    def test_one_at_a_time(self, store: OutboxStore) -> None:
        """While an item of a key runs, no other item of it does; then the next runs."""
        ids = self.in_line(store, 4)
        for turn, item_id in enumerate(ids):
            worker = f"worker-{turn % 2}"
            assert self.claim_ids(store, worker) == [item_id]
            assert self.claim_ids(store, "worker-other") == []
            store.mark_success(item_id, worker)
        assert self.claim_ids(store) == []

    def test_the_order_is_the_databases(self, store: OutboxStore, time: FakeClock) -> None:
        """Clocks of the processes that enqueue, from which ids are made, decide nothing."""
        ids = [f"01890000-0000-7000-8000-00000000000{digit}" for digit in "951"]
        for item_id in ids:
            store.enqueue_many([NewItem("k", ordering_key="key", id=item_id)])
            time.advance(1)
        for item_id in ids:
            assert self.claim_ids(store) == [item_id]
            store.mark_success(item_id, "worker")

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
        keys = ["a", "a", None, "b", "a", None, "b"]
        ids = store.enqueue_many(NewItem("k", ordering_key=key) for key in keys)
        assert self.claim_ids(store) == [ids[0], ids[2], ids[3], ids[5]]

    def test_long_line_does_not_hide_what_is_due(self, store: OutboxStore) -> None:
        """Behind a busy key's items, what is due is claimed at once."""
        ids = self.in_line(store, 15)
        plain = store.enqueue("k")
        assert self.claim_ids(store, limit=3) == [ids[0], plain]

    def test_a_late_outcome_beside_the_right_one(self, store: OutboxStore, time: FakeClock) -> None:
        """
        The outcome of a lost claim changes nothing; the other lets the next run.

        A worker that was cut off for long may lose an item, get it again, and then report both.
        """
        first, second = self.in_line(store, 2)
        assert store.acknowledge("worker", self.late_and_right(store, time)) == {first}
        self.take_turns(store, second)
        assert self.statuses(store, [first, second]) == ["COMPLETED"] * 2

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
        first = store.enqueue("k", ordering_key="key", priority=0)
        second = store.enqueue("k", ordering_key="key", priority=9)
        self.take_turns(store, first, second)

    def test_retry_keeps_its_place(self, store: OutboxStore, time: FakeClock) -> None:
        """The others wait until the first one's retry is over."""
        first, second, _ = self.in_line(store)
        self.claim_one(store)
        store.mark_retry(first, "worker", 60)
        assert self.claim_ids(store) == []
        time.advance(60)
        self.take_turns(store, first, second)

    def test_delayed_item_keeps_its_place(self, store: OutboxStore, time: FakeClock) -> None:
        """An item that is not due yet is not overtaken by later items of its key."""
        first = store.enqueue("k", ordering_key="key", delay=60)
        second = store.enqueue("k", ordering_key="key")
        assert self.claim_ids(store) == []
        time.advance(60)
        self.take_turns(store, first, second)

    def test_release_and_snooze_keep_the_place(self, store: OutboxStore, time: FakeClock) -> None:
        """An item that is handed back is the first again."""
        first, second, _ = self.in_line(store)
        self.claim_one(store)
        store.release([first], "worker")
        assert self.claim_ids(store) == [first]
        store.snooze(first, "worker", 60)
        assert self.claim_ids(store) == []
        time.advance(60)
        self.take_turns(store, first, second)

    def test_failure_lets_the_next_go(self, store: OutboxStore) -> None:
        """An item that is given up blocks nobody."""
        first, second, third = self.in_line(store)
        self.claim_one(store)
        store.mark_failed(first, "worker")
        self.take_turns(store, second, third)

    def test_cancelling_the_first_lets_the_next_go(self, store: OutboxStore) -> None:
        """A cancelled item blocks nobody, whether it is the first in line or amid it."""
        first, second, third, fourth = self.in_line(store, 4)
        assert self.claim_all(store) == [first]
        store.mark_retry(first, "worker", 3600)
        assert store.cancel([first, third]) == 2
        self.take_turns(store, second, fourth)

    def test_dead_worker_frees_the_key(self, store: OutboxStore, time: FakeClock) -> None:
        """After a crash the same item is tried again first; after its failure the next runs."""
        first = store.enqueue("k", ordering_key="key", max_attempts=2)
        second = store.enqueue("k", ordering_key="key")
        for item_id in (first, first, second):
            assert self.claim_all(store) == [item_id]
            self.expire(store, time)

    def test_requeued_item_waits_for_the_running_one(self, store: OutboxStore) -> None:
        """An item that comes back to a busy key runs next, not beside."""
        first, second, third = self.in_line(store)
        self.claim_one(store)
        store.mark_failed(first, "worker")
        assert self.claim_ids(store) == [second]
        assert store.requeue([first]) == 1
        assert self.claim_ids(store) == []
        store.mark_success(second, "worker")
        self.take_turns(store, first, third)

    def test_group_acknowledgement_frees_all_keys(self, store: OutboxStore) -> None:
        """Finishing items of several keys in one group lets the next of each go."""
        keys = ["a", "b", "c"] * 2
        ids = store.enqueue_many(NewItem("k", ordering_key=key) for key in keys)
        assert self.claim_ids(store) == ids[:3]
        assert store.release(ids[:1], "worker") == 1
        for item_id in ids[1:3]:
            store.mark_success(item_id, "worker")
        assert sorted(self.claim_ids(store)) == sorted([ids[0], ids[4], ids[5]])

    def test_cancelled_while_it_ran(self, store: OutboxStore, time: FakeClock) -> None:
        """If its worker dies before it could stop, recovery cancels it, and the next one runs."""
        self.need("controls")
        first, second, _ = self.in_line(store)
        assert self.claim_all(store) == [first]
        store.cancel([first])
        self.lapse(store, time)
        assert self.statuses(store, [first]) == ["CANCELLED"]
        assert self.claim_ids(store) == [second]


class SharingContract(StoreHooks):
    """Tests of the shares of kinds, tenants and lanes in what is claimed."""

    _needs = ("sharing",)

    def flood(self, store: OutboxStore, count: int, **options: Any) -> None:
        """Enqueue a backlog before everything else."""
        store.enqueue_many(NewItem("flood", n, **options) for n in range(count))

    def kinds(self, items: list[OutboxItem]) -> Counter[str]:
        """Count the items of each kind."""
        return Counter(item.kind for item in items)

    def test_a_kind_does_not_wait_for_another(self, store: OutboxStore) -> None:
        """The first claim after it came has an item of a kind, however many wait before it."""
        self.flood(store, 60)
        for _ in range(2):
            assert len(store.claim_batch("worker", 10)) == 10
        store.enqueue("late")
        assert self.kinds(store.claim_batch("worker", 10)) == {"flood": 9, "late": 1}
        store.enqueue("named")
        claimed = store.claim_batch("worker", 10, kinds=["named", "flood", "none"])
        assert self.kinds(claimed) == {"flood": 9, "named": 1}

    def test_a_tenant_does_not_wait_for_another(self, store: OutboxStore) -> None:
        """Within a kind each tenant has its share, and so have the items of none."""
        self.flood(store, 60, tenant_id="big")
        for _ in range(2):
            assert len(store.claim_batch("worker", 10)) == 10
        store.enqueue("flood", tenant_id="small")
        store.enqueue("flood")
        claimed = store.claim_batch("worker", 10)
        assert Counter(item.tenant_id for item in claimed) == {"big": 8, "small": 1, None: 1}

    def test_backlogs_share_equally(self, store: OutboxStore) -> None:
        """Over a few claims kinds with a backlog get the same."""
        self.flood(store, 100)
        for kind in ("b", "c"):
            store.enqueue_many(NewItem(kind) for _ in range(100))
        claimed = [item for _ in range(9) for item in store.claim_batch("worker", 10)]
        assert len(claimed) == 90
        assert all(24 <= count <= 36 for count in self.kinds(claimed).values())

    def test_single_claims_take_turns(self, store: OutboxStore) -> None:
        """With one free slot at a time, no kind is left out."""
        self.flood(store, 30)
        store.enqueue_many(NewItem(kind) for kind in "abc")
        claimed = [item for _ in range(12) for item in store.claim_batch("worker", 1)]
        assert len(claimed) == 12
        assert self.kinds(claimed) == {"flood": 9, "a": 1, "b": 1, "c": 1}

    @pytest.mark.parametrize("tenant", [None, "big"])
    def test_a_lane_does_not_wait_for_another(self, store: OutboxStore, tenant: str | None) -> None:
        """One of the next five claims has what came to an empty lane, or is in none."""
        self.flood(store, 200, tenant_id=tenant, lane="long")
        claimed: list[OutboxItem] = []
        for size, lane in ((10, "a"), (1, "b"), (1, "c"), (10, None), (1, None)):
            claimed += store.claim_batch("worker", size, kinds=["flood", "other"])
            late = store.enqueue("flood", tenant_id=tenant, lane=lane, priority=int(lane is None))
            for _ in range(5):
                claimed += store.claim_batch("worker", size, kinds=["flood", "other"])
            assert late in [item.id for item in claimed]
        assert len(claimed) == 6 * 23, "the long lane gets what is left"
        while more := store.claim_batch("worker", 50):
            claimed += more
        assert len({item.id for item in claimed}) == len(claimed) == 205

    def test_lanes_share_equally(self, store: OutboxStore) -> None:
        """Over a few claims lanes with a backlog get about the same, however old it is."""
        for lane in ("a", "b", "c"):
            self.flood(store, 100, lane=lane)
        claimed = [item for _ in range(12) for item in store.claim_batch("worker", 10)]
        assert len(claimed) == 120
        # A quarter of the claims goes by age.
        shares = Counter(item.lane for item in claimed)
        assert all(shares[lane] >= 24 for lane in "abc")

    def test_priority_counts_within_a_share(self, store: OutboxStore) -> None:
        """An urgent item goes before the others of its kind and tenant."""
        self.flood(store, 20)
        urgent = store.enqueue("flood", priority=1)
        assert self.claim_ids(store, limit=3)[0] == urgent

    def test_more_groups_than_one_statement_takes(self, store: OutboxStore) -> None:
        """With hundreds of tenants each gets its turn, and nothing is claimed twice."""
        self.flood(store, 150, tenant_id="t000")
        store.enqueue_many(NewItem("flood", tenant_id=f"t{number:03}") for number in range(1, 150))
        claimed = [item for _ in range(12) for item in store.claim_batch("worker", 25)]
        assert store.claim_batch("worker") == []
        assert len({item.id for item in claimed}) == len(claimed) == 299
        # Each of the others was among the first six or seven claims, and not behind the flood.
        assert len({item.tenant_id for item in claimed[:225]}) == 150
