"""The codec: values on their way to a database and back, in one format for every framework."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from functools import cache, lru_cache
from typing import Any

from automate_kernel.base.errors import StorageError
from automate_kernel.storage.dialects import Dialect
from automate_kernel.storage.tables import Column

_ZONE = re.compile(r"[+-][0-9:]+$")


class JsonText(str):
    """JSON that is encoded already, so that it isn't encoded twice."""

    __slots__ = ()


NULL = JsonText("null")
"""None as JSON."""

_written = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
# A string, which is left alone, or a number that a database's own type for JSON would change.
_NUMBERS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|(?<!\d)-?\d+(?:\.\d+)?e\+\d+|-0\.0(?!\d)')


def json_text(value: Any) -> JsonText:
    """
    Return *value* as JSON in which every number keeps its value and its type in any database.

    PostgreSQL's jsonb holds decimal numbers: one without a fraction comes back as an integer, and
    zero has no sign. So a large float is written in full with its fraction, and -0.0 as a number
    that every reader rounds to zero with its sign. Raises `ValueError` for NaN, infinity and a
    circular reference, and `TypeError` for types that JSON doesn't have.
    """
    if value is None:
        return NULL  # as most steps return nothing
    text = _written(value)
    # Looking for two characters costs nothing beside encoding; few payloads have such numbers.
    if "e+" in text or "-0.0" in text:
        text = _NUMBERS.sub(_in_full, text)
    return JsonText(text)


def _in_full(match: re.Match[str]) -> str:
    found = match[0]
    if found[0] == '"':
        return found
    if found == "-0.0":
        return "-1e-400"
    number, _, exponent = found.partition("e+")
    whole, _, fraction = number.partition(".")
    # Python writes an exponent from 1e16 on, and at most 16 digits after the point.
    return f"{whole}{fraction}{'0' * (int(exponent) - len(fraction))}.0"


def with_sorted_keys(value: Any) -> Any:
    """
    Return the JSON *value* with the keys of its objects in the order that jsonb gives them.

    What is read again must come in the order in which it was seen first: else a list that was made
    of an object's keys is another one after a restart.
    """
    if isinstance(value, dict):
        keys = sorted(value, key=_key_order) if len(value) > 1 else value
        return {key: with_sorted_keys(value[key]) for key in keys}
    if isinstance(value, (list, tuple)):
        return [with_sorted_keys(each) for each in value]
    return value


def _key_order(key: str) -> tuple[int, bytes]:
    data = key.encode()
    return len(data), data


def encode(dialect: Dialect, column: Column, value: Any) -> Any:
    """Return *value* as the driver takes it."""
    if value is None:
        return str(NULL) if column.type == "json" and not column.null else None
    encoder = encoders_of(dialect).get(column.type)
    return value if encoder is None else encoder(value)


@cache
def encoders_of(dialect: Dialect) -> Mapping[str, Callable[[Any], Any]]:
    """Return the functions that make a driver's values, by the types that need one; not of None."""
    if dialect.arrays:
        return {"json": _encode_json}
    times = _encode_time if dialect.name == "mysql" else _encode_time_as_text
    return {"json": _encode_json, "id": _encode_id, "time": times}


def _encode_json(value: Any) -> str:
    return str(value if isinstance(value, JsonText) else json_text(value))


def _encode_id(value: Any) -> str:
    return str(value).replace("-", "")


def _encode_time(value: datetime) -> datetime:
    return value.astimezone(timezone.utc).replace(tzinfo=None)


def _encode_time_as_text(value: datetime) -> str:
    # Not cached by equality: both times of an hour that a clock repeats are equal.
    return value.astimezone(timezone.utc).replace(tzinfo=None).isoformat(" ", "microseconds")


