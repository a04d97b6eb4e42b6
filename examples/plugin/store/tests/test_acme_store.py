import pytest
from automate_kernel import MemoryStorage, OutboxStore
from automate_testing import FakeClock, OutboxControlsContract, OutboxStoreContract

from automate_acme.store import AcmeOutboxStore


class TestAcmeOutboxStore(OutboxStoreContract, OutboxControlsContract):
    @pytest.fixture
    def store(self, clock: FakeClock) -> AcmeOutboxStore:
        return AcmeOutboxStore(MemoryStorage(clock=clock), lease_seconds=30)

    def another(self, store: OutboxStore) -> AcmeOutboxStore:
        assert isinstance(store, AcmeOutboxStore)
        return AcmeOutboxStore(store.storage, lease_seconds=30)
