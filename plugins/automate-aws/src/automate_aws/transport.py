"""The transport of requests: botocore's own, with a bound on an answer's bytes and seconds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from botocore.exceptions import (
    ConnectionClosedError,
    HTTPClientError,
    ReadTimeoutError,
)
from botocore.httpsession import URLLib3Session
from urllib3.exceptions import HTTPError, ProtocolError
from urllib3.exceptions import ReadTimeoutError as Urllib3ReadTimeoutError

from automate_kernel.base.errors import AutomateError, ErrorCodes

_MIB = 1024 * 1024
MOST_ANSWER_BYTES: int = 32 * _MIB
"""More than any answer that is no object: ten messages of 1 MiB, escaped as JSON."""
_CHUNK = 65_536
_SLOWEST_BYTES_A_SECOND = 65_536
_MOST_CONNECTIONS = 50


class AwsTransport:
    """
    Sends the requests of a client; botocore asks it by its event ``before-send``.

    botocore itself bounds each single read, and reads an answer of any size. Here an answer has
    *seconds* in all and `MOST_ANSWER_BYTES`. An object that is streamed may have any size, which
    its reader bounds. Each 64 KiB of it, and of what is sent, give a second more. Redirects aren't
    followed, and proxies of the environment aren't used.
    """

    def __init__(self, *, seconds: float, verify: bool | str) -> None:
        self._seconds = seconds
        self._session = URLLib3Session(
            verify=verify,
            timeout=(min(seconds, 10.0), seconds),
            max_pool_connections=_MOST_CONNECTIONS,
        )

    def __call__(self, request: Any, **_: Any) -> Any:
        """Send *request*, and return botocore's response."""
        begin = time.monotonic()
        streamed = request.stream_output
        # Else its session reads the body itself.
        request.stream_output = True
        response = self._session.send(request)
        if 300 <= response.status_code < 400:
            response.raw.close()
            raise _redirected(response)
        encoding = response.headers.get("Content-Encoding", "identity")
        whole = not streamed or response.status_code >= 300
        response.raw = AwsBody(
            response.raw,
            url=request.url,
            until=begin + self._seconds + _sent(request.headers) / _SLOWEST_BYTES_A_SECOND,
            most=MOST_ANSWER_BYTES if whole else None,
            expected=None if request.method == "HEAD" else _length(response.headers),
        )
        if whole:
            if encoding not in {"identity", "aws-chunked"}:
                response.raw.close()
                raise AutomateError(
                    ErrorCodes.FAILED_PRECONDITION,
                    "the answer of AWS is packed, and wasn't asked to be",
                )
            _ = response.content
        return response

    def close(self) -> None:
        """Close the connections."""
        self._session.close()


class AwsBody:
    """
    The body of an answer, read no further than *most* bytes, and not after *until*.

    Without *most* each 64 KiB give it another second.
    """

    def __init__(
        self, raw: Any, *, url: str, until: float, most: int | None, expected: int | None
    ) -> None:
        self._raw, self._url = raw, url
        self._until, self._most, self._expected = until, most, expected
        self._size = 0

    def read(self, amt: int | None = None) -> bytes:
        """Return the next bytes, *amt* at most, or none at the end; all of them without *amt*."""
        return b"".join(self.stream()) if amt is None else self._next(amt)

    def stream(self, amt: int = _CHUNK) -> Iterator[bytes]:
        """Yield the bytes as they come."""
        while chunk := self._next(amt):
            yield chunk

    def close(self) -> None:
        """Close the connection: its rest is of no use."""
        self._raw.close()

    def _next(self, amt: int) -> bytes:
        try:
            # `read` would wait for all of *amt*, however slowly it drips.
            chunk: bytes = self._raw.read1(amt)
        except Urllib3ReadTimeoutError as error:
            raise ReadTimeoutError(endpoint_url=self._url, error=error) from None
        except ProtocolError as error:
            raise ConnectionClosedError(endpoint_url=self._url, error=error) from None
        except (HTTPError, OSError) as error:
            raise HTTPClientError(error=error) from None
        self._size += len(chunk)
        if self._most is not None and self._size > self._most:
            self.close()
            raise AutomateError(
                ErrorCodes.FAILED_PRECONDITION, f"the answer is longer than {self._most} bytes"
            )
        more = 0.0 if self._most is not None else self._size / _SLOWEST_BYTES_A_SECOND
        if time.monotonic() > self._until + more:
            self.close()
            raise AutomateError(
                ErrorCodes.DEADLINE_EXCEEDED,
                "the answer did not come in time",
                hint="raise timeout_seconds if the service is slow",
            )
        if not chunk and self._expected is not None and self._size < self._expected:
            raise ConnectionClosedError(endpoint_url=self._url, error="the answer was cut off")
        return chunk


def _redirected(response: Any) -> AutomateError:
    # botocore would ask on for the bucket's region, and for ever where a server has none.
    region = response.headers.get("x-amz-bucket-region") or ""
    known = region.replace("-", "").isalnum()
    return AutomateError(
        ErrorCodes.FAILED_PRECONDITION,
        f"AWS answered with a redirect ({response.status_code})",
        hint=f"set region to {region}" if known else "look at region and endpoint_url",
    )


def _sent(headers: Any) -> int:
    # What is sent in pieces, with its checksum at the end, has its length under another name.
    return _length(headers, "X-Amz-Decoded-Content-Length") or _length(headers) or 0


def _length(headers: Any, name: str = "Content-Length") -> int | None:
    text = str(headers.get(name) or "")
    return int(text) if text.isascii() and text.isdigit() else None
