"""A process that runs a worker until somebody stops it."""

from __future__ import annotations

import gc
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from automate_kernel.worker.worker import Worker

# The system gives a signal that comes while the process is stopped (Ctrl-Z, say) to any thread. It
# is handled once the main thread is awake, which so must not wait for anything for longer.
LOOK_SECONDS = 0.5
# Windows has no SIGHUP.
FROM_TERMINAL = [getattr(signal, name) for name in ("SIGINT", "SIGHUP") if hasattr(signal, name)]
"""The signals that stop all processes of a terminal: of Ctrl-C, and of its end."""
# Python 3.12 itself begins with some frozen objects.
_FROZEN_BY_PYTHON = gc.get_freeze_count()


@contextmanager
def handling_signals(stop: Callable[[], None]) -> Iterator[None]:
    """
    Call *stop* on SIGTERM, SIGINT and SIGHUP while the block runs; an ignored signal stays ignored.
    """

    def handle(number: int, frame: Any) -> None:
        # On a thread: the interrupted code may hold the very lock that *stop* needs.
        threading.Thread(target=stop, daemon=True).start()

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, *FROM_TERMINAL):
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_until_stopped(worker: Worker) -> bool:
    """
    Run *worker* here; a first SIGTERM, SIGINT or SIGHUP drains it, a second one hands back.

    For a process that does nothing else: what is in memory by now is frozen for the garbage
    collector, so that it need not walk all of it while items come and go.
    Returns True if something was left running, whose threads may keep the process from ending.
    """
    stops = iter((False,))
    abandoned = []

    def stop() -> None:
        if next(stops, True):
            abandoned.append(True)
        worker.stop(abandon=bool(abandoned))

    with handling_signals(stop), _settled_memory():
        worker.run()
    return bool(abandoned) or worker.in_flight > 0


@contextmanager
def _settled_memory() -> Iterator[None]:
    # Modules, plugins and mappings are for good, and there are so many that the full collections
    # which thousands of short-lived items bring about take a fifth of a worker's time.
    frozen = gc.get_freeze_count()
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        if frozen <= _FROZEN_BY_PYTHON:  # else the host froze what it has, for reasons of its own
            gc.unfreeze()
