"""A hundred thousand waiting items delay nobody else's: told by the order of claims, not by time."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from automate_kernel.outbox import NewItem, RowsOutboxStore, SkipLockedClaimOutboxStore
from automate_sqlalchemy import SqlAlchemyStorage

FLOOD = 100_000
BATCH = 100
Open = Callable[[], RowsOutboxStore]


@pytest.fixture(scope="module")
def postgresql_flood(postgresql_url: str) -> sa.Engine:
    return _flooded(sa.create_engine(postgresql_url))


@pytest.fixture(scope="module")
def sqlite_flood(tmp_path_factory: pytest.TempPathFactory) -> sa.Engine:
    file = tmp_path_factory.mktemp("flood") / "automate.sqlite3"
    return _flooded(sa.create_engine(f"sqlite:///{file}"))


def _flooded(engine: sa.Engine) -> sa.Engine:
    """A database with a backlog of one kind, most of it one tenant's, there before all else."""
    store = SkipLockedClaimOutboxStore(SqlAlchemyStorage(engine))
    store.storage.create_tables()
    store.enqueue_many(NewItem("flood", n, tenant_id="big") for n in range(FLOOD // 2))
    store.enqueue_many(NewItem("flood", n) for n in range(FLOOD // 2))
    return engine


@pytest.fixture(params=["postgresql", "sqlite"])
def open_store(request: pytest.FixtureRequest) -> Open:
    """A function that opens another store on the database with the backlog."""
    engine = request.getfixturevalue(f"{request.param}_flood")
    return lambda: SkipLockedClaimOutboxStore(SqlAlchemyStorage(engine))


@pytest.mark.parametrize("kinds", [None, ["flood", "late", "urgent"]], ids=["all", "some"])
def test_a_flood_delays_no_other_kind_by_more_than_a_batch(
    open_store: Open, kinds: list[str] | None
) -> None:
    """An item of another kind is in the very next claim, and so is each of a few."""
    stores = [open_store(), open_store()]
    assert stores[0].stats().counts["flood"]["PENDING"] > FLOOD * 0.9
    for store in stores:
        assert len(store.claim_batch("worker", BATCH, kinds=kinds)) == BATCH
    for kind, count, store in (("late", 1, stores[0]), ("urgent", 10, stores[1])):
        ids = store.enqueue_many(NewItem(kind) for _ in range(count))
        claimed = store.claim_batch("worker", BATCH, kinds=kinds)
        assert len(claimed) == BATCH, "the others get what is left"
        assert {item.id for item in claimed if item.kind == kind} == set(ids)


def test_with_one_free_slot_kinds_take_turns(open_store: Open) -> None:
    """Where each claim is of one item, an item of another kind is among the next three."""
    store = open_store()
    for _ in range(5):
        store.claim_batch("worker", 1)
    late = store.enqueue("late")
    # Three that wait have a turn each: the flood's tenant, the flood's items of none, and this.
    assert late in [item.id for _ in range(3) for item in store.claim_batch("worker", 1)]


def test_a_flood_of_one_tenant_delays_no_other(open_store: Open) -> None:
    """Within the kind too, an item of another tenant is in the very next claim."""
    store = open_store()
    store.claim_batch("worker", BATCH)
    small = store.enqueue("flood", tenant_id="small")
    claimed = store.claim_batch("worker", BATCH)
    assert small in [item.id for item in claimed]
    shares = Counter(item.tenant_id for item in claimed)
    assert abs(shares["big"] - shares[None]) <= 2, "and those with a backlog share the rest"


def test_a_limited_flood_delays_nobody(open_store: Open) -> None:
    """Behind a limit it stands in nobody's way, and its own tenants take turns at the places."""
    store = open_store()
    store.limit("flood", rate=1, per_seconds=3600, burst=6)
    try:
        assert len(store.claim_batch("worker", 3, kinds=["flood"])) == 3
        small = store.enqueue("flood", tenant_id="small")
        late = store.enqueue_many(NewItem("late") for _ in range(BATCH))
        claimed = store.claim_batch("worker", BATCH)
        starts = [item for item in claimed if item.kind == "flood"]
        assert len(starts) == 3
        assert small in [item.id for item in starts]
        claimed += store.claim_batch("worker", BATCH)
        assert {item.id for item in claimed if item.kind == "late"} == set(late)
    finally:
        store.unlimit("flood")


def test_a_paused_flood_delays_nobody(open_store: Open) -> None:
    """What waits for its kind's resumption is put out of the way a share at a time."""
    store = open_store()
    store.pause("flood")
    late = store.enqueue_many(NewItem("late") for _ in range(BATCH // 2))
    assert {item.id for item in store.claim_batch("worker", BATCH)} == set(late)
    store.resume("flood")
    assert {item.kind for item in store.claim_batch("worker", BATCH)} == {"flood"}


def test_threads_share_what_a_store_remembers(postgresql_flood: sa.Engine) -> None:
    """Claims of several threads succeed while each changes which lanes are backlogged."""
    store = SkipLockedClaimOutboxStore(SqlAlchemyStorage(postgresql_flood))
    store.enqueue_many(NewItem("laned", lane=f"lane {n % 300}") for n in range(2000))
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            claims = pool.map(lambda _: store.claim_batch("worker", 8, kinds=["laned"]), range(240))
            claimed = [item.id for items in claims for item in items]
    finally:
        sys.setswitchinterval(before)
    assert len(claimed) == len(set(claimed)) > 1000
