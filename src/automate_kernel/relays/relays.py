"""
The relays of a kernel: the items by which events go out, and their handlers.

::

    event ─▶ worker: executions, and an item for each relay, in one transaction ─▶ Relay.send

Whatever way an event came in, a worker ends its item once, and there its relays get their items. An
item has the ordering key of its event, so those of one key go out one after the other.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from automate_kernel.base import runtime
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.operations.brokers import close_all, problems_of
from automate_kernel.operations.portal import Portal
from automate_kernel.outbox.item import (
    ACCEPTED_MAX_ATTEMPTS,
    LENGTHS,
    TRACE_HEADERS,
    NewItem,
    OutboxItem,
    scoped_key,
)
from automate_kernel.outbox.queries import OutboxStats
from automate_kernel.relays.cloud_events import CloudEvent
from automate_kernel.relays.relay import Relay
from automate_kernel.secrets.logs import get_logger
from automate_kernel.storage.codec import JsonText
from automate_kernel.storage.values import Redaction, encode_around
from automate_kernel.worker.handler import Handler, Snooze

logger = get_logger(__name__)

KIND = "automate.relay:"
"""The kind of a relay's items, before its name."""

RELAYED = "automate-relayed"
"""The header of an event that came from another system: it is not sent on."""

_SEND_SECONDS = 30.0
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 20.0
# What a service may ask for.
_LONGEST_WISH = 300.0
# So many failures one after the other say that the broker is away, and not that one event is odd.
_MOST_FAILURES = 3


class _RelayedItem(NewItem):
    """An item whose payload is a CloudEvent around the caller's own payload."""

    __slots__ = ()

    def _encoded(self, redact: Redaction | None = None) -> JsonText:
        return encode_around(self.payload, self.payload["data"], redact=redact)


@dataclass(slots=True)
class Route:
    """One relay as it is configured: its *name*, and the patterns of *events* that it sends."""

    name: str
    relay: Relay
    events: tuple[str, ...] = ("*",)
    failures: int = field(default=0, compare=False)
    """The failures since an event was sent."""
    pause: float = field(default=_FIRST_PAUSE, compare=False)
    again_at: float = field(default=0.0, compare=False)
    """The time, by the clock of `Relays`, until which nothing is tried."""
    problem: str = field(default="", compare=False)

    @property
    def kind(self) -> str:
        """The kind of its items."""
        return f"{KIND}{self.name}"

    def takes(self, event: str) -> bool:
        """Return True if it sends events of the name *event*."""
        return any(fnmatchcase(event, pattern) for pattern in self.events)


class Relays:
    """
    The relays of a kernel, by name.

    They send on the loop of *portal*. *clock* shows the seconds that pass.
    """

    def __init__(
        self,
        routes: Mapping[str, Route],
        portal: Portal,
        clock: Callable[[], float] = runtime.clock,
    ) -> None:
        self.routes: dict[str, Route] = dict(routes)
        """The relays by their names."""
        self._portal, self._clock = portal, clock

    def __bool__(self) -> bool:
        return bool(self.routes)

    def items(self, event: CloudEvent, cause: OutboxItem) -> Iterator[NewItem]:
        """Yield the items by which *event*, whose own item is *cause*, goes out."""
        if RELAYED in cause.headers:
            return  # else two systems that send to each other would do so for ever
        for route in self.routes.values():
            if route.takes(event.type):
                yield _RelayedItem(
                    route.kind, event.to_json(), priority=cause.priority,
                    tenant_id=cause.tenant_id, max_attempts=ACCEPTED_MAX_ATTEMPTS,
                    ordering_key=_ordering_key(route, cause),
                    headers={n: cause.headers[n] for n in TRACE_HEADERS if n in cause.headers},
                )  # fmt: skip

    def marks(self) -> tuple[str, ...]:
        """Return a mark for each relay, which changes with its name and its patterns."""
        return tuple(
            f"{KIND}{name}:{hashlib.sha256(repr(route.events).encode()).hexdigest()[:16]}"
            for name, route in sorted(self.routes.items())
        )

    def handlers(self) -> Iterator[Handler]:
        """Yield the handlers of the relays' items."""
        for route in self.routes.values():
            yield Handler(route.kind, _Sending(self, route))

    async def send(self, route: Route, item: OutboxItem) -> Snooze | None:
        """
        Send the event of *item*; return a `Snooze` where it has to wait, which spends no attempt.

        Raises `AutomateError` for an event that will never be taken.
        """
        wait = route.again_at - self._clock()
        if wait > 0:
            return _snooze(wait, route.problem)
        event = CloudEvent.from_json(item.payload)
        try:
            await self._portal.hand_over(_bounded(route.relay.send(event)))
        except AutomateError as error:
            if error.code is ErrorCodes.INVALID_ARGUMENT:
                raise
            return self._waits(route, error)
        if route.failures:
            logger.info("relay %r sends again", route.name)
            route.failures, route.pause, route.problem = 0, _FIRST_PAUSE, ""
        return None

    def _waits(self, route: Route, error: AutomateError) -> Snooze:
        now = self._clock()
        if not route.failures:
            logger.warning("relay %r: %s", route.name, error.message)
        route.failures += 1
        route.problem = f"{error.code}: {error.message}"
        pause = min(error.retry_after or route.pause, _LONGEST_WISH)
        if route.failures >= _MOST_FAILURES and now >= route.again_at:
            route.again_at = now + pause
            route.pause = min(_LONGEST_PAUSE, 2 * route.pause)
        return _snooze(pause, route.problem)

    def lags(self, stats: OutboxStats) -> dict[str, float]:
        """Return for each relay the age in seconds of the oldest event that it has not sent."""
        return {name: stats.ages.get(route.kind, 0.0) for name, route in self.routes.items()}

    async def problems(self) -> dict[str, list[str]]:
        """Return what keeps each relay from sending."""
        return {name: await problems_of(route.relay) for name, route in self.routes.items()}

    async def close(self) -> None:
        """Close them all."""
        await close_all({f"relay {name!r}": each.relay for name, each in self.routes.items()})


@dataclass(frozen=True, slots=True)
class _Sending:
    """The handler of one relay's items."""

    relays: Relays
    route: Route

    async def __call__(self, item: OutboxItem) -> Snooze | None:
        return await self.relays.send(self.route, item)


async def _bounded(work: Any) -> None:
    try:
        await asyncio.wait_for(work, _SEND_SECONDS)
    except asyncio.TimeoutError:
        text = f"it took longer than {_SEND_SECONDS:g} seconds"
        raise AutomateError(ErrorCodes.DEADLINE_EXCEEDED, text) from None


def _snooze(seconds: float, reason: str) -> Snooze:
    # Not all at the same moment: a broker that comes back would be flooded.
    return Snooze(seconds * runtime.numbers.uniform(1.0, 1.3), reason)


def _ordering_key(route: Route, cause: OutboxItem) -> str | None:
    if cause.ordering_key is None:
        return None
    key = f"{route.kind}:{cause.ordering_key}"
    if len(scoped_key(key, cause.tenant_id) or "") > LENGTHS["ordering_key"]:
        key = f"{route.kind}:{hashlib.sha256(cause.ordering_key.encode()).hexdigest()}"
    return key
