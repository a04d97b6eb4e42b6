"""Read a response's body within bounds, however it is compressed."""

from __future__ import annotations

import zlib

import httpx

from automate_kernel.errors import AutomateError, ErrorCodes

__all__ = ["ACCEPT_ENCODING", "read_body"]

ACCEPT_ENCODING = "gzip, deflate"
_WINDOWS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
_RAW_DEFLATE = -15
_GZIP_START = b"\x1f"


async def read_body(response: httpx.Response, max_bytes: int) -> bytes:
    """
    The body, unpacked, of at most *max_bytes*, and of no more on the wire.

    Raises `AutomateError` for one that is longer, before it is in memory: a client that unpacks
    first and counts afterwards lets a few kilobytes become gigabytes.
    """
    declared = response.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and len(declared) < 16:
        _check_size(int(declared) if response.request.method != "HEAD" else 0, max_bytes)
    decoder = _decoder(response.headers.get("content-encoding", ""), max_bytes)
    received = 0
    content = bytearray()
    async for chunk in response.aiter_raw():
        received += len(chunk)
        _check_size(received, max_bytes)
        content += decoder.feed(chunk) if decoder else chunk
    if decoder and received:
        decoder.finish()
    return bytes(content)


class _Decoder:
    """Unpacks a stream, and stops as soon as it gets too long."""

    def __init__(self, window: int, max_bytes: int) -> None:
        self._window = window
        self._max_bytes = max_bytes
        self._unpacked = 0
        self._started = False
        self._zlib = zlib.decompressobj(window)

    def feed(self, data: bytes) -> bytes:
        """What *data* unpacks to."""
        content = bytearray()
        while data:
            if self._zlib.eof:
                if self._window != _WINDOWS["gzip"] or data[:1] != _GZIP_START:
                    break  # padding
                # gzip may have several members.
                self._zlib = zlib.decompressobj(self._window)
            # One more than is allowed shows that there is more.
            part = self._unpack(data, self._max_bytes - self._unpacked + 1)
            self._unpacked += len(part)
            _check_size(self._unpacked, self._max_bytes)
            content += part
            data = self._zlib.unconsumed_tail or self._zlib.unused_data
        return bytes(content)

    def finish(self) -> None:
        """Raise if the stream is cut off."""
        if not self._zlib.eof:
            raise _unreadable("its body ends too early", retryable=True)

    def _unpack(self, data: bytes, limit: int) -> bytes:
        started, self._started = self._started, True
        try:
            return self._zlib.decompress(data, limit)
        except zlib.error:
            if started or self._window != _WINDOWS["deflate"]:
                raise _unreadable("its body can't be unpacked") from None
        # Some servers send deflate without the header that the standard asks for.
        self._window = _RAW_DEFLATE
        self._zlib = zlib.decompressobj(_RAW_DEFLATE)
        return self._unpack(data, limit)


def _decoder(encoding: str, max_bytes: int) -> _Decoder | None:
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return None
    if encoding not in _WINDOWS:
        # Two in a row are asked for by nobody, and make a bomb of a bomb.
        raise _unreadable("it is compressed in a way that was not asked for")
    return _Decoder(_WINDOWS[encoding], max_bytes)


def _check_size(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise AutomateError(
            ErrorCodes.FAILED_PRECONDITION,
            f"the response is longer than {max_bytes} bytes",
            hint="ask for less, or raise max_response_bytes in the connector's config",
        )


def _unreadable(problem: str, *, retryable: bool = False) -> AutomateError:
    code = ErrorCodes.UNAVAILABLE if retryable else ErrorCodes.FAILED_PRECONDITION
    return AutomateError(code, f"the response can't be read: {problem}")
