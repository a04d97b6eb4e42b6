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
        may = admin.has_change_permission(request, row)
        refused = set(admin.get_readonly_fields(request, row)) if may else admin.list_editable
        for name in set(admin.list_editable).intersection(refused):
            form.fields.pop(name, None)


class Editable(AdminRoot):
    """Rows of a list are edited as their own pages would let the user edit them."""

    def get_changelist_formset(self, request: HttpRequest, **kwargs: Any) -> Any:
        """Return Django's formset without the fields that are read-only in a row."""
        formset: Any = super().get_changelist_formset(request, **kwargs)
        names = {"permitted_by": self, "permitted_for": request}
        return type(formset.__name__, (_PermittedFormSet, formset), names)


class ObjectPermissions(Editable):
    """Asks ``user.has_perm(permission, obj)``, and lists what the user may see."""

    object_permission_required = False
    object_permission_limit = 5000

    def _permission(self, name: str) -> str:
        return f"{self.opts.app_label}.{get_permission_codename(name, self.opts)}"

    def _holds(self, request: HttpRequest, name: str, obj: Any) -> bool:
        user: Any = request.user
        if obj is None:
            # Which rows they are, if only some, says another backend than Django's own.
            others = any(not isinstance(each, ModelBackend) for each in get_backends())
            some = user.is_active and user.is_staff and others
            return some or self._holds_for_all(request, name)
        if _is_superuser(user) or user.has_perm(self._permission(name), obj):
            return True
        return not self.object_permission_required and self._holds_for_all(request, name)

    def _holds_for_all(self, request: HttpRequest, name: str) -> bool:
        """
        Return True if the user was given the permission for the whole model.

        Only Django's own backend is asked: others answer "yes" without an object where they mean
        "it depends".
        """
        own = (each for each in get_backends() if isinstance(each, ModelBackend))
        user: Any = request.user
        permission = self._permission(name)
        try:
            return _is_superuser(user) or any(each.has_perm(user, permission) for each in own)
        except PermissionDenied:
            return False

    def permits(self, request: HttpRequest, name: str, obj: Any = None) -> bool:
        """Return True if *obj* may be viewed, changed or deleted; without it, if any row may."""
        if name == "add":
            return self._holds_for_all(request, name)
        if name == "view" and self._holds(request, "change", obj):
            return True
        return self._holds(request, name, obj)

    def get_queryset(self, request: HttpRequest) -> Any:
        """Return the rows that the user may see. The list of a user who sees none is empty."""
        queryset = super().get_queryset(request)
        if _is_superuser(request.user):
            return queryset
        everything = any(self._holds_for_all(request, name) for name in ("view", "change"))
        if everything and not self.object_permission_required:
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


def _is_superuser(user: Any) -> bool:
    return bool(user.is_active and user.is_superuser)


class PermissionMixin(ObjectPermissions):
    """
    Asks for permission per object: ``user.has_perm("shop.change_order", order)``.

    django-guardian, rules or any authentication backend may answer. A permission for the whole
    model is enough, unless ``object_permission_required`` is True. The list shows what may be
    seen, and doesn't refuse: see `get_permitted_queryset`.
    """
