"""The waits that the headers of an answer ask for, in seconds."""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import parsedate_to_datetime

_MAX_WAIT_SECONDS = 86_400.0
_REMAINING = ("x-ratelimit-remaining", "ratelimit-remaining", "x-rate-limit-remaining")
_RESET = ("x-ratelimit-reset", "ratelimit-reset", "x-rate-limit-reset")
# A number above it is a time since 1970 and no wait; above the second, in milliseconds.
_EPOCH_SECONDS, _EPOCH_MILLISECONDS = 1e9, 1e12


def header_wait(headers: Mapping[str, str]) -> float | None:
    """Return the seconds until a limit that is used up is reset, or None while some is left."""
    remaining = _first(headers, _REMAINING)
    reset = _first(headers, _RESET)
    if remaining is None or reset is None or remaining >= 1:
        return None
    if reset < _EPOCH_SECONDS:
        return min(reset, _MAX_WAIT_SECONDS)
    until = reset / 1000 if reset > _EPOCH_MILLISECONDS else reset
    try:
        now = parsedate_to_datetime(headers.get("date", "")).timestamp()
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return min(max(until - now, 0.0), _MAX_WAIT_SECONDS)


def _first(headers: Mapping[str, str], names: tuple[str, ...]) -> float | None:
    return next((_number(headers[name].strip()) for name in names if name in headers), None)


def _number(text: str) -> float | None:
    whole, _, part = text.partition(".")
    digits = whole + part
    return (
        float(text) if digits.isascii() and digits.isdigit() and len(text) < 18 and whole else None
    )
