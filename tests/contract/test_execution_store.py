"""Executions keep the promises of the contract on every storage."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from automate_kernel.storage import MemoryStorage, Storage
from automate_testing.clock import FakeClock
from suites.executions import ExecutionStoreContract
from automate_sqlalchemy import SqlAlchemyStorage


class TestMemory(ExecutionStoreContract):
    @pytest.fixture
    def storage(self, clock: FakeClock) -> Storage:
        return MemoryStorage(clock)


class TestSqlite(ExecutionStoreContract):
    @pytest.fixture
    def storage(self, sqlite_engine: sa.Engine, clock: FakeClock) -> Storage:
        return SqlAlchemyStorage(sqlite_engine, clock=clock)


class TestPostgresql(ExecutionStoreContract):
    @pytest.fixture
    def storage(self, postgresql_engine: sa.Engine, clock: FakeClock) -> Storage:
        return SqlAlchemyStorage(postgresql_engine, clock=clock)


class TestMariadb(ExecutionStoreContract):
    @pytest.fixture
    def storage(self, mariadb_engine: sa.Engine, clock: FakeClock) -> Storage:
        return SqlAlchemyStorage(mariadb_engine, clock=clock)
