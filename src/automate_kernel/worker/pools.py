"""Pools that run handlers, on threads and on an event loop; and what a worker gives them."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from automate_kernel.base import runtime
from automate_kernel.operations.portal import LoopThread
from automate_kernel.outbox.item import Result
from automate_kernel.secrets.logs import get_logger
from automate_kernel.worker.heartbeat import Liveness
from automate_kernel.worker.in_flight import Ended, Task
from automate_kernel.worker.threads import Threads, late_since

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

    *slots* is the number of its threads. *run* calls the handler of a task. *hold* takes tasks that
    the pool has claimed itself. *done_all* takes tasks that have ended, and *hand_back* takes tasks
    that never begin. *failed* returns the outcome of a task that ended with an error. *stopping*
    returns True once nothing new may begin.

    *begins* is called before anything of a task's item runs other than by *run*; False means that
    it must not begin. *progressed* is called with a task that has saved something. *room* is called
    when there may be room again.

    *patience* returns for how long a stopped pool may wait for what it has begun. *before_release*
    takes a function. It is called once, before items are handed back whose handlers have not ended,
    and returns the ids of those that must not be handed back. *liveness* is for threads of the pool
    that stop all others if they stand still.
    """

    worker_id: str
    slots: int
    lease_seconds: float
    run: Callable[[Task], Result]
    hold: Callable[[Sequence[Task]], None]
    done_all: Callable[[list[Ended]], None]
    hand_back: Callable[[Sequence[Task]], None]
    failed: Callable[[Task, BaseException], Result]
    stopping: Callable[[], bool]
    room: Callable[[], None]
    begins: Callable[[Task], bool]
    progressed: Callable[[Task], None]
    patience: Callable[[], float]
    before_release: Callable[[Callable[[], Collection[str]]], None]
    liveness: Liveness


# No more is claimed ahead than the slots are likely to start within this time, so that a long item
# never sits on a lease here while another worker is free.
_AHEAD_SECONDS = 0.25
# Results of quick calls that end within this time are recorded together.
_TOGETHER_SECONDS = 0.02
_UNKNOWN_SECONDS = 1.0


class ThreadPool:
    """
    Runs ``def`` handlers on threads, with a queue of at most two batches in front.

    Quick calls give their results in lists: to record each alone costs more than such a call.
    """

    def __init__(self, kinds: Sequence[str], batch: int, setup: PoolSetup) -> None:
        self.kinds = kinds
        self._setup, self._most_ahead = setup, 2 * batch
        self._threads = Threads(setup.slots, "automate-slot", self._run, self._ran)
        self._mean_seconds = _UNKNOWN_SECONDS
        self._ended: deque[Ended] = deque()
        self._given_at = 0.0

    def free(self) -> int:
        """Return the free slots, with the items that they will take in the next moment."""
        slots = self._setup.slots
        ahead = min(self._most_ahead, int(slots * _AHEAD_SECONDS / self._mean_seconds))
        room = slots + ahead - self._threads.busy
        # Each claim of a few would cost as much as one of many.
        return room if room > ahead // 2 else 0

    def start(self, tasks: Sequence[Task]) -> None:
        """Queue them for the next free threads."""
        self._threads.put(tasks)

    def hand_back_late(self) -> None:
        """
        Hand back what has waited for a slot for long: another worker may have a free slot.

        It records what has ended, too: all slots may be in slow calls since then.
        """
        self.give_results()
        if self._setup.stopping():
            return
        since = late_since()
        late = self._threads.withdraw(
            lambda tasks: [task for task in tasks if task.claimed_at <= since]
        )
        if late:
            # So that nothing is claimed ahead again until some calls have shown their pace.
            self._mean_seconds = max(_UNKNOWN_SECONDS, float(self._setup.slots))
            self._setup.hand_back(late)

    def _run(self, task: Task) -> Result:
        started_at = runtime.monotonic()
        outcome = None if task.lost else self._setup.run(task)
        task.ended_at = runtime.monotonic()
        # Not exact where several threads add to it, nor need it be.
        took = max(task.ended_at - started_at, 1e-6)
        self._mean_seconds += (took - self._mean_seconds) * 0.05
        return outcome

    def _ran(self, task: Task, outcome: Result) -> None:
        self._ended.append((task, outcome))
        quick = self._mean_seconds < _TOGETHER_SECONDS / 20
        soon = quick and (task.ended_at or 0.0) - self._given_at < _TOGETHER_SECONDS
        if not (soon and self._threads.waiting):
            self.give_results()

    def give_results(self) -> None:
        """Record what has ended: nobody else may run it again."""
        self._given_at = runtime.monotonic()
        ended: list[Ended] = []
        with suppress(IndexError):  # another thread gives them too
            while True:
                ended.append(self._ended.popleft())
        if ended:
            self._setup.done_all(ended)

    def stop(self) -> None:
        """End the threads once they are through with what they run."""
        self._threads.stop()
        self.give_results()


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
        self._lock = runtime.Lock()
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
