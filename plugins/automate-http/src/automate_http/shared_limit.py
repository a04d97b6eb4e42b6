"""Rate limits that all processes on a kernel's database keep together."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import TypeVar

import anyio

from automate_http.rate_limit import RateLimiter
from automate_kernel.base.errors import AutomateError, ErrorCodes, StorageError
from automate_kernel.base.forks import new_lock
from automate_kernel.operations.call_rates import CallRate, CallRates, too_long

T = TypeVar("T")
K = TypeVar("K")
logger: logging.Logger = logging.getLogger(__name__)

# Places for so long are taken at once: the database is asked four times a second at most.
_SLICE_SECONDS = 0.25
# A wait that another process was asked for is known by then.
_LOOK_SECONDS = 1.0
# A database that has not answered by then is away.
_PATIENCE_SECONDS = 10.0
_MOST_KEYS = 1_000
_SILENT = "it does not answer"


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
        self._all_waits: dict[tuple[str, ...], _Waits] = {}

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
        return await _off_the_loop(line.take) if place is None else place

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
        lines = (self._waits(shared), self._line(shared))
        rates = [each.rate for each in lines if each is not None]

        def hold() -> None:
            for rate in rates:
                self._rates.hold(rate, seconds)

        try:
            await _off_the_loop(hold)
        except AutomateError as error:
            logger.warning("other processes don't know that a service asks to wait: %s", error)

    def _waits(self, shared: tuple[str, ...]) -> _Waits:
        return self._found(self._all_waits, shared, _Waits, CallRate((*self._name, *shared)))

    def _line(self, shared: tuple[str, ...]) -> _Line | None:
        interval, burst = self._limiter.interval, self._limiter.burst
        if not interval:
            return None
        rate = CallRate(("pace", *self._name, *shared), interval, burst)
        return self._found(self._lines, shared, _Line, rate)

    def _found(
        self,
        kept: dict[tuple[str, ...], K],
        shared: tuple[str, ...],
        kind: Callable[[CallRate, CallRates, RateLimiter], K],
        rate: CallRate,
    ) -> K:
        found = kept.get(shared)
        if found is None:
            if len(kept) >= _MOST_KEYS:
                # Places that were taken are lost with it, and others are taken.
                kept.clear()
            found = kept[shared] = kind(rate, self._rates, self._limiter)
        return found


class _Waits:
    """The wait that a service has asked some process for, as this one knows it."""

    def __init__(self, rate: CallRate, rates: CallRates, limiter: RateLimiter) -> None:
        self.rate, self._rates, self._clock = rate, rates, limiter.clock
        self._lock = new_lock()
        self._looks_at = self._until = float("-inf")
        self._warned = False

    async def look(self) -> float:
        """Return the seconds that are left of it; the database is asked once in a second."""
        with self._lock:
            now = self._clock()
            known, fresh = max(self._until - now, 0.0), now < self._looks_at
            if not fresh:
                self._looks_at = now + _LOOK_SECONDS
        if fresh:
            return known
        try:
            wait = await _off_the_loop(lambda: self._rates.wait(self.rate))
        except AutomateError as error:
            if not self._warned:
                text = "waits that a service asks other processes for are unknown: %s"
                logger.warning(text, error)
            self._warned = True
            return known
        with self._lock:
            self._warned = False
            self._until = self._clock() + wait
        return wait


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
        if not self._taking.acquire(timeout=_PATIENCE_SECONDS):
            raise _away(_SILENT)
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
        except StorageError as error:
            raise _away(str(error)) from error
        finally:
            self._taking.release()


async def _off_the_loop(work: Callable[[], T]) -> T:
    """Do *work* on a thread: the database may let one wait. Raises ``UNAVAILABLE`` if it does."""
    try:
        with anyio.fail_after(_PATIENCE_SECONDS):
            return await asyncio.to_thread(work)
    except TimeoutError:
        raise _away(_SILENT) from None


def _away(reason: str) -> AutomateError:
    return AutomateError(
        ErrorCodes.UNAVAILABLE,
        f"the database can't count the calls to the service, so none is made: {reason}",
        hint="`retry` of the step makes it once the database answers",
    )
