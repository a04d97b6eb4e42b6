"""Steps on other machines, by NATS JetStream: `NatsExecutor`, on a `NatsConnection`."""

from automate_nats.connection import NatsConnection
from automate_nats.executor import NatsExecutor

__all__ = ["NatsConnection", "NatsExecutor"]
