"""
Every storage keeps the contract of the seam.

A framework's own: subclass `StorageContract`, give the fixture ``storage`` and, where the host
opens transactions in its own way, ``host_transaction``. In Django, say::

    @pytest.mark.django_db(transaction=True)
    class TestDjangoStorage(StorageContract):
        @pytest.fixture
        def storage(self):
            return DjangoStorage()

        @contextmanager
        def host_transaction(self, storage):
            with transaction.atomic():
                yield None  # nothing to pass: the open atomic() block is meant

        def with_clock(self, storage, clock):
            return DjangoStorage(clock=clock)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from automate_kernel.storage import MemoryStorage
from automate_testing.clock import FakeClock
from suites.storage import StorageContract
from automate_sqlalchemy import SqlAlchemyStorage
from sqlalchemy.orm import Session


class TestMemory(StorageContract):
    supports_server_clock = False
    supports_refusals = False

    @pytest.fixture
    def storage(self) -> MemoryStorage:
        return MemoryStorage()

    def with_clock(self, storage: MemoryStorage, clock: FakeClock) -> MemoryStorage:
        return MemoryStorage(clock)


class SqlAlchemyContract(StorageContract):
    @contextmanager
    def host_transaction(self, storage: SqlAlchemyStorage) -> Iterator[Any]:
        with Session(storage.engine) as session, session.begin():
            yield session

    def with_clock(self, storage: SqlAlchemyStorage, clock: FakeClock) -> SqlAlchemyStorage:
        return SqlAlchemyStorage(storage.engine, clock=clock)


class TestSqlite(SqlAlchemyContract):
    supports_server_clock = False

    @pytest.fixture
    def storage(self, sqlite_engine: sa.Engine) -> SqlAlchemyStorage:
        return SqlAlchemyStorage(sqlite_engine)


class TestPostgresql(SqlAlchemyContract):
    @pytest.fixture
    def storage(self, postgresql_engine: sa.Engine) -> SqlAlchemyStorage:
        return SqlAlchemyStorage(postgresql_engine)


class Watched:
    """Somebody listens to statements, which then go through SQLAlchemy's own execution."""

    @pytest.fixture(autouse=True)
    def listener(self, storage: SqlAlchemyStorage) -> Iterator[None]:
        def note(*_: Any) -> None:
            pass

        sa.event.listen(storage.engine, "before_cursor_execute", note)
        yield
        sa.event.remove(storage.engine, "before_cursor_execute", note)


class TestWatchedSqlite(Watched, TestSqlite):
    pass


class TestWatchedPostgresql(Watched, TestPostgresql):
    pass


class TestMariadb(SqlAlchemyContract):
    @pytest.fixture
    def storage(self, mariadb_engine: sa.Engine) -> SqlAlchemyStorage:
        return SqlAlchemyStorage(mariadb_engine)
