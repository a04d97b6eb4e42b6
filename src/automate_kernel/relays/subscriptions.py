"""Subscriptions: the events of others that brokers deliver to workers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from automate_kernel.base.errors import AutomateError, PayloadError
from automate_kernel.operations.brokers import close_all, problems_of
from automate_kernel.operations.portal import Portal
from automate_kernel.relays.cloud_events import CloudEvent
from automate_kernel.relays.event_receiver import EventReceiver
from automate_kernel.secrets.logs import get_logger
from automate_kernel.worker.broker_receiver import BrokerReceiver, Taking

__all__ = ["EventSubscription"]

logger = get_logger(__name__)


class EventSubscription(ABC):
    """
    A way to receive the events of others from one broker.

    Each process makes its own instance, and uses it from one event loop. What it received stands in
    the database before the broker hears of it, each event once by its source and id.
    """

    @abstractmethod
    async def deliver(self, take: Callable[[CloudEvent], Awaitable[None]]) -> None:
        """
        Hand events over to *take*, many at once, until this is cancelled.

        Acknowledge an event once *take* has returned. If it raises ``INVALID_ARGUMENT``, the event
        can never be taken: let the broker drop it. For any other error let it come again later,
        perhaps to another process. Raises `AutomateError` if the broker can't be reached: this is
        called again.
        """

    async def problems(self) -> list[str]:
        """Return what keeps events from coming, in words for operators; empty if nothing."""
        return []

    async def close(self) -> None:  # noqa: B027 - many hold nothing
        """Give back connections."""


@dataclass(frozen=True, slots=True)
class SubscribedBroker:
    """One subscription as it is configured: its *name*, and the tenant of its events if it says."""

    name: str
    subscription: EventSubscription
    tenant_id: str | None = None

    async def deliver(self, take: Taking[CloudEvent]) -> None:
        """Hand over its events, as those of its tenant."""

        async def taken(event: CloudEvent) -> None:
            try:
                await take(self._of_tenant(event))
            except PayloadError as error:
                logger.warning("subscription %r: an event is dropped: %s", self.name, error)
                raise

        await self.subscription.deliver(taken)

    def _of_tenant(self, event: CloudEvent) -> CloudEvent:
        if self.tenant_id is None or event.tenant_id == self.tenant_id:
            return event
        if event.tenant_id is not None:
            raise PayloadError("it is another tenant's than the subscription's")
        return replace(event, tenant_id=self.tenant_id)


class Subscriptions:
    """The subscriptions of a kernel, by name."""

    def __init__(self, arrivals: Mapping[str, SubscribedBroker]) -> None:
        self.arrivals: dict[str, SubscribedBroker] = dict(arrivals)
        """The subscriptions by their names."""

    def __bool__(self) -> bool:
        return bool(self.arrivals)

    def receiver(self, into: EventReceiver, portal: Portal) -> BrokerReceiver[CloudEvent]:
        """Return the receiver of their events in a worker."""
        deliveries = {f"subscription {name!r}": one.deliver for name, one in self.arrivals.items()}
        return BrokerReceiver(deliveries, partial(_taken, into), portal)

    async def problems(self) -> dict[str, list[str]]:
        """Return what keeps each subscription from receiving."""
        return {n: await problems_of(each.subscription) for n, each in self.arrivals.items()}

    async def close(self) -> None:
        """Close them all."""
        await close_all(
            {f"subscription {n!r}": each.subscription for n, each in self.arrivals.items()}
        )


def _taken(into: EventReceiver, events: Sequence[CloudEvent]) -> list[Exception | None]:
    """Take *events* in one transaction, or one by one if that fails."""
    try:
        into.receive(events)
    except Exception as error:
        if len(events) == 1:
            if not isinstance(error, AutomateError):
                logger.exception("an event can't be taken")
            return [error]
        return [each for event in events for each in _taken(into, [event])]
    return [None] * len(events)
