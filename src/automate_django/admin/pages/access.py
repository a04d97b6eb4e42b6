"""The rows that a user sees, and what the user may do with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest

from automate_django.audit_trail import entry_values, write_entries
from automate_django.kernel import get_kernel
from automate_django.models import OutboxItem
from automate_django.tenants import OPERATE, tenant_for_request, tenant_key


def database() -> str:
    """Return the alias of the database that holds the kernel's tables."""
    return str(getattr(get_kernel().storage, "alias", "default"))


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

    def conditions(self, chosen: str = "") -> dict[str, Any]:
        """
        Return the part of a kernel's filter that leaves out the items of others.

        *chosen* is the tenant that a user who sees everyone's items asks for.
        """
        if self.everyone:
            return {"tenant_id": chosen} if chosen else {}
        # An empty list of ids matches no item.
        return {"tenant_id": self.tenant} if self.tenant else {"ids": []}

    def rows(self, model: Any) -> Any:
        """Return the rows of *model* in the kernel's database, without those of others."""
        found = model.objects.using(database())
        if self.everyone:
            return found.all()
        return found.filter(tenant_id=self.tenant) if self.tenant else found.none()


def reach_of(request: HttpRequest) -> Reach:
    """Return the rows that the user of *request* may see in tables with a ``tenant_id``."""
    if operates(request):
        return Reach(everyone=True)
    tenant = tenant_key(tenant_for_request(request))
    return Reach(tenant=None if tenant is None else str(tenant))


def uuid_of(text: str | None) -> UUID | None:
    """Return the id that *text* of a request is; None if it is none."""
    try:
        return UUID((text or "").strip())
    except ValueError:
        return None


def operates(request: HttpRequest) -> bool:
    """Return True if the user may do what concerns all tenants."""
    return bool(request.user.has_perm(OPERATE))


def require_operator(request: HttpRequest) -> None:
    """Raise `PermissionDenied` unless the user may do what concerns all tenants."""
    if not operates(request):
        raise PermissionDenied


def record(
    request: HttpRequest,
    action: str,
    rows: Sequence[Any] = (),
    *,
    model: Any = OutboxItem,
    about: str = "",
    **details: Any,
) -> None:
    """
    Write down that the user of *request* did *action* to each of *rows*.

    Without rows there is one entry for *model*, which says *about* what it was.
    """
    entries = [
        entry_values(request, action, type(row), row, tenant=row.tenant_id, details=details)
        for row in rows
    ]
    if not rows:
        tenant = reach_of(request).tenant
        entry = entry_values(request, action, model, tenant=tenant, details=details)
        entries = [{**entry, "object_repr": about[:200]}]
    write_entries(entries)
