"""The filter by which a list shows deleted rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.contrib import admin
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

__all__ = ["PARAMETER", "DeletedFilter"]

PARAMETER = "deleted"


class DeletedFilter(admin.SimpleListFilter):
    """Hide, show or list alone what was deleted."""

    title = gettext_lazy("deleted")
    parameter_name = PARAMETER

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, Any]]:
        """What there is to choose."""
        return [("no", _("Hide")), ("all", _("Show")), ("only", _("Only deleted"))]

    def choices(self, changelist: Any) -> Iterator[Any]:
        """The choices, without Django's "All", which wouldn't say what it means."""
        yield from list(super().choices(changelist))[1:]

    def value(self) -> str:
        """What was chosen, or the default."""
        default = "all" if self.admin.show_deleted_by_default else "no"
        return str(super().value() or default)

    def __init__(self, request: Any, params: Any, model: Any, model_admin: Any) -> None:
        self.admin = model_admin
        super().__init__(request, params, model, model_admin)

    def queryset(self, request: Any, queryset: Any) -> Any:
        """*queryset*, which `SoftDelete.get_queryset` has narrowed, without the others."""
        return queryset.filter(self.admin.deleted_q()) if self.value() == "only" else queryset
