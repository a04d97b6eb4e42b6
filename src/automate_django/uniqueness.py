"""
Checks of unique constraints, before the database refuses a row.

Django's forms and REST framework's serializers skip a constraint if one of its fields is not among
theirs. The tenant never is, so "unique per tenant" would be left to the database, and be a 500.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import lru_cache
from typing import Any

from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db import router
from django.db.models import F, Model, Q, UniqueConstraint, Value
from django.utils.translation import gettext as _


def constraints_of(model: Any, own: Collection[str] = ()) -> Iterator[tuple[Any, UniqueConstraint]]:
    """
    Return *model*'s unique constraints, ``unique_together`` among them, with the model of each.

    Of fields that are unique by themselves those in *own*; others are everybody's to check.
    """
    for each in (model, *model._meta.get_parent_list()):
        meta = each._meta
        alone = (f for f in meta.local_concrete_fields if f.unique and not f.primary_key)
        together = [*meta.unique_together, *((f.name,) for f in alone if f.name in own)]
        for names in together:
            yield each, UniqueConstraint(fields=names, name="unique")
        for constraint in meta.constraints:
            if isinstance(constraint, UniqueConstraint):
                yield each, constraint


def names_of(constraint: UniqueConstraint) -> set[str]:
    """Return the names of the fields that *constraint* is about, without its condition's."""
    names = set(constraint.fields)
    for expression in constraint.expressions:
        names |= set(_names_below(expression))
    return {name.partition("__")[0] for name in names}


def condition_names(constraint: UniqueConstraint) -> set[str]:
    """Return the names of the fields in the condition of *constraint*."""
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
    """Return True if another row has what *obj*, as it is in memory, would have."""
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
    Return the values that must be unique; None if *obj* can't clash with a row in memory.

    It is None for an expression too, which only the database can work out.
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


class CheckedForm:
    """The part that is mixed into the form classes of our admins."""

    # What the model form that it is mixed into has:
    instance: Any
    errors: Any
    fields: dict[str, Any]
    add_error: Any

    def _post_clean(self) -> None:
        super()._post_clean()  # type: ignore[misc]
        using = router.db_for_write(type(self.instance))
        for model, constraint in self._unchecked():
            if not is_broken(self.instance, model, constraint, using):
                continue
            fields = sorted(names_of(constraint) & self.fields.keys())
            labels = [str(model._meta.get_field(name).verbose_name) for name in fields]
            text = _("Another %(what)s with this %(fields)s exists already.") % {
                "what": model._meta.verbose_name,
                "fields": _(" and ").join(labels),
            }
            where = fields[0] if len(fields) == 1 else NON_FIELD_ERRORS
            self.add_error(where, ValidationError(text, code="unique"))

    def _unchecked(self) -> Iterator[tuple[Any, UniqueConstraint]]:
        """Return the constraints that Django doesn't check here, though all is known for it."""
        hidden = self._get_validation_exclusions()  # type: ignore[attr-defined]
        for model, constraint in constraints_of(type(self.instance)):
            names = names_of(constraint)
            # Deleted rows are marked by a field that no form has, and live rows are unique.
            if condition_names(constraint) & hidden and not names & (hidden | set(self.errors)):
                yield model, constraint


@lru_cache(maxsize=512)
def mixed_into(cls: Any, part: Any) -> Any:
    """Return the class *cls* with *part* mixed into it; itself if it has it."""
    return cls if issubclass(cls, part) else type(cls.__name__, (part, cls), {})
