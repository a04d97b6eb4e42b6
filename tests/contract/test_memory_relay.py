"""The relay in memory keeps the contract of relays."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from automate_testing.contracts.relay import Connect, Received, RelayContract
from automate_testing.memory_relay import MemoryRelay, MemoryTopic


class TestMemoryRelay(RelayContract):
    """The one that tests use."""

    @pytest.fixture
    def topic(self) -> MemoryTopic:
        """Return an empty broker."""
        return MemoryTopic()

    @pytest.fixture
    def connect(self, topic: MemoryTopic) -> Connect:
        """Return a function that connects to it."""
        return lambda: MemoryRelay(topic)

    @pytest.fixture
    def received(self, topic: MemoryTopic) -> Received:
        """Return a function that reads it."""
        return lambda: topic.events

    @pytest.fixture
    def cut(self, topic: MemoryTopic) -> Callable[[], None]:
        """Return a function that makes it unreachable."""
        return lambda: setattr(topic, "available", False)
