"""The contract of a subscription, as tests that its author inherits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from automate_kernel.base.errors import AutomateError, ErrorCodes, PayloadError
from automate_kernel.relays import CloudEvent, Relay
from automate_kernel.relays.subscriptions import EventSubscription
from automate_testing.contracts.relay import PATIENCE, event

__all__ = ["SubscriptionContract"]

ConnectRelay = Callable[[], Relay]
ConnectSubscription = Callable[[], EventSubscription]


class SubscriptionContract:
    """
    Subclass it and give it two fixtures: functions that connect to one empty broker.

    ``connect`` makes a `Relay`, ``subscribe`` an `EventSubscription` to what it sends; each call
    of them is another process. An event that was not acknowledged comes again within
    ``redelivery_seconds``.
    """

    redelivery_seconds: float = 10.0

    @pytest.fixture
    def connect(self) -> ConnectRelay:
        """Return a function that makes a relay on the broker."""
        raise NotImplementedError("give the contract a `connect` fixture")

    @pytest.fixture
    def subscribe(self) -> ConnectSubscription:
        """Return a function that makes a subscription on the broker."""
        raise NotImplementedError("give the contract a `subscribe` fixture")

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run one test on an event loop of its own."""
        asyncio.run(asyncio.wait_for(work, PATIENCE))

    async def send(self, connect: ConnectRelay, events: Sequence[CloudEvent]) -> None:
        """Send *events*, one after the other."""
        relay = connect()
        for each in events:
            await relay.send(each)
        await relay.close()

    def test_events_come_as_they_were_sent(
        self, connect: ConnectRelay, subscribe: ConnectSubscription
    ) -> None:
        """All of them, with all attributes, and begun in their order."""
        sent = [event(n, tenant_id="acme", partition_key="k", labels={"a": "b"}) for n in range(50)]

        async def work() -> None:
            await self.send(connect, sent)
            came: list[CloudEvent] = []

            async def take(one: CloudEvent) -> None:
                came.append(one)

            with delivering(subscribe(), take):
                await until(lambda: len(came) >= len(sent))
            assert came == sent

        self.run(work())

    def test_an_event_that_was_taken_does_not_come_again(
        self, connect: ConnectRelay, subscribe: ConnectSubscription
    ) -> None:
        """Another process gets the next ones."""

        async def work() -> None:
            came: list[Any] = []

            async def take(one: CloudEvent) -> None:
                came.append(one.data)

            await self.send(connect, [event(1)])
            first = subscribe()
            with delivering(first, take):
                await until(lambda: came == [1])
                await asyncio.sleep(0.2)
            await first.close()
            await self.send(connect, [event(2)])
            with delivering(subscribe(), take):
                await until(lambda: 2 in came)
                await asyncio.sleep(0.2)
            assert came == [1, 2]

        self.run(work())

    def test_an_event_that_could_not_be_taken_comes_again(
        self, connect: ConnectRelay, subscribe: ConnectSubscription
    ) -> None:
        """An event that will never be taken does not, and holds up no other."""

        async def work() -> None:
            came: list[Any] = []

            async def take(one: CloudEvent) -> None:
                came.append(one.data)
                if one.data == "never":
                    raise PayloadError("it can't be stored")
                if one.data == "later" and came.count("later") == 1:
                    raise AutomateError(ErrorCodes.UNAVAILABLE, "the database is away")
                if one.data == "bug" and came.count("bug") == 1:
                    raise ZeroDivisionError

            data = ("never", "later", "bug", "last")
            await self.send(connect, [event(each) for each in data])
            with delivering(subscribe(), take):
                await until(lambda: [came.count(each) for each in data] == [1, 2, 2, 1])

        self.run(work())

    def test_what_a_process_leaves_another_takes(
        self, connect: ConnectRelay, subscribe: ConnectSubscription
    ) -> None:
        """Nothing is lost with it."""

        async def work() -> None:
            came: list[Any] = []
            begun = asyncio.Event()

            async def hang(one: CloudEvent) -> None:
                begun.set()
                await asyncio.sleep(3_600)

            async def take(one: CloudEvent) -> None:
                came.append(one.data)

            await self.send(connect, [event(n) for n in range(5)])
            with delivering(subscribe(), hang):
                await begun.wait()
            with delivering(subscribe(), take):
                await until(lambda: sorted(came) == list(range(5)))

        self.run(work())


@contextmanager
def delivering(subscription: EventSubscription, take: Any) -> Iterator[None]:
    """Have *subscription* deliver while the block runs."""
    work = asyncio.ensure_future(subscription.deliver(take))
    try:
        yield
    finally:
        work.cancel()


async def until(condition: Callable[[], bool]) -> None:
    """Look again and again."""
    tick = asyncio.Event()
    while not condition():
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(tick.wait(), 0.01)
