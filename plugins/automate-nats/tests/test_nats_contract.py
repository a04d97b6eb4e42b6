"""The executor on a real nats-server keeps the contract of step executors."""

from __future__ import annotations

import pytest
from nats_support import NatsServer

from automate_nats import NatsExecutor
from automate_testing.contracts.step_executor import Connect, StepExecutorContract


class TestNatsExecutor(StepExecutorContract):
    """Each connection is another client of one server."""

    @pytest.fixture
    def connect(self, server: NatsServer) -> Connect:
        """Return a function that connects."""
        return lambda: NatsExecutor(server.url, queue="gpu", ack_seconds=2.0)
