"""How a secret may look where it turns up: the encodings that software puts text into."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Callable, Iterator
from urllib.parse import quote

__all__ = ["encoded_forms"]

_LONG = 4096
_PERCENT = re.compile(r"%[0-9A-F]{2}")
_ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2})")


def encoded_forms(value: str) -> set[str]:
    """
    *value* and what it becomes in URLs, JSON, HTML, Python reprs, base64 and hex.

    Base64 is the part that stays the same wherever the value stands in the encoded text, as in
    the ``user:password`` of basic authentication. Of values over 4096 characters the URL and hex
    forms are left out, which are as rare as they would be large.
    """
    raw = value.encode("utf-8", "surrogatepass")
    forms = {value, value.strip(), *_escaped(value), *_base64(raw)}
    if len(value) <= _LONG:
        forms.update(_quoted(raw))
        forms.update((raw.hex(), raw.hex().upper()))
    return forms


def _escaped(value: str) -> Iterator[str]:
    yield html.escape(value)
    yield html.escape(value, quote=False)
    yield value.replace("'", "''")  # SQL, YAML
    bodies = [
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        repr(value)[1:-1],
        ascii(value)[1:-1],
        repr(value.encode("utf-8", "surrogatepass"))[2:-1],
        value.replace("\\", "\\\\").replace("'", "\\'"),
    ]
    for body in bodies:
        yield body
        yield body.replace("/", "\\/")  # PHP and others escape the slash in JSON
        yield json.dumps(body)[1:-1]  # JSON inside a JSON string
        yield _swap_case(_ESCAPE, body)


def _quoted(raw: bytes) -> Iterator[str]:
    for safe in ("", "/", "~", "!*'()", "/:?#[]@!$&'()*+,;="):
        text = quote(raw, safe=safe)
        for form in (text, text.replace("%20", "+")):
            yield form
            yield _swap_case(_PERCENT, form)
            yield form.replace("%", "%25")  # quoted twice


def _swap_case(pattern: re.Pattern[str], text: str) -> str:
    def swapped(match: re.Match[str]) -> str:
        escape = match.group()
        lead = 1 if escape[0] == "%" else 2
        digits = escape[lead:]
        return escape[:lead] + (digits.lower() if digits != digits.lower() else digits.upper())

    return pattern.sub(swapped, text)


_ENCODERS: tuple[Callable[[bytes], bytes], ...] = (base64.b64encode, base64.urlsafe_b64encode)


def _base64(raw: bytes) -> Iterator[str]:
    for encode in _ENCODERS:
        yield encode(raw).decode("ascii")
        # Three bytes make four characters; the characters that share bits with a neighbour go.
        for offset, start in ((0, 0), (1, 2), (2, 3)):
            end = (offset + len(raw)) * 8 // 6
            yield encode(bytes(offset) + raw).decode("ascii")[start:end]
