"""Rate limits of services: a pace to keep, and the waits that a service asks for."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from weakref import WeakValueDictionary

from automate_http.waits import header_wait
from automate_kernel.base.errors import ConfigError
from automate_kernel.base.forks import new_lock
from automate_kernel.operations.call_rates import LONGEST_WAIT_SECONDS, too_long
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
    The pace of requests, for each *key* (a token, an account) on its own.

    A `ServiceClient` with the context of a kernel keeps it over all processes on the kernel's
    database. All limiters of one *name* are one there. Without a name it is for one plugin, and is
    one with those of that plugin that allow the same. By itself it counts this process alone.

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
        name: str = "",
        max_wait_seconds: float = LONGEST_WAIT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if (calls is not None and calls <= 0) or per_seconds <= 0 or burst < 1:
            raise ValueError("calls and per_seconds are above 0, and burst is 1 or more")
        self.interval: float = per_seconds / calls if calls is not None else 0.0
        """The seconds between two requests at an even pace; 0 without a pace of its own."""
        self.burst: int = burst
        """The requests that may go at once."""
        self.name: str = name
        """The name by which all processes know it; empty without."""
        self.max_wait_seconds: float = max_wait_seconds
        """The longest wait; a request that would wait longer fails."""
        self.clock: Callable[[], float] = clock
        """The clock of this process, in seconds."""
        self._lock, self._plugin = new_lock(), ""
        self._paces: dict[str, _Pace] = {}

    def allowed(self, plugin: str) -> str:
        """
        Return what it allows, which names it among the limits of the plugin with that key.

        Raises `ConfigError` if it is another plugin's too: they would count apart.
        """
        if self._plugin not in ("", plugin):
            raise ConfigError(
                f"the plugins {self._plugin!r} and {plugin!r} share a rate limit without a name",
                hint='give it one: RateLimiter(…, name="…")',
            )
        self._plugin = plugin
        return f"{self.interval!r} seconds, {self.burst} at once"

    def reserve(self, key: str = "") -> float:
        """
        Take the place of the next request, and return the seconds to wait before it is sent.

        Raises ``RESOURCE_EXHAUSTED`` with ``retry_after``, and takes no place, if that is too long.
        """
        with self._lock:
            now, pace = self.clock(), self._pace(key)
            begin = max(pace.free_at, now)
            ahead = (self.burst - 1) * self.interval
            wait = max(begin - ahead, pace.blocked_until, now) - now
            if wait <= self.max_wait_seconds:
                # A wait that the service asked for doesn't save up a burst.
                pace.free_at = max(begin, pace.blocked_until) + self.interval
                return wait
        raise too_long(wait)

    def held(self, key: str = "") -> float:
        """Return the seconds that the service has asked this process to wait; takes no place."""
        with self._lock:
            return max(self._pace(key).blocked_until - self.clock(), 0.0)

    def observe(self, status: int, headers: Mapping[str, str], key: str = "") -> float:
        """
        Heed the wait that an answer asks for, and return it: 0 if it asks for none.

        *headers* have names in lower case.
        """
        wait = retry_after_of(headers) if status in _ASKS_TO_WAIT else None
        if wait is None and headers.get("x-ratelimit-resource", _WHOLE) == _WHOLE:
            wait = header_wait(headers)
        if wait:
            with self._lock:
                pace = self._pace(key)
                pace.blocked_until = max(pace.blocked_until, self.clock() + wait)
        return wait or 0.0

    def _pace(self, key: str) -> _Pace:
        found = self._paces.get(key)
        if found is None:
            if len(self._paces) >= _MOST_KEYS:
                self._forget()
            found = self._paces[key] = _Pace()
        return found

    def _forget(self) -> None:
        now = self.clock()
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
