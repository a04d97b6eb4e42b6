"""Forms and formsets that neither show nor accept what belongs to another tenant."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from django.contrib.admin.widgets import ForeignKeyRawIdWidget, ManyToManyRawIdWidget
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.utils.translation import gettext as _

from automate_django.admin.bases.checked_forms import CheckedForm
from automate_django.admin.bases.scope import Scope, field_named

__all__ = ["narrow", "scoped_form", "scoped_formset"]


def narrow(field: Any, scope: Scope) -> None:
    """Leave in the choices of the form field *field* what *scope* covers, whoever chose them."""
    queryset = getattr(field, "queryset", None)
    if queryset is None or scope.everything:
        return
    field.queryset = scope.filter(queryset)
    widget = field.widget
    if isinstance(widget, ForeignKeyRawIdWidget) and not isinstance(widget, ManyToManyRawIdWidget):
        # Django writes the name of the row with that id beside the box, whosever row it is.
        if not isinstance(widget, _ScopedLabel):
            widget.__class__ = _with_scoped_label(type(widget))
        field.widget.scope = scope


class _ScopedLabel(ForeignKeyRawIdWidget):
    """Names the chosen row only if the user may see it."""

    scope: Scope

    def label_and_url_for_value(self, value: Any) -> tuple[str, str]:
        key = self.rel.get_related_field().name
        rows = self.rel.model._default_manager.using(self.db)
        try:
            seen = self.scope.filter(rows.filter(**{key: value})).exists()
        except (ValueError, ValidationError):
            return "", ""
        return super().label_and_url_for_value(value) if seen else ("", "")


@lru_cache(maxsize=64)
def _with_scoped_label(cls: Any) -> Any:
    return type(cls.__name__, (_ScopedLabel, cls), {})


class _ScopedForm(CheckedForm):
    """What is mixed into the form classes of a request."""

    scope: Scope
    tenant_path: str | None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        for field in self.fields.values():
            narrow(field, self.scope)
        if self.instance._state.adding:
            self.scope.assign(self.instance, self.tenant_path)

    def _get_validation_exclusions(self) -> Any:
        # The tenant is not in the form, yet "unique per tenant" is to be checked with it.
        excluded = super()._get_validation_exclusions()  # type: ignore[misc]
        path = None if self.scope.everything else self.tenant_path
        found = field_named(type(self.instance), path) if path and "__" not in path else None
        return excluded - {found.name} if found is not None else excluded

    def _post_clean(self) -> None:
        super()._post_clean()
        obj = self.instance
        if not obj._state.adding or obj.pk is None:
            return
        # A key that is typed in must not make "add" overwrite the row that has it.
        if type(obj)._base_manager.using(obj._state.db).filter(pk=obj.pk).exists():
            self.add_error(NON_FIELD_ERRORS, _("An object with this key exists already."))


def scoped_form(form: Any, scope: Scope, tenant_path: str | None) -> Any:
    """The form class *form* for what *scope* covers; *tenant_path* leads from its model there."""
    names = {"scope": scope, "tenant_path": tenant_path}
    return type(form.__name__, (_ScopedForm, form), names)


class _ScopedFormSet:
    """What is mixed into the formset classes of a request."""

    # What the model formset that it is mixed into has:
    queryset: Any
    is_bound: bool
    initial_forms: list[Any]
    _pk_field: Any

    def add_fields(self, form: Any, index: Any) -> None:
        super().add_fields(form, index)  # type: ignore[misc]
        field = form.fields.get(self._pk_field.name)
        # Django looks posted ids up among all rows of the table.
        if self.is_bound and hasattr(field, "queryset") and self.queryset is not None:
            field.queryset = self.queryset

    def clean(self) -> None:
        super().clean()  # type: ignore[misc]
        if any(form.instance._state.adding for form in self.initial_forms):
            raise ValidationError(_("A row that was posted is not there (any more)."))


def scoped_formset(formset: Any, scope: Scope, tenant_path: str | None) -> Any:
    """The formset class *formset* for the rows that *scope* covers."""
    form = scoped_form(formset.form, scope, tenant_path)
    return type(formset.__name__, (_ScopedFormSet, formset), {"form": form})
