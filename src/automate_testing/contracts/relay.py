"""The contract of a relay, as tests that its author inherits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar
from uuid import uuid4

import pytest

from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.relays import CloudEvent, Relay

__all__ = ["RelayContract"]

Connect = Callable[[], Relay]
Received = Callable[[], Sequence[CloudEvent]]

T = TypeVar("T")
PATIENCE = 60.0


def event(data: Any = None, **about: Any) -> CloudEvent:
    """Return an event with an id of its own."""
    given = {"id": str(uuid4()), "source": "shop", "type": "order.paid", "data": data}
    return CloudEvent(**{**given, "time": "2026-12-03T08:00:00+00:00", **about})


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run *work* on an event loop of its own, and return its result."""
    return asyncio.run(asyncio.wait_for(work, PATIENCE))


async def sent(relay: Relay, *events: CloudEvent) -> None:
    """Send *events*, one after the other, and close *relay*."""
    try:
        for each in events:
            await relay.send(each)
    finally:
        await relay.close()


class RelayContract:
    """
    Subclass it and give it the fixtures ``connect`` and ``received``.

    ``connect`` is a function that connects to one empty broker: each call of it is another process.
    ``received`` is a function that returns the events that others got, in their order. ``cut``
    makes the broker unreachable from then on; leave it out if a test can't do that.
    """

    drops_repeats: bool = True
    """False if whoever receives the events has to drop repeats by their ids."""

    @pytest.fixture
    def connect(self) -> Connect:
        """Return a function that makes a relay on the same broker."""
        raise NotImplementedError("give the contract a `connect` fixture")

    @pytest.fixture
    def received(self) -> Received:
        """Return a function that returns what others got."""
        raise NotImplementedError("give the contract a `received` fixture")

    @pytest.fixture
    def cut(self) -> Callable[[], None]:
        """Return a function that makes the broker unreachable."""
        pytest.skip("this suite has no broker that it can make unreachable")

    def test_an_event_comes_out_as_it_went_in(self, connect: Connect, received: Received) -> None:
        """All of its attributes, and data of each type."""
        nested = {"a": [1, 0.5, None, True, "ä\n\u2028☃"]}
        values: list[Any] = [nested, None, "", [], "$secret:X"]
        events = [
            event(
                data, tenant_id="acme", partition_key="order 1", labels={"order": "ä 1"},
                source="shop/ä%20b",
                trace={"traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01"},
            )
            for data in values
        ]  # fmt: skip
        run(sent(connect(), *events))
        assert list(received()) == events

    def test_the_order_is_kept(self, connect: Connect, received: Received) -> None:
        """Events that were sent one after the other come out so."""
        run(sent(connect(), *(event(number) for number in range(20))))
        assert [each.data for each in received()] == list(range(20))

    def test_a_repeat_is_known_by_its_id(self, connect: Connect, received: Received) -> None:
        """An event that two processes have sent, as after a death, is there once."""
        first, second = event(1), event(2)
        run(sent(connect(), first, second))
        run(sent(connect(), first))
        ids = [each.id for each in received()]
        if self.drops_repeats:
            assert ids == [first.id, second.id]
        else:
            assert set(ids) == {first.id, second.id}

    def test_events_that_are_sent_at_once_all_arrive(
        self, connect: Connect, received: Received
    ) -> None:
        """A hundred at the same time, from one process."""

        async def work() -> None:
            relay = connect()
            await asyncio.gather(*(relay.send(event(number)) for number in range(100)))
            await relay.close()

        run(work())
        assert sorted(each.data for each in received()) == list(range(100))

    def test_an_odd_name_or_key_does_no_harm(self, connect: Connect, received: Received) -> None:
        """An event with any name that people can give arrives, or is refused."""
        for name in ("a b", "a.*.>", "a\r\nX: 1", "ä☃", "..", "x" * 190, "a/b?c#d"):
            odd = event(1, type=name, partition_key=name)
            try:
                run(sent(connect(), odd))
            except AutomateError as error:
                assert error.code is ErrorCodes.INVALID_ARGUMENT, (name, error)
            else:
                assert received()[-1] == odd

    def test_a_broker_that_is_away_is_no_fault_of_the_event(
        self, connect: Connect, cut: Callable[[], None]
    ) -> None:
        """The error has another code than ``INVALID_ARGUMENT``, and comes within 30 seconds."""
        cut()
        with pytest.raises(AutomateError) as caught:
            run(sent(connect(), event()))
        assert caught.value.code is not ErrorCodes.INVALID_ARGUMENT

        async def look() -> None:
            relay = connect()
            assert await relay.problems()
            await relay.close()

        run(look())
