"""All groups of the contract in one class."""

from __future__ import annotations

from automate_kernel.testing.outbox.claiming import ClaimingContract
from automate_kernel.testing.outbox.controlling import BulkContract, PageContract, StoppingContract
from automate_kernel.testing.outbox.entering import EnteringContract, RefusalContract
from automate_kernel.testing.outbox.failing import FailureContract, LabelContract
from automate_kernel.testing.outbox.finishing import FencingContract, FinishingContract
from automate_kernel.testing.outbox.limiting import LimitContract
from automate_kernel.testing.outbox.ordering import OrderingContract
from automate_kernel.testing.outbox.racing import RacingContract
from automate_kernel.testing.outbox.recovering import RecoveringContract
from automate_kernel.testing.outbox.reporting import ReportingContract
from automate_kernel.testing.outbox.retaining import RetentionContract
from automate_kernel.testing.outbox.sharing import SharingContract
from automate_kernel.testing.outbox.slotting import ConcurrencyKeyContract
from automate_kernel.testing.outbox.steering import SteeringContract

__all__ = ["OutboxStoreContract"]


class OutboxStoreContract(
    EnteringContract,
    RefusalContract,
    ClaimingContract,
    FinishingContract,
    FencingContract,
    RecoveringContract,
    OrderingContract,
    SharingContract,
    SteeringContract,
    PageContract,
    BulkContract,
    StoppingContract,
    LimitContract,
    ConcurrencyKeyContract,
    RetentionContract,
    FailureContract,
    LabelContract,
    ReportingContract,
    RacingContract,
):
    """
    What every `OutboxStore` must do, as tests.

    ::

        class TestMyStore(OutboxStoreContract):
            @pytest.fixture
            def store(self, clock):
                return MyStore(clock=clock, lease_seconds=30)

            def another(self, store):
                return MyStore(clock=store.clock, lease_seconds=30)  # on the same data

    The store starts empty. What it can't do is said with the ``supports_…`` flags, and the tests
    in question are skipped. `StoreHooks` lists all hooks.
    """
