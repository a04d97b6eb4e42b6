"""Several worker processes under one that watches over them."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import Any

__all__ = ["Processes", "handling_signals"]

logger = logging.getLogger(__name__)
_AGAIN_SECONDS = 1.0


class Processes:
    """
    Runs ``target(**options)`` in *count* processes, and one that dies again.

    A process that ends with 0 has done its work. Signals to stop are passed on, so that each one
    drains; they end too when this process is gone.
    """

    def __init__(self, count: int, target: Callable[..., None], options: Mapping[str, Any]) -> None:
        # Spawned: a fork would copy open connections and locks that other threads hold.
        self._context = multiprocessing.get_context("spawn")
        self._target, self._options = target, dict(options)
        self._stopping = threading.Event()
        self._processes = [self._start() for _ in range(count)]

    def _start(self) -> Any:
        process = self._context.Process(
            target=_child, args=(self._target, self._options), name="automate-worker"
        )
        process.start()
        return process

    def run(self) -> int:
        """Wait until all have ended, and return how many ended with an error."""
        failed = 0
        with handling_signals(self.stop):
            while self._processes:
                wait([process.sentinel for process in self._processes])
                for process in [each for each in self._processes if not each.is_alive()]:
                    process.join()
                    self._processes.remove(process)
                    failed += self._ended(process)
        return failed

    def _ended(self, process: Any) -> bool:
        if process.exitcode == 0:
            return False
        # Not at once: what broke it may still be broken.
        if self._stopping.wait(_AGAIN_SECONDS):
            return bool(process.exitcode != -signal.SIGTERM)
        logger.error("a worker process died (%d) and is started again", process.exitcode)
        self._processes.append(self._start())
        return False

    def stop(self) -> None:
        """Have each of them stop; the second time, at once."""
        self._stopping.set()
        for process in self._processes:
            if process.pid is not None:
                process.terminate()


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


def _child(target: Callable[..., None], options: dict[str, Any]) -> None:
    # The terminal sends Ctrl-C to all of us, and the parent passes it on: once is enough.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import django

    django.setup()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    target(**options)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
