"""Whose request it is: one tenant's, an operator's, or nobody's who may see anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from automate_django import conf
from automate_django.api.options import SETTING, option
from automate_django.models import ApiToken
from automate_django.tenants import OPERATE, tenant_for_request, tenant_key

__all__ = ["Principal", "principal_of", "tenant_of"]


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: *operator* sees the rows of all tenants, anybody else those of *tenant_id*."""

    tenant_id: str | None = None
    operator: bool = False

    @property
    def nobody(self) -> bool:
        """Whether there is nothing that it may see."""
        return not self.operator and self.tenant_id is None


def tenant_of(request: Any, field: str = "tenant_id") -> Any:
    """
    The key of the tenant that *request* works for, or None.

    That of its token; else what the function ``AUTOMATE_API["TENANT"]`` says; else what
    `automate_django.tenants.tenant_for_request` finds under *field* on its user. A service's token
    has its own or none: no host name or header of the request can lend it one.
    """
    token = getattr(request, "auth", None)
    if isinstance(token, ApiToken) and (token.tenant_id or token.user_id is None):
        return token.tenant_id or None
    path = option("TENANT")
    if path is None:
        found = tenant_for_request(request, field)
    else:
        found = conf.load(path, f"{SETTING}['TENANT']")(request)
    key = tenant_key(found)
    return None if key == "" else key


def principal_of(request: Any) -> Principal:
    """
    Who *request* comes from, as far as the automation itself is concerned.

    A token's tenant binds it, whoever its user is. A token without a tenant is an operator's if it
    was made for all tenants, and if its user, when it has one, may operate.
    """
    token, user = request.auth, request.user
    operates = _operates(user)
    if isinstance(token, ApiToken):
        if token.tenant_id:
            return Principal(token.tenant_id)
        if token.all_tenants:
            return Principal(operator=token.user_id is None or operates)
        operates = False
    if operates:
        return Principal(operator=True)
    tenant = tenant_of(request)
    return Principal(None if tenant is None else str(tenant))


def _operates(user: Any) -> bool:
    staff = getattr(user, "is_active", False) and getattr(user, "is_staff", False)
    return bool(staff and user.has_perm(OPERATE))
