"""The items that a worker holds, and what it knows of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from automate_kernel.base import runtime
from automate_kernel.outbox.item import OutboxItem, Result


class Task:
    """
    An item that this worker holds: waiting for a slot, or running.

    It was asked for at *asked_at*, and was here at *claimed_at*, both of `time.monotonic`.
    """

    __slots__ = (
        "asked", "begun", "cancel", "claimed_at", "ended", "ended_at", "item", "leased_at", "lost",
        "release", "started_at",
    )  # fmt: skip

    def __init__(
        self, item: OutboxItem, claimed_at: float = 0.0, asked_at: float | None = None
    ) -> None:
        self.item: OutboxItem = item
        self.claimed_at: float = claimed_at
        # The lease began in between; this process may have been frozen meanwhile.
        self.leased_at: float = claimed_at if asked_at is None else asked_at
        """The time at which its claim, or the last renewal of its lease, was asked for."""
        self.begun: bool = False
        """True once nothing has to be written down any more before it begins."""
        self.started_at: float | None = None
        self.ended_at: float | None = None
        self.lost: bool = False
        """True once its lease is gone: it must not begin, and its result is dropped."""
        self.asked: bool = False
        """True once it is asked to stop, since its item was cancelled."""
        self.ended: bool = False
        self.cancel: Callable[[], Any] | None = None
        self.release: Callable[[], Any] | None = None
        """The function that puts its item back when that is to be released, if there is one."""

    def ran_out(self, lease_seconds: float) -> bool:
        """Return True if nothing has renewed its lease in time: this process was frozen, say."""
        return runtime.monotonic() - self.leased_at >= lease_seconds

    def stop(self) -> None:
        """Cancel its handler, where that can be done."""
        if self.cancel is not None:
            self.cancel()


Ended = tuple[Task, Result]
"""A task, and the result of its handler's run."""


class InFlight:
    """The tasks that a worker holds, by the ids of their items."""

    def __init__(self) -> None:
        self.tasks: dict[str, Task] = {}
        self._lock = runtime.Lock()

    def __len__(self) -> int:
        return len(self.tasks)

    def add(self, tasks: Sequence[Task]) -> None:
        """Hold *tasks*."""
        with self._lock:
            self.tasks.update((task.item.id, task) for task in tasks)

    def remove(self, ended: Sequence[Ended]) -> None:
        """Hold these no longer."""
        tasks = self.tasks
        with self._lock:
            for task, _ in ended:
                # An item that put itself back to wait may be held again already, by a new task.
                if tasks.get(task.item.id) is task:
                    del tasks[task.item.id]

    def held(self) -> dict[str, Task]:
        """Return the tasks that are held now."""
        with self._lock:
            return dict(self.tasks)

    def unfinished(self) -> dict[str, Task]:
        """Return the tasks whose handler has not ended."""
        with self._lock:
            return {item_id: task for item_id, task in self.tasks.items() if not task.ended}
