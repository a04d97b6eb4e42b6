"""The audit trail as a page: to search and to read, and nobody changes it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.admin.filters import DateFieldListFilter
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.translation import gettext_lazy as _

from automate_django.admin.bases.export import Export
from automate_django.admin.bases.tenancy import TenantScopedAdmin
from automate_django.admin.pages.base import Tabbed
from automate_django.models import AuditEntry

if TYPE_CHECKING:
    from django.contrib.admin import AdminSite

__all__ = ["AuditEntryAdmin", "register"]


class AuditEntryAdmin(Tabbed, Export, TenantScopedAdmin):
    """Lists the entries of the user's tenant, the latest first."""

    current = "audit"

    list_display = ("created_at", "actor", "action", "model", "object_repr", "fields_changed")
    list_filter = ("action", "model", ("created_at", DateFieldListFilter))
    search_fields = ("=actor", "=object_id", "object_repr")
    ordering = ("-id",)
    show_timestamps = False
    fields = ("created_at", "actor", "action", "model", "object_id", "object_repr", "shown_changes")
    readonly_fields = fields

    @admin.display(description=_("fields"))
    def fields_changed(self, obj: AuditEntry) -> str:
        """The names of what changed."""
        return ", ".join(obj.changes)

    @admin.display(description=_("changes"))
    def shown_changes(self, obj: AuditEntry) -> str:
        """What each field was and is, and what else is known."""
        lines = ((name, _text(old), _text(new)) for name, (old, new) in obj.changes.items())
        changes = format_html_join("", "<div>{}: <del>{}</del> {}</div>", lines)
        return format_html("{}<div>{}</div>", changes, _text(obj.details) if obj.details else "")

    def permits(self, request: HttpRequest, name: str, obj: Any = None) -> bool:
        """Nobody writes here, superusers included."""
        return name == "view" and super().permits(request, name, obj)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def register(site: AdminSite) -> None:
    """Put the trail on *site*, unless it has a page for it."""
    if not site.is_registered(AuditEntry):
        site.register(AuditEntry, AuditEntryAdmin)
