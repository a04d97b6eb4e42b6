"""Reads an uploaded file: which encoding, which delimiter, which columns, which rows."""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.utils.translation import gettext as _

from automate_django.admin.bases.cells import unescaped

__all__ = ["Source", "SourceError", "read"]

_DELIMITERS = ",;\t|"
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class SourceError(Exception):
    """The file as a whole can't be read; the text is for the user."""


@dataclass(slots=True)
class Source:
    """The *columns* of a file, its *rows* with their line numbers, and *notes* on reading it."""

    columns: list[str]
    rows: list[tuple[int, dict[str, Any]]]
    notes: list[str] = field(default_factory=list)
    problems: list[tuple[int, str]] = field(default_factory=list)


def read(content: bytes, format: str, *, max_rows: int, known: Sequence[str] = ()) -> Source:
    """
    The rows of *content*; *known* columns help to tell the delimiter.

    Raises `SourceError` if it is no file of that *format* or has more than *max_rows* rows.
    """
    notes: list[str] = []
    text = _decoded(content, notes)
    if "\0" in text:
        raise SourceError(_("The file has NUL characters in it; it is no text file."))
    reader = {"csv": _read_csv, "json": _read_json}[format]
    source = reader(text, max_rows, known)
    source.notes = [*notes, *source.notes]
    return source


def _decoded(content: bytes, notes: list[str]) -> str:
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError:
        if encoding != "utf-8":
            raise SourceError(
                _("The file's encoding is broken: it is not %s.") % encoding
            ) from None
    notes.append(
        _("The file is not UTF-8. It was read as Windows-1252: check letters with accents.")
    )
    return content.decode("cp1252", "replace")


def _too_many(max_rows: int) -> SourceError:
    return SourceError(_("The file has more than %d rows. Split it.") % max_rows)


# -- CSV -----------------------------------------------------------------------------------------


def _read_csv(text: str, max_rows: int, known: Sequence[str]) -> Source:
    delimiter = _delimiter(text, known)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        return _rows_of(lines, max_rows)
    except csv.Error as error:
        raise SourceError(
            _("Line %(line)d: %(error)s") % {"line": lines.line_num, "error": error}
        ) from None


def _delimiter(text: str, known: Sequence[str]) -> str:
    """The character that splits the first line into the most known names, else the most parts."""
    first = text.partition("\n")[0]
    names = set(known)

    def worth(delimiter: str) -> tuple[int, int]:
        cells = next(csv.reader([first], delimiter=delimiter), [])
        return len(names & {cell.strip() for cell in cells}), len(cells)

    return max(_DELIMITERS, key=worth)


def _rows_of(lines: Any, max_rows: int) -> Source:
    columns = [cell.strip() for cell in next(lines, [])]
    if not any(columns):
        raise SourceError(_("The first line has to name the columns."))
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise SourceError(_("The first line names a column twice: %s") % (", ".join(twice) or "-"))
    source = Source(columns, [])
    for cells in lines:
        if not any(cell.strip() for cell in cells):
            continue
        line = lines.line_num
        if len(source.rows) + len(source.problems) >= max_rows:
            raise _too_many(max_rows)
        if len(cells) != len(columns):
            text = _("%(found)d cells, and %(wanted)d columns")
            problem = text % {"found": len(cells), "wanted": len(columns)}
            source.problems.append((line, problem))
            continue
        row = {name: unescaped(cell) for name, cell in zip(columns, cells, strict=True)}
        source.rows.append((line, row))
    return source


# -- JSON ----------------------------------------------------------------------------------------


def _read_json(text: str, max_rows: int, known: Sequence[str]) -> Source:
    try:
        found = json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise SourceError(_("The file is nested too deeply.")) from None
    except ValueError as error:
        raise SourceError(_("The file is no JSON: %s") % error) from None
    if not isinstance(found, list):
        raise SourceError(_("The file has to be a list of objects."))
    if len(found) > max_rows:
        raise _too_many(max_rows)
    source = Source([], [])
    for number, row in enumerate(found, start=1):
        if isinstance(row, dict):
            source.rows.append((number, row))
        else:
            source.problems.append((number, _("this is no object")))
    source.columns = list(dict.fromkeys(_names(source)))
    return source


def _names(source: Source) -> Iterator[str]:
    for _number, row in source.rows:
        yield from row


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
