"""Workers with ports for probes and metrics: in this process, or in several processes under it."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import Any

from automate_kernel.http.probes import Probes
from automate_kernel.kernel import Kernel
from automate_kernel.monitoring.health import Probe, ProcessesProbe, WorkerProbe, keep_reporting
from automate_kernel.outbox.store import OutboxStore
from automate_kernel.outbox.worker_reports import WorkerInfo
from automate_kernel.secrets.logs import get_logger
from automate_kernel.worker.process import handling_signals, run_until_stopped
from automate_kernel.worker.reporter import ActivityLog
from automate_kernel.worker.supervisor import Supervisor
from automate_kernel.worker.worker import Worker

logger: logging.Logger = get_logger(__name__)

_LOOK_SECONDS = 1.0
_REPORT_SECONDS = 10.0
# A process that ended again and again is alive in between, for as long as it takes to begin.
_OVER_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports to answer on; see `automate_kernel.http.probes.Probes`."""

    health_port: int | None = None
    metrics_port: int | None = None
    host: str = "127.0.0.1"

    def __bool__(self) -> bool:
        return self.health_port is not None or self.metrics_port is not None


def answering(kernel: Kernel, probe: Probe, ports: Ports) -> Probes:
    """Answer for *probe*, and for the outbox of *kernel*, on *ports* while its block runs."""
    return Probes(kernel, probe, **asdict(ports))


def run_observed(kernel: Kernel, worker: Worker, where: Ports | Connection) -> bool:
    """
    Run *worker* as `run_until_stopped` does, and report its health.

    *where* is either the ports to answer on or, in a process that another one watches over, the
    pipe to its `ProcessesProbe`: of several processes only one can have a port.
    """
    probe = WorkerProbe(kernel, worker)
    answers = answering(kernel, probe, where) if isinstance(where, Ports) else _piped(where, probe)
    with answers:
        return run_until_stopped(worker)


@contextmanager
def _piped(writer: Connection, probe: Probe) -> Iterator[None]:
    ended = threading.Event()
    threading.Thread(
        target=keep_reporting, args=(writer, probe, ended), name="automate-reporting", daemon=True
    ).start()
    try:
        yield
    finally:
        ended.set()


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
            self._outbox.remove_worker(self._id)
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


class WorkerProcesses:
    """
    Worker processes that report their health to this process.

    *target* is given the *options* and a ``board``, the pipe for `run_observed`. Processes that
    end again and again are reported to *outbox*, for everybody who looks at its workers.
    """

    def __init__(
        self,
        count: int,
        target: Callable[..., None],
        options: Mapping[str, Any],
        *,
        outbox: OutboxStore,
        prepare: Callable[[], Any] | None = None,
    ) -> None:
        self._outbox = outbox
        self.probe: ProcessesProbe = ProcessesProbe(
            lambda: self._supervisor.pids, troubles=lambda: self._supervisor.troubles
        )
        """Their health, for the pages of this process."""
        given = {**options, "board": self.probe.writer}
        self._supervisor = Supervisor(count, target, given, prepare=prepare)

    def run(self) -> int:
        """Run them until they are stopped, and return how many ended with an error."""
        try:
            with reporting_start_failures(self._outbox, lambda: self._supervisor.failing):
                return self._supervisor.run()
        finally:
            self.probe.close()

    def stop(self) -> None:
        """Let them finish; the second time at once, the third time kill them."""
        self.probe.stopping = True
        self._supervisor.stop()


def supervise_observed(
    kernel: Kernel,
    count: int,
    target: Callable[..., None],
    options: Mapping[str, Any],
    ports: Ports,
    *,
    prepare: Callable[[], Any] | None = None,
) -> int:
    """
    Run `WorkerProcesses` until they are stopped, and answer on *ports* for all of their processes.

    Returns how many processes ended with an error.
    """
    workers = WorkerProcesses(count, target, options, outbox=kernel.outbox, prepare=prepare)
    with answering(kernel, workers.probe, ports), handling_signals(workers.stop):
        return workers.run()
