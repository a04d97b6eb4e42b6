"""An uploaded file: its encoding, its delimiter, its columns, its rows, and the values of cells."""

from __future__ import annotations

import codecs
import csv
import datetime as dt
import io
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.core.exceptions import FieldDoesNotExist, ValidationError
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext as _

from automate_django.admin.bases.base import chunks
from automate_django.secrecy import is_secret
from automate_kernel.storage.values import NestingError, read_json
from automate_pages.csv_file import unescaped

_DELIMITERS = ",;\t|"
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_TRUE = {"true", "t", "yes", "y", "1", "on"}
_FALSE = {"false", "f", "no", "n", "0", "off"}
_LARGEST = 2**63 - 1


class ImportFileError(Exception):
    """The file as a whole can't be read; the text is for the user."""


@dataclass(slots=True)
class ImportFile:
    """The *columns* of a file, its *rows* with their line numbers, and *notes* on reading it."""

    columns: list[str]
    rows: list[tuple[int, dict[str, Any]]]
    notes: list[str] = field(default_factory=list)
    problems: list[tuple[int, str]] = field(default_factory=list)


def read(content: bytes, format: str, *, max_rows: int, known: Sequence[str] = ()) -> ImportFile:
    """
    Return the rows of *content*; *known* columns help to find the delimiter.

    Raises `ImportFileError` if it is no file of that *format* or has more than *max_rows* rows.
    """
    notes: list[str] = []
    text = _decoded(content, notes)
    if "\0" in text:
        raise ImportFileError(_("The file has NUL characters in it; it is no text file."))
    source = _read_csv(text, max_rows, known) if format == "csv" else _read_json(text)
    if len(source.rows) + len(source.problems) > max_rows:
        raise ImportFileError(_("The file has more than %d rows. Split it.") % max_rows)
    source.notes = notes
    return source


def _decoded(content: bytes, notes: list[str]) -> str:
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError:
        if encoding != "utf-8":
            text = _("The file's encoding is broken: it is not %s.") % encoding
            raise ImportFileError(text) from None
    note = _("The file is not UTF-8. It was read as Windows-1252: check letters with accents.")
    notes.append(note)
    return content.decode("cp1252", "replace")


def _read_csv(text: str, max_rows: int, known: Sequence[str]) -> ImportFile:
    delimiter = _delimiter(text, known)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        return _rows_of(lines, max_rows)
    except csv.Error as error:
        about = {"line": lines.line_num, "error": error}
        raise ImportFileError(_("Line %(line)d: %(error)s") % about) from None


def _delimiter(text: str, known: Sequence[str]) -> str:
    """Return the delimiter with the most *known* names in the first line, else the most cells."""
    first = text.partition("\n")[0]
    names = set(known)

    def worth(delimiter: str) -> tuple[int, int]:
        cells = next(csv.reader([first], delimiter=delimiter), [])
        return len(names & {cell.strip() for cell in cells}), len(cells)

    return max(_DELIMITERS, key=worth)


def _rows_of(lines: Any, max_rows: int) -> ImportFile:
    columns = [cell.strip() for cell in next(lines, [])]
    if not any(columns):
        raise ImportFileError(_("The first line has to name the columns."))
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        names = ", ".join(twice) or "-"
        raise ImportFileError(_("The first line names a column twice: %s") % names)
    source = ImportFile(columns, [])
    for cells in lines:
        if not any(cell.strip() for cell in cells):
            continue
        line = lines.line_num
        if len(source.rows) + len(source.problems) > max_rows:
            break  # the rest need not be read
        if len(cells) != len(columns):
            text = _("%(found)d cells, and %(wanted)d columns")
            problem = text % {"found": len(cells), "wanted": len(columns)}
            source.problems.append((line, problem))
            continue
        row = {name: unescaped(cell) for name, cell in zip(columns, cells, strict=True)}
        source.rows.append((line, row))
    return source


