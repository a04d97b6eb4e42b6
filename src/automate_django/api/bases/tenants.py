"""
Rows of one tenant: read, written, named and counted as if there were no others.

A serializer is bound to the tenant after the view has made it. So this works for serializers of any
kind: with declared fields and with generated ones, for lists and for nested serializers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from django.core.exceptions import FieldDoesNotExist, ImproperlyConfigured, ValidationError
from django.db import router, transaction
from django.db.models import Model, UniqueConstraint
from django.http import Http404
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, NotAuthenticated, PermissionDenied
from rest_framework.relations import ManyRelatedField, RelatedField
from rest_framework.settings import api_settings
from rest_framework.validators import UniqueTogetherValidator, UniqueValidator

from automate_django.api.bases.access import MixinOrderGuard
from automate_django.tenants import attribute_of, tenant_of
from automate_django.uniqueness import constraints_of, is_broken, key_of, names_of

_NO_TENANT = "You belong to no tenant."
_REFUSED = "This is set by the service, and can't be another one."
_NO_NEW = "A tenant can't make another one."
_NEEDED = "This is needed: it says whose the row is."


class Tenants(MixinOrderGuard):
    """The behaviour of `TenantFilterMixin`, asleep without ``tenant_filtered``."""

    tenant_filtered = False
    tenant_field: str = "tenant_id"
    tenant_related: Mapping[str, str | None] = MappingProxyType({})
    _tenant: Any = None

    def initial(self, request: Any, *args: Any, **kwargs: Any) -> None:
        """Turn away a request without a tenant, whatever the view would do."""
        super().initial(request, *args, **kwargs)
        if self.tenant_filtered:
            self.get_tenant_id()
            # On the instance: so it holds for backends that a subclass names, and in the form of
            # the browsable API too.
            backends = [_scoped_backend(each) for each in getattr(self, "filter_backends", ())]
            vars(self)["filter_backends"] = backends

    def get_tenant_id(self) -> Any:
        """Return the tenant of the request; raises `PermissionDenied` if it has none."""
        if self._tenant is None:
            self._tenant = tenant_of(self.request, attribute_of(self.tenant_field))
        if self._tenant is None:
            if not getattr(self.request.user, "is_authenticated", False):
                raise NotAuthenticated
            raise PermissionDenied(_NO_TENANT)
        return self._tenant

    def filter_by_tenant(self, queryset: Any, lookup: str | None = None) -> Any:
        """Return *queryset* without others' rows; *lookup* leads from its model to the tenant."""
        if getattr(self, "swagger_fake_view", False):
            return queryset.none()  # a schema is being made, for nobody
        name, tenant = lookup or self._own_lookup(queryset.model), self.get_tenant_id()
        try:
            return queryset.filter(**{name: tenant})
        except (ValueError, TypeError, ValidationError):
            # The tenant is no value of this field, so that nothing here can be its.
            raise PermissionDenied(_NO_TENANT) from None

    # -- reading -----------------------------------------------------------------------------

    def get_queryset(self) -> Any:
        """Return the rows of the tenant."""
        queryset = super().get_queryset()  # type: ignore[misc]
        return self.filter_by_tenant(queryset) if self.tenant_filtered else queryset

    def filter_queryset(self, queryset: Any) -> Any:
        """Filter again where the view has its own `get_queryset`, which may forget the tenant."""
        if self.tenant_filtered and type(self).get_queryset is not Tenants.get_queryset:
            queryset = self.filter_by_tenant(queryset)
        return super().filter_queryset(queryset)  # type: ignore[misc]

    def check_object_permissions(self, request: Any, obj: Any) -> None:
        """Hide another tenant's object even from a view that finds it by itself."""
        if self.tenant_filtered and isinstance(obj, Model) and not self._is_ours(obj):
            raise Http404
        super().check_object_permissions(request, obj)

    def _is_ours(self, obj: Model) -> bool:
        try:
            lookup = self._own_lookup(type(obj))
        except ImproperlyConfigured:
            return True  # of another kind, which this view is not about
        if "__" in lookup:
            its = type(obj)._base_manager.filter(pk=obj.pk)
            return bool(self.filter_by_tenant(its, lookup).exists())
        attribute = _field(type(obj), lookup).attname
        return str(getattr(obj, attribute)) == str(self.get_tenant_id())

    # -- writing -----------------------------------------------------------------------------

    def get_serializer(self, *args: Any, **kwargs: Any) -> Any:
        """Return a serializer that reads, names and writes rows of the tenant alone."""
        serializer = super().get_serializer(*args, **kwargs)  # type: ignore[misc]
        if self.tenant_filtered and getattr(self, "swagger_fake_view", False):
            _describe(serializer, self.tenant_field)
        elif self.tenant_filtered:
            _bind(serializer, self._stamp(serializer), self.limit_related)
        return serializer

    def limit_related(self, name: str, queryset: Any) -> Any:
        """
        Return the rows of *queryset* that the serializer's field *name* may name.

        *tenant_related* has their lookup to a tenant: ``{"author": "profile__tenant_id"}``, or None
        for rows that are everybody's. A model with the same *tenant_field*, and the model of
        tenants itself, need no entry. Raises `ImproperlyConfigured` for any other model.
        """
        if name in self.tenant_related:
            lookup = self.tenant_related[name]
            return queryset if lookup is None else self.filter_by_tenant(queryset, lookup)
        model = queryset.model
        way = self._way_from(model)
        if way is not None:
            return self.filter_by_tenant(queryset, way)
        try:
            return self.filter_by_tenant(queryset)
        except ImproperlyConfigured:
            raise ImproperlyConfigured(
                f"{type(self).__name__}: whose are the {model._meta.verbose_name_plural} that the"
                f" field {name!r} can name? Say how they belong to a tenant, or that they are"
                f" everybody's: tenant_related = {{{name!r}: 'path__to__tenant_id' or None}}"
            ) from None

    def _stamp(self, serializer: Any) -> _Stamp:
        """Return the mark that *serializer* writes into the rows that it saves."""
        model = _model_of(serializer) or self.get_queryset().model
        tenant, (first, _, rest) = self.get_tenant_id(), self.tenant_field.partition("__")
        try:
            field = _field(model, first)
        except FieldDoesNotExist:
            return _Stamp(tenant)  # rows of another kind, which say in no way whose they are
        if rest:
            return _Stamp(tenant, through=first)
        if field.primary_key:
            return _Stamp(tenant, makes_none=True)  # the tenants themselves
        try:
            tenant = field.to_python(tenant)
        except ValidationError:
            raise PermissionDenied(_NO_TENANT) from None
        return _Stamp(tenant, frozenset({field.name, field.attname}), field.attname)

    def _own_lookup(self, model: Any) -> str:
        """Return *tenant_field* if *model* has it; raises `ImproperlyConfigured`."""
        first = self.tenant_field.partition("__")[0]
        try:
            _field(model, first)
        except FieldDoesNotExist:
            raise ImproperlyConfigured(
                f"{type(self).__name__}: {model.__name__} has no field {first!r};"
                " set tenant_field to the one that says whose a row is"
            ) from None
        return self.tenant_field

    def _way_from(self, model: Any) -> str | None:
        """Return the lookup from *model* to the tenant, if it is on the way of *tenant_field*."""
        own, steps = self.get_queryset().model, self.tenant_field.split("__")
        for done, name in enumerate(steps, 1):
            try:
                own = _field(own, name).related_model
            except FieldDoesNotExist:
                return None
            if own is None:
                return None
            if own is model:
                return "__".join(steps[done:]) or "pk"
        return None


