"""Statistics of one worker: counts of outcomes, and durations, until they are written down."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from automate_kernel.outbox.item import ItemStatus, OutcomeRecorded, ReapResult, Result
from automate_kernel.outbox.statistics import Minutes
from automate_kernel.outbox.worker_reports import ActivityRow
from automate_kernel.worker.in_flight import Task

# So many of a group are timed, and stand for the others: to time each would cost a worker that
# finishes thousands a second more than finishing them does.
_TIMED = 32
_COMPLETED, _RETRY, _FAILED = ItemStatus.COMPLETED, ItemStatus.RETRY, ItemStatus.FAILED


class ActivityLog(Minutes[ActivityRow]):
    """
    Gathers in memory what a worker does, until it is written down.

    `add` is called once for each group of outcomes, from the worker's hot path. Counts are exact.
    Of a large group only some are timed, and stand for the rest.
    """

    def __init__(self) -> None:
        super().__init__(ActivityRow)
        self._offset = 0

    def add(self, group: Sequence[tuple[Task, Result]], lost: Collection[str]) -> None:
        """Count the outcomes of *group*, but for those whose lease was *lost*."""
        stride = len(group) // _TIMED + 1
        self._offset = (self._offset + 1) % stride
        with self._lock:
            rows = self._gathered
            for task, result in group:
                kind = task.item.kind
                row = rows.get(kind)
                if row is None:
                    row = rows[kind] = ActivityRow(kind)
                if type(result) is OutcomeRecorded:
                    status = result.outcome.status if result.outcome else _COMPLETED
                elif result is None or (lost and result.item_id in lost):  # type: ignore[union-attr]
                    continue  # whoever took it over counts it
                else:
                    status = result.status  # type: ignore[union-attr]
                if status is _COMPLETED:
                    row.completed += 1
                elif status is _RETRY:
                    row.retried += 1
                elif status is _FAILED:
                    row.failed += 1
            for task, _ in group[self._offset :: stride]:
                self._time(rows[task.item.kind], task, stride)

    def _time(self, row: ActivityRow, task: Task, count: int) -> None:
        if task.started_at is None or task.ended_at is None:
            return  # handed back without having begun
        row.run.add(task.ended_at - task.started_at, count)
        item = task.item
        # Until the claim on the database's clock, and from there on our own.
        waited = (item.updated_at - item.next_attempt_at).total_seconds()
        row.wait.add(waited + task.started_at - task.claimed_at, count)

    def reaped(self, result: ReapResult) -> None:
        """Count items that were taken back from workers that are gone."""
        with self._lock:
            for item in result.retried:
                self._row(item.kind).lost += 1
            for item in result.failed:
                row = self._row(item.kind)
                row.lost += 1
                row.failed += 1
