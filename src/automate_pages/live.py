"""The changing part of a page: rendered once for everybody who looks at it, and told of by SSE."""

from __future__ import annotations

import asyncio
import re
import secrets
import signal
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from dataclasses import dataclass, field, fields, replace
from hashlib import sha256
from typing import Any

from automate_kernel.storage.rows import queries
from automate_pages.exchange import PageAnswer, PageRequest
from automate_pages.site import Site
from automate_pages.users import User

_STATEMENTS = 4.0
# All viewers of one address cost so many a second; who they are is asked for by another one.
_SOONEST = 1.0
_LOOK_SECONDS = 0.5
_STREAM_SECONDS = 300.0  # then the browser connects again, and its user is asked for again
_BEAT_SECONDS = 15.0  # so that a proxy, or a server that doesn't listen, notices who is gone
_MOST_STREAMS = 500
_MOST_PARTS = 200
_KEPT_SECONDS = 60.0
_FIND_SECONDS = 4.0
# Ages grow all the time, which is no change.
_AGES = re.compile(r"<time[^>]*>[^<]*")


@dataclass(frozen=True, slots=True)
class LivePart:
    """The changing part of a page. *live* says that it may change; *version* differs if it did."""

    html: str
    status: int
    live: bool
    version: bytes


@dataclass(slots=True, eq=False)
class _Shared:
    lock: threading.Lock = field(default_factory=threading.Lock)
    part: LivePart | None = None
    due: float = 0.0
    asked_at: float = 0.0
    personal: bool = False


class _NotingUser(User):
    """A user that notes whether a page reads more of it than its roles and its tenant."""

    personal: bool

    def __getattribute__(self, name: str) -> Any:
        if name in _PERSONAL:
            object.__setattr__(self, "personal", True)
        return super().__getattribute__(name)


_PERSONAL = {each.name for each in fields(User)} - {"roles", "rights", "tenant"}


