"""The rows of each model that belong to the tenant of a request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.exceptions import FieldDoesNotExist, ValidationError
from django.db.models.constants import LOOKUP_SEP

from automate_django.tenants import tenant_key


@dataclass(frozen=True, slots=True)
class Scope:
    """
    The rows that a request may see.

    Either *everything*, or the rows of *tenant*; with neither, nothing at all. *name* is the name
    of the tenant's field. *paths* are lookups from models to it, by label.
    """

    name: str = "tenant_id"
    tenant: Any = None
    everything: bool = False
    user_id: Any = None
    tenant_model: Any = None
    paths: Mapping[str, str] = field(default_factory=dict)

    @property
    def nothing(self) -> bool:
        """True if no row may be seen."""
        return not self.everything and self.tenant is None

    def path(self, model: Any) -> str | None:
        """Return the lookup from *model* to the tenant; None if it belongs to nobody."""
        given = self.paths.get(model._meta.label_lower)
        return given or path_to_tenant(model, self.name, self.tenant_model)

    def is_private(self, model: Any) -> bool:
        """Return True if the names of *model*'s rows are a tenant's own, as users' always are."""
        return self.path(model) is not None or _is_user(model)

    def filter(self, queryset: Any, path: str | None = None) -> Any:
        """Return *queryset* without other tenants' rows; unchanged if its rows are nobody's."""
        if self.everything:
            return queryset
        path = path or self.path(queryset.model)
        if path is None:
            # Who works for whom is not known, and names of others must not show.
            return queryset.filter(pk=self.user_id) if _is_user(queryset.model) else queryset
        if self.nothing:
            return queryset.none()
        return queryset.filter(**{path: tenant_key(self.tenant)})

    def owns(self, obj: Any, path: str | None = None) -> bool:
        """Return True if *obj*, as it is in memory, belongs to the tenant, or to nobody."""
        if self.everything:
            return True
        path = path or self.path(type(obj))
        if path is None:
            return True
        *relations, last = path.split(LOOKUP_SEP)
        if not _in_memory(obj, relations):
            rows = type(obj)._base_manager.using(obj._state.db).filter(pk=obj.pk)
            return bool(self.filter(rows, path).exists())
        for relation in relations:
            obj = getattr(obj, relation)
        if obj is None:
            return False
        found: Any = obj._meta.pk if last == "pk" else obj._meta.get_field(last)
        return _same(found, getattr(obj, found.attname), tenant_key(self.tenant))

    def assign(self, obj: Any, path: str | None = None) -> None:
        """Make *obj* the tenant's, where the model has a field for that."""
        path = path or self.path(type(obj))
        if self.everything or self.nothing or path is None or LOOKUP_SEP in path:
            return
        found = field_named(type(obj), path)
        if found is not None and not found.primary_key:
            setattr(obj, found.attname, tenant_key(self.tenant))


def _in_memory(obj: Any, relations: list[str]) -> bool:
    """Return True if all of *relations* from *obj* are there already, by ``select_related``."""
    for relation in relations:
        found = obj._meta.get_field(relation)
        if not found.many_to_one or not found.is_cached(obj):
            return False
        obj = getattr(obj, relation)
        if obj is None:
            return relation == relations[-1]
    return True


def _same(found: Any, one: Any, other: Any) -> bool:
    """Return True if two keys for the field *found* are one: a UUID is written in several ways."""
    target = found.target_field if found.remote_field else found
    try:
        return bool(one is not None and target.to_python(one) == target.to_python(other))
    except ValidationError:
        return False


def field_named(model: Any, name: str) -> Any:
    """Return the concrete field *name* (``tenant``, ``tenant_id``) of *model*, if it has one."""
    bare = name.removesuffix("_id")
    for each in dict.fromkeys((name, bare, f"{bare}_id")):
        try:
            found = model._meta.get_field(each)
        except FieldDoesNotExist:
            continue
        if found.concrete and not found.many_to_many:
            return found
    return None


@lru_cache(maxsize=1024)
def path_to_tenant(model: Any, name: str, tenant_model: Any) -> str | None:
    """
    Return the lookup by which a row of *model* belongs to a tenant.

    The tenant itself; a field called *name*; a foreign key to the tenant's model; a required
    foreign key to a model that has such a field. The user's model leads nowhere by itself: who
    wrote a row is not whose it is.
    """
    if model is tenant_model:
        return "pk"
    direct = _direct(model, name, tenant_model)
    if direct is not None or _is_user(model):
        return direct
    for each in model._meta.concrete_fields:
        target = each.remote_field.model if each.remote_field and not each.null else None
        further = _direct(target, name, tenant_model) if target and not _is_user(target) else None
        if further is not None:
            return f"{each.name}{LOOKUP_SEP}{further}"
    return None


def _direct(model: Any, name: str, tenant_model: Any) -> str | None:
    found = field_named(model, name)
    if found is not None:
        return str(found.name)
    related = (each for each in model._meta.concrete_fields if each.remote_field)
    to_tenant = (str(each.name) for each in related if each.related_model is tenant_model)
    return next(to_tenant, None) if tenant_model is not None else None


def _is_user(model: Any) -> bool:
    return model is apps.get_model(settings.AUTH_USER_MODEL)
