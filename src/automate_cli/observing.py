"""Looks at a kernel, again and again: rates, latencies, failures, what is in flight."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

from automate_kernel.monitoring.overview import Increments, Observed, ThrottledStats
from automate_kernel.outbox.queries import OutboxStats
from automate_kernel.outbox.statistics import MinuteTotal, total_by_kind
from automate_kernel.outbox.store import OutboxStore
from automate_kernel.outbox.worker_reports import Activity, WorkerInfo
from automate_kernel.storage.statuses import ItemStatus
from automate_kernel.workflows.steer.executions import ExecutionStore
from automate_kernel.workflows.store.statistics import ExecutionCounts, ExecutionStats

_RATE_SECONDS = 30.0
# Workers report every few seconds: what is seen in less than some of these is no rate.
_SHORTEST_SECONDS = 20.0

C = TypeVar("C", bound=MinuteTotal)


@dataclass(frozen=True, slots=True)
class NameOverview(Generic[C]):
    """
    The items of a kind, or the executions of a workflow, by its *name*.

    *waiting*, *running* and *failed* are numbers of those that are stored; *recent* is the activity
    of the last *seconds*.
    """

    name: str
    waiting: int
    running: int
    failed: int
    recent: C
    seconds: float
    paused: bool = False

    @property
    def rate(self) -> float:
        """The number that was completed in a second."""
        return self.recent.completed / self.seconds

    def per_minute(self, count: int) -> float:
        """Return the rate in a minute of a *count* of the last *seconds*."""
        return count * 60.0 / self.seconds


@dataclass(frozen=True, slots=True)
class Overview:
    """The outbox and its workers at one moment."""

    at: datetime
    kinds: list[NameOverview[Activity]]
    workers: list[WorkerInfo]
    oldest_due_seconds: float | None
    paused: tuple[str, ...] = ()
    handed_over: int = 0
    """The items that wait for another worker, as far as they were counted."""

    @property
    def alive(self) -> list[WorkerInfo]:
        """The workers that are neither lost nor unable to begin."""
        return [worker for worker in self.workers if worker.alive]

    @property
    def rate(self) -> float:
        """The items of all kinds that were finished in a second."""
        return sum(kind.rate for kind in self.kinds)


class RecentActivity(Generic[C]):
    """
    The recent activity of *source*, for somebody who looks again and again.

    The first looks give the last minute or two. After a while they give the last half minute.
    """

    def __init__(self, source: Observed[C, Any], clock: Callable[[], float]) -> None:
        self._clock = clock
        self._increments: Increments[C] = Increments(source, clock)
        self._steps: deque[tuple[float, list[C]]] = deque()

    def look(self, now: datetime) -> tuple[float, dict[str, C]]:
        """Return a number of seconds before *now*, and their activity by kind."""
        new, at = self._increments.look(), self._clock()
        self._steps.append((at, new))
        while len(self._steps) > 2 and self._steps[1][0] <= at - _RATE_SECONDS:
            self._steps.popleft()
        seconds = at - self._steps[0][0]
        if seconds < _SHORTEST_SECONDS:
            begin = (now - timedelta(seconds=60)).replace(second=0, microsecond=0)
            latest = [one for one in self._increments.latest if one.at >= begin]
            return (now - begin).total_seconds(), total_by_kind(latest)
        # The oldest step only marks the beginning of the others' time.
        gathered = [one for _, step in list(self._steps)[1:] for one in step]
        return seconds, total_by_kind(gathered)


class Observer:
    """Looks at *outbox* again and again; see `RecentActivity` for the time that a look covers."""

    def __init__(self, outbox: OutboxStore, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.outbox = outbox
        self._recent: RecentActivity[Activity] = RecentActivity(outbox, clock)
        self._counts: ThrottledStats[OutboxStats] = ThrottledStats(outbox, clock)

    def look(self) -> Overview:
        """Return the overview of this moment."""
        now = self.outbox.now()
        seconds, recent = self._recent.look(now)
        stats = self._counts.look()
        kinds = [
            NameOverview(*each, seconds, each[0] in stats.paused)
            for each in _figures(stats.counts, recent, Activity, now)
        ]
        return Overview(
            now, kinds, self.outbox.workers(), stats.oldest_due_seconds, stats.paused,
            self.outbox.count_handed_over(),
        )  # fmt: skip


class ExecutionObserver:
    """Looks at *executions* again and again, as `Observer` does at an outbox."""

    def __init__(self, executions: ExecutionStore) -> None:
        self._recent: RecentActivity[ExecutionCounts] = RecentActivity(executions, time.monotonic)
        self._counts: ThrottledStats[ExecutionStats] = ThrottledStats(executions)

    def look(self, now: datetime) -> list[NameOverview[ExecutionCounts]]:
        """Return an overview of each workflow at *now* on the database's clock, by name."""
        seconds, recent = self._recent.look(now)
        counts = self._counts.look().counts
        figures = _figures(counts, recent, ExecutionCounts, now)
        return [NameOverview(*each, seconds) for each in figures]


def _figures(
    counts: Mapping[str, Mapping[str, int]],
    recent: Mapping[str, C],
    empty: Callable[[datetime, str], C],
    now: datetime,
) -> Iterator[tuple[str, int, int, int, C]]:
    """Yield each name with its numbers (waiting, running, failed) and its activity."""
    for name in sorted({*counts, *recent}):
        of = counts.get(name, {})
        waiting = of.get(ItemStatus.PENDING, 0) + of.get(ItemStatus.RETRY, 0)
        activity = recent.get(name) or empty(now, name)
        yield name, waiting, of.get(ItemStatus.RUNNING, 0), of.get(ItemStatus.FAILED, 0), activity
