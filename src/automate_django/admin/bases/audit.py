"""An entry for every change that is made in an admin, in the transaction of the change."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from django.contrib import messages
from django.contrib.admin.utils import NestedObjects, flatten_fieldsets
from django.core.exceptions import FieldDoesNotExist
from django.db import router, transaction
from django.http import HttpRequest
from django.utils.html import format_html_join
from django.utils.translation import gettext_lazy as _

from automate_django.admin.bases.base import AdminBasics, AdminRoot
from automate_django.audit_trail import (
    Changes,
    changes_between,
    entry_model,
    entry_values,
    json_of,
    row_values,
    values_by_key,
    write_entries,
)
from automate_django.secrecy import is_secret
from automate_django.tenants import tenant_for_request, tenant_key
from automate_kernel.secrets.masking import HIDDEN

_RECENT = 10


class Audited(AdminRoot):
    """
    The options of the audit trail, and the methods by which the bases write it.

    The bases that change rows build on this class. Those that only show them don't.
    """

    audit_log_changes = True
    audit_log_model: Any = None
    audit_fields: Sequence[str] | None = None
    audit_exclude: Sequence[str] = ()

    soft_deletes = False
    """True if deleting marks rows; the base that does so writes the trail itself."""

    def get_audit_tenant(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the key of the tenant under which a change of *obj* is remembered."""
        if obj is not None:
            try:
                field = obj._meta.get_field("tenant_id")
            except FieldDoesNotExist:
                pass
            else:
                return getattr(obj, field.attname)
        return tenant_key(tenant_for_request(request))

    def audit_changes(
        self, model: Any, before: Mapping[str, Any], after: Mapping[str, Any]
    ) -> Changes:
        """Return the changes between two states of a row of *model*, as the trail keeps them."""
        return changes_between(
            model,
            before,
            after,
            only=self.audit_fields if model is self.model else None,
            exclude=self.audit_exclude,
            allowed=self.not_secret_fields,
        )

    def audit_entry(
        self, request: HttpRequest, action: str, obj: Any = None, **values: Any
    ) -> dict[str, Any]:
        """Return an entry for `audit_write`: *values* are ``changes`` and ``details``."""
        model = self.model if obj is None else type(obj)
        tenant = self.get_audit_tenant(request, obj)
        return entry_values(request, action, model, obj, tenant=tenant, **values)

    def audit_write(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Save *entries* in the open transaction, unless ``audit_log_changes`` is off."""
        if self.audit_log_changes:
            write_entries(entries, self.audit_log_model)

    def audit(self, request: HttpRequest, action: str, obj: Any = None, **values: Any) -> None:
        """Save one entry in the open transaction; see `audit_entry`."""
        self.audit_write([self.audit_entry(request, action, obj, **values)])

    def tell_count(self, request: HttpRequest, text: str, count: int) -> None:
        """Say to the user in *text* how many rows an action has changed."""
        level = messages.SUCCESS if count else messages.WARNING
        self.message_user(request, text % count, level)

    @contextmanager
    def atomic(self, *others: Any) -> Iterator[None]:
        """
        Open a transaction on each database that is written to.

        They are those of the model, of the audit trail, and of the models *others*, which a router
        may send to different ones.
        """
        trail = [entry_model(self.audit_log_model)] if self.audit_log_changes else []
        with ExitStack() as blocks:
            for alias in dict.fromkeys(map(router.db_for_write, (self.model, *trail, *others))):
                blocks.enter_context(transaction.atomic(using=alias))
            yield


class Audit(Audited):
    """Writes an entry for what is added, changed and deleted by forms, inlines and lists."""

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Save *obj*, and record the changes."""
        with self.atomic():
            before = row_values(obj) if change else {}
            super().save_model(request, obj, form, change)
            changes = self.audit_changes(type(obj), before, row_values(obj))
            if changes or not change:
                self.audit(request, "update" if change else "create", obj, changes=changes)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        """Save the many-to-many fields and inlines, and record the changes."""
        with self.atomic():
            before = _many_to_many(form)
            super().save_related(request, form, formsets, change)
            after = _many_to_many(form)
            only, changes = self.audit_fields, dict[str, list[Any]]()
            for name in before:
                audited = name not in self.audit_exclude and (only is None or name in only)
                if audited and before[name] != after[name]:
                    field = form.instance._meta.get_field(name)
                    secret = is_secret(field, self.not_secret_fields)
                    changes[name] = [HIDDEN] * 2 if secret else [before[name], after[name]]
            if changes:
                self.audit(request, "update", form.instance, changes=changes)

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        """Save the rows of an inline, and record the changes."""
        with self.atomic():
            rows = [each.instance for each in formset.initial_forms if each.has_changed()]
            before = {each.pk: row_values(each) for each in rows if each.pk is not None}
            forms = getattr(formset, "deleted_forms", ())
            gone = [each.instance for each in forms if each.instance.pk is not None]
            deleted = list(self._deleted(request, gone))
            super().save_formset(request, form, formset, change)
            self.audit_write([*deleted, *self._inline_entries(request, formset, before)])

    def _inline_entries(
        self, request: HttpRequest, formset: Any, before: dict[Any, Any]
    ) -> Iterator[Any]:
        for obj in getattr(formset, "new_objects", ()):
            changes = self.audit_changes(type(obj), {}, row_values(obj))
            yield self.audit_entry(request, "create", obj, changes=changes)
        for obj, _names in getattr(formset, "changed_objects", ()):
            changes = self.audit_changes(type(obj), before.get(obj.pk, {}), row_values(obj))
            if changes:
                yield self.audit_entry(request, "update", obj, changes=changes)

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        """Delete *obj*, and record it and the rows that go along."""
        with self._recorded(request, lambda: [obj]):
            super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        """Delete the rows of *queryset*, and record them and the rows that go along."""
        with self._recorded(request, lambda: list(queryset)):
            super().delete_queryset(request, queryset)

    @contextmanager
    def _recorded(self, request: HttpRequest, objs: Callable[[], list[Any]]) -> Iterator[None]:
        with self.atomic():
            entries = [] if self.soft_deletes else list(self._deleted(request, objs()))
            yield
            self.audit_write(entries)

    def _deleted(self, request: HttpRequest, objs: list[Any]) -> Iterator[Any]:
        """Return the entries for *objs*, and for what the database takes along."""
        if not self.audit_log_changes or not objs:
            return
        model = type(objs[0])
        before = values_by_key(model._base_manager.filter(pk__in=[obj.pk for obj in objs]))
        for obj in objs:
            changes = self.audit_changes(model, before.get(obj.pk, {}), {})
            yield self.audit_entry(request, "delete", obj, changes=changes)
        collector = NestedObjects(using=router.db_for_write(model))
        collector.collect(objs)
        own = {(type(obj), obj.pk) for obj in objs}
        along: Mapping[Any, Any] = collector.model_objs
        for model, instances in along.items():
            for each in instances:
                if (model, each.pk) not in own and not model._meta.auto_created:
                    details = {"along_with": objs[0]._meta.label_lower}
                    yield self.audit_entry(request, "delete", each, details=details)


def _many_to_many(form: Any) -> dict[str, list[Any]]:
    obj = form.instance
    if obj.pk is None:
        return {}
    names = sorted({field.name for field in obj._meta.many_to_many} & set(form.fields))
    keys = {name: getattr(obj, name).values_list("pk", flat=True) for name in names}
    return {name: sorted(map(json_of, found), key=str) for name, found in keys.items()}


class AuditTrail(Audit):
    """Shows on an object's page who did what to it."""

    show_audit_fields = True

    def _shows_trail(self, obj: Any) -> bool:
        return self.show_audit_fields and obj is not None and self.audit_log_model is None

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        """Return the read-only fields, and the trail."""
        readonly = super().get_readonly_fields(request, obj)
        return [*readonly, "audit_trail"] if self._shows_trail(obj) else readonly

    def get_fieldsets(self, request: Any, obj: Any = None) -> Any:
        """Return the form's parts, and the trail below them."""
        fieldsets = list(super().get_fieldsets(request, obj))
        if not self._shows_trail(obj):
            return fieldsets
        names = flatten_fieldsets(fieldsets)
        if "audit_trail" in names and self.fieldsets is None and self.fields is None:
            fieldsets = [
                (name, {**part, "fields": [f for f in part["fields"] if f != "audit_trail"]})
                for name, part in fieldsets
            ]
            names = []
        if "audit_trail" not in names:
            own: Any = {"fields": ["audit_trail"], "classes": ["collapse"]}
            fieldsets.append((_("Audit trail"), own))
        return fieldsets

    def audit_trail(self, obj: Any) -> str:
        """Return the latest entries about *obj*: time, user and names of fields, without values."""
        from automate_django.models import AuditEntry

        rows = AuditEntry.objects.filter(model=obj._meta.label_lower, object_id=str(obj.pk))
        lines = (
            (
                f"{each.created_at:%Y-%m-%d %H:%M}",
                each.actor or "-",
                each.action,
                ", ".join(each.changes),
            )
            for each in rows.order_by("-id")[:_RECENT]
        )
        return format_html_join("", "<div>{} {} {} {}</div>", lines) or "-"

    audit_trail.short_description = _("audit trail")  # type: ignore[attr-defined]


class AuditMixin(Audit):
    """
    Adds an audit trail to an admin.

    ``audit_log_changes`` turns it off. ``audit_log_model`` is another model than `AuditEntry`, or
    its label. ``audit_fields`` and ``audit_exclude`` say which fields are remembered; secrets
    never are, only that they changed.
    """


class AuditableModelAdmin(AuditTrail, AdminBasics):
    """An admin with an audit trail, which its pages show unless ``show_audit_fields`` is off."""
