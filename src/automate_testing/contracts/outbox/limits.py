"""Limits per kind and per concurrency key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from automate_kernel.base.errors import PayloadError
from automate_kernel.outbox import ItemStatus, Limit, NewItem, OutboxStore, Outcome, controls_of
from automate_testing.clock import FakeClock
from automate_testing.contracts.outbox.hooks import ControlledStore, StoreHooks
from automate_testing.contracts.values import each_case

_NO_LIMITS = [{}, {"concurrency": 0}, {"rate": -1}, {"concurrency": 1, "burst": 1}]
_NO_RATES = [{"rate": 1, "per_seconds": 0}, {"rate": 1, "burst": 0}]
_NO_KEYS = [("k", None, None), (None, 1, None), ("k", 0, None), ("k", 2, "k"), ("k" * 201, 2, None)]
_WAYS_OUT = [
    "retry",
    "release, put off",
    "release, cancel",
    "cancel, stop",
    "die, cancel",
    "cancel, die",
]


class LimitsContract(StoreHooks):
    """Tests of how many of a kind run at once, and how many start in a time."""

    _needs = ("controls",)

    def many(self, store: ControlledStore, count: int = 10, kind: str = "k") -> list[str]:
        """Enqueue items of one kind."""
        return store.enqueue_many(NewItem(kind) for _ in range(count))

    def limited(self, store: ControlledStore, count: int = 10, **limit: Any) -> list[str]:
        """Enqueue items of one kind, and limit it."""
        store.limit("k", **limit)
        return self.many(store, count)

    def starts(
        self, store: ControlledStore, time: FakeClock, ids: list[str], *waits: float | timedelta
    ) -> list[int]:
        """Return how many start after each wait; they are the next of *ids*, and taken off it."""
        counts = []
        for wait in waits:
            time.advance(wait)
            claimed = self.claim_ids(store, limit=20)
            counts.append(len(claimed))
            assert claimed == ids[: len(claimed)]
            del ids[: len(claimed)]
        return counts

    def test_limits_are_seen_and_lifted(self, store: ControlledStore) -> None:
        """A limit can be read, replaced and lifted from any process."""
        other = self.another(store)
        store.limit("mail", concurrency=5, rate=100, per_seconds=60, burst=10)
        store.limit("chat", rate=1)
        assert other.limits() == [Limit("chat", rate=1), Limit("mail", 5, 100, 60.0, 10)]
        controls_of(other).limit("mail", concurrency=2)
        assert store.limits()[1] == Limit("mail", 2)
        assert store.unlimit("mail")
        assert not store.unlimit("mail")
        assert [limit.kind for limit in store.limits()] == ["chat"]

    def test_no_such_limit(self, store: ControlledStore) -> None:
        """A limit without sense is refused, and changes nothing."""
        each_case(_NO_LIMITS + _NO_RATES, lambda wrong: self.invalid(store.limit, "k", **wrong))
        assert store.limits() == []

    def test_operator_goes_before_the_code(self, store: ControlledStore) -> None:
        """A declared limit holds until an operator sets one, which no worker's start undoes."""
        for most in (3, 4):
            store.declare_limits([Limit("k", concurrency=most)])
            assert store.limits() == [Limit("k", concurrency=most, declared=True)]
        store.limit("k", concurrency=1)
        store.declare_limits([Limit("k", concurrency=5)])
        assert store.limits() == [Limit("k", concurrency=1)]

    def test_what_the_code_no_longer_declares(self, store: ControlledStore) -> None:
        """A limit goes with its declaration, but not an operator's, nor one of other kinds."""
        store.declare_limits([Limit("mine", concurrency=1), Limit("other's", concurrency=1)])
        store.limit("operator's", concurrency=1)
        kept = Limit("new", rate=1, declared=True)
        store.declare_limits([kept], kinds=["mine", "new", "operator's"])
        other = Limit("other's", concurrency=1, declared=True)
        assert store.limits() == [kept, Limit("operator's", concurrency=1), other]

    def test_so_many_at_once(self, store: ControlledStore) -> None:
        """No more of the kind run than the limit says, and what ends makes room."""
        ids = self.limited(store, concurrency=3)
        assert self.claim_ids(store) == ids[:3]
        assert self.claim_ids(store, "worker-2") == []
        store.mark_success(ids[0], "worker")
        store.mark_failed(ids[1], "worker")
        assert self.claim_ids(store, "worker-2") == ids[3:5]
        assert store.release([ids[2]], "worker") == 1
        (again,) = self.claim_ids(store)
        store.cancel([again])
        assert self.claim_ids(store) == []
        store.acknowledge("worker", [Outcome(again, ItemStatus.CANCELLED)])
        assert len(self.claim_ids(store)) == 1

    def test_workers_of_two_processes_share_it(self, store: ControlledStore) -> None:
        """The limit is over all of them, the order is kept, and small claims are fine."""
        ids = self.limited(store, concurrency=4)
        stores = [store, self.another(store)] * 3
        claimed = [self.claim_ids(each, limit=1) for each in stores]
        assert claimed == [*([item_id] for item_id in ids[:4]), [], []]

    def test_dead_workers_make_room(self, store: ControlledStore, time: FakeClock) -> None:
        """A recovered item no longer counts as running."""
        self.limited(store, concurrency=3)
        for _ in range(2):
            assert len(self.claim_all(store)) == 3
            self.expire(store, time)

    def test_what_runs_already_counts(self, store: ControlledStore) -> None:
        """A new limit takes nothing back; it holds once enough has ended."""
        ids = self.many(store)
        assert len(self.claim_ids(store, limit=5)) == 5
        store.limit("k", concurrency=2)
        for item_id in ids[:3]:
            store.mark_success(item_id, "worker")
            assert self.claim_ids(store) == []
        store.mark_success(ids[3], "worker")
        assert self.claim_ids(store) == [ids[5]]

    def test_lifting_lets_all_go(self, store: ControlledStore) -> None:
        """Without its limit the kind is as any other."""
        ids = self.limited(store, concurrency=1)
        assert self.claim_ids(store) == ids[:1]
        store.unlimit("k")
        assert self.claim_ids(store) == ids[1:]

    def test_rate(self, store: ControlledStore, time: FakeClock) -> None:
        """After the first burst so many start per time, whether they have ended or not."""
        ids = self.limited(store, 20, rate=4, per_seconds=2)
        first = ids[0]
        assert self.starts(store, time, ids, 0, 0) == [4, 0]
        store.mark_success(first, "worker")
        assert self.starts(store, time, ids, 0.499, 0.001) == [0, 1]
        time.advance(1)
        assert self.claim_ids(store, limit=1) == [ids.pop(0)]
        assert self.starts(store, time, ids, 0, 3600) == [1, 4]

    def test_a_burst_of_one_spaces_the_starts(
        self, store: ControlledStore, time: FakeClock
    ) -> None:
        """With a burst of 1 a lull saves nothing up."""
        ids = self.limited(store, rate=10, burst=1)
        assert self.starts(store, time, ids, 0, 0.1, 0.1, 0.1, 0.1, 60) == [1] * 6

    def test_a_burst_above_the_rate(self, store: ControlledStore, time: FakeClock) -> None:
        """After a lull as many start at once as the burst says; then the rate holds again."""
        ids = self.limited(store, 20, rate=1, per_seconds=1, burst=5)
        assert self.starts(store, time, ids, 0, 2, 3600, 1) == [5, 2, 5, 1]

    def test_a_new_rate_owes_its_own_bucket_only(
        self, store: ControlledStore, time: FakeClock
    ) -> None:
        """The debt of a slower rate doesn't stop a quicker one that is set."""
        ids = self.limited(store, rate=1, per_seconds=3600, burst=3)
        assert self.starts(store, time, ids, 0) == [3]
        store.limit("k", rate=10, per_seconds=1, burst=1)
        assert self.starts(store, time, ids, 0, 0.1, 0.1) == [0, 1, 1]

    def test_what_a_limit_leaves_goes_to_the_others(self, store: ControlledStore) -> None:
        """Room that a limited kind may not use is not lost to the claim."""
        ids = self.many(store, 20)
        others = self.many(store, 20, "other")
        store.limit("k", concurrency=2)
        claimed = self.claim_ids(store, limit=10)
        assert sorted(claimed) == sorted([*ids[:2], *others[:8]])
        assert set(self.claim_all(store)) == set(others[8:])

    def test_retries_count_as_starts(self, store: ControlledStore, time: FakeClock) -> None:
        """An attempt is a start."""
        (first, second) = self.limited(store, 2, rate=1, per_seconds=10)
        assert self.claim_ids(store) == [first]
        store.mark_retry(first, "worker", 0)
        assert self.claim_ids(store) == []
        time.advance(10)
        self.take_turns(store, first)
        time.advance(10)
        self.take_turns(store, second)

    def test_how_long_a_worker_may_sleep(self, store: ControlledStore, time: FakeClock) -> None:
        """A worker that found no start free learns when the next will be."""
        self.limited(store, rate=1, per_seconds=30)
        assert len(self.claim_all(store)) == 1
        due = store.next_due_seconds()
        assert due is not None and 29 < due <= 30

    def test_clock_that_was_wrong(self, store: ControlledStore, time: FakeClock) -> None:
        """A clock that jumps back stops a kind for no longer than its own time."""
        ids, days = self.limited(store, rate=2, per_seconds=10), timedelta(days=300)
        assert self.starts(store, time, ids, days, -days, 5) == [2, 0, 1]

    def test_full_kind_stands_in_nobodys_way(self, store: ControlledStore) -> None:
        """Items behind a limit hold up no other kind, and each gets its share of a claim."""
        ids = self.limited(store, 50, concurrency=1)
        assert self.claim_ids(store, limit=5) == ids[:1]
        others = [store.enqueue("other") for _ in range(3)]
        assert self.claim_ids(store, limit=5) == others
        store.limit("third", concurrency=40)
        thirds, others = self.many(store, 20, "third"), self.many(store, 20, "other")
        claimed = self.claim_ids(store, limit=10)
        assert (len(set(claimed) & set(thirds)), len(set(claimed) & set(others))) == (5, 5)
        claimed = [store.claim_batch("worker", 1)[0].kind for _ in range(4)]
        assert sorted(claimed) == ["other", "other", "third", "third"]

    def test_a_limited_kind_has_no_more_than_its_share(self, store: ControlledStore) -> None:
        """However wide its limit is, it counts as one of the kinds that wait."""
        self.need("sharing")
        store.limit("k", concurrency=1000)
        for kind in ("k", "a", "b", "c"):
            self.many(store, 40, kind)
        for kinds in (None, ["k", "a", "b", "c", "none", "nothing"]):
            items = [item for _ in range(4) for item in store.claim_batch("worker", 8, kinds=kinds)]
            assert Counter(item.kind for item in items) == dict.fromkeys("kabc", 8)

    def test_tenants_share_a_limited_kind(self, store: ControlledStore) -> None:
        """Tenants take the few places in turn, and so do the items of none."""
        self.need("sharing")
        store.limit("k", concurrency=1)
        store.enqueue_many(NewItem("k", tenant_id=who) for who in [None, "big"] for _ in range(4))
        late = store.enqueue_many(NewItem("k", tenant_id=tenant) for tenant in ["t1", "t2"])
        claimed = [self.claim_one(store).id]
        for _ in range(7):
            store.mark_success(claimed[-1], "worker")
            claimed.append(self.claim_one(store).id)
        assert set(late) < set(claimed)

    def test_only_some_kinds_are_asked_for(self, store: ControlledStore) -> None:
        """A claim of other kinds is not concerned."""
        self.limited(store, concurrency=1)
        other = store.enqueue("other")
        assert [item.id for item in store.claim_batch("worker", kinds=["other"])] == [other]
        assert len(store.claim_batch("worker", kinds=["k"])) == 1
        assert store.claim_batch("worker", kinds=["k", "other"]) == []

    def test_paused_and_limited(self, store: ControlledStore) -> None:
        """A paused kind spends none of its starts."""
        ids = self.limited(store, 3, rate=1, per_seconds=3600)
        store.pause("k")
        assert self.claim_ids(store) == []
        store.resume("k")
        assert self.claim_ids(store) == ids[:1]

    def test_limited_kind_with_ordering_keys(self, store: ControlledStore) -> None:
        """Items that wait for their key take no room."""
        self.need("ordering_keys")
        store.limit("k", concurrency=2)
        keys = ["a", "a", "a", "b", "c"]
        ids = store.enqueue_many(NewItem("k", ordering_key=key) for key in keys)
        assert self.claim_ids(store) == [ids[0], ids[3]]
        store.mark_success(ids[0], "worker")
        assert len(self.claim_ids(store)) == 1