class TenantFilterMixin(Tenants):
    """
    Rows of the request's tenant, and nothing of others; without a tenant 403.

    *tenant_field* names the model's field, or the lookup to it (``"project__tenant_id"``); for the
    model of tenants itself ``"pk"``. New rows get the tenant, another tenant in the body is
    refused, and related fields can name and show rows of the tenant alone.
    """

    tenant_filtered = True


def _field(model: Any, name: str) -> Any:
    """Return the field *name* of *model*; raises `FieldDoesNotExist`."""
    return model._meta.pk if name == "pk" else model._meta.get_field(name)


# -- filters -----------------------------------------------------------------------------------


@lru_cache(maxsize=128)
def _scoped_backend(backend: Any) -> Any:
    """Return *backend*, or a subclass that limits the rows which django-filter's filters offer."""
    if not hasattr(backend, "get_filterset"):
        return backend
    return type(backend.__name__, (_ScopedFilters, backend), {})


class _ScopedFilters:
    def get_filterset(self, request: Any, queryset: Any, view: Any) -> Any:
        filterset = super().get_filterset(request, queryset, view)  # type: ignore[misc]
        if filterset is not None:
            _limit_choices(filterset, view)
        return filterset


def _limit_choices(filterset: Any, view: Any) -> None:
    """Leave the tenant's rows in the choices, which also bound the values of a parameter."""
    from django_filters.filters import AllValuesFilter, AllValuesMultipleFilter

    for name, each in filterset.filters.items():
        if not isinstance(each, (AllValuesFilter, AllValuesMultipleFilter)):
            continue
        rows = view.filter_by_tenant(each.model._default_manager.all())
        values = rows.order_by(each.field_name).values_list(each.field_name, flat=True).distinct()
        # Django-filter itself has read them from the whole table.
        filterset.form.fields[name].choices = [(value, value) for value in values]
    for name, field in filterset.form.fields.items():
        rows = getattr(field, "queryset", None)
        if rows is not None:
            source = getattr(filterset.filters.get(name), "field_name", name)
            related = name if name in view.tenant_related else source
            field.queryset = view.limit_related(related, rows)


