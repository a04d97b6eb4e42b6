"""An exchange: it sends a request and reads the answer, within bounds."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import anyio
import httpx

from automate_http.body import read_body
from automate_http.guard import origin
from automate_http.redirects import REDIRECTS, next_request
from automate_kernel.base.errors import AutomateError, ErrorCodes

_CONNECT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds of an exchange: its time in all, the answer's length, the redirects."""

    timeout_seconds: float
    max_bytes: int
    max_redirects: int


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that was read to its end. *method* and *url* are those of the last request."""

    method: str
    # A query can be a credential, and so can what a service answers.
    url: httpx.URL = field(repr=False)
    status: int
    headers: httpx.Headers = field(repr=False)
    content: bytes = field(repr=False)


async def exchange(
    transport: httpx.AsyncBaseTransport, request: httpx.Request, bounds: Bounds
) -> Reply:
    """
    Send *request*, follow redirects, and return the answer with any status.

    It uses the transport directly: httpx's client writes each URL, with the tokens in it, to the
    log. Raises `AutomateError` only.
    """
    connect = min(_CONNECT_SECONDS, bounds.timeout_seconds)
    request.extensions = {**request.extensions, "timeout": {"connect": connect}}
    try:
        with anyio.fail_after(bounds.timeout_seconds):
            return await _follow(transport, request, bounds)
    except TimeoutError:
        raise AutomateError(
            ErrorCodes.DEADLINE_EXCEEDED,
            f"{request.method} {origin(request.url)} took longer than "
            f"{bounds.timeout_seconds:g} seconds",
        ) from None


async def _follow(
    transport: httpx.AsyncBaseTransport, request: httpx.Request, bounds: Bounds
) -> Reply:
    for left in range(bounds.max_redirects, -1, -1):
        with _worded(request):
            response = await transport.handle_async_request(request)
        try:
            # With 0 the redirect itself was asked for.
            following = next_request(request, response) if bounds.max_redirects else None
            if following is None:
                return await _read(request, response, bounds.max_bytes)
        finally:
            with anyio.CancelScope(shield=True), suppress(httpx.TransportError):
                await response.aclose()
        if left:
            request = following
    raise AutomateError(
        ErrorCodes.FAILED_PRECONDITION,
        f"{origin(request.url)} redirected more than {bounds.max_redirects} times",
        hint="see follow_redirects, and max_redirects in the connector's config",
    )


async def _read(request: httpx.Request, response: httpx.Response, max_bytes: int) -> Reply:
    with _worded(request):
        # A redirect's body is for people whose browser doesn't follow.
        redirect = response.status_code in REDIRECTS and request.method != "HEAD"
        content = await read_body(response, max_bytes) if not redirect else b""
    return Reply(request.method, request.url, response.status_code, response.headers, content)


@contextmanager
def _worded(request: httpx.Request) -> Iterator[None]:
    """Raise httpx's errors as an `AutomateError` that shows no more than the origin."""
    try:
        yield
    except httpx.TransportError as error:
        code, problem, retryable = _meaning(error)
        # Without a connection nothing was sent, so nothing was done.
        unsent = isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout))
        raise AutomateError(
            code,
            f"{request.method} {origin(request.url)}: {problem}",
            retryable=retryable,
            details={"sent": False} if unsent else None,
        ) from None


def _meaning(error: httpx.TransportError) -> tuple[ErrorCodes, str, bool | None]:
    if isinstance(error, httpx.TimeoutException):
        return ErrorCodes.DEADLINE_EXCEEDED, "it took too long to connect", None
    if _is_caused_by(error, ssl.SSLCertVerificationError):
        return ErrorCodes.FAILED_PRECONDITION, "its certificate can't be verified", None
    if isinstance(error, httpx.ConnectError):
        return ErrorCodes.UNAVAILABLE, "it can't be reached", None
    if isinstance(error, (httpx.LocalProtocolError, httpx.UnsupportedProtocol)):
        return ErrorCodes.INVALID_ARGUMENT, "the request is not valid HTTP", None
    if isinstance(error, httpx.RemoteProtocolError):
        return ErrorCodes.UNAVAILABLE, "it ended the connection, or does not speak HTTP", None
    return ErrorCodes.UNAVAILABLE, "the connection was lost", None


def _is_caused_by(error: BaseException | None, cause: type[BaseException]) -> bool:
    while error is not None:
        if isinstance(error, cause):
            return True
        error = error.__cause__ or error.__context__
    return False
