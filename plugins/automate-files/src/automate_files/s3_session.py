"""HTTP for S3 with bounds that its client library doesn't have."""

from __future__ import annotations

from functools import partial
from typing import Any

import aiohttp
from aiobotocore.httpsession import AIOHTTPSession

from automate_kernel import AutomateError, ErrorCodes

# A page of a listing has 1,000 keys of 1,024 bytes at most, each of which XML may make longer.
_MOST_ANSWER_BYTES = 8 * 1024 * 1024
_PART = 64 * 1024


class BoundedSession(AIOHTTPSession):  # type: ignore[misc]  # it has no types
    """
    A session that follows no redirect, and reads no answer without an end.

    The content of an object isn't meant: whoever reads it takes as much as they want. S3's own
    redirects to another region are no redirects of HTTP.
    """

    async def _get_session(self, proxy_url: str | None) -> Any:
        return _Requests(await super()._get_session(proxy_url))


class _Requests:
    """The one method that the library calls."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def request(self, *args: Any, **options: Any) -> aiohttp.ClientResponse:
        response = await self._session.request(*args, **{**options, "allow_redirects": False})
        # S3 says so where a bucket is in another region; the library then asks there.
        if 300 <= response.status < 400 and "x-amz-bucket-region" not in response.headers:
            response.close()
            raise _refused("it redirects, which isn't followed", ErrorCodes.FAILED_PRECONDITION)
        response.read = partial(_read, response)  # type: ignore[method-assign]
        return response


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """Read an answer that is no object's content."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        response.close()
        raise _refused("it answers in a form that it wasn't asked for")
    parts, size = [], 0
    async for part in response.content.iter_chunked(_PART):
        size += len(part)
        if size > _MOST_ANSWER_BYTES:
            response.close()
            raise _refused(f"its answer has more than {_MOST_ANSWER_BYTES} bytes")
        parts.append(part)
    return b"".join(parts)


def _refused(words: str, code: ErrorCodes = ErrorCodes.RESOURCE_EXHAUSTED) -> AutomateError:
    return AutomateError(code, f"the answer of S3 is refused: {words}", retryable=False)