# -- serializers -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Stamp:
    """
    The mark of a tenant in the rows that are written.

    *names* are the possible names of the field, *attribute* holds the *tenant* on the row. Without
    *attribute* a row belongs to the tenant of the field *through*, which must then be given. With
    *makes_none* the rows are the tenants themselves: a request changes its own, and makes no other.
    """

    tenant: Any
    names: frozenset[str] = frozenset()
    attribute: str | None = None
    through: str | None = None
    makes_none: bool = False


def _bind(serializer: Any, stamp: _Stamp, limit: Callable[[str, Any], Any]) -> None:
    """
    Have *serializer* read and write rows of one tenant alone.

    The tenant's field becomes read-only, is filled in when a row is saved, and can't be given
    another value. *limit* takes a related field's name and its queryset, and returns the rows that
    may be named.
    """
    child = _row_of(serializer)
    inside = list(_serializers(child))
    for each in inside:
        for field in each.fields.values():
            _limit_related(field, limit)
    _refuse_another(serializer, child, stamp)
    for each in inside:
        for field in _own_fields(each, stamp).values():
            field.read_only, field.required = True, False
            # For validators of several fields at once, which look for it among what is valid.
            field.default = stamp.tenant
    if hasattr(serializer, "save"):
        if stamp.attribute is not None:
            _check_unique(serializer, stamp.attribute, stamp.tenant)
        _stamp_at_save(serializer, stamp)


def _describe(serializer: Any, path: str) -> None:
    """Mark in *serializer*, for a schema, the fields that `_bind` would make read-only."""
    names = frozenset({path, path.removesuffix("_id"), f"{path}_id"})
    for each in _serializers(_row_of(serializer)):
        for field in _own_fields(each, _Stamp(None, names)).values():
            field.read_only, field.required = True, False


def _serializers(serializer: Any) -> Iterator[Any]:
    """Yield *serializer* and the serializers in it."""
    if not hasattr(serializer, "fields"):
        return
    yield serializer
    for field in serializer.fields.values():
        inner = _row_of(field)
        if isinstance(inner, serializers.BaseSerializer):
            yield from _serializers(inner)


def _own_fields(serializer: Any, stamp: _Stamp) -> dict[str, Any]:
    """Return the fields of *serializer* that hold the tenant, by name."""
    return {
        name: field
        for name, field in getattr(serializer, "fields", {}).items()
        if field.source in stamp.names and not isinstance(field, serializers.HiddenField)
    }


def _limit_related(field: Any, limit: Callable[[str, Any], Any]) -> None:
    name = field.field_name
    related = field.child_relation if isinstance(field, ManyRelatedField) else field
    if not isinstance(related, RelatedField) or field.read_only:
        return
    # On the instance, around whatever its class does: choices in a form, and looking one up.
    unlimited = related.get_queryset
    related.get_queryset = lambda: limit(name, unlimited())  # type: ignore[method-assign]


def _refuse_another(serializer: Any, child: Any, stamp: _Stamp) -> None:
    given = getattr(serializer, "initial_data", None)
    own = _own_fields(child, stamp)
    for row in given if isinstance(given, list) else [given]:
        if not isinstance(row, Mapping):
            continue  # for the serializer to refuse
        wrong = {
            name: [_REFUSED]
            for name, field in own.items()
            if not field.read_only and name in row and not _same(field, row[name], stamp.tenant)
        }
        if wrong:
            raise serializers.ValidationError(wrong)


def _same(field: Any, value: Any, tenant: Any) -> bool:
    """Return True if *value* names *tenant*: a client may send back the row that it has read."""
    try:
        internal = field.to_internal_value(value)
    except Exception:
        return False
    return str(getattr(internal, "pk", internal)) == str(tenant)


def _stamp_at_save(serializer: Any, stamp: _Stamp) -> None:
    save = serializer.save

    def save_for_tenant(**values: Any) -> Any:
        if stamp.makes_none and serializer.instance is None:
            raise PermissionDenied(_NO_NEW)
        valid = serializer.validated_data
        rows = valid if isinstance(valid, list) else [valid]
        if stamp.through is not None:
            _check_through(serializer, rows, stamp.through, values)
        if stamp.attribute is not None:
            # Last: neither what was sent nor what a view passes on decides whose row it is.
            for row in [*rows, values]:
                for name in stamp.names:
                    row.pop(name, None)
            values[stamp.attribute] = stamp.tenant
        model = _model_of(serializer)
        # All or nothing: what the database refuses of the last of many leaves none of them.
        with transaction.atomic(using=model and router.db_for_write(model)):
            return save(**values)

    serializer.save = save_for_tenant


