"""Reports of worker processes that end before they can work, among the reports of workers."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from automate_kernel.outbox.store import OutboxStore
from automate_kernel.outbox.worker_reports import WorkerInfo
from automate_kernel.secrets.logs import get_logger
from automate_kernel.worker.statistics import ActivityLog

logger: logging.Logger = get_logger(__name__)

_LOOK_SECONDS = 1.0
_REPORT_SECONDS = 10.0
# A process that ended again and again is alive in between, for as long as it takes to begin.
_OVER_SECONDS = 20.0


class StartFailures:
    """
    Reports worker processes that can't begin to *outbox*, as one worker with that problem.

    *failing* gives the problems at the moment. Once there have been none for a while, the report
    is taken back.
    """

    def __init__(
        self,
        outbox: OutboxStore,
        failing: Callable[[], Sequence[str]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._outbox, self._failing, self._clock = outbox, failing, clock
        self._id = f"{socket.gethostname()}-{os.getpid()}-supervisor"[:200]
        self._reported: str | None = None
        self._reported_at = self._seen_at = 0.0

    def look(self) -> None:
        """Report the problem of the moment, if it is new or some time has passed."""
        problem, now = "; ".join(self._failing()), self._clock()
        if problem:
            self._seen_at = now
        elif now - self._seen_at >= _OVER_SECONDS:
            self.end()
        else:
            problem = self._reported or ""
        due = now - self._reported_at >= _REPORT_SECONDS
        if problem and (due or problem != self._reported):
            host, pid = socket.gethostname(), os.getpid()
            about = WorkerInfo(self._id, host, pid, None, None, problem=problem)
            self._outbox.report(about, ActivityLog())
            self._reported, self._reported_at = problem, now

    def end(self) -> None:
        """Take the report back."""
        if self._reported is not None:
            self._outbox.leave(self._id)
            self._reported = None


@contextmanager
def reporting_start_failures(
    outbox: OutboxStore, failing: Callable[[], Sequence[str]]
) -> Iterator[None]:
    """Report to *outbox* what is *failing* while the block runs; see `StartFailures`."""
    failures, ended = StartFailures(outbox, failing), threading.Event()

    def work() -> None:
        while not ended.wait(_LOOK_SECONDS):
            _try(failures.look)

    thread = threading.Thread(target=work, name="automate-start-failures", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(5)
        _try(failures.end)


def _try(work: Callable[[], None]) -> None:
    try:
        work()
    except Exception as error:
        # It may be the database that keeps them from beginning. The log has it in any case.
        logger.debug("failed starts of worker processes could not be reported: %s", error)
