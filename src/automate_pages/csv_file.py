"""CSV files that no spreadsheet runs anything of, made line by line as they are read."""

from __future__ import annotations

import csv
import datetime as dt
import re
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from itertools import chain, islice
from typing import Any

CSV_TYPE = "text/csv; charset=utf-8"
# What makes a spreadsheet run a cell, also in full width and after what can't be seen; and a cell
# that begins with our own mark before one of these, so that reading takes off what writing put on.
_UNSEEN = r"[\s\x00\xad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]*"
_BEGIN = r"[=+\-@\uff1d\uff0b\uff0d\uff20]"
_FORMULA = rf"{_UNSEEN}{_BEGIN}"
_RUNS = re.compile(rf"'*{_FORMULA}|'*[\t\r\n]")
_ESCAPED = re.compile(rf"'+{_FORMULA}|'+[\t\r\n]")
# The same inside of a cell. Where people write decimal commas, a spreadsheet separates cells by
# semicolons: then our quotation marks keep no cell together.
_UNSEEN_IN_LINE = r"[^\S\t\r\n]|[\x00\xad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]"
_WITHIN = rf"'*(?:{_UNSEEN_IN_LINE})*{_BEGIN}"
_RUNS_WITHIN = re.compile(rf"([;\t\r\n])({_WITHIN})")
_ESCAPED_WITHIN = re.compile(rf"([;\t\r\n])'({_WITHIN})")
_LINES_PER_PART = 200


class _Echo:
    """A file that gives back what is written to it."""

    def write(self, text: str) -> str:
        return text


def csv_lines(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[bytes]:
    """
    Return the parts of a CSV file, with the mark that makes Excel read it as UTF-8.

    A text that a spreadsheet would run, as ``=1+1``, begins with a quote, and so does such a part
    of it after a semicolon or in a new line; see `unescaped`.
    """
    writer = csv.writer(_Echo())
    cells = (writer.writerow([_cell(value) for value in row]) for row in rows)
    yield from joined(chain(["\ufeff", writer.writerow(names)], cells))


def joined(lines: Iterator[str]) -> Iterator[bytes]:
    """Return *lines* of a file in UTF-8, some together."""
    while part := "".join(islice(lines, _LINES_PER_PART)):
        yield part.encode("utf-8", "replace")


def _cell(value: Any) -> Any:
    if isinstance(value, (int, float, Decimal)):
        return value  # -5 is a number and no formula
    if isinstance(value, (dt.date, dt.time)):
        return value.isoformat()
    # Python 3.10 writes no NUL into CSV, and most readers refuse a file with NUL.
    text = "" if value is None else str(value).replace("\0", "\N{REPLACEMENT CHARACTER}")
    text = _RUNS_WITHIN.sub(r"\1'\2", text)
    return f"'{text}" if _RUNS.match(text) else text


def unescaped(text: str) -> str:
    """Return the cell *text* of a CSV file without the quotes that `csv_lines` put into it."""
    return _ESCAPED_WITHIN.sub(r"\1\2", text[1:] if _ESCAPED.match(text) else text)
