"""Running a worker until somebody stops its process."""

from __future__ import annotations

import gc
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from automate_kernel.worker.worker import Worker

__all__ = [
    "Flag",
    "handling_signals",
    "run_until_stopped",
]

# Python 3.12 itself begins with some frozen objects.
_FROZEN_BY_PYTHON = gc.get_freeze_count()


@contextmanager
def handling_signals(stop: Callable[[], None]) -> Iterator[None]:
    """While the block runs, SIGTERM and SIGINT call *stop*; one that is ignored stays ignored."""

    def handle(number: int, frame: Any) -> None:
        # On a thread: the interrupted code may hold the very lock that *stop* needs.
        threading.Thread(target=stop, daemon=True).start()

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_until_stopped(worker: Worker) -> bool:
    """
    Run *worker* here; the first SIGTERM or SIGINT drains it, the second hands back what runs.

    For a process that does nothing else: what is in memory by now is taken out of the garbage
    collector's sight, so that it need not walk all of it while items come and go.
    Returns whether something was left running, whose threads may keep the process from ending.
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


class Flag(threading.Event):
    """
    A `threading.Event` that can be set while the same thread is in the middle of using it.

    A signal handler runs between two steps of the main thread. If that one just holds the lock of
    an ordinary event, the handler waits for it for ever.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition(threading.RLock())
        self._is_set = False

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._is_set

    def set(self) -> None:
        """Set it, and wake who waits."""
        self._is_set = True
        with self._condition:
            self._condition.notify_all()

    def clear(self) -> None:
        """Take it back."""
        self._is_set = False

    def wait(self, timeout: float | None = None) -> bool:
        """Block until it is set, for at most *timeout* seconds; whether it is."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._is_set:
            # In parts: a signal that comes right before the wait begins is seen after one.
            left = 0.5 if deadline is None else min(0.5, deadline - time.monotonic())
            if left <= 0:
                break
            with self._condition:
                if not self._is_set:
                    self._condition.wait(left)
        return self._is_set
