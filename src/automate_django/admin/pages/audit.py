"""The page of the audit trail, to search and to read."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from django.contrib import admin
from django.contrib.admin.filters import DateFieldListFilter
from django.core.paginator import Paginator
from django.db.models import Q
from django.http import HttpRequest
from django.utils.functional import cached_property
from django.utils.html import format_html, format_html_join
from django.utils.translation import gettext_lazy as _

from automate_django.admin.bases.export import Export
from automate_django.admin.bases.tenancy import TenantScopedAdmin
from automate_django.admin.pages.access import operates
from automate_django.admin.pages.base import TabbedAdmin
from automate_django.models import (
    ApiToken,
    AuditEntry,
    OutboxItem,
    WorkflowDocument,
    WorkflowExecution,
    WorkflowVersion,
)

_AUTOMATION = [
    model._meta.label_lower
    for model in (OutboxItem, WorkflowExecution, WorkflowDocument, WorkflowVersion, ApiToken)
]
"""The models whose rows the automation's own pages change, for all tenants alike."""
_COUNTED = 10_000
_SEARCHED = 100_000
_OFFERED = 1000


class _Latest(Paginator):  # type: ignore[type-arg]
    """
    Pages up to a bound: to count a table takes as long as it is large.

    *cut* says that there is more than is paged through.
    """

    @cached_property
    def _counted(self) -> int:
        rows: Any = self.object_list
        return int(rows.order_by()[: _COUNTED + 1].count())

    @cached_property
    def count(self) -> int:
        return min(self._counted, _COUNTED)

    @property
    def cut(self) -> bool:
        return self._counted > _COUNTED


class _Recent(admin.SimpleListFilter):
    """Offers the values that the latest entries have: those of all can't be read quickly."""

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return those values, and the chosen one."""
        known = request.__dict__.setdefault("_automate_recent", {})
        if not known:
            rows = model_admin.get_queryset(request).order_by("-created_at", "-id")
            found = list(rows.values_list("action", "model")[:_OFFERED])
            known["action"], known["model"] = ({row[i] for row in found} for i in (0, 1))
        names = known[self.parameter_name] | ({self._chosen()} - {""})
        return [(name, name) for name in sorted(names)]

    def _chosen(self) -> str:
        # No text in a database holds a NUL, and PostgreSQL raises for one.
        return str(self.value() or "").replace("\x00", "")

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        """Return the entries that have the chosen value."""
        chosen = self._chosen()
        return queryset.filter(**{str(self.parameter_name): chosen}) if chosen else queryset


class _ActionFilter(_Recent):
    title = _("action")
    parameter_name = "action"


class _ModelFilter(_Recent):
    title = _("model")
    parameter_name = "model"


class AuditEntryAdmin(TabbedAdmin, Export, TenantScopedAdmin):
    """
    Lists the entries of the user's tenant, the latest first.

    Who steers the outbox of all tenants sees what was done with the automation, whosever it was;
    of what the user did for no tenant there is an entry too.
    """

    current = "audit"

    list_display = ("created_at", "actor", "action", "model", "object_repr", "fields_changed")
    list_filter = (("created_at", DateFieldListFilter), _ActionFilter, _ModelFilter)
    search_fields = ("=actor", "=object_id", "object_repr")
    search_help_text = _("Searches the latest 100,000 of the entries that the filters leave.")
    ordering = ("-created_at", "-id")  # as the indexes are
    paginator = _Latest
    # The number of entries of each choice of a filter takes a count of all.
    show_facets: ClassVar[Any] = admin.ShowFacets.NEVER if hasattr(admin, "ShowFacets") else None
    show_timestamps = False
    fields = ("created_at", "actor", "action", "model", "object_id", "object_repr", "shown_changes")
    readonly_fields = fields

    @admin.display(description=_("fields"))
    def fields_changed(self, obj: AuditEntry) -> str:
        """Return the names of what changed."""
        return ", ".join(obj.changes)

    @admin.display(description=_("changes"))
    def shown_changes(self, obj: AuditEntry) -> str:
        """Return each field's former and new value, and the details."""
        lines = ((name, _text(old), _text(new)) for name, (old, new) in obj.changes.items())
        changes = format_html_join("", "<div>{}: <del>{}</del> {}</div>", lines)
        return format_html("{}<div>{}</div>", changes, _text(obj.details) if obj.details else "")

    def get_search_results(
        self, request: HttpRequest, queryset: Any, search_term: str
    ) -> tuple[Any, bool]:
        """Search as Django does, in the latest of the entries."""
        if search_term:
            times = queryset.order_by("-created_at").values_list("created_at", flat=True)
            oldest = times[_SEARCHED : _SEARCHED + 1].first()
            if oldest is not None:
                queryset = queryset.filter(created_at__gte=oldest)
        return super().get_search_results(request, queryset, search_term)

    def get_queryset(self, request: HttpRequest) -> Any:
        """Return the entries that the user may see."""
        scoped = super().get_queryset(request)
        if self.scope(request).everything:
            return scoped
        return scoped | self._all_tenants(request)

    def _all_tenants(self, request: HttpRequest) -> Any:
        """Return the entries of no tenant of the user's that it may see all the same."""
        seen = Q(actor_id=str(request.user.pk), tenant_id=None)
        if operates(request):
            seen |= Q(model__in=_AUTOMATION)
        return self.model._default_manager.filter(seen)

    def permits(self, request: HttpRequest, name: str, obj: Any = None) -> bool:
        """Return False for all but viewing: nobody writes here, superusers included."""
        return name == "view" and super().permits(request, name, obj)

    def allows(self, request: HttpRequest, name: str, obj: Any = None) -> bool:
        """Return True for entries that are in the list."""
        if super().allows(request, name, obj):
            return True
        return obj is not None and bool(self._all_tenants(request).filter(pk=obj.pk).exists())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
