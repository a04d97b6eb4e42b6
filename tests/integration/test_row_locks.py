"""Workers pass over rows that another transaction holds, and never decide from what it changes."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from automate_kernel.outbox import (
    ItemStatus,
    NewItem,
    OptimisticClaimOutboxStore,
    OutboxItem,
    Outcome,
    RowsOutboxStore,
    SkipLockedClaimOutboxStore,
)
from automate_kernel.storage.query import Where
from automate_kernel.storage.tables import ORDERING_LOCK, OUTBOX, SLOT
from automate_testing.clock import FakeClock
from automate_sqlalchemy import SqlAlchemyStorage

LEASE = 30.0


@pytest.fixture(params=["postgresql_engine", "mariadb_engine"])
def engine(request: pytest.FixtureRequest) -> sa.Engine:
    """A database that locks rows."""
    found: sa.Engine = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(engine: sa.Engine, clock: FakeClock) -> SkipLockedClaimOutboxStore:
    """A store whose statements fail after a second instead of waiting for a lock."""
    impatient = {"postgresql": "SET lock_timeout = '1s'", "mysql": "SET innodb_lock_wait_timeout=1"}

    @sa.event.listens_for(engine, "connect")
    def give_up_soon(connection: object, _: object) -> None:
        with connection.cursor() as cursor:  # type: ignore[attr-defined]
            cursor.execute(impatient.get(engine.dialect.name, impatient["mysql"]))
        connection.commit()  # type: ignore[attr-defined]

    engine.dispose()  # connections from before the listener
    return SkipLockedClaimOutboxStore(SqlAlchemyStorage(engine, clock=clock), lease_seconds=LEASE)


def test_a_claim_passes_over_locked_rows(store: SkipLockedClaimOutboxStore) -> None:
    """What another claims, cancels or edits this moment is left to it, and nothing waits for it."""
    ids = store.enqueue_many(NewItem("k") for _ in "123")
    with store.storage.begin() as rows:
        rows.select(OUTBOX, [Where("id", "eq", ids[0])], lock=True)
        assert [item.id for item in store.claim_batch("worker")] == ids[1:]
    assert [item.id for item in store.claim_batch("worker")] == ids[:1]


def test_a_claim_passes_over_items_that_become_due(
    store: SkipLockedClaimOutboxStore, clock: FakeClock
) -> None:
    """The same holds where a delayed item is to be made ready first."""
    ids = store.enqueue_many(NewItem("k", delay=10) for _ in "12")
    clock.advance(11)
    with store.storage.begin() as rows:
        rows.select(OUTBOX, [Where("id", "eq", ids[0])], lock=True)
        assert [item.id for item in store.claim_batch("worker")] == ids[1:]
    assert [item.id for item in store.claim_batch("worker")] == ids[:1]


@pytest.mark.parametrize("kind", [SkipLockedClaimOutboxStore, OptimisticClaimOutboxStore])
def test_leases_are_renewed_beside_a_locked_row(
    kind: type[RowsOutboxStore], store: SkipLockedClaimOutboxStore, clock: FakeClock
) -> None:
    """Who holds one item for long takes no other from its worker, however items are claimed."""
    its = kind(store.storage, lease_seconds=LEASE)
    ids = its.enqueue_many(NewItem("k") for _ in "123")
    assert len(its.claim_batch("worker")) == 3
    clock.advance(LEASE - 1)
    with store.storage.begin() as rows:
        rows.select(OUTBOX, [Where("id", "eq", ids[0])], lock=True)
        assert its.extend(ids, "worker") == set()
    clock.advance(2)
    assert [item.id for item in its.reap().retried] == ids[:1]
    assert its.extend(ids, "worker") == set(ids[:1])


def test_the_reaper_leaves_alone_what_is_being_finished(
    store: SkipLockedClaimOutboxStore, clock: FakeClock
) -> None:
    """A holder that is late and commits its success this moment keeps it; others are recovered."""
    late, dead = store.enqueue_many(NewItem("k") for _ in "12")
    assert len(store.claim_batch("worker")) == 2
    clock.advance(LEASE + 1)
    with store.transaction() as transaction:
        store.mark_success(late, "worker", transaction=transaction)
        assert [item.id for item in store.reap().retried] == [dead]
    assert len(store.reap()) == 0
    finished = store.get(late)
    assert finished is not None
    assert finished.status is ItemStatus.COMPLETED


def test_two_reapers_recover_each_item_once(
    store: SkipLockedClaimOutboxStore, clock: FakeClock
) -> None:
    """While one reaper has not committed, another finds nothing to do with the same items."""
    store.enqueue_many(NewItem("k") for _ in "12")
    assert len(store.claim_batch("worker")) == 2
    clock.advance(LEASE + 1)
    with store.storage.begin() as rows:
        rows.select(OUTBOX, [Where("lease_expires_at", "ne", None)], lock=True)
        assert len(store.reap()) == 0
    assert len(store.reap()) == 2


def test_nobody_is_put_to_wait_for_a_slot_that_is_being_left(
    store: SkipLockedClaimOutboxStore,
) -> None:
    """An item whose key is full only until another transaction commits stays ready."""
    first, second = store.enqueue_many(
        NewItem("k", concurrency_key="key", concurrency_limit=1) for _ in "12"
    )
    assert [item.id for item in store.claim_batch("worker", 1)] == [first]
    with store.transaction() as transaction:
        store.mark_success(first, "worker", transaction=transaction)
        assert store.claim_batch("worker") == []
        waiting = store.get(second)
        assert waiting is not None
        assert (waiting.waiting_for, waiting.attempt_count) == ("worker", 0)
    assert [item.id for item in store.claim_batch("worker")] == [second]


def test_nobody_is_put_to_wait_for_an_ordering_key_that_is_being_left(
    store: SkipLockedClaimOutboxStore,
) -> None:
    """An item whose key is taken only until another transaction commits stays ready."""
    first = store.enqueue("k", ordering_key="key")
    assert [item.id for item in store.claim_batch("worker")] == [first]
    with store.transaction() as transaction:
        store.mark_success(first, "worker", transaction=transaction)
        second = store.enqueue("k", ordering_key="key")
        assert store.claim_batch("worker") == []
        waiting = store.get(second)
        assert waiting is not None
        assert (waiting.waiting_for, waiting.attempt_count) == ("worker", 0)
    assert [item.id for item in store.claim_batch("worker")] == [second]


def test_an_item_that_comes_as_its_key_is_being_left_is_woken(
    store: SkipLockedClaimOutboxStore, engine: sa.Engine
) -> None:
    """Whoever leaves the key has looked for it already, and deletes the key's row only then."""
    first = store.enqueue("k", ordering_key="key")
    assert [item.id for item in store.claim_batch("worker")] == [first]
    come = list[str]()

    @sa.event.listens_for(engine, "before_cursor_execute")
    def look(_: object, __: object, statement: str, *___: object) -> None:
        if not come and statement.startswith("DELETE") and ORDERING_LOCK in statement:
            come.append("soon")
            come[:] = [store.enqueue("k", ordering_key="key")]
            assert store.claim_batch("another") == []

    store.mark_success(first, "worker")
    assert [item.id for item in store.claim_batch("worker")] == come


