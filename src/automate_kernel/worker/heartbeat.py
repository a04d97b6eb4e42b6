"""The heartbeat of a worker: it renews leases, and stops what was lost or cancelled."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial

from automate_kernel.base import runtime
from automate_kernel.outbox.store import OutboxStore
from automate_kernel.secrets.logs import get_logger
from automate_kernel.worker.in_flight import InFlight, Task
from automate_kernel.worker.periodic import PeriodicTask, keep_trying

logger: logging.Logger = get_logger(__name__)

_CANCELLATION_SECONDS = 1.0
# Once a database is there again, its leases are renewed before anybody takes them for ended.
_LONGEST_PAUSE = 1.0


# Longer than the longest pause between two tries while the database is down: a worker that waits
# for its database is well, and starting it again would help nobody.
_STUCK_SECONDS = 60.0
_FAILING_SECONDS = 10.0


class Liveness:
    """
    The time at which each of a worker's threads last moved.

    *clock* is monotonic. The threads only store numbers here, which needs no lock.
    """

    def __init__(self, clock: Callable[[], float] = runtime.clock) -> None:
        self._clock = clock
        self._moved: dict[str, float] = {}
        self._claiming_since: float | None = None
        self.began: bool = False
        """True once a claim has succeeded, whether or not there was something."""
        self.stopping = False

    def move(self, thread: str) -> None:
        """Note that *thread* begins something that should not take long."""
        self._moved[thread] = self._clock()

    def rest(self, thread: str) -> None:
        """Note that *thread* waits, for however long, until there is something for it to do."""
        self._moved.pop(thread, None)

    def claiming(self) -> None:
        """Note that the fetcher tries to claim."""
        self._moved["fetcher"] = now = self._clock()
        if self._claiming_since is None:
            self._claiming_since = now

    def claimed(self) -> None:
        """Note that a claim succeeded, whether or not there was something."""
        self._claiming_since = None
        self.began = True

    def stuck(self, longest: float = _STUCK_SECONDS) -> list[str]:
        """Return the threads that did not move for *longest* seconds: they need a new process."""
        now = self._clock()
        return sorted(name for name, moved in list(self._moved.items()) if now - moved > longest)

    def failing(self, longest: float = _FAILING_SECONDS) -> bool:
        """Return True if no claim has succeeded for *longest* seconds, though it is tried."""
        since = self._claiming_since
        return since is not None and self._clock() - since > longest


class Heartbeat:
    """Renews the leases of all tasks *in_flight* at once, and stops those that must not go on."""

    def __init__(
        self,
        store: OutboxStore,
        worker_id: str,
        in_flight: InFlight,
        liveness: Liveness,
        finished: runtime.Event,
    ) -> None:
        self._store, self._worker_id, self._in_flight = store, worker_id, in_flight
        self._liveness, self._finished = liveness, finished

    def renewal(self, seconds: float) -> PeriodicTask:
        """Return the renewal of leases every so many *seconds*, which nothing else may hold up."""
        return PeriodicTask("heartbeat", seconds, self.beat)

    def cancellations(self) -> PeriodicTask:
        """Return the look for what was cancelled."""
        return PeriodicTask("cancellations", _CANCELLATION_SECONDS, self.stop_cancelled)

    def beat(self) -> None:
        """Renew the leases of what is held now. It tries until the worker has finished."""
        held = self._in_flight.held()
        if held:
            extend = partial(self._extend, held)
            lost = keep_trying(extend, self._finished, "renewing", longest=_LONGEST_PAUSE)
            self._liveness.rest("heartbeat")
            for item_id in lost or ():
                self._lose(held[item_id])

    def _extend(self, held: Mapping[str, Task]) -> set[str]:
        self._liveness.move("heartbeat")
        now = runtime.monotonic()
        lost = self._store.extend(list(held), self._worker_id)
        for item_id, task in held.items():
            if item_id not in lost:
                task.leased_at = now
        return lost

    def _lose(self, task: Task) -> None:
        # Not the task of a later claim. And a task that has ended may have finished its item
        # between the two looks at it.
        if self._in_flight.tasks.get(task.item.id) is task and not task.lost and not task.ended:
            logger.warning("lease of item %s lost while it ran", task.item.id)
            task.lost = True
            task.stop()

    def stop_cancelled(self) -> None:
        """Stop what was cancelled, and release what is to be released; one query for all."""
        if not self._in_flight:
            return
        for item_id, token in self._store.stop_requests(self._worker_id).items():
            task = self._in_flight.tasks.get(item_id)
            if task is None or task.item.lease_token != token:
                continue
            if not (task.asked or task.lost or task.ended):
                logger.info("%s is cancelled while it runs", task.item)
                task.asked = True
                task.stop()
        if any(task.release is not None for task in self._in_flight.held().values()):
            self._release()

    def _release(self) -> None:
        """Release the tasks whose items are to be released."""
        for item_id, token in self._store.release_requests(self._worker_id).items():
            task = self._in_flight.tasks.get(item_id)
            if task is None or task.item.lease_token != token or task.ended or task.lost:
                continue
            release, task.release = task.release, None
            if release is not None:
                logger.info("%s is put back while it runs", task.item)
                release()
