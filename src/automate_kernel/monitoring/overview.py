"""How the outbox does right now: rates, latencies, what is in flight and what fails."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, Protocol, TypeVar

from automate_kernel.outbox.statistics import total_by_kind
from automate_kernel.outbox.store import OutboxStats, OutboxStore
from automate_kernel.outbox.worker_reports import Activity, WorkerInfo
from automate_kernel.workflows.engine.executions import ExecutionStore
from automate_kernel.workflows.engine.statistics import ExecutionStats, WorkflowActivity

__all__ = [
    "ExecutionObserver",
    "Increments",
    "KindOverview",
    "Observer",
    "Overview",
    "Recently",
    "ThrottledStats",
    "WorkflowOverview",
]

_RATE_SECONDS = 30.0
# Workers report every few seconds: what is seen in less than some of these is no rate.
_SHORTEST_SECONDS = 20.0
# Further back than a report can be late, so that none is missed between two looks.
_REPORT_SECONDS = 180.0
# Counting a large table takes its time; no more than a tenth of the time is spent on it.
_COUNT_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class KindOverview:
    """
    One kind of item.

    *waiting*, *running* and *failed* are numbers of items in the outbox; *recent* is what was done
    in the last *seconds*.
    """

    kind: str
    waiting: int
    running: int
    failed: int
    recent: Activity
    seconds: float
    paused: bool = False

    @property
    def rate(self) -> float:
        """Items that were finished, in a second."""
        return self.recent.completed / self.seconds

    def per_minute(self, count: int) -> float:
        """*count*, being of the last *seconds*, in a minute."""
        return count * 60.0 / self.seconds


@dataclass(frozen=True, slots=True)
class Overview:
    """The outbox and its workers at one moment."""

    at: datetime
    kinds: list[KindOverview]
    workers: list[WorkerInfo]
    oldest_due_seconds: float | None
    paused: tuple[str, ...] = ()

    @property
    def alive(self) -> list[WorkerInfo]:
        """The workers that are neither lost nor unable to begin."""
        return [worker for worker in self.workers if worker.alive]

    @property
    def rate(self) -> float:
        """Items of all kinds that were finished, in a second."""
        return sum(kind.rate for kind in self.kinds)


class Counted(Protocol):
    """What was counted in the minute *at* under a *kind*."""

    @property
    def at(self) -> datetime:
        """The minute's beginning."""

    @property
    def kind(self) -> str:
        """The name that it is counted under."""

    @property
    def empty(self) -> bool:
        """Whether nothing was counted."""

    def __add__(self, other: Any, /) -> Any:
        """Both together."""

    def __sub__(self, other: Any, /) -> Any:
        """What came since *other*, an earlier look at the same."""


C = TypeVar("C", bound=Counted)
C_co = TypeVar("C_co", bound=Counted, covariant=True)
S = TypeVar("S")
S_co = TypeVar("S_co", covariant=True)


class Active(Protocol[C_co]):
    """What tells of its activity, minute by minute: an outbox, or executions."""

    def activity(self, *, seconds: float) -> Sequence[C_co]:
        """What was done in the last *seconds*."""


class Countable(Protocol[S_co]):
    """What counts its rows."""

    def stats(self) -> S_co:
        """The counts."""


@dataclass
class Increments(Generic[C]):
    """What is added to the activity of *source* between two looks at it."""

    source: Active[C]
    clock: Callable[[], float] = time.monotonic
    latest: Sequence[C] = ()
    """The activity of the last minutes, as it stood at the last look."""
    _looked_at: float | None = None

    def look(self) -> list[C]:
        """What was done since the last look; at the first one nothing."""
        at = self.clock()
        since = 0.0 if self._looked_at is None else at - self._looked_at
        found = self.source.activity(seconds=since + _REPORT_SECONDS)
        before = {(one.at, one.kind): one for one in self.latest}
        first, self._looked_at, self.latest = self._looked_at is None, at, found
        if first:
            return []
        new = []
        for one in found:
            earlier = before.get((one.at, one.kind))
            new.append(one if earlier is None else one - earlier)
        return [one for one in new if not one.empty]


@dataclass
class ThrottledStats(Generic[S]):
    """The stats of *source*, and less often than they are asked for where counting takes long."""

    source: Countable[S]
    clock: Callable[[], float] = time.monotonic
    _stats: S | None = None
    _again_at: float = 0.0

    def look(self) -> S:
        """The counts, as they were a little ago at most."""
        begun = self.clock()
        if self._stats is None or begun >= self._again_at:
            self._stats = self.source.stats()
            ended = self.clock()
            self._again_at = ended + (ended - begun) / _COUNT_SHARE
        return self._stats


