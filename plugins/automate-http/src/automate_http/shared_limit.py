"""Rate limits that all processes on a kernel's database keep together."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import anyio

from automate_http.rate_limit import RateLimiter
from automate_kernel.base.errors import StorageError
from automate_kernel.base.forks import new_lock
from automate_kernel.operations.call_rates import (
    PATIENCE_SECONDS,
    CallRate,
    CallRates,
    ServiceWait,
    no_count,
    off_the_loop,
    too_long,
    unanswered,
)

K = TypeVar("K")

# Places for so long are taken at once: the database is asked four times a second at most.
_SLICE_SECONDS = 0.25
_MOST_KEYS = 1_000


class SharedLimit:
    """
    The limit of *limiter* over all processes that share *rates*.

    A place is used at its time or not at all, so they never pass the pace together, and nothing is
    left of a process that dies. Without the database no request with a pace is sent. One without a
    pace of its own is sent: then only waits that this process was asked for are known.
    """

    def __init__(self, limiter: RateLimiter, rates: CallRates, name: tuple[str, ...]) -> None:
        self._limiter, self._rates, self._name = limiter, rates, name
        self._lines: dict[tuple[str, ...], _Line] = {}
        self._all_waits: dict[tuple[str, ...], ServiceWait] = {}

    async def reserve(self, key: str, shared: tuple[str, ...]) -> float:
        """
        Return the seconds to wait before the next request is sent, whose place is taken.

        *key* and *shared* name the account, here and in all processes. Raises
        ``RESOURCE_EXHAUSTED`` with ``retry_after``, and takes no place, if that is too long, and
        ``UNAVAILABLE`` if the database is away.
        """
        # A place from before a wait is over by its end: all of them would be used at once.
        while held := await self.held(key, shared):  # noqa: ASYNC110  (a clock sets no event)
            await anyio.sleep(held)
        line = self._line(shared)
        if line is None:
            return 0.0
        place = line.next()
        if place is not None:
            return place
        if self._rates.alone:
            return self._limiter.reserve(key)
        try:
            return await off_the_loop(line.take)
        except StorageError as error:
            raise no_count(str(error)) from error

    async def held(self, key: str, shared: tuple[str, ...]) -> float:
        """
        Return the seconds that the service has asked this process or another to wait.

        Raises ``RESOURCE_EXHAUSTED`` with ``retry_after`` if that is too long.
        """
        held = max(self._limiter.held(key), await self._waits(shared).look())
        if held > self._limiter.max_wait_seconds:
            raise too_long(held)
        return held

    async def hold(self, shared: tuple[str, ...], seconds: float) -> None:
        """Let all processes wait for so many *seconds*, as the service has asked this one."""
        line = self._line(shared)
        await self._waits(shared).hold(seconds, *([line.rate] if line else []))

    def _waits(self, shared: tuple[str, ...]) -> ServiceWait:
        name, clock = (*self._name, *shared), self._limiter.clock
        make = partial(ServiceWait, name, self._rates, clock)
        return self._found(self._all_waits, shared, make)

    def _line(self, shared: tuple[str, ...]) -> _Line | None:
        interval, burst = self._limiter.interval, self._limiter.burst
        if not interval:
            return None
        rate = CallRate(("pace", *self._name, *shared), interval, burst)
        make = partial(_Line, rate, self._rates, self._limiter)
        return self._found(self._lines, shared, make)

    def _found(
        self,
        kept: dict[tuple[str, ...], K],
        shared: tuple[str, ...],
        make: Callable[[], K],
    ) -> K:
        found = kept.get(shared)
        if found is None:
            if len(kept) >= _MOST_KEYS:
                # Places that were taken are lost with it, and others are taken.
                kept.clear()
            found = kept[shared] = make()
        return found


class _Line:
    """The places that this process has taken of one rate."""

    def __init__(self, rate: CallRate, rates: CallRates, limiter: RateLimiter) -> None:
        self.rate, self._rates = rate, rates
        self._clock, self._longest = limiter.clock, limiter.max_wait_seconds
        self._most = max(1, int(_SLICE_SECONDS / rate.interval))
        self._lock, self._taking = new_lock(), new_lock()
        self._places: deque[float] = deque()
        self._size, self._missed = 1, False

    def next(self) -> float | None:
        """Return the seconds until the next place that this process has, or None without any."""
        with self._lock:
            now = self._clock()
            while self._places:
                wait = self._places.popleft() - now
                if wait >= 0:
                    return wait
                # Used later it would come on top of those that others have then.
                self._missed = True
            return None

    def take(self) -> float:
        """Take places from the database, and return the seconds until the first."""
        if not self._taking.acquire(timeout=PATIENCE_SECONDS):
            raise unanswered()
        try:
            place = self.next()  # another thread's, which has just taken some
            if place is not None:
                return place
            # As many as were used up in time the last time, and more.
            self._size = 1 if self._missed else min(self._size * 2, self._most)
            first, *others = self._rates.take(self.rate, self._size, self._longest)
            with self._lock:
                now = self._clock()
                self._missed = False
                self._places.extend(now + each for each in others)
            return first
        finally:
            self._taking.release()
