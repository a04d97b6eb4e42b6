"""Types of files, sizes of images and pages of documents, read from their bytes alone."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator

PDF = "application/pdf"
_STREAM = re.compile(rb"(?<!end)stream[ \t]*(?:\r\n|\n|\r)")
# A name may have its letters as numbers, and a comment is a blank. What follows a longer comment
# isn't read, and counts as a page.
_NUMBERED = re.compile(rb"#([0-9A-Fa-f]{2})")
_BLANK = rb"(?:[\s\0]|%[^\r\n]{0,200}[\r\n])*"
_PAGE = re.compile(rb"/Type" + _BLANK + rb"(?:/Page(?![A-Za-z])|%)")
_KIDS = re.compile(rb"/Kids(?![A-Za-z])" + _BLANK + rb"(\[[^\]/]*\])?")
_REFERENCE = re.compile(rb"(?<!\d)(\d{1,10})[\s\0]+\d{1,10}[\s\0]+R\b")
# What is escaped begins no text.
_TEXT = re.compile(rb"\\.|(\((?:[^()\\]|\\.)*\))|<([0-9A-Fa-f\s]+)>", re.DOTALL)
_SHOWS_TEXT = re.compile(rb"\bBT\b")
_MOST_UNPACKED, _LOOKED_AT = 32 << 20, 1 << 16
_MOST_LOOKED_AT = 128 << 20
# Markers of a JPEG's frame, which has its size; others in that range are tables.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def media_type_of(data: bytes) -> str | None:
    """Return the media type of an image or a PDF, or None for anything else."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return PDF if data.startswith(b"%PDF-") else None


def size_of_image(data: bytes, media_type: str) -> tuple[int, int] | None:
    """Return the width and height of an image in pixels, or None for a broken one."""
    readers = {
        "image/png": _size_of_png,
        "image/gif": _size_of_gif,
        "image/jpeg": _size_of_jpeg,
        "image/webp": _size_of_webp,
    }
    found = readers[media_type](data)
    return found if found is not None and min(found) > 0 else None


def pages_of_pdf(data: bytes) -> int | None:
    """
    Return the most pages that a PDF may have, or None if it can't be read: an encrypted one, say.

    A document that lists a page twice is none that can be read: a few bytes would be many pages.
    """
    left, texts = _MOST_UNPACKED, [data]
    for about, begin in _streams(data):
        if b"/ObjStm" in about:
            text = _unpacked(data, begin, left)
            left -= len(text or b"")
            if text is None or left <= 0:
                return None
            texts.append(text)
    pages = listed = 0
    for text in map(_plain, texts):
        pages += len(_PAGE.findall(text))
        for kids in _KIDS.finditer(text):
            found = _REFERENCE.findall(kids[1] or b"")
            if kids[1] is None or len(set(found)) < len(found):
                return None
            # Fields of forms have some too, and no count of them.
            listed += len(found) if b"/Count" in _around(text, *kids.span()) else 0
    return max(pages, listed) if pages else None


def text_of_pdf(data: bytes) -> int:
    """
    Return the bytes of text that a PDF shows, as far as its streams can be read.

    Of a document with more streams than can be looked through it is more than any budget has.
    """
    size, left, looks, end = 0, _MOST_UNPACKED, _MOST_LOOKED_AT, -1
    for about, begin in _streams(data):
        if b"/Filter" not in about:
            if end < begin:
                found = data.find(b"endstream", begin)
                end = found if found >= 0 else len(data)
            text = data[begin : min(end, begin + left)]
            left -= len(text)
        else:
            text = _unpacked(data, begin, _LOOKED_AT) or b""
            looks -= len(text)
            if _SHOWS_TEXT.search(text):
                text = _unpacked(data, begin, left) or b""
                left -= len(text)
        if left <= 0 or looks <= 0:
            return _MOST_UNPACKED
        if _SHOWS_TEXT.search(text, 0, _LOOKED_AT):
            size += sum(_shown(*found.groups()) for found in _TEXT.finditer(text))
    return size


def _shown(written: bytes | None, digits: bytes | None) -> int:
    """Return the bytes of a text in parentheses, or in hexadecimal digits."""
    return len(written or b"") + len(digits or b"") // 2


def _streams(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield what stands before the content of each stream, and the place where that begins."""
    end = 0
    for word in _STREAM.finditer(data):
        yield _plain(data[end : word.start()]), word.end()
        end = word.end()


def _plain(text: bytes) -> bytes:
    return _NUMBERED.sub(lambda found: bytes([int(found[1], 16)]), text)


def _around(text: bytes, begin: int, end: int) -> bytes:
    """Return the part of a dictionary around a place, without the dictionaries in it."""
    first = max(text.rfind(b"<<", 0, begin), text.rfind(b">>", 0, begin), 0)
    ends = [at for at in (text.find(b"<<", end), text.find(b">>", end)) if at >= 0]
    return text[first : min(ends, default=len(text))]


def _unpacked(data: bytes, begin: int, most: int) -> bytes | None:
    """Return what is packed from *begin* on, so many bytes of it at most, or None for no such."""
    # In pieces: each call copies what is left of its own.
    unpacker, found, size = zlib.decompressobj(), bytearray(), 1 << 10
    while begin < len(data) and len(found) < most and not unpacker.eof:
        piece = data[begin : begin + size]
        begin, size = begin + size, min(size * 2, 1 << 18)
        try:
            while piece and len(found) < most:
                found += unpacker.decompress(piece, most - len(found))
                piece = unpacker.unconsumed_tail
        except zlib.error:
            return None
    return bytes(found)


def _size_of_png(data: bytes) -> tuple[int, int] | None:
    if data[12:16] != b"IHDR" or len(data) < 24:
        return None
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def _size_of_gif(data: bytes) -> tuple[int, int] | None:
    """Return the size of the largest picture: readers make room for those beyond the screen."""
    if len(data) < 13:
        return None
    width, height = int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little")
    at = 13 + _gif_colours(data[10])
    while at + 10 <= len(data) and data[at] in (0x21, 0x2C):
        if data[at] == 0x2C:
            left, top, wide, high = (
                int.from_bytes(data[at + each : at + each + 2], "little") for each in (1, 3, 5, 7)
            )
            width, height = max(width, left + wide), max(height, top + high)
            at += 11 + _gif_colours(data[at + 9])
        else:
            at += 2
        while at < len(data) and data[at]:  # the blocks of its content
            at += 1 + data[at]
        at += 1
    return width, height


def _gif_colours(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _size_of_jpeg(data: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # filling
            at += 1
        elif marker in _FRAMES:
            height, width = data[at + 5 : at + 7], data[at + 7 : at + 9]
            return int.from_bytes(width, "big"), int.from_bytes(height, "big")
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # without a length
            at += 2
        else:
            at += 2 + max(int.from_bytes(data[at + 2 : at + 4], "big"), 2)
    return None


def _size_of_webp(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X" and len(data) >= 30:
        width, height = data[24:27], data[27:30]
        return int.from_bytes(width, "little") + 1, int.from_bytes(height, "little") + 1
    if kind == b"VP8L" and len(data) >= 25 and data[20] == 0x2F:
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 " and len(data) >= 30 and data[23:26] == b"\x9d\x01\x2a":
        width, height = data[26:28], data[28:30]
        return (
            int.from_bytes(width, "little") & 0x3FFF,
            int.from_bytes(height, "little") & 0x3FFF,
        )
    return None
