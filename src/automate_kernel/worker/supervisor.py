"""The supervisor: it runs several worker processes, and starts them again when they die."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

from automate_kernel.secrets.logs import get_logger
from automate_kernel.worker.process import FROM_TERMINAL, LOOK_SECONDS

logger: logging.Logger = get_logger(__name__)

_LONGEST_PAUSE = 30.0
# After so many doublings each pause is the longest one; without a bound they get too large for one.
_DOUBLINGS = 16
# A process that ran so long was well: the next time it dies, it starts again without much delay.
_WELL_SECONDS = 60.0
# So long may a process take to hand back what runs. A key that is held down comes again and again.
_HAND_BACK_SECONDS = 5.0


@dataclass(slots=True)
class _Slot:
    """A process, with the number of its early deaths in a row."""

    process: Any = None
    started_at: float = 0.0
    crashes: int = 0
    trouble: str = ""
    due_at: float = field(default=0.0)


class Supervisor:
    """
    Runs ``target(**options)`` in *count* processes, and each again that dies.

    *target* and *options* are pickled, and *prepare* is called before *target* (``django.setup``,
    say). A process that ends with 0 has done its work. A process that dies is started again after
    *again_seconds*. The pause doubles each time that it dies soon after.

    The processes end when the supervisor's process is gone, however it ended.
    """

    def __init__(
        self,
        count: int,
        target: Callable[..., None],
        options: Mapping[str, Any] | None = None,
        *,
        prepare: Callable[[], Any] | None = None,
        again_seconds: float = 1.0,
    ) -> None:
        # Spawned: a fork would copy open connections and locks that other threads hold.
        self._context = multiprocessing.get_context("spawn")
        self._arguments = (target, dict(options or {}), prepare)
        self._again_seconds = again_seconds
        self._slots = [_Slot() for _ in range(count)]
        self._lock = threading.RLock()
        self._stops = 0
        self._hurried_at = 0.0
        self._woken: Connection
        self._wake: Connection
        self._woken, self._wake = multiprocessing.Pipe(duplex=False)

    @property
    def pids(self) -> list[int]:
        """The ids of the processes that are alive."""
        with self._lock:
            running = [slot.process for slot in self._slots if slot.process is not None]
            return [process.pid for process in running if process.is_alive()]

    @property
    def troubles(self) -> list[str]:
        """The ends of the processes that died and do not run again yet."""
        return self._troubles(1)

    @property
    def failing(self) -> list[str]:
        """The `troubles` of those that ended so more than once in a row."""
        return self._troubles(2)

    def _troubles(self, crashes: int) -> list[str]:
        with self._lock:
            dead = [
                slot for slot in self._slots if slot.process is None and slot.crashes >= crashes
            ]
            return [
                slot.trouble + (f", {slot.crashes} times in a row" if slot.crashes > 1 else "")
                for slot in dead
            ]

    def start(self) -> None:
        """Start the processes, unless `stop` was called. `run` does it too."""
        with self._lock:
            for slot in self._slots:
                if slot.process is None and not self._stops:
                    self._begin(slot)

    def run(self) -> int:
        """Wait until all have ended for good, and return the number that ended with an error."""
        self.start()
        failed = 0
        while self._slots:
            sentinels = [slot.process.sentinel for slot in self._slots if slot.process is not None]
            if self._woken in wait([*sentinels, self._woken], self._pause()):
                self._woken.recv_bytes()
            failed += self._look_after()
        return failed

    def stop(self) -> None:
        """
        Let the processes finish; the second time hand back what runs; five seconds later, kill.

        Safe to call from any thread. From a signal handler use `handling_signals`.
        """
        with self._lock:
            self._stops += 1
            now = time.monotonic()
            if self._stops == 2:
                self._hurried_at = now
            kills = self._stops > 2 and now - self._hurried_at >= _HAND_BACK_SECONDS
            for slot in self._slots:
                if slot.process is not None and slot.process.is_alive():
                    slot.process.kill() if kills else slot.process.terminate()
            self._wake.send_bytes(b"stop")

    def _begin(self, slot: _Slot) -> None:
        process = self._context.Process(target=_child, args=self._arguments, name="automate-worker")
        process.start()
        slot.process, slot.started_at = process, time.monotonic()

    def _pause(self) -> float:
        due = [slot.due_at for slot in self._slots if slot.process is None]
        left = min(due) - time.monotonic() if due else LOOK_SECONDS
        return min(max(0.0, left), LOOK_SECONDS)

    def _look_after(self) -> int:
        """Note ended processes and start due ones; return how many ended for good with an error."""
        failed = 0
        with self._lock:
            for slot in list(self._slots):
                if slot.process is not None and not slot.process.is_alive():
                    slot.process.join()
                    failed += self._ended(slot)
                elif slot.process is None and self._stops:
                    self._slots.remove(slot)
                elif slot.process is None and slot.due_at <= time.monotonic():
                    try:
                        self._begin(slot)
                    except OSError as error:
                        # The machine has no room for it now, and those that run are to go on.
                        delay = self._put_off(slot, f"a worker process can't be started: {error}")
                        logger.error("%s; the next try is in %gs", slot.trouble, delay)
        return failed

    def _ended(self, slot: _Slot) -> bool:
        process, slot.process = slot.process, None
        if process.exitcode == 0 or self._stops:
            self._slots.remove(slot)
            # Ended by our own signal before it could handle it, it held nothing yet.
            ended = {0, *(-number for number in (signal.SIGTERM, *FROM_TERMINAL))}
            return process.exitcode not in ended
        if time.monotonic() - slot.started_at > _WELL_SECONDS:
            slot.crashes = 0
        reason = _reason(process.exitcode)
        delay = self._put_off(slot, f"a worker process ended with {reason}")
        logger.error(
            "worker process %s ended with %s and is started again in %gs",
            process.pid, reason, delay,
        )  # fmt: skip
        return False

    def _put_off(self, slot: _Slot, trouble: str) -> float:
        """Note *trouble* of a slot, and return the seconds until it is tried again."""
        delay: float = min(_LONGEST_PAUSE, self._again_seconds * 2 ** min(slot.crashes, _DOUBLINGS))
        slot.crashes += 1
        slot.trouble = trouble
        slot.due_at = time.monotonic() + delay
        return delay


def _reason(exitcode: int) -> str:
    if exitcode >= 0:
        return f"exit code {exitcode}"
    try:
        return signal.Signals(-exitcode).name
    except ValueError:
        return f"signal {-exitcode}"


def _child(
    target: Callable[..., None], options: dict[str, Any], prepare: Callable[[], Any] | None
) -> None:
    # All of us get them, and the parent passes them on: once is enough.
    for number in FROM_TERMINAL:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        if prepare is not None:
            prepare()
        target(**options)
    except Exception:
        # Else the standard library would print it, with the secrets in it.
        logger.exception("worker process %d can't go on", os.getpid())
        sys.exit(1)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
