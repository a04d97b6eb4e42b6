"""The outbox does what a model of it in a few dictionaries says, whatever happens in which order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from example_counts import examples
import hypothesis.strategies as st
import pytest
import sqlalchemy as sa
from automate_kernel.base.errors import LeaseLostError
from automate_kernel.outbox import (
    Backoff,
    ItemStatus,
    NewItem,
    OptimisticClaimOutboxStore,
    Outcome,
    RowsOutboxStore,
    SkipLockedClaimOutboxStore,
)
from automate_kernel.storage import MemoryStorage, Storage
from automate_kernel.storage.tables import ORDERING_LOCK, SLOT
from automate_testing.clock import FakeClock
from automate_sqlalchemy import SqlAlchemyStorage
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

PENDING, RUNNING, RETRY = ItemStatus.PENDING, ItemStatus.RUNNING, ItemStatus.RETRY
COMPLETED, FAILED, CANCELLED = ItemStatus.COMPLETED, ItemStatus.FAILED, ItemStatus.CANCELLED
WAITING, FINISHED = (PENDING, RETRY), (COMPLETED, FAILED, CANCELLED)

LEASE_SECONDS = 30.0
# Every process uses the same name, which therefore proves nothing.
WORKER = "worker"
KINDS = ("mail", "chat")

some_item = st.integers(0, 40)
some_store = st.integers(0, 1)
delays = st.sampled_from([0, 5, 60])
new_items = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(KINDS),
        "ordering_key": st.sampled_from([None, "one", "one", "two"]),
        "priority": st.sampled_from([0, 0, 2]),
        "delay": delays,
        "max_attempts": st.integers(1, 3),
        "idempotency_key": st.sampled_from([None, None, "a", "b"]),
    }
)
# Beside these an item may have a concurrency key, but not with an ordering key.
concurrency_keys = st.sampled_from([None, None, "few", "few", "one"])
CONCURRENCY = {"few": 2, "one": 1}


@dataclass
class Expected:
    """What the model knows of an item."""

    id: str
    kind: str
    key: str | None
    priority: int
    max_attempts: int
    due_at: datetime
    idempotency_key: str | None
    status: ItemStatus = PENDING
    attempts: int = 0
    token: str | None = None
    lease_expires_at: datetime | None = None
    completed_at: datetime | None = None
    concurrency_key: str | None = None
    asked: bool = False
    placed_at: datetime = field(init=False)

    def __post_init__(self) -> None:
        self.wait(PENDING, self.due_at)

    @property
    def turn(self) -> tuple[datetime, str]:
        return self.placed_at - timedelta(hours=self.priority), self.id

    def wait(self, status: ItemStatus, due_at: datetime, placed_at: datetime | None = None) -> None:
        """With *placed_at* it has its old place in the line."""
        self.status, self.due_at, self.placed_at = status, due_at, placed_at or due_at
        self.lease_expires_at = self.completed_at = None

    def wait_anew(
        self, status: ItemStatus, due_at: datetime, placed_at: datetime | None = None
    ) -> None:
        """As one that nobody can say any more to have put back."""
        self.wait(status, due_at, placed_at)
        self.token = None

    def finish(self, status: ItemStatus, now: datetime) -> None:
        self.status, self.lease_expires_at, self.completed_at = status, None, now
        self.asked = False


@dataclass(frozen=True)
class Claim:
    """A claim that was made once; its process may have lost it long ago."""

    item_id: str
    token: str
    attempts: int
    max_attempts: int


class OutboxMachine(RuleBasedStateMachine):
    """Two processes that share an outbox, and die."""

    def __init__(
        self,
        open_storage: Callable[[FakeClock], Storage],
        *,
        optimistic: bool = False,
        swift: bool = False,
    ) -> None:
        super().__init__()
        # A worker looks at what is not plainly ready in every other claim, not in each: any
        # positive time, however short, makes it so.
        self.swift = swift
        self.clock = FakeClock()
        self.storage = open_storage(self.clock)
        self.store_class = OptimisticClaimOutboxStore if optimistic else SkipLockedClaimOutboxStore
        self.stores = [self.open_store(), self.open_store()]
        self.memories: list[dict[str, Claim]] = [{}, {}]
        self.claims: list[Claim] = []
        self.items: dict[str, Expected] = {}
        self.paused: set[str] = set()
        self.limits: dict[str, int] = {}

    def open_store(self) -> RowsOutboxStore:
        return self.store_class(
            self.storage,
            lease_seconds=LEASE_SECONDS,
            backoff=Backoff(base_seconds=0),
            control_seconds=1e-9 if self.swift else 0,
        )

    # -- the model ---------------------------------------------------------------------------

    def pick(self, number: int) -> Expected:
        return list(self.items.values())[number % len(self.items)]

    def after(self, seconds: float) -> datetime:
        return self.clock() + timedelta(seconds=seconds)

    def may_run(self, item: Expected) -> bool:
        if item.status not in WAITING or item.due_at > self.clock() or item.kind in self.paused:
            return False
        line = [other for other in self.items.values() if other.key == item.key is not None]
        return not any(
            other.status is RUNNING or (other.status in WAITING and other.id < item.id)
            for other in line
        )

    def running(self, **having: object) -> int:
        return sum(
            item.status is RUNNING and all(getattr(item, k) == v for k, v in having.items())
            for item in self.items.values()
        )

    def settle(self, claim: Claim, status: ItemStatus, delay: float | None) -> bool:
        """Do to the model what the outcome does; False if the claim is lost."""
        item = self.items.get(claim.item_id)
        again = status in WAITING
        if status is RETRY and claim.attempts >= claim.max_attempts:
            status = FAILED
        if item is None or item.token != claim.token:
            return False
        if item.status is not RUNNING:
            return (again and item.status in (*WAITING, CANCELLED)) or item.status is status
        if again and item.asked:
            status = CANCELLED
        due_at = item.due_at if delay is None else self.after(delay)
        placed_at = item.placed_at if delay is None else None
        if status in FINISHED:
            item.finish(status, self.clock())
        elif status is RETRY:
            item.wait(RETRY, due_at, placed_at)
        else:
            item.attempts -= 1
            item.wait(RETRY if item.attempts else PENDING, due_at, placed_at)
        return True

    # -- entering ----------------------------------------------------------------------------

    @initialize(new=st.lists(new_items, min_size=2, max_size=8))
    def begin(self, new: list[dict[str, Any]]) -> None:
        self.enqueue(new, commits=True, which=0)

    @rule(new=st.lists(new_items, min_size=1, max_size=4), key=concurrency_keys, which=some_store)
    def enqueue_keyed(self, new: list[dict[str, Any]], key: str | None, which: int) -> None:
        limited = {"concurrency_key": key, "concurrency_limit": key and CONCURRENCY[key]}
        self.enqueue([{**one, "ordering_key": None, **limited} for one in new], True, which)

    @rule(
        new=st.lists(new_items, min_size=1, max_size=4),
        commits=st.sampled_from([True, True, True, False]),
        which=some_store,
    )
    def enqueue(self, new: list[dict[str, Any]], commits: bool, which: int) -> None:
        store = self.stores[which]
        ids: list[str] = []
        try:
            with store.transaction() as transaction:
                ids += store.enqueue_many(
                    (NewItem(payload="text", **one) for one in new), transaction=transaction
                )
                if not commits:
                    raise ZeroDivisionError
        except ZeroDivisionError:
            assert all(item_id in self.items or store.get(item_id) is None for item_id in ids)
            return
        for one, item_id in zip(new, ids, strict=True):
            key = one["idempotency_key"]
            holders = [i.id for i in self.items.values() if key and i.idempotency_key == key]
            if holders:
                assert [item_id] == holders
                continue
            assert item_id not in self.items
            self.items[item_id] = Expected(
                item_id,
                one["kind"],
                one["ordering_key"],
                one["priority"],
                one["max_attempts"],
                self.after(one["delay"]),
                key,
                concurrency_key=one.get("concurrency_key"),
            )

    # -- working -----------------------------------------------------------------------------

    @rule(
        which=some_store, limit=st.sampled_from([1, 2, 100]), kinds=st.sampled_from([None, *KINDS])
    )
    def claim(self, which: int, limit: int, kinds: str | None) -> None:
        wanted = [kinds] if kinds else KINDS
        able = [i for i in self.items.values() if i.kind in wanted and self.may_run(i)]
        room = {kind: most - self.running(kind=kind) for kind, most in self.limits.items()}
        first = got = self.stores[which].claim_batch(WORKER, limit, kinds=kinds and [kinds])
        more = first if limit == 100 else []
        while more:  # as a worker does that has room
            more = self.stores[which].claim_batch(WORKER, limit, kinds=kinds and [kinds])
            got = got + more
        assert len(got) <= limit
        for kind, most in room.items():
            assert sum(item.kind == kind for item in got) <= max(0, most)
        ids = [item.id for item in got]
        assert len(set(ids)) == len(ids)
        assert set(ids) <= {item.id for item in able}
        if limit == 100:
            self.nothing_is_left_behind(set(ids), able, room)
        got_keyed = Counter(item.concurrency_key for item in got if item.concurrency_key)
        for key, count in got_keyed.items():
            assert count + self.running(concurrency_key=key) <= CONCURRENCY[key]
        able = [item for item in able if not item.concurrency_key and item.kind not in room]
        got_free = [item for item in first if not item.concurrency_key and item.kind not in room]
        # Kinds share a claim, each in its own order. A swift one has not looked yet at what became
        # due a moment ago.
        for kind in () if self.swift else wanted:
            plain = [item for item in able if item.key is None and item.kind == kind]
            plain.sort(key=lambda item: item.turn)
            got_plain = [i.id for i in got_free if i.ordering_key is None and i.kind == kind]
            assert got_plain == [item.id for item in plain][: len(got_plain)], "not the most urgent"
        for item in got:
            assert item.lease_token
            assert item.lease_token not in {claim.token for claim in self.claims}
            expected = self.items[item.id]
            expected.status, expected.token = RUNNING, item.lease_token
            expected.attempts += 1
            expected.lease_expires_at = self.after(LEASE_SECONDS)
            claim = Claim(item.id, item.lease_token, expected.attempts, expected.max_attempts)
            self.memories[which][item.id] = claim
        self.claims += [self.memories[which][item.id] for item in got]

    def nothing_is_left_behind(
        self, ids: set[str], able: list[Expected], room: dict[str, int]
    ) -> None:
        """What was not claimed, though there was no bound, had no room in its kind or key."""
        full_kinds = {
            kind
            for kind, most in room.items()
            if sum(self.items[item_id].kind == kind for item_id in ids) >= most
        }
        full_keys = {
            key
            for key, most in CONCURRENCY.items()
            if self.running(concurrency_key=key)
            + sum(self.items[item_id].concurrency_key == key for item_id in ids)
            >= most
        }
        for item in able:
            if item.kind not in full_kinds and item.concurrency_key not in full_keys:
                assert item.id in ids, "something due was left behind"

    @precondition(lambda self: self.claims)
    @rule(
        number=some_item,
        which=some_store,
        status=st.sampled_from([COMPLETED, COMPLETED, FAILED, RETRY, PENDING, CANCELLED]),
        delay=delays,
        commits=st.sampled_from([True, True, False]),
    )
    def finish_by_token(
        self, number: int, which: int, status: ItemStatus, delay: float, commits: bool
    ) -> None:
        """With the token of any claim ever made, through any process."""
        claim = self.claims[-1 - number % len(self.claims)]
        store, memory = self.stores[which], self.memories[which]
        outcome = Outcome(claim.item_id, status, delay, "CODE", "text", claim.token)
        if not commits:
            with pytest.raises(ZeroDivisionError), store.transaction() as transaction:
                store.acknowledge(WORKER, [outcome], transaction=transaction)
                raise ZeroDivisionError
            return
        kept = self.settle(claim, status, delay)
        assert store.acknowledge(WORKER, [outcome]) == (set() if kept else {claim.item_id})
        if memory.get(claim.item_id) == claim:
            del memory[claim.item_id]
        # Whatever came of it, the process still knows what it really holds.
        self.heartbeat(which, [number])

    @precondition(lambda self: self.claims)
    @rule(
        number=some_item,
        which=some_store,
        status=st.sampled_from([COMPLETED, FAILED, RETRY, PENDING]),
        delay=delays,
    )
    def finish_by_name(self, number: int, which: int, status: ItemStatus, delay: float) -> None:
        """With what the process remembers, which may be nothing or out of date."""
        item_id = self.claims[-1 - number % len(self.claims)].item_id
        store, claim = self.stores[which], self.memories[which].pop(item_id, None)
        kept = claim is not None and self.settle(claim, status, delay)
        try:
            if status is COMPLETED:
                store.mark_success(item_id, WORKER)
            elif status is FAILED:
                store.mark_failed(item_id, WORKER, "CODE", "text")
            elif status is RETRY:
                store.mark_retry(item_id, WORKER, delay, "CODE", "text")
            else:
                store.snooze(item_id, WORKER, delay)
        except LeaseLostError:
            assert not kept
        else:
            assert kept

    @precondition(lambda self: self.claims)
    @rule(which=some_store, numbers=st.lists(some_item, min_size=1, max_size=4))
    def heartbeat(self, which: int, numbers: list[int]) -> None:
        ids = {self.claims[-1 - number % len(self.claims)].item_id for number in numbers}
        lost = set()
        for item_id in ids:
            claim, item = self.memories[which].get(item_id), self.items.get(item_id)
            if claim and item and item.token == claim.token and item.status is RUNNING:
                item.lease_expires_at = self.after(LEASE_SECONDS)
            else:
                lost.add(item_id)
        assert self.stores[which].extend(sorted(ids), WORKER) == lost

    @rule(which=some_store)
    def stop_gracefully(self, which: int) -> None:
        """Everything that the process holds is handed back, and a new one starts."""
        memory = self.memories[which]
        kept = sum(self.settle(claim, PENDING, None) for claim in memory.values())
        assert self.stores[which].release(list(memory), WORKER) == kept
        self.crash(which)

    @rule(which=some_store)
    def crash(self, which: int) -> None:
        """The process is gone with all that it knew, and a new one starts under its name."""
        self.stores[which], self.memories[which] = self.open_store(), {}

    # -- time, and recovering ----------------------------------------------------------------

    @rule(seconds=st.sampled_from([1, 10, LEASE_SECONDS + 1, 4000]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(which=some_store)
    def reap(self, which: int) -> None:
        retried, failed, cancelled = set(), set(), set()
        for item in self.items.values():
            if item.status is RUNNING and item.lease_expires_at < self.clock():
                if item.asked:
                    item.token = None
                    item.finish(CANCELLED, self.clock())
                    cancelled.add(item.id)
                elif item.attempts >= item.max_attempts:
                    item.token = None
                    item.finish(FAILED, self.clock())
                    failed.add(item.id)
                else:
                    item.wait_anew(RETRY, self.clock(), item.placed_at)
                    retried.add(item.id)
        result = self.stores[which].reap()
        assert {item.id for item in result.retried} == retried
        assert {item.id for item in result.failed} == failed
        assert {item.id for item in result.cancelled} == cancelled

    @rule(which=some_store, heir=some_store)
    def take_over(self, which: int, heir: int) -> None:
        """All leases end, are recovered, and go to a process that may be the old one."""
        self.wait(LEASE_SECONDS + 1)
        self.reap(which)
        self.claim(heir, 100, None)

    # -- steering ----------------------------------------------------------------------------

    @precondition(lambda self: self.items)
    @rule(number=some_item, which=some_store)
    def cancel(self, number: int, which: int) -> None:
        waiting = [item for item in self.items.values() if item.status in WAITING]
        item = (
            waiting[number % min(2, len(waiting))] if waiting and number % 4 else self.pick(number)
        )
        waits, runs = item.status in WAITING, item.status is RUNNING and not item.asked
        assert self.stores[which].cancel([item.id]) == (waits or runs)
        if waits:
            item.finish(CANCELLED, self.clock())
        item.asked = item.asked or runs
        asked = {item.id: item.token for item in self.items.values() if item.asked}
        assert self.stores[1 - which].stop_requests(WORKER) == asked

    @precondition(lambda self: self.items)
    @rule(number=some_item, which=some_store, delay=delays)
    def reschedule(self, number: int, which: int, delay: float) -> None:
        item = self.pick(number)
        waits = item.status in WAITING
        assert self.stores[which].reschedule([item.id], delay=delay) == waits
        if waits:
            item.due_at = item.placed_at = self.after(delay)

    @rule(kind=st.sampled_from(KINDS), most=st.sampled_from([1, 2, None]), which=some_store)
    def limit(self, kind: str, most: int | None, which: int) -> None:
        if most is None:
            assert self.stores[which].unlimit(kind) == (self.limits.pop(kind, None) is not None)
        else:
            self.stores[which].limit(kind, concurrency=most)
            self.limits[kind] = most

    @precondition(lambda self: self.items)
    @rule(numbers=st.lists(some_item, min_size=1, max_size=3), which=some_store)
    def requeue(self, numbers: list[int], which: int) -> None:
        chosen = {item.id: item for item in map(self.pick, numbers)}
        again = [item for item in chosen.values() if item.status in (FAILED, CANCELLED)]
        assert self.stores[which].requeue(list(chosen)) == len(again)
        for item in again:
            item.attempts = 0
            item.wait_anew(PENDING, self.clock())

    @rule(kind=st.sampled_from(KINDS), which=some_store)
    def pause(self, kind: str, which: int) -> None:
        self.stores[which].pause(kind, "because")
        self.paused.add(kind)

    @rule(kind=st.sampled_from(KINDS), which=some_store)
    def resume(self, kind: str, which: int) -> None:
        self.stores[which].resume(kind)
        self.paused.discard(kind)

    @rule(which=some_store, seconds=st.sampled_from([0, 100]))
    def purge(self, which: int, seconds: float) -> None:
        limit = self.after(-seconds)
        old = [i for i in self.items.values() if i.completed_at and i.completed_at <= limit]
        assert self.stores[which].purge(older_than_seconds=seconds) == len(old)
        for item in old:
            del self.items[item.id]

    # -- what always holds -------------------------------------------------------------------

    @invariant()
    def items_are_as_expected(self) -> None:
        found = {item.id: item for item in self.stores[0].find(limit=1000)}
        assert set(found) == set(self.items)
        for item_id, item in found.items():
            expected = self.items[item_id]
            assert item.status is expected.status
            assert item.attempt_count == expected.attempts <= item.max_attempts
            if item.status in WAITING and item.lease_token is None:
                expected.token = None  # of a claim before the one that put it aside
            assert item.lease_token == expected.token
            assert item.lease_expires_at == expected.lease_expires_at
            assert item.completed_at == expected.completed_at
            if item.status is RUNNING:
                assert item.waiting_for == ("cancel" if expected.asked else None)
            else:
                assert (item.waiting_for is not None) == (item.status in WAITING)
            if item.status in WAITING:
                assert item.next_attempt_at == expected.due_at
                assert item.lease_owner is None

    @invariant()
    def a_key_has_one_runner(self) -> None:
        with self.storage.begin() as rows:
            lanes = {lane["ordering_key"]: lane["item_id"] for lane in rows.select(ORDERING_LOCK)}
        running = [(i.key, i.id) for i in self.items.values() if i.key and i.status is RUNNING]
        assert len({key for key, _ in running}) == len(running)
        assert lanes == dict(running)

    @invariant()
    def slots_are_those_of_running_items(self) -> None:
        with self.storage.begin() as rows:
            slots = [(slot["concurrency_key"], slot["item_id"]) for slot in rows.select(SLOT)]
        running = [i for i in self.items.values() if i.concurrency_key and i.status is RUNNING]
        assert sorted(slots) == sorted((i.concurrency_key, i.id) for i in running)
        for key, most in CONCURRENCY.items():
            assert self.running(concurrency_key=key) <= most

    @invariant()
    def counts_agree(self) -> None:
        stats = self.stores[1].stats()
        for status in ItemStatus:
            assert stats.total(status) == sum(i.status is status for i in self.items.values())
        assert set(stats.paused) == self.paused

    def teardown(self) -> None:
        """In the end everything that was accepted can be worked off: nothing is stranded."""
        for kind in KINDS:
            self.resume(kind, 0)
            self.limit(kind, None, 0)
        self.wait(4000)
        for _ in range(len(self.items) + 1):
            running = [item for item in self.items.values() if item.status is RUNNING]
            for item in running:
                claim = next(
                    c for c in self.claims if (c.item_id, c.token) == (item.id, item.token)
                )
                outcome = Outcome(item.id, token=claim.token)
                assert self.stores[0].acknowledge(WORKER, [outcome]) == set()
                assert self.settle(claim, COMPLETED, 0)
            self.claim(0, 100, None)
        assert all(item.status in FINISHED for item in self.items.values())


def run(open_storage: Callable[[FakeClock], Storage], number: int, **ways: bool) -> None:
    run_state_machine_as_test(
        lambda: OutboxMachine(open_storage, **ways),
        settings=settings(
            max_examples=number,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("swift", [False, True])
def test_memory(swift: bool) -> None:
    """In memory."""
    run(MemoryStorage, examples(150, 30), swift=swift)


@pytest.mark.parametrize(("optimistic", "swift"), [(False, False), (True, False), (False, True)])
def test_sqlite(
    sqlite_engine: sa.Engine,
    emptied: Callable[[sa.Engine], sa.Engine],
    optimistic: bool,
    swift: bool,
) -> None:
    """On SQLite, with all ways to claim."""
    run(
        lambda clock: SqlAlchemyStorage(emptied(sqlite_engine), clock=clock),
        examples(25, 6),
        optimistic=optimistic,
        swift=swift,
    )


@pytest.mark.parametrize("swift", [False, True])
def test_postgresql(
    postgresql_engine: sa.Engine, emptied: Callable[[sa.Engine], sa.Engine], swift: bool
) -> None:
    """On PostgreSQL."""
    run(
        lambda clock: SqlAlchemyStorage(emptied(postgresql_engine), clock=clock),
        examples(30, 6),
        swift=swift,
    )


def test_mariadb(mariadb_engine: sa.Engine, emptied: Callable[[sa.Engine], sa.Engine]) -> None:
    """On MariaDB."""
    run(lambda clock: SqlAlchemyStorage(emptied(mariadb_engine), clock=clock), examples(30, 6))
