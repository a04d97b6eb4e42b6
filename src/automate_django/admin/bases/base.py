"""The base of all admin classes: lists, forms, permissions, actions, columns and safe lookups."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from inspect import signature
from typing import Any

from django.contrib import admin
from django.contrib.admin.options import IS_POPUP_VAR
from django.contrib.admin.utils import flatten_fieldsets, quote
from django.core.exceptions import FieldDoesNotExist
from django.db import models
from django.db.models.constants import LOOKUP_SEP
from django.http import HttpRequest
from django.urls import NoReverseMatch
from django.utils import timezone
from django.utils.html import format_html
from django.utils.text import Truncator

from automate_django.admin.guard import GuardedAdmin
from automate_django.secrecy import is_secret
from automate_django.uniqueness import CheckedForm, mixed_into

# What may stand in an SVG attribute: a name, or a hexadecimal colour.
_COLOUR = re.compile(r"#[0-9a-fA-F]{3,8}|[a-zA-Z]{3,30}")
# Django 4.2 asks `lookup_allowed` without saying for which request.
_listing: ContextVar[HttpRequest | None] = ContextVar("automate_listing", default=None)


def chunks(values: Sequence[Any], size: int = 500) -> Iterator[Sequence[Any]]:
    """Return *values* in parts that fit into one statement of any database."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


def auto_now_values(model: Any) -> dict[str, Any]:
    """Return the values of *model*'s ``auto_now`` fields, which a bulk update leaves alone."""
    its = [each for each in model._meta.concrete_fields if getattr(each, "auto_now", False)]
    times = {each.name: timezone.now() for each in its if isinstance(each, models.DateTimeField)}
    dates = {each.name: timezone.localdate() for each in its if isinstance(each, models.DateField)}
    return {**dates, **times}


