"""A response's body, read within bounds, compressed or not."""

from __future__ import annotations

import zlib

import httpx

from automate_kernel.base.errors import AutomateError, ErrorCodes

ACCEPT_ENCODING = "gzip, deflate"
_WINDOWS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
_RAW_DEFLATE = -15
_GZIP_START = b"\x1f"
_DEFLATED, _HEADER_LENGTH = 8, 2


async def read_body(response: httpx.Response, max_bytes: int) -> bytes:
    """
    Read the body and unpack it, up to *max_bytes* unpacked and on the wire.

    Raises `AutomateError` for a longer one before it is in memory: a client that unpacks first and
    counts afterwards lets a few kilobytes become gigabytes.
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

    def __init__(self, encoding: str, max_bytes: int) -> None:
        self._window = _WINDOWS[encoding]
        self._max_bytes = max_bytes
        self._unpacked = 0
        self._start = b""
        self._zlib: zlib._Decompress | None = None

    def feed(self, data: bytes) -> bytes:
        """Unpack *data*."""
        if self._zlib is None:
            data = self._start = self._start + data
            if len(data) < _HEADER_LENGTH:
                return b""
            self._zlib = zlib.decompressobj(self._choose_window(data))
        return self._unpack(self._zlib, data)

    def finish(self) -> None:
        """Raise if the stream is cut off."""
        if self._zlib is None or not self._zlib.eof:
            raise _unreadable("its body ends too early", retryable=True)

    def _choose_window(self, data: bytes) -> int:
        # Some servers send deflate without the header that the standard asks for.
        headed = data[0] & 15 == _DEFLATED and int.from_bytes(data[:2], "big") % 31 == 0
        return self._window if headed or self._window != _WINDOWS["deflate"] else _RAW_DEFLATE

    def _unpack(self, unpacker: zlib._Decompress, data: bytes) -> bytes:
        content = bytearray()
        while data:
            if unpacker.eof:
                if self._window != _WINDOWS["gzip"] or data[:1] != _GZIP_START:
                    break  # padding
                # gzip may have several members.
                unpacker = self._zlib = zlib.decompressobj(self._window)
            try:
                # One more than is allowed shows that there is more.
                part = unpacker.decompress(data, self._max_bytes - self._unpacked + 1)
            except zlib.error:
                raise _unreadable("its body can't be unpacked") from None
            self._unpacked += len(part)
            _check_size(self._unpacked, self._max_bytes)
            content += part
            data = unpacker.unconsumed_tail or unpacker.unused_data
        return bytes(content)


def _decoder(encoding: str, max_bytes: int) -> _Decoder | None:
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return None
    if encoding not in _WINDOWS:
        # Two in a row are asked for by nobody, and make a bomb of a bomb.
        raise _unreadable("it is compressed in a way that was not asked for")
    return _Decoder(encoding, max_bytes)


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
