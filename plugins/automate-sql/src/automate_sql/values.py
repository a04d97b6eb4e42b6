"""Values: the JSON forms of what databases return, and the values bound for what JSON has."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from automate_kernel.base.errors import AutomateError, ErrorCodes

_MOST_INTEGER = 2**63


def jsonable(value: Any) -> Any:
    """
    Return the JSON form of a *value* of a database.

    Integers, finite floats, texts, booleans and NULL are themselves, and so is JSON. Decimals,
    dates, times and UUIDs become text that loses nothing; durations are in ISO 8601; bytes become
    ``{"base64": …}``; arrays become lists. Everything else becomes its text.
    """
    if value is None or isinstance(value, (bool, str, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Decimal):
        return format(value, "f") if value.is_finite() else str(value)
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, timedelta):
        return _duration(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"base64": base64.b64encode(bytes(value)).decode()}
    if isinstance(value, Mapping):
        return {str(key): jsonable(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(each) for each in value]
    if isinstance(value, (set, frozenset)):
        return sorted(jsonable(each) for each in value)
    return str(value)


def _duration(value: timedelta) -> str:
    sign, rest = ("-", -value) if value < timedelta(0) else ("", value)
    seconds, fraction = rest.seconds, f".{rest.microseconds:06d}" if rest.microseconds else ""
    return f"{sign}P{rest.days}DT{seconds // 3600}H{seconds // 60 % 60}M{seconds % 60}{fraction}S"


def bound(value: Any) -> Any:
    """
    Return the value to bind for a parameter's JSON *value*; others pass as they are.

    ``{"base64": …}`` stands for bytes, and any other object for its JSON text.
    """
    if isinstance(value, bool) or not isinstance(value, (int, Mapping, list, tuple)):
        return value
    if isinstance(value, int):
        if not -_MOST_INTEGER <= value < _MOST_INTEGER:
            raise _refused("an integer doesn't fit 64 bits", "pass it as text, and CAST it")
        return value
    if isinstance(value, Mapping):
        if set(value) == {"base64"}:
            return _bytes(value["base64"])
        return json.dumps(value, ensure_ascii=False)
    return [bound(each) for each in value]


def _bytes(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise _refused("a parameter's base64 can't be read") from None


def _refused(problem: str, hint: str | None = None) -> AutomateError:
    return AutomateError(ErrorCodes.INVALID_ARGUMENT, problem, hint=hint)