class AdminRoot(GuardedAdmin):
    """
    The common part of all bases and mixins.

    Each behaviour is a private class on top of this class, and each public mixin and base is made
    of behaviours. No public class is the parent of another, so that they can be combined in any
    order. Being a `ModelAdmin` itself, a mixin also works to the right of one of our bases.
    """

    not_secret_fields: Sequence[str] = ()

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        """Return a new list, so that ``["mine"] + super().get_list_display(request)`` works."""
        return list(super().get_list_display(request))

    def get_list_filter(self, request: HttpRequest) -> list[Any]:
        """Return a new list."""
        return list(super().get_list_filter(request))

    def get_search_fields(self, request: HttpRequest) -> list[str]:
        """Return a new list."""
        return list(super().get_search_fields(request))

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        """Return a new list."""
        return list(super().get_readonly_fields(request, obj))

    def get_form(self, request: Any, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        """Return Django's form, which also checks constraints that have a condition."""
        return mixed_into(super().get_form(request, obj, change=change, **kwargs), CheckedForm)

    def get_changelist_form(self, request: Any, **kwargs: Any) -> Any:
        """Return the form of ``list_editable``, with the same checks."""
        return mixed_into(super().get_changelist_form(request, **kwargs), CheckedForm)

    def permits(self, request: HttpRequest, name: str, obj: Any = None) -> bool:
        """Return True if the user holds the permission *name*: to view, add, change or delete."""
        arguments = (request,) if name == "add" else (request, obj)
        return bool(getattr(super(), f"has_{name}_permission")(*arguments))

    def allows(self, request: HttpRequest, name: str, obj: Any = None) -> bool:
        """Return False if a base refuses this for *obj*, whatever the user's permissions."""
        return True

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return True if the user holds the permission, and no base refuses it for *obj*."""
        return self.permits(request, "view", obj) and self.allows(request, "view", obj)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return True if the user holds the permission, and no base refuses it."""
        return self.permits(request, "add") and self.allows(request, "add")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return True if the user holds the permission, and no base refuses it for *obj*."""
        return self.permits(request, "change", obj) and self.allows(request, "change", obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return True if the user holds the permission, and no base refuses it for *obj*."""
        return self.permits(request, "delete", obj) and self.allows(request, "delete", obj)

    def own_rows(self, request: HttpRequest, queryset: Any) -> Any:
        """Return *queryset*, of any model, without the rows of other tenants."""
        return queryset

    def get_import_queryset(self, request: HttpRequest) -> Any:
        """Return the rows that a file may change."""
        return self.get_queryset(request)

    def prepare_new(self, request: HttpRequest, obj: Any) -> None:
        """Complete *obj*, a new row that no form made; `ValidationError` if it can't be added."""

    def deletion_refusals(self, request: HttpRequest, objs: Any) -> set[str]:
        """Return the reasons against really deleting *objs*, as text for people."""
        return set()

    def _declares(self, name: str) -> bool:
        """Return True if the model has a permission *name* of its own: ``export_order``."""
        codename = f"{name}_{self.opts.model_name}"
        declared = {code for code, _label in self.opts.permissions}
        return name in self.opts.default_permissions or codename in declared

    def holds_own(self, request: HttpRequest, name: str) -> bool:
        """Return True if the user has the model's permission *name*, or the model declares none."""
        user: Any = request.user
        permission = f"{self.opts.app_label}.{name}_{self.opts.model_name}"
        return not self._declares(name) or bool(user.has_perm(permission))

    def offered_actions(self, request: HttpRequest) -> list[str]:
        """Return the names of the methods that are actions, beside those in ``actions``."""
        return []

    def get_actions(self, request: HttpRequest, action_location: Any = None) -> dict[str, Any]:
        """Return the actions of the project, the site and the bases that the user may do."""
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


class AdminBasics(AdminRoot):
    """Timestamps, small things for columns, and which fields a URL may ask about."""

    list_per_page = 25
    save_on_top = True
    # Counting all rows costs as much as reading them, and the page has a count already.
    show_full_result_count = False

    show_timestamps = True
    timestamp_readonly = True
    timestamp_fields: Sequence[str] = ("created_at", "updated_at")

    def _timestamps(self) -> list[str]:
        names = {field.name for field in self.opts.get_fields()}
        return [name for name in self.timestamp_fields if name in names]

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        """Return the columns, and with ``show_timestamps`` those of the model's timestamps."""
        display = super().get_list_display(request)
        if self.show_timestamps:
            display += [name for name in self._timestamps() if name not in display]
        return display

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        """Return the read-only fields, and with ``timestamp_readonly`` the model's timestamps."""
        readonly = super().get_readonly_fields(request, obj)
        if self.timestamp_readonly:
            readonly += [
                name
                for name in self._timestamps()
                if name not in readonly
                and (self.show_timestamps or self.opts.get_field(name).editable)
            ]
        return readonly

    def link_to_object(self, obj: Any, label: Any = None) -> str:
        """Return a link to *obj*'s page in this admin, or only *label* where it has none."""
        if obj is None:
            return str(self.get_empty_value_display())
        text = str(obj) if label is None else label
        name = f"{obj._meta.app_label}_{obj._meta.model_name}_change"
        try:
            url = self.own_url(name, quote(obj.pk))
        except NoReverseMatch:
            return format_html("{}", text)
        return format_html('<a href="{}">{}</a>', url, text)

    def colored_status(self, value: Any, colors: Mapping[Any, str] | None = None) -> str:
        """
        Return *value* after a dot in the colour that *colors* has for it.

        The words say the same as the colour. The dot is an SVG and needs no inline style, so it
        is there under a strict Content-Security-Policy too.
        """
        color = (colors or {}).get(value, "")
        if not _COLOUR.fullmatch(color):
            return format_html("{}", value)
        return format_html(
            '<svg width="10" height="10" aria-hidden="true">'
            '<circle cx="5" cy="5" r="4" fill="{}"/></svg> {}',
            color,
            value,
        )

    def truncated_field(self, value: Any, max_length: int = 50) -> str:
        """Return *value* cut to *max_length* characters, all of it in a tooltip."""
        text = "" if value is None else str(value)
        if len(text) <= max_length:
            return format_html("{}", text)
        return format_html('<span title="{}">{}</span>', text, Truncator(text).chars(max_length))

    # -- what a URL may ask about --------------------------------------------------------------

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        """Show Django's list."""
        token = _listing.set(request)
        try:
            return super().changelist_view(request, extra_context)
        finally:
            _listing.reset(token)

    def lookup_allowed(self, lookup: str, value: Any, request: Any = None) -> bool:
        """
        Return True if the list may be filtered by ``?lookup=value``.

        Beyond what Django refuses: by secrets, and by fields that this admin doesn't show. Else
        ``?api_key__startswith=a`` finds a hidden value letter by letter.
        """
        arguments = (lookup, value) if request is None else (lookup, value, request)
        request = request or _listing.get()
        if not super().lookup_allowed(*arguments):
            return False
        name = lookup.split(LOOKUP_SEP, maxsplit=1)[0]
        if name in ("pk", self.opts.pk.name):
            return True
        try:
            field: Any = self.opts.get_field(name)
        except FieldDoesNotExist:
            return True  # an annotation or a filter's own parameter
        if is_secret(field, self.not_secret_fields):
            return False
        return field.name in self._shown_fields(request) or self._is_related_lookup(lookup)

    def _is_related_lookup(self, lookup: str) -> bool:
        """Return True if a foreign key's ``limit_choices_to`` has *lookup*, as a pop-up needs."""
        given = self.model._meta.related_fkey_lookups
        limits = (limit() if callable(limit) else limit for limit in given)
        return any(lookup in limit for limit in limits if isinstance(limit, Mapping))

    def _shown_fields(self, request: HttpRequest | None) -> set[str]:
        """Return the names of the fields that are seen in the list, its filters or the form."""
        if request is None:
            listed = [*self.list_display, *self.list_filter]
            fieldsets: Any = self.fieldsets or [(None, {"fields": self.fields or ()})]
        else:
            listed = [*self.get_list_display(request), *self.get_list_filter(request)]
            fieldsets = self.get_fieldsets(request)
        shown = {each[0] if isinstance(each, (list, tuple)) else each for each in listed}
        shown |= {self.date_hierarchy, *flatten_fieldsets(fieldsets)}
        return {str(each).split(LOOKUP_SEP)[0] for each in shown if isinstance(each, str)}

    def to_field_allowed(self, request: HttpRequest, to_field: str) -> bool:
        """Return True if rows may be chosen and linked by *to_field*; never by a secret."""
        try:
            field = self.opts.get_field(to_field)
        except FieldDoesNotExist:
            return False
        if is_secret(field, self.not_secret_fields):
            return False
        return super().to_field_allowed(request, to_field)


class BaseModelAdmin(AdminBasics):
    """
    A `ModelAdmin` with sensible defaults.

    ``list_per_page`` (25), ``save_on_top`` (True), ``show_timestamps`` (columns and read-only
    fields for the model's ``timestamp_fields``), ``timestamp_readonly``. For columns:
    `link_to_object`, `colored_status`, `truncated_field`.
    """


class InlineBaseAdmin(admin.TabularInline):  # type: ignore[type-arg]
    """
    A table of rows inside another row's page.

    ``extra`` is 0, ``max_num`` 10, ``show_change_link`` and ``can_delete`` True. Inside a
    `TenantScopedAdmin` it shows and takes the tenant's rows only, as any inline does there.
    """

    extra = 0
    max_num = 10
    show_change_link = True
    can_delete = True


class StackedInlineBaseAdmin(admin.StackedInline):  # type: ignore[type-arg]
    """`InlineBaseAdmin`, with a form below each other for each row."""

    extra = 0
    max_num = 10
    show_change_link = True
    can_delete = True
