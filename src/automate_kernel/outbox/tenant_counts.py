"""Counts of one tenant's items, at a bounded price."""

from __future__ import annotations

from typing import NamedTuple

from automate_kernel.storage.query import Where
from automate_kernel.storage.rows import Rows, Storage
from automate_kernel.storage.statuses import ItemStatus, ItemWait
from automate_kernel.storage.tables import OUTBOX

LOOKED = 100_000
"""The number of the newest items of all tenants, among which those of one are counted."""


class TenantCounts(NamedTuple):
    """
    Items by kind and status, and how late the oldest due item is.

    *looked* says among how many they were counted, if not among all.
    """

    by_kind: dict[str, dict[str, int]]
    oldest_due_seconds: float | None
    looked: int | None = None


def counts_of_tenant(storage: Storage, tenant: str) -> TenantCounts:
    """
    Count the items of *tenant* in the outbox of *storage*.

    Only those of a tenant's items that are ready have an index. So the tenant's are counted among
    the newest of all items. FAILED and due items are exact.
    """
    its, by_kind = Where("tenant_id", "eq", tenant), dict[str, dict[str, int]]()
    with storage.begin(atomic=False) as rows:
        newest = rows.select(OUTBOX, order_by=("-id",), limit=1, offset=LOOKED - 1, columns=("id",))
        recent = [its, *(Where("id", "ge", row["id"]) for row in newest)]
        for row in rows.count(OUTBOX, ("kind", "status"), recent):
            by_kind.setdefault(row["kind"], {})[row["status"]] = row["n"]
        if newest:
            failed = [its, Where("status", "eq", ItemStatus.FAILED.value)]
            for row in rows.count(OUTBOX, ("kind",), failed):
                by_kind.setdefault(row["kind"], {})[ItemStatus.FAILED.value] = row["n"]
        late = _oldest_due(rows, its)
    return TenantCounts(dict(sorted(by_kind.items())), late, LOOKED if newest else None)


def _oldest_due(rows: Rows, its: Where) -> float | None:
    ready = [Where("waiting_for", "eq", ItemWait.WORKER.value)]
    due = []
    for kind in rows.distinct(OUTBOX, "kind", [*ready, Where("tenant_id", "ne", None)]):
        order = ("sort_at", "id")
        read = ("next_attempt_at", *order)
        where = [*ready, Where("kind", "eq", kind), its]
        due += rows.select(OUTBOX, where, order_by=order, limit=1, columns=read)
    if not due:
        return None
    late = rows.now() - min(row["next_attempt_at"] for row in due)
    return float(max(0.0, late.total_seconds()))
