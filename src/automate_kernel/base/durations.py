"""
Durations as people write them: ``250ms``, ``30s``, ``5m``, ``1h30m``, or a number of seconds.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema
from pydantic_core import PydanticCustomError

from automate_kernel.base.errors import type_name

__all__ = [
    "Duration",
    "DurationField",
    "OptionalDuration",
    "format_duration",
    "parse_duration",
]

# Milliseconds per unit, the largest first: a duration is written in this order.
_UNITS = {"w": 604_800_000, "d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_TEXT = re.compile(
    "".join(rf"(?:(?P<{unit}>[0-9]+(?:\.[0-9]+)?){unit})?" for unit in _UNITS), re.ASCII
)
_SCHEMA = "".join(rf"([0-9]+(\.[0-9]+)?{unit})?" for unit in _UNITS)
_LONGEST = 3660 * _UNITS["d"]
_HAIR = Decimal("0.001")
_REMEDY = "write it like 250ms, 30s, 5m, 1h30m or 1d, or as a number of seconds"

# The units that people write instead, for the suggestion in the error.
_WORDS = (
    ("w", "weeks week wk wks"),
    ("d", "days day"),
    ("h", "hours hour hrs hr"),
    ("m", "minutes minute mins min"),
    ("s", "seconds second secs sec"),
    ("ms", "milliseconds millisecond millis milli msecs msec"),
)
_WORD_UNITS = {word: unit for unit, words in _WORDS for word in [unit, *words.split()]}
_LOOSE = re.compile(r"(?<![0-9.])([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]+)", re.ASCII)
_ALL_LOOSE = re.compile(rf"(?:{_LOOSE.pattern}[\s,]*(?:and[\s,]*)*)+", re.ASCII)


def parse_duration(value: str | float) -> float:
    """
    Read the number of seconds from *value*.

    A millisecond is the finest step and ten years the longest duration, so every duration can be
    written out and read back exactly. Raises ValueError with the remedy in its text.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        problem = f"a duration is text or a number, not {type_name(value)}: {_REMEDY}"
        raise ValueError(problem)  # noqa: TRY004 - one kind of error for all problems
    milliseconds = _from_text(value) if isinstance(value, str) else _from_number(value)
    if milliseconds != milliseconds.to_integral_value():
        raise ValueError("a duration can't be finer than a millisecond")
    if milliseconds < 0:
        raise ValueError("a duration can't be negative")
    if milliseconds > _LONGEST:
        raise ValueError("a duration can't be longer than ten years")
    return int(milliseconds) / 1000


def _from_number(value: float) -> Decimal:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a duration must be a finite number")
    # Arithmetic would round to 28 digits; values too large for us are cut off before that.
    milliseconds = min(max(Decimal(value), Decimal(-1)), Decimal(_LONGEST)) * 1000
    whole = milliseconds.to_integral_value()
    # 0.1 + 0.2 is a hair beside 0.3, and means it.
    return whole if abs(milliseconds - whole) < _HAIR else milliseconds


def _from_text(text: str) -> Decimal:
    match = _TEXT.fullmatch(text.strip()) if len(text) <= 64 else None
    if match is None or not match.group():
        raise ValueError(f"{text[:40]!r} is not a duration: {_suggest(text)}")
    parts = (Decimal(n) * _UNITS[unit] for unit, n in match.groupdict().items() if n)
    return sum(parts, Decimal(0))


def _suggest(text: str) -> str:
    """Return what the author of *text* may have meant, as an instruction."""
    if len(text) > 64:
        return _REMEDY
    text = text.strip().lower()
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text, re.ASCII):
        return f"add its unit, as in '{text}s', or write the number of seconds without quotes"
    parts = _LOOSE.findall(text) if _ALL_LOOSE.fullmatch(text) else []
    units = [_WORD_UNITS.get(word) for _, word in parts]
    meant = "".join(f"{number}{unit}" for (number, _), unit in zip(parts, units, strict=True))
    if parts and None not in units and _TEXT.fullmatch(meant):
        return f"did you mean '{meant}'?"
    return _REMEDY


def format_duration(seconds: float) -> str:
    """Write *seconds* in the shortest form for `parse_duration`: ``1h30m``, ``250ms``."""
    rest = round(seconds * 1000)
    text = ""
    for unit, size in _UNITS.items():
        if unit == "w":  # "10d" says more than "1w3d"
            continue
        count, rest = divmod(rest, size)
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def _validate(value: Any) -> float:
    try:
        return parse_duration(value)
    except ValueError as error:
        raise PydanticCustomError("duration", "{problem}", {"problem": str(error)}) from None


Duration = Annotated[
    float,
    BeforeValidator(_validate),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": f"^(?=.){_SCHEMA}$"},
                {"type": "number", "minimum": 0},
            ],
            "examples": ["250ms", "30s", "5m", "1h30m", 30],
            "description": "A duration: 250ms, 30s, 5m, 1h30m, 1d, or a number of seconds.",
        }
    ),
]
"""A number of seconds, read and written as a duration. For a static type checker a float."""

if TYPE_CHECKING:
    # A type checker derives the parameter of a model's field from `__set__`, and the type of its
    # value from `__get__`: text goes in, and a number comes out. A default is then an error to it.

    class DurationField:
        """A field that takes what `parse_duration` takes, and has seconds."""

        def __get__(self, model: object, owner: Any = None) -> float: ...
        def __set__(self, model: object, value: float | str) -> None: ...

    class OptionalDuration:
        """A field that takes what `parse_duration` takes, or None, and has seconds or None."""

        def __get__(self, model: object, owner: Any = None) -> float | None: ...
        def __set__(self, model: object, value: float | str | None) -> None: ...

else:
    DurationField = Duration
    OptionalDuration = Annotated[Duration, Field(gt=0)] | None
