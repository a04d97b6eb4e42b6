"""All groups of the contract in one class."""

from __future__ import annotations

from .claiming import ClaimingContract
from .entering import EnteringContract, RefusalContract
from .finishing import FencingContract, FinishingContract
from .ordering import OrderingContract
from .racing import RacingContract
from .recovering import RecoveringContract
from .steering import SteeringContract

__all__ = ["OutboxStoreContract"]


class OutboxStoreContract(
    EnteringContract,
    RefusalContract,
    ClaimingContract,
    FinishingContract,
    FencingContract,
    RecoveringContract,
    OrderingContract,
    SteeringContract,
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
