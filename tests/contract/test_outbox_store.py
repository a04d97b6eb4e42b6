"""
Every outbox store keeps the promises of the contract.

A framework's own: subclass `OutboxStoreContract`, give the fixture ``store`` and a second store on
the same data. In Django, say::

    @pytest.mark.django_db(transaction=True)
    class TestDjangoOutbox(OutboxStoreContract):
        @pytest.fixture
        def store(self, clock):
            return self.open(clock)

        def open(self, clock):
            self.clock_in_use = clock
            storage = DjangoStorage(clock=clock)
            return SkipLockedClaimOutboxStore(storage, lease_seconds=30)

        def another(self, store):
            return self.open(self.clock_in_use)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from automate_kernel.base.errors import PayloadError
from automate_kernel.outbox import (
    ItemStatus,
    NewItem,
    Outcome,
    OptimisticClaimOutboxStore,
    RowsOutboxStore,
    SkipLockedClaimOutboxStore,
)
from automate_kernel.storage import MemoryStorage, Storage
from automate_kernel.storage.query import Now, Where
from automate_kernel.storage.tables import ORDERING_LOCK, OUTBOX, SLOT, Table
from automate_testing.clock import FakeClock
from automate_testing.contracts.outbox import OutboxControlsContract, OutboxStoreContract
from automate_testing.contracts.outbox.hooks import StoreHooks
from suites.outbox import ClaimsContract, ClockContract, ConnectionContract
from automate_sqlalchemy import SqlAlchemyStorage
from sqlalchemy.orm import Session

LEASE_SECONDS = 30.0


class RowsStore(StoreHooks):
    """A store over `Rows`, and how a second one is opened."""

    supports_controls = True
    store_class: type[RowsOutboxStore] = SkipLockedClaimOutboxStore

    def open(self, storage: Storage) -> RowsOutboxStore:
        return self.store_class(storage, lease_seconds=LEASE_SECONDS)

    def another(self, store: RowsOutboxStore) -> RowsOutboxStore:
        return self.open(store.storage)


class RowsContract(RowsStore, OutboxStoreContract, OutboxControlsContract):
    """The whole contract, and what is known of `Rows` alone."""

    def test_a_retry_of_what_was_put_back_elsewhere_is_no_lost_lease(
        self, store: RowsOutboxStore
    ) -> None:
        """It waits again, as was asked, though this store takes its attempts for spent."""
        store.enqueue("k", max_attempts=1)
        (item,) = store.claim_batch("worker")
        back = Outcome(item.id, ItemStatus.PENDING, token=item.lease_token)
        assert self.another(store).acknowledge("worker", [back]) == set()
        late = Outcome(item.id, ItemStatus.RETRY, 0.0, "UNAVAILABLE", "down", item.lease_token)
        assert store.acknowledge("worker", [late]) == set()
        found = store.get(item.id)
        assert found is not None and found.status is ItemStatus.PENDING

    # What no call of the store does, but a restored backup or somebody's own SQL may.

    def finish_behind_its_back(self, store: RowsOutboxStore, item_id: str, *tables: Table) -> None:
        """End an item as if somebody had updated its row, and deleted its rows in *tables*."""
        its = [Where("id", "eq", item_id)]
        with store.storage.begin() as rows:
            ended = {"status": "COMPLETED", "lease_expires_at": None, "completed_at": Now()}
            rows.update(OUTBOX, its, ended)
            for table in tables:
                rows.delete(table, [Where("item_id", "eq", item_id)])

    @pytest.mark.parametrize("left_behind", [True, False])
    def test_a_stuck_ordering_key_is_mended(
        self, store: RowsOutboxStore, left_behind: bool
    ) -> None:
        """Recovery lets the next item of a key run that nobody would wake or that nobody holds."""
        first, second, third = store.enqueue_many(NewItem("k", ordering_key="key") for _ in "123")
        busy, waiting = store.enqueue_many(NewItem("k", ordering_key="busy") for _ in "12")
        assert self.claim_ids(store) == [first, busy]
        assert self.claim_ids(store) == []
        self.finish_behind_its_back(store, first, *(() if left_behind else (ORDERING_LOCK,)))
        assert self.claim_ids(store) == []
        store.reap()
        assert self.claim_ids(store) == [second]
        assert self.statuses(store, [third, waiting]) == [ItemStatus.PENDING] * 2

    @pytest.mark.parametrize("left_behind", [True, False])
    def test_a_stuck_concurrency_key_is_mended(
        self, store: RowsOutboxStore, left_behind: bool
    ) -> None:
        """Recovery frees what nobody holds, and wakes those that nobody would wake."""
        its = {"concurrency_key": "key", "concurrency_limit": 2}
        first, second, third, fourth = store.enqueue_many(NewItem("k", **its) for _ in "1234")
        assert self.claim_ids(store) == [first, second]
        assert self.claim_ids(store) == []
        self.finish_behind_its_back(store, first, *(() if left_behind else (SLOT,)))
        assert self.claim_ids(store) == []
        store.reap()
        assert self.claim_ids(store) == [third]
        assert self.claim_ids(store) == []
        store.mark_success(second, "worker")
        assert self.claim_ids(store) == [fourth]


class OnSqlAlchemy(RowsStore):
    """The host's transaction is a ``Session``."""

    @contextmanager
    def transaction(self, store: RowsOutboxStore) -> Iterator[Session]:
        assert isinstance(store.storage, SqlAlchemyStorage)
        with Session(store.storage.engine) as session, session.begin():
            yield session


