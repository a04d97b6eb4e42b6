"""The admin of one tenant's rows: every way into the others' is closed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from django.contrib import admin
from django.contrib.admin import filters
from django.contrib.admin.options import BaseModelAdmin as DjangoBaseModelAdmin
from django.contrib.admin.options import InlineModelAdmin
from django.contrib.admin.utils import (
    NestedObjects,
    NotRelationField,
    get_fields_from_path,
    get_model_from_relation,
)
from django.contrib.admin.widgets import ForeignKeyRawIdWidget, ManyToManyRawIdWidget
from django.core.checks import CheckMessage
from django.core.checks import Error as CheckError
from django.core.checks import Warning as CheckWarning
from django.core.exceptions import (
    NON_FIELD_ERRORS,
    FieldDoesNotExist,
    PermissionDenied,
    ValidationError,
)
from django.db import router
from django.db.models import JSONField
from django.db.models.constants import LOOKUP_SEP
from django.http import HttpRequest
from django.utils.translation import gettext as _

from automate_django import conf
from automate_django.admin.bases.audit import Audited
from automate_django.admin.bases.base import AdminBasics, chunks
from automate_django.admin.bases.permissions import Editable
from automate_django.admin.bases.scope import Scope, field_named
from automate_django.admin.bases.view_on_site import guard
from automate_django.tenants import attribute_of, tenant_for_request, tenant_key
from automate_django.uniqueness import CheckedForm, mixed_into


def narrow(field: Any, scope: Scope) -> None:
    """Leave in the choices of the form field *field* what *scope* covers, whoever chose them."""
    queryset = getattr(field, "queryset", None)
    if queryset is None or scope.everything:
        return
    field.queryset = scope.filter(queryset)
    widget = getattr(field.widget, "widget", field.widget)  # what Django's "add another" wraps
    by_id = isinstance(widget, ForeignKeyRawIdWidget)
    if by_id and not isinstance(widget, ManyToManyRawIdWidget):
        # Django writes the name of the row with that id beside the box, whosever row it is.
        widget.__class__ = mixed_into(widget.__class__, _ScopedLabel)
        widget.scope = scope


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


class _ScopedForm(CheckedForm):
    """The part that is mixed into the form classes of a request."""

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
    """Return the form class *form* for what *scope* covers, by *tenant_path* from its model."""
    names = {"scope": scope, "tenant_path": tenant_path}
    return type(form.__name__, (_ScopedForm, form), names)


class _ScopedFormSet:
    """The part that is mixed into the formset classes of a request."""

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
    """Return the formset class *formset* for the rows that *scope* covers."""
    form = scoped_form(formset.form, scope, tenant_path)
    return type(formset.__name__, (_ScopedFormSet, formset), {"form": form})


class ScopedFields(DjangoBaseModelAdmin):  # type: ignore[type-arg]
    """The fields of a form, of an admin or an inline: choices narrowed, the tenant left out."""

    def scope(self, request: HttpRequest) -> Scope:
        """Return the scope of *request*: the rows that it may see."""
        raise NotImplementedError

    def tenant_path(self, request: HttpRequest) -> str | None:
        """Return the lookup that leads from a row to its tenant."""
        return self.scope(request).path(self.opts.model)

    def _hidden_tenant(self, request: HttpRequest) -> str | None:
        """Return the name of the tenant's field, if the user is not to choose it."""
        path = self.tenant_path(request)
        if self.scope(request).everything or path is None or LOOKUP_SEP in path:
            return None
        found = field_named(self.opts.model, path)
        return None if found is None or found.primary_key else found.name

    def formfield_for_dbfield(self, db_field: Any, request: Any, **kwargs: Any) -> Any:
        """Return the field, with the choices that *request* may see."""
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        narrow(field, self.scope(request))
        return field

    def get_field_queryset(self, db: Any, db_field: Any, request: Any) -> Any:
        """Return the rows that a relation may point to."""
        rows = super().get_field_queryset(db, db_field, request)
        if rows is None:
            rows = db_field.remote_field.model._default_manager.using(db)
        return self.scope(request).filter(rows.all())

    def get_exclude(self, request: Any, obj: Any = None) -> Any:
        """Return the excluded fields, and the tenant's: nobody moves a row to another tenant."""
        hidden, excluded = self._hidden_tenant(request), super().get_exclude(request, obj)
        return excluded if hidden is None else [*(excluded or ()), hidden]

    def get_readonly_fields(self, request: Any, obj: Any = None) -> Any:
        """Return the read-only fields, and the tenant's, which a project may show."""
        hidden, readonly = self._hidden_tenant(request), super().get_readonly_fields(request, obj)
        return [*readonly] if hidden is None or hidden in readonly else [*readonly, hidden]

    def get_fieldsets(self, request: Any, obj: Any = None) -> Any:
        """Return the form's parts, without the tenant."""
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


