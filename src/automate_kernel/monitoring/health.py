"""
Health of workers: probes that say if they are alive, and if they are ready.

A worker is *alive* while its threads move, even if the database is down; else it needs a new
process. It is *ready* while it does its work.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Protocol

from automate_kernel.base import runtime
from automate_kernel.secrets.logs import get_logger
from automate_kernel.storage.shortage import TooManyConnectionsError, warn_of

if TYPE_CHECKING:
    from automate_kernel.kernel import Kernel
    from automate_kernel.worker import Worker

__all__ = ["Probe", "ProcessesProbe", "WorkerProbe", "database_problems", "keep_reporting"]

logger: logging.Logger = get_logger(__name__)

_REPORT_SECONDS = 5.0
_UNREADY_SECONDS = 0.5
_SILENT_SECONDS = 60.0


class Probe(Protocol):
    """The health of a process, or of several."""

    def live(self) -> list[str]:
        """Return the reasons why a new process is needed. Never blocks."""

    def ready(self) -> list[str]:
        """Return the reasons why it does not work now. May ask the database."""


def database_problems(kernel: Kernel) -> list[str]:
    """Return the problem with the database of *kernel*, if there is any, without its details."""
    try:
        kernel.outbox.next_due_seconds()
    except TooManyConnectionsError as error:
        warn_of(logger, error, "not ready: %s")
        return ["the database takes no more connections"]
    except Exception as error:
        # The details are for the log: whoever may ask a probe need not know the database.
        logger.warning("not ready: %s", kernel.redactor.redact(str(error) or repr(error)))
        return ["the database can't be used"]
    return []


class WorkerProbe:
    """The health of one worker of this process."""

    def __init__(self, kernel: Kernel, worker: Worker) -> None:
        self._kernel = kernel
        self._liveness = worker.liveness

    def live(self) -> list[str]:
        """Return the threads that are stuck."""
        return [f"the {thread} is stuck" for thread in self._liveness.stuck()]

    def ready(self) -> list[str]:
        """Return the reasons why it can't claim."""
        problems = self.live()
        if self._liveness.stopping:
            problems.append("it is stopping")
        elif not self._liveness.began:
            problems.append("it has not begun")
        elif self._liveness.failing():
            problems.append("claims fail")
        return problems + database_problems(self._kernel)


class ProcessesProbe:
    """
    The health of workers in other processes, which report it through a pipe.

    *pids* gives the processes that there are. Each reports every few seconds, from a thread of
    its own (`keep_reporting`): a process that is silent for a minute is frozen. *troubles* gives
    the ends of processes that ought to be there, and are not.
    """

    def __init__(
        self,
        pids: Callable[[], Sequence[int]],
        *,
        troubles: Callable[[], Sequence[str]] = tuple,
        clock: Callable[[], float] = runtime.clock,
    ) -> None:
        self._pids, self._troubles, self._clock = pids, troubles, clock
        self._reader: Connection
        self.writer: Connection
        """For the processes, which share it: a report of each fits in the pipe at once."""
        self._reader, self.writer = multiprocessing.Pipe(duplex=False)
        self._reports: dict[int, tuple[list[str], list[str]]] = {}
        self._heard_at: dict[int, float] = {}
        self.stopping = False
        runtime.Thread(target=self._listen, name="automate-reports", daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                report = json.loads(self._reader.recv_bytes())
            except (EOFError, OSError):
                return
            self.hear(report["pid"], report["live"], report["ready"])

    def hear(self, pid: int, live: list[str], ready: list[str]) -> None:
        """Note the report of a process."""
        self._reports[pid] = live, ready
        self._heard_at[pid] = self._clock()

    def live(self) -> list[str]:
        """Return the problems of the processes that are there."""
        problems, now, pids = [], self._clock(), list(self._pids())
        for gone in self._heard_at.keys() - set(pids):
            self._heard_at.pop(gone, None)
            self._reports.pop(gone, None)
        for pid in pids:
            # From the first look on, for a process that has only just been started.
            heard_at = self._heard_at.setdefault(pid, now)
            if now - heard_at > _SILENT_SECONDS:
                problems.append(f"process {pid} is silent")
            problems += [f"process {pid}: {each}" for each in self._reports.get(pid, ([], []))[0]]
        return problems

    def ready(self) -> list[str]:
        """Return the reasons why none of them works; nothing if one does."""
        if self.stopping:
            return ["it is stopping"]
        problems, reports = self.live(), [self._reports.get(pid) for pid in self._pids()]
        if any(each is not None and not each[1] for each in reports):
            return problems
        reasons = {reason for each in reports if each is not None for reason in each[1]}
        reasons.update(self._troubles())
        return problems + (sorted(reasons) or ["no process has begun"])

    def close(self) -> None:
        """Hear nothing more."""
        self.writer.close()


def keep_reporting(writer: Connection, probe: Probe, ended: runtime.Event) -> None:
    """
    Report to a `ProcessesProbe` how *probe* finds this process, until *ended* is set.

    It does so every few seconds, and more often while the process isn't ready: nobody should wait
    longer for its beginning than it takes.
    """
    while True:
        report = {"pid": os.getpid(), "live": probe.live(), "ready": probe.ready()}
        try:
            writer.send_bytes(json.dumps(report).encode())
        except OSError:
            return  # nobody listens any more
        if ended.wait(_UNREADY_SECONDS if report["ready"] else _REPORT_SECONDS):
            return