class OnSqlite(OnSqlAlchemy):
    @pytest.fixture
    def store(self, sqlite_engine: sa.Engine, clock: FakeClock) -> RowsOutboxStore:
        return self.open(SqlAlchemyStorage(sqlite_engine, clock=clock))


class OnPostgresql(OnSqlAlchemy):
    @pytest.fixture
    def store(self, postgresql_engine: sa.Engine, clock: FakeClock) -> RowsOutboxStore:
        return self.open(SqlAlchemyStorage(postgresql_engine, clock=clock))


class OnMariadb(OnSqlAlchemy):
    # InnoDB takes two that insert a key which was just deleted for a deadlock.
    supports_waiting_for_slots = False

    @pytest.fixture
    def store(self, mariadb_engine: sa.Engine, clock: FakeClock) -> RowsOutboxStore:
        return self.open(SqlAlchemyStorage(mariadb_engine, clock=clock))


class TestMemory(RowsContract):
    @pytest.fixture
    def store(self, clock: FakeClock) -> RowsOutboxStore:
        return self.open(MemoryStorage(clock))


class TestSqlite(OnSqlite, RowsContract):
    pass


class TestPostgresql(OnPostgresql, RowsContract):
    pass


class TestMariadb(OnMariadb, RowsContract):
    pass


class TestSqliteOptimistic(OnSqlite, ClaimsContract):
    store_class = OptimisticClaimOutboxStore


class TestPostgresqlOptimistic(OnPostgresql, ClaimsContract):
    supports_waiting = False
    store_class = OptimisticClaimOutboxStore


class TestMariadbOptimistic(OnMariadb, ClaimsContract):
    supports_waiting = False
    store_class = OptimisticClaimOutboxStore


class TestPostgresqlBehindPooler(OnSqlAlchemy, ConnectionContract):
    """Each transaction may have another connection, and there are few of them."""

    @pytest.fixture
    def store(self, pooled_engine: sa.Engine, clock: FakeClock) -> RowsOutboxStore:
        return self.open(SqlAlchemyStorage(pooled_engine, clock=clock, listen=False))


class TestPostgresqlByItsOwnClock(OnSqlAlchemy, ClockContract):
    supports_clock = False

    @pytest.fixture
    def store(self, postgresql_engine: sa.Engine) -> RowsOutboxStore:
        return self.open(SqlAlchemyStorage(postgresql_engine))


class TestMariadbByItsOwnClock(OnSqlAlchemy, ClockContract):
    supports_clock = False
    supports_waiting_for_slots = False

    @pytest.fixture
    def store(self, mariadb_engine: sa.Engine) -> RowsOutboxStore:
        return self.open(SqlAlchemyStorage(mariadb_engine))


