"""The counts that monitoring shows: as they stand in the database, and what is added to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from automate_kernel.base import runtime
from automate_kernel.outbox.statistics import MinuteTotal
from automate_kernel.outbox.worker_reports import WorkerInfo
from automate_kernel.storage.checkpoint import LIVE
from automate_kernel.storage.statuses import ExecutionStatus

# Further back than a report can be late, so that none is missed between two looks.
_REPORT_SECONDS = 180.0
# Counting a large table takes its time; no more than a tenth of the time is spent on it.
_COUNT_SHARE = 0.1
STANDING = (*LIVE, ExecutionStatus.FAILED.value)
"""The statuses of the executions that are counted as they stand in the database."""

C = TypeVar("C", bound=MinuteTotal)
C_co = TypeVar("C_co", bound=MinuteTotal, covariant=True)
S = TypeVar("S")
S_co = TypeVar("S_co", covariant=True)


class Observed(Protocol[C_co, S_co]):
    """An outbox, or executions."""

    def activity(self, *, seconds: float) -> Sequence[C_co]:
        """Return the activity of the last *seconds*, by minute."""

    def stats(self) -> S_co:
        """Count what is stored."""


@dataclass
class Increments(Generic[C]):
    """The activity that is added to *source* between two looks at it."""

    source: Observed[C, Any]
    clock: Callable[[], float] = runtime.clock
    latest: Sequence[C] = ()
    """The activity of the last minutes, as it stood at the last look."""
    _looked_at: float | None = None

    def look(self) -> list[C]:
        """Return the activity since the last look; at the first one nothing."""
        at = self.clock()
        since = 0.0 if self._looked_at is None else at - self._looked_at
        found = self.source.activity(seconds=since + _REPORT_SECONDS)
        before = {(one.at, one.kind): one for one in self.latest}
        first, self._looked_at, self.latest = self._looked_at is None, at, found
        if first:
            return []
        pairs = ((one, before.get((one.at, one.kind))) for one in found)
        new = [one if earlier is None else one - earlier for one, earlier in pairs]
        return [one for one in new if not one.empty]


@dataclass
class ThrottledStats(Generic[S]):
    """The stats of *source*, counted less often than asked for where counting takes long."""

    source: Observed[Any, S]
    clock: Callable[[], float] = runtime.clock
    _stats: S | None = None
    _again_at: float = 0.0

    def look(self) -> S:
        """Return the counts of now, or of a little ago."""
        begun = self.clock()
        if self._stats is None or begun >= self._again_at:
            self._stats = self.source.stats()
            ended = self.clock()
            self._again_at = ended + (ended - begun) / _COUNT_SHARE
        return self._stats


def workers_by_state(workers: Iterable[WorkerInfo]) -> dict[str, int]:
    """Count workers that are running, stopping, lost, or failing before they can begin."""
    counts = dict.fromkeys(("running", "stopping", "lost", "failing"), 0)
    for worker in workers:
        if worker.problem is None:
            counts["lost" if worker.lost else "stopping" if worker.stopping else "running"] += 1
        elif not worker.lost:
            counts["failing"] += 1
    return counts
