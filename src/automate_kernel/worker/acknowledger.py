"""The acknowledger of a worker: it records the outcomes of items, in groups."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial

from automate_kernel.base import runtime
from automate_kernel.outbox.item import ItemStatus, Outcome, OutcomeRecorded, Result
from automate_kernel.outbox.store import OutboxStore
from automate_kernel.secrets.logs import get_logger
from automate_kernel.worker.handler import WorkerStats
from automate_kernel.worker.heartbeat import Liveness
from automate_kernel.worker.in_flight import Ended, InFlight, Task
from automate_kernel.worker.periodic import keep_trying
from automate_kernel.worker.quarantine import Quarantine
from automate_kernel.worker.reporter import ActivityLog

logger: logging.Logger = get_logger(__name__)

_GROUP = 500


class Acknowledger:
    """
    Commits results in groups, and counts them.

    While one group commits, the next gathers: the slower the disk, the larger the groups. It tries
    until *abandoning* is set, and calls *freed* after each group.
    """

    def __init__(
        self,
        store: OutboxStore,
        worker_id: str,
        in_flight: InFlight,
        activity: ActivityLog,
        *,
        quarantine: Quarantine,
        liveness: Liveness,
        abandoning: runtime.Event,
        freed: Callable[[], None],
    ) -> None:
        self.stats: WorkerStats = WorkerStats()
        self._store, self._worker_id, self._in_flight = store, worker_id, in_flight
        self._activity, self._liveness, self._quarantine = activity, liveness, quarantine
        self._abandoning, self._freed = abandoning, freed
        # A list in one entry is one wake-up, and one turn of the interpreter's lock.
        self._ended: runtime.SimpleQueue[list[Ended] | None] = runtime.SimpleQueue()

    @property
    def waiting(self) -> int:
        """The number of results, or lists of them, that are not being recorded yet."""
        return self._ended.qsize()

    def put(self, ended: list[Ended]) -> None:
        """Record these, soon."""
        for number, (task, result) in enumerate(ended):
            task.ended = True
            if task.asked:
                ended[number] = (task, _cancelled(task, result))
        self._ended.put(ended)

    def stop(self) -> None:
        """Let `run` return once all is recorded that was `put` before."""
        self._ended.put(None)

    def run(self) -> None:
        """Record until `stop`."""
        while (ended := self._ended.get()) is not None:
            group, last = self._gather(ended)
            self._commit(group)
            if last:
                break

    def _gather(self, first: list[Ended]) -> tuple[list[Ended], bool]:
        group = first
        try:
            while len(group) < _GROUP:
                ended = self._ended.get_nowait()
                if ended is None:
                    return group, True
                group += ended
        except runtime.Empty:
            pass
        return group, False

    def _commit(self, group: list[Ended]) -> None:
        outcomes = [result for _, result in group if type(result) is Outcome]
        lost = keep_trying(partial(self._record, outcomes), self._abandoning, "finishing")
        self._liveness.rest("acknowledger")
        if lost is None:
            logger.error("%d results could not be recorded; they run again", len(outcomes))
            lost = {outcome.item_id for outcome in outcomes}
        self._in_flight.remove(group)
        self._quarantine.ended(group)
        self._count(group, outcomes, lost)
        self._activity.add(group, lost)
        self._freed()

    def _record(self, outcomes: Sequence[Outcome]) -> set[str]:
        self._liveness.move("acknowledger")
        return self._store.acknowledge(self._worker_id, outcomes)

    def _count(
        self, group: Sequence[Ended], outcomes: Sequence[Outcome], lost: Collection[str]
    ) -> None:
        completed = ItemStatus.COMPLETED
        if (
            not lost
            and len(outcomes) == len(group)
            and all(outcome.status is completed for outcome in outcomes)
        ):
            self.stats.completed += len(group)  # as it nearly always is
            return
        for task, result in group:
            self._count_one(task, result, lost)

    def _count_one(self, task: Task, result: Result, lost: Collection[str]) -> None:
        if isinstance(result, OutcomeRecorded):
            self.stats.count(result.outcome or Outcome(task.item.id))
        elif result is None:
            self.stats.lost += 1
            self._store.forget_claims([task.item.id], token=task.item.lease_token)
        elif result.item_id in lost:
            self.stats.lost += 1
            logger.warning("lease of item %s lost: its result is dropped", result.item_id)
        else:
            self.stats.count(result)


def _cancelled(task: Task, result: Result) -> Result:
    """Return CANCELLED for a task that was asked to stop, unless it had succeeded."""
    if result is None and not task.lost:
        return Outcome(task.item.id, ItemStatus.CANCELLED, token=task.item.lease_token)
    if isinstance(result, Outcome) and result.status is not ItemStatus.COMPLETED:
        return replace(result, status=ItemStatus.CANCELLED)
    return result
