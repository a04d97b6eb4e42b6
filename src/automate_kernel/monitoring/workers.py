"""Run workers so that whoever operates them can ask how they are."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from automate_kernel.http.probes import Probes
from automate_kernel.monitoring.health import Board, Probe, WorkerProbe, keep_telling
from automate_kernel.monitoring.troubles import telling_troubles
from automate_kernel.secrets.logs import get_logger
from automate_kernel.worker.process import handling_signals, run_until_stopped
from automate_kernel.worker.supervisor import Supervisor

if TYPE_CHECKING:
    from automate_kernel.kernel import Kernel
    from automate_kernel.outbox import OutboxStore
    from automate_kernel.worker import Worker

__all__ = ["Ports", "Workers", "answering", "run_observed", "supervise_observed"]

logger: logging.Logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Ports:
    """Where to answer; see `automate_kernel.http.probes.Probes`."""

    health_port: int | None = None
    metrics_port: int | None = None
    host: str = "127.0.0.1"

    def __bool__(self) -> bool:
        return self.health_port is not None or self.metrics_port is not None


@contextmanager
def answering(kernel: Kernel, probe: Probe | None, ports: Ports) -> Iterator[None]:
    """Answer for *probe*, and for the outbox of *kernel*, on *ports* while the block runs."""
    if not ports:
        yield
        return
    with Probes(
        kernel,
        probe,
        health_port=ports.health_port,
        metrics_port=ports.metrics_port,
        host=ports.host,
    ) as probes:
        for url in probes.urls:
            logger.info("probes and metrics on %s", url)
        yield


def run_observed(kernel: Kernel, worker: Worker, where: Ports | Connection) -> bool:
    """
    Run *worker* as `run_until_stopped` does, and tell how it is.

    *where* is either the ports to answer on or, in a process that another one watches over, the
    pipe to its board: of several processes only one can have a port.
    """
    probe = WorkerProbe(kernel, worker)
    with answering(kernel, probe, where) if isinstance(where, Ports) else _telling(where, probe):
        return run_until_stopped(worker)


class Workers:
    """
    Worker processes that tell this one how they are: a `Supervisor` and a `Board`.

    *target* is given the *options* and a ``board``, for `run_observed`. *outbox* is told of those
    that end again and again, so that whoever looks at its workers sees it.
    """

    def __init__(
        self,
        count: int,
        target: Callable[..., None],
        options: Mapping[str, Any],
        *,
        outbox: OutboxStore | None = None,
        prepare: Callable[[], Any] | None = None,
    ) -> None:
        self._outbox = outbox
        self.probe: Board = Board(
            lambda: self._supervisor.pids, troubles=lambda: self._supervisor.troubles
        )
        """How they are: for the pages of this process."""
        given = {**options, "board": self.probe.writer}
        self._supervisor = Supervisor(count, target, given, prepare=prepare)

    def run(self) -> int:
        """Run them until they are stopped; returns how many ended with an error."""
        try:
            with telling_troubles(self._outbox, lambda: self._supervisor.failing):
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
    Run a `Supervisor` until it is stopped, and answer on *ports* for all of its processes.

    *target* is given a ``board`` beside *options*, for `run_observed`. Returns how many processes
    ended with an error.
    """
    workers = Workers(count, target, options, outbox=kernel.outbox, prepare=prepare)
    with answering(kernel, workers.probe, ports), handling_signals(workers.stop):
        return workers.run()


@contextmanager
def _telling(board: Connection, probe: Probe) -> Iterator[None]:
    ended = threading.Event()
    threading.Thread(
        target=keep_telling, args=(board, probe, ended), name="automate-telling", daemon=True
    ).start()
    try:
        yield
    finally:
        ended.set()
