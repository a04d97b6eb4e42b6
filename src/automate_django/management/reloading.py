"""A worker that starts again when code changes, for development."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.utils import autoreload

from automate_kernel.worker.process import handling_signals
from automate_kernel.worker.worker import Worker

__all__ = ["work_with_reloader"]

_RELOAD = 3
"""What Django's reloader exits with to be started again."""
_STOP_SECONDS = 10.0


def work_with_reloader(make: Callable[[], Worker]) -> None:
    """
    Run the worker that *make* makes under Django's reloader, until SIGTERM or Ctrl-C.

    What runs when code changes is handed back, and the new code runs it.
    """
    if os.environ.get(autoreload.DJANGO_AUTORELOAD_ENV) == "true":
        autoreload.run_with_reloader(lambda: _Reloaded(make()).run())
    else:
        sys.exit(_watch_over())


def _watch_over() -> int:
    # Django's own parent kills its child when it is told to stop, and the leases of what runs
    # would keep everybody from it for minutes.
    environment = {**os.environ, autoreload.DJANGO_AUTORELOAD_ENV: "true"}
    stopped = threading.Event()
    while True:
        child = subprocess.Popen(autoreload.get_child_arguments(), env=environment)  # noqa: S603

        def stop(child: subprocess.Popen[bytes] = child) -> None:
            stopped.set()
            child.terminate()

        with handling_signals(stop):
            code = child.wait()
        if code != _RELOAD or stopped.is_set():
            return 0 if stopped.is_set() else code


class _Reloaded:
    """The worker of one life of the code."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._ended = threading.Event()

    def run(self) -> None:
        """Work until code changes or the process is told to stop."""
        autoreload.file_changed.connect(self._changed, weak=False)
        # Django's reloader ends the process from its main thread, with this one still at work.
        atexit.register(self._stop)
        try:
            self._worker.run()
        finally:
            self._ended.set()

    def _changed(self, sender: Any, file_path: Path, **_: Any) -> None:
        self._stop()

    def _stop(self) -> None:
        self._worker.stop(abandon=True)
        self._ended.wait(_STOP_SECONDS)
