"""``list_editable`` that asks for permission per row, which Django does from 6.1 on."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from automate_django.admin.bases.root import Root

__all__ = ["Editable", "permitted_formset"]


class _PermittedFormSet:
    """Leaves out the fields that the user may not change in a row."""

    permitted_by: Any
    permitted_for: HttpRequest

    def add_fields(self, form: Any, index: Any) -> None:
        super().add_fields(form, index)  # type: ignore[misc]
        admin, request, row = self.permitted_by, self.permitted_for, form.instance
        if row.pk is None:
            return
        if admin.has_change_permission(request, row):
            refused = set(admin.get_readonly_fields(request, row))
        else:
            refused = set(admin.list_editable)
        for name in refused & set(admin.list_editable):
            form.fields.pop(name, None)


def permitted_formset(formset: Any, admin: Any, request: HttpRequest) -> Any:
    """The formset class *formset* of a list, for what *request*'s user may change of each row."""
    names = {"permitted_by": admin, "permitted_for": request}
    return type(formset.__name__, (_PermittedFormSet, formset), names)


class Editable(Root):
    """Rows of a list are edited as their own pages would let the user edit them."""

    def get_changelist_formset(self, request: HttpRequest, **kwargs: Any) -> Any:
        """Django's formset without the fields that are read-only in a row."""
        return permitted_formset(super().get_changelist_formset(request, **kwargs), self, request)