def test_an_item_behind_one_that_is_being_cancelled_is_woken(
    store: SkipLockedClaimOutboxStore,
) -> None:
    """Whoever cancels the first has looked for the next one already."""
    first = store.enqueue("k", ordering_key="key", delay=60)
    with store.storage.begin() as rows:
        assert store.cancel_within(rows, [first]) == 1
        second = store.enqueue("k", ordering_key="key")
        assert store.claim_batch("worker") == []
    assert [item.id for item in store.claim_batch("worker")] == [second]


def test_two_who_cancel_items_of_one_line_do_not_wait_for_each_other(
    store: SkipLockedClaimOutboxStore,
) -> None:
    """What has not come to its turn yet leaves nothing to wake."""
    first, second, third = store.enqueue_many(NewItem("k", ordering_key="key") for _ in "123")
    assert [item.id for item in store.claim_batch("worker")] == [first]
    with store.storage.begin() as rows:
        rows.select(OUTBOX, [Where("id", "eq", second)], lock=True)
        assert store.cancel([third]) == 1
    store.mark_success(first, "worker")
    assert [item.id for item in store.claim_batch("worker")] == [second]


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize(
    ("table", "keys"),
    [
        (ORDERING_LOCK, {"ordering_key": "key"}),
        (SLOT, {"concurrency_key": "key", "concurrency_limit": 1}),
    ],
)
def test_a_claim_that_froze_stops_no_recovery(
    store: SkipLockedClaimOutboxStore, clock: FakeClock, table: str, keys: Any, *, kept: bool
) -> None:
    """What it has locked is freed once it is over; the items of other keys are recovered before."""
    first, second = store.enqueue_many(NewItem("k", **keys) for _ in "12")
    plain = store.enqueue("k")
    assert {item.id for item in store.claim_batch("dead")} == {first, plain}
    clock.advance(LEASE + 1)
    with store.storage.begin() as frozen:
        frozen.select(table, lock=True)
        assert len(store.reap()) == 2
        if kept:
            assert len(store.reap()) == 0
    store.reap()
    clock.advance(3600)
    assert store.cancel([first, plain]) == 2
    assert [item.id for item in store.claim_batch("worker")] == [second]


