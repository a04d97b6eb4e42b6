"""Executions keep the contract on Django's databases."""

from __future__ import annotations

import pytest
from automate_django.storage import DjangoStorage
from automate_testing.clock import FakeClock
from suites.executions import ExecutionStoreContract


class TestExecutionsOnSqlite(ExecutionStoreContract):
    @pytest.fixture
    def storage(self, sqlite: str, clock: FakeClock) -> DjangoStorage:
        return DjangoStorage(sqlite, clock=clock)


class TestExecutionsOnPostgresql(ExecutionStoreContract):
    @pytest.fixture
    def storage(self, postgresql: str, clock: FakeClock) -> DjangoStorage:
        return DjangoStorage(postgresql, clock=clock)
