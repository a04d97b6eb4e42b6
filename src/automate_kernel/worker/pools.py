"""Pools that run handlers: on threads, on an event loop, or one after another on one thread."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Protocol

from automate_kernel.outbox.item import Result
from automate_kernel.secrets.logs import get_logger, log_loop_errors
from automate_kernel.worker.handler import Handler
from automate_kernel.worker.in_flight import Ended, Task

logger: logging.Logger = get_logger(__name__)

# No more is claimed ahead than the slots are likely to start within this time, so that a long
# item never sits on a lease here while another worker is free.
_AHEAD_SECONDS = 0.25
_AHEAD_MOST = 200
# What inline handlers can do in less time than it takes to wake their thread.
_AT_ONCE_SECONDS = 0.0003
# How long handlers on the event loop may take over their cancellation.
_STOP_SECONDS = 10.0


Run = Callable[[Task], Result]
RunAll = Callable[[Sequence[Task]], None]
Done = Callable[[Task, Result], None]


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
    The means of a worker for a pool that a handler brings along.

    *slots* are its threads. *run* calls the handler of a task. *hold* takes tasks that the pool has
    claimed itself, *done_all* the tasks that have ended. *failed* gives the outcome of a task that
    ended with an error, *stopping* is True once nothing new may begin, and *room* says that
    there is room again.
    """

    worker_id: str
    slots: int
    lease_seconds: float
    run: Run
    hold: Callable[[Sequence[Task]], None]
    done_all: Callable[[list[Ended]], None]
    failed: Callable[[Task, BaseException], Result]
    stopping: Callable[[], bool]
    room: Callable[[], None]


class InlinePool:
    """
    Runs handlers one after another, a batch at a time, on a thread or at once in `start`.

    While a batch runs on the thread, the next is claimed, so that neither waits for the other.
    """

    def __init__(
        self, kinds: Sequence[str], batch: int, run_all: RunAll, room: Callable[[], None]
    ) -> None:
        self.kinds = kinds
        self._batch, self._run_all, self._room = batch, run_all, room
        self._queue: SimpleQueue[Sequence[Task] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._batches = 0
        self._lock = threading.Lock()
        self._mean_seconds = _AHEAD_SECONDS / 10  # so that the first claims are small

    def free(self) -> int:
        """Return a batch while at most one is at hand; fewer if handlers are slow."""
        soon = int(_AHEAD_SECONDS / self._mean_seconds)
        if self._batches >= (2 if soon >= self._batch else 1):
            return 0
        return min(self._batch, max(1, soon))

    def start(self, tasks: Sequence[Task]) -> None:
        """Queue them as one batch; or run them at once, if that takes less than the queue would."""
        if not tasks:
            return
        with self._lock:
            self._batches += 1
            alone = self._batches == 1
        if alone and len(tasks) * self._mean_seconds < _AT_ONCE_SECONDS:
            self._serve_batch(tasks)
            return
        self._queue.put(tasks)
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="automate-inline", daemon=True)
            self._thread.start()

    def _serve(self) -> None:
        while (tasks := self._queue.get()) is not None:
            self._serve_batch(tasks)

    def _serve_batch(self, tasks: Sequence[Task]) -> None:
        started_at = time.monotonic()
        self._run_all(tasks)
        took = max(time.monotonic() - started_at, 1e-6) / len(tasks)
        self._mean_seconds += (took - self._mean_seconds) * 0.5
        with self._lock:
            self._batches -= 1
        self._room()

    def stop(self) -> None:
        """End the thread once it is through with what it runs."""
        if self._thread is not None:
            self._queue.put(None)


class ThreadPool:
    """Runs handlers on threads, with a short queue in front."""

    def __init__(self, kinds: Sequence[str], slots: int, run: Run, done: Done) -> None:
        self.kinds = kinds
        self._slots, self._run, self._done = slots, run, done
        # Not concurrent.futures: a Future per item costs more than a short handler.
        self._queue: SimpleQueue[Task | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._held = 0
        self._lock = threading.Lock()
        self._mean_seconds = 1.0

    def free(self) -> int:
        """Return the free slots, with the items that they will take in the next moment."""
        ahead = min(_AHEAD_MOST, int(self._slots * _AHEAD_SECONDS / self._mean_seconds))
        return max(0, self._slots + ahead - self._held)

    def start(self, tasks: Sequence[Task]) -> None:
        """Queue them for the next free threads."""
        with self._lock:
            self._held += len(tasks)
            missing = min(self._slots, self._held) - len(self._threads)
        # First, so that the threads there are take them even if no more can be started.
        for task in tasks:
            self._queue.put(task)
        for _ in range(missing):
            name = f"automate-slot-{len(self._threads)}"
            thread = threading.Thread(target=self._serve, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def _serve(self) -> None:
        while (task := self._queue.get()) is not None:
            started_at = time.monotonic()
            outcome = None if task.lost else self._run(task)
            took = max(time.monotonic() - started_at, 1e-6)
            with self._lock:
                self._held -= 1
                self._mean_seconds += (took - self._mean_seconds) * 0.05
            self._done(task, outcome)

    def stop(self) -> None:
        """End the threads once they are through with what they run."""
        for _ in self._threads:
            self._queue.put(None)


class LoopPool:
    """Runs ``async def`` handlers on one event loop in a thread of its own."""

    def __init__(
        self,
        kinds: Sequence[str],
        slots: int,
        run: Callable[[Task], Any],
        done: Done,
    ) -> None:
        self.kinds = kinds
        self._slots, self._run, self._done = slots, run, done
        self._held = 0
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        log_loop_errors(self._loop)
        self._running: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="automate-loop", daemon=True
        )
        self._thread.start()

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
        self._loop.call_soon_threadsafe(lambda: self._loop.create_task(self._end()))
        self._thread.join(_STOP_SECONDS)
        if self._thread.is_alive():
            logger.warning("an async handler blocks the event loop, which is left behind")
        else:
            self._loop.close()

    async def _end(self) -> None:
        for running in list(self._running):
            running.cancel()
        if self._running:
            await asyncio.wait(list(self._running), timeout=_STOP_SECONDS / 2)
        self._loop.stop()


def pools_for(
    handlers: Sequence[Handler],
    *,
    slots: int,
    async_slots: int,
    batch: int,
    run: Run,
    arun: Callable[[Task], Any],
    run_all: RunAll,
    done: Done,
    room: Callable[[], None],
    setup: PoolSetup,
) -> list[Pool]:
    """Return the pools that these handlers need."""
    factories: dict[Any, list[Handler]] = {}
    for one in handlers:
        if one.pool is not None:
            factories.setdefault(one.pool, []).append(one)
    own: list[Pool] = [factory(its, setup) for factory, its in factories.items()]
    handlers = [one for one in handlers if one.pool is None]
    inline = [one.kind for one in handlers if one.inline]
    loop = [one.kind for one in handlers if one.asynchronous]
    threads = [one.kind for one in handlers if not one.inline and not one.asynchronous]
    pools = own
    if inline:
        pools.append(InlinePool(inline, batch, run_all, room))
    if threads:
        pools.append(ThreadPool(threads, slots, run, done))
    if loop:
        pools.append(LoopPool(loop, async_slots, arun, done))
    return pools