@pytest.mark.parametrize(
    ("table", "keys"),
    [
        (ORDERING_LOCK, {"ordering_key": "key"}),
        (SLOT, {"concurrency_key": "key", "concurrency_limit": 1}),
    ],
)
def test_an_outcome_that_is_repeated_frees_no_key_of_a_later_claim(
    store: SkipLockedClaimOutboxStore, engine: sa.Engine, table: str, keys: Any
) -> None:
    """Its reply was lost; the item is claimed anew just after that was looked at."""
    store.enqueue_many(NewItem("k", **keys) for _ in "12")
    (item,) = store.claim_batch("worker", 1)
    again = Outcome(item.id, ItemStatus.RETRY, token=item.lease_token)
    assert store.acknowledge("worker", [again]) == set()
    claimed = list[OutboxItem]()

    @sa.event.listens_for(engine, "before_cursor_execute")
    def look(_: object, __: object, statement: str, *___: object) -> None:
        if not claimed and statement.startswith("SELECT") and table in statement:
            claimed.append(item)
            claimed[:] = store.claim_batch("another")

    assert store.acknowledge("worker", [again]) == set()
    assert len(claimed) == 1
    assert store.claim_batch("worker") == []


@pytest.mark.parametrize(
    ("table", "keys"),
    [
        (ORDERING_LOCK, {"ordering_key": "key"}),
        (SLOT, {"concurrency_key": "key", "concurrency_limit": 1}),
    ],
)
def test_two_claims_at_once_put_items_of_one_key_to_wait(
    postgresql_engine: sa.Engine, table: str, keys: Any
) -> None:
    """Neither leaves its own in the way of what comes after them."""
    store = SkipLockedClaimOutboxStore(SqlAlchemyStorage(postgresql_engine))
    first, *_ = store.enqueue_many(NewItem("k", **keys) for _ in "123")
    plain = store.enqueue("k")
    assert [item.id for item in store.claim_batch("worker", 1)] == [first]
    locked, beside = list[str](), list[list[str]]()

    @sa.event.listens_for(postgresql_engine, "before_cursor_execute")
    def look(_: object, __: object, statement: str, *___: object) -> None:
        if statement.startswith("SELECT") and table in statement and "SKIP LOCKED" in statement:
            locked.append(statement)
        elif locked and not beside and statement.startswith("UPDATE"):
            beside.append([])
            beside[0] += [item.id for item in store.claim_batch("another", 1)]

    assert store.claim_batch("worker", 1) == []
    assert beside == [[plain]]
