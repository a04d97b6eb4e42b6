"""What every class here builds on: offered actions, lists as lists, and the audit trail."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from inspect import signature
from typing import Any

from django.contrib.admin.options import IS_POPUP_VAR
from django.core.exceptions import FieldDoesNotExist
from django.db import router, transaction
from django.http import HttpRequest

from automate_django.admin.bases import trail
from automate_django.admin.bases.checked_forms import checked_form
from automate_django.admin.guarding import Guarded, ModelAdmin
from automate_django.tenants import tenant_for_request, tenant_key

__all__ = ["ModelAdmin", "Root"]


class Root(Guarded):
    """
    The common part of all bases and mixins.

    Each behaviour is a private class on top of this one, and each public mixin and base is made
    of behaviours. No public class is the parent of another, so that they can be combined in any
    order. Being a `ModelAdmin` itself, a mixin also works to the right of one of our bases.
    """

    not_secret_fields: Sequence[str] = ()
    audit_log_changes = True
    audit_log_model: Any = None
    audit_fields: Sequence[str] | None = None
    audit_exclude: Sequence[str] = ()

    soft_deletes = False
    """Whether deleting marks rows, and the base that does so writes the trail itself."""

    # -- lists ---------------------------------------------------------------------------------

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        """A new list, so that ``["mine"] + super().get_list_display(request)`` works."""
        return list(super().get_list_display(request))

    def get_list_filter(self, request: HttpRequest) -> list[Any]:
        """A new list."""
        return list(super().get_list_filter(request))

    def get_search_fields(self, request: HttpRequest) -> list[str]:
        """A new list."""
        return list(super().get_search_fields(request))

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        """A new list."""
        return list(super().get_readonly_fields(request, obj))

    # -- forms ---------------------------------------------------------------------------------

    def get_form(self, request: Any, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        """Django's form, which also checks what is unique on a condition."""
        return checked_form(super().get_form(request, obj, change=change, **kwargs))

    def get_changelist_form(self, request: Any, **kwargs: Any) -> Any:
        """The form of ``list_editable``, which does so too."""
        return checked_form(super().get_changelist_form(request, **kwargs))

    # -- permissions ---------------------------------------------------------------------------

    def permits(self, request: HttpRequest, name: str, obj: Any = None) -> bool:
        """Whether the user holds the permission *name*: to view, add, change or delete."""
        arguments = (request,) if name == "add" else (request, obj)
        return bool(getattr(super(), f"has_{name}_permission")(*arguments))

    def allows(self, request: HttpRequest, name: str, obj: Any = None) -> bool:
        """Whether *obj* is one to do that with, whoever asks: the bases that refuse rows say no."""
        return True

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Held by the user, and allowed for *obj*."""
        return self.permits(request, "view", obj) and self.allows(request, "view", obj)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Held by the user, and allowed."""
        return self.permits(request, "add") and self.allows(request, "add")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Held by the user, and allowed for *obj*."""
        return self.permits(request, "change", obj) and self.allows(request, "change", obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Held by the user, and allowed for *obj*."""
        return self.permits(request, "delete", obj) and self.allows(request, "delete", obj)

    def own_rows(self, request: HttpRequest, queryset: Any) -> Any:
        """Those rows of *queryset*, of any model, that are no other tenant's."""
        return queryset

    def get_import_queryset(self, request: HttpRequest) -> Any:
        """The rows that a file may change."""
        return self.get_queryset(request)

    def prepare_new(self, request: HttpRequest, obj: Any) -> None:
        """Complete *obj*, a new row that no form made; `ValidationError` if it can't be added."""

    def deletion_refusals(self, request: HttpRequest, objs: Any) -> set[str]:
        """What stands against really deleting *objs*, for people; nothing if nothing does."""
        return set()

    def _declares(self, name: str) -> bool:
        """Whether the model has a permission *name* of its own: ``export_order``."""
        codename = f"{name}_{self.opts.model_name}"
        declared = {code for code, _label in self.opts.permissions}
        return name in self.opts.default_permissions or codename in declared

    def holds_own(self, request: HttpRequest, name: str) -> bool:
        """Whether the user has the model's permission *name*, or the model declares none."""
        user: Any = request.user
        permission = f"{self.opts.app_label}.{name}_{self.opts.model_name}"
        return not self._declares(name) or bool(user.has_perm(permission))

    # -- actions -------------------------------------------------------------------------------

    def offered_actions(self, request: HttpRequest) -> list[str]:
        """The names of the methods that are actions, beside those in ``actions``."""
        return []

    def get_actions(self, request: HttpRequest, action_location: Any = None) -> dict[str, Any]:
        """What the host and the site offer, and what the bases do, as far as it is permitted."""
        # Django asks with a location from 6.1 on, and only then is it an argument.
        place = () if action_location is None else (action_location,)
        theirs = super().get_actions
        if place and "action_location" not in signature(theirs).parameters:
            actions = dict(theirs(request))  # a host's base that is older than that
        else:
            actions = dict(theirs(request, *place))
        if self.actions is None or IS_POPUP_VAR in request.GET:
            return actions
        mine = [self.get_action(name, *place) for name in self.offered_actions(request)]
        found = [each for each in mine if each is not None]
        for action in self._filter_actions_by_permissions(request, found):  # type: ignore[attr-defined]
            actions.setdefault(action[1] if isinstance(action, tuple) else action.name, action)
        return actions

    # -- the trail -----------------------------------------------------------------------------

    def get_audit_tenant(self, request: HttpRequest, obj: Any = None) -> Any:
        """The key of the tenant under which a change of *obj* is remembered."""
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
    ) -> trail.Changes:
        """What the trail remembers of the difference between two states of a row of *model*."""
        return trail.compare(
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
        """An entry of the trail, for `audit_write`: *values* are ``changes`` and ``details``."""
        model = self.model if obj is None else type(obj)
        tenant = self.get_audit_tenant(request, obj)
        return trail.entry_of(request, action, model, obj, tenant=tenant, **values)

    def audit_write(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Save *entries* in the open transaction, unless ``audit_log_changes`` is off."""
        if self.audit_log_changes:
            trail.write(entries, self.audit_log_model)

    def audit(self, request: HttpRequest, action: str, obj: Any = None, **values: Any) -> None:
        """Save one entry in the open transaction; see `audit_entry`."""
        self.audit_write([self.audit_entry(request, action, obj, **values)])

    def atomic(self) -> Any:
        """A transaction on the database that the model is written to."""
        return transaction.atomic(using=router.db_for_write(self.model))
