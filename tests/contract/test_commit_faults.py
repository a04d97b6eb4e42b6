"""A COMMIT that fails leaves nothing behind, on every adapter and database."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from automate_kernel import Kernel
from automate_kernel.base.errors import ErrorCodes, StorageError
from automate_testing.clock import FakeClock
from automate_sqlalchemy import SqlAlchemyStorage
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from suites.commit_faults import CommitFaultContract, CommitFaults


def _watch_commits(engine: sa.Engine, faults: CommitFaults) -> None:
    dialect: Any = engine.dialect
    commit, error = dialect.do_commit, dialect.loaded_dbapi.OperationalError
    dialect.do_commit = lambda connection: faults.around(lambda: commit(connection), error)


class SqlAlchemyCommitFaults(CommitFaultContract):
    fixture = ""

    @pytest.fixture
    def engine(self, request: pytest.FixtureRequest) -> Iterator[sa.Engine]:
        """An engine of its own: others go on with commits that do not fail."""
        given: sa.Engine = request.getfixturevalue(self.fixture)
        engine = sa.create_engine(given.url)
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE booked (word VARCHAR(50))")
        yield engine
        engine.dispose()
        with given.begin() as connection:
            connection.exec_driver_sql("DROP TABLE booked")

    @pytest.fixture
    def storage(
        self, engine: sa.Engine, clock: FakeClock, faults: CommitFaults
    ) -> SqlAlchemyStorage:
        _watch_commits(engine, faults)
        return SqlAlchemyStorage(engine, clock=clock)

    def outside(self, storage: Any, *statements: str) -> list[Any]:
        engine = sa.create_engine(storage.engine.url)
        try:
            with engine.begin() as connection:
                for statement in filter(None, statements):
                    result = connection.exec_driver_sql(statement)
                return list(result.fetchall()) if result.returns_rows else []
        finally:
            engine.dispose()

    @contextmanager
    def host_transaction(self, storage: Any) -> Iterator[Session]:
        with Session(storage.engine) as session, session.begin():
            yield session

    def write(self, transaction: Any, word: str) -> None:
        text = sa.text("INSERT INTO booked VALUES (:word)")
        transaction.execute(text, {"word": word})

    @pytest.mark.parametrize("way", [Session, sa.Connection])
    def test_an_application_that_commits_as_it_goes(
        self, kernel: Kernel, storage: Any, faults: CommitFaults, way: type[Any]
    ) -> None:
        """Its own row and the event are gone, though it has not yet closed what it has open."""
        with way(storage.engine) as transaction:
            self.write(transaction, "row")
            kernel.emit("booked", transaction=transaction)
            faults.arm("before")
            with pytest.raises(sa.exc.OperationalError):
                transaction.commit()
            assert self.kinds(storage) == []
        self.use_pool(storage)
        assert self.kinds(storage) == self.outside(storage, "SELECT word FROM booked") == []


class SqliteCommitFaults(SqlAlchemyCommitFaults):
    fixture = "sqlite_engine"
    patience_statement = "PRAGMA busy_timeout = 1000"
    journal = ""

    @pytest.fixture
    def engine(self, sqlite_engine: sa.Engine) -> Iterator[sa.Engine]:
        with sqlite_engine.connect() as connection:
            connection.exec_driver_sql(f"PRAGMA journal_mode = {self.journal}")
        engine = sa.create_engine(sqlite_engine.url, connect_args={"timeout": 1})
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE booked (word VARCHAR(50))")
        yield engine
        engine.dispose()


class TestSqliteInItsDefaultMode(SqliteCommitFaults):
    journal = "delete"

    def test_a_reader_that_keeps_a_commit_out(self, kernel: Kernel, storage: Any) -> None:
        """The event that was refused is not committed by what comes next, and locks nobody out."""
        reader = sqlite3.connect(storage.engine.url.database, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM automate_outbox").fetchall()
        with pytest.raises(StorageError, match="locked") as caught:
            kernel.emit("refused")
        assert caught.value.code is ErrorCodes.UNAVAILABLE
        reader.execute("COMMIT")
        assert self.kinds(storage) == []
        kernel.emit("accepted")
        reader.close()
        (payload,) = self.outside(storage, "SELECT payload FROM automate_outbox")
        assert "accepted" in payload[0]


class TestSqliteInWalMode(SqliteCommitFaults):
    journal = "wal"


class TestPostgresql(SqlAlchemyCommitFaults):
    fixture = "postgresql_engine"
    patience_statement = "SET lock_timeout = '1s'"

    @pytest.fixture
    def storage(
        self,
        engine: sa.Engine,
        clock: FakeClock,
        faults: CommitFaults,
        monkeypatch: pytest.MonkeyPatch,
    ) -> SqlAlchemyStorage:
        _watch_commits(engine, faults)
        execute = psycopg.Connection.execute

        def watched(connection: Any, *arguments: Any, **options: Any) -> Any:
            if not connection.autocommit:
                return execute(connection, *arguments, **options)
            run = lambda: execute(connection, *arguments, **options)  # noqa: E731
            return faults.around(run, psycopg.OperationalError)

        # Each statement of these connections is a transaction of its own.
        monkeypatch.setattr(psycopg.Connection, "execute", watched)
        return SqlAlchemyStorage(engine, clock=clock)


class TestMariadb(SqlAlchemyCommitFaults):
    fixture = "mariadb_engine"
    patience_statement = "SET innodb_lock_wait_timeout = 1"
    drops_index = "DROP INDEX automate_outbox_later ON automate_outbox"

    def test_a_migration(self, storage: Any, faults: CommitFaults, when: str = "") -> None:
        """MariaDB commits each statement of a migration by itself."""


_DRIVERS = [("sqlite", "aiosqlite"), ("postgresql", "psycopg"), ("postgresql", "asyncpg")]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("database", "driver"), _DRIVERS)
def test_an_asynchronous_session(
    request: pytest.FixtureRequest, database: str, driver: str, when: str
) -> None:
    """An event in an `AsyncSession` whose commit fails is not left open in the session's pool."""
    given: sa.Engine = request.getfixturevalue(f"{database}_engine")
    faults, storage = CommitFaults(), SqlAlchemyStorage(given)

    async def emit_twice(kernel: Kernel) -> list[int]:
        url = given.url.set(drivername=f"{database}+{driver}").difference_update_query(["sslmode"])
        engine = create_async_engine(url)
        _watch_commits(engine.sync_engine, faults)
        seen = []
        for number in range(2):
            faults.arm(when, most=1 - number)
            try:
                async with AsyncSession(engine) as session:
                    await kernel.aemit("booked", idempotency_key="one", transaction=session)
                    await session.commit()
            except sa.exc.DBAPIError:
                assert number == 0
            with given.connect() as connection:
                # The file's lock is free.
                connection.exec_driver_sql("UPDATE automate_outbox SET kind = kind")
                seen.append(kernel.outbox.stats().total("PENDING"))
                connection.rollback()
        await engine.dispose()
        return seen

    with Kernel(storage, discover=False, secrets={}) as kernel:
        assert asyncio.run(emit_twice(kernel)) == [int(when == "after"), 1]
