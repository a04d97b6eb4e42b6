"""Steps on other machines and events of and for other systems, by NATS JetStream."""

from automate_nats.connection import NatsConnection
from automate_nats.executor import NatsExecutor
from automate_nats.relay import NatsRelay
from automate_nats.subscription import NatsSubscription

__all__ = ["NatsConnection", "NatsExecutor", "NatsRelay", "NatsSubscription"]
