"""All groups of the contract in one class."""

from __future__ import annotations

from automate_kernel.testing.executions.counting import CountingContract, ResumingManyContract
from automate_kernel.testing.executions.ending import EndingContract, ResumingContract
from automate_kernel.testing.executions.failing import FailingContract
from automate_kernel.testing.executions.pages import PagesContract
from automate_kernel.testing.executions.saving import BeginningContract, SavingContract

__all__ = ["ExecutionStoreContract"]


class ExecutionStoreContract(
    BeginningContract,
    SavingContract,
    EndingContract,
    ResumingContract,
    ResumingManyContract,
    CountingContract,
    FailingContract,
    PagesContract,
):
    """
    What `ExecutionStore` must do on every storage, as tests.

    ::

        class TestMine(ExecutionStoreContract):
            @pytest.fixture
            def storage(self, clock):
                return MyStorage(clock=clock)
    """
