"""The retention of executions: what ended long ago is deleted, with all that belongs to it."""

from __future__ import annotations

from functools import partial

from automate_kernel.operations.budgets import forget_budgets
from automate_kernel.outbox.retention import forget
from automate_kernel.storage.query import Now, Where
from automate_kernel.storage.rows import Row, Rows, Storage, write
from automate_kernel.storage.tables import EXECUTION, STEP
from automate_kernel.workflows.execution import ExecutionStatus
from automate_kernel.workflows.store.large_outputs import LargeOutputs
from automate_kernel.workflows.store.signal_store import SignalStore


class ExecutionRetention:
    """Deletes executions, their steps and what is kept of them elsewhere."""

    def __init__(self, storage: Storage, signals: SignalStore, outputs: LargeOutputs) -> None:
        self._storage, self._signals, self._outputs = storage, signals, outputs

    def purge(self, status: ExecutionStatus, *, older_than_seconds: float, limit: int) -> int:
        """Delete up to *limit* executions that ended so that long ago; return their number."""
        over = [
            Where("status", "eq", status.value),
            # It follows from the other, and ends the walk along the index.
            Where("created_at", "le", Now(-older_than_seconds)),
            Where("completed_at", "le", Now(-older_than_seconds)),
        ]
        purged, place, seen = 0, list[Where](), 0
        while purged < limit:
            size = limit - purged + seen
            work = partial(self._purge_page, where=[*over, *place], limit=size)
            found, stayed, keys = write(self._storage, None, work)
            self._outputs.delete(keys)
            purged += len(found) - len(stayed)
            if len(found) < size:
                break
            # Those that had to stay must not be in the way of those after them. Others may be of
            # the same moment as the last one, so that it is looked at again.
            last = found[-1]["created_at"]
            seen = sum(row["created_at"] == last for row in stayed)
            place = [Where("created_at", "ge", last)]
        return purged

    def _purge_page(
        self, rows: Rows, where: list[Where], limit: int
    ) -> tuple[list[Row], list[Row], list[str]]:
        """Delete some executions; return all of these, those that stayed, and lost outputs."""
        found = rows.select(
            EXECUTION, where, order_by=("created_at",), limit=limit, lock=True, skip_locked=True,
            columns=("id", "parent_id", "chain_id", "successor_id", "created_at"),
        )  # fmt: skip
        children = {
            row["id"]: row["chain_id"] or row["id"]
            for row in found
            if row["parent_id"] is not None and row["successor_id"] is None
        }
        # Their parents have not taken the results yet.
        needed = self._signals.awaited_ends(rows, children)
        ids = sorted({row["id"] for row in found} - needed)
        keys = self._outputs.keys_of(rows, ids)
        rows.delete(STEP, [Where("execution_id", "in", ids)])
        forget(rows, ids)
        # Those of a chain are for whichever goes on: they stay until the last of it is deleted.
        last = [row for row in found if row["id"] in ids and row["successor_id"] is None]
        self._signals.forget(rows, {row["chain_id"] or row["id"] for row in last})
        forget_budgets(rows, ids)
        rows.delete(EXECUTION, [Where("id", "in", ids)])
        return found, [row for row in found if row["id"] in needed], keys
