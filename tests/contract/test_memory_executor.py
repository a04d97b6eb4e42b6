"""The executor in memory keeps the contract of step executors."""

from __future__ import annotations

import pytest

from automate_testing.contracts.step_executor import Connect, StepExecutorContract
from automate_testing.memory_executor import MemoryBroker, MemoryExecutor


class TestMemoryExecutor(StepExecutorContract):
    """The one that tests use."""

    @pytest.fixture
    def connect(self) -> Connect:
        """Return a function that connects to one broker."""
        broker = MemoryBroker()
        return lambda: MemoryExecutor(broker)