class AsyncEnqueueing:
    """Enqueueing in the transaction of an ``AsyncSession`` or ``AsyncConnection``."""

    @pytest.fixture
    def engine(self) -> sa.Engine:
        raise NotImplementedError

    def async_url(self, engine: sa.Engine) -> sa.URL:
        raise NotImplementedError

    def store(self, engine: sa.Engine) -> RowsOutboxStore:
        return SkipLockedClaimOutboxStore(SqlAlchemyStorage(engine))

    @asynccontextmanager
    async def transaction(self, engine: sa.Engine, kind: str) -> AsyncIterator[Any]:
        from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

        host = create_async_engine(self.async_url(engine))
        try:
            if kind == "session":
                async with AsyncSession(host) as session, session.begin():
                    yield session
            else:
                async with host.begin() as connection:
                    yield connection
        finally:
            await host.dispose()

    @pytest.mark.parametrize("kind", ["session", "connection"])
    def test_commit(self, engine: sa.Engine, kind: str) -> None:
        """The items are there after the asynchronous transaction's commit."""
        store = self.store(engine)

        async def host() -> list[str]:
            async with self.transaction(engine, kind) as transaction:
                one = await store.aenqueue("k", {"n": 1}, transaction=transaction, priority=1)
                new = [NewItem("k", {"n": 2}), NewItem("k", {"n": 3})]
                return [one, *await store.aenqueue_many(new, transaction=transaction)]

        ids = asyncio.run(host())
        assert [item.id for item in store.claim_batch("worker")] == ids

    @pytest.mark.parametrize("count", [2, 120])
    def test_many_at_once(self, engine: sa.Engine, count: int) -> None:
        """Few and many items go in, whatever way the driver has for them."""
        store = self.store(engine)
        new = [NewItem("k", {"n": n}, delay=n % 2, tenant_id=f"t{n % 3}") for n in range(count)]

        async def host() -> list[str]:
            async with self.transaction(engine, "session") as transaction:
                return await store.aenqueue_many(new, transaction=transaction)

        ids = asyncio.run(host())
        found = {item.id: item.payload for item in store.find(limit=count)}
        assert [found[item_id] for item_id in ids] == [item.payload for item in new]

    def test_a_scoped_session_is_the_callers(self, engine: sa.Engine) -> None:
        """In a thread of ours it was another session, which nobody commits: the event was lost."""
        from sqlalchemy.ext.asyncio import (
            async_scoped_session,
            async_sessionmaker,
            create_async_engine,
        )
        from sqlalchemy.orm import scoped_session, sessionmaker

        store = self.store(engine)

        async def host() -> list[str]:
            host = create_async_engine(self.async_url(engine))
            plain: Any = scoped_session(sessionmaker(engine))
            scoped: Any = async_scoped_session(async_sessionmaker(host), asyncio.current_task)
            first = await store.aenqueue("k", transaction=plain)
            plain.commit()
            plain.remove()
            second = await store.aenqueue("k", transaction=scoped)
            await scoped.commit()
            await scoped.remove()
            await host.dispose()
            return [first, second]

        ids = asyncio.run(host())
        assert {item.id for item in store.find()} == set(ids)

    def test_through_the_session_inside(self, engine: sa.Engine) -> None:
        """Plain code that `run_sync` calls, or that has ``sync_session``, enqueues as ever."""
        store = self.store(engine)

        async def host() -> list[str]:
            async with self.transaction(engine, "session") as session:
                first = await session.run_sync(lambda sync: store.enqueue("k", transaction=sync))
                inside = session.sync_session
                second = await session.run_sync(
                    lambda _: store.enqueue("k", transaction=inside, idempotency_key="key")
                )
                return [first, second]

        ids = asyncio.run(host())
        assert [item.id for item in store.claim_batch("worker")] == ids

    @pytest.mark.parametrize("kind", ["session", "connection"])
    def test_rollback(self, engine: sa.Engine, kind: str) -> None:
        """A duplicate and a refusal leave the transaction usable, and its rollback leaves nothing."""
        store = self.store(engine)
        first = store.enqueue("k", "first", idempotency_key="key")

        async def host() -> None:
            async with self.transaction(engine, kind) as transaction:
                await store.aenqueue("k", 1, transaction=transaction)
                again = await store.aenqueue("k", transaction=transaction, idempotency_key="key")
                assert again == first
                with pytest.raises(PayloadError):
                    await store.aenqueue("k", float("nan"), transaction=transaction)
                await store.aenqueue("k", 2, transaction=transaction)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            asyncio.run(host())
        assert [item.id for item in store.find()] == [first]


class TestAsyncSqlite(AsyncEnqueueing):
    @pytest.fixture
    def engine(self, sqlite_engine: sa.Engine) -> sa.Engine:
        return sqlite_engine

    def async_url(self, engine: sa.Engine) -> sa.URL:
        return engine.url.set(drivername="sqlite+aiosqlite")


class TestAsyncPostgresql(AsyncEnqueueing):
    @pytest.fixture
    def engine(self, postgresql_engine: sa.Engine) -> sa.Engine:
        return postgresql_engine

    def async_url(self, engine: sa.Engine) -> sa.URL:
        return engine.url  # the same driver does both


class TestAsyncpg(TestAsyncPostgresql):
    def async_url(self, engine: sa.Engine) -> sa.URL:
        return engine.url.set(drivername="postgresql+asyncpg")


def test_engine_stores_are_the_same_stores(tmp_path: Path) -> None:
    """The stores that take an engine are the kernel's, with its options."""
    import automate_sqlalchemy

    engine = sa.create_engine(f"sqlite:///{tmp_path / 'automate.sqlite3'}")
    automate_sqlalchemy.metadata.create_all(engine)
    store = automate_sqlalchemy.SkipLockedClaimOutboxStore(engine, lease_seconds=7)
    assert isinstance(store, SkipLockedClaimOutboxStore)
    item_id = store.enqueue("k")
    other = automate_sqlalchemy.OptimisticClaimOutboxStore(engine)
    assert isinstance(other, OptimisticClaimOutboxStore)
    assert [item.id for item in other.claim_batch("worker")] == [item_id]
    assert automate_sqlalchemy.OutboxReaper(engine).reap_stale_items() == 0
    engine.dispose()
