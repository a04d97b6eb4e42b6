"""Requests of the API and what their handlers give, whatever server took them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit
from uuid import UUID

from automate_kernel.access.tokens import scope_allowed
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.http.api.problems import ApiError, NotThereError
from automate_kernel.http.operations import ExposedOperations
from automate_kernel.kernel import Kernel
from automate_kernel.storage.paging import LOOK
from automate_kernel.triggers.webhooks.request import BodyError, parse_json

Seen = TypeVar("Seen")

LOOKED = LOOK
"""The rows that one request looks through where no index serves its filter."""
_MOST_PLACES = 20
_ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def read_json_body(body: bytes) -> Any:
    r"""
    Return the JSON in *body*, an empty object for none; raises `BodyError`.

    Half a surrogate pair, as ``"\ud83d"``, is refused: no answer could hold it.
    """
    if not body.strip():
        return {}
    value = parse_json(body)
    if _ESCAPED_SURROGATE.search(body):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise BodyError("it has half a surrogate pair") from None
    return value


@dataclass(frozen=True, slots=True)
class ApiClient:
    """
    The author of a request: an *operator* sees all rows, others those of *tenant_id*.

    *name* and *roles* are a person's who decides, *id* is that of its token or user, and *key*
    differs between clients. *scopes* are those
    that it may pass on in a token, *user_id* is the user of a Django project that it acts for.
    *allows* says whether another route, by its name, is open to it too.
    """

    name: str
    key: str
    id: str = ""
    roles: tuple[str, ...] = ()
    tenant_id: str | None = None
    operator: bool = False
    scopes: frozenset[str] = frozenset()
    user_id: str | None = None
    allows: Callable[[str], bool] = field(default=lambda route: False, repr=False)

    def tenant_for(self, given: str | None) -> str | None:
        """Return the tenant to read or write for: its own, or for an operator the *given* one."""
        if self.operator:
            return given
        if self.tenant_id is None:
            raise ApiError(403, "You belong to no tenant.")
        if given not in (None, self.tenant_id):
            raise ApiError(403, "Only an operator can name a tenant.")
        return self.tenant_id

    @property
    def own_tenant(self) -> str | None:
        """The tenant whose rows alone it sees; None for an operator."""
        return self.tenant_for(None)

    def visible(self, found: Seen | None) -> Seen:
        """Return *found*, an item say; raises a 404 if it is not there or another tenant's."""
        if found is None or self.own_tenant not in (None, getattr(found, "tenant_id", None)):
            raise NotThereError
        return found

    def may_pass_on(self, scopes: Iterable[str]) -> bool:
        """Return True if it has all of *scopes* itself."""
        return all(scope_allowed(scope, self.scopes) for scope in scopes)


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """
    A request for a route: *query* and *body* have the fields that were sent, checked.

    *url* is the address that was asked for, *base* the path of the API's root. *page_sizes* are the
    usual and the largest number of rows on a page.
    """

    kernel: Kernel
    client: ApiClient
    operations: ExposedOperations
    url: str = "/"
    base: str = ""
    query: dict[str, Any] = field(default_factory=dict)
    body: dict[str, Any] = field(default_factory=dict)
    page_sizes: tuple[int, int] = (50, 200)
    idempotency_key: str | None = None

    @property
    def filters(self) -> dict[str, Any]:
        """The query with the tenant whose rows are meant, without its page."""
        given = {n: v for n, v in self.query.items() if n not in ("cursor", "page_size")}
        return {**given, "tenant_id": self.client.tenant_for(given.get("tenant_id"))}

    @property
    def command(self) -> dict[str, Any]:
        """The body with the tenant that is meant."""
        return {**self.body, "tenant_id": self.client.tenant_for(self.body.get("tenant_id"))}

    def page(self, read: Callable[..., Any], rows: str, **matching: Any) -> ApiPage:
        """
        Return the page that is asked for; *read* is the ``page`` method of a store.

        The cursor holds the places of the pages before, so that the client can go back.
        """
        usual, most = self.page_sizes
        cursor = self.query.get("cursor") or ""
        places = cursor.split(".") if cursor else []
        after = places[-1] if places else ""
        limit = min(self.query.get("page_size") or usual, most)
        try:
            found = read(after=after, limit=limit, **matching)
        except AutomateError as error:
            if after and error.code is ErrorCodes.INVALID_ARGUMENT:
                raise ApiError(404, "Invalid cursor") from None
            raise
        before = places[:-1]
        back = None if not places or before == [""] else self._at(before)
        onward = self._at([*places, found.after]) if found.after else None
        return ApiPage(getattr(found, rows), onward, back)

    def _at(self, places: list[str]) -> str:
        if len(places) > _MOST_PLACES:
            places = ["", *places[-_MOST_PLACES:]]
        parts = urlsplit(self.url)
        query = [each for each in parse_qsl(parts.query, True) if each[0] != "cursor"]
        query += [("cursor", ".".join(places))] if places else []
        return urlunsplit(parts._replace(query=urlencode(query)))


@dataclass(frozen=True, slots=True)
class ApiAnswer:
    """A status, a JSON value that is None for no body, and headers."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ApiPage:
    """A page of a list, and the addresses of the *next* and the *previous* one."""

    results: list[Any]
    next: str | None
    previous: str | None


@dataclass(frozen=True, slots=True)
class AcceptedExecution:
    """The *id* of an execution that begins; the answer leads to it."""

    id: str

    @property
    def path(self) -> str:
        """Its path below the API's root."""
        return f"/executions/{quote(self.id, safe='')}"


class WholeValue:
    """A value of the kernel's, with more attributes for its answer."""

    def __init__(self, value: object, **more: Any) -> None:
        self._value = value
        vars(self).update(more)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._value, name)


def require(done: Any, refusal: str) -> None:
    """Raise a 409 with *refusal* unless the store has *done* something."""
    if not done:
        raise ApiError(409, refusal, code="FAILED_PRECONDITION")


def uuid_of(text: str) -> str:
    """Return the id that *text* is; raises a 404 for an invalid one."""
    try:
        return str(UUID(text))
    except ValueError:
        raise NotThereError from None


def without(given: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Return *given* without the fields *names*."""
    return {name: value for name, value in given.items() if name not in names}
