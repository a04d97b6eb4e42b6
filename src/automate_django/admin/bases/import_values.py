"""Turns cells into the values of fields, many rows at a time."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import FieldDoesNotExist, ValidationError
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext as _

from automate_django.admin.bases.secrecy import is_secret

__all__ = ["Column", "chunks", "column_of", "converted", "key_text", "resolve"]

_TRUE = {"true", "t", "yes", "y", "1", "on"}
_FALSE = {"false", "f", "no", "n", "0", "off"}
_BATCH = 500
_LARGEST = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a file: the *field* that it fills; of a relation, by the field *by* there."""

    name: str
    field: Any
    by: Any = None


def column_of(model: Any, name: str) -> Column | None:
    """What the column *name* is: ``price``, ``category_id``, ``category__slug``."""
    first, __, further = name.partition("__")
    try:
        field = model._meta.pk if first == "pk" else model._meta.get_field(first)
    except FieldDoesNotExist:
        return None
    if not field.concrete or field.many_to_many:
        return None
    if not field.remote_field:
        return Column(name, field) if not further else None
    try:
        by = field.target_field if not further else field.related_model._meta.get_field(further)
    except FieldDoesNotExist:
        return None
    # Not by a secret: "there is such a row" would tell it.
    usable = by.concrete and not by.remote_field and not is_secret(by)
    return Column(name, field, by) if usable else None


def converted(column: Column, raw: Any) -> Any:
    """
    The Python value of the cell *raw*; raises `ValidationError`.

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
    """Whether blanks at the ends of *raw* are part of it: in text that may be anything."""
    if isinstance(field, models.JSONField):
        return True
    if not isinstance(field, (models.CharField, models.TextField)):
        return False  # a number, a date, an address of a machine
    if field.choices:
        return raw in {str(value) for value, _label in field.flatchoices}
    return not isinstance(field, (models.EmailField, models.URLField, models.SlugField))


def _flag(raw: Any) -> bool:
    text = str(raw).lower()
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValidationError(_("This is neither yes nor no."))


def _json(raw: Any) -> Any:
    if not isinstance(raw, str):
        return raw
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        raise ValidationError(_("This is no JSON.")) from None


def key_text(value: Any) -> str:
    """*value* for comparing what a file says with what the database has."""
    return "" if value is None else str(value)


def resolve(column: Column, rows: models.QuerySet[Any], values: Iterable[Any]) -> dict[str, Any]:
    """The target key of each of *values*, among *rows*, which the user may choose from."""
    target = column.field.target_field.attname
    wanted = sorted({value for value in values if value not in (None, "")}, key=str)
    found: dict[str, Any] = {}
    several = set()
    for part in chunks(wanted):
        matching = rows.filter(**{f"{column.by.attname}__in": part})
        for by, key in matching.values_list(column.by.attname, target):
            if found.setdefault(key_text(by), key) != key:
                several.add(key_text(by))
    # What names several rows names none of them.
    return {by: key for by, key in found.items() if by not in several}


def chunks(values: Sequence[Any], size: int = _BATCH) -> Iterator[Sequence[Any]]:
    """*values* in parts that fit into one statement of any database."""
    for start in range(0, len(values), size):
        yield values[start : start + size]
