"""
A client for one service, which plugins use in place of an HTTP library.

Everything that a service can do to its caller is bounded and has its code: see `ServiceClient`.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Collection, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

import anyio
import httpx
from pydantic_core import to_jsonable_python
from typing_extensions import TypeVar

from automate_http.addresses import AddressPolicy
from automate_http.answers import as_type, read_answer
from automate_http.auth import Auth, Credentials
from automate_http.blocking import blocking
from automate_http.body import ACCEPT_ENCODING
from automate_http.content import encode_form, encode_json
from automate_http.exchange import Bounds, Reply, exchange
from automate_http.failures import failure_of
from automate_http.guard import Guard, Resolver, origin, resolve
from automate_http.headers import call_key, check_headers, checked_headers, key_as_header
from automate_http.pages import Following, Page, Pages
from automate_http.rate_limit import RateLimiter, limiter_of
from automate_http.redirects import REDIRECTS
from automate_http.shared_limit import SharedLimit
from automate_http.transports import Transports
from automate_http.urls import (
    Query,
    Scalar,
    full_url,
    parse_base_url,
    require_encrypted,
    utf8,
    with_host,
    with_query,
)
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.operations.context import PluginContext, current_call
from automate_kernel.operations.portal import Portal
from automate_kernel.secrets import Redactor

T = TypeVar("T", default=Any)
Form = Mapping[str, Scalar | list[Scalar]]

_MIB = 1024 * 1024
_PART = re.compile(r"\{(\w+)\}")
_UNAUTHORIZED, _SERVER_ERROR = 401, 500


@dataclass(frozen=True, slots=True)
class _Request:
    """A request before its credentials: they are read again for each attempt."""

    method: str
    url: httpx.URL
    headers: Mapping[str, str] = field(repr=False)
    content: bytes = field(repr=False)


class ServiceClient:
    """
    A client for the service at *base_url*.

    ::

        self.client = ServiceClient("https://api.example.com/v1", ctx=ctx, auth=BearerAuth("TOKEN"))
        user = await self.client.aget("/users/{id}", id=user_id, returns=User)

    Each method exists twice: `aget` for ``async def`` actions, `get` for plain ones. Words in
    braces are parts of the path, given by name, and can't lead elsewhere. *returns* is the type of
    the answer: a pydantic model, ``list[User]``, ``str``, ``bytes``; any JSON without it.

    Requests go to the service's own host, and redirects to public addresses only, unless
    *allow_private_networks* names others. A client with *auth* asks over http on this machine
    alone, unless *allow_plain_http*; else making it raises `ConfigError`. Time, length and
    redirects are bounded. Every failure is an `AutomateError` whose code says whether to try again;
    none shows a credential, a path or a query. *auth* reads its secrets from *ctx* for each
    request. Connections are kept until `close` or `aclose`, so make one client for each instance of
    a plugin.

    The waits that a service asks for are those of all clients in the process with its address and
    the same credentials, and of this plugin in all processes on the kernel's database. A
    *rate_limit* of your own is for the clients that you give it to, in all of these processes.

    With *idempotency_header* a request that changes something carries a key, which is the same
    when a later attempt of the step sends the same request again.
    """

    def __init__(
        self,
        base_url: str,
        *,
        ctx: PluginContext | None = None,
        auth: Auth | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_seconds: float = 30.0,
        max_response_bytes: int = 5 * _MIB,
        max_redirects: int = 5,
        allow_private_networks: bool | list[str] = False,
        allow_plain_http: bool = False,
        ca_file: str | None = None,
        idempotency_header: str | None = None,
        rate_limit: RateLimiter | None = None,
        resolver: Resolver = resolve,
    ) -> None:
        self._base = parse_base_url(base_url)
        if auth is not None:
            require_encrypted(self._base, allow_plain_http=allow_plain_http)
        self._ctx = ctx if ctx is not None else PluginContext(key="http")
        self._auth = auth
        self._headers = checked_headers(headers)
        self._bounds = Bounds(timeout_seconds, max_response_bytes, max_redirects)
        self._idempotency_header = idempotency_header and idempotency_header.lower()
        self._own_limit = rate_limit is not None
        self._rate_limit = rate_limit or limiter_of(str(self._base))
        self._shared_limit = self._shared()
        guard = Guard(AddressPolicy.parse(allow_private_networks), None, resolver)
        guard.check_url(self._base)
        self._transports = Transports(
            guard, ca_file=ca_file, owner=f"the client of {self._ctx.key!r}"
        )
        self._portal = Portal()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {origin(self._base)}>"

    # -- requests ----------------------------------------------------------------------------

    async def arequest(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        json: Any = None,
        form: Form | None = None,
        headers: Mapping[str, str] | None = None,
        returns: type[T] | None = None,
        **parts: Scalar,
    ) -> T:
        """
        Send a request and return its answer as *returns*.

        *json* may be a model. Raises `AutomateError` for a status of 400 or more, and for an answer
        that can't be read.
        """
        return await self._call(method, path, query, json, form, returns, parts, headers)

    request = blocking(arequest)
    """Do the same as `arequest`, and block until the answer is there."""

    async def asend(
        self,
        method: str,
        path: str,
        *,
        content: bytes = b"",
        headers: Mapping[str, str] | None = None,
        answers: Collection[int] = (),
    ) -> Reply:
        """
        Send bytes, and return the reply as it is: for bodies and answers that are no JSON.

        *path* is sent as it is written, with its query. Raises `AutomateError` for a status of 400
        or more, unless it is one of *answers*: some services say in a 404 what is missing.
        """
        named = {**self._headers, **checked_headers(headers)}
        return await self._answered(_Request(method, self._url(path, {}), named, content), answers)

    send = blocking(asend)
    """Do the same as `asend`, and block until the answer is there."""

    async def aget(
        self,
        path: str,
        *,
        query: Query | None = None,
        returns: type[T] | None = None,
        **parts: Scalar,
    ) -> T:
        """Get what is at *path*."""
        return await self._call("GET", path, query, None, None, returns, parts)

    get = blocking(aget)
    """Do the same as `aget`, and block until the answer is there."""

    async def apost(
        self,
        path: str,
        *,
        query: Query | None = None,
        json: Any = None,
        form: Form | None = None,
        returns: type[T] | None = None,
        **parts: Scalar,
    ) -> T:
        """Send *json* or a *form* to *path*."""
        return await self._call("POST", path, query, json, form, returns, parts)

    post = blocking(apost)
    """Do the same as `apost`, and block until the answer is there."""

    # -- lists -------------------------------------------------------------------------------

    async def aitems(
        self,
        path: str,
        *,
        pages: Pages,
        query: Query | None = None,
        returns: type[T] | None = None,
        max_items: int | None = None,
        max_pages: int = 1_000,
        headers: Mapping[str, str] | None = None,
        **parts: Scalar,
    ) -> AsyncIterator[T]:
        """
        Yield the items of a list that comes in *pages*, each as *returns*.

        It ends after *max_items*, and gets no page that nobody asks for. A list of more than
        *max_pages*, a page that was there before, and one on another host raise
        ``FAILED_PRECONDITION``: a list that is cut short in silence is worse than an error.
        """
        left = max_items
        named = {**self._headers, **checked_headers(headers)}
        url = self._url(_filled(path, parts), {**(query or {}), **pages.first()})
        first = _Request("GET", url, named, b"")
        async for reply, found in self._pages(first, pages, max_pages, max_items):
            for item in found if left is None else found[:left]:
                value: T = item if returns is None else as_type(item, returns, reply)
                yield value
            if left is not None and (left := left - len(found)) <= 0:
                return

    def items(
        self,
        path: str,
        *,
        pages: Pages,
        query: Query | None = None,
        returns: type[T] | None = None,
        max_items: int | None = None,
        max_pages: int = 1_000,
        headers: Mapping[str, str] | None = None,
        **parts: Scalar,
    ) -> Iterator[T]:
        """Do the same as `aitems`, and block for each page."""
        found = self.aitems(
            path, pages=pages, query=query, returns=returns, max_items=max_items,
            max_pages=max_pages, headers=headers, **parts,
        )  # fmt: skip
        end: Any = object()

        async def following() -> T:
            return await anext(found, end)

        while (item := self._run(following())) is not end:
            yield item

    async def _pages(
        self, first: _Request, pages: Pages, max_pages: int, most: int | None
    ) -> AsyncIterator[tuple[Reply, list[Any]]]:
        url = first.url
        seen: set[str] = set()
        before, page = 0, None
        for position in range(max_pages):
            if str(url) in seen:
                raise self._astray("leads to a page that was there before")
            seen.add(str(url))
            try:
                reply = await self._answered(replace(first, url=url))
            except AutomateError as refusal:
                if page is not None and pages.ends_before(page, refusal):
                    return
                raise
            content = read_answer(reply, None)
            found = pages.items_of(content)
            yield reply, found
            page = Page(content, reply.headers, position, len(found), before)
            before += len(found)
            following = pages.following(page)
            if following is None or (most is not None and before >= most):
                return
            url = self._next_url(url, following)
        raise self._astray(f"has more than {max_pages} pages", hint="raise max_pages")

    def _next_url(self, url: httpx.URL, following: Following) -> httpx.URL:
        if not isinstance(following, str):
            return with_query(url, following or {})
        try:
            target = with_host(url.join(following)).copy_with(fragment=None)
        except (httpx.InvalidURL, ValueError):
            raise self._astray("leads to a URL that can't be read") from None
        if origin(target) != origin(self._base) or target.userinfo:
            # It would get the credentials.
            raise self._astray("leads to another host")
        return target

    def _astray(self, problem: str, hint: str | None = None) -> AutomateError:
        return AutomateError(
            ErrorCodes.FAILED_PRECONDITION, f"the list of {origin(self._base)} {problem}", hint=hint
        )

    # -- one request -------------------------------------------------------------------------

    async def _call(
        self,
        method: str,
        path: str,
        query: Query | None,
        json: Any,
        form: Form | None,
        returns: type[T] | None,
        parts: Mapping[str, Scalar],
        headers: Mapping[str, str] | None = None,
    ) -> T:
        content, kind = _body(json, form)
        named = checked_headers(headers)
        request = _Request(
            method,
            self._url(_filled(path, parts), query or {}),
            {**({"content-type": kind} if kind else {}), **self._headers, **named},
            content,
        )
        found: T = read_answer(await self._answered(request), returns)
        return found

    async def _answered(self, request: _Request, answers: Collection[int] = ()) -> Reply:
        """Return the answer to *request*, with new credentials once if they are refused."""
        reply, used = await self._attempt(request)
        auth = self._auth if reply.status == _UNAUTHORIZED else None
        if auth is not None and await auth.renew(self._ctx.secrets, used):
            reply, used = await self._attempt(request)
        if 200 <= reply.status < 300 or reply.status in answers:
            return reply
        if reply.status in REDIRECTS and self._bounds.max_redirects == 0:
            return reply
        raise self._failure(reply, used)

    async def _attempt(self, request: _Request) -> tuple[Reply, Credentials]:
        used = Credentials()
        if self._auth is not None:
            used = await self._auth.credentials(self._ctx.secrets)
            check_headers(used.headers)
        limited, shared = self._limit_keys(used)
        await self._wait_for_turn(limited, shared)
        headers = {
            "accept": "application/json, */*;q=0.5",
            "user-agent": f"automate-{self._ctx.key}",
            **request.headers,
            **self._idempotency(request),
            **used.headers,
            "accept-encoding": ACCEPT_ENCODING,
        }
        if "cookie" in request.headers and "cookie" in used.headers:
            headers["cookie"] = f"{request.headers['cookie']}; {used.headers['cookie']}"
        if request.content or request.method in ("POST", "PUT", "PATCH"):
            headers["content-length"] = str(len(request.content))
        url = with_query(request.url, used.query)
        sent = httpx.Request(request.method, url, headers=headers, content=request.content)
        reply = await exchange(self._transports.get(), sent, self._bounds)
        asked = self._rate_limit.observe(reply.status, reply.headers, limited)
        if asked and self._shared_limit is not None:
            await self._shared_limit.hold(shared, asked)
        return reply, used

    async def _wait_for_turn(self, limited: str, shared: tuple[str, ...]) -> None:
        own, all_ = self._rate_limit, self._shared_limit
        while True:
            wait = await all_.reserve(limited, shared) if all_ else own.reserve(limited)
            if wait <= 0:
                return
            await anyio.sleep(wait)
            # It is over if the service has asked to wait meanwhile.
            if not (await all_.held(limited, shared) if all_ else own.held(limited)):
                return

    def _shared(self) -> SharedLimit | None:
        key, limit = self._ctx.key, self._rate_limit
        if self._ctx.call_rates is None:
            return None
        name: tuple[str, ...] = (key, str(self._base))
        if self._own_limit:
            name = ("limit", limit.name) if limit.name else ("limit of", key, limit.allowed(key))
        return SharedLimit(limit, self._ctx.call_rates, name)

    def _limit_keys(self, used: Credentials) -> tuple[str, tuple[str, ...]]:
        """Return the key of the account's limits in this process, and that in all of them."""
        if self._own_limit:
            return "", ()
        call = current_call()
        return used.limit_key(), used.shared_key(call.tenant_id if call is not None else None)

    def _failure(self, reply: Reply, used: Credentials) -> AutomateError:
        # Those of this request too: without a kernel nothing else knows them.
        own = Redactor(used.values)
        error = failure_of(reply, lambda text: own.redact(self._ctx.redact(text)))
        if reply.status == _SERVER_ERROR:
            # INTERNAL is a mistake in the plugin; this is the service's.
            error.code = ErrorCodes.UNAVAILABLE
        if reply.status == _UNAUTHORIZED and self._auth is not None:
            error.hint = self._auth.hint or None
        return error

    def _url(self, path: str, query: Query) -> httpx.URL:
        url = full_url(path, query, self._base)
        if origin(url) != origin(self._base):
            raise AutomateError(
                ErrorCodes.INVALID_ARGUMENT, f"the URL is not one of {origin(self._base)}"
            )
        return url

    def _idempotency(self, request: _Request) -> dict[str, str]:
        key, name = call_key(request.method), self._idempotency_header
        if not name or key is None:
            return {}
        # An action may send several requests, which must not count as one.
        about = f"{key}\n{request.method}\n{request.url}\n".encode("utf-8", "surrogatepass")
        return {name: key_as_header(hashlib.sha256(about + request.content).hexdigest())}

    # -- loops -------------------------------------------------------------------------------

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._portal.run(work)
        work.close()
        raise AutomateError(
            ErrorCodes.FAILED_PRECONDITION,
            "a method that blocks was called on an event loop",
            hint="await its twin, such as aget()",
        )

    async def aclose(self) -> None:
        """Close the connections. The client opens new connections if it is used again."""
        await self._transports.aclose_here()
        # Each loop closes its own: the portal ends when it is done with that.
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """Do the same as `aclose`, and block until it is done; from anywhere."""
        if not self._transports.empty:
            # Not on the caller's loop, which may be the one that closes an application.
            self._portal.run(self._transports.aclose())
        self._portal.close()


def _filled(path: str, parts: Mapping[str, Scalar]) -> str:
    """Put *parts* into *path*, each quoted so that it stays one part."""
    names = set(_PART.findall(path))
    if names != parts.keys():
        odd = ", ".join(sorted(names ^ parts.keys()))
        raise TypeError(f"the path {path!r} and the parts that were given differ: {odd}")
    return _PART.sub(lambda match: _quoted(match[1], parts[match[1]]), path)


def _quoted(name: str, value: Scalar) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if text in ("", ".", ".."):
        # An empty one would mean the whole collection, for DELETE too.
        raise AutomateError(
            ErrorCodes.INVALID_ARGUMENT, f"the part {name!r} of the path can't be {text!r}"
        )
    return quote(utf8(text), safe="")


def _body(json: Any, form: Form | None) -> tuple[bytes, str | None]:
    if json is not None and form is not None:
        raise TypeError("json and form are two kinds of body; give one")
    if form is not None:
        return encode_form(form), "application/x-www-form-urlencoded"
    if json is not None:
        return encode_json(to_jsonable_python(json, by_alias=True)), "application/json"
    return b"", None