def _check_through(serializer: Any, rows: list[Any], name: str, values: Mapping[str, Any]) -> None:
    for row in rows:
        given = {**row, **values}
        if given.get(name) is None and (name in given or serializer.instance is None):
            raise serializers.ValidationError({name: [_NEEDED]})


def _model_of(serializer: Any) -> Any:
    """Return the model of *serializer*, or of the one in it; None without one."""
    return getattr(getattr(_row_of(serializer), "Meta", None), "model", None)


def _row_of(serializer: Any) -> Any:
    """Return the serializer of one row: *serializer* itself, or that of a list."""
    return getattr(serializer, "child", serializer)


# -- uniqueness --------------------------------------------------------------------------------


def _check_unique(serializer: Any, attribute: str, tenant: Any) -> None:
    """
    Have *serializer* refuse unique values of another row of *tenant*, as an error at the field.

    REST framework skips a constraint if one of its fields is not among the serializer's, and the
    tenant never is. *attribute* of the row holds the tenant. Rows of a list are checked against
    each other too. REST framework's own checks come first, so that no error is reported twice.
    """
    child, model = _row_of(serializer), _model_of(serializer)
    if model is None:
        return
    check = _UniqueCheck(child, model, model._meta.get_field(attribute), tenant)
    if check.constraints:
        _validate_further(child, check.row)
        if child is not serializer:
            _validate_further(serializer, check.among_themselves)


def _validate_further(serializer: Any, check: Callable[[Any], None]) -> None:
    validate = serializer.validate

    def validate_further(values: Any) -> Any:
        valid = validate(values)
        check(valid)
        return valid

    serializer.validate = validate_further


@dataclass
class _UniqueCheck:
    serializer: Any
    model: Any
    owner: Any
    tenant: Any
    rows: list[Any] = dataclass_field(default_factory=list)
    constraints: list[tuple[Any, UniqueConstraint]] = dataclass_field(init=False)

    def __post_init__(self) -> None:
        self.constraints = [
            (model, constraint)
            for model, constraint in constraints_of(self.model, [self.owner.name])
            if self.owner.name in names_of(constraint)
        ]

    def row(self, values: Any) -> None:
        """Refuse *values* if another row has them."""
        instance = self.serializer.instance
        there = instance if isinstance(instance, Model) else None
        obj = self.model() if there is None else copy(there)
        given = set(self._fill(obj, values))
        using = router.db_for_write(self.model)
        for model, constraint in self._due(given, adding=there is None):
            if is_broken(obj, model, constraint, using):
                raise serializers.ValidationError(self._error(constraint))
        self.rows.append(obj)

    def among_themselves(self, values: Any) -> None:
        """Refuse the rows that repeat the values of a row before them."""
        found: list[dict[str, Any]] = [{} for _ in self.rows]
        for _model, constraint in self.constraints:
            seen = set()
            for index, obj in enumerate(self.rows):
                key = key_of(obj, constraint)
                if key is not None and key in seen:
                    found[index] = self._error(constraint)
                seen.add(key)
        if any(found):
            raise serializers.ValidationError(found)

    def _fill(self, obj: Any, values: Mapping[str, Any]) -> Iterator[str]:
        """Set *values* and the tenant on *obj*, and yield the names of the fields."""
        fields = {each.name: each for each in self.model._meta.concrete_fields}
        fields.update({each.attname: each for each in fields.values()})
        for name, value in values.items():
            found = fields.get(name)
            row = isinstance(value, (Model, type(None)))
            # Else it is unknown, or a row that is made with this one.
            if found and (row or not found.is_relation or name != found.name):
                setattr(obj, name, value)
                yield found.name
        setattr(obj, self.owner.attname, self.tenant)

    def _due(self, given: set[str], *, adding: bool) -> Iterator[tuple[Any, UniqueConstraint]]:
        """Yield the constraints whose values are known before the row is saved."""
        written = {each.source for each in self.serializer.fields.values() if not each.read_only}
        for model, constraint in self.constraints:
            names = names_of(constraint) - {self.owner.name}
            # The view fills in some fields at the end: their values are not known yet.
            if names <= written | given if adding else names & given:
                yield model, constraint

    def _error(self, constraint: UniqueConstraint) -> dict[str, Any]:
        names = names_of(constraint) - {self.owner.name}
        shown = {each.source: name for name, each in self.serializer.fields.items()}
        named = [shown[name] for name in sorted(names) if name in shown]
        own = getattr(constraint, "violation_error_message", None)
        text = own if own != constraint.default_violation_error_message else None
        where = named[0] if len(names) == 1 and named else api_settings.NON_FIELD_ERRORS_KEY
        if text is None and where in named:
            text = str(UniqueValidator.message)
        elif text is None and named:
            text = str(UniqueTogetherValidator.message).format(field_names=", ".join(named))
        return {where: [ErrorDetail(text or "There is one already.", "unique")]}
