"""Actions that set a field of many rows at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin import helpers
from django.core.exceptions import FieldDoesNotExist, PermissionDenied
from django.db import models
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from automate_django.admin.bases.audit import Audited
from automate_django.admin.bases.base import auto_now_values, chunks
from automate_django.audit_trail import values_by_key

_FLAGS = ("is_active", "is_enabled", "enabled", "active")


class BulkActions(Audited):
    """Enables, disables and updates the chosen rows that the user may change."""

    bulk_update_fields: Sequence[str] = ("status",)
    bulk_enable_field: str | None = None

    def _bulk_field(self, name: str) -> Any:
        try:
            return self.opts.get_field(name)
        except FieldDoesNotExist:
            return None

    def _bulk_flag(self) -> Any:
        names = [self.bulk_enable_field] if self.bulk_enable_field else _FLAGS
        found = (self._bulk_field(name) for name in names if name)
        return next((each for each in found if isinstance(each, models.BooleanField)), None)

    def _updatable(self, request: HttpRequest) -> list[Any]:
        """Return the fields of ``bulk_update_fields`` that the user may change in a form."""
        refused = {*self.get_readonly_fields(request), *(self.get_exclude(request) or ())}
        found = (self._bulk_field(name) for name in self.bulk_update_fields if name not in refused)
        return [each for each in found if each is not None and each.editable]

    def offered_actions(self, request: HttpRequest) -> list[str]:
        """Return the actions for which the model has a field."""
        offered, flag = super().offered_actions(request), self._bulk_flag()
        if flag is not None and flag.name not in self.get_readonly_fields(request):
            offered += ["bulk_enable", "bulk_disable"]
        if self._updatable(request):
            offered += ["bulk_update_status"]
        return offered

    @admin.action(
        permissions=["change"], description=gettext_lazy("Enable selected %(verbose_name_plural)s")
    )
    def bulk_enable(self, request: HttpRequest, queryset: Any) -> None:
        """Set the flag of the chosen rows."""
        self.bulk_update(request, queryset, {self._bulk_flag().name: True})

    @admin.action(
        permissions=["change"], description=gettext_lazy("Disable selected %(verbose_name_plural)s")
    )
    def bulk_disable(self, request: HttpRequest, queryset: Any) -> None:
        """Clear the flag of the chosen rows."""
        self.bulk_update(request, queryset, {self._bulk_flag().name: False})

    @admin.action(
        permissions=["change"], description=gettext_lazy("Update selected %(verbose_name_plural)s")
    )
    def bulk_update_status(self, request: HttpRequest, queryset: Any) -> Any:
        """Ask for new values of ``bulk_update_fields``, and set them in the chosen rows."""
        form = self._bulk_form(request)
        if "bulk_update" in request.POST and form.is_valid():
            values = {
                name: value
                for name, value in form.cleaned_data.items()
                if name in form.changed_data or request.POST.get(name)
            }
            if values:
                self.bulk_update(request, queryset, values)
                return None
            form.add_error(None, _("Choose a new value."))
        return self._bulk_ask(request, queryset, form)

    def _bulk_form(self, request: HttpRequest) -> Any:
        fields = {}
        for each in self._updatable(request):
            field: Any = self.formfield_for_dbfield(each, request=request)
            if field is not None:
                field.required, field.initial = False, None
                if isinstance(field, forms.TypedChoiceField):
                    choices: Any = field.choices
                    given = [choice for choice in choices if choice[0] not in ("", None)]
                    field.choices = [("", "---------"), *given]
                    field.empty_value = None
                fields[each.name] = field
        data = request.POST if "bulk_update" in request.POST else None
        return type("BulkUpdateForm", (forms.Form,), fields)(data, prefix="bulk")

    def _bulk_ask(self, request: HttpRequest, queryset: Any, form: Any) -> TemplateResponse:
        return self.own_page(
            request,
            "bases/bulk_update.html",
            _("Update %(name)s") % {"name": self.opts.verbose_name_plural},
            form=form,
            media=self.media + form.media,
            count=queryset.count(),
            action=request.POST.get("action", "bulk_update_status"),
            select_across=request.POST.get("select_across", "0"),
            selected=request.POST.getlist(helpers.ACTION_CHECKBOX_NAME),
            action_checkbox_name=helpers.ACTION_CHECKBOX_NAME,
        )

    def bulk_update(
        self, request: HttpRequest, queryset: Any, values: Mapping[str, Any]
    ) -> tuple[int, int]:
        """
        Set *values* in the rows of *queryset* that the user may change; count both kinds.

        It is one ``UPDATE`` for each batch of rows: no ``save()``, no signals. Timestamps with
        ``auto_now`` are set, and the trail says what each row had before.
        """
        if not self.has_change_permission(request):
            raise PermissionDenied
        refused = changed = 0
        with self.atomic():
            # The keys are read first: an update may move rows out of the queryset.
            for keys in chunks(list(queryset.values_list("pk", flat=True))):
                part = list(queryset.filter(pk__in=keys))
                allowed = [
                    row
                    for row in part
                    if self.has_change_permission(request, row)
                    and values.keys().isdisjoint(self.get_readonly_fields(request, row))
                ]
                refused += len(part) - len(allowed)
                changed += self._bulk_set(request, allowed, values)
        self._bulk_report(request, changed, refused)
        return changed, refused

    def _bulk_set(self, request: HttpRequest, rows: list[Any], values: Mapping[str, Any]) -> int:
        keys = [row.pk for row in rows]
        found = self.model._base_manager.filter(pk__in=keys)
        before = values_by_key(found)
        stamps = auto_now_values(self.model)
        found.update(**values, **stamps)
        after = values_by_key(found)
        entries = []
        for row in rows:
            # The timestamps differ always.
            old, new = ({**each[row.pk], **dict.fromkeys(stamps)} for each in (before, after))
            if any(old[name] != new[name] for name in values):
                changes = self.audit_changes(self.model, old, new)
                entries.append(self.audit_entry(request, "bulk_update", row, changes=changes))
        self.audit_write(entries)
        return len(entries)

    def _bulk_report(self, request: HttpRequest, changed: int, refused: int) -> None:
        self.tell_count(request, ngettext("%d row changed.", "%d rows changed.", changed), changed)
        if refused:
            text = ngettext(
                "%d row was left as it is: you may not change that in it.",
                "%d rows were left as they are: you may not change that in them.",
                refused,
            )
            self.message_user(request, text % refused, messages.WARNING)


class BulkActionsMixin(BulkActions):
    """
    Adds bulk actions to an admin.

    `bulk_enable` and `bulk_disable` set the model's flag (``bulk_enable_field``, else
    ``is_active`` or the like). `bulk_update_status` asks for new values of the fields in
    ``bulk_update_fields``. Each row is asked for permission, and read-only fields stay.
    """
