"""Deleting what is finished, claiming what waits and renewing leases never wait for each other."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from automate_kernel.base import runtime
from automate_kernel.outbox import NewItem, Outcome, SkipLockedClaimOutboxStore
from automate_sqlalchemy import SqlAlchemyStorage

PATIENCE_SECONDS = 60.0
# A statement that waits for a row this long fails: far longer than it takes to get any lock.
LOCK_TIMEOUT = "-c lock_timeout=250ms"


@pytest.fixture
def impatient(postgresql_engine: sa.Engine) -> Iterator[sa.Engine]:
    """An engine on the same database whose statements fail where they have to wait for a lock."""
    engine = sa.create_engine(postgresql_engine.url, connect_args={"options": LOCK_TIMEOUT})
    yield engine
    engine.dispose()


def store_on(engine: sa.Engine) -> SkipLockedClaimOutboxStore:
    return SkipLockedClaimOutboxStore(SqlAlchemyStorage(engine))


def finished(store: SkipLockedClaimOutboxStore, count: int) -> None:
    """So many items that are COMPLETED, beside what waits."""
    store.enqueue_many(NewItem("done") for _ in range(count))
    while items := store.claim_batch("worker", 1000, kinds=["done"]):
        store.acknowledge("worker", [Outcome(item.id) for item in items])


def test_a_claim_does_not_wait_for_a_purge(
    postgresql_engine: sa.Engine, impatient: sa.Engine
) -> None:
    """While a purge has deleted and not committed, items are claimed, finished and enqueued."""
    purging = sa.create_engine(postgresql_engine.url)
    finished(store_on(postgresql_engine), 300)
    ids = store_on(postgresql_engine).enqueue_many(NewItem("k") for _ in range(20))
    worked: list[list[str]] = []

    @sa.event.listens_for(purging, "commit")
    def work_meanwhile(_: Any) -> None:
        if worked:
            return
        store = store_on(impatient)
        worked.append([item.id for item in store.claim_batch("worker", 15)])
        assert store.acknowledge("worker", [Outcome(i) for i in worked[0][:5]]) == set()
        assert store.extend(worked[0][5:], "worker") == set()
        store.enqueue("k")
        store.reap()

    assert store_on(purging).purge(older_than_seconds=0, limit=200) == 200
    assert worked == [ids[:15]]
    purging.dispose()


def test_a_purge_does_not_wait_for_a_claim(
    postgresql_engine: sa.Engine, impatient: sa.Engine
) -> None:
    """What others hold is passed over, and deleted the next time round."""
    store = store_on(postgresql_engine)
    finished(store, 50)
    held = store.find(status="COMPLETED", limit=3)
    with postgresql_engine.begin() as connection:
        # As by whoever finishes, cancels or requeues them, and has not committed.
        connection.execute(
            sa.text("SELECT id FROM automate_outbox WHERE id = ANY(:ids) FOR UPDATE"),
            {"ids": [item.id for item in held]},
        )
        assert store_on(impatient).purge(older_than_seconds=0) == 47
    assert {item.id for item in store.find()} == {item.id for item in held}
    assert store_on(impatient).purge(older_than_seconds=0) == 3


def test_claiming_goes_on_while_thousands_are_purged(
    postgresql_engine: sa.Engine, impatient: sa.Engine
) -> None:
    """A claimer and a sweeper at work at once: each item is claimed once, none is deleted early."""
    finished(store_on(postgresql_engine), 6000)
    ids = store_on(postgresql_engine).enqueue_many(NewItem("k", n) for n in range(2000))
    claimed: list[str] = []
    failures: list[BaseException] = []
    begun, met = threading.Event(), threading.Event()

    def claim() -> None:
        store = store_on(impatient)
        try:
            while items := store.claim_batch("worker", 50):
                claimed.extend(item.id for item in items)
                assert store.acknowledge("worker", [Outcome(item.id) for item in items]) == set()
                begun.set()
                if len(claimed) > len(ids) / 2:
                    met.wait(PATIENCE_SECONDS)  # not all before the other one's turn
        except BaseException as error:
            failures.append(error)
        finally:
            begun.set()

    claimer = threading.Thread(target=claim)
    claimer.start()
    assert begun.wait(PATIENCE_SECONDS)
    sweeper, swept, beside = store_on(impatient), 0, 0
    while len(claimed) < len(ids) and not failures:
        swept += (deleted := sweeper.purge(older_than_seconds=0, limit=100))
        beside += deleted > 0
        if beside > 1:
            met.set()
    claimer.join(PATIENCE_SECONDS)
    assert failures == []
    assert sorted(claimed) == sorted(ids)
    assert beside > 1, "they were at work at the same time"
    while deleted := sweeper.purge(older_than_seconds=0):
        swept += deleted
    assert swept == 6000 + len(ids)


@pytest.mark.parametrize("engine_name", ["postgresql_engine", "mariadb_engine"])
@pytest.mark.parametrize("limit", [7, 1000])
def test_what_is_held_for_a_moment_is_no_end_of_a_purge(
    engine_name: str, limit: int, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MariaDB's claims read whole indexes, and hold all that is finished while they do."""
    engine: sa.Engine = request.getfixturevalue(engine_name)
    store, pauses = store_on(engine), list[float]()
    finished(store, 20)
    with engine.connect() as connection:

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 8:  # of the second purge
                connection.rollback()

        monkeypatch.setattr(runtime, "sleep", pause)
        connection.execute(sa.text("SELECT id FROM automate_outbox FOR UPDATE"))
        assert store.purge(older_than_seconds=0, limit=limit) == 0
        assert 0 < len(pauses) < 8
        purged = []
        while gone := store.purge(older_than_seconds=0, limit=limit):
            purged.append(gone)
    assert sum(purged) == 20


def test_a_renewal_does_not_wait_for_an_item_that_is_locked(
    postgresql_engine: sa.Engine, impatient: sa.Engine
) -> None:
    """A transaction that stands still on an item lets no other lease of that worker run out."""
    store = store_on(impatient)
    locked, *others = store.enqueue_many(NewItem("k") for _ in range(3))
    held = {item.id: item.lease_expires_at for item in store.claim_batch("worker")}
    lock = sa.text("SELECT id FROM automate_outbox WHERE id = :id FOR UPDATE")
    with postgresql_engine.begin() as standing:
        standing.execute(lock, {"id": locked})
        assert store.extend(list(held), "worker") == set()
        renewed = {item.id for item in store.running() if item.lease_expires_at != held[item.id]}
        assert renewed == set(others)
        # As if all leases were over: nobody reaps what is locked.
        assert {item.id for item in store.reap(grace_seconds=-3600.0).retried} == set(others)
    assert store.extend([locked], "worker") == set()
