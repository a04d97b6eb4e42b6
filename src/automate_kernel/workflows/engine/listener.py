"""The listener that ends and resumes executions with the items that wake them."""

from __future__ import annotations

from automate_kernel.outbox import ItemStatus, OutboxItem, RowsOutboxStore
from automate_kernel.storage.memory import MemoryStorage
from automate_kernel.storage.rows import Rows
from automate_kernel.workflows.engine.executions import ExecutionStore

__all__ = ["ExecutionListener"]

# Its methods work on the rows that they are given.
_EXECUTIONS = ExecutionStore(MemoryStorage(), RowsOutboxStore(MemoryStorage()))


class ExecutionListener:
    """The listener of an outbox that keeps executions in step with the items that wake them."""

    def ended(self, rows: Rows, item: OutboxItem) -> None:
        """End the execution whose wake-up has FAILED or was CANCELLED."""
        if item.status is ItemStatus.FAILED:
            _EXECUTIONS.give_up(rows, item)
        elif item.status is ItemStatus.CANCELLED:
            _EXECUTIONS.cancel_with(rows, item)

    def requeued(self, rows: Rows, item: OutboxItem) -> bool:
        """Resume the execution whose wake-up is put back to wait; False if it drives none."""
        return _EXECUTIONS.resume_with(rows, item)
