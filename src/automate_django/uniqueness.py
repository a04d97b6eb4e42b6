"""
Finds out whether a row would break a unique constraint, before the database says so.

Django's forms and REST framework's serializers skip a constraint if one of its fields is not among
theirs. The tenant never is, so "unique per tenant" would be left to the database, and be a 500.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from django.core.exceptions import ValidationError
from django.db.models import F, Model, Q, UniqueConstraint, Value

__all__ = ["condition_names", "constraints_of", "is_broken", "key_of", "names_of"]


def constraints_of(model: Any, own: Collection[str] = ()) -> Iterator[tuple[Any, UniqueConstraint]]:
    """
    The unique constraints of *model* with the model that has them, ``unique_together`` among them.

    Of fields that are unique by themselves those in *own*; others are everybody's to check.
    """
    for each in (model, *model._meta.get_parent_list()):
        meta = each._meta
        together = [*meta.unique_together, *((f.name,) for f in _unique_fields(meta, own))]
        for names in together:
            yield each, UniqueConstraint(fields=names, name="unique")
        for constraint in meta.constraints:
            if isinstance(constraint, UniqueConstraint):
                yield each, constraint


def _unique_fields(meta: Any, own: Collection[str]) -> list[Any]:
    fields = meta.local_concrete_fields
    return [f for f in fields if f.unique and not f.primary_key and f.name in own]


def names_of(constraint: UniqueConstraint) -> set[str]:
    """The names of the fields that *constraint* is about, those of its condition left out."""
    names = set(constraint.fields)
    for expression in constraint.expressions:
        names |= set(_names_below(expression))
    return {name.partition("__")[0] for name in names}


def condition_names(constraint: UniqueConstraint) -> set[str]:
    """The names of the fields in the condition of *constraint*."""
    return set(_names_in(constraint.condition)) if constraint.condition else set()


def _names_in(condition: Q) -> Iterator[str]:
    for child in condition.children:
        if isinstance(child, Q):
            yield from _names_in(child)
        elif isinstance(child, tuple):
            yield str(child[0]).partition("__")[0]
        else:
            yield from (name.partition("__")[0] for name in _names_below(child))


def _names_below(expression: Any) -> Iterator[str]:
    flatten = getattr(expression, "flatten", None)
    parts: Any = (expression,) if flatten is None else flatten()
    yield from (str(vars(part)["name"]) for part in parts if isinstance(part, F))


def is_broken(obj: Model, model: Any, constraint: UniqueConstraint, using: str) -> bool:
    """Whether another row has what *obj*, as it is in memory, would have."""
    if constraint.fields and constraint.condition is None:
        return _is_taken(obj, model, constraint, using)
    try:
        constraint.validate(model, obj, using=using)
    except ValidationError:
        return True
    return False


def _is_taken(obj: Model, model: Any, constraint: UniqueConstraint, using: str) -> bool:
    # By hand: Django before 5.0 only asks for constraints that the model declares as such. And of
    # all rows, since the database asks those too that a manager hides.
    wanted = {}
    for name in constraint.fields:
        value = getattr(obj, model._meta.get_field(name).attname)
        if value is None and getattr(constraint, "nulls_distinct", None) is not False:
            return False  # NULL is equal to nothing
        wanted[f"{name}__isnull" if value is None else name] = value is None or value
    rows = model._base_manager.using(using).filter(**wanted)
    return bool((rows if obj._state.adding else rows.exclude(pk=obj.pk)).exists())


def key_of(obj: Any, constraint: UniqueConstraint) -> tuple[Any, ...] | None:
    """
    What no two rows may have the same of; None if *obj* can't clash with another row in memory.

    Nor is it told of an expression, which only the database can work out.
    """
    key = tuple(getattr(obj, obj._meta.get_field(name).attname) for name in constraint.fields)
    if not key or None in key:
        return None
    if constraint.condition is not None:
        fields = obj._meta.concrete_fields
        values = {each.name: Value(getattr(obj, each.attname), each) for each in fields}
        if not constraint.condition.check(values):
            return None
    return key
