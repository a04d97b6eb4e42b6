"""The sender of signals has a thread of its own: a slow receiver holds up nothing else."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context, copy_context
from copy import copy
from queue import Empty, Full, Queue
from typing import Any

from automate_kernel import signals
from automate_kernel.base.forks import renew_in_children
from automate_kernel.secrets.logs import get_logger
from automate_kernel.workflows.execution import Execution, StepKey, StepRun

logger: logging.Logger = get_logger(__name__)

# Signals that may wait for their receivers. With more the executions wait, so that none is lost.
_MOST_WAITING = 10_000
# Each has a list of the execution's steps, and so many of them count as another signal.
_STEPS_OF_ONE = 100
_LOOK_SECONDS = 0.1


class ExecutionCopies:
    """
    Copies of one execution as it goes on, for receivers that look at it later.

    A copy costs little even where there are thousands of steps: those that have ended are shared.
    """

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._copies: list[StepRun] = []
        self._places: dict[StepKey, int] = {}
        self._open: set[int] = set()
        self._runs = execution.steps

    def take(self, changed: StepRun | None = None) -> Execution:
        """Return a copy as it is now; *changed* is a step that may have ended before."""
        runs = self._execution.steps
        if runs is not self._runs:  # some were forgotten
            self._runs = runs
            self._copies.clear()
            self._places.clear()
            self._open.clear()
        for place in range(len(self._copies), len(runs)):
            self._places[runs[place].key] = place
            self._copies.append(runs[place])
            self._open.add(place)
        if changed is not None:
            self._open.add(self._places[changed.key])
        for place in list(self._open):
            self._copies[place] = copy(runs[place])
            if runs[place].status.finished:
                self._open.discard(place)
        taken = copy(self._execution)
        taken.steps = list(self._copies)
        return taken

    def step(self, key: StepKey) -> StepRun:
        """Return the copy of a step as it was taken last."""
        return self._copies[self._places[key]]


_Entry = tuple[Context, Callable[..., Any], tuple[Any, ...], dict[str, Any]]


class _Waiting(Queue["_Entry | None"]):
    """Signals that wait. Its size is the room that they take, of which there are so many."""

    def _init(self, maxsize: int) -> None:
        super()._init(maxsize)
        self._size = 0

    def _qsize(self) -> int:
        return self._size

    def _put(self, item: _Entry | None) -> None:
        super()._put(item)
        self._size += _room_of(item)

    def _get(self) -> _Entry | None:
        item: _Entry | None = super()._get()
        self._size -= _room_of(item)
        return item

    def __len__(self) -> int:
        return len(self.queue)


def _room_of(entry: _Entry | None) -> int:
    execution = entry[3].get("execution") if entry is not None else None
    return 1 + (len(execution.steps) // _STEPS_OF_ONE if execution is not None else 0)


class SignalSender:
    """
    Calls the receivers of signals on a thread of its own, one after another, in order.

    Where they are too slow for long, `send` waits until there is room.
    """

    def __init__(self) -> None:
        self.renew()
        renew_in_children(self)

    def renew(self) -> None:
        """Begin anew, without the signals that wait: another process sends them."""
        self._waiting = _Waiting(_MOST_WAITING)
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def send(self, signal: Any, sender: Any, **arguments: Any) -> None:
        """Have *signal* sent soon, in the context of this call."""
        if not signals.is_heard(signal, sender):
            return
        self._put(signal.name, signals.emit, (signal, sender), arguments)

    def call(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Have *function* called soon, which sends signals, in the context of this call."""
        self._put(getattr(function, "__name__", "?"), function, arguments, {})

    def _put(
        self, name: str, function: Callable[..., Any], given: tuple[Any, ...], named: dict[str, Any]
    ) -> None:
        entry = copy_context(), function, given, named
        while not self._stopped.is_set():
            self._start()
            try:
                self._waiting.put(entry, timeout=_LOOK_SECONDS)
            except Full:
                continue
            return
        logger.warning("signal %s is not sent: its receivers are too slow", name)

    def _start(self) -> None:
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    thread = threading.Thread(target=self._serve, name=signals.THREAD, daemon=True)
                    # Where the machine has no more threads, the next signal tries again.
                    with suppress(RuntimeError):
                        thread.start()
                        self._thread = thread

    def _serve(self) -> None:
        while (entry := self._waiting.get()) is not None:
            context, function, given, named = entry
            try:
                context.run(function, *given, **named)
            except BaseException as error:  # SystemExit too: the signals after it are to be sent
                logger.error("a signal could not be sent: %s", error, exc_info=error)

    def stop(self, seconds: float) -> None:
        """Send what waits, for at most *seconds*; then drop the rest, with a warning."""
        if len(self._waiting):
            self._start()
        thread, deadline = self._thread, time.monotonic() + seconds
        if thread is None:
            return
        while thread.is_alive() and time.monotonic() < deadline:
            try:
                self._waiting.put(None, timeout=_LOOK_SECONDS)
            except Full:
                continue
            thread.join(max(0.0, deadline - time.monotonic()))
        self._stopped.set()
        if thread.is_alive():
            left = len(self._waiting)
            logger.warning("%d signals are not sent: a receiver takes too long", left)
            self._drop()

    def _drop(self) -> None:
        try:
            while True:
                self._waiting.get_nowait()
        except Empty:
            self._waiting.put(None)
