"""A worker tells of itself, every few seconds, in the database that it works for."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from automate_kernel.outbox.worker_reports import WorkerInfo
from automate_kernel.secrets.logs import get_logger
from automate_kernel.worker.handler import Handler
from automate_kernel.worker.periodic import Chore

if TYPE_CHECKING:
    from automate_kernel.worker.worker import Worker

__all__ = ["Reporter", "capacity"]

logger: logging.Logger = get_logger(__name__)

# An idle worker has little to tell: only that it lives.
_IDLE_SECONDS = 15.0


class Reporter:
    """Writes what *worker* is and does, through its store."""

    def __init__(self, worker: Worker, clock: Callable[[], float] = time.monotonic) -> None:
        self._worker = worker
        self._clock = clock
        self._last: tuple[float, int, bool] | None = None
        self._failing = False
        self._others_failing = False

    @property
    def chore(self) -> Chore:
        """What is to be done every `Worker.report_seconds`."""
        return Chore("report", self._worker.report_seconds, self.report, at_once=True)

    def report(self) -> None:
        """Tell of the worker, unless nothing has changed since a moment ago."""
        worker, now = self._worker, self._clock()
        worker.vitals.move("heartbeat")  # on its thread
        self._tell_others()
        state = (worker.in_flight, worker.vitals.stopping)
        if self._last is not None and worker.activity.idle:
            told, *before = self._last
            if now - told < _IDLE_SECONDS and tuple(before) == state:
                return
        try:
            worker.store.report(self._about(), worker.activity)
        except Exception as error:
            # Said once: the work goes on, and what was gathered is written when it can be.
            logger.log(
                logging.DEBUG if self._failing else logging.WARNING,
                "worker %s could not report: %s", worker.worker_id, error,
            )  # fmt: skip
            self._failing = True
            return
        self._last, self._failing = (now, *state), False

    def _tell_others(self) -> None:
        """Have others report who tell with the worker: of executions, say."""
        if self._worker.also_report is None:
            return
        try:
            self._worker.also_report(self._worker.worker_id)
        except Exception as error:
            level = logging.DEBUG if self._others_failing else logging.WARNING
            logger.log(level, "worker %s could not report: %s", self._worker.worker_id, error)
            self._others_failing = True
        else:
            self._others_failing = False

    def end(self) -> None:
        """Tell what is left to tell, and take the worker off the list."""
        worker = self._worker
        self._tell_others()
        try:
            if not worker.activity.idle:
                worker.store.report(self._about(), worker.activity)
            worker.store.leave(worker.worker_id)
        except Exception:
            # It is only about the worker: what it did is safe. The list shows it as lost.
            logger.warning("worker %s could not sign off", worker.worker_id, exc_info=True)

    def _about(self) -> WorkerInfo:
        worker = self._worker
        handlers = list(worker._by_kind.values())
        return WorkerInfo(
            worker.worker_id,
            socket.gethostname(),
            os.getpid(),
            None,
            None,
            tuple(sorted(handler.kind for handler in handlers)),
            capacity(handlers, worker.slots, worker.async_slots),
            worker.in_flight,
            worker.vitals.stopping,
        )


def capacity(handlers: list[Handler], slots: int, async_slots: int) -> int:
    """How many of these handlers can run at once."""
    asynchronous = any(handler.asynchronous for handler in handlers)
    threads = any(not handler.asynchronous and not handler.inline for handler in handlers)
    inline = any(handler.inline for handler in handlers)
    return slots * threads + async_slots * asynchronous + inline
