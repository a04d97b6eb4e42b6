"""Pages of a list, and the ways in which services lead from one to the next."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from automate_http.urls import Scalar
from automate_kernel.base.errors import AutomateError, ErrorCodes

_LINK = re.compile(r"<([^<>]*)>([^<>]*)")
_NEXT = re.compile(r""";\s*rel\s*=\s*(?:"([^"]*)"|([^\s;,"]+))""", re.IGNORECASE)

Following = str | Mapping[str, Scalar] | None
"""The next page: its URL, or the query parameters that differ from this page's; None if none."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page as it was answered: its *content* as JSON, its place from 0, the items so far."""

    content: Any
    headers: Mapping[str, str]
    position: int
    count: int
    """The number of items in it."""
    before: int
    """The number of items in the pages before it."""


class Pages(ABC):
    """A way from one page to the next. *items* is the dotted name of the list in the answer."""

    def __init__(self, items: str = "") -> None:
        self.items = items

    def first(self) -> Mapping[str, Scalar]:
        """Return the query parameters of the first page."""
        return {}

    @abstractmethod
    def following(self, page: Page) -> Following:
        """Return the page after *page*, or None if it is the last."""

    def ends_before(self, page: Page, refusal: AutomateError) -> bool:
        """Return True if *refusal* of what follows on *page* says that nothing follows."""
        return False

    def items_of(self, content: Any) -> list[Any]:
        """Return the list of items in an answer."""
        found = field_of(content, self.items) if self.items else content
        if not isinstance(found, list):
            place = f"its field {self.items!r}" if self.items else "it"
            raise AutomateError(
                ErrorCodes.FAILED_PRECONDITION, f"the service's page is not as expected: {place} "
                "is not a list",
            )  # fmt: skip
        return found


class NextLink(Pages):
    """The next page's URL is in the ``Link`` header, or in the answer's *field*."""

    def __init__(self, field: str = "", *, items: str = "") -> None:
        super().__init__(items)
        self._field = field

    def following(self, page: Page) -> Following:
        """Return the URL."""
        if not self._field:
            return _linked(page.headers.get("link", ""))
        found = field_of(page.content, self._field)
        if found and not isinstance(found, str):
            raise _no_place(self._field, "a URL")
        return found or None


class Cursor(Pages):
    """The answer's *field* is the next page's query parameter *parameter*."""

    def __init__(self, field: str, parameter: str = "cursor", *, items: str = "") -> None:
        super().__init__(items)
        self._field, self._parameter = field, parameter

    def following(self, page: Page) -> Following:
        """Return the cursor."""
        found = field_of(page.content, self._field)
        # An empty object is how PHP writes nothing; 0 is a place.
        if found is False or found in (None, "", [], {}):
            return None
        if not isinstance(found, (str, int, float)) or found is True:
            raise _no_place(self._field, "text or a number")
        return {self._parameter: found}


class PageNumber(Pages):
    """
    The query parameter *parameter* counts pages, from *start*.

    The last page is the first that is empty or, where *size* is given, holds fewer items than those
    before it. A first page with fewer than *size* items is the last too, if the service refuses the
    second page. *size* is sent as *size_parameter*.
    """

    def __init__(
        self,
        parameter: str = "page",
        *,
        start: int = 1,
        size: int | None = None,
        size_parameter: str = "per_page",
        items: str = "",
    ) -> None:
        super().__init__(items)
        self._parameter, self._start = parameter, start
        self._size, self._size_parameter = size, size_parameter

    def first(self) -> Mapping[str, Scalar]:
        """Return the first page's number, and the size."""
        size = {} if self._size is None else {self._size_parameter: self._size}
        return {self._parameter: self._start, **size}

    def following(self, page: Page) -> Following:
        """Return the next number."""
        # Of what came, not of what was asked for: services lower a size that they find too high.
        full = page.before / page.position if self._size is not None and page.position else 1
        return {self._parameter: self._start + page.position + 1} if page.count >= full else None

    def ends_before(self, page: Page, refusal: AutomateError) -> bool:
        """Return True for the first page if it was not full, and so may have been the last."""
        short = self._size is not None and page.position == 0 and page.count < self._size
        return short and refusal.code in (ErrorCodes.NOT_FOUND, ErrorCodes.INVALID_ARGUMENT)


class Offset(Pages):
    """
    The query parameter *parameter* is the number of items to leave out, *limit* the page's size.

    The last page is the first that is empty.
    """

    def __init__(
        self,
        limit: int = 100,
        *,
        parameter: str = "offset",
        limit_parameter: str = "limit",
        items: str = "",
    ) -> None:
        super().__init__(items)
        self._limit, self._parameter, self._limit_parameter = limit, parameter, limit_parameter

    def first(self) -> Mapping[str, Scalar]:
        """Return the size of pages."""
        return {self._parameter: 0, self._limit_parameter: self._limit}

    def following(self, page: Page) -> Following:
        """Return the next offset."""
        # Of what came, not of what was asked for: services lower a limit that they find too high.
        return {self._parameter: page.before + page.count} if page.count else None


def field_of(content: Any, name: str) -> Any:
    """Return what is at the dotted *name* in *content*, or None."""
    for part in name.split("."):
        content = content.get(part) if isinstance(content, Mapping) else None
    return content


def _no_place(name: str, wanted: str) -> AutomateError:
    # Without it the list would be cut in silence.
    return AutomateError(
        ErrorCodes.FAILED_PRECONDITION,
        f"the service's page is not as expected: its field {name!r} is not {wanted}",
        hint=f"name the field that is: {name}.href, perhaps",
    )


def _linked(header: str) -> str | None:
    for url, options in _LINK.findall(header):
        named = _NEXT.search(options)
        if named and "next" in (named[1] or named[2] or "").lower().split():
            return str(url)
    return None
