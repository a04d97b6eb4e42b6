"""Permissions per object, asked of whichever backend the project has for them."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_backends, get_permission_codename
from django.contrib.auth.backends import ModelBackend
from django.core.exceptions import EmptyResultSet, PermissionDenied
from django.http import HttpRequest

from automate_django.admin.bases.base import AdminRoot


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
    """
    Return the formset class *formset* of a list, for what *request*'s user may change of each row.
    """
    names = {"permitted_by": admin, "permitted_for": request}
    return type(formset.__name__, (_PermittedFormSet, formset), names)


class Editable(AdminRoot):
    """Rows of a list are edited as their own pages would let the user edit them."""

    def get_changelist_formset(self, request: HttpRequest, **kwargs: Any) -> Any:
        """Return Django's formset without the fields that are read-only in a row."""
        return permitted_formset(super().get_changelist_formset(request, **kwargs), self, request)


class ObjectPermissions(Editable):
    """Asks ``user.has_perm(permission, obj)``, and lists what the user may see."""

    object_permission_required = False
    object_permission_limit = 5000

    def _permission(self, name: str) -> str:
        return f"{self.opts.app_label}.{get_permission_codename(name, self.opts)}"

    def _holds(self, request: HttpRequest, name: str, obj: Any) -> bool:
        user: Any = request.user
        permission = self._permission(name)
        if user.is_active and user.is_superuser:
            return True
        if obj is None:
            return self._holds_for_all(request, name) or self._may_hold_for_some(request)
        if user.has_perm(permission, obj):
            return True
        return not self.object_permission_required and self._holds_for_all(request, name)

    def _holds_for_all(self, request: HttpRequest, name: str) -> bool:
        """
        Return True if the user was given the permission for the whole model.

        Only Django's own backend is asked: others answer "yes" without an object where they mean
        "it depends".
        """
        user: Any = request.user
        permission = self._permission(name)
        if user.is_active and user.is_superuser:
            return True
        try:
            return any(
                backend.has_perm(user, permission)
                for backend in get_backends()
                if isinstance(backend, ModelBackend)
            )
        except PermissionDenied:
            return False

    def _may_hold_for_some(self, request: HttpRequest) -> bool:
        user: Any = request.user
        others = any(not isinstance(each, ModelBackend) for each in get_backends())
        return user.is_active and user.is_staff and others

    def permits(self, request: HttpRequest, name: str, obj: Any = None) -> bool:
        """
        Return True if *obj* may be viewed, changed or deleted; without *obj*, if any row may be.
        """
        if name == "add":
            return self._holds_for_all(request, name)
        if name == "view" and self._holds(request, "change", obj):
            return True
        return self._holds(request, name, obj)

    def get_queryset(self, request: HttpRequest) -> Any:
        """Return the rows that the user may see. The list of a user who sees none is empty."""
        queryset = super().get_queryset(request)
        required = self.object_permission_required
        user: Any = request.user
        if user.is_active and user.is_superuser:
            return queryset
        everything = any(self._holds_for_all(request, name) for name in ("view", "change"))
        if everything and not required:
            return queryset
        return self.get_permitted_queryset(request, queryset)

    def get_permitted_queryset(self, request: HttpRequest, queryset: Any) -> Any:
        """
        Return the rows of *queryset* that the user may see by permission for the object.

        Override it where a query can say that (``guardian.shortcuts.get_objects_for_user``). This
        asks for each row, up to ``object_permission_limit`` rows, and leaves out the rest.
        """
        held: dict[Any, Any] = request.__dict__.setdefault("_automate_permitted", {})
        try:
            key = (self, str(queryset.query))
        except EmptyResultSet:
            return queryset.none()
        if key not in held:
            rows = queryset.order_by("pk")[: self.object_permission_limit]
            held[key] = [row.pk for row in rows if self.permits(request, "view", row)]
        return queryset.filter(pk__in=held[key])


class PermissionMixin(ObjectPermissions):
    """
    Asks for permission per object: ``user.has_perm("shop.change_order", order)``.

    django-guardian, rules or any authentication backend may answer. A permission for the whole
    model is enough, unless ``object_permission_required`` is True. The list shows what may be
    seen, and doesn't refuse: see `get_permitted_queryset`.
    """
