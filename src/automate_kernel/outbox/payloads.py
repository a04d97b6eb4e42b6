"""What can be stored in every database, and what is refused at the door."""

from __future__ import annotations

import json
import re
from typing import Any

from automate_kernel.errors import PayloadError
from automate_kernel.storage.codec import JsonText
from automate_kernel.storage.tables import OUTBOX, TABLES

__all__ = ["check_text", "encode_json", "storable", "unstorable"]

MAX_PAYLOAD_BYTES = 1_000_000
MAX_DEPTH = 100

# What PostgreSQL can't hold in text or jsonb, though Python can: NUL, and half a surrogate pair.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_UNSTORABLE_ESCAPE = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


def encode_json(value: Any, name: str, limit: int = MAX_PAYLOAD_BYTES) -> JsonText:
    """*value* as JSON that every database here can store; raises `PayloadError` naming *name*."""
    try:
        text = _encode(value)
    except ValueError as error:
        # json's own text may show the value, so only the known reasons are passed on.
        reason = "circular reference" if "ircular" in str(error) else "NaN or infinity"
        raise PayloadError(f"the {name} can't be stored: {reason}") from None
    except (TypeError, RecursionError) as error:
        raise PayloadError(
            f"the {name} can't be stored as JSON: {error}",
            hint="pass dicts, lists, strings, numbers, booleans and None",
        ) from None
    # What can be written at the bottom of one stack must be readable at the bottom of any other.
    length = len(text)
    # Cheap tests first, each of which clears nearly every payload of what a costly one looks for.
    if length > 2 * MAX_DEPTH and _brackets(text) > MAX_DEPTH and _too_deep(value):
        raise PayloadError(
            f"the {name} is nested deeper than {MAX_DEPTH} levels",
            hint="flatten it, or pass it as a string of JSON",
        )
    ascii_only = text.isascii()
    if (not ascii_only and _UNSTORABLE.search(text)) or (
        "\\u0000" in text and _UNSTORABLE_ESCAPE.search(text)
    ):
        raise PayloadError(
            f"the {name} can't be stored: it holds a NUL character or half a surrogate pair",
            hint="remove or encode it, as base64 say",
        )
    if length > limit or (not ascii_only and len(text.encode()) > limit):
        raise PayloadError(
            f"the {name} is too long: over {limit:,} bytes of JSON",
            hint="store the data elsewhere and pass a reference",
        )
    return JsonText(text)


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def _brackets(text: str) -> int:
    return text.count("[") + text.count("{")


def _too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list, tuple))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True


_LENGTHS = {column.name: column.length for column in TABLES[OUTBOX].columns if column.length}


def check_text(value: str | None, column: str) -> None:
    """Raise `PayloadError` if *value* doesn't fit the outbox's text column."""
    if value is None:
        return
    length = _LENGTHS[column]
    if len(value) > length:
        raise PayloadError(f"{column} is too long: {len(value)} characters of at most {length}")
    if value.isascii() and "\x00" not in value:
        return
    if _UNSTORABLE.search(value):
        raise PayloadError(f"{column} holds a NUL character or half a surrogate pair")


def unstorable(text: str) -> bool:
    """Whether *text* holds what not every database can store: NUL, half a surrogate pair."""
    return _UNSTORABLE.search(text) is not None


def storable(text: str, limit: int = 10_000) -> str:
    """*text* with what can't be stored replaced, so that a finishing write never fails on it."""
    return _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text)[:limit]
