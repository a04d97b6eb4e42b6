"""Rate limits of services: a pace to keep, and the waits that a service asks for."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from weakref import WeakValueDictionary

from automate_http.waits import header_wait
from automate_kernel.errors import AutomateError, ErrorCodes
from automate_kernel.forks import new_lock
from automate_kernel.operations.error_mapping import retry_after_of

_ASKS_TO_WAIT = frozenset({403, 429, 503})
_MOST_KEYS = 1_000
# GitHub's word for all that has no limit of its own, as its search has.
_WHOLE = "core"


@dataclass(slots=True)
class _Pace:
    free_at: float = -math.inf
    """The time from which a request has its full burst again."""
    blocked_until: float = -math.inf
    """The end of the wait that the service asked for."""


class RateLimiter:
    """
    The pace of requests in this process, for each *key* (a token, an account) on its own.

    At most *calls* go out in *per_seconds*, evenly; *burst* of them may go at once. Without *calls*
    only the service's own answers count: after 403, 429 or 503 with ``Retry-After``, and after
    ``X-RateLimit-Remaining: 0`` with ``X-RateLimit-Reset``, the next request waits. What is used up
    of a part of the service alone, as ``X-RateLimit-Resource`` names it, stops no other request.

    A request that would wait longer than *max_wait_seconds* is not sent. It fails with
    ``RESOURCE_EXHAUSTED`` and the time to try again, and its worker is free.
    """

    def __init__(
        self,
        calls: float | None = None,
        per_seconds: float = 1.0,
        *,
        burst: int = 1,
        max_wait_seconds: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if (calls is not None and calls <= 0) or per_seconds <= 0 or burst < 1:
            raise ValueError("calls and per_seconds are above 0, and burst is 1 or more")
        self._interval = per_seconds / calls if calls is not None else 0.0
        self._ahead = (burst - 1) * self._interval
        self._max_wait, self._clock = max_wait_seconds, clock
        self._lock = new_lock()
        self._paces: dict[str, _Pace] = {}

    def reserve(self, key: str = "") -> float:
        """
        Take the place of the next request, and return the seconds to wait before it is sent.

        Raises ``RESOURCE_EXHAUSTED`` with ``retry_after``, and takes no place, if that is too long.
        """
        with self._lock:
            now, pace = self._clock(), self._pace(key)
            begin = max(pace.free_at, now)
            wait = max(begin - self._ahead, pace.blocked_until, now) - now
            if wait <= self._max_wait:
                # A wait that the service asked for doesn't save up a burst.
                pace.free_at = max(begin, pace.blocked_until) + self._interval
                return wait
        raise AutomateError(
            ErrorCodes.RESOURCE_EXHAUSTED,
            f"the service's rate limit leaves no room for {wait:.0f} seconds",
            retry_after=wait,
        )

    def observe(self, status: int, headers: Mapping[str, str], key: str = "") -> None:
        """Heed the wait that an answer asks for. *headers* have names in lower case."""
        wait = retry_after_of(headers) if status in _ASKS_TO_WAIT else None
        if wait is None and headers.get("x-ratelimit-resource", _WHOLE) == _WHOLE:
            wait = header_wait(headers)
        if wait:
            with self._lock:
                pace = self._pace(key)
                pace.blocked_until = max(pace.blocked_until, self._clock() + wait)

    def _pace(self, key: str) -> _Pace:
        found = self._paces.get(key)
        if found is None:
            if len(self._paces) >= _MOST_KEYS:
                self._forget()
            found = self._paces[key] = _Pace()
        return found

    def _forget(self) -> None:
        now = self._clock()
        busy = {
            key: pace
            for key, pace in self._paces.items()
            if max(pace.free_at, pace.blocked_until) > now
        }
        # Keys without end are a mistake; forgetting a pace costs a 429 at worst.
        self._paces = busy if len(busy) < _MOST_KEYS else {}


_shared: WeakValueDictionary[str, RateLimiter] = WeakValueDictionary()
_sharing = new_lock()


def limiter_of(address: str) -> RateLimiter:
    """Return the limiter that the clients of the service at *address* share in this process."""
    # A service counts the requests of a token, whatever objects they come from.
    with _sharing:
        found = _shared.get(address)
        if found is None:
            found = _shared[address] = RateLimiter()
        return found
