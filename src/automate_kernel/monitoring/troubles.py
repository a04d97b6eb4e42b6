"""Worker processes that end before they can work, told where the others tell of themselves."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from automate_kernel.outbox.worker_reports import WorkerInfo
from automate_kernel.secrets.logs import get_logger
from automate_kernel.worker.statistics import ActivityLog

if TYPE_CHECKING:
    from automate_kernel.outbox import OutboxStore

__all__ = ["Troubles", "telling_troubles"]

logger: logging.Logger = get_logger(__name__)


_LOOK_SECONDS = 1.0
_TELL_SECONDS = 10.0
# A process that ended again and again is alive in between, for as long as it takes to begin.
_OVER_SECONDS = 20.0


class Troubles:
    """
    Tells *outbox* of worker processes that can't begin, as if of a worker with that problem.

    *failing* says what is wrong at the moment, nothing if all is well. Once there has been nothing
    for a while, the entry is taken back.
    """

    def __init__(
        self,
        outbox: OutboxStore,
        failing: Callable[[], Sequence[str]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._outbox, self._failing, self._clock = outbox, failing, clock
        self._id = f"{socket.gethostname()}-{os.getpid()}-supervisor"[:200]
        self._told: str | None = None
        self._told_at = self._seen_at = 0.0

    def look(self) -> None:
        """Tell what is wrong now, if that is new or some time has passed."""
        problem, now = "; ".join(self._failing()), self._clock()
        if problem:
            self._seen_at = now
            if self._told != problem or now - self._told_at >= _TELL_SECONDS:
                self._tell(problem)
                self._told, self._told_at = problem, now
        elif self._told is not None:
            if now - self._seen_at >= _OVER_SECONDS:
                self.end()
            elif now - self._told_at >= _TELL_SECONDS:
                self._tell(self._told)
                self._told_at = now

    def end(self) -> None:
        """Take it back."""
        if self._told is not None:
            self._outbox.leave(self._id)
            self._told = None

    def _tell(self, problem: str) -> None:
        about = WorkerInfo(self._id, socket.gethostname(), os.getpid(), None, None, problem=problem)
        self._outbox.report(about, ActivityLog())


@contextmanager
def telling_troubles(
    outbox: OutboxStore | None, failing: Callable[[], Sequence[str]]
) -> Iterator[None]:
    """Tell *outbox* what is *failing* while the block runs; see `Troubles`."""
    if outbox is None:
        yield
        return
    troubles, ended = Troubles(outbox, failing), threading.Event()

    def work() -> None:
        while not ended.wait(_LOOK_SECONDS):
            _carefully(troubles.look)

    thread = threading.Thread(target=work, name="automate-troubles", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(5)
        _carefully(troubles.end)


def _carefully(work: Callable[[], None]) -> None:
    try:
        work()
    except Exception as error:
        # It may be the database that keeps them from beginning. The log has it in any case.
        logger.debug("the troubles of worker processes could not be told: %s", error)
