"""Bodies are read within bounds, however they are compressed."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
from automate_http.body import read_body
from automate_kernel.base.errors import AutomateError
from hypothesis import given
from hypothesis import strategies as st


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "identity": lambda data: data,
    "gzip": gzip.compress,
    "X-GZIP": gzip.compress,
    "deflate": zlib.compress,
    # As some servers have it.
    " Deflate ": raw_deflate,
}


def read(packed: bytes, encoding: str, max_bytes: int, size: int = 7, length: str = "") -> bytes:
    """What is read of *packed*, which comes in pieces of *size* bytes."""

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(packed), size):
            yield packed[start : start + size]

    response = httpx.Response(
        200,
        headers={"content-encoding": encoding, "content-length": length},
        content=pieces(),
        request=httpx.Request("GET", "http://a.example/"),
    )
    return asyncio.run(read_body(response, max_bytes))


@pytest.mark.parametrize("encoding", PACKERS)
@given(data=st.binary(max_size=300), size=st.integers(1, 400))
def test_any_body_is_read_in_any_pieces(encoding: str, data: bytes, size: int) -> None:
    """What the server packed is what the workflow gets."""
    assert read(PACKERS[encoding](data), encoding, 10_000, size) == data


@pytest.mark.parametrize("encoding", PACKERS)
@given(length=st.integers(1, 3_000), spare=st.integers(-100, 100))
def test_the_limit_counts_unpacked_bytes(encoding: str, length: int, spare: int) -> None:
    """Exactly at the limit passes, one byte more does not."""
    limit = max(0, length + spare)
    packed = PACKERS[encoding](b"\0" * length)
    if limit >= max(length, len(packed)):
        assert len(read(packed, encoding, limit, 50)) == length
    else:
        with pytest.raises(AutomateError, match="longer than"):
            read(packed, encoding, limit, 50)


def test_a_bomb_is_not_unpacked() -> None:
    """A gigabyte in a megabyte: refused while it takes no more memory than is allowed."""
    import tracemalloc

    packer = zlib.compressobj(9, wbits=31)
    zeros = bytes(1 << 20)
    packed = b"".join(packer.compress(zeros) for _ in range(256)) + packer.flush()
    tracemalloc.start()
    try:
        with pytest.raises(AutomateError, match="longer than 1000000 bytes"):
            read(packed, "gzip", 1_000_000, 65_536)
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


def test_an_endless_row_of_empty_members_ends() -> None:
    """They unpack to nothing, but count on the wire."""
    with pytest.raises(AutomateError, match="longer than 1000 bytes"):
        read(gzip.compress(b"") * 1_000, "gzip", 1_000)


def test_members_of_gzip_are_joined_and_padding_is_ignored() -> None:
    """As gzip itself does it."""
    packed = gzip.compress(b"one ") + gzip.compress(b"two") + b"\0" * 20
    assert read(packed, "gzip", 100) == b"one two"


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_body_that_is_cut_off_is_an_error(encoding: str) -> None:
    """Half an answer is not taken for the whole, and another attempt may get it."""
    packed = PACKERS[encoding](b"some text that is packed")
    with pytest.raises(AutomateError, match="too early") as caught:
        read(packed[:-3], encoding, 1_000)
    assert caught.value.retryable


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "rot13"])
def test_encodings_that_were_not_asked_for_are_refused(encoding: str) -> None:
    """And two in a row above all."""
    with pytest.raises(AutomateError, match="not asked for"):
        read(b"x", encoding, 100)


@given(st.binary(min_size=1, max_size=200), st.sampled_from(["gzip", "deflate"]))
def test_nonsense_raises_only_our_own_error(data: bytes, encoding: str) -> None:
    """Whatever the server sends as compressed data."""
    try:
        read(data, encoding, 1_000)
    except AutomateError:
        pass


def test_a_declared_length_is_believed_when_it_is_too_much() -> None:
    """There is no need to read it first."""
    with pytest.raises(AutomateError, match="longer than"):
        read(b"", "identity", 100, length="101")
