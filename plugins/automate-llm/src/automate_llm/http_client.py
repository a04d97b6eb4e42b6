"""
The HTTP client of a service: its answers are bounded, in bytes and in time, and not redirected.

The libraries of the services read answers of any size, for as long as a byte comes now and then.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import suppress
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

import anyio

from automate_kernel import AutomateError, ErrorCodes, ProviderContext
from automate_kernel.operations.call_rates import ServiceWait
from automate_kernel.secrets.logs import guard_loggers, quiet

if TYPE_CHECKING:
    from automate_llm.config import LlmService

T = TypeVar("T")

_CONNECT_SECONDS = 10.0
_PLAIN = ("", "identity")
# What comes in one piece; any other type may be a stream.
_WHOLE = ("application/json", "text/html", "text/plain")
UNREADABLE = "the service's answer can't be read; a proxy's page, perhaps"
"""The words for an answer that isn't the service's."""


class HttpClients:
    """The HTTP clients that the provider of *ctx* has made for its *services*."""

    def __init__(self, ctx: ProviderContext, services: Mapping[str, LlmService]) -> None:
        self._transports: list[_Transport] = []
        about = ("provider", ctx.key, ctx.tenant_id or "")
        self._waits = {
            id(service): ServiceWait((*about, name), ctx.call_rates)
            for name, service in services.items()
        }

    def client_for(self, provider: type, service: LlmService) -> Any:
        """Return a client for Pydantic AI's *provider*, or None if it takes none."""
        taken = inspect.signature(provider).parameters.get("http_client")
        if taken is None:
            return None
        library = _library_of(str(taken.annotation))
        made: Any = type("_BoundedTransport", (_Transport, library.AsyncBaseTransport), {})
        transport = made(library, service, self._waits[id(service)])
        self._transports.append(transport)
        guard_loggers(library.__name__, "httpcore", "httpcore2")
        client: Any = type("_QuietClient", (_Quiet, library.AsyncClient), {})
        # A packed answer has no size that could be bounded before it is unpacked.
        return _without_cookies(
            client(
                transport=transport,
                headers={"Accept-Encoding": "identity"},
                timeout=library.Timeout(service.timeout_seconds, connect=_CONNECT_SECONDS),
            )
        )

    async def aclose(self) -> None:
        """Close the connections of all of them."""
        for transport in self._transports:
            await transport.aclose()


def _library_of(annotation: str) -> Any:
    """Return httpx2, or httpx where a provider has not moved there or Python is too old for it."""
    if not annotation.startswith("httpx."):
        with suppress(ImportError):
            return importlib.import_module("httpx2")
    return importlib.import_module("httpx")


class _Quiet:
    """
    A client that logs no request: the base URL may hold a secret.

    There would be two lines for each, as another client is below it.
    """

    async def send(self, *request: Any, **options: Any) -> Any:
        """Send a request, as the library's client does."""
        with quiet(logging.INFO):
            return await super().send(*request, **options)  # type: ignore[misc]


class _Transport:
    """
    A transport of *library* over one client for each event loop.

    Connections belong to the loop that opened them. The clients below it take proxies and
    certificates from the environment, as those of the services' libraries do. A request waits as
    long as the service has asked this process or another to *wait*.
    """

    def __init__(self, library: Any, service: LlmService, wait: ServiceWait) -> None:
        self._library, self._service, self._wait = library, service, wait
        self._stream: Any = type("_BoundedStream", (_Stream, library.AsyncByteStream), {})
        self._lock = threading.Lock()
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = WeakKeyDictionary()

    async def handle_async_request(self, request: Any) -> Any:
        """Return the response; raises `AutomateError` if it is none to be read."""
        await self._wait.turn()
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._service.timeout_seconds
        response = await _until(deadline, self._client().send(request, stream=True))
        try:
            await self._wait.heed(response.status_code, response.headers)
        except BaseException:  # cancelled while the database is told
            await response.aclose()
            raise
        if problem := _problem(response):
            await response.aclose()
            raise problem
        stream = self._stream(response, deadline, self._service.max_answer_bytes)
        body: dict[str, Any] = {"stream": stream}
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if response.status_code < 300 and kind in _WHOLE:
            # The libraries aren't ready for each of them, and then it looks like a defect of ours.
            content = b"".join([chunk async for chunk in stream])
            await stream.aclose()
            _require_object(content)
            body = {"content": content}
        return self._library.Response(
            response.status_code,
            headers=response.headers,
            extensions=response.extensions,
            request=request,
            **body,
        )

    def _client(self) -> Any:
        loop = asyncio.get_running_loop()
        with self._lock:
            found = self._by_loop.get(loop)
            if found is None:
                found = self._by_loop[loop] = _without_cookies(self._library.AsyncClient())
            return found

    async def aclose(self) -> None:
        """Close the connections of this event loop, and let other loops close theirs."""
        with self._lock:
            clients = list(self._by_loop.items())
            self._by_loop.clear()
        for loop, client in clients:
            if loop is asyncio.get_running_loop():
                await client.aclose()
            elif loop.is_running():
                asyncio.run_coroutine_threadsafe(client.aclose(), loop)


class _Stream:
    """The body of *response*: at most *most* bytes of it, until *deadline* by the loop's clock."""

    def __init__(self, response: Any, deadline: float, most: int) -> None:
        self._response, self._deadline, self._most = response, deadline, most

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        chunks: AsyncIterator[bytes] = self._response.aiter_raw()
        while True:
            try:
                chunk = await _until(self._deadline, chunks.__anext__())
            except StopAsyncIteration:
                return
            size += len(chunk)
            if size > self._most:
                raise AutomateError(
                    ErrorCodes.FAILED_PRECONDITION,
                    f"the service's answer is larger than {self._most:,} bytes",
                    hint="ask for less, or raise max_answer_bytes of the service",
                )
            yield chunk

    async def aclose(self) -> None:
        await self._response.aclose()


def _without_cookies(client: Any) -> Any:
    """Let *client* keep no cookie: it may be a session, and the next call another tenant's."""
    client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    return client


def _require_object(content: bytes) -> None:
    """Raise `AutomateError` unless *content* is an object of JSON, as all services answer."""
    try:
        is_object = isinstance(json.loads(content), dict)
    except (ValueError, RecursionError):
        is_object = False
    if not is_object:
        raise AutomateError(ErrorCodes.UNAVAILABLE, UNREADABLE)


def _problem(response: Any) -> AutomateError | None:
    """Return why an answer is not even read, if that is so."""
    if 300 <= response.status_code < 400:
        return AutomateError(
            ErrorCodes.FAILED_PRECONDITION,
            f"the service answered {response.status_code}, a redirect, which is not followed",
            hint="give the base_url that it leads to, if you trust it",
        )
    if response.headers.get("content-encoding", "").strip().lower() not in _PLAIN:
        return AutomateError(
            ErrorCodes.FAILED_PRECONDITION,
            "the service's answer is compressed, which it was asked not to do",
            hint="check the base_url, and the proxy if there is one",
        )
    return None


async def _until(deadline: float, work: Awaitable[T]) -> T:
    left = deadline - asyncio.get_running_loop().time()
    try:
        # Not wait_for, which before Python 3.12 has it done by another task, goes on if it is
        # cancelled as that ends, and may leave a generator that is still running.
        with anyio.fail_after(max(left, 0.0)):
            return await work
    except TimeoutError:
        raise AutomateError(
            ErrorCodes.DEADLINE_EXCEEDED,
            "the service's answer took too long",
            hint="ask for less, or raise timeout_seconds of the service",
        ) from None
