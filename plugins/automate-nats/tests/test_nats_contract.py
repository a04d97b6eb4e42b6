"""The executor and the relay on a real nats-server keep their contracts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from nats_support import NatsServer, messages

from automate_kernel.relays import CloudEvent
from automate_nats import NatsExecutor, NatsRelay, NatsSubscription
from automate_testing.contracts.relay import Connect as ConnectRelay
from automate_testing.contracts.relay import Received, RelayContract
from automate_testing.contracts.step_executor import Connect, StepExecutorContract
from automate_testing.contracts.subscription import ConnectSubscription, SubscriptionContract


class TestNatsExecutor(StepExecutorContract):
    """Each connection is another client of one server."""

    @pytest.fixture
    def connect(self, server: NatsServer) -> Connect:
        """Return a function that connects."""
        return lambda: NatsExecutor(server.url, queue="gpu", ack_seconds=2.0)


class TestNatsRelay(RelayContract):
    """Each connection is another client of one server."""

    @pytest.fixture
    def connect(self, server: NatsServer) -> ConnectRelay:
        """Return a function that connects."""
        return lambda: NatsRelay(server.url)

    @pytest.fixture
    def received(self, server: NatsServer) -> Received:
        """Return a function that reads the stream."""

        def read() -> list[CloudEvent]:
            found = asyncio.run(messages(server.url, "AUTOMATE_EVENTS"))
            return [CloudEvent.from_text(data) for _, data in found]

        return read

    @pytest.fixture
    def cut(self, server: NatsServer) -> Callable[[], None]:
        """Return a function that kills the server."""
        return server.kill


class TestNatsSubscription(SubscriptionContract):
    """Each connection is another client of one server."""

    @pytest.fixture
    def connect(self, server: NatsServer) -> ConnectRelay:
        """Return a function that makes a relay."""
        return lambda: NatsRelay(server.url)

    @pytest.fixture
    def subscribe(self, server: NatsServer) -> ConnectSubscription:
        """Return a function that makes a subscription."""
        return lambda: NatsSubscription(server.url, ack_seconds=2.0)


class TestOrderedNatsSubscription(TestNatsSubscription):
    """One message at a time."""

    @pytest.fixture
    def subscribe(self, server: NatsServer) -> ConnectSubscription:
        """Return a function that makes a subscription."""
        return lambda: NatsSubscription(server.url, ack_seconds=2.0, ordered=True)
