"""Finds rows that clash with each other or with the table, in a few queries for all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.db import models
from django.utils.translation import gettext as _

from automate_django.admin.bases.import_values import chunks

__all__ = ["clashes"]

Clash = tuple[int, list[str], str]


def clashes(model: Any, rows: Sequence[tuple[int, Any]]) -> Iterator[Clash]:
    """
    The line, the fields and the reason of each row that would break a unique constraint.

    Constraints with a condition or an expression are left to the database.
    """
    for names in _unique_sets(model):
        yield from _clashes(model, rows, names)


def _unique_sets(model: Any) -> list[tuple[str, ...]]:
    meta = model._meta
    found: list[tuple[str, ...]] = [
        (each.name,) for each in meta.concrete_fields if each.unique and not each.primary_key
    ]
    found += [tuple(each) for each in meta.unique_together]
    found += [
        tuple(each.fields)
        for each in meta.constraints
        if isinstance(each, models.UniqueConstraint) and each.fields and each.condition is None
    ]
    return list(dict.fromkeys(found))


def _clashes(
    model: Any, rows: Sequence[tuple[int, Any]], names: tuple[str, ...]
) -> Iterator[Clash]:
    attnames = [model._meta.get_field(name).attname for name in names]
    keys = {line: tuple(getattr(obj, name) for name in attnames) for line, obj in rows}
    # NULL is not equal to NULL, so it never clashes.
    keys = {line: key for line, key in keys.items() if None not in key}
    taken = _taken(model, attnames, list(keys.values()))
    moving = {obj.pk for _line, obj in rows if obj.pk is not None}
    first: dict[Any, int] = {}
    for line, obj in rows:
        key = keys.get(line)
        if key is None:
            continue
        if first.setdefault(key, line) != line:
            yield line, list(names), _("the same value as in line %d") % first[key]
        holder = taken.get(key)
        if holder is not None and holder != obj.pk and holder not in moving:
            yield line, list(names), _("another row has this value already")


def _taken(model: Any, attnames: list[str], keys: list[tuple[Any, ...]]) -> dict[Any, Any]:
    """Which row has which key: of all rows, whoever may see them, since the database asks all."""
    found: dict[Any, Any] = {}
    columns = [set(values) for values in zip(*keys, strict=True)]
    if not columns:
        return found
    # The part of the key that differs most reads the fewest rows.
    place = max(range(len(columns)), key=lambda index: len(columns[index]))
    for part in chunks(sorted(columns[place], key=str)):
        rows = model._base_manager.filter(**{f"{attnames[place]}__in": part})
        for pk, *key in rows.values_list("pk", *attnames):
            found[tuple(key)] = pk
    return found
