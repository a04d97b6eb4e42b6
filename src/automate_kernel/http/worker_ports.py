"""Workers with ports for probes and metrics: one in this process, or several under this one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import Any

from automate_kernel.http.probes import Probes
from automate_kernel.kernel import Kernel
from automate_kernel.monitoring.health import Probe, ProcessesProbe, WorkerProbe, keep_reporting
from automate_kernel.monitoring.start_failures import reporting_start_failures
from automate_kernel.outbox.store import OutboxStore
from automate_kernel.worker.process import handling_signals, run_until_stopped
from automate_kernel.worker.supervisor import Supervisor
from automate_kernel.worker.worker import Worker


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


class WorkerProcesses:
    """
    Worker processes that report their health to this one.

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
