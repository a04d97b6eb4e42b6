"""Looking at the outbox, and what concerns it as a whole, over `Rows`."""

from __future__ import annotations

from uuid import UUID

from automate_kernel.outbox.fair_share import Group, any_ready, ready_groups
from automate_kernel.outbox.item import ItemStatus, OutboxItem, Redaction, check_text, storable
from automate_kernel.outbox.store import OutboxStats
from automate_kernel.storage.rows import Now, Row, Rows, Storage, Where
from automate_kernel.storage.tables import OUTBOX, PAUSE

__all__ = ["Control"]


class Control:
    """The part of `RowsOutboxStore` that looks and pauses."""

    storage: Storage
    redact: Redaction | None
    _paused_until: float

    def get(self, item_id: str) -> OutboxItem | None:
        """The item with this id, or None."""
        try:
            item_id = str(UUID(str(item_id)))
        except ValueError:
            return None
        with self.storage.begin(atomic=False) as rows:
            found = rows.select(OUTBOX, [Where("id", "eq", item_id)])
        return OutboxItem.from_row(found[0]) if found else None

    def find(
        self,
        *,
        status: ItemStatus | str | None = None,
        kind: str | None = None,
        tenant_id: str | None = None,
        limit: int = 50,
        before_id: str | None = None,
    ) -> list[OutboxItem]:
        """Items that match, the newest first; see `OutboxStore.find`."""
        wanted = {
            "status": status and ItemStatus(status).value,
            "kind": kind,
            "tenant_id": tenant_id,
        }
        where = [Where(name, "eq", value) for name, value in wanted.items() if value is not None]
        if before_id is not None:
            where.append(Where("id", "lt", before_id))
        with self.storage.begin(atomic=False) as rows:
            found = rows.select(OUTBOX, where, order_by=("-id",), limit=limit)
        return [OutboxItem.from_row(row) for row in found]

    def stats(self) -> OutboxStats:
        """Counts per kind and state, the age of the oldest due item, and the paused kinds."""
        counts: dict[str, dict[str, int]] = {}
        with self.storage.begin(atomic=False) as rows:
            for row in rows.count(OUTBOX, ("kind", "status")):
                counts.setdefault(row["kind"], {})[row["status"]] = row["n"]
            paused = tuple(sorted(row["kind"] for row in rows.select(PAUSE)))
            late = late_kinds(rows)
        oldest = max(late.values(), default=None)
        return OutboxStats(dict(sorted(counts.items())), oldest, paused, late)

    def pause(self, kind: str, reason: str = "") -> None:
        """Stop claiming items of *kind* until `resume`."""
        check_text(kind, "kind")
        if self.redact is not None:
            reason = self.redact(reason)
        row = {"kind": kind, "reason": storable(reason), "created_at": Now()}
        with self.storage.begin() as rows:
            rows.insert(PAUSE, [row])
        self._paused_until = 0.0

    def resume(self, kind: str) -> None:
        """Claim items of *kind* again."""
        parked = [Where("kind", "eq", kind), Where("waiting_for", "eq", "resume")]
        with self.storage.begin() as rows:
            rows.delete(PAUSE, [Where("kind", "eq", kind)])
            rows.update(OUTBOX, parked, {"waiting_for": "worker"})
        self._paused_until = 0.0


def next_due(rows: Rows) -> float | None:
    """Seconds until the next waiting item is due, 0 or less if one is; None if none waits."""
    if any_ready(rows):
        return 0.0
    later = [Where("waiting_for", "eq", "time")]
    order = ("next_attempt_at",)
    found = rows.select(OUTBOX, later, order_by=order, limit=1, columns=order)
    return (found[0]["next_attempt_at"] - rows.now()).total_seconds() if found else None


def late_kinds(rows: Rows) -> dict[str, float]:
    """For how many seconds the oldest due item of each kind has waited, of those that have one."""
    # The first of each kind and tenant in claim order, which is the oldest but for priorities.
    due = [(group[0], row) for group in ready_groups(rows) for row in _first(rows, group)]
    later = [Where("waiting_for", "eq", "time"), Where("next_attempt_at", "le", Now())]
    # Only that of all kinds: a worker that is there makes these ready at once, so if one is late
    # it is because there is none, for whatever kind.
    found = rows.select(
        OUTBOX, later, order_by=("next_attempt_at",), limit=1, columns=("kind", "next_attempt_at")
    )
    due += [(row["kind"], row) for row in found]
    late: dict[str, float] = {}
    if due:
        now = rows.now()
        for kind, row in due:
            seconds = max(0.0, (now - row["next_attempt_at"]).total_seconds())
            late[kind] = max(seconds, late.get(kind, 0.0))
    return late


def _first(rows: Rows, group: Group) -> list[Row]:
    kind, tenant = group
    its = [
        Where("waiting_for", "eq", "worker"),
        Where("kind", "eq", kind),
        Where("tenant_id", "eq", tenant),
    ]
    order = ("sort_at", "id")
    return rows.select(OUTBOX, its, order_by=order, limit=1, columns=("next_attempt_at", *order))
