"""
A serializer that stays inside one tenant.

It is changed as it was made by the view, so that it holds for serializers of any kind: those that
declare their fields and those that have them made, for lists of them and for those inside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.db import router, transaction
from rest_framework import serializers
from rest_framework.exceptions import PermissionDenied, ValidationError
from rest_framework.relations import ManyRelatedField, RelatedField

from automate_django.api.bases.tenant_unique import check_unique

__all__ = ["Stamp", "bind_to_tenant", "describe_tenant"]

_REFUSED = "This is set by the service, and can't be another one."
_NO_NEW = "A tenant can't make another one."
_NEEDED = "This is needed: it says whose the row is."


@dataclass(frozen=True, slots=True)
class Stamp:
    """
    Whose rows are written, and where in the row that stands.

    *names* are what the field may be called, *attribute* holds the *tenant* on the row. Without
    *attribute* a row is whose *through* is, a field which must then be given. With *makes_none* the
    rows are the tenants themselves: a request changes its own, and makes no other.
    """

    tenant: Any
    names: frozenset[str] = frozenset()
    attribute: str | None = None
    through: str | None = None
    makes_none: bool = False


def bind_to_tenant(serializer: Any, stamp: Stamp, limit: Callable[[str, Any], Any]) -> None:
    """
    Have *serializer* read and write rows of one tenant alone.

    The field that says whose a row is becomes read-only, is filled in when a row is saved, and
    can't be given another value. *limit* takes a related field's name and its queryset, and
    returns the rows of it that may be named.
    """
    child = getattr(serializer, "child", serializer)
    inside = list(_serializers(child))
    for each in inside:
        for field in each.fields.values():
            _limit_related(field, limit)
    _refuse_another(serializer, child, stamp)
    for each in inside:
        for field in _own_fields(each, stamp).values():
            field.read_only, field.required = True, False
            # For validators of several fields at once, which look for it among what is valid.
            field.default = stamp.tenant
    if hasattr(serializer, "save"):
        if stamp.attribute is not None:
            check_unique(serializer, stamp.attribute, stamp.tenant)
        _stamp_at_save(serializer, stamp)


def describe_tenant(serializer: Any, path: str) -> None:
    """Mark in *serializer*, of which a schema is made, what `bind_to_tenant` would: read-only."""
    names = frozenset({path, path.removesuffix("_id"), f"{path}_id"})
    for each in _serializers(getattr(serializer, "child", serializer)):
        for field in _own_fields(each, Stamp(None, names)).values():
            field.read_only, field.required = True, False


def _serializers(serializer: Any) -> Iterator[Any]:
    """*serializer* and those in it."""
    if not hasattr(serializer, "fields"):
        return
    yield serializer
    for field in serializer.fields.values():
        inner = getattr(field, "child", field)
        if isinstance(inner, serializers.BaseSerializer):
            yield from _serializers(inner)


def _own_fields(serializer: Any, stamp: Stamp) -> dict[str, Any]:
    """The fields of *serializer* that say whose a row is, by name."""
    return {
        name: field
        for name, field in getattr(serializer, "fields", {}).items()
        if field.source in stamp.names and not isinstance(field, serializers.HiddenField)
    }


def _limit_related(field: Any, limit: Callable[[str, Any], Any]) -> None:
    name = field.field_name
    related = field.child_relation if isinstance(field, ManyRelatedField) else field
    if not isinstance(related, RelatedField) or field.read_only:
        return
    # On the instance, around whatever its class does: choices in a form, and looking one up.
    unlimited = related.get_queryset
    related.get_queryset = lambda: limit(name, unlimited())  # type: ignore[method-assign]


def _refuse_another(serializer: Any, child: Any, stamp: Stamp) -> None:
    given = getattr(serializer, "initial_data", None)
    own = _own_fields(child, stamp)
    for row in given if isinstance(given, list) else [given]:
        if not isinstance(row, Mapping):
            continue  # for the serializer to refuse
        wrong = {
            name: [_REFUSED]
            for name, field in own.items()
            if not field.read_only and name in row and not _same(field, row[name], stamp.tenant)
        }
        if wrong:
            raise ValidationError(wrong)


def _same(field: Any, value: Any, tenant: Any) -> bool:
    """Whether *value* names *tenant*, so that what was read can be sent back as it is."""
    try:
        internal = field.to_internal_value(value)
    except Exception:
        return False
    return str(getattr(internal, "pk", internal)) == str(tenant)


def _stamp_at_save(serializer: Any, stamp: Stamp) -> None:
    save = serializer.save

    def save_for_tenant(**values: Any) -> Any:
        if stamp.makes_none and serializer.instance is None:
            raise PermissionDenied(_NO_NEW)
        valid = serializer.validated_data
        rows = valid if isinstance(valid, list) else [valid]
        if stamp.through is not None:
            _check_through(serializer, rows, stamp.through, values)
        if stamp.attribute is not None:
            # Last: neither what was sent nor what a view passes on decides whose row it is.
            for row in [*rows, values]:
                for name in stamp.names:
                    row.pop(name, None)
            values[stamp.attribute] = stamp.tenant
        # All or nothing: what the database refuses of the last of many leaves none of them.
        with transaction.atomic(using=_database_of(serializer)):
            return save(**values)

    serializer.save = save_for_tenant


def _check_through(serializer: Any, rows: list[Any], name: str, values: Mapping[str, Any]) -> None:
    for row in rows:
        given = {**row, **values}
        if given.get(name) is None and (name in given or serializer.instance is None):
            raise ValidationError({name: [_NEEDED]})


def _database_of(serializer: Any) -> str | None:
    """The alias of the database that *serializer* writes to, as far as that is known."""
    meta = getattr(getattr(serializer, "child", serializer), "Meta", None)
    model = getattr(meta, "model", None)
    return None if model is None else router.db_for_write(model)
