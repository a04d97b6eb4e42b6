"""The audit trail of what operators order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.http import HttpRequest

from automate_django.admin.pages.access import reach_of
from automate_django.audit_trail import entry_values, write_entries
from automate_django.models import OutboxItem

__all__ = ["record"]


def record(
    request: HttpRequest, action: str, about: str, rows: Sequence[Any] = (), **details: Any
) -> None:
    """
    Write down that the user of *request* did *action*: to each of *rows*, or to what *about* says.
    """
    if rows:
        entries = [
            entry_values(request, action, OutboxItem, row, tenant=row.tenant_id, details=details)
            for row in rows
        ]
    else:
        entry = entry_values(
            request, action, OutboxItem, tenant=reach_of(request).tenant, details=details
        )
        entries = [{**entry, "object_repr": about[:200]}]
    write_entries(entries)