class Recently(Generic[C]):
    """
    What *source* did of late, as it is looked at again and again.

    The first looks tell of the last minute or two; once it has looked on for a while they tell of
    the last half minute.
    """

    def __init__(self, source: Active[C], clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._increments: Increments[C] = Increments(source, clock)
        self._steps: deque[tuple[float, list[C]]] = deque()

    def look(self, now: datetime) -> tuple[float, dict[str, C]]:
        """What was done, by kind, in how many seconds before *now* on the database's clock."""
        seconds = self._step(self._increments.look())
        if seconds < _SHORTEST_SECONDS:
            begin = (now - timedelta(seconds=60)).replace(second=0, microsecond=0)
            latest = [one for one in self._increments.latest if one.at >= begin]
            return (now - begin).total_seconds(), total_by_kind(latest)
        # The oldest step only says when what the others tell of begins.
        gathered = [one for _, step in list(self._steps)[1:] for one in step]
        return seconds, total_by_kind(gathered)

    def _step(self, new: list[C]) -> float:
        at = self._clock()
        self._steps.append((at, new))
        while len(self._steps) > 2 and self._steps[1][0] <= at - _RATE_SECONDS:
            self._steps.popleft()
        return at - self._steps[0][0]


class Observer:
    """
    Looks at *outbox* again and again.

    The first looks tell of the last minute or two; once it has looked on for a while they tell of
    the last half minute.
    """

    def __init__(self, outbox: OutboxStore, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.outbox = outbox
        self._recently: Recently[Activity] = Recently(outbox, clock)
        self._counts: ThrottledStats[OutboxStats] = ThrottledStats(outbox, clock)

    def look(self) -> Overview:
        """How it is now."""
        now = self.outbox.now()
        seconds, recent = self._recently.look(now)
        stats = self._counts.look()
        kinds = [
            KindOverview(
                kind,
                waiting=of.get("PENDING", 0) + of.get("RETRY", 0),
                running=of.get("RUNNING", 0),
                failed=of.get("FAILED", 0),
                recent=recent.get(kind) or Activity(now, kind),
                seconds=seconds,
                paused=kind in stats.paused,
            )
            for kind, of in _with_all(stats.counts, recent).items()
        ]
        return Overview(now, kinds, self.outbox.workers(), stats.oldest_due_seconds, stats.paused)


def _with_all(
    counts: Mapping[str, Mapping[str, int]], recent: Mapping[str, Activity]
) -> dict[str, Mapping[str, int]]:
    """The counts of every kind that is stored, or was of late."""
    return {kind: counts.get(kind, {}) for kind in sorted({*counts, *recent})}


@dataclass(frozen=True, slots=True)
class WorkflowOverview:
    """
    The executions of one workflow.

    *waiting* (PENDING), *running* and *failed* are numbers of executions that are stored; *recent*
    is what became of executions in the last *seconds*.
    """

    workflow: str
    waiting: int
    running: int
    failed: int
    recent: WorkflowActivity
    seconds: float

    @property
    def rate(self) -> float:
        """Executions that were completed, in a second."""
        return self.recent.completed / self.seconds

    def per_minute(self, count: int) -> float:
        """*count*, being of the last *seconds*, in a minute."""
        return count * 60.0 / self.seconds


class ExecutionObserver:
    """Looks at *executions* again and again; see `automate_kernel.monitoring.overview.Observer`."""

    def __init__(
        self, executions: ExecutionStore, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._recently: Recently[WorkflowActivity] = Recently(executions, clock)
        self._counts: ThrottledStats[ExecutionStats] = ThrottledStats(executions, clock)

    def look(self, now: datetime) -> list[WorkflowOverview]:
        """How each workflow does at *now* on the database's clock, sorted by name."""
        seconds, recent = self._recently.look(now)
        counts = self._counts.look().counts
        return [
            WorkflowOverview(
                name,
                waiting=counts.get(name, {}).get("PENDING", 0),
                running=counts.get(name, {}).get("RUNNING", 0),
                failed=counts.get(name, {}).get("FAILED", 0),
                recent=recent.get(name) or WorkflowActivity(now, name),
                seconds=seconds,
            )
            for name in sorted({*counts, *recent})
        ]
