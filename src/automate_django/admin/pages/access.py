"""The rows that a user of the admin sees: those of all tenants, of one, or none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest

from automate_django.kernel import get_kernel
from automate_django.tenants import OPERATE, tenant_for_request, tenant_key


@dataclass(frozen=True, slots=True)
class Reach:
    """
    The rows that a user sees: those of all tenants, or of one.

    Neither *everyone* nor a *tenant*: none at all. A user who was forgotten in the set-up sees too
    little, never too much.
    """

    everyone: bool = False
    tenant: str | None = None

    @property
    def nothing(self) -> bool:
        """True if the user sees no row."""
        return not self.everyone and not self.tenant

    def rows(self, model: Any) -> Any:
        """Return the rows of *model* in the kernel's database, without those of others."""
        found = model.objects.using(str(getattr(get_kernel().storage, "alias", "default")))
        if self.everyone:
            return found.all()
        return found.filter(tenant_id=self.tenant) if self.tenant else found.none()


def reach_of(request: HttpRequest) -> Reach:
    """Return the rows that the user of *request* may see in tables with a ``tenant_id``."""
    if operates(request):
        return Reach(everyone=True)
    tenant = tenant_key(tenant_for_request(request))
    return Reach(tenant=None if tenant is None else str(tenant))


def operates(request: HttpRequest) -> bool:
    """Return True if the user may do what concerns all tenants."""
    return bool(request.user.has_perm(OPERATE))
