"""Run a worker in this process until it is told to stop."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from automate_kernel.cli.logs import log_to_stderr
from automate_kernel.cli.session import Session
from automate_kernel.errors import AutomateError, ConfigError, StorageError
from automate_kernel.kernel import Kernel
from automate_kernel.outbox.supervisor import run_until_stopped
from automate_kernel.secrets import RedactingFilter
from automate_kernel.storage import MemoryStorage
from automate_kernel.telemetry.health import Probe, WorkerProbe, keep_telling
from automate_kernel.telemetry.serving import Probes

__all__ = ["probes", "require_shared", "require_tables", "work", "work_here", "worker_options"]

logger = logging.getLogger(__name__)

_OPTIONS = (
    "slots", "async_slots", "batch", "poll_seconds", "grace_seconds", "retention_seconds",
    "failed_retention_seconds",
)  # fmt: skip


def worker_options(session: Session) -> dict[str, Any]:
    """The options for `Kernel.worker` in the settings."""
    section = session.settings.section("worker")
    return {name: section[name] for name in _OPTIONS}


def require_shared(kernel: Kernel) -> None:
    """Raise `ConfigError` for a kernel whose storage other processes can't see."""
    if isinstance(kernel.storage, MemoryStorage):
        raise ConfigError(
            "app is a kernel that keeps everything in this process's memory",
            hint="give it a storage, or let app be a function that is called with the kernel",
        )


def require_tables(kernel: Kernel) -> None:
    """Raise `StorageError` if tables are missing, rather than try and try again."""
    from automate_kernel.cli.database import missing_tables

    if hasattr(kernel.storage, "engine") and (missing := missing_tables(kernel.storage)):
        raise StorageError(
            f"{kernel.storage.describe()}: {len(missing)} tables are missing",
            hint="run automate db create, or add the tables to your Alembic migrations",
        )


def work(session: Mapping[str, Any], level: str, board: Connection | None = None) -> None:
    """
    What a worker process does: see `Supervisor`. *session* is `Session.arguments`.

    It tells *board* how it is; see `automate_kernel.telemetry.health.Board`.
    """
    own = Session(**session)
    try:
        log_to_stderr(level, format=own.settings["log_format"])
        work_here(own, level, board)
    except AutomateError as error:
        logging.getLogger(__name__).error("the worker can't run: %s", error)
        sys.exit(1)
    finally:
        own.close()


def work_here(session: Session, level: str, board: Connection | None = None) -> None:
    """
    Run one worker; the first SIGTERM or SIGINT drains it, the second hands back what runs.

    How it is can be asked over HTTP, if the settings say so, or is told to *board*.
    """
    kernel = session.kernel
    log_to_stderr(level, [RedactingFilter(kernel.redactor)], format=session.settings["log_format"])
    worker = kernel.worker(**worker_options(session))
    probe = WorkerProbe(kernel, worker)
    with probes(session, probe) if board is None else _telling(board, probe):
        left_running = run_until_stopped(worker)
    if left_running:
        # What still runs was handed back. Its threads would keep this process from ending.
        logging.shutdown()
        os._exit(0)


@contextmanager
def probes(session: Session, probe: Probe | None) -> Iterator[None]:
    """Answer for *probe*, and for the outbox, on the ports that the settings name, if any."""
    settings = session.settings
    ports = {name: settings[f"worker.{name}"] for name in ("health_port", "metrics_port")}
    if not any(port is not None for port in ports.values()):
        yield
        return
    with Probes(session.kernel, probe, host=settings["worker.probe_host"], **ports) as serving:
        for url in serving.urls:
            logger.info("probes and metrics on %s", url)
        yield


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
