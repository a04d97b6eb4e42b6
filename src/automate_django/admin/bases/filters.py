"""Filters for the sidebar, made from the model's fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib.admin.filters import DateFieldListFilter, RelatedOnlyFieldListFilter
from django.db import models
from django.http import HttpRequest

from automate_django.admin.bases.base import AdminRoot
from automate_django.secrecy import is_secret


class Filters(AdminRoot):
    """Makes filters from the model's fields."""

    auto_filters: bool | Sequence[str] = True
    date_filters: bool | Sequence[str] = True

    def get_list_filter(self, request: HttpRequest) -> list[Any]:
        """Return ``list_filter``, and filters that follow from the fields."""
        filters = super().get_list_filter(request)
        named = {each[0] if isinstance(each, (list, tuple)) else each for each in filters}
        hidden = {*(self.get_exclude(request) or ())}
        for field in self.opts.concrete_fields:
            if field.name in named | hidden or is_secret(field, self.not_secret_fields):
                continue
            found = self._filter_for(field)
            filters += [] if found is None else [found]
        return filters

    def _filter_for(self, field: Any) -> Any:
        if isinstance(field, models.DateField):
            return (field.name, DateFieldListFilter) if _wanted(field, self.date_filters) else None
        if not _wanted(field, self.auto_filters):
            return None
        if isinstance(field, models.ForeignKey):
            # What is chosen by id or by search has too many rows for a sidebar.
            chosen = {*self.raw_id_fields, *self.autocomplete_fields}
            if self.auto_filters is True and field.name in chosen:
                return None
            return (field.name, RelatedOnlyFieldListFilter)
        listed = self.auto_filters is not True
        flag = isinstance(field, models.BooleanField)
        return field.name if listed or field.choices or flag else None


def _wanted(field: Any, setting: bool | Sequence[str]) -> bool:
    return setting if isinstance(setting, bool) else field.name in setting


class FilterMixin(Filters):
    """
    Adds filters to the sidebar.

    ``auto_filters``: True for flags, choices and foreign keys, or a list of fields.
    ``date_filters``: True for all dates, or a list of them. Foreign keys offer only what rows of
    the list point to. Secrets are left out.
    """
