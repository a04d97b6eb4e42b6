"""The reports of a worker: every few seconds it writes its state and its statistics."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from automate_kernel.outbox.store import OutboxStore
from automate_kernel.outbox.worker_reports import WorkerInfo
from automate_kernel.secrets.logs import get_logger
from automate_kernel.storage.shortage import warn_of
from automate_kernel.worker.liveness import Liveness
from automate_kernel.worker.statistics import ActivityLog

logger: logging.Logger = get_logger(__name__)

# An idle worker has little to report: only that it lives.
_IDLE_SECONDS = 15.0


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
        now, about = time.monotonic(), self._about()
        self._liveness.move("watch")  # its thread
        if self._also_report is not None:
            self._try(self._also_report, about.id, about.id)
        state = (about.in_flight, about.stopping, about.workflows)
        if self._last is not None and self._activity.idle:
            reported_at, *before = self._last
            if now - reported_at < _IDLE_SECONDS and tuple(before) == state:
                return
        if self._try(self._store.report, about.id, about, self._activity):
            self._last = (now, *state)
            if self._ended:  # meanwhile, as nobody waits for this for long: nobody is to be listed
                self._try(self._store.leave, about.id, about.id)

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
            self._store.leave(about.id)
        except Exception as error:
            # It is only about the worker: what it did is safe. The list shows it as lost.
            warn_of(logger, error, "worker %s could not sign off: %s", about.id)
