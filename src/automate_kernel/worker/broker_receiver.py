"""The receiver of what brokers deliver to a worker: one task for each, one transaction for many."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Generic, TypeVar

from automate_kernel.base.errors import AutomateError
from automate_kernel.base.forks import renew_in_children
from automate_kernel.operations.portal import Portal
from automate_kernel.secrets.logs import get_logger

logger = get_logger(__name__)

T = TypeVar("T")
Taking = Callable[[T], Awaitable[None]]
"""Takes one thing that was delivered; it raises for what has to come again."""
Delivery = Callable[[Taking[T]], Awaitable[None]]
"""Hands over what a broker delivers, until it is cancelled."""

_PAUSE = 2.0


class BrokerReceiver(Generic[T]):
    """
    Receives what the brokers of *deliveries* deliver, by their names in the log.

    *take* takes what comes at the same time, on a thread, and returns for each the error for which
    it has to come again. A delivery that ends begins again after a moment.
    """

    def __init__(
        self,
        deliveries: Mapping[str, Delivery[T]],
        take: Callable[[Sequence[T]], Sequence[Exception | None]],
        portal: Portal,
    ) -> None:
        self._deliveries, self._take, self._portal = dict(deliveries), take, portal
        self.renew()
        renew_in_children(self)

    def renew(self) -> None:
        """Forget the loop's tasks, which are another process's."""
        self._receiving: list[asyncio.Task[None]] = []
        self._begun = self._closed = False
        self._come: list[tuple[T, asyncio.Future[None]]] = []
        self._taking: asyncio.Task[None] | None = None

    @property
    def needed(self) -> bool:
        """True if there is a broker that delivers."""
        return bool(self._deliveries)

    def look(self) -> None:
        """Let all be received from now on, unless it is."""
        if not self._begun:
            self._begun = True
            self._portal.call_soon(self._begin)

    def close(self) -> None:
        """Receive nothing more; what is on its way comes again, to another worker."""
        self._closed = True
        if self._begun:
            self._portal.call_soon(self._end)

    def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        for name, delivery in self._deliveries.items():
            if not self._closed:
                self._receiving.append(loop.create_task(self._receive(name, delivery)))

    def _end(self) -> None:
        for receiving in self._receiving:
            receiving.cancel()

    async def _receive(self, name: str, delivery: Delivery[T]) -> None:
        while not self._closed:
            try:
                await delivery(self._take_one)
            except AutomateError as error:
                logger.warning("%s: %s", name, error.message)
            except Exception:
                logger.exception("%s: nothing can be received", name)
            await asyncio.sleep(_PAUSE)

    async def _take_one(self, one: T) -> None:
        """Take *one* with those that come at the same time."""
        taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._come.append((one, taken))
        if self._taking is None:
            self._taking = asyncio.get_running_loop().create_task(self._take_all())
        await taken

    async def _take_all(self) -> None:
        try:
            while self._come:
                come, self._come = self._come, []
                given, errors = [one for one, _ in come], list[Exception | None]()
                try:
                    errors += await asyncio.to_thread(self._take, given)
                except Exception as problem:
                    errors += [problem] * len(come)
                for (_, taken), error in zip(come, errors, strict=True):
                    if taken.done():
                        continue
                    if error is None:
                        taken.set_result(None)
                    else:
                        taken.set_exception(error)
        finally:
            self._taking = None