class LiveParts:
    """
    Renders the changing parts of *site* for all viewers of the same address, tenant and roles.

    Each is kept for a second, and for longer if it takes many statements, so that a page with a
    hundred viewers costs the database no more than a page with one. A page that shows something of
    its user's own is rendered for each user, within the same bound.
    """

    def __init__(
        self,
        site: Site,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._site, self._clock, self._sleep = site, clock, sleep
        self._lock = threading.Lock()
        self._parts: OrderedDict[tuple[Any, Any], _Shared] = OrderedDict()
        # Nobody can guess it, so no payload can hold it.
        self._csrf = secrets.token_urlsafe(32)
        self._streams = 0
        self.stopped = False
        """Set when the server stops, so that streams end."""

    def part(self, request: PageRequest, csrf: str) -> LivePart:
        """Return the part at the request's address, with the *csrf* token of its viewer."""
        part = self._current(request)
        return replace(part, html=part.html.replace(self._csrf, csrf))

    def forget(self) -> None:
        """Render everything again at the next look: somebody has changed something here."""
        with self._lock:
            for shared in self._parts.values():
                shared.due = 0.0

    def _current(self, request: PageRequest) -> LivePart:
        for name in (None, request.user.name):
            shared = self._shared(request, name)
            with shared.lock:
                if name is None and shared.personal:
                    continue
                if shared.part is None or self._clock() >= shared.due:
                    # What all share knows nobody's session.
                    self._render(shared, request if name else replace(request, session=""))
                if shared.part is not None and (name is not None or not shared.personal):
                    return shared.part
        raise AssertionError  # a user's own part is always rendered

    def _known(self, request: PageRequest) -> LivePart | None:
        """Return what `_current` would return, or None if it would have to be rendered first."""
        shared = self._shared(request, None)
        if shared.personal:
            shared = self._shared(request, request.user.name)
        fresh = self._clock() < shared.due or shared.lock.locked()
        return shared.part if fresh else None

    def _shared(self, request: PageRequest, name: str | None) -> _Shared:
        user, now = request.user, self._clock()
        own = () if name is None else (name, request.session)
        key = (_address(request), (request.origin, user.tenant, user.roles, user.rights, *own))
        with self._lock:
            shared = self._parts.setdefault(key, _Shared())
            shared.asked_at = now
            self._parts.move_to_end(key)
            while len(self._parts) > _MOST_PARTS or self._oldest() < now - _KEPT_SECONDS:
                self._parts.popitem(last=False)
        return shared

    def _oldest(self) -> float:
        return next(iter(self._parts.values())).asked_at

    def _render(self, shared: _Shared, request: PageRequest) -> None:
        reader = object.__new__(_NotingUser)
        for each in fields(User):
            object.__setattr__(reader, each.name, getattr(request.user, each.name))
        object.__setattr__(reader, "personal", False)
        asked, before = replace(request, user=reader, part=True), queries.count
        page = self._site.answer(asked)
        assert isinstance(page, PageAnswer)  # noqa: S101 - no part is asked of a file
        html = self._site.render(asked, page, csrf=self._csrf, notice=None)
        version = sha256(_AGES.sub("", html).encode()).digest()
        shared.personal |= reader.personal
        shared.part = LivePart(html, page.status, self._site.is_live(page), version)
        cost = (queries.count - before) * self._variants(request)
        shared.due = self._clock() + max(_SOONEST, cost / _STATEMENTS)

    def _variants(self, request: PageRequest) -> int:
        """Return the number of parts at one address, for users who see it differently."""
        with self._lock:
            return sum(address == _address(request) for address, _ in self._parts)

    @property
    def full(self) -> bool:
        """True if there are so many streams that another viewer had better poll."""
        return self._streams >= _MOST_STREAMS

    async def stream(
        self, request: PageRequest, look: Callable[[], Awaitable[LivePart]]
    ) -> AsyncIterator[str]:
        """
        Yield an SSE message "changed" whenever the part at the request's address has changed.

        *look* renders the part on a thread. The stream ends when the part is final, when the server
        stops, and after five minutes.
        """
        self._streams += 1
        try:
            yield "retry: 2000\n\n"
            seen, beat = None, 0.0
            for _ in range(int(_STREAM_SECONDS / _LOOK_SECONDS)):
                if self.stopped or _is_stopping():
                    return
                part = self._known(request) or await look()
                if seen not in (None, part.version):
                    yield "data: changed\n\n"
                if not part.live:
                    return
                seen, beat = part.version, beat + _LOOK_SECONDS
                if beat >= _BEAT_SECONDS:
                    beat = 0.0
                    yield ":\n\n"
                await self._sleep(_LOOK_SECONDS)
        finally:
            self._streams -= 1


def _address(request: PageRequest) -> tuple[Any, ...]:
    fields = sorted((name, tuple(values)) for name, values in request.query.lists.items())
    return request.base, request.path, tuple(fields)


class Lookers:
    """
    The users who look at live pages. All of them are found by one look, every four seconds.

    *find* returns those of the browsers' secrets that count now.
    """

    def __init__(
        self,
        find: Callable[[Collection[str]], dict[str, tuple[User, str]]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._find, self._clock = find, clock
        self._lock = threading.Lock()
        self._found: dict[str, tuple[User, str]] = {}
        self._asked_at: dict[str, float] = {}
        self._due = 0.0

    def find(self, secret: str) -> tuple[User, str] | None:
        """Return the user with this secret, and the session; None for nobody."""
        with self._lock:
            now = self._clock()
            if now >= self._due:
                since = now - _KEPT_SECONDS
                recent = {each for each in self._found if self._asked_at[each] >= since}
                self._found = self._find(recent) if recent else {}
                self._asked_at = {each: self._asked_at[each] for each in self._found}
                self._due = now + _FIND_SECONDS
            if secret not in self._found:
                self._found |= self._find([secret])
            if secret in self._found:
                self._asked_at[secret] = now
            return self._found.get(secret)


def _is_stopping() -> bool:
    """Return True if uvicorn was told to stop: it waits for streams, and tells nobody before."""
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return bool(getattr(server, "should_exit", False))
