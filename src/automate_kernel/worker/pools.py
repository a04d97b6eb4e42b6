"""Pools that run handlers: what a worker gives them, and the one on an event loop."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from automate_kernel.operations.loop_thread import LoopThread
from automate_kernel.outbox.item import Result
from automate_kernel.secrets.logs import get_logger
from automate_kernel.worker.in_flight import Ended, Task

logger: logging.Logger = get_logger(__name__)

# How long handlers on the event loop may take over their cancellation.
_STOP_SECONDS = 10.0


class Pool(Protocol):
    """A place to run handlers of some kinds."""

    @property
    def kinds(self) -> Sequence[str]:
        """The kinds that it takes now."""

    def free(self) -> int:
        """Return the number of items that it can still take."""

    def start(self, tasks: Sequence[Task]) -> None:
        """Run these as soon as possible."""

    def stop(self) -> None:
        """Take no more. It is called when nothing is held any longer, or to abandon what is."""


@dataclass(frozen=True, slots=True)
class PoolSetup:
    """
    The means of a worker for its pools.

    *slots* are its threads. *run* calls the handler of a task, *call* does it where `stoppable_by`
    surrounds several. *hold* takes tasks that the pool has claimed itself. *done* takes a task that
    has ended, *done_all* several, and *hand_back* those that never begin. *failed* gives the
    outcome of a task that ended with an error, and *stopping* is True once nothing new may begin.

    *begins* is called with a task before anything of its item runs other than by *run* or *call*;
    False means that it must not begin. *progressed* is called with one that has saved something.

    *patience* is for how long a pool that is stopped may wait for what it has begun.
    *room* is called when there may be room again, *look_again* when the pool's kinds have changed.
    *relieve* lets another thread claim, since the one that did is in a handler. *before_release*
    takes a function that is called once before items are handed back whose handlers have not ended;
    it returns the ids of those that must not be.
    """

    worker_id: str
    slots: int
    lease_seconds: float
    run: Callable[[Task], Result]
    call: Callable[[Task], Result]
    hold: Callable[[Sequence[Task]], None]
    done: Callable[[Task, Result], None]
    done_all: Callable[[list[Ended]], None]
    hand_back: Callable[[Sequence[Task]], None]
    failed: Callable[[Task, BaseException], Result]
    stopping: Callable[[], bool]
    room: Callable[[], None]
    begins: Callable[[Task], bool]
    progressed: Callable[[Task], None]
    patience: Callable[[], float]
    look_again: Callable[[], None]
    relieve: Callable[[], None]
    before_release: Callable[[Callable[[], Collection[str]]], None]


class LoopPool:
    """Runs ``async def`` handlers on one event loop in a thread of its own."""

    def __init__(
        self,
        kinds: Sequence[str],
        slots: int,
        run: Callable[[Task], Any],
        done: Callable[[Task, Result], None],
    ) -> None:
        self.kinds = kinds
        self._slots, self._run, self._done = slots, run, done
        self._held = 0
        self._lock = threading.Lock()
        self._thread = LoopThread("automate-loop")
        self._loop = self._thread.loop
        self._running: set[asyncio.Task[None]] = set()

    def free(self) -> int:
        """Return the number of free slots."""
        return self._slots - self._held

    def start(self, tasks: Sequence[Task]) -> None:
        """Hand them to the loop, all with one wake-up."""
        with self._lock:
            self._held += len(tasks)
        self._loop.call_soon_threadsafe(self._begin, tasks)

    def _begin(self, tasks: Sequence[Task]) -> None:
        for task in tasks:
            running = self._loop.create_task(self._serve(task))
            task.cancel = lambda running=running: self._loop.call_soon_threadsafe(running.cancel)
            self._running.add(running)
            running.add_done_callback(self._running.discard)

    async def _serve(self, task: Task) -> None:
        outcome = None
        try:
            if not task.lost:
                outcome = await self._run(task)
        except asyncio.CancelledError:
            pass  # whoever cancelled it has seen to its lease
        finally:
            with self._lock:
                self._held -= 1
            self._done(task, outcome)

    def stop(self) -> None:
        """Cancel the running handlers and end the loop."""
        if not self._thread.end(_STOP_SECONDS):
            logger.warning("an async handler blocks the event loop, which is left behind")
