"""Run workers so that whoever operates them can ask how they are."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from automate_kernel.outbox.running import handling_signals, run_until_stopped
from automate_kernel.outbox.supervisor import Supervisor
from automate_kernel.telemetry.health import Board, Probe, WorkerProbe, keep_telling
from automate_kernel.telemetry.serving import Probes

if TYPE_CHECKING:
    from automate_kernel.kernel import Kernel
    from automate_kernel.outbox import Worker

__all__ = ["Ports", "answering", "run_observed", "supervise_observed"]

logger: logging.Logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ports:
    """Where to answer; see `automate_kernel.telemetry.serving.Probes`."""

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


def run_observed(
    kernel: Kernel, worker: Worker, ports: Ports, *, board: Connection | None = None
) -> bool:
    """
    `run_until_stopped`, and answer on *ports* meanwhile; in one of several processes tell *board*.
    """
    probe = WorkerProbe(kernel, worker)
    with answering(kernel, probe, ports) if board is None else _telling(board, probe):
        return run_until_stopped(worker)


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
    board = Board(lambda: supervisor.pids)
    supervisor = Supervisor(count, target, {**options, "board": board.writer}, prepare=prepare)

    def stop() -> None:
        board.stopping = True
        supervisor.stop()

    try:
        with answering(kernel, board, ports), handling_signals(stop):
            return supervisor.run()
    finally:
        board.close()


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
