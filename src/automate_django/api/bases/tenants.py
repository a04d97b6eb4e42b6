"""Rows of one tenant: read, written, named and counted as if there were no others."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from django.core.exceptions import FieldDoesNotExist, ImproperlyConfigured, ValidationError
from django.db.models import Model
from django.http import Http404
from rest_framework.exceptions import NotAuthenticated, PermissionDenied

from automate_django.api.bases.placed import Placed
from automate_django.api.bases.tenant_filters import scoped_backend
from automate_django.api.bases.tenant_serializers import Stamp, bind_to_tenant, describe_tenant
from automate_django.api.principals import tenant_of
from automate_django.tenants import attribute_of

__all__ = ["TenantFilterMixin", "Tenants"]

_NO_TENANT = "You belong to no tenant."


class Tenants(Placed):
    """The behaviour of `TenantFilterMixin`, asleep without ``tenant_filtered``."""

    tenant_filtered = False
    tenant_field: str = "tenant_id"
    tenant_related: Mapping[str, str | None] = MappingProxyType({})
    _tenant: Any = None

    def initial(self, request: Any, *args: Any, **kwargs: Any) -> None:
        """Turn away who has no tenant, whatever the view would do."""
        super().initial(request, *args, **kwargs)
        if self.tenant_filtered:
            self.get_tenant_id()
            # On the instance, so that it is so for those that a subclass names, and in the form
            # of the browsable API too.
            backends = [scoped_backend(each) for each in getattr(self, "filter_backends", ())]
            vars(self)["filter_backends"] = backends

    def get_tenant_id(self) -> Any:
        """The tenant of the request; raises `PermissionDenied` if it has none."""
        if self._tenant is None:
            self._tenant = tenant_of(self.request, attribute_of(self.tenant_field))
        if self._tenant is None:
            if not getattr(self.request.user, "is_authenticated", False):
                raise NotAuthenticated
            raise PermissionDenied(_NO_TENANT)
        return self._tenant

    def filter_by_tenant(self, queryset: Any, lookup: str | None = None) -> Any:
        """*queryset* without the rows of others; *lookup* leads from its model to the tenant."""
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
        """The rows of the tenant."""
        queryset = super().get_queryset()  # type: ignore[misc]
        return self.filter_by_tenant(queryset) if self.tenant_filtered else queryset

    def filter_queryset(self, queryset: Any) -> Any:
        """Once more for a view that has its own `get_queryset`, in which it may be forgotten."""
        if self.tenant_filtered and type(self).get_queryset is not Tenants.get_queryset:
            queryset = self.filter_by_tenant(queryset)
        return super().filter_queryset(queryset)  # type: ignore[misc]

    def check_object_permissions(self, request: Any, obj: Any) -> None:
        """Not even a view that finds its object by itself gets another's."""
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
        """A serializer that reads, names and writes rows of the tenant alone."""
        serializer = super().get_serializer(*args, **kwargs)  # type: ignore[misc]
        if self.tenant_filtered and getattr(self, "swagger_fake_view", False):
            describe_tenant(serializer, self.tenant_field)
        elif self.tenant_filtered:
            bind_to_tenant(serializer, self._stamp(serializer), self.limit_related)
        return serializer

    def limit_related(self, name: str, queryset: Any) -> Any:
        """
        The rows of *queryset* that the serializer's field *name* may name.

        *tenant_related* says how they belong to a tenant: ``{"author": "profile__tenant_id"}``, or
        None for rows that are everybody's. A model with the same *tenant_field*, and the tenant's
        own, need no entry. Raises `ImproperlyConfigured` for any other.
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

    def _stamp(self, serializer: Any) -> Stamp:
        """How rows that *serializer* saves get their tenant."""
        meta = getattr(getattr(serializer, "child", serializer), "Meta", None)
        model = getattr(meta, "model", None) or self.get_queryset().model
        tenant, (first, _, rest) = self.get_tenant_id(), self.tenant_field.partition("__")
        try:
            field = _field(model, first)
        except FieldDoesNotExist:
            return Stamp(tenant)  # rows of another kind, which say in no way whose they are
        if rest:
            return Stamp(tenant, through=first)
        if field.primary_key:
            return Stamp(tenant, makes_none=True)  # the tenants themselves
        try:
            tenant = field.to_python(tenant)
        except ValidationError:
            raise PermissionDenied(_NO_TENANT) from None
        return Stamp(tenant, frozenset({field.name, field.attname}), field.attname)

    def _own_lookup(self, model: Any) -> str:
        """*tenant_field*, if *model* has it; raises `ImproperlyConfigured`."""
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
        """What is left of the way to the tenant from *model*, if this view's rows lead there."""
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


def _field(model: Any, name: str) -> Any:
    """The field *name* of *model*; raises `FieldDoesNotExist`."""
    return model._meta.pk if name == "pk" else model._meta.get_field(name)


class TenantFilterMixin(Tenants):
    """
    Rows of the request's tenant, and nothing of others; without a tenant 403.

    *tenant_field* names the model's field, or the way to it (``"project__tenant_id"``); for the
    model of tenants itself ``"pk"``. What is
    created gets the tenant, what is sent as tenant is refused, and related fields can name and
    show rows of the tenant alone.
    """

    tenant_filtered = True
