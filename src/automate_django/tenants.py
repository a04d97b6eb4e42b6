"""Whose request it is: the tenant that a signed-in user works for."""

from __future__ import annotations

from typing import Any

from django.db.models import Model
from django.http import HttpRequest

from automate_django import conf

__all__ = ["OPERATE", "attribute_of", "tenant_for_request", "tenant_key"]

OPERATE = "automate_django.operate_outbox"
"""The permission for what concerns all tenants: kinds, workers, plugins, and everybody's rows."""


def tenant_for_request(request: HttpRequest, field: str = "tenant_id") -> Any:
    """
    The tenant of *request*, as a model instance or a key; None if there is none to be sure of.

    Where ``AUTOMATE_ADMIN["TENANT"]`` names a function, that one says, or the ``tenant_resolver``
    of ``AUTOMATE_OVERRIDES``. Else the attribute *field*
    is looked for (and, for ``tenant_id``, ``tenant``): on the user, then on the request, where a
    middleware may have put it. If both have one, they must agree: a host name or a header that
    says "tenant 2" makes nobody a member of tenant 2.
    """
    named = conf.option("AUTOMATE_ADMIN", "TENANT")
    if named is not None:
        return conf.load(named, "AUTOMATE_ADMIN['TENANT']")(request)
    resolver = conf.replaced("tenant_resolver", tenant_for_request)
    if resolver is not tenant_for_request:
        return resolver(request)
    own = _attribute(getattr(request, "user", None), field)
    given = _attribute(request, field)
    if own is None or given is None:
        return given if own is None else own
    return own if str(tenant_key(own)) == str(tenant_key(given)) else None


def attribute_of(path: str) -> str:
    """
    What the tenant is called on a user or a request, where *path* leads from a row to it.

    ``tenant_id`` for a path that ends at a key (``"pk"``, ``"project__tenant__id"``): a user's own
    key is no tenant's.
    """
    name = path.rpartition("__")[2]
    return "tenant_id" if name in ("pk", "id") else name


def tenant_key(tenant: Any) -> Any:
    """The key of *tenant*, which may be a model instance or a key already."""
    return tenant.pk if isinstance(tenant, Model) else tenant


def _attribute(holder: Any, field: str) -> Any:
    names = [field, field.removesuffix("_id") if field.endswith("_id") else f"{field}_id"]
    for name in names:
        value = getattr(holder, name, None)
        # An empty name is no tenant. Zero is a key like any other.
        if value is not None and value != "":
            return value
    return None
