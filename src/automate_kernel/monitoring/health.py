"""
Whether a worker is alive, and whether it can work.

*Alive* asks for a new process: its threads move, though the database be down. *Ready* tells that it
does its work now.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from automate_kernel.kernel import Kernel
    from automate_kernel.worker import Worker

__all__ = ["Board", "Probe", "WorkerProbe", "keep_telling"]

from automate_kernel.logs import get_logger

logger: logging.Logger = get_logger(__name__)

_TELL_SECONDS = 5.0
_UNREADY_TELL_SECONDS = 0.5
_SILENT_SECONDS = 60.0


class Probe(Protocol):
    """What is asked how it is."""

    def live(self) -> list[str]:
        """Why a new process is needed; nothing if it isn't. Never blocks."""

    def ready(self) -> list[str]:
        """Why it does not work now; nothing if it does. May ask the database."""


class WorkerProbe:
    """How one worker of this process is."""

    def __init__(self, kernel: Kernel, worker: Worker) -> None:
        self._kernel = kernel
        self._vitals = worker.liveness

    def live(self) -> list[str]:
        """The threads that are stuck."""
        return [f"the {thread} is stuck" for thread in self._vitals.stuck()]

    def ready(self) -> list[str]:
        """Why it can't claim."""
        problems = self.live()
        if self._vitals.stopping:
            problems.append("it is stopping")
        elif not self._vitals.began:
            problems.append("it has not begun")
        elif self._vitals.failing():
            problems.append("claims fail")
        try:
            self._kernel.outbox.next_due_seconds()
        except Exception as error:
            # What exactly is for the log: whoever may ask a probe need not know the database.
            text = str(error) or repr(error)
            logger.warning("not ready: %s", self._kernel.redactor.redact(text))
            problems.append("the database can't be used")
        return problems


class Board:
    """
    How the workers in other processes are, as they tell through a pipe.

    *pids* gives the processes that there are. Each tells every few seconds, from a thread of
    its own (`keep_telling`): one that is silent for a minute is frozen. *troubles* says of those
    that ought to be there, and are not, how they ended.
    """

    def __init__(
        self,
        pids: Callable[[], Sequence[int]],
        *,
        troubles: Callable[[], Sequence[str]] = tuple,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pids, self._troubles, self._clock = pids, troubles, clock
        self._reader: Connection
        self.writer: Connection
        """For the processes, which share it: what each writes fits in the pipe at once."""
        self._reader, self.writer = multiprocessing.Pipe(duplex=False)
        self._told: dict[int, tuple[list[str], list[str]]] = {}
        self._heard_at: dict[int, float] = {}
        self.stopping = False
        threading.Thread(target=self._listen, name="automate-board", daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                told = json.loads(self._reader.recv_bytes())
            except (EOFError, OSError):
                return
            self.hear(told["pid"], told["live"], told["ready"])

    def hear(self, pid: int, live: list[str], ready: list[str]) -> None:
        """Note what a process told."""
        self._told[pid] = live, ready
        self._heard_at[pid] = self._clock()

    def live(self) -> list[str]:
        """What is wrong with the processes that are there."""
        problems, now, pids = [], self._clock(), list(self._pids())
        for gone in self._heard_at.keys() - set(pids):
            self._heard_at.pop(gone, None)
            self._told.pop(gone, None)
        for pid in pids:
            # From the first look on, for one that has only just been started.
            heard_at = self._heard_at.setdefault(pid, now)
            if now - heard_at > _SILENT_SECONDS:
                problems.append(f"process {pid} is silent")
            problems += [f"process {pid}: {each}" for each in self._told.get(pid, ([], []))[0]]
        return problems

    def ready(self) -> list[str]:
        """Why none of them works; nothing if one does."""
        if self.stopping:
            return ["it is stopping"]
        problems, told = self.live(), [self._told.get(pid) for pid in self._pids()]
        if any(each is not None and not each[1] for each in told):
            return problems
        reasons = {reason for each in told if each is not None for reason in each[1]}
        reasons.update(self._troubles())
        return problems + (sorted(reasons) or ["no process has begun"])

    def close(self) -> None:
        """Hear nothing more."""
        self.writer.close()


def keep_telling(
    writer: Connection, probe: Probe, ended: threading.Event, *, every: float = _TELL_SECONDS
) -> None:
    """
    Tell a `Board` how *probe* finds this process, until *ended* is set.

    That is *every* so many seconds, and more often while it isn't ready: who waits for it to begin
    should not wait for a report.
    """
    while True:
        told = {"pid": os.getpid(), "live": probe.live(), "ready": probe.ready()}
        try:
            writer.send_bytes(json.dumps(told).encode())
        except OSError:
            return  # nobody listens any more
        if ended.wait(min(every, _UNREADY_TELL_SECONDS) if told["ready"] else every):
            return
