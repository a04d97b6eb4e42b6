"""The meaning of an outbox item's end to the execution that it wakes."""

from __future__ import annotations

from collections.abc import Iterator

from automate_kernel.errors import ErrorCodes
from automate_kernel.outbox import ItemStatus, OutboxItem
from automate_kernel.outbox.queries import item_ids_of
from automate_kernel.outbox.rows_store import CHANNEL
from automate_kernel.storage.rows import Rows, Where
from automate_kernel.storage.tables import EXECUTION, OUTBOX
from automate_kernel.workflows.engine.children import outside_items
from automate_kernel.workflows.engine.executions import ADVANCE, end_from_outside, reopen
from automate_kernel.workflows.execution import Execution, ExecutionStatus


class ExecutionListener:
    """
    The listener of an outbox that keeps executions in step with the items that wake them.

    An outbox calls it in the transaction in which an item ends or goes back to wait.
    """

    def ended(self, rows: Rows, item: OutboxItem) -> None:
        """End the execution whose wake-up has FAILED or was CANCELLED."""
        if item.status is ItemStatus.FAILED:
            self.give_up(rows, item)
        elif item.status is ItemStatus.CANCELLED:
            self.cancel_with(rows, item)

    def give_up(self, rows: Rows, item: OutboxItem) -> None:
        """Fail the execution whose wake-up was given up."""
        for execution in _driven_by(rows, item):
            execution.error_code = str(item.last_error_code or ErrorCodes.ABORTED)
            execution.error = f"given up after {item.attempt_count} attempts: {item.last_error}"
            execution.error_group = item.last_error_group
            _end(rows, execution, ExecutionStatus.FAILED)

    def cancel_with(self, rows: Rows, item: OutboxItem) -> None:
        """Cancel the execution whose wake-up was cancelled."""
        for execution in _driven_by(rows, item):
            _end(rows, execution, ExecutionStatus.CANCELLED)

    def requeued(self, rows: Rows, item: OutboxItem) -> bool:
        """
        Resume the execution whose wake-up is put back to wait.

        Return False if the item drives no execution any more: that was resumed with another item,
        ended well, or is gone.
        """
        if item.kind != ADVANCE:
            return True
        found = rows.select(EXECUTION, _of(item), lock=True)
        able = (ExecutionStatus.FAILED, ExecutionStatus.CANCELLED)
        return bool(found) and reopen(rows, found[0], item.id, able)


def _end(rows: Rows, execution: Execution, status: ExecutionStatus) -> None:
    if end_from_outside(rows, execution, status):
        # Into the tables that the item is in, whose listener this is.
        items = outside_items(rows, execution)
        rows.insert(OUTBOX, [item.to_row() for item in items], notify=CHANNEL)


def _driven_by(rows: Rows, item: OutboxItem) -> Iterator[Execution]:
    if item.kind == ADVANCE:
        yield from map(Execution.from_row, rows.select(EXECUTION, _of(item)))


def _of(item: OutboxItem) -> list[Where]:
    payload = item.payload if isinstance(item.payload, dict) else {}
    ids = item_ids_of([payload.get("execution_id", "")])  # none, of an item that we did not make
    # Of this item alone: the execution may have been resumed with another.
    return [Where("id", "in", ids), Where("item_id", "eq", item.id)]
