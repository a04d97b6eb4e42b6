"""The brokers that executors, relays and subscriptions reach: asked and closed within bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Protocol

from automate_kernel.base.errors import AutomateError
from automate_kernel.secrets.logs import get_logger

logger = get_logger(__name__)

_PATIENCE = 5.0


class Broker(Protocol):
    """A part that reaches a broker."""

    async def problems(self) -> list[str]:
        """Return what keeps it from working, in words for operators."""

    async def close(self) -> None:
        """Give back connections."""


async def problems_of(broker: Broker) -> list[str]:
    """Return the problems of *broker*; that it does not answer within five seconds is one."""
    try:
        return await asyncio.wait_for(broker.problems(), _PATIENCE)
    except asyncio.TimeoutError:
        return ["the broker does not answer"]
    except AutomateError as error:
        return [error.message]


async def close_all(brokers: Mapping[str, Broker]) -> None:
    """Close *brokers*, by their names in the log."""
    for name, broker in brokers.items():
        await try_within(name, broker.close())


async def try_within(name: str, work: Awaitable[None]) -> None:
    """Await *work* on a broker for at most five seconds; a failure is logged with *name*."""
    try:
        await asyncio.wait_for(work, _PATIENCE)
    except Exception as error:
        text = str(error) if isinstance(error, AutomateError) else type(error).__name__
        logger.warning("%s: %s", name, text)
