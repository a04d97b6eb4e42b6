"""Types of files, sizes of images and pages of documents, read from their bytes alone."""

from __future__ import annotations

import re
import zlib

PDF = "application/pdf"
_STREAM = re.compile(rb"/ObjStm\b.{0,2000}?stream\r?\n", re.DOTALL)
_PAGE = re.compile(rb"/Type\s*/Page(?![A-Za-z])")
_MOST_UNPACKED = 32 << 20
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
    """Return the number of pages of a PDF, or None if it can't be read: an encrypted one, say."""
    pages, left = len(_PAGE.findall(data)), _MOST_UNPACKED
    for packed in _STREAM.finditer(data):
        unpacker = zlib.decompressobj()
        try:
            text = unpacker.decompress(data[packed.end() :], left)
        except zlib.error:
            return None
        left -= len(text)
        if left <= 0:
            return None
        pages += len(_PAGE.findall(text))
    return pages or None


def _size_of_png(data: bytes) -> tuple[int, int] | None:
    if data[12:16] != b"IHDR" or len(data) < 24:
        return None
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def _size_of_gif(data: bytes) -> tuple[int, int] | None:
    if len(data) < 10:
        return None
    return int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little")


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
