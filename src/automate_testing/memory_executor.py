"""A step executor in the memory of one process: for tests, and as an example for authors."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.operations.executors import Heard, Perform, StepExecutor, TaskNews
from automate_kernel.operations.tasks import Declined, RemoteTask, TaskOutcome

_LOOK_SECONDS = 0.005


@dataclass
class _MemoryTask:
    task: RemoteTask
    taken_by: str | None = None
    deliveries: int = 0
    refused_by: set[str] = field(default_factory=set)
    heard: list[Heard] = field(default_factory=list)
    running: asyncio.Task[TaskOutcome | Declined] | None = None


@dataclass
class MemoryBroker:
    """
    The tasks and outcomes that several `MemoryExecutor` share.

    With *available* False it can't be reached. It takes *most* tasks at once. A task that has
    killed *most_deaths* remotes is not begun again.
    """

    most: int = 10_000
    most_deaths: int = 5
    available: bool = True
    tasks: dict[str, _MemoryTask] = field(default_factory=dict)
    outcomes: dict[str, TaskOutcome] = field(default_factory=dict)
    undelivered: list[str] = field(default_factory=list)
    submitted: int = 0
    """The number of tasks that were created."""

    def keep(self, outcome: TaskOutcome) -> None:
        """Keep *outcome*, if it is the first of its task."""
        if outcome.task_id not in self.outcomes:
            self.outcomes[outcome.task_id] = outcome
            if outcome.durable:
                self.undelivered.append(outcome.task_id)
        self.tasks.pop(outcome.task_id, None)


class MemoryExecutor(StepExecutor):
    """One process's connection to *broker*."""

    def __init__(self, broker: MemoryBroker | None = None, queue: str = "memory") -> None:
        self.broker = broker or MemoryBroker()
        """The tasks and outcomes."""
        self.queue = queue
        """Its name, which says nothing here: a broker has one queue."""

    def _reach(self) -> MemoryBroker:
        if not self.broker.available:
            raise AutomateError(ErrorCodes.UNAVAILABLE, "the broker can't be reached")
        return self.broker

    async def submit(self, task: RemoteTask) -> None:
        """Create a task, or attach to it."""
        broker = self._reach()
        if task.id in broker.outcomes or task.id in broker.tasks:
            return
        if len(broker.tasks) >= broker.most:
            raise AutomateError(ErrorCodes.RESOURCE_EXHAUSTED, "the queue is full")
        # As a broker that keeps text would.
        broker.tasks[task.id] = _MemoryTask(RemoteTask.from_text(task.to_text()))
        broker.submitted += 1

    async def outcome(self, task_id: str, heard: Heard) -> TaskOutcome | None:
        """Look until there is an outcome."""
        while True:
            broker = self._reach()
            if task_id in broker.outcomes:
                return broker.outcomes[task_id]
            entry = broker.tasks.get(task_id)
            if entry is None:
                return None
            if heard not in entry.heard:
                entry.heard.append(heard)
            await asyncio.sleep(_LOOK_SECONDS)

    async def cancel(self, task_id: str) -> None:
        """Keep an outcome that says so, and stop the call."""
        broker = self._reach()
        entry = broker.tasks.get(task_id)
        if entry is None:
            return
        error = AutomateError(ErrorCodes.CANCELLED, "the call was cancelled")
        broker.keep(TaskOutcome.failed(entry.task, error))
        if entry.running is not None:
            entry.running.cancel()

    async def deliver(self, take: Callable[[TaskOutcome], Awaitable[None]]) -> None:
        """Hand over what is not delivered yet."""
        while True:
            for task_id in list(self._reach().undelivered):
                await take(self.broker.outcomes[task_id])
                self.broker.undelivered.remove(task_id)
            await asyncio.sleep(_LOOK_SECONDS)

    async def problems(self) -> list[str]:
        """Say that the broker is away."""
        return [] if self.broker.available else ["the broker can't be reached"]

    async def serve(
        self, perform: Perform, *, slots: int, stopping: asyncio.Event, name: str
    ) -> None:
        """Perform tasks in order."""
        running: set[asyncio.Task[None]] = set()
        try:
            while not stopping.is_set():
                entry = self._next(name) if len(running) < slots else None
                if entry is None:
                    await asyncio.sleep(_LOOK_SECONDS)
                    continue
                entry.taken_by = name
                entry.deliveries += 1
                one = asyncio.create_task(self._one(entry, perform, name))
                running.add(one)
                one.add_done_callback(running.discard)
            while running:
                await asyncio.wait(running)
        finally:
            for one in running:
                one.cancel()

    def _next(self, name: str) -> _MemoryTask | None:
        waiting = (
            entry for entry in self.broker.tasks.values()
            if entry.taken_by is None and name not in entry.refused_by
        )  # fmt: skip
        return next(waiting, None) if self.broker.available else None

    async def _one(self, entry: _MemoryTask, perform: Perform, name: str) -> None:
        broker, task = self.broker, entry.task
        if entry.deliveries > broker.most_deaths:
            error = AutomateError(
                ErrorCodes.ABORTED, f"{broker.most_deaths} executors died in its call"
            )
            broker.keep(TaskOutcome.failed(task, error))
            return

        def heard(news: TaskNews) -> None:
            for each in entry.heard:
                each(news)

        entry.running = asyncio.ensure_future(perform(task, heard, entry.deliveries > 1))
        try:
            outcome = await entry.running
        except asyncio.CancelledError:
            # It stops, or was killed: another one takes it. Or the task was cancelled.
            entry.running.cancel()
            entry.taken_by = None
            return
        if isinstance(outcome, Declined):
            entry.taken_by, entry.deliveries = None, entry.deliveries - 1
            entry.refused_by.add(name)
            heard(TaskNews(waits=outcome.reason))
        else:
            broker.keep(outcome)
