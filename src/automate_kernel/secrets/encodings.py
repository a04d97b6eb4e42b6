"""Readings of a text that is escaped or encoded, in which a secret may stand as it is."""

from __future__ import annotations

import binascii
import html
import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

_DEEPEST = 3
_MARKS = " \t\n\r\v\f\x1c\x1d\x1e\x1f\x85\xa0:;,.=_|-xX"  # what may stand between pairs
_HEX = "[0-9A-Fa-f]"
_CODE = rf"u{_HEX}{{4}}|u\{{{_HEX}{{1,6}}\}}|U{_HEX}{{8}}|x{_HEX}{{2}}|[0-3][0-7]{{2}}"


def _escapes(after_backslashes: str) -> re.Pattern[str]:
    # A set of characters at the beginning lets `re` skip to them: else each place is tried.
    return re.compile(
        rf"([%\\&](?:(?<=%)(?:{_HEX}{{2}}|u{_HEX}{{4}})"
        rf"|(?<=\\)\\{{0,7}}(?:{after_backslashes})"
        rf"|(?<=&)(?:#[0-9]{{1,12}}|#[xX]{_HEX}{{1,12}}|amp|lt|gt|quot|apos);?))"
    )


_ESCAPE = _escapes(_CODE)
# Beside another escape these are escapes too.
_ANY_ESCAPE = _escapes(rf"{_CODE}|[\"'/]")
_SEPARATED = re.compile(
    rf"(?:{_HEX}{{2}}){{1,16}}(?:[\s:;,.=_|-]{{1,3}}(?:0[xX])?(?:{_HEX}{{2}}){{1,16}})+"
)
_HEX_PART = re.compile(rb"[hs]{12,}")
_PAIR = re.compile(rf"(?:0[xX])?({_HEX}{{2}})")
# The bytes of a buffer as numbers, as Node, Java and `od` print them: signed, too.
_NUMBER = re.compile(r"(-?[0-9]{1,3})")
_NUMBERS = re.compile(
    r"(?<![\d.])-?[0-9]{1,3}(?:(?:\s{0,3},\s{0,3}|\s{1,3})-?[0-9]{1,3}(?![\d.])){7,}"
)
_PLAIN_HEX = re.compile(rf"{_HEX}{{8,}}")
# What is in base64 as it stands is known; what is escaped, or in base64 twice, is longer.
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{20,}")
_HEX_KINDS = bytes(
    ord("h" if chr(code) in "0123456789abcdefABCDEF" else "s" if chr(code) in _MARKS else "-")
    for code in range(256)
)
_BASE64_KINDS = bytes(
    ord("b" if re.fullmatch("[A-Za-z0-9+/_-]", chr(code)) else "-") for code in range(256)
)
_NUMBER_KINDS = bytes(ord("n" if chr(code) in "0123456789-, \n" else "-") for code in range(256))
_NUMERALS = b"n" * 15
_SHORTEST, _DIGITS, _LETTERS = 11, b"h" * 12, b"b" * 20
_STANDARD = str.maketrans("-_", "+/")
_SEPARATORS = _MARKS.replace("x", "").replace("X", "").encode("latin-1")


