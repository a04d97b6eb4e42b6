"""Whose rows a user sees, and what a user may do with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest

from automate_django.tenants import OPERATE, tenant_for_request, tenant_key

__all__ = ["Reach", "reach_of", "require_operator"]


@dataclass(frozen=True, slots=True)
class Reach:
    """
    Whose rows a user sees: those of all tenants, or of one.

    Neither *everyone* nor a *tenant*: none at all. A user who was forgotten in the set-up sees too
    little, never too much.
    """

    everyone: bool = False
    tenant: str | None = None

    @property
    def nothing(self) -> bool:
        """Whether the user sees no row."""
        return not self.everyone and self.tenant is None

    def filter(self, queryset: Any, field: str = "tenant_id") -> Any:
        """*queryset* without the rows of others."""
        if self.everyone:
            return queryset
        if self.tenant is None:
            return queryset.none()
        return queryset.filter(**{field: self.tenant})

    def covers(self, tenant_id: str | None) -> bool:
        """Whether a row of *tenant_id* is seen."""
        return self.everyone or (self.tenant is not None and tenant_id == self.tenant)


def reach_of(request: HttpRequest) -> Reach:
    """What the user of *request* may see of the tables that have a ``tenant_id``."""
    user: Any = request.user
    if user.has_perm(OPERATE):
        return Reach(everyone=True)
    tenant = tenant_key(tenant_for_request(request))
    return Reach(tenant=None if tenant is None else str(tenant))


def require_operator(request: HttpRequest) -> None:
    """Raise `PermissionDenied` unless the user may do what concerns all tenants."""
    if not request.user.has_perm(OPERATE):
        raise PermissionDenied
