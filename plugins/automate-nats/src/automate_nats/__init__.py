"""Steps on other machines and events for other systems, by NATS JetStream."""

from automate_nats.connection import NatsConnection
from automate_nats.executor import NatsExecutor
from automate_nats.relay import NatsRelay

__all__ = ["NatsConnection", "NatsExecutor", "NatsRelay"]
