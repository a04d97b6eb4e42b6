"""
A transport for httpx that goes through the guard.

The plugin uses httpx 0.28 for its messages (URL, headers, request, response) and httpcore for its
connections; the client, redirects, bodies and time limits are its own. httpx2, to which others
move, has dropped Python 3.10, and httpx 1.0 is not released. A move touches this module, `guard`
and imports of those four classes.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import lru_cache

import httpcore
import httpx

from automate_http.guard import Guard, GuardedBackend
from automate_kernel.secrets.logs import guard_loggers, quiet

_MAX_CONNECTIONS = 100
_MAX_IDLE = 20
# Shorter than most servers', or requests go into connections that are being closed.
_IDLE_SECONDS = 4.0


class GuardedTransport(httpx.AsyncBaseTransport):
    """
    Sends requests over HTTP/1.1 to the addresses that *guard* allows.

    It works in any ``httpx.AsyncClient(transport=…)``, whose redirects then are guarded too. Give
    each event loop its own: connections belong to the loop that opened them.
    """

    def __init__(
        self,
        guard: Guard | None = None,
        *,
        ssl_context: ssl.SSLContext | None = None,
        network: httpcore.AsyncNetworkBackend | None = None,
    ) -> None:
        guard_loggers("httpcore")
        self.guard: Guard = guard or Guard()
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl_context or default_ssl_context(),
            max_connections=_MAX_CONNECTIONS,
            max_keepalive_connections=_MAX_IDLE,
            keepalive_expiry=_IDLE_SECONDS,
            network_backend=GuardedBackend(self.guard, network),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """
        Send the request and return the response, with its body still to be read.

        Raises httpx's errors, and `AutomateError` if the guard refuses.
        """
        # Here too, as a connection of before may be used again without `connect_tcp`.
        self.guard.check_url(request.url)
        if not isinstance(request.stream, httpx.AsyncByteStream):
            raise TypeError("the request's body is for httpx's synchronous client")
        url = request.url
        # httpcore writes the headers of an answer into its log: sessions, addresses with tokens.
        with _httpx_errors(), quiet():
            response = await self._pool.handle_async_request(
                httpcore.Request(
                    request.method,
                    httpcore.URL(
                        scheme=url.raw_scheme,
                        host=url.raw_host,
                        port=url.port,
                        target=url.raw_path,
                    ),
                    headers=request.headers.raw,
                    content=request.stream,
                    extensions=request.extensions,
                )
            )
        return httpx.Response(
            response.status,
            headers=response.headers,
            stream=_Body(response),
            extensions=response.extensions,
            request=request,
        )

    async def aclose(self) -> None:
        """Close all connections."""
        await self._pool.aclose()


class _Body(httpx.AsyncByteStream):
    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _httpx_errors():
            async for chunk in self._response.aiter_stream():
                yield chunk

    async def aclose(self) -> None:
        with _httpx_errors():
            await self._response.aclose()


@lru_cache(maxsize=1)
def default_ssl_context() -> ssl.SSLContext:
    """Return httpx's certificates, but never those that the environment names."""
    return httpx.create_ssl_context(trust_env=False)


@contextmanager
def _httpx_errors() -> Iterator[None]:
    """Raise httpx's error in place of httpcore's of the same name."""
    try:
        yield
    except Exception as error:
        kind = _kind(type(error))
        if kind is None:
            raise
        raise kind(str(error)) from error


def _kind(cls: type[Exception]) -> type[httpx.TransportError] | None:
    if not cls.__module__.startswith("httpcore"):
        return None
    for base in cls.__mro__:
        found = getattr(httpx, base.__name__, None)
        if isinstance(found, type) and issubclass(found, httpx.TransportError):
            return found
    return None