class ScopedInline(ScopedFields, InlineModelAdmin):  # type: ignore[type-arg]
    """The class that is mixed into the inlines of a tenant-scoped admin."""

    tenant_admin: Any = None

    def scope(self, request: HttpRequest) -> Scope:
        """Return the scope of the admin which the inline is part of."""
        found: Scope = self.tenant_admin.scope(request)
        return found

    def get_queryset(self, request: HttpRequest) -> Any:
        """Return the tenant's rows."""
        return self.scope(request).filter(super().get_queryset(request))

    def get_formset(self, request: Any, obj: Any = None, **kwargs: Any) -> Any:
        """Return a formset that takes ids of the tenant's rows only."""
        formset = super().get_formset(request, obj, **kwargs)
        return scoped_formset(formset, self.scope(request), self.tenant_path(request))


def scoped_filter(item: Any, admin: Any) -> Any:
    """Return *item* of a ``list_filter`` as one that reads its choices from *admin*'s rows."""
    path, given = item if isinstance(item, (list, tuple)) else (item, None)
    if not isinstance(path, str):
        return item  # a filter class, which says itself what it offers
    try:
        field = get_fields_from_path(admin.model, path)[-1]
    except (FieldDoesNotExist, NotRelationField):
        return item
    known: Any = filters.FieldListFilter._field_list_filters  # type: ignore[attr-defined]
    cls: Any = given or next((cls for test, cls in known if test(field)), None)
    if not isinstance(cls, type):
        return item
    part: Any = _ScopedRelated if issubclass(cls, filters.RelatedFieldListFilter) else None
    part = _ScopedValues if issubclass(cls, filters.AllValuesFieldListFilter) else part
    return item if part is None else (path, mixed_into(cls, part))


class _ScopedRelated:
    """Offers the related rows that rows of the list point to, and of these the tenant's own."""

    field_path: str

    def field_choices(self, field: Any, request: HttpRequest, model_admin: Any) -> Any:
        related = get_model_from_relation(field)
        rows = model_admin.get_queryset(request).order_by()
        used = rows.values_list(f"{self.field_path}__pk", flat=True)
        own = model_admin.scope(request).filter(related._default_manager.all())
        own = own.order_by().filter(pk__in=used).values_list("pk", flat=True)
        ordering = self.field_admin_ordering(field, request, model_admin)  # type: ignore[attr-defined]
        limit = {"pk__in": own}
        return field.get_choices(include_blank=False, ordering=ordering, limit_choices_to=limit)


class _ScopedValues:
    """Offers the values that rows of the list have."""

    def __init__(
        self, field: Any, request: Any, params: Any, model: Any, model_admin: Any, field_path: str
    ) -> None:
        super().__init__(field, request, params, model, model_admin, field_path)  # type: ignore[call-arg]
        rows = model_admin.get_queryset(request).order_by(field_path)
        # Django's own choices are not read yet: a queryset is lazy.
        self.lookup_choices = rows.values_list(field_path, flat=True).distinct()


