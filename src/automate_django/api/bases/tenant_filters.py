"""Filters of django-filter, which offer all rows of a table, narrowed to those of a tenant."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

__all__ = ["scoped_backend"]


@lru_cache(maxsize=128)
def scoped_backend(backend: Any) -> Any:
    """The filter backend *backend*; one whose filters offer rows, as one that asks the view."""
    if not hasattr(backend, "get_filterset"):
        return backend
    return type(backend.__name__, (_Scoped, backend), {})


class _Scoped:
    def get_filterset(self, request: Any, queryset: Any, view: Any) -> Any:
        filterset = super().get_filterset(request, queryset, view)  # type: ignore[misc]
        if filterset is not None:
            _limit(filterset, view)
        return filterset


def _limit(filterset: Any, view: Any) -> None:
    """Leave the tenant's in the choices, which also decide what a parameter may name."""
    from django_filters.filters import AllValuesFilter, AllValuesMultipleFilter

    for name, each in filterset.filters.items():
        if not isinstance(each, (AllValuesFilter, AllValuesMultipleFilter)):
            continue
        rows = view.filter_by_tenant(each.model._default_manager.all())
        values = rows.order_by(each.field_name).values_list(each.field_name, flat=True).distinct()
        # Django-filter itself has read them from the whole table.
        filterset.form.fields[name].choices = [(value, value) for value in values]
    for name, field in filterset.form.fields.items():
        rows = getattr(field, "queryset", None)
        if rows is not None:
            source = getattr(filterset.filters.get(name), "field_name", name)
            related = name if name in view.tenant_related else source
            field.queryset = view.limit_related(related, rows)
