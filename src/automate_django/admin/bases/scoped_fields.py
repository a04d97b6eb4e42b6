"""The fields and inlines of a tenant-scoped admin."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from django.contrib.admin.options import BaseModelAdmin as DjangoBaseModelAdmin
from django.contrib.admin.options import InlineModelAdmin
from django.db.models.constants import LOOKUP_SEP
from django.http import HttpRequest

from automate_django.admin.bases.scope import Scope, field_named
from automate_django.admin.bases.scoped_forms import narrow, scoped_formset

if TYPE_CHECKING:
    from django.db.models import Model

    Fields = DjangoBaseModelAdmin[Model]
    Inline = InlineModelAdmin[Model, Model]
else:
    Fields = DjangoBaseModelAdmin
    Inline = InlineModelAdmin

__all__ = ["ScopedFields", "ScopedInline"]


class ScopedFields(Fields):
    """The fields of a form, of an admin or an inline: choices narrowed, the tenant left out."""

    def scope(self, request: HttpRequest) -> Scope:
        """What *request* may see."""
        raise NotImplementedError

    def tenant_path(self, request: HttpRequest) -> str | None:
        """The lookup that leads from a row to its tenant."""
        return self.scope(request).path(self.opts.model)

    def _hidden_tenant(self, request: HttpRequest) -> str | None:
        """The name of the tenant's field, if the user is not to choose it."""
        path = self.tenant_path(request)
        if self.scope(request).everything or path is None or LOOKUP_SEP in path:
            return None
        found = field_named(self.opts.model, path)
        return None if found is None or found.primary_key else found.name

    def formfield_for_foreignkey(self, db_field: Any, request: Any, **kwargs: Any) -> Any:
        """The field, with the choices that *request* may see."""
        field = super().formfield_for_foreignkey(db_field, request, **kwargs)
        narrow(field, self.scope(request))
        return field

    def formfield_for_manytomany(self, db_field: Any, request: Any, **kwargs: Any) -> Any:
        """The field, with the choices that *request* may see."""
        field = super().formfield_for_manytomany(db_field, request, **kwargs)
        narrow(field, self.scope(request))
        return field

    def get_field_queryset(self, db: Any, db_field: Any, request: Any) -> Any:
        """What a relation may point to."""
        rows = super().get_field_queryset(db, db_field, request)
        if rows is None:
            rows = db_field.remote_field.model._default_manager.using(db)
        return self.scope(request).filter(rows.all())

    def get_exclude(self, request: Any, obj: Any = None) -> Any:
        """The excluded fields, the tenant's among them: nobody moves a row to another tenant."""
        hidden, excluded = self._hidden_tenant(request), super().get_exclude(request, obj)
        return excluded if hidden is None else [*(excluded or ()), hidden]

    def get_readonly_fields(self, request: Any, obj: Any = None) -> Any:
        """The read-only fields; a host that shows the tenant's field shows it read-only."""
        hidden, readonly = self._hidden_tenant(request), super().get_readonly_fields(request, obj)
        return [*readonly] if hidden is None or hidden in readonly else [*readonly, hidden]

    def get_fieldsets(self, request: Any, obj: Any = None) -> Any:
        """The form's parts, without the tenant."""
        hidden, fieldsets = self._hidden_tenant(request), super().get_fieldsets(request, obj)
        if hidden is None:
            return fieldsets
        return [
            (name, {**options, "fields": _without(options["fields"], hidden)})
            for name, options in fieldsets
        ]


def _without(fields: Iterable[Any], name: str) -> list[Any]:
    rows = [_without(row, name) if isinstance(row, (list, tuple)) else row for row in fields]
    return [row for row in rows if row not in (name, [])]


class ScopedInline(ScopedFields, Inline):
    """What the inlines of a tenant-scoped admin become, whichever class they are."""

    tenant_admin: Any = None

    def scope(self, request: HttpRequest) -> Scope:
        """That of the admin which the inline is part of."""
        found: Scope = self.tenant_admin.scope(request)
        return found

    def get_queryset(self, request: HttpRequest) -> Any:
        """The tenant's rows."""
        return self.scope(request).filter(super().get_queryset(request))

    def get_formset(self, request: Any, obj: Any = None, **kwargs: Any) -> Any:
        """A formset that takes ids of the tenant's rows only."""
        formset = super().get_formset(request, obj, **kwargs)
        scope = self.scope(request)
        return scoped_formset(formset, scope, self.tenant_path(request))
