"""A relay: the part that knows one broker, which authors of others write."""

from __future__ import annotations

from abc import ABC, abstractmethod

from automate_kernel.relays.cloud_events import CloudEvent

__all__ = ["Relay"]


class Relay(ABC):
    """
    A way to hand events to others: a broker, or a service.

    Each process makes its own instance, and uses it from one event loop. `automate_testing` has
    `RelayContract` for authors.
    """

    @abstractmethod
    async def send(self, event: CloudEvent) -> None:
        """
        Hand *event* over: others have it, durably, when this returns.

        The same event may be handed over again, by another process too. The broker gets its id, by
        which it, or whoever receives it, drops repeats. Raises `PayloadError`
        (``INVALID_ARGUMENT``) for an event that will never be taken, such as a message that is
        too large. Any other `AutomateError` says why the event has to wait: it is sent again later.
        """

    async def problems(self) -> list[str]:
        """Return what keeps events from being sent, in words for operators; empty if nothing."""
        return []

    async def close(self) -> None:  # noqa: B027 - many hold nothing
        """Give back connections."""
