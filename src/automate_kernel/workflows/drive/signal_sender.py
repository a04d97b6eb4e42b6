"""The sender of signals has a thread of its own: a slow receiver holds up nothing else."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context, copy_context
from copy import copy
from typing import Any

from automate_kernel import signals
from automate_kernel.base import runtime
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


class _Waiting:
    """Signals that wait. Its size is the room that they take, of which there are so many."""

    def __init__(self) -> None:
        self._entries: deque[_Entry | None] = deque()
        self._size = 0
        lock = runtime.Lock()
        self._filled, self._freed = runtime.Condition(lock), runtime.Condition(lock)

    def full(self) -> bool:
        """Return True if there is no room."""
        return self._size >= _MOST_WAITING

    def put(self, entry: _Entry | None, seconds: float) -> bool:
        """Put *entry* last; return False if there is no room for so many *seconds*."""
        with self._freed:
            if not self._freed.wait_for(lambda: not self.full(), seconds):
                return False
            self._entries.append(entry)
            self._size += _room_of(entry)
            self._filled.notify()
        return True

    def get(self) -> _Entry | None:
        """Take the first, when there is one."""
        with self._filled:
            self._filled.wait_for(lambda: self._entries)
            entry = self._entries.popleft()
            self._size -= _room_of(entry)
            self._freed.notify()
        return entry

    def drop(self) -> None:
        """Drop all, and have the thread that sends them end."""
        with self._filled:
            self._entries.clear()
            self._entries.append(None)
            self._size = 1
            self._filled.notify()

    def __len__(self) -> int:
        return len(self._entries)


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
        self._waiting = _Waiting()
        self._thread: runtime.Thread | None = None
        self._lock = runtime.Lock()
        self._stopped = runtime.Event()

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
            if self._waiting.put(entry, _LOOK_SECONDS):
                return
        logger.warning("signal %s is not sent: its receivers are too slow", name)

    def _start(self) -> None:
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    thread = runtime.Thread(target=self._serve, name=signals.THREAD, daemon=True)
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
        thread, deadline = self._thread, runtime.monotonic() + seconds
        if thread is None:
            return
        while thread.is_alive() and runtime.monotonic() < deadline:
            if self._waiting.put(None, _LOOK_SECONDS):
                thread.join(max(0.0, deadline - runtime.monotonic()))
        self._stopped.set()
        if thread.is_alive():
            left = len(self._waiting)
            logger.warning("%d signals are not sent: a receiver takes too long", left)
            self._waiting.drop()