def array_text(values: Sequence[Any]) -> str:
    """
    Return *values* as PostgreSQL writes an array of text.

    A driver that adapts a list element by element takes several times as long.
    """
    if None in values:
        if values.count(None) == len(values):
            return "{" + ",".join(["NULL"] * len(values)) + "}"
    elif type(values[0] if values else "") is str and set(map(type, values)) == {str}:
        text = '","'.join(values)
        # Nearly always nothing is to be escaped: ids, names, numbers.
        if "\\" not in text and text.count('"') == 2 * (len(values) - 1):
            return '{"' + text + '"}'
    return "{" + ",".join(map(_array_element, values)) + "}"


def _array_element(value: Any) -> str:
    if value is None:
        return "NULL"
    text = _escaped(value)
    return '"' + (text.replace('"', '\\"') if '"' in text else text) + '"'


def copy_text(value: Any) -> str:
    r"""Return *value* as PostgreSQL's COPY reads it: ``\N`` for None, no tab and no newline."""
    if value is None:
        return "\\N"
    text = _escaped(value)
    if text.isprintable():
        return text
    return text.replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def _escaped(value: Any) -> str:
    if not isinstance(value, str):
        return value.isoformat() if isinstance(value, datetime) else str(value)
    return value.replace("\\", "\\\\") if "\\" in value else value


def decode(columns: Sequence[Column], rows: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
    """Return the driver's rows with plain Python values."""
    if not rows:
        return []
    names = [column.name for column in columns]
    # Column by column: a loop over a few columns costs less than one over every value.
    cells = [
        _DECODERS[column.type](values) if column.type in _DECODERS else values
        for column, values in zip(columns, zip(*rows, strict=True), strict=True)
    ]
    return [dict(zip(names, values, strict=True)) for values in zip(*cells, strict=True)]


def _decode_ids(values: Sequence[Any]) -> Sequence[Any]:
    if set(map(type, values)) == {str} and set(map(len, values)) == {36}:
        return values
    return [None if value is None else _decode_id(value) for value in values]


def _decode_id(value: Any) -> str:
    text = str(value)
    if len(text) == 32:
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
    return text


def _decode_times(values: Sequence[Any]) -> Sequence[Any]:
    if set(map(type, values)) == {str}:
        return list(map(_instant, values))
    return [None if value is None else decode_time(value) for value in values]


def decode_time(value: Any) -> datetime:
    """Return a driver's value as a moment in UTC."""
    if isinstance(value, str):
        return _instant(value)
    moment: datetime = value
    # Drivers give the zone of the database session, or none where the column has none.
    return moment.astimezone(timezone.utc) if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


# Items that were enqueued together have the same times, and new ones the same in three columns.
@lru_cache(1024)
def _instant(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(_iso(text))
    except ValueError:
        raise StorageError(
            f"the database writes instants as {text!r}",
            hint="set its DateStyle to ISO, for this role or database",
        ) from None
    return moment.astimezone(timezone.utc) if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


def _iso(text: str) -> str:
    """Return *text* as Python's parser takes it."""
    if sys.version_info >= (3, 11):
        return text
    # 3.10 wants three or six digits of a second, and minutes in the zone.
    head, point, rest = text.partition(".")
    found = _ZONE.search(rest if point else head[19:])
    zone = found[0] if found else ""
    fraction = f".{rest[: len(rest) - len(zone)]:0<6}" if point else ""
    return f"{head[:19]}{fraction}{zone}:00" if len(zone) == 3 else f"{head[:19]}{fraction}{zone}"


def _decode_jsons(values: Sequence[Any]) -> Sequence[Any]:
    # Every text is JSON, so all together are one list of it: one call in place of hundreds. But a
    # null of the column is no text, and some drivers have decoded it already.
    if set(map(type, values)) == {str}:
        decoded: list[Any] = json.loads("[" + ",".join(values) + "]")
        return decoded
    return [json.loads(each) if isinstance(each, (str, bytes)) else each for each in values]


_DECODERS: dict[str, Callable[[Sequence[Any]], Sequence[Any]]] = {
    "id": _decode_ids,
    "time": _decode_times,
    "json": _decode_jsons,
}
