"""Tenants and operators: on whose behalf a request acts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.db.models import Model
from django.http import HttpRequest

from automate_django import conf

if TYPE_CHECKING:
    from automate_django.models import ApiToken

__all__ = [
    "OPERATE",
    "Person",
    "Principal",
    "attribute_of",
    "person_of",
    "principal_of",
    "tenant_for_request",
    "tenant_key",
    "tenant_of",
    "token_of",
]

OPERATE = "automate_django.operate_outbox"
"""The permission for what concerns all tenants: kinds, workers, plugins, and everybody's rows."""


def tenant_for_request(request: HttpRequest, field: str = "tenant_id") -> Any:
    """
    Return the tenant of *request*, as a model instance or a key; None if it is not certain.

    The function that ``AUTOMATE_ADMIN["TENANT"]`` names decides, else the ``tenant_resolver`` of
    ``AUTOMATE_OVERRIDES``. Without either the attribute *field* (and, for ``tenant_id``,
    ``tenant``) is read: from the user, then from the request, where a middleware may have put it.
    If both have one, they must agree: a host name or a header that says "tenant 2" makes nobody a
    member of tenant 2.
    """
    named = conf.loaded("AUTOMATE_ADMIN", "TENANT")
    if named is not None:
        return named(request)
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
    Return the tenant's attribute on a user or a request, where *path* leads from a row to it.

    ``tenant_id`` for a path that ends at a key (``"pk"``, ``"project__tenant__id"``): a user's own
    key is no tenant's.
    """
    name = path.rpartition("__")[2]
    return "tenant_id" if name in ("pk", "id") else name


def tenant_key(tenant: Any) -> Any:
    """Return the key of *tenant*, which may be a model instance or a key already."""
    return tenant.pk if isinstance(tenant, Model) else tenant


def _attribute(holder: Any, field: str) -> Any:
    names = [field, field.removesuffix("_id") if field.endswith("_id") else f"{field}_id"]
    for name in names:
        value = getattr(holder, name, None)
        # An empty name is no tenant. Zero is a key like any other.
        if value is not None and value != "":
            return value
    return None


# -- requests of the API -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Principal:
    """The author of a request: an *operator* sees all rows, others those of *tenant_id*."""

    tenant_id: str | None = None
    operator: bool = False

    @property
    def nobody(self) -> bool:
        """True if it may see nothing."""
        return not self.operator and self.tenant_id is None


@dataclass(frozen=True, slots=True)
class Person:
    """A user's name, and the names of the groups as *roles*."""

    name: str
    roles: tuple[str, ...] = ()


def person_of(request: Any) -> Person:
    """Return the author of *request*; a service is called ``token:`` and its token's name."""
    token, user = token_of(request), request.user
    if token is not None and token.user_id is None:
        return Person(f"token:{token.name}"[:200])
    groups = getattr(user, "groups", None)  # a project's own users may have none
    names = () if groups is None else tuple(groups.values_list("name", flat=True))
    return Person(user.get_username(), names)


def tenant_of(request: Any, field: str = "tenant_id") -> Any:
    """
    Return the key of the tenant that *request* works for, or None.

    The tenant of its token comes first, then the result of the function ``AUTOMATE_API["TENANT"]``,
    then that of `tenant_for_request` with *field*. A service's token has its own tenant or none: no
    host name or header of the request can lend it one.
    """
    token = token_of(request)
    if token is not None and (token.tenant_id or token.user_id is None):
        return token.tenant_id or None
    named = conf.loaded("AUTOMATE_API", "TENANT")
    key = tenant_key(tenant_for_request(request, field) if named is None else named(request))
    return None if key == "" else key


def principal_of(request: Any) -> Principal:
    """
    Return the author of *request*, as far as the automation itself is concerned.

    A token's tenant binds it, whoever its user is. A token without a tenant is an operator's if it
    was made for all tenants, and if its user, when it has a user, may operate.
    """
    token, user = token_of(request), request.user
    operates = _operates(user)
    if token is not None:
        if token.tenant_id:
            return Principal(token.tenant_id)
        if token.all_tenants:
            return Principal(operator=token.user_id is None or operates)
    elif operates:
        return Principal(operator=True)
    tenant = tenant_of(request)
    return Principal(None if tenant is None else str(tenant))


def token_of(request: Any) -> ApiToken | None:
    """Return the token of ours that *request* came with, or None."""
    # Models can't be imported before the apps are loaded, and this module can.
    from automate_django.models import ApiToken

    token = getattr(request, "auth", None)
    return token if isinstance(token, ApiToken) else None


def _operates(user: Any) -> bool:
    staff = getattr(user, "is_active", False) and getattr(user, "is_staff", False)
    return bool(staff and user.has_perm(OPERATE))
