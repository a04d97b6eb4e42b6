"""Django's storage and stores keep the contracts, on each database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from automate_django.outbox import OptimisticClaimOutboxStore, SkipLockedClaimOutboxStore
from automate_django.storage import DjangoStorage
from automate_kernel.outbox import RowsOutboxStore
from automate_kernel.testing.clock import FakeClock
from automate_kernel.testing.outbox import OutboxStoreContract
from suites.storage import StorageContract
from django.db import transaction


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


class DjangoOutboxContract(OutboxStoreContract):
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


class TestOutboxOnSqlite(DjangoOutboxContract):
    store_class = OptimisticClaimOutboxStore

    @pytest.fixture
    def store(self, sqlite: str, clock: FakeClock) -> RowsOutboxStore:
        return self.open(DjangoStorage(sqlite, clock=clock))


class TestOutboxOnPostgresql(DjangoOutboxContract):
    @pytest.fixture
    def store(self, postgresql: str, clock: FakeClock) -> RowsOutboxStore:
        return self.open(DjangoStorage(postgresql, clock=clock))


class TestOutboxOnMariadb(DjangoOutboxContract):
    # InnoDB takes two that insert a key which was just deleted for a deadlock.
    supports_waiting_for_slots = False

    @pytest.fixture
    def store(self, mariadb: str, clock: FakeClock) -> RowsOutboxStore:
        return self.open(DjangoStorage(mariadb, clock=clock))


class TestOutboxOnPostgresqlByItsOwnClock(DjangoOutboxContract):
    supports_clock = False

    @pytest.fixture
    def store(self, postgresql: str) -> RowsOutboxStore:
        return self.open(DjangoStorage(postgresql))
