"""
How the outbox stands for one tenant, at a bounded price.

No index leads to a tenant's items but that of those which are ready. So what is counted are the
tenant's among the newest of all items; what failed and what is due is exact.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from django.db.models import Count

from automate_django.models import OutboxItem
from automate_kernel.storage.rows import Rows, Where
from automate_kernel.storage.tables import OUTBOX

__all__ = ["LOOKED", "TenantCounts", "counts_of_tenant"]

LOOKED = 100_000
"""Among how many of all tenants' items those of one are counted: the newest."""


@dataclass(frozen=True, slots=True)
class TenantCounts:
    """
    Items by kind and status, and how late the oldest is that is due.

    *looked* says among how many they were counted, if not among all.
    """

    by_kind: dict[str, dict[str, int]] = field(default_factory=dict)
    oldest_due_seconds: float | None = None
    looked: int | None = None


def counts_of_tenant(storage: Any, tenant: str) -> TenantCounts:
    """The counts of *tenant* in the outbox of *storage*."""
    every = OutboxItem._default_manager.using(storage.alias)
    newest = every.order_by("-id").values_list("id", flat=True)
    oldest = next(iter(newest[LOOKED - 1 : LOOKED]), None)
    own = every.filter(tenant_id=tenant)
    recent = own if oldest is None else own.filter(id__gte=oldest)
    by_kind: dict[str, dict[str, int]] = {}
    for row in recent.order_by().values("kind", "status").annotate(n=Count("id")):
        by_kind.setdefault(row["kind"], {})[row["status"]] = row["n"]
    if oldest is not None:
        for row in own.filter(status="FAILED").order_by().values("kind").annotate(n=Count("id")):
            by_kind.setdefault(row["kind"], {})["FAILED"] = row["n"]
    with storage.begin(atomic=False) as rows:
        late = _oldest_due(rows, tenant)
    looked = None if oldest is None else LOOKED
    return TenantCounts(dict(sorted(by_kind.items())), late, looked)


def _oldest_due(rows: Rows, tenant: str) -> float | None:
    ready = [Where("waiting_for", "eq", "worker")]
    due = []
    for kind in rows.distinct(OUTBOX, "kind", [*ready, Where("tenant_id", "ne", None)]):
        its = [*ready, Where("kind", "eq", kind), Where("tenant_id", "eq", tenant)]
        order = ("sort_at", "id")
        read = ("next_attempt_at", *order)
        due += rows.select(OUTBOX, its, order_by=order, limit=1, columns=read)
    if not due:
        return None
    earliest = min(row["next_attempt_at"] for row in due)
    late: float = (rows.now() - earliest).total_seconds()
    return max(0.0, late)
