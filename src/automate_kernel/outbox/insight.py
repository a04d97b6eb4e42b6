"""What failed and why, and whose it is: errors by group, failed attempts, labels, over `Rows`."""

from __future__ import annotations

from uuid import UUID

from automate_kernel.outbox.failed_attempts import ErrorGroup, FailedAttempt, failed_attempts
from automate_kernel.outbox.item import ItemStatus, OutboxItem
from automate_kernel.outbox.labels import labelled_ids
from automate_kernel.storage.rows import Row, Rows, Storage, Where
from automate_kernel.storage.tables import OUTBOX

__all__ = ["MOST_LABELLED", "Insight"]

MOST_LABELLED = 1000
"""Among how many of what has a label other conditions are looked for: the newest."""


class Insight:
    """The part of `RowsOutboxStore` that tells of failures and finds by labels."""

    storage: Storage

    def labelled(
        self,
        label: str,
        *,
        status: ItemStatus | str | None = None,
        kind: str | None = None,
        tenant_id: str | None = None,
        limit: int = 50,
    ) -> list[OutboxItem]:
        """Items with a label; see `OutboxStore.labelled`."""
        wanted = {
            "status": status and ItemStatus(status).value,
            "kind": kind,
            "tenant_id": tenant_id,
        }
        where = [Where(name, "eq", value) for name, value in wanted.items() if value is not None]
        with self.storage.begin(atomic=False) as rows:
            found = labelled_ids(
                rows, label, about="item", tenant_id=tenant_id, limit=MOST_LABELLED
            )
            its = [Where("id", "in", [each.id for each in found]), *where]
            items = rows.select(OUTBOX, its, order_by=("-created_at", "-id"), limit=limit)
        return [OutboxItem.from_row(row) for row in items]

    def failed_attempts(self, item_id: str) -> list[FailedAttempt]:
        """The errors of an item's attempts; see `OutboxStore.failed_attempts`."""
        try:
            item_id = str(UUID(str(item_id)))
        except ValueError:
            return []
        with self.storage.begin(atomic=False) as rows:
            return failed_attempts(rows, item_id)

    def error_groups(
        self, *, kind: str | None = None, tenant_id: str | None = None, limit: int = 100
    ) -> list[ErrorGroup]:
        """The failed items in groups; see `OutboxStore.error_groups`."""
        failed = [Where("status", "eq", ItemStatus.FAILED.value)]
        given = {"kind": kind, "tenant_id": tenant_id}
        failed += [Where(name, "eq", value) for name, value in given.items() if value is not None]
        by = ("kind", "last_error_group", "last_error_code")
        with self.storage.begin(atomic=False) as rows:
            counted = rows.count(OUTBOX, by, failed)
            counted.sort(key=lambda row: (-row["n"], row["kind"], row["last_error_group"] or ""))
            return [self._group(rows, row, failed) for row in counted[:limit]]

    def _group(self, rows: Rows, counted: Row, failed: list[Where]) -> ErrorGroup:
        names = ("kind", "last_error_group", "last_error_code")
        its = [*failed, *(Where(name, "eq", counted[name]) for name in names)]
        read = ("id", "completed_at", "last_error")
        latest = rows.select(OUTBOX, its, order_by=("-id",), limit=1, columns=read)
        row: Row = latest[0] if latest else dict.fromkeys(read)
        return ErrorGroup(
            kind=counted["kind"],
            group=counted["last_error_group"] or "",
            error_code=counted["last_error_code"] or "",
            count=counted["n"],
            latest_id=row["id"] or "",
            latest_at=row["completed_at"],
            error=row["last_error"] or "",
        )
