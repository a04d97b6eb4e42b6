"""The traps of marking rows as deleted, as system checks of an admin class."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.core.checks import CheckMessage, Info
from django.core.checks import Error as CheckError
from django.core.checks import Warning as CheckWarning
from django.core.exceptions import FieldDoesNotExist

__all__ = ["soft_delete_checks"]


def soft_delete_checks(admin: Any) -> Iterator[CheckMessage]:
    """What is wrong, or easily misunderstood, with the model of *admin*."""
    hint = "Add `is_deleted` or `deleted_at`, or name yours in soft_delete_fields."
    try:
        fields = admin.deleted_fields()
    except FieldDoesNotExist as error:
        fields, hint = [], str(error)
    if not fields:
        text = f"{admin.opts.object_name} has no field that marks a row as deleted."
        yield CheckError(text, hint=hint, obj=type(admin), id="automate.E102")
        return
    yield from _cascade(admin)
    yield from _manager(admin)
    yield from _unique(admin)


def _cascade(admin: Any) -> Iterator[CheckMessage]:
    relations = admin.cascade_relations()
    for name in admin.soft_delete_cascade:
        relation = relations.get(name)
        if relation is None or not admin.deleted_fields(relation.related_model):
            yield CheckError(
                f"soft_delete_cascade names {name!r}, which leads to no rows that can be marked.",
                hint=f"Relations are: {', '.join(sorted(relations)) or 'none'}.",
                obj=type(admin),
                id="automate.E103",
            )


def _manager(admin: Any) -> Iterator[CheckMessage]:
    if admin.model._default_manager.get_queryset().query.where.children:
        yield CheckWarning(
            f"The default manager of {admin.opts.object_name} leaves out rows, so the admin can't "
            "show or restore them, and forms don't see what they clash with.",
            hint="Set Meta.default_manager_name to a manager that has all rows.",
            obj=type(admin),
            id="automate.W102",
        )


def _unique(admin: Any) -> Iterator[CheckMessage]:
    meta = admin.opts
    names = [each.name for each in meta.concrete_fields if each.unique and not each.primary_key]
    names += [", ".join(each) for each in meta.unique_together]
    if names:
        yield Info(
            f"A deleted {meta.object_name} keeps its unique values: {'; '.join(names)}.",
            hint="Use a UniqueConstraint with condition=Q(is_deleted=False) to free them.",
            obj=type(admin),
            id="automate.I102",
        )