class ConcurrencyKeyContract(StoreHooks):
    """Tests of how many items of a key run at once, whatever their kinds."""

    _needs = ("concurrency_keys",)

    def keyed(self, store: OutboxStore, count: int, limit: int = 2, kind: str = "k") -> list[str]:
        """Enqueue items of one key."""
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

    def test_a_late_outcome_makes_no_room(self, store: OutboxStore, time: FakeClock) -> None:
        """The outcome of a lost claim changes nothing, and the other makes room."""
        (first,) = self.keyed(store, 1, limit=1)
        assert store.acknowledge("worker", self.late_and_right(store, time)) == {first}
        assert self.statuses(store, [first]) == ["COMPLETED"]
        self.take_turns(store, *self.keyed(store, 1, limit=1))

    @pytest.mark.parametrize("how", _WAYS_OUT)
    def test_every_way_out_makes_room(self, store: OutboxStore, time: FakeClock, how: str) -> None:
        """However an item stops running, the next one runs."""
        self.need("controls")
        first, second = self.keyed(store, 2, limit=1)
        assert self.claim_all(store) == [first]
        steps: dict[str, Callable[[], object]] = {
            "retry": lambda: store.mark_retry(first, "worker", 3600),
            "release": lambda: store.release([first], "worker"),
            "put off": lambda: controls_of(store).reschedule([first], delay=3600),
            "cancel": lambda: store.cancel([first]),
            "stop": lambda: store.acknowledge("worker", [Outcome(first, ItemStatus.CANCELLED)]),
            "die": lambda: self.lapse(store, time),
        }
        for step in how.split(", "):
            steps[step]()
        assert (self.statuses(store, [first]) == ["CANCELLED"]) == ("cancel" in how)
        assert self.claim_ids(store) == [second]

    def test_ends_of_many_make_room_for_as_many(self, store: OutboxStore) -> None:
        """Each of several that end together lets one run; what is still taken stays taken."""
        ids = self.keyed(store, 8, limit=3)
        assert self.claim_all(store) == ids[:3]
        ended = self.successes(self.see(store, item_id) for item_id in ids[:2])
        assert store.acknowledge("worker", ended) == set()
        assert sorted(self.claim_all(store)) == ids[3:5]

    def test_others_overtake_one_that_waits(self, store: OutboxStore, time: FakeClock) -> None:
        """Unlike an ordering key: an item that is not due yet holds up no other."""
        store.enqueue("k", concurrency_key="key", concurrency_limit=1, delay=3600)
        self.take_turns(store, *self.keyed(store, 1, limit=1))

    def test_paused_item_gives_its_turn_away(self, store: OutboxStore) -> None:
        """One that was woken and is of a paused kind lets another run."""
        kinds = ("k", "paused", "k")
        first, paused, third = (self.keyed(store, 1, 1, kind)[0] for kind in kinds)
        assert self.claim_all(store) == [first]
        store.pause("paused")
        store.mark_success(first, "worker")
        assert self.claim_ids(store) == [third]
        store.resume("paused")
        store.mark_success(third, "worker")
        assert self.claim_ids(store) == [paused]

    def test_a_kind_that_nobody_works_on(self, store: OutboxStore) -> None:
        """Items of a kind without workers keep no other kind from running."""
        kinds = ("k", "nobody's", "k")
        first, _, third = (self.keyed(store, 1, 1, kind)[0] for kind in kinds)
        assert self.claim_all(store) == [first]
        store.mark_success(first, "worker")
        assert [item.id for item in store.claim_batch("worker", kinds=["k"])] == [third]

    def test_limits_that_differ(self, store: OutboxStore) -> None:
        """Each item counts all that run, against its own limit."""
        wide, narrow = self.keyed(store, 3, limit=3), self.keyed(store, 1, limit=1)
        assert self.claim_ids(store) == wide
        for item_id in wide:
            assert self.claim_ids(store) == []
            store.mark_success(item_id, "worker")
        assert self.claim_ids(store) == narrow

    def test_a_full_key_does_not_hide_what_is_due(self, store: OutboxStore) -> None:
        """Behind a full key's items, what is due is claimed at once."""
        ids = self.keyed(store, 15)
        plain = store.enqueue("k")
        assert self.claim_ids(store, limit=3) == [*ids[:2], plain]

    def test_tenants_have_keys_of_their_own(self, store: OutboxStore) -> None:
        """The same key of two tenants is two keys."""
        ids = store.enqueue_many(
            NewItem("k", tenant_id=tenant, concurrency_key="key", concurrency_limit=1)
            for tenant in ("t1", "t2", "t1")
        )
        assert self.claim_ids(store) == ids[:2]
        assert [self.see(store, item_id).concurrency_key for item_id in ids] == ["key"] * 3

    def keeping(self, store: OutboxStore, count: int, **options: Any) -> list[str]:
        """Enqueue items of one key of which one counts from its first run to its end."""
        return store.enqueue_many(
            NewItem("k", concurrency_key="key", concurrency_limit=1, keeps_slot=True, **options)
            for _ in range(count)
        )

    def test_a_kept_slot_outlasts_the_waits(self, store: OutboxStore, time: FakeClock) -> None:
        """Whatever the item waits for, nobody takes its place, until it has ended."""
        first, second = self.keeping(store, 2, max_attempts=9)
        other = self.another(store)
        assert self.claim_ids(store) == [first]
        for wait in (
            lambda: store.snooze(first, "worker", 5),
            lambda: store.mark_retry(first, "worker", 5),
            lambda: store.release([first], "worker"),
        ):
            wait()
            store.reap()  # which mends what was left, and this was not
            time.advance(5)
            assert self.claim_ids(other, limit=5) == [first]
            other.release([first], "worker")
            assert self.claim_ids(store, limit=5) == [first]
        store.mark_success(first, "worker")
        assert self.claim_ids(store) == [second]

    def test_a_kept_slot_outlasts_its_worker(self, store: OutboxStore, time: FakeClock) -> None:
        """The item is reaped and goes on before another of its key begins."""
        first, second = self.keeping(store, 2)
        assert self.claim_ids(store) == [first]
        time.advance(store.lease_seconds + 1)
        assert len(store.reap()) == 1
        assert self.claim_ids(store) == []
        time.advance(3600)
        assert self.claim_ids(store) == [first]
        store.mark_failed(first, "worker")
        assert self.claim_ids(store) == [second]

    def test_a_kept_slot_of_a_cancelled_item_is_free(self, store: OutboxStore) -> None:
        """Cancelled while it waits, it makes room at once; requeued, it waits its turn."""
        first, second = self.keeping(store, 2)
        assert self.claim_ids(store) == [first]
        store.snooze(first, "worker", 3600)
        assert store.cancel([first]) == 1
        assert self.claim_ids(store) == [second]
        assert store.requeue([first]) == 1
        assert self.claim_ids(store) == []
        store.mark_success(second, "worker")
        assert self.claim_ids(store) == [first]

    def test_no_such_key(self, store: OutboxStore) -> None:
        """A key without sense is refused when it is enqueued."""

        def check(case: tuple[Any, Any, Any]) -> None:
            key, limit, lane = case
            with pytest.raises(PayloadError):
                store.enqueue("k", concurrency_key=key, concurrency_limit=limit, ordering_key=lane)

        each_case(_NO_KEYS, check)
