"""Quarantine of items whose workers died, so that other items don't fail because of them."""

from __future__ import annotations

from collections.abc import Sequence

from automate_kernel.base import runtime
from automate_kernel.outbox.item import (
    ItemStatus,
    OutboxItem,
    Outcome,
    last_worker_died,
)
from automate_kernel.worker.in_flight import Ended, Task

# An item that runs alone has seen at least two deaths. With fewer attempts two deaths are what its
# author allows, and a power cut must not make many items go one after another. However many
# attempts it has, it is alone from the tenth on: an execution beside it is given up after so many
# deaths.
_LAST_ATTEMPT_LEAST, _LAST_ATTEMPT_MOST = 3, 10
# Those that wait for their place come back one by one, about so far apart and not much later.
_WAIT_SECONDS, _LONGEST_WAIT = 0.05, 10.0
# For so long an item that is to run alone waits for the end of what runs beside it, and then all
# else for its own end.
_IDLE_SECONDS, _ALONE_SECONDS = 10.0, 10.0


def is_suspect(item: OutboxItem) -> bool:
    """Return True if the last worker of *item* died, perhaps because of it."""
    return last_worker_died(item.attempt_count, item.last_error_code)


def _is_alone(item: OutboxItem) -> bool:
    last = min(item.max_attempts, _LAST_ATTEMPT_MOST)
    return item.attempt_count >= max(last, _LAST_ATTEMPT_LEAST)


class Quarantine:
    """
    The items that a worker holds whose last worker died: the suspects.

    A death counts for all that was running. So that no item fails because of another, a suspect
    whose last attempt it is runs alone: it waits until nothing else runs, and what is claimed
    meanwhile waits for its end. Neither is for ever: after a while it has no other suspect beside
    it, which is all that is left then.
    """

    def __init__(self) -> None:
        self._held: set[Task] = set()
        self._alone: Task | None = None
        self._alone_until = 0.0
        # Until when those wait for an idle worker that are to be alone, by their items.
        self._waits_until: dict[str, float] = {}
        self._lock = runtime.Lock()

    def admit(self, tasks: Sequence[Task], *, beside: int = 0) -> list[Task]:
        """
        Hold the suspects of *tasks* that may begin now; return those that have to wait.

        So many others run *beside* them.
        """
        suspects = [task for task in tasks if is_suspect(task.item)]
        if not suspects and self._alone is None:
            return []
        waiting: list[Task] = []
        with self._lock:
            if self.alone_seconds() > 0:
                return list(tasks)
            beside += len(tasks) - len(suspects)
            for task in sorted(suspects, key=lambda one: _is_alone(one.item)):
                alone = _is_alone(task.item)
                if self._must_wait(task, beside) if alone else self._alone is not None:
                    waiting.append(task)
                else:
                    self._hold(task, alone=alone)
        return waiting

    def _must_wait(self, task: Task, beside: int) -> bool:
        if self._held or not beside:
            return bool(self._held)
        now, item_id = runtime.monotonic(), task.item.id
        until = self._waits_until.setdefault(item_id, now + _IDLE_SECONDS)
        if until <= now:
            # Here something always runs. Those that another worker has taken go with it.
            self._waits_until = {key: at for key, at in self._waits_until.items() if at > now}
        return until > now

    def _hold(self, task: Task, *, alone: bool) -> None:
        self._held.add(task)
        if alone:
            self._alone, self._alone_until = task, runtime.monotonic() + _ALONE_SECONDS
            self._waits_until.pop(task.item.id, None)

    def alone_seconds(self) -> float:
        """Return for how long nothing else is to begin here, if nothing ends before."""
        return 0.0 if self._alone is None else max(0.0, self._alone_until - runtime.monotonic())

    def wait(self, tasks: Sequence[Task]) -> list[Ended]:
        """Return the outcomes of *tasks* that have to wait. They spend no attempt."""
        with self._lock:
            since = min((one.claimed_at for one in self._held), default=0.0)
        # Ever longer while an item takes long.
        held_seconds = runtime.monotonic() - since if since else 0.0
        about = min(_LONGEST_WAIT, max(_WAIT_SECONDS * len(tasks), held_seconds))
        return [(task, _later(task, about * 2 * runtime.numbers.random())) for task in tasks]

    def cleared(self, task: Task) -> bool:
        """
        Hold *task* no longer: it has come further than the worker that died.

        Return True if it was alone.
        """
        was_alone = task is self._alone
        self.ended([(task, None)])
        return was_alone

    def ended(self, ended: Sequence[Ended]) -> None:
        """Hold these no longer."""
        if self._held:
            with self._lock:
                for task, _ in ended:
                    self._held.discard(task)
                    if task is self._alone:
                        self._alone = None


def _later(task: Task, seconds: float) -> Outcome:
    return Outcome(task.item.id, ItemStatus.PENDING, seconds, token=task.item.lease_token)
