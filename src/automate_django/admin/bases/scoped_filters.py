"""Filters of the sidebar that name only what the list itself leads to."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from django.contrib.admin.filters import (
    AllValuesFieldListFilter,
    FieldListFilter,
    RelatedFieldListFilter,
)
from django.contrib.admin.utils import (
    NotRelationField,
    get_fields_from_path,
    get_model_from_relation,
)
from django.core.exceptions import FieldDoesNotExist
from django.http import HttpRequest

__all__ = ["scoped_filter"]


def scoped_filter(item: Any, admin: Any) -> Any:
    """The entry *item* of a ``list_filter`` as one that reads its choices from *admin*'s rows."""
    path, given = item if isinstance(item, (list, tuple)) else (item, None)
    if not isinstance(path, str):
        return item  # a filter class, which says itself what it offers
    try:
        field = get_fields_from_path(admin.model, path)[-1]
    except (FieldDoesNotExist, NotRelationField):
        return item
    cls: Any = given or _default_class(field)
    if not isinstance(cls, type):
        return item
    scoped = _scoped_class(cls)
    return item if scoped is None else (path, _with(scoped, cls))


def _scoped_class(cls: Any) -> Any:
    if issubclass(cls, RelatedFieldListFilter):
        return _ScopedRelated
    return _ScopedValues if issubclass(cls, AllValuesFieldListFilter) else None


def _default_class(field: Any) -> Any:
    known: Any = FieldListFilter._field_list_filters  # type: ignore[attr-defined]
    return next((cls for test, cls in known if test(field)), None)


@lru_cache(maxsize=128)
def _with(scoped: Any, cls: Any) -> Any:
    return type(cls.__name__, (scoped, cls), {})


class _ScopedRelated:
    """Offers the related rows that rows of the list point to, and of these the tenant's own."""

    field_path: str

    def field_choices(self, field: Any, request: HttpRequest, model_admin: Any) -> Any:
        related = get_model_from_relation(field)
        rows = model_admin.get_queryset(request).order_by()
        used = rows.values_list(f"{self.field_path}__pk", flat=True)
        own = model_admin.scope(request).filter(related._default_manager.all())
        own = own.order_by().filter(pk__in=used).values_list("pk", flat=True)
        ordering = self.field_admin_ordering(field, request, model_admin)  # type: ignore[attr-defined]
        return field.get_choices(
            include_blank=False, ordering=ordering, limit_choices_to={"pk__in": own}
        )


class _ScopedValues:
    """Offers the values that rows of the list have."""

    def __init__(
        self, field: Any, request: Any, params: Any, model: Any, model_admin: Any, field_path: str
    ) -> None:
        super().__init__(field, request, params, model, model_admin, field_path)  # type: ignore[call-arg]
        rows = model_admin.get_queryset(request)
        # Django's own choices are not read yet: a queryset is lazy.
        self.lookup_choices = (
            rows.order_by(field_path).values_list(field_path, flat=True).distinct()
        )
