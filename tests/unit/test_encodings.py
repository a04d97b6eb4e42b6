"""Readings of encoded text: the quick way says what the plain one does, with the same places."""

from __future__ import annotations

import binascii
import html
import re
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate

from automate_kernel.secrets import encodings
from hypothesis import given, settings
from hypothesis import strategies as st

_DEEPEST = 3
_MARKS = " \t\n\r\v\f\x1c\x1d\x1e\x1f\x85\xa0:;,.=_|-xX"  # what may stand between pairs
_HEX = "[0-9A-Fa-f]"
_ESCAPE = re.compile(
    rf"%{_HEX}{{2}}"
    rf"|\\{{1,8}}(?:u{_HEX}{{4}}|u\{{{_HEX}{{1,6}}\}}|U{_HEX}{{8}}|x{_HEX}{{2}}|[0-3][0-7]{{2}})"
    rf"|&(?:#[0-9]{{1,7}}|#[xX]{_HEX}{{1,6}}|amp|lt|gt|quot|apos);?"
)
# Beside another escape these are escapes too.
_ANY_ESCAPE = re.compile(rf"{_ESCAPE.pattern}|\\{{1,8}}[\"'/]")
_SEPARATED = re.compile(
    rf"(?:{_HEX}{{2}}){{1,16}}(?:[\s:;,.=_|-]{{1,3}}(?:0[xX])?(?:{_HEX}{{2}}){{1,16}})+"
)
_HEX_PART = re.compile(rb"[hs]{12,}")
_PAIR = re.compile(rf"(?:0[xX])?({_HEX}{{2}})")
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
_SHORTEST, _DIGITS, _LETTERS = 11, b"h" * 12, b"b" * 20
_STANDARD = str.maketrans("-_", "+/")


# The plain way: each place is worked out at once.
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
    # Looking for a character costs next to nothing, and few texts have any of these.
    if ("%" in text or "\\" in text or "&" in text) and _ESCAPE.search(text):
        yield _joined(text, [(m.start(), m.end(), _char(m[0])) for m in _ANY_ESCAPE.finditer(text)])
    if len(text) < _SHORTEST:
        return
    # Each letter by its kind: the patterns take many times longer to see that there is nothing.
    raw = text.encode("latin-1", "replace")
    kinds = raw.translate(_HEX_KINDS)
    if _DIGITS in kinds.replace(b"s", b""):
        for part in _HEX_PART.finditer(kinds):
            if part[0].count(b"h") >= len(_DIGITS):
                yield from _hexadecimal(text, *part.span())
    if _LETTERS in raw.translate(_BASE64_KINDS):
        for run in _BASE64.finditer(text):
            if kinds[slice(*run.span())].strip(b"hs"):  # else an id or a digest
                yield Reading(_of_base64(run[0]), _in_base64(*run.span()))


def _hexadecimal(text: str, first: int, last: int) -> Iterator[Reading]:
    for run in _SEPARATED.finditer(text, first, last):
        pairs = list(_PAIR.finditer(text, *run.span()))
        said = bytes.fromhex("".join(pair[1] for pair in pairs)).decode("latin-1")
        yield Reading(said, _in_pairs([pair.span(1) for pair in pairs]))
    for run in _PLAIN_HEX.finditer(text, first, last):
        if run[0] != run[0].lower():
            yield Reading(run[0].lower(), _after(run.start()))


def _in_pairs(pairs: list[tuple[int, int]]) -> _Place:
    return lambda start, end: (pairs[start][0], pairs[end - 1][1])


def _after(at: int) -> _Place:
    return lambda start, end: (at + start, at + end)


def _in_base64(at: int, last: int) -> _Place:
    return lambda start, end: (at + start * 4 // 3, min(last, at - (-end * 4 // 3)))


def _joined(text: str, escapes: list[tuple[int, int, str]]) -> Reading:
    pieces: list[str] = []
    position = 0
    for start, end, char in escapes:
        pieces += text[position:start], char
        position = end
    pieces.append(text[position:])
    saved = [end - start - 1 for start, end, _ in escapes]
    before = [0, *accumulate(saved)]  # what the escapes before each one, and before the end, save
    at = [start - less for (start, _, _), less in zip(escapes, before, strict=False)]
    return Reading(
        "".join(pieces),
        lambda start, end: (
            start + before[bisect_left(at, start)],
            end + before[bisect_left(at, end)],
        ),
    )


def _char(escape: str) -> str:
    if escape[0] == "&":
        # Always one character, as places are counted by it.
        return (html.unescape(escape if escape[-1] == ";" else f"{escape};") or "?")[0]
    said = escape.lstrip("\\")
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


PIECES = [
    "%41", "%4", "\\u0041", "\\" * 9 + "u0041", "\\x41", "\\101", "\\401", "\\u{41}", "\\U00000041",
    "\\u{110000}", "&amp", "&amp;", "&#65;", "&#x41", "&", "%", "\\", '\\"', "\\'", "\\/", "/", "0x41",
    "0X42", "0", "x", "41:42:43", "-", "a", "f", "3f2a1b4c-9d8e-4f60-a1b2-c3d4e5f60718",
    "DEADBEEFCAFE", "QUJDREVGR0hJSktMTU5PUFFSU1RVVg==", "\u00e9", "\u20ac", " ", "\n", "\xa0",
    "11 22 33 44 55 66 77", "SlVBMU1EUXhKVEF3TlRFd016SXhNREF3TURBd01EQXc=",
]  # fmt: skip
texts = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=3)), max_size=14).map("".join)


def told(found: Iterator[encodings.Reading | Reading]) -> list[object]:
    """Each text that is read, with the place of every part that begins or ends it."""
    return [
        (
            each.text,
            [each.place(0, end) for end in range(1, len(each.text) + 1)],
            [each.place(start, len(each.text)) for start in range(len(each.text))],
        )
        for each in found
    ]


@given(texts)
@settings(max_examples=300)
def test_readings_are_those_of_the_plain_way(text: str) -> None:
    """A line of a log with an id costs half, as places are looked for in what holds a secret."""
    assert told(encodings.readings(text)) == told(readings(text))
