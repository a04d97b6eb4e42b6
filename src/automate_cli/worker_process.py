"""A worker in this process, until it is stopped."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

from automate_cli.output import log_to_stderr
from automate_cli.session import Session
from automate_kernel.base.errors import AutomateError
from automate_kernel.http.worker_ports import Ports, run_observed
from automate_kernel.monitoring.process import guarded_process
from automate_kernel.secrets import RedactingFilter
from automate_kernel.secrets.logs import get_logger

WORKER_OPTIONS = (
    "slots", "async_slots", "batch", "poll_seconds", "grace_seconds", "retention_seconds",
    "failed_retention_seconds", "kinds", "exclude_kinds",
)  # fmt: skip
"""The settings below ``worker.`` that a worker takes."""


def work(session: Mapping[str, Any], level: str, board: Connection) -> None:
    """
    Run a worker process of `WorkerProcesses`; *session* is `Session.arguments`.

    It reports its state to *board*; the ports of the settings are its parent's.
    """
    own = Session(**session)
    try:
        log_to_stderr(level, format=own.settings["log_format"])
        work_here(own, level, board)
    except AutomateError as error:
        get_logger(__name__).error("the worker can't run: %s", error)
        sys.exit(1)
    finally:
        own.close()


def work_here(session: Session, level: str, where: Ports | Connection) -> None:
    """
    Run one worker; the first SIGTERM or SIGINT drains it, the second hands back running items.

    It answers probes or reports its state at *where*; see `run_observed`.
    """
    kernel = session.kernel
    log_to_stderr(level, [RedactingFilter(kernel.redactor)], format=session.settings["log_format"])
    worker = kernel.worker(**{name: session.settings[f"worker.{name}"] for name in WORKER_OPTIONS})
    with guarded_process():
        if run_observed(kernel, worker, where):
            # Running items were handed back. Their threads would keep this process from ending.
            logging.shutdown()
            os._exit(0)


def ports_of(session: Session) -> Ports:
    """Return the ports of the settings."""
    names = ("health_port", "metrics_port", "probe_host")
    return Ports(*(session.settings[f"worker.{name}"] for name in names))
