"""The statistics of a worker, and its reports: every few seconds it writes both, and its state."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from typing import Any

from automate_kernel.base import runtime
from automate_kernel.outbox.item import ItemStatus, OutcomeRecorded, ReapResult, Result
from automate_kernel.outbox.statistics import Minutes
from automate_kernel.outbox.store import OutboxStore
from automate_kernel.outbox.worker_reports import ActivityRow, WorkerInfo
from automate_kernel.secrets.logs import get_logger
from automate_kernel.storage.shortage import warn_of
from automate_kernel.worker.heartbeat import Liveness
from automate_kernel.worker.in_flight import Task

logger: logging.Logger = get_logger(__name__)

# An idle worker has little to report: only that it lives.
_IDLE_SECONDS = 15.0


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


class Reporter:
    """
    Writes a worker's state and its *activity* to its *store*.

    *about* gives the state at the moment. *also_report* is called each time, with the worker's id.
    """

    def __init__(
        self,
        store: OutboxStore,
        about: Callable[[], WorkerInfo],
        activity: ActivityLog,
        liveness: Liveness,
        also_report: Callable[[str], object] | None = None,
    ) -> None:
        self._store, self._about, self._activity = store, about, activity
        self._liveness, self._also_report = liveness, also_report
        self._last: tuple[Any, ...] | None = None
        self._failing: set[Callable[..., object]] = set()
        self._ended = False

    @property
    def listed(self) -> bool:
        """True once the worker is on the list of its store."""
        return self._last is not None

    def report(self) -> None:
        """Write a report, unless nothing has changed since a moment ago."""
        now, about = runtime.monotonic(), self._about()
        self._liveness.move("watch")  # its thread
        if self._also_report is not None:
            self._try(self._also_report, about.id, about.id)
        state = (about.in_flight, about.stopping, about.workflows, about.executors)
        if self._last is not None and self._activity.idle:
            reported_at, *before = self._last
            if now - reported_at < _IDLE_SECONDS and tuple(before) == state:
                return
        if self._try(self._store.report, about.id, about, self._activity):
            self._last = (now, *state)
            if self._ended:  # meanwhile, as nobody waits for this for long: nobody is to be listed
                self._try(self._store.remove_worker, about.id, about.id)

    def report_stop(self) -> None:
        """Write a report if the worker has begun to stop, and none says so yet."""
        if self._liveness.stopping and not (self._last is not None and self._last[2]):
            self.report()

    def _try(self, report: Callable[..., object], worker_id: str, *arguments: object) -> bool:
        try:
            report(*arguments)
        except Exception as error:
            # Warned of once: the work goes on, and what was gathered is written when it can be.
            if report not in self._failing:
                warn_of(logger, error, "worker %s could not report: %s", worker_id)
            self._failing.add(report)
            return False
        self._failing.discard(report)
        return True

    def end(self) -> None:
        """Write the last report, and take the worker off the list."""
        about, self._ended = self._about(), True
        if self._also_report is not None:
            self._try(self._also_report, about.id, about.id)
        try:
            if not self._activity.idle:
                self._store.report(about, self._activity)
            self._store.remove_worker(about.id)
        except Exception as error:
            # It is only about the worker: what it did is safe. The list shows it as lost.
            warn_of(logger, error, "worker %s could not sign off: %s", about.id)
