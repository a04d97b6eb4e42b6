"""Django's storage and stores keep the contracts, on each database."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from automate_django.outbox import OptimisticClaimOutboxStore, SkipLockedClaimOutboxStore
from automate_django.storage import DjangoStorage
from automate_kernel.outbox import RowsOutboxStore
from automate_testing.clock import FakeClock
from automate_testing.contracts.outbox import OutboxControlsContract, OutboxStoreContract
from automate_testing.contracts.outbox.hooks import StoreHooks
from suites.commit_faults import CommitFaultContract, CommitFaults
from suites.outbox import ClaimsContract, ClockContract, ConnectionContract
from suites.storage import StorageContract
from waiting import until
from django.db import OperationalError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper
from django.test.utils import CaptureQueriesContext
from shopsite.routing import TestedDatabase


class DjangoStorageContract(StorageContract):
    @contextmanager
    def host_transaction(self, storage: DjangoStorage) -> Iterator[None]:
        with transaction.atomic(using=storage.alias):
            yield None  # nothing to pass: the open block is meant

    def with_clock(self, storage: DjangoStorage, clock: FakeClock) -> DjangoStorage:
        return DjangoStorage(storage.alias, clock=clock)


class TestStorageOnSqlite(DjangoStorageContract):
    supports_server_clock = False

    @pytest.fixture
    def storage(self, sqlite: str) -> DjangoStorage:
        return DjangoStorage(sqlite)


class TestStorageOnPostgresql(DjangoStorageContract):
    @pytest.fixture
    def storage(self, postgresql: str) -> DjangoStorage:
        return DjangoStorage(postgresql)


class TestStorageOnMariadb(DjangoStorageContract):
    @pytest.fixture
    def storage(self, mariadb: str) -> DjangoStorage:
        return DjangoStorage(mariadb)


class DjangoOutbox(StoreHooks):
    supports_controls = True
    store_class: type[RowsOutboxStore] = SkipLockedClaimOutboxStore

    def open(self, storage: DjangoStorage) -> RowsOutboxStore:
        return self.store_class(storage, lease_seconds=30)

    def another(self, store: RowsOutboxStore) -> RowsOutboxStore:
        assert isinstance(store.storage, DjangoStorage)
        return self.open(store.storage)

    @contextmanager
    def transaction(self, store: RowsOutboxStore) -> Iterator[None]:
        assert isinstance(store.storage, DjangoStorage)
        with transaction.atomic(using=store.storage.alias):
            yield None


class TestOutboxOnSqlite(DjangoOutbox, ConnectionContract):
    store_class = OptimisticClaimOutboxStore

    @pytest.fixture
    def store(self, sqlite: str, clock: FakeClock) -> RowsOutboxStore:
        return self.open(DjangoStorage(sqlite, clock=clock))


class TestOutboxOnPostgresql(DjangoOutbox, OutboxStoreContract, OutboxControlsContract):
    @pytest.fixture
    def store(self, postgresql: str, clock: FakeClock) -> RowsOutboxStore:
        return self.open(DjangoStorage(postgresql, clock=clock))


class TestOutboxOnMariadb(DjangoOutbox, ClaimsContract):
    # InnoDB takes two that insert a key which was just deleted for a deadlock.
    supports_waiting_for_slots = False

    @pytest.fixture
    def store(self, mariadb: str, clock: FakeClock) -> RowsOutboxStore:
        return self.open(DjangoStorage(mariadb, clock=clock))


class TestOutboxOnPostgresqlByItsOwnClock(DjangoOutbox, ClockContract):
    supports_clock = False

    @pytest.fixture
    def store(self, postgresql: str) -> RowsOutboxStore:
        return self.open(DjangoStorage(postgresql))


class DjangoCommitFaults(CommitFaultContract):
    """A block whose COMMIT fails, and a statement outside of blocks that commits by itself."""

    @pytest.fixture
    def alias(self) -> str:
        raise NotImplementedError

    @pytest.fixture
    def storage(
        self, alias: str, clock: FakeClock, faults: CommitFaults, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[DjangoStorage]:
        commit, execute = BaseDatabaseWrapper._commit, CursorWrapper.execute

        def watched_commit(connection: BaseDatabaseWrapper) -> Any:
            return faults.around(lambda: commit(connection), OperationalError)

        def watched_execute(cursor: CursorWrapper, *arguments: Any) -> Any:
            begins = arguments[0].startswith("BEGIN")
            if begins or cursor.db.alias != alias or cursor.db.in_atomic_block:
                return execute(cursor, *arguments)
            return faults.around(lambda: execute(cursor, *arguments), OperationalError)

        with connections[alias].cursor() as cursor:
            cursor.execute("CREATE TABLE booked (word VARCHAR(50))")
        monkeypatch.setattr(BaseDatabaseWrapper, "_commit", watched_commit)
        monkeypatch.setattr(CursorWrapper, "execute", watched_execute)
        yield DjangoStorage(alias, clock=clock)
        monkeypatch.undo()
        with connections[alias].cursor() as cursor:
            cursor.execute("DROP TABLE booked")

    def outside(self, storage: DjangoStorage, *statements: str) -> list[Any]:
        other = storage.connection.copy()
        try:
            with other.cursor() as cursor:
                for statement in filter(None, statements):
                    cursor.execute(statement)
                return list(cursor.fetchall()) if cursor.description else []
        finally:
            other.close()

    @contextmanager
    def host_transaction(self, storage: DjangoStorage) -> Iterator[None]:
        with transaction.atomic(using=storage.alias):
            yield None

    def handle(self, transaction: Any) -> Any:
        return connections[TestedDatabase.alias]

    def write(self, transaction: Any, word: str) -> None:
        with transaction.cursor() as cursor:
            cursor.execute("INSERT INTO booked VALUES (%s)", [word])


class DjangoCommitFaultsOnSqlite(DjangoCommitFaults):
    patience_statement = "PRAGMA busy_timeout = 1000"
    journal = ""

    @pytest.fixture
    def alias(self, sqlite: str) -> Iterator[str]:
        self.switch(sqlite, self.journal)
        yield sqlite
        self.switch(sqlite, "delete")

    def switch(self, alias: str, journal: str) -> None:
        # The connections of threads that have ended keep a file in its mode.
        def switched() -> bool:
            gc.collect()
            with suppress(OperationalError), connections[alias].cursor() as cursor:
                found = cursor.execute(f"PRAGMA journal_mode = {journal}").fetchone()
                return bool(found[0] == journal)
            return False

        until(switched)


class TestCommitFaultsOnSqliteInItsDefaultMode(DjangoCommitFaultsOnSqlite):
    journal = "delete"


class TestCommitFaultsOnSqliteInWalMode(DjangoCommitFaultsOnSqlite):
    journal = "wal"


class TestCommitFaultsOnPostgresql(DjangoCommitFaults):
    patience_statement = "SET lock_timeout = '1s'"

    @pytest.fixture
    def alias(self, postgresql: str) -> str:
        return postgresql


class TestCommitFaultsOnMariadb(DjangoCommitFaults):
    patience_statement = "SET innodb_lock_wait_timeout = 1"

    @pytest.fixture
    def alias(self, mariadb: str) -> str:
        return mariadb

    @pytest.mark.skip("MariaDB commits each statement of a migration by itself")
    def test_a_migration(self) -> None: ...


def test_a_transaction_is_bounded_at_no_cost(postgresql: str, tmp_path: Path) -> None:
    """The bound goes with the BEGIN, and where somebody counts statements it is one."""
    storage = DjangoStorage(postgresql)
    query = "SHOW idle_in_transaction_session_timeout"

    def transact(**options: bool) -> tuple[str, int]:
        storage.connection.ensure_connection()
        server = storage.connection.connection.pgconn
        with (tmp_path / "trace").open("w+") as trace:
            server.trace(trace.fileno())
            with storage.begin(**options) as rows:
                found = rows.run(query, (), fetch=True)
            server.untrace()
            trace.seek(0)
            return found[0][0], sum("ReadyForQuery" in line for line in trace)

    assert transact() == ("15s", 3)  # BEGIN, SHOW, COMMIT
    assert transact(bounded=False) == ("0", 3)
    with CaptureQueriesContext(storage.connection) as seen, storage.begin() as rows:
        assert rows.run(query, (), fetch=True) == [("15s",)]
    assert len([each for each in seen if "idle_in" in each["sql"]]) == 2