class TenantScope(ScopedFields, Audited):
    """Narrows every view of an admin to the rows of the request's tenant."""

    tenant_field = "tenant_id"
    tenant_paths: Mapping[str, str] = {}
    show_tenant_column = True
    superusers_see_all = True

    def __init__(self, model: Any, admin_site: Any) -> None:
        super().__init__(model, admin_site)
        self._inlines: dict[Any, Any] = {}
        guard(admin_site)

    def get_tenant_for_request(self, request: HttpRequest) -> Any:
        """
        Return the tenant, or its key, whose rows *request* may see; None for none at all.

        Override it to say. By default `automate_django.tenants.tenant_for_request` looks.
        """
        return tenant_for_request(request, attribute_of(self.tenant_field))

    def scope(self, request: HttpRequest) -> Scope:
        """Return the scope of *request*; superusers see all if ``superusers_see_all`` is on."""
        held: dict[Any, Scope] = request.__dict__.setdefault("_automate_scopes", {})
        if self not in held:
            user: Any = request.user
            everything = self.superusers_see_all and user.is_active and user.is_superuser
            tenant = None if everything else tenant_key(self.get_tenant_for_request(request))
            held[self] = self._scope(tenant=tenant, everything=everything, user_id=user.pk)
        return held[self]

    def _scope(self, **of_request: Any) -> Scope:
        """Return a scope with the paths from models to the tenant that the project names."""
        paths = {**conf.options("AUTOMATE_ADMIN").get("TENANT_PATHS", {}), **self.tenant_paths}
        return Scope(
            name=attribute_of(self.tenant_field),
            tenant_model=self._tenant_model(),
            paths={label.lower(): path for label, path in paths.items()},
            **of_request,
        )

    def _tenant_model(self) -> Any:
        """Return the model of tenants, if rows point to it."""
        if self.tenant_field in ("pk", "id"):
            return self.model
        try:
            last = self._way()[-1]
        except FieldDoesNotExist:
            return None
        return last.model if last.primary_key and not last.is_relation else last.related_model

    def _way(self) -> list[Any]:
        """Return the fields of ``tenant_field``, to the first that leads no further."""
        model, found = self.model, list[Any]()
        for part in self.tenant_field.split(LOOKUP_SEP):
            found.append(model._meta.pk if part == "pk" else model._meta.get_field(part))
            if found[-1].related_model is None:
                break
            model = found[-1].related_model
        return found

    def tenant_path(self, request: HttpRequest) -> str:
        """Return ``tenant_field``."""
        return self.tenant_field

    def get_audit_tenant(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the tenant of *obj*, or of *request*."""
        if obj is not None and type(obj) is self.model and LOOKUP_SEP not in self.tenant_field:
            found = self.opts.pk if self.tenant_field == "pk" else None
            found = found or field_named(self.model, self.tenant_field)
            return getattr(obj, found.attname)
        return self.scope(request).tenant or super().get_audit_tenant(request, obj)

    def get_queryset(self, request: HttpRequest) -> Any:
        """Return the tenant's rows: for lists, actions, single pages, autocomplete, exports."""
        return self.scope(request).filter(super().get_queryset(request), self.tenant_field)

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        """Return the columns; for those who see several tenants, the tenant's too."""
        display = super().get_list_display(request)
        if self.show_tenant_column and self.scope(request).everything:
            column = self._tenant_column()
            display += [column] if column not in display else []
        return display

    def _tenant_column(self) -> str:
        direct = LOOKUP_SEP not in self.tenant_field
        found = field_named(self.model, self.tenant_field) if direct else None
        return "tenant_of_row" if found is None else found.name

    @admin.display(description="tenant")
    def tenant_of_row(self, obj: Any) -> Any:
        """Return the tenant of *obj*, where it is reached by way of other rows."""
        value = obj
        for part in self.tenant_field.split(LOOKUP_SEP):
            value = getattr(value, part, None)
        return value

    def get_list_filter(self, request: HttpRequest) -> list[Any]:
        """Return the filters, whose choices come from the tenant's rows."""
        found = super().get_list_filter(request)
        if self.scope(request).everything:
            return found
        return [scoped_filter(item, self) for item in found]

    def allows(self, request: HttpRequest, name: str, obj: Any = None) -> bool:
        """Return False for rows of other tenants, and for adding rows without a tenant."""
        if not super().allows(request, name, obj):
            return False
        if name == "add":
            return not self.scope(request).nothing
        return obj is None or self.scope(request).owns(obj, self.tenant_field)

    def get_form(self, request: Any, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        """Return the form, narrowed also where the host's own form class declares its fields."""
        form = super().get_form(request, obj, change=change, **kwargs)
        return scoped_form(form, self.scope(request), self.tenant_field)

    def get_changelist_formset(self, request: HttpRequest, **kwargs: Any) -> Any:
        """Return the formset of ``list_editable``, for the tenant's rows."""
        formset = super().get_changelist_formset(request, **kwargs)
        return scoped_formset(formset, self.scope(request), self.tenant_field)

    def get_inlines(self, request: HttpRequest, obj: Any) -> Any:
        """Return the inlines, each narrowed to the tenant, Django's own classes too."""
        return self.scoped_inlines(super().get_inlines(request, obj))

    def scoped_inlines(self, inlines: Sequence[Any]) -> list[Any]:
        """Return a subclass of each of *inlines* that is narrowed to the tenant."""
        for cls in inlines:
            if cls not in self._inlines:
                bases = (cls,) if issubclass(cls, ScopedInline) else (ScopedInline, cls)
                self._inlines[cls] = type(cls.__name__, bases, {"tenant_admin": self})
        return [self._inlines[cls] for cls in inlines]

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Save *obj* as the tenant's, or not at all."""
        self.claim(request, obj)
        super().save_model(request, obj, form, change)

    def claim(self, request: HttpRequest, obj: Any) -> None:
        """Make *obj* the tenant's before it is saved; `PermissionDenied` if it is another's."""
        scope = self.scope(request)
        if scope.everything:
            return
        if not obj._state.adding and not self.get_queryset(request).filter(pk=obj.pk).exists():
            raise PermissionDenied
        scope.assign(obj, self.tenant_field)
        if LOOKUP_SEP in self.tenant_field and not self._reached(request, obj):
            raise PermissionDenied

    def get_import_queryset(self, request: HttpRequest) -> Any:
        """Return the rows that a file may change, with what says whose they are."""
        rows, (*way, _last) = super().get_import_queryset(request), self.tenant_field.split("__")
        return rows.select_related(LOOKUP_SEP.join(way)) if way else rows

    def prepare_new(self, request: HttpRequest, obj: Any) -> None:
        """Make *obj* the tenant's."""
        super().prepare_new(request, obj)
        scope = self.scope(request)
        scope.assign(obj, self.tenant_field)
        if scope.everything or LOOKUP_SEP not in self.tenant_field:
            return
        if not self._reached(request, obj):
            first = self.tenant_field.partition(LOOKUP_SEP)[0]
            raise ValidationError({first: _("there is no such row to choose")})

    def _reached(self, request: HttpRequest, obj: Any) -> bool:
        """Return True if the row by way of which *obj* has its tenant is the tenant's."""
        first, __, rest = self.tenant_field.partition(LOOKUP_SEP)
        parent = getattr(obj, first, None)
        return parent is not None and self.scope(request).owns(parent, rest)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """
        Return what goes along with *objs*. With others' rows among it nothing may be deleted.

        Then nothing is listed either: the list has their names in it.
        """
        refused = self.deletion_refusals(request, objs)
        return ([], {}, refused, []) if refused else super().get_deleted_objects(objs, request)

    def own_rows(self, request: HttpRequest, queryset: Any) -> Any:
        """Return those rows of *queryset* that are the tenant's."""
        path = self.tenant_field if queryset.model is self.model else None
        return self.scope(request).filter(super().own_rows(request, queryset), path)

    def deletion_refusals(self, request: HttpRequest, objs: Any) -> set[str]:
        """Add the reason that others' rows would go along, if they would."""
        found = super().deletion_refusals(request, objs)
        if not self.scope(request).everything and self._touches_others(objs, request):
            found = {*found, _("rows of other tenants")}
        return found

    def _touches_others(self, objs: Any, request: HttpRequest) -> bool:
        scope, objs = self.scope(request), list(objs)
        collector = NestedObjects(using=router.db_for_write(self.model))
        collector.collect(objs)
        found = defaultdict[Any, set[Any]](set)
        for each in (*chain.from_iterable(collector.model_objs.values()), *collector.protected):
            found[type(each)].add(each.pk)
        return not all(_covers(scope, model, keys, self) for model, keys in found.items())

    def check(self, **kwargs: Any) -> list[CheckMessage]:
        """Return Django's checks, and an error if ``tenant_field`` leads nowhere."""
        found = super().check(**kwargs)
        try:
            way = self._way()
            whole = len(way) == len(self.tenant_field.split(LOOKUP_SEP))
            leads = whole or isinstance(way[-1], JSONField)
        except FieldDoesNotExist:
            leads = False
        if leads:
            return [*found, *self._check_autocompletes()]
        message = f"{self.model.__name__} has no field of the tenant_field {self.tenant_field!r}."
        hint = "Set tenant_field to the field, or to a lookup like 'project__tenant_id'."
        return [*found, CheckError(message, hint=hint, obj=type(self), id="automate.E101")]

    def _check_autocompletes(self) -> Iterator[CheckMessage]:
        """Warn of each autocomplete that asks an admin which shows all tenants' rows."""
        scope = self._scope()
        for holder in (self, *(each(self.model, self.admin_site) for each in self.inlines)):
            for name in holder.autocomplete_fields:
                target = holder.model._meta.get_field(name).related_model
                asked = self.admin_site._registry.get(target)
                if asked is None or isinstance(asked, TenantScope) or not scope.is_private(target):
                    continue
                yield CheckWarning(
                    f"autocomplete_fields: {name!r} shows the names of all tenants'"
                    f" {target._meta.verbose_name_plural}, since {type(asked).__name__} does.",
                    hint=f"Make {type(asked).__name__} a TenantScopedAdmin, or leave {name!r} out"
                    " of autocomplete_fields: then it is a select with the tenant's rows.",
                    obj=type(holder),
                    id="automate.W103",
                )


def _covers(scope: Scope, model: Any, keys: set[Any], admin: TenantScope) -> bool:
    """Return True if all rows *keys* of *model* are the tenant's."""
    path = admin.tenant_field if model is admin.model else None
    return all(
        scope.filter(model._base_manager.filter(pk__in=part), path).count() == len(part)
        for part in chunks(list(keys))
    )


class TenantScopedAdmin(TenantScope, Editable, AdminBasics):
    """
    An admin in which a user sees and changes the rows of one tenant.

    ``tenant_field`` names the field, or the lookup, that says whose a row is.
    `get_tenant_for_request` says whose rows a request may see; a user without a tenant sees
    nothing. Superusers see all tenants, with a column for it (``show_tenant_column``), and choose
    the tenant of new rows; ``superusers_see_all = False`` treats them as everybody.
    """
