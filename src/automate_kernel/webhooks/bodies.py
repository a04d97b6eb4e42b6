"""The bodies of requests as JSON, with bounds, and with a reason where one is refused."""

from __future__ import annotations

import json
from typing import Any, NoReturn

__all__ = ["MOST_DEPTH", "MOST_DIGITS", "BodyError", "parse_json"]

MOST_DEPTH = 100
"""How deep lists and objects may be nested: no payload that is deeper can be stored."""
MOST_DIGITS = 4_300
"""How many digits an integer may have: as many as Python reads without being told otherwise."""


class BodyError(ValueError):
    """A body that can't be read; its text says why, and shows nothing of it."""


def parse_json(body: bytes) -> Any:
    """
    The JSON value that *body* is, in UTF-8.

    Raises `BodyError` for what is no JSON (``NaN`` and ``Infinity`` aren't), is nested deeper than
    `MOST_DEPTH`, or has an integer of more than `MOST_DIGITS` digits.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise BodyError("it is not UTF-8") from None
    try:
        value = json.loads(text, parse_constant=_no_constant, parse_int=_integer)
    except BodyError:
        raise
    except ValueError:
        raise BodyError("it is not JSON") from None
    except RecursionError:
        raise _too_deep() from None
    # Counting is cheap, and clears nearly every body of what is dear to look for.
    if text.count("[") + text.count("{") > MOST_DEPTH and _is_deep(value):
        raise _too_deep()
    return value


def _no_constant(name: str) -> NoReturn:
    # NaN and Infinity are not JSON, and no database stores them as such.
    raise BodyError(f"it is not JSON: {name} is no number there")


def _integer(text: str) -> int:
    # Before it is read: reading takes time with the square of the length.
    if len(text) > MOST_DIGITS:
        raise BodyError(f"it has a number of more than {MOST_DIGITS:,} digits")
    return int(text)


def _too_deep() -> BodyError:
    return BodyError(f"it is nested deeper than {MOST_DEPTH} levels")


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MOST_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return False
    return True
