"""The contract of a subscription, as tests that its author inherits."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from automate_kernel.base.errors import AutomateError, ErrorCodes, PayloadError
from automate_kernel.relays import CloudEvent, Relay
from automate_kernel.relays.subscriptions import EventSubscription
from automate_testing.contracts.relay import event, run, sent

__all__ = ["SubscriptionContract"]

ConnectRelay = Callable[[], Relay]
ConnectSubscription = Callable[[], EventSubscription]


class SubscriptionContract:
    """
    Subclass it and give it two fixtures: functions that connect to one empty broker.

    ``connect`` makes a `Relay`, ``subscribe`` an `EventSubscription` to what it sends; each call
    of them is another process. An event that was not acknowledged comes again within a minute.
    """

    @pytest.fixture
    def connect(self) -> ConnectRelay:
        """Return a function that makes a relay on the broker."""
        raise NotImplementedError("give the contract a `connect` fixture")

    @pytest.fixture
    def subscribe(self) -> ConnectSubscription:
        """Return a function that makes a subscription on the broker."""
        raise NotImplementedError("give the contract a `subscribe` fixture")

    def test_events_come_as_they_were_sent(
        self, connect: ConnectRelay, subscribe: ConnectSubscription
    ) -> None:
        """All of them, with all attributes, and begun in their order."""
        events = [
            event(n, tenant_id="acme", partition_key="k", labels={"a": "b"}) for n in range(50)
        ]
        run(sent(connect(), *events))
        came: list[CloudEvent] = []
        run(deliver(subscribe(), came, lambda: len(came) >= len(events)))
        assert came == events

    def test_an_event_that_was_taken_does_not_come_again(
        self, connect: ConnectRelay, subscribe: ConnectSubscription
    ) -> None:
        """Another process gets the next ones."""
        came: list[CloudEvent] = []
        run(sent(connect(), event(1)))
        run(deliver(subscribe(), came, lambda: came))
        run(sent(connect(), event(2)))
        run(deliver(subscribe(), came, lambda: 2 in data_of(came)))
        assert data_of(came) == [1, 2]

    def test_an_event_that_could_not_be_taken_comes_again(
        self, connect: ConnectRelay, subscribe: ConnectSubscription
    ) -> None:
        """An event that will never be taken does not, and holds up no other."""
        came: list[CloudEvent] = []

        async def fail(one: CloudEvent) -> None:
            if one.data == "never":
                raise PayloadError("it can't be stored")
            if one.data == "later" and data_of(came).count("later") == 1:
                raise AutomateError(ErrorCodes.UNAVAILABLE, "the database is away")
            if one.data == "bug" and data_of(came).count("bug") == 1:
                raise ZeroDivisionError

        data = ("never", "later", "bug", "last")
        run(sent(connect(), *(event(each) for each in data)))
        wanted = Counter(never=1, later=2, bug=2, last=1)
        run(deliver(subscribe(), came, lambda: Counter(data_of(came)) == wanted, fail))

    def test_what_a_process_leaves_another_takes(
        self, connect: ConnectRelay, subscribe: ConnectSubscription
    ) -> None:
        """Nothing is lost with it."""

        async def hang(one: CloudEvent) -> None:
            await asyncio.sleep(3_600)

        run(sent(connect(), *(event(n) for n in range(5))))
        left: list[CloudEvent] = []
        run(deliver(subscribe(), left, lambda: left, hang))
        came: list[CloudEvent] = []
        run(deliver(subscribe(), came, lambda: sorted(data_of(came)) == list(range(5))))


def data_of(events: Sequence[CloudEvent]) -> list[Any]:
    """Return the data of *events*, in their order."""
    return [each.data for each in events]


async def taken(_: CloudEvent) -> None:
    """Take an event."""


async def deliver(
    subscription: EventSubscription,
    came: list[CloudEvent],
    ready: Callable[[], object],
    take: Callable[[CloudEvent], Awaitable[None]] = taken,
) -> None:
    """Have *subscription* deliver to *take*, until *came* has what *ready* waits for."""
    changed = asyncio.Event()

    async def note(one: CloudEvent) -> None:
        came.append(one)
        changed.set()
        await take(one)

    work = asyncio.ensure_future(subscription.deliver(note))
    try:
        while not ready():
            await changed.wait()
            changed.clear()
        await asyncio.sleep(0.2)  # what was taken is acknowledged
    finally:
        work.cancel()
        await subscription.close()
