"""Requests for pages and their answers, the same for every web framework."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from urllib.parse import quote, unquote, urlencode

from automate_kernel.kernel import Kernel
from automate_pages.activity import ActivityHistory
from automate_pages.formats import utc
from automate_pages.operation_desk import OperationDesk
from automate_pages.users import Right, User

Tone = Literal["ok", "warn", "bad"]
WebhookPlaces = Callable[[str, str], "str | None"]
"""Gives the address, or the path, of a connector's trigger; None if webhooks don't come in."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self';"
    " img-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none';"
    " base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Vary": "Accept, Cookie, X-Automate-Part",
}  # fmt: skip
"""The headers of every answer."""


@dataclass(frozen=True, slots=True)
class PageLink:
    """An address with its label; *current* if it is where the reader is."""

    label: str
    url: str = ""
    current: bool = False


class SentFields(dict[str, str]):
    """The last value of each field that a browser sent; `every` has those of one name."""

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self.lists: dict[str, list[str]] = {}
        """All values of each field, in their order."""
        for name, value in pairs:
            self.lists.setdefault(name, []).append(value)
        super().__init__({name: values[-1] for name, values in self.lists.items()})

    def every(self, name: str) -> list[str]:
        """Return all values of one field, such as boxes that are ticked."""
        return self.lists.get(name, [])


@dataclass(frozen=True, slots=True)
class PageRequest:
    """
    A request for a page, by *user*, at *path* below *base*, the address of the pages' root.

    *query* and *form* are what the address and the body have; *part* asks for the changing part
    alone. *origin* is the scheme and the host of the pages, as the browser has them. *session* is
    the id of the user's session, empty if another program logs people in. *kept* is what the
    browser was given to keep by an earlier answer.
    The site adds the *operations* that may be called by a form, the *history* of its kernel, the
    place of its *webhooks*, and *local*, which gives the reader's time.
    """

    kernel: Kernel
    user: User
    path: str
    base: str = ""
    method: str = "GET"
    query: SentFields = field(default_factory=SentFields)
    form: SentFields = field(default_factory=SentFields)
    part: bool = False
    session: str = ""
    origin: str = ""
    kept: str = ""
    operations: OperationDesk | None = None
    history: ActivityHistory | None = None
    webhooks: str | WebhookPlaces | None = None
    local: Callable[[datetime], datetime] = utc

    def url(self, *parts: object, **query: str) -> str:
        """Return the address of a page: the *parts* of its path, and its *query*."""
        path = "/".join(quote(str(part), safe="") for part in parts)
        asked = urlencode({name: text for name, text in query.items() if text})
        return f"{self.base}/{path}{'?' if asked else ''}{asked}"

    def text(self, name: str) -> str:
        """Return a field of the query, trimmed and of bounded length."""
        return sent_text(self.query, name)

    @property
    def screen(self) -> str:
        """The screen that rights are needed on: ``outbox`` for an item; ``home`` for the first."""
        name = next(iter(path_parts(self.path)), "home")
        if name == "saved":  # which belongs to the list that it is saved for
            return next(iter(path_parts(self.form.get("page", ""))), "")
        return name

    def may(self, right: Right, screen: str = "") -> bool:
        """Return True if the user has *right*, on this screen or on another."""
        return self.user.may(right, screen or self.screen)

    def require(self, right: Right, screen: str = "") -> None:
        """Raise `PageError` if the user has not *right*, on this screen or on another."""
        if not self.may(right, screen):
            raise PageError(403, f"your roles don't let you {right} here")


def path_parts(path: str) -> tuple[str, ...]:
    """Return the parts of a page's path."""
    return tuple(unquote(part) for part in path.split("/") if part)


def sent_text(sent: Mapping[str, str], name: str) -> str:
    """Return a field that was *sent*, trimmed and of bounded length."""
    # No text in a database holds a NUL, and PostgreSQL raises for one.
    return sent.get(name, "").replace("\x00", "").strip()[:255]


def read_position(text: str) -> int:
    """Return the position in an address or a form, -1 for the step itself; raise `PageError`."""
    if text in ("", "-1", "whole"):
        return -1
    if text.isascii() and text.isdigit() and len(text) < 10:
        return int(text)
    raise PageError(404, "a list has no such element")


@dataclass(frozen=True, slots=True)
class PageAnswer:
    """A page: the *template* that shows it, and the *context* that it shows."""

    template: str
    title: str
    context: Mapping[str, Any] = field(default_factory=dict)
    crumbs: Sequence[PageLink] = ()
    live: bool = False
    """True if it changes by itself, so that it is looked at again while somebody sees it."""
    status: int = 200
    done: bool = False
    """True if an order was carried out, at least a part of it."""
    kept: str = ""
    """A text that the browser keeps for ten minutes, and shows to no script."""


@dataclass(frozen=True, slots=True)
class OrderAnswer:
    """The answer to an order that was carried out: where to look, and what was done."""

    url: str
    notice: str = ""
    tone: Tone = "ok"


@dataclass(frozen=True, slots=True)
class FileAnswer:
    """A file to keep, called *name*, whose *parts* are made as the browser takes them."""

    name: str
    media_type: str
    parts: Iterator[bytes]

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the answer, beside those that every answer has."""
        return {"Content-Disposition": f'attachment; filename="{self.name}"'}


Answer = PageAnswer | OrderAnswer | FileAnswer


class PageError(Exception):
    """A request that gets no page; *status* is its HTTP status."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
