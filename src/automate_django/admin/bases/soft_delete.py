"""Rows that are marked as deleted, and can come back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import flatten_fieldsets, get_deleted_objects
from django.core.checks import CheckMessage, Info
from django.core.checks import Error as CheckError
from django.core.checks import Warning as CheckWarning
from django.core.exceptions import FieldDoesNotExist, PermissionDenied
from django.db import IntegrityError, models
from django.db.models import Q
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from automate_django.admin.bases.audit import Audited
from automate_django.admin.bases.base import AdminBasics
from automate_django.audit_trail import row_values

PARAMETER = "deleted"
_FIELDS = ("is_deleted", "deleted", "deleted_at")


def soft_delete_checks(admin: Any) -> Iterator[CheckMessage]:
    """Check *admin* and its model for errors and misunderstandings."""
    hint = "Add `is_deleted` or `deleted_at`, or name yours in soft_delete_fields."
    try:
        fields = admin.deleted_fields()
    except FieldDoesNotExist as error:
        fields, hint = [], str(error)
    if not fields:
        text = f"{admin.opts.object_name} has no field that marks a row as deleted."
        yield CheckError(text, hint=hint, obj=type(admin), id="automate.E102")
        return
    yield from _cascade(admin)
    yield from _manager(admin)
    yield from _unique(admin)


def _cascade(admin: Any) -> Iterator[CheckMessage]:
    relations = admin.cascade_relations()
    for name in admin.soft_delete_cascade:
        relation = relations.get(name)
        if relation is None or not admin.deleted_fields(relation.related_model):
            yield CheckError(
                f"soft_delete_cascade names {name!r}, which leads to no rows that can be marked.",
                hint=f"Relations are: {', '.join(sorted(relations)) or 'none'}.",
                obj=type(admin),
                id="automate.E103",
            )


def _manager(admin: Any) -> Iterator[CheckMessage]:
    if admin.model._default_manager.get_queryset().query.where.children:
        yield CheckWarning(
            f"The default manager of {admin.opts.object_name} leaves out rows, so the admin can't "
            "show or restore them, and forms don't see what they clash with.",
            hint="Set Meta.default_manager_name to a manager that has all rows.",
            obj=type(admin),
            id="automate.W102",
        )


def _unique(admin: Any) -> Iterator[CheckMessage]:
    meta = admin.opts
    names = [each.name for each in meta.concrete_fields if each.unique and not each.primary_key]
    names += [", ".join(each) for each in meta.unique_together]
    if names:
        yield Info(
            f"A deleted {meta.object_name} keeps its unique values: {'; '.join(names)}.",
            hint="Use a UniqueConstraint with condition=Q(is_deleted=False) to free them.",
            obj=type(admin),
            id="automate.I102",
        )


class DeletedFilter(admin.SimpleListFilter):
    """Hide, show or list alone what was deleted."""

    title = gettext_lazy("deleted")
    parameter_name = PARAMETER

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, Any]]:
        """Return the choices."""
        return [("no", _("Hide")), ("all", _("Show")), ("only", _("Only deleted"))]

    def choices(self, changelist: Any) -> Iterator[Any]:
        """Give the choices, without Django's "All", which wouldn't say what it means."""
        yield from list(super().choices(changelist))[1:]

    def value(self) -> str:
        """Return the chosen value, or the default."""
        return str(super().value() or self.admin.deleted_by_default)

    def __init__(self, request: Any, params: Any, model: Any, model_admin: Any) -> None:
        self.admin = model_admin
        super().__init__(request, params, model, model_admin)

    def queryset(self, request: Any, queryset: Any) -> Any:
        """Leave only deleted rows in *queryset*, which `SoftDelete.get_queryset` has narrowed."""
        return queryset.filter(self.admin.deleted_q()) if self.value() == "only" else queryset


class SoftDelete(Audited):
    """Marks rows instead of deleting them, hides them, and restores them."""

    soft_deletes = True
    soft_delete_fields: Sequence[str] | None = None
    soft_delete_cascade: Sequence[str] = ()
    show_deleted_toggle = True
    show_deleted_by_default = False

    def deleted_fields(self, model: Any = None) -> list[Any]:
        """Return the fields that say that a row is deleted: a flag, a time, or both."""
        model = model or self.model
        names = self.soft_delete_fields if model is self.model else None
        found = []
        for name in names or _FIELDS:
            try:
                found.append(model._meta.get_field(name))
            except FieldDoesNotExist:
                if names is not None:
                    raise
        return found

    def deleted_q(self, model: Any = None) -> Q:
        """Return the condition of a deleted row."""
        field = self.deleted_fields(model)[0]
        if isinstance(field, models.BooleanField):
            return Q(**{field.name: True})
        return Q(**{f"{field.name}__isnull": False})

    def is_deleted(self, obj: Any) -> bool:
        """Return True if *obj* is deleted."""
        return bool(getattr(obj, self.deleted_fields(type(obj))[0].attname))

    def get_queryset(self, request: HttpRequest) -> Any:
        """Return the rows. Deleted rows are among them only if the list was asked for them."""
        queryset = super().get_queryset(request)
        return queryset if self._shows_deleted(request) else queryset.exclude(self.deleted_q())

    def _shows_deleted(self, request: HttpRequest) -> bool:
        if self in request.__dict__.get("_automate_with_deleted", ()):
            return True
        asked = request.GET.get(PARAMETER) if self.show_deleted_toggle else None
        return (asked or self.deleted_by_default) in ("all", "only")

    @property
    def deleted_by_default(self) -> str:
        """The choice of the filter where nobody has chosen."""
        return "all" if self.show_deleted_by_default else "no"

    @contextmanager
    def with_deleted(self, request: HttpRequest) -> Iterator[None]:
        """Let `get_queryset` return deleted rows too, inside of the block."""
        held = request.__dict__.setdefault("_automate_with_deleted", [])
        held.append(self)
        try:
            yield
        finally:
            held.remove(self)

    def get_object(self, request: Any, object_id: Any, from_field: Any = None) -> Any:
        """Return the row of a page; a deleted row can be looked at."""
        with self.with_deleted(request):
            return super().get_object(request, object_id, from_field)

    def get_list_filter(self, request: HttpRequest) -> list[Any]:
        """Return the filters, and the toggle."""
        filters = super().get_list_filter(request)
        return [*filters, DeletedFilter] if self.show_deleted_toggle else filters

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        """Return the columns. A list with deleted rows has a column that marks them."""
        display = super().get_list_display(request)
        name = self.deleted_fields()[0].name
        return [*display, name] if self._shows_deleted(request) and name not in display else display

    def _marks(self, *, declared: bool) -> list[str]:
        """Return the names of the marks that the project shows in its form, or of the others."""
        fieldsets: Any = self.fieldsets or [(None, {"fields": self.fields or ()})]
        shown = flatten_fieldsets(fieldsets)
        return [each.name for each in self.deleted_fields() if (each.name in shown) is declared]

    def get_exclude(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the excluded fields: a row is deleted by deleting it, not in a form."""
        return [*(super().get_exclude(request, obj) or ()), *self._marks(declared=False)]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        """Return the read-only fields, and the marks where the application shows them."""
        readonly = super().get_readonly_fields(request, obj)
        return list(dict.fromkeys([*readonly, *self._marks(declared=True)]))

    def allows(self, request: HttpRequest, name: str, obj: Any = None) -> bool:
        """Return False for changing a deleted row, which can only be looked at."""
        if not super().allows(request, name, obj):
            return False
        return obj is None or name == "view" or not self.is_deleted(obj)

    def has_restore_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return True if the user may restore deleted rows: who may delete may restore."""
        return self.permits(request, "delete", obj) and self.holds_own(request, "restore")

    def has_hard_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """
        Return True if rows may be deleted for good.

        By superusers, and by holders of the model's permission ``hard_delete_MODEL``.
        """
        user: Any = request.user
        permission = f"{self.opts.app_label}.hard_delete_{self.opts.model_name}"
        return self.permits(request, "delete", obj) and bool(user.has_perm(permission))

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        """Mark *obj* as deleted."""
        self._mark(request, [obj])

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        """Mark the rows of *queryset* as deleted."""
        self._mark(request, list(queryset))

    def _mark(self, request: HttpRequest, objs: list[Any]) -> None:
        now, entries = timezone.now(), list[Any]()
        with self.atomic():
            for obj in objs:
                rows = (obj, *self._children(request, obj))
                entries += [self._mark_row(request, "soft_delete", row, now) for row in rows]
            self.audit_write(entries)

    def _mark_row(self, request: HttpRequest, action: str, obj: Any, at: Any) -> Any:
        """Mark *obj* as deleted at *at*, or as not deleted (None); return the trail's entry."""
        fields, before = self.deleted_fields(type(obj)), row_values(obj)
        for field in fields:
            value = at is not None if isinstance(field, models.BooleanField) else at
            setattr(obj, field.attname, value)
        obj.save(update_fields=[field.name for field in fields])
        changes = self.audit_changes(type(obj), before, row_values(obj))
        return self.audit_entry(request, action, obj, changes=changes)

    def cascade_relations(self) -> dict[str, Any]:
        """Return the relations that ``soft_delete_cascade`` may name, by their accessors."""
        return {str(each.get_accessor_name()): each for each in self.opts.related_objects}

    def _children(self, request: HttpRequest, obj: Any, went_at: Any = None) -> Iterator[Any]:
        """
        Return the rows that go along with *obj*, by ``soft_delete_cascade``.

        With *went_at* those that went along with it then, which come back with it.
        """
        relations = self.cascade_relations()
        for name in self.soft_delete_cascade:
            model, field = relations[name].related_model, relations[name].field
            rows = self.own_rows(request, model._default_manager.filter(**{field.name: obj}))
            if went_at is None:
                yield from rows.exclude(self.deleted_q(model))
            elif (stamp := self._stamp(model)) is not None:
                yield from rows.filter(**{stamp.name: went_at})

    def _stamp(self, model: Any) -> Any:
        fields = self.deleted_fields(model)
        return next((each for each in fields if isinstance(each, models.DateTimeField)), None)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Return the rows that will be marked: *objs* and those of ``soft_delete_cascade``."""
        may = all(self.has_delete_permission(request, obj) for obj in objs)
        listed: list[Any] = []
        counts = Counter({self.opts.verbose_name_plural: len(objs)})
        for obj in objs:
            children = list(self._children(request, obj))
            along = [f"{child._meta.verbose_name}: {child}" for child in children]
            listed += [f"{obj._meta.verbose_name}: {obj}", *([along] if along else [])]
            counts.update(child._meta.verbose_name_plural for child in children)
        return listed, counts, set() if may else {str(self.opts.verbose_name)}, []

    def offered_actions(self, request: HttpRequest) -> list[str]:
        """Return restoring and deleting for good, where deleted rows are in the list."""
        offered = super().offered_actions(request)
        if not self._shows_deleted(request):
            return offered
        return [*offered, "restore_selected", "hard_delete_selected"]

    @admin.action(
        permissions=["restore"],
        description=gettext_lazy("Restore selected %(verbose_name_plural)s"),
    )
    def restore_selected(self, request: HttpRequest, queryset: Any) -> None:
        """Bring back the chosen rows that are deleted, and the rows that went along."""
        restored, refused = 0, []
        for obj in queryset.filter(self.deleted_q()):
            if not self.has_restore_permission(request, obj):
                raise PermissionDenied
            try:
                with self.atomic():
                    self._restore(request, obj)
                restored += 1
            except IntegrityError:
                refused.append(str(obj))
        text = ngettext("%d row restored.", "%d rows restored.", restored)
        self.tell_count(request, text, restored)
        if refused:
            text = _("Not restored, because another row has the same unique value: %s")
            self.message_user(request, text % ", ".join(refused[:20]), messages.ERROR)

    def _restore(self, request: HttpRequest, obj: Any) -> None:
        stamp = self._stamp(type(obj))
        at = getattr(obj, stamp.attname) if stamp else None
        children = list(self._children(request, obj, went_at=at)) if at else []
        rows = (obj, *children)
        self.audit_write([self._mark_row(request, "restore", each, None) for each in rows])

    @admin.action(
        permissions=["hard_delete"],
        description=gettext_lazy("Delete selected %(verbose_name_plural)s for good"),
    )
    def hard_delete_selected(self, request: HttpRequest, queryset: Any) -> None:
        """Really delete the chosen rows that were deleted before."""
        deleted = 0
        with self.atomic():
            for obj in queryset.filter(self.deleted_q()):
                if not self.has_hard_delete_permission(request, obj):
                    raise PermissionDenied
                refused = self._gone_with(request, obj)
                if refused:
                    self.message_user(request, refused, messages.ERROR)
                    continue
                self.audit(request, "delete", obj)
                models.Model.delete(obj)
                deleted += 1
        self.tell_count(request, ngettext("%d row deleted.", "%d rows deleted.", deleted), deleted)

    def _gone_with(self, request: HttpRequest, obj: Any) -> str:
        """Return the reason why *obj* can't be deleted for good; empty text if it can be."""
        refused = self.deletion_refusals(request, [obj])
        if not refused:
            *_listed, missing, protected = get_deleted_objects([obj], request, self.admin_site)
            # Deleted rows are not to be changed, so this one itself is always among the missing.
            refused = {*missing, *(["protected rows"] if protected else [])}
            refused -= {self.opts.verbose_name}
        names = ", ".join(sorted(map(str, refused)))
        text = _("%(row)s stays, because of what would go along with it: %(names)s")
        return text % {"row": obj, "names": names} if refused else ""

    def check(self, **kwargs: Any) -> list[CheckMessage]:
        """Return Django's checks, and those of marking rows as deleted."""
        return [*super().check(**kwargs), *soft_delete_checks(self)]


class SoftDeleteAdmin(SoftDelete, AdminBasics):
    """
    An admin that marks rows as deleted, hides them and restores them.

    The model has ``is_deleted`` (a flag) or ``deleted_at`` (a time) or both; other names stand in
    ``soft_delete_fields``. ``show_deleted_toggle`` offers to list deleted rows,
    ``show_deleted_by_default`` does so unasked. Marking a row leaves alone what refers to it, but
    for the relations in ``soft_delete_cascade``. `restore_selected` brings rows back; deleting
    for good needs `has_hard_delete_permission`.
    """
