"""Relays: events on their way to other systems, as CloudEvents."""

from automate_kernel.relays.cloud_events import CloudEvent
from automate_kernel.relays.relay import Relay

__all__ = ["CloudEvent", "Relay"]
