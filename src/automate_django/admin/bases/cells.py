"""Values in files: how they are written so that a spreadsheet runs none, and read back."""

from __future__ import annotations

import csv
import datetime as dt
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder

__all__ = ["CONTENT_TYPES", "csv_lines", "json_lines", "unescaped"]

CONTENT_TYPES = {"csv": "text/csv; charset=utf-8", "json": "application/json"}

# What makes a spreadsheet run a cell, also after blanks and in full width; and a cell that
# begins with our own mark before one of these, so that reading takes off what writing put on.
_RUNS = re.compile(r"'*[\s\u00a0\ufeff]*[=+\-@\uff1d\uff0b\uff0d\uff20]|'*[\t\r\n]")
_ESCAPED = re.compile(r"'+[\s\u00a0\ufeff]*[=+\-@\uff1d\uff0b\uff0d\uff20]|'+[\t\r\n]")
_LINES_PER_CHUNK = 200


class _Echo:
    """A file that gives back what is written to it."""

    def write(self, text: str) -> str:
        return text


def csv_lines(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[bytes]:
    """The parts of a CSV file, with the mark that makes Excel read it as UTF-8."""
    writer = csv.writer(_Echo())
    parts = ["\ufeff", writer.writerow(names)]
    for row in rows:
        parts.append(writer.writerow([_cell(value) for value in row]))
        if len(parts) >= _LINES_PER_CHUNK:
            yield "".join(parts).encode("utf-8", "replace")
            parts.clear()
    yield "".join(parts).encode("utf-8", "replace")


def _cell(value: Any) -> Any:
    if value is None or value == "":
        return ""
    if isinstance(value, (int, float, Decimal)):
        return value  # -5 is a number and no formula
    if isinstance(value, (dt.date, dt.time)):
        return value.isoformat()
    text = (
        json.dumps(value, cls=DjangoJSONEncoder) if isinstance(value, (dict, list)) else str(value)
    )
    return f"'{text}" if _RUNS.match(text) else text


def unescaped(text: str) -> str:
    """The cell *text* of a CSV file without the quote that `csv_lines` put before it."""
    return text[1:] if _ESCAPED.match(text) else text


def json_lines(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[bytes]:
    """The parts of a JSON file: a list with an object per row."""
    encode = DjangoJSONEncoder(ensure_ascii=True).encode
    parts, separator = ["[\n"], ""
    for row in rows:
        parts.append(separator + encode(dict(zip(names, map(_value, row), strict=True))))
        separator = ",\n"
        if len(parts) >= _LINES_PER_CHUNK:
            yield "".join(parts).encode()
            parts.clear()
    yield ("".join(parts) + "\n]\n").encode()


def _value(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no such numbers
    if isinstance(value, (dt.date, dt.time)):
        return value.isoformat()  # all digits of the second, which the encoder would cut
    if value is None or isinstance(value, (bool, int, float, str, dict, list, Decimal)):
        return value
    return str(value)