def _read_json(text: str) -> ImportFile:
    try:
        found = read_json(text)
    except NestingError:
        raise ImportFileError(_("The file is nested too deeply.")) from None
    except ValueError as error:
        raise ImportFileError(_("The file is no JSON: %s") % error) from None
    if not isinstance(found, list):
        raise ImportFileError(_("The file has to be a list of objects."))
    source = ImportFile([], [])
    for number, row in enumerate(found, start=1):
        if isinstance(row, dict):
            source.rows.append((number, row))
        else:
            source.problems.append((number, _("this is no object")))
    source.columns = list(dict.fromkeys(name for _number, row in source.rows for name in row))
    return source


@dataclass(frozen=True, slots=True)
class ImportColumn:
    """A column of a file: the *field* that it fills; of a relation, by the field *by* there."""

    name: str
    field: Any
    by: Any = None


def column_of(model: Any, name: str) -> ImportColumn | None:
    """Return the field of the column *name*: ``price``, ``category_id``, ``category__slug``."""
    first, __, further = name.partition("__")
    try:
        field = model._meta.pk if first == "pk" else model._meta.get_field(first)
        if not field.concrete or field.many_to_many:
            return None
        if not field.remote_field:
            return ImportColumn(name, field) if not further else None
        by = field.related_model._meta.get_field(further) if further else field.target_field
    except FieldDoesNotExist:
        return None
    # Not by a secret: "there is such a row" would give it away.
    usable = by.concrete and not by.remote_field and not is_secret(by)
    return ImportColumn(name, field, by) if usable else None


def converted(column: ImportColumn, raw: Any) -> Any:
    """
    Return the Python value of the cell *raw*; raises `ValidationError`.

    An empty or blank cell is None, or empty text where the field holds text that is never null.
    Other text is kept as it is, so that an export can be imported again.
    """
    field = column.by or column.field
    if isinstance(raw, (dict, list)) and not isinstance(field, models.JSONField):
        raise ValidationError(_("This has to be a single value."))
    if isinstance(raw, str) and (not raw.strip() or not _is_verbatim(field, raw)):
        raw = raw.strip()
    if raw is None or raw == "":
        return "" if field.empty_strings_allowed and not column.field.null else None
    if isinstance(field, models.BooleanField):
        return _flag(raw)
    if isinstance(field, models.JSONField):
        return _json(raw)
    value = field.to_python(raw)
    if column.by is not None or field.primary_key:
        # It is looked up, and not all that can be read can be; Django's own validators for SQLite
        # know no bounds before 5.0.
        field.run_validators(value)
        if isinstance(value, int) and abs(value) > _LARGEST:
            raise ValidationError(_("This is too large a number."))
    if isinstance(value, dt.datetime) and timezone.is_naive(value):
        value = timezone.make_aware(value)
    return value


def _is_verbatim(field: Any, raw: str) -> bool:
    """Return True if blanks at the ends of *raw* are part of it: in text that may be anything."""
    if isinstance(field, models.JSONField):
        return True
    if not isinstance(field, (models.CharField, models.TextField)):
        return False  # a number, a date, an address of a machine
    if field.choices:
        return raw in {str(value) for value, _label in field.flatchoices}
    return not isinstance(field, (models.EmailField, models.URLField, models.SlugField))


def _flag(raw: Any) -> bool:
    text = str(raw).lower()
    if text not in _TRUE | _FALSE:
        raise ValidationError(_("This is neither yes nor no."))
    return text in _TRUE


def _json(raw: Any) -> Any:
    try:
        return read_json(raw) if isinstance(raw, str) else raw
    except ValueError:
        raise ValidationError(_("This is no JSON.")) from None


def key_text(value: Any) -> str:
    """Return *value* for comparing what a file says with what the database has."""
    return "" if value is None else str(value)


def resolve(
    column: ImportColumn, rows: models.QuerySet[Any], values: Iterable[Any]
) -> dict[str, Any]:
    """Return the target key of each of *values*, among *rows*, which the user may choose from."""
    target = column.field.target_field.attname
    wanted = sorted({value for value in values if value not in (None, "")}, key=str)
    found = defaultdict[str, set[Any]](set)
    for part in chunks(wanted):
        matching = rows.filter(**{f"{column.by.attname}__in": part})
        for by, key in matching.values_list(column.by.attname, target):
            found[key_text(by)].add(key)
    # What names several rows names none of them.
    return {by: keys.pop() for by, keys in found.items() if len(keys) == 1}