_Place = Callable[[int, int], tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Reading:
    """A reading of a text, and the place in that text of a part of it."""

    text: str
    place: _Place


def readings(text: str, depth: int = _DEEPEST) -> Iterator[Reading]:
    """Yield what *text* says once it is decoded, and what that says then, in linear time."""
    if depth == 0:
        return
    for found in _read(text):
        yield found
        for inner in readings(found.text, depth - 1):
            yield Reading(inner.text, _through(found.place, inner.place))


def _through(outer: _Place, inner: _Place) -> _Place:
    return lambda start, end: outer(*inner(start, end))


def _read(text: str) -> Iterator[Reading]:
    yield from _escaped(text)
    if len(text) < _SHORTEST:
        return
    if "\0" in text:  # UTF-16 that was read as something else
        kept = [at for at, char in enumerate(text) if char != "\0"]
        yield Reading(text.replace("\0", ""), _kept(kept))
    # Each letter by its kind: the patterns take many times longer to see that there is nothing.
    raw = text.encode("latin-1", "replace")
    if _NUMERALS in raw.translate(_NUMBER_KINDS):
        yield from _numbers(text)
    kinds = raw.translate(_HEX_KINDS)
    if _DIGITS in kinds.replace(b"s", b""):
        for part in _HEX_PART.finditer(kinds):
            if part[0].count(b"h") >= len(_DIGITS):
                yield from _hexadecimal(text, raw, part)
    if _LETTERS in raw.translate(_BASE64_KINDS):
        for run in _BASE64.finditer(text):
            if kinds[slice(*run.span())].strip(b"hs"):  # else an id or a digest
                yield Reading(_of_base64(run[0]), _in_base64(*run.span()))


def _escaped(text: str) -> Iterator[Reading]:
    # Looking for a character costs next to nothing, and few texts have any of these.
    if ("%" in text or "\\" in text or "&" in text) and _ESCAPE.search(text):
        parts = _ANY_ESCAPE.split(text)
        parts[1::2] = map(_char, parts[1::2])
        yield Reading("".join(parts), _InEscapes(text))


def _numbers(text: str) -> Iterator[Reading]:
    for run in _NUMBERS.finditer(text):
        codes = bytes(int(each) & 255 for each in _NUMBER.findall(run[0]))
        yield Reading(codes.decode("latin-1"), _InPairs(text, *run.span(), _NUMBER))


def _hexadecimal(text: str, raw: bytes, part: re.Match[bytes]) -> Iterator[Reading]:
    if b"s" in part[0].strip(b"s"):  # the pattern tries each place of a digest
        yield from _separated(text, raw, *part.span())
    for run in _PLAIN_HEX.finditer(text, *part.span()):
        if run[0] != run[0].lower():
            yield Reading(run[0].lower(), _after(run.start()))


def _separated(text: str, raw: bytes, first: int, last: int) -> Iterator[Reading]:
    for run in _SEPARATED.finditer(text, first, last):
        start, end = run.span()
        if end - start < _SHORTEST:
            continue  # as between the numbers of a list
        digits = raw[start:end].translate(None, _SEPARATORS)
        if b"x" in digits or b"X" in digits:
            digits = "".join(_PAIR.findall(run[0])).encode("ascii")
        yield Reading(binascii.unhexlify(digits).decode("latin-1"), _InPairs(text, start, end))


class _InPairs:
    """The places of pairs of digits; they are looked for once a secret was found in them."""

    __slots__ = ("_found", "_pair", "_run")

    def __init__(self, text: str, first: int, last: int, pair: re.Pattern[str] = _PAIR) -> None:
        self._run, self._found = (text, first, last), list[tuple[int, int]]()
        self._pair = pair

    def __call__(self, start: int, end: int) -> tuple[int, int]:
        self._found = self._found or [pair.span(1) for pair in self._pair.finditer(*self._run)]
        return self._found[start][0], self._found[end - 1][1]


def _after(at: int) -> _Place:
    return lambda start, end: (at + start, at + end)


def _kept(places: Sequence[int]) -> _Place:
    return lambda start, end: (places[start], places[end - 1] + 1)


def _in_base64(at: int, last: int) -> _Place:
    return lambda start, end: (at + start * 4 // 3, min(last, at - (-end * 4 // 3)))


class _InEscapes:
    """The places of what a text says by escapes; looked for once a secret was found in it."""

    __slots__ = ("_at", "_before", "_text")

    def __init__(self, text: str) -> None:
        self._text, self._at, self._before = text, list[int](), list[int]()

    def __call__(self, start: int, end: int) -> tuple[int, int]:
        if not self._before:
            escapes = [match.span() for match in _ANY_ESCAPE.finditer(self._text)]
            # How many characters the escapes before each escape, and before the end, save.
            self._before = [0, *accumulate(end - start - 1 for start, end in escapes)]
            both = zip(escapes, self._before, strict=False)
            self._at = [start - less for (start, _), less in both]
        at, before = self._at, self._before
        return start + before[bisect_left(at, start)], end + before[bisect_left(at, end)]


@lru_cache(maxsize=4096)
def _char(escape: str) -> str:
    if escape[0] == "&" and escape[1] != "#":
        # Always one character, as places are counted by it.
        return (html.unescape(escape if escape[-1] == ";" else f"{escape};") or "?")[0]
    said = escape.lstrip("\\&#").rstrip(";")
    if escape[0] == "&" and said.isdigit():
        return chr(int(said)) if int(said) < 0x110000 else "?"
    if said[0] in "0123":
        return chr(int(said, 8))
    if said[0] not in "%uUx":
        return said
    code = int(said.strip("%uUx{}"), 16)
    return chr(code) if code < 0x110000 else "?"


def _of_base64(run: str) -> str:
    kept = run.translate(_STANDARD)
    kept = kept[: len(kept) // 4 * 4] if len(kept) % 4 == 1 else kept + "=" * (-len(kept) % 4)
    return binascii.a2b_base64(kept).decode("latin-1")
