"""All parts of the contract in one class."""

from __future__ import annotations

from automate_kernel.outbox import OutboxStore
from automate_testing.contracts.outbox.claim import ClaimContract, OrderingContract, SharingContract
from automate_testing.contracts.outbox.enqueue import EnqueueContract
from automate_testing.contracts.outbox.lease import LeaseContract
from automate_testing.contracts.outbox.limits import ConcurrencyKeyContract, LimitsContract
from automate_testing.contracts.outbox.operators import (
    ControlContract,
    OperatorContract,
    RetentionContract,
)
from automate_testing.contracts.outbox.reports import (
    FailuresContract,
    LabelsContract,
    ReportsContract,
)
from automate_testing.contracts.packages import require_no_drift


class OutboxStoreContract(
    EnqueueContract,
    ClaimContract,
    OrderingContract,
    SharingContract,
    LeaseContract,
    ConcurrencyKeyContract,
    OperatorContract,
    RetentionContract,
    ReportsContract,
    FailuresContract,
    LabelsContract,
):
    """
    Tests of what every `OutboxStore` must do.

    ::

        class TestMyStore(OutboxStoreContract):
            @pytest.fixture
            def store(self, clock):
                return MyStore(clock=clock, lease_seconds=30)

            def another(self, store):
                return MyStore(clock=store.clock, lease_seconds=30)  # on the same data

    The store starts empty. Set a ``supports_…`` flag to False for what it can't do: the tests in
    question are then skipped. `StoreHooks` lists all hooks.
    """

    def test_its_manifest_says_the_same(self, store: OutboxStore) -> None:
        """If the package has an ``automate.json``, it agrees with the code."""
        require_no_drift(type(store))


class OutboxControlsContract(LimitsContract, ControlContract):
    """
    Tests of what a store with `OutboxControls` must do: a second base of the same test class.

    ::

        class TestMyStore(OutboxStoreContract, OutboxControlsContract): ...
    """

    supports_controls = True
