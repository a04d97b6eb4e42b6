"""The meaning of an outbox item's end to the execution that it wakes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

from automate_kernel.base import runtime
from automate_kernel.base.errors import ErrorCodes
from automate_kernel.outbox import ItemStatus, OutboxItem
from automate_kernel.outbox.item import new_id
from automate_kernel.outbox.queries import item_ids_of
from automate_kernel.storage.query import Now, Where
from automate_kernel.storage.rows import Row, Rows
from automate_kernel.storage.tables import EXECUTION, OUTBOX
from automate_kernel.workflows.decide.waits import ADVANCE, RESUMED
from automate_kernel.workflows.execution import Execution, ExecutionStatus
from automate_kernel.workflows.steer.executions import ExecutionStore
from automate_kernel.workflows.store.relatives import outside_items
from automate_kernel.workflows.store.repair import reopen
from automate_kernel.workflows.store.stored import (
    begin_cancelling,
    change_status,
    cleaning_up,
    concurrency_of,
    end_cancelled,
    end_failed,
    wake_up,
)

_COMMIT_SECONDS = 60.0
# Where nobody announces them, they are no more than these.
_MOST = 1000


class ExecutionListener:
    """
    The listener of an outbox that keeps executions in step with the items that wake them.

    An outbox calls it in the transaction in which an item ends or goes back to wait.
    """

    def __init__(self) -> None:
        # With the time until which to wait for the transaction.
        self._cancelled: deque[tuple[Execution, float]] = deque(maxlen=_MOST)
        self._announce: Callable[[], object] | None = None

    def announce_by(self, announce: Callable[[], object]) -> None:
        """Let *announce* be called after a transaction that may have cancelled executions."""
        self._announce = announce

    def committed(self) -> None:
        """Have the executions announced that were cancelled."""
        if self._cancelled and self._announce is not None:
            self._announce()

    def take_cancelled(self, store: ExecutionStore) -> Iterator[Execution]:
        """Yield the executions that were cancelled here, once that is committed."""
        # An execution whose transaction was repeated after a deadlock is here twice.
        told = set[tuple[str, str | None]]()
        for _ in range(len(self._cancelled)):
            try:
                execution, until = self._cancelled.popleft()
            except IndexError:  # another thread takes them too
                return
            if (about := (execution.id, execution.item_id)) in told:
                continue
            told.add(about)
            found = store.get(execution.id)
            if found is not None and found.status is ExecutionStatus.CANCELLED:
                yield found
            elif found is not None and not found.status.finished and runtime.monotonic() < until:
                self._cancelled.append((execution, until))

    def ended(self, rows: Rows, items: Sequence[OutboxItem]) -> None:
        """End the executions whose wake-ups have FAILED or were CANCELLED."""
        for item in items:
            if item.status is ItemStatus.FAILED:
                self._fail(rows, item)
        self._cancel_with(rows, [each for each in items if each.status is ItemStatus.CANCELLED])

    def _fail(self, rows: Rows, item: OutboxItem) -> None:
        """Fail the execution whose wake-up was given up, after its clean-up if it has any."""
        for row in _rows_driven_by(rows, [item]):
            execution = Execution.from_row(row)
            cancelling = execution.status is ExecutionStatus.CANCELLING
            cleans_up = execution.error_code is None and bool(cleaning_up(rows, [row]))
            execution.error_code = str(item.last_error_code or ErrorCodes.ABORTED)
            execution.error = f"given up after {item.attempt_count} attempts: {item.last_error}"
            execution.error_group = item.last_error_group
            if cleans_up and change_status(rows, execution, ExecutionStatus.RUNNING):
                _wake_anew(rows, row)
            elif cancelling:
                self._cancel(rows, [row])
            elif end_failed(rows, execution):
                _tell_relatives(rows, [execution])

    def _cancel_with(self, rows: Rows, items: Sequence[OutboxItem]) -> None:
        """Cancel the executions whose wake-ups were cancelled, as `ExecutionStore.cancel` does."""
        found = _rows_driven_by(rows, items)
        cleaning = cleaning_up(rows, found)
        begin_cancelling(rows, cleaning)
        for row in cleaning:
            _wake_anew(rows, row)
        later = {row["id"] for row in cleaning}
        self._cancel(rows, [row for row in found if row["id"] not in later])

    def _cancel(self, rows: Rows, found: Sequence[Row]) -> None:
        ended = end_cancelled(rows, found)
        _tell_relatives(rows, ended)
        until = runtime.monotonic() + _COMMIT_SECONDS
        self._cancelled.extend((execution, until) for execution in ended)

    def requeued(self, rows: Rows, item: OutboxItem) -> bool:
        """
        Resume the execution whose wake-up is put back to wait.

        Return False if the item drives no execution any more: that was resumed with another item,
        ended well, or is gone.
        """
        if item.kind != ADVANCE:
            return True
        found = _rows_driven_by(rows, [item])
        able = (ExecutionStatus.FAILED, ExecutionStatus.CANCELLED)
        if not found or not reopen(rows, found[0], item.id, able):
            return False
        # As the new item of a resumed execution: its calls may have been made before.
        changes: Row = {"headers": {**item.headers, RESUMED: new_id()}}
        rows.update(OUTBOX, [Where("id", "eq", item.id)], changes)
        return True


def _tell_relatives(rows: Rows, ended: Sequence[Execution]) -> None:
    # Into the tables that the items are in, whose listener this is.
    if items := outside_items(rows, ended):
        rows.insert(OUTBOX, [item.to_row() for item in items], notify=True)


def _rows_driven_by(rows: Rows, items: Iterable[OutboxItem]) -> list[Row]:
    """Return the rows, locked, of the executions that these items drive."""
    drives = {_driven_by(item): item.id for item in items if item.kind == ADVANCE}
    if not drives:
        return []
    its = [Where("id", "in", item_ids_of(list(drives)))]
    found = rows.select(EXECUTION, its, order_by=("id",), lock=True)
    # By this item alone: the execution may have been resumed with another.
    return [row for row in found if row["item_id"] == drives.get(row["id"])]


def _wake_anew(rows: Rows, row: Row) -> None:
    """Give the execution of *row* another wake-up: its own has ended, and it has to clean up."""
    concurrency = concurrency_of(rows, row)
    item = wake_up(row["id"], row["workflow"], new_id(), row["tenant_id"], concurrency=concurrency)
    rows.insert(OUTBOX, [item.to_row(None)], notify=True)
    changes = {"item_id": item.id, "updated_at": Now()}
    rows.update(EXECUTION, [Where("id", "eq", row["id"])], changes)


def _driven_by(item: OutboxItem) -> str:
    payload = item.payload if isinstance(item.payload, dict) else {}
    return str(payload.get("execution_id", ""))  # no id, of an item that we did not make
