"""
The HTTP client of a server with a URL: bounded answers, and failures that say what they were.

The SDK reports each status of 400 or more with the same words, reads answers of any size, and ends
its session when a connection fails. So this transport answers a failed request itself, with an
error of JSON-RPC whose data has our code.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
from mcp.types import INTERNAL_ERROR

from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.operations.call_rates import ServiceWait
from automate_kernel.operations.error_mapping import code_of_status, retry_after_of
from automate_mcp.config import McpConfig
from automate_mcp.messages import MARK, answer_to, readable
from automate_mcp.signing import RequestSigning

_SESSION = "mcp-session-id"
# The session's own to understand: a method that isn't there, a session that has ended.
_PROTOCOL = frozenset({400, 404, 405, 406})


def http_client(
    config: McpConfig, signing: RequestSigning | None = None, wait: ServiceWait | None = None
) -> httpx2.AsyncClient:
    """Return the client for the URL of *config*; no proxy or certificate of the environment."""
    headers = {name: value.get_secret_value() for name, value in config.headers.items()}
    if config.token is not None:
        headers["Authorization"] = f"Bearer {config.token.get_secret_value()}"
    return httpx2.AsyncClient(
        transport=BoundedTransport(
            httpx2.AsyncHTTPTransport(trust_env=False), config.max_result_bytes, signing, wait
        ),
        headers=headers,
        trust_env=False,
        # An answer may take as long as its call, which is bounded.
        timeout=httpx2.Timeout(config.start_timeout_seconds, read=None),
    )


class BoundedTransport(httpx2.AsyncBaseTransport):
    """
    Sends requests by *inner*, with *signing*; takes answers of at most *most* bytes.

    A request is sent once the *wait* is over that the server has asked for.
    """

    def __init__(
        self,
        inner: httpx2.AsyncBaseTransport,
        most: int,
        signing: RequestSigning | None = None,
        wait: ServiceWait | None = None,
    ) -> None:
        self._inner = inner
        self._wait = wait if wait is not None else ServiceWait((), None)
        self._most = most
        self._signing = signing

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Return the response; that to a POST is an error of JSON-RPC if the request failed."""
        try:
            if request.method == "POST":  # the end of a session needn't wait
                await self._wait.turn()
            response = await self._answered(request)
            try:
                await self._wait.heed(response.status_code, response.headers)
            except BaseException:  # cancelled while the database is told
                await response.aclose()
                raise
            return await self._taken(request, response)
        except AutomateError as error:  # of the account, or of the wait
            waits = error.code is ErrorCodes.RESOURCE_EXHAUSTED
            return _failed(
                request,
                429 if waits else 401,
                error.code,
                error.message,
                hint=error.hint,
                retry_after=error.retry_after,
                retryable=error.retryable,
                sent=False,
            )
        except httpx2.TransportError as error:
            if request.method != "POST":
                raise
            code = ErrorCodes.UNAVAILABLE
            if isinstance(error, httpx2.TimeoutException):
                code = ErrorCodes.DEADLINE_EXCEEDED
            # Not its text, which may quote the URL; the kind says what happened.
            never_sent = isinstance(error, (httpx2.ConnectError, httpx2.ConnectTimeout))
            return _failed(
                request,
                503,
                code,
                f"the connection failed: {type(error).__name__}",
                sent=not never_sent,
            )

    async def _answered(self, request: httpx2.Request) -> httpx2.Response:
        if self._signing is None:
            return await self._inner.handle_async_request(request)
        used = await self._signing.sign(request)
        response = await self._inner.handle_async_request(request)
        if response.status_code != 401:
            return response
        try:
            if not await self._signing.renew(used):
                return response  # asked again with the same token, it would say the same
        except BaseException:
            await response.aclose()
            raise
        await response.aclose()
        await self._signing.sign(request)
        return await self._inner.handle_async_request(request)

    async def _taken(self, request: httpx2.Request, response: httpx2.Response) -> httpx2.Response:
        if response.headers.get("content-type", "").lower().startswith("text/event-stream"):
            return response  # its events are bounded by who reads them
        body = bytearray()
        try:
            async for chunk in _chunks(response):
                body += chunk
                if len(body) > self._most:
                    text = f"the answer is larger than {self._most:,} bytes"
                    return _failed(
                        request, 502, ErrorCodes.RESOURCE_EXHAUSTED, text, retryable=False
                    )
        finally:
            await response.aclose()
        status = response.status_code
        if status == 404 and _SESSION in request.headers:
            # By the protocol it knows the session no more, and has looked at nothing else.
            text = "it has ended the session"
            return _failed(request, 503, ErrorCodes.UNAVAILABLE, text, sent=False, lost=True)
        if status >= 400 and status not in _PROTOCOL:
            code = code_of_status(status)
            # The request was refused before anything was done, but for faults of the server.
            after = retry_after_of(response.headers)
            text = f"it answered with HTTP status {status}"
            hint = self._signing.hint if self._signing and status in (401, 403) else None
            return _failed(
                request, status, code, text, hint=hint, retry_after=after, sent=status >= 500
            )
        content: bytes | None = bytes(body)
        kind = response.headers.get("content-type", "").lower()
        is_answer = status < 400 and "location" not in response.headers
        if request.method == "POST" and is_answer and kind.startswith("application/json"):
            content = readable(bytes(body))
            content = content and answer_to(_id_of(request), content)
        if content is None:
            # The SDK would quote it, in its error and in the log.
            text = "its answer isn't one of the protocol"
            hint = "if a tool was called, it may have done its work; is the url that of MCP?"
            return _failed(request, 502, ErrorCodes.DATA_LOSS, text, hint=hint)
        headers = [
            (name, value)
            for name, value in response.headers.raw
            if name.lower() not in (b"content-encoding", b"content-length", b"transfer-encoding")
        ]
        return httpx2.Response(status, headers=headers, content=content, request=request)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()


async def _chunks(response: httpx2.Response) -> AsyncIterator[bytes]:
    # In small pieces, also of what is packed: the size is counted as it grows.
    async for chunk in response.aiter_bytes(65_536):
        yield chunk


def _id_of(request: httpx2.Request) -> int | str | None:
    """Return the id of the message in *request*; None for a message that wants no answer."""
    message = json.loads(request.content)
    found: int | str | None = message.get("id") if isinstance(message, dict) else None
    return found


def _failed(
    request: httpx2.Request,
    status: int,
    code: ErrorCodes,
    text: str,
    *,
    hint: str | None = None,
    retryable: bool | None = None,
    retry_after: float | None = None,
    sent: bool = True,
    lost: bool = False,
) -> httpx2.Response:
    data: dict[str, Any] = {
        "code": code.value,
        "retryable": code.retryable if retryable is None else retryable,
        "retry_after": retry_after,
        "sent": sent,
        "hint": hint,
        "lost": lost,
    }
    error = {"code": INTERNAL_ERROR, "message": text, "data": {MARK: data}}
    body = json.dumps({"jsonrpc": "2.0", "id": None, "error": error})
    return httpx2.Response(
        status, headers={"content-type": "application/json"}, content=body, request=request
    )
