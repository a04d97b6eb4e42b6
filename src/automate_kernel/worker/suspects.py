"""Suspects: items whose workers died, and what a worker does so that no other item pays for one."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence

from automate_kernel.outbox.item import (
    ItemStatus,
    OutboxItem,
    Outcome,
    begins_noted,
    last_worker_died,
)
from automate_kernel.worker.in_flight import Ended, Task

# One that is alone has seen at least two deaths. With fewer attempts two deaths are what its author
# allows, and a power cut must not make many items go one after another.
_LAST_ATTEMPT_LEAST = 3
# Those that wait for their place come back one by one, about so far apart and not much later.
_WAIT_SECONDS, _LONGEST_WAIT = 0.05, 10.0


def begin_is_noted(item: OutboxItem) -> bool:
    """Return True if it is written down when *item*, which was claimed ahead, begins."""
    return begins_noted(item.attempt_count, item.max_attempts, item.last_error_code)


def is_suspect(item: OutboxItem) -> bool:
    """Return True if the last worker of *item* died, perhaps because of it."""
    return last_worker_died(item.attempt_count, item.last_error_code)


def _is_alone(item: OutboxItem) -> bool:
    return item.attempt_count >= max(item.max_attempts, _LAST_ATTEMPT_LEAST)


class Suspects:
    """
    The suspects that a worker holds.

    A death counts for all that was running. So that no item fails because of another, a suspect
    whose last attempt it is has no other suspect beside it.
    """

    def __init__(self) -> None:
        # True for one that is to be alone.
        self._held: dict[Task, bool] = {}
        self._lock = threading.Lock()

    def admit(self, tasks: Sequence[Task]) -> list[Task]:
        """Hold the suspects of *tasks* that may begin now; return those that have to wait."""
        suspects = [task for task in tasks if is_suspect(task.item)]
        if not suspects:
            return []
        waiting: list[Task] = []
        with self._lock:
            for task in sorted(suspects, key=lambda one: _is_alone(one.item)):
                alone = _is_alone(task.item)
                if self._held if alone else any(self._held.values()):
                    waiting.append(task)
                else:
                    self._held[task] = alone
        return waiting

    def wait(self, tasks: Sequence[Task]) -> list[Ended]:
        """Return the outcomes of *tasks* that have to wait. They spend no attempt."""
        with self._lock:
            since = min((one.claimed_at for one in self._held), default=0.0)
        # Ever longer while one takes long.
        held_seconds = time.monotonic() - since if since else 0.0
        about = min(_LONGEST_WAIT, max(_WAIT_SECONDS * len(tasks), held_seconds))
        return [(task, _later(task, about * 2 * random.random())) for task in tasks]

    def cleared(self, task: Task) -> None:
        """Hold *task* no longer: it has come further than the worker that died."""
        self.ended([(task, None)])

    def ended(self, ended: Sequence[Ended]) -> None:
        """Hold these no longer."""
        if self._held:
            with self._lock:
                for task, _ in ended:
                    self._held.pop(task, None)


def _later(task: Task, seconds: float) -> Outcome:
    return Outcome(task.item.id, ItemStatus.PENDING, seconds, token=task.item.lease_token)
