"""Taking items back from workers that are gone."""

from __future__ import annotations

from typing import Any

from automate_kernel.outbox import concurrency_keys as slots
from automate_kernel.outbox import ordering_keys as lanes
from automate_kernel.outbox.failed_attempts import MOST_OF_ITEM, keep_attempts, new_attempt
from automate_kernel.outbox.finishing import Finishing, due_changes
from automate_kernel.outbox.item import Backoff, ItemStatus, OutboxItem, ReapResult
from automate_kernel.outbox.leases import FREE, fence
from automate_kernel.storage.rows import Now, Row, Rows, Where
from automate_kernel.storage.tables import OUTBOX

__all__ = ["Recovering"]

_EXPIRED = "LEASE_EXPIRED"


class Recovering(Finishing):
    """The part of `RowsOutboxStore` that the reaper uses."""

    backoff: Backoff

    def reap(self, limit: int = 500, *, grace_seconds: float = 0.0) -> ReapResult:
        """Recover items whose worker is gone; see `OutboxStore.reap`."""
        result = ReapResult()
        over = Where("lease_expires_at", "lt", Now(-grace_seconds))
        with self.storage.begin() as rows:
            stale = rows.select(
                OUTBOX, [over], order_by=("lease_expires_at",), limit=limit, lock=True,
                skip_locked=True,
            )  # fmt: skip
            # The keys as they are stored: those of items lack their tenant's part.
            reaped = [row for row in stale if self._reap_one(rows, row, over, result)]
            keep_attempts(rows, [_attempt(row) for row in reaped], MOST_OF_ITEM)
            self._leave(
                rows,
                [(row["ordering_key"], row["id"]) for row in reaped if row["ordering_key"]],
                [(row["concurrency_key"], row["id"]) for row in reaped if row["concurrency_key"]],
            )
            lanes.mend(rows)
            slots.mend(rows)
        return result

    def _reap_one(self, rows: Rows, row: Row, over: Where, result: ReapResult) -> bool:
        ended, whom = None, None
        if row["waiting_for"] == "cancel":
            ended, whom = ItemStatus.CANCELLED, self.on_cancelled
        elif row["attempt_count"] >= row["max_attempts"]:
            ended, whom = ItemStatus.FAILED, self.on_failed
        # The token goes: what comes late from the lost worker must not pass for a repeat.
        changes: dict[str, Any] = {
            "last_error_code": _EXPIRED,
            "last_error": _lost_text(row),
            "last_error_group": _EXPIRED,
            "updated_at": Now(),
            **FREE,
        }
        if ended is not None:
            changes |= {"status": ended.value, "completed_at": Now(), "waiting_for": None}
        else:
            delay = self.backoff.delay(row["attempt_count"])
            changes |= {"status": ItemStatus.RETRY.value, **due_changes(delay, row["priority"])}
        # Decided from the row alone, and again when it is written: without row locks its holder
        # may have renewed or finished it in between.
        where = [*fence([row["id"]], row["lease_token"]), over]
        if not rows.update(OUTBOX, where, changes):
            return False
        item = OutboxItem.from_row(rows.select(OUTBOX, [Where("id", "eq", row["id"])])[0])
        result.add(item)
        if whom is not None:
            whom(rows, item)
        return True


def _lost_text(row: Row) -> str:
    return f"worker {row['lease_owner']} did not finish in time, or died"


def _attempt(row: Row) -> Row:
    return new_attempt(
        row["id"], row["lease_token"], attempt=row["attempt_count"], code=_EXPIRED,
        group=None, error=_lost_text(row), trace=None,
    )  # fmt: skip
