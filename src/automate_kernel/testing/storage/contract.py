"""All groups of the contract in one class."""

from __future__ import annotations

import pytest

from automate_kernel.storage import Storage
from automate_kernel.storage.tables import DELIVERY, STEP
from automate_kernel.testing.storage.competing import PATIENCE_SECONDS, CompetingContract
from automate_kernel.testing.storage.hooks import StorageHooks, positions, step
from automate_kernel.testing.storage.reading import ClockContract, ReadingContract
from automate_kernel.testing.storage.writing import WritingContract

__all__ = ["StorageContract"]


class PlaceContract(StorageHooks):
    """The storage itself."""

    def test_tables_may_be_there_already(self, storage: Storage) -> None:
        """Creating the tables a second time keeps them and what they hold."""
        self.add(storage, step(1))
        storage.create_tables()
        assert positions(self.all(storage)) == [1]
        assert self.all(storage, DELIVERY) == []

    def test_description(self, storage: Storage) -> None:
        """It says where it is, in words for people."""
        assert storage.describe()

    def test_wakeup(self, storage: Storage) -> None:
        """A commit that notifies wakes who waits; a rollback doesn't."""
        wakeup = storage.wakeup("contract")
        if wakeup is None:
            pytest.skip("polling is all there is")
        try:
            assert not wakeup.wait(0)
            with pytest.raises(ZeroDivisionError), storage.begin() as rows:
                rows.insert(STEP, [step(1)], notify="contract")
                raise ZeroDivisionError
            assert not wakeup.wait(0.02)
            with storage.begin() as rows:
                rows.insert(STEP, [step(1), step(2)], notify="contract")
            assert wakeup.wait(PATIENCE_SECONDS)
            assert not wakeup.wait(0)
            wakeup.wake()
            assert wakeup.wait(PATIENCE_SECONDS)
        finally:
            wakeup.close()


class StorageContract(
    ReadingContract, WritingContract, ClockContract, CompetingContract, PlaceContract
):
    """
    What every `Storage` must do, as tests.

    ::

        class TestMyStorage(StorageContract):
            @pytest.fixture
            def storage(self):
                return MyStorage(connect())
    """
