"""What workers tell of themselves, as operators see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from automate_kernel.outbox.histogram import percentile

__all__ = ["Activity", "WorkerInfo"]


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """
    A worker, as it last told of itself.

    It does so every few seconds while it lives, and takes itself off the list when it ends. One
    that is *lost* has not told for a minute: it was killed, or it is cut off from the database.
    Times are on the database's clock.

    One with a *problem* does no work: it ends again and again before it can begin, and whoever
    starts it tells why. It has no slots.
    """

    id: str
    host: str
    pid: int
    started_at: datetime | None
    seen_at: datetime | None
    kinds: tuple[str, ...] = ()
    slots: int = 0
    in_flight: int = 0
    stopping: bool = False
    lost: bool = False
    problem: str | None = None

    @property
    def alive(self) -> bool:
        """Whether it works, as far as anybody knows."""
        return not self.lost and self.problem is None


@dataclass(frozen=True, slots=True)
class Activity:
    """
    What all workers together did to items of one *kind* in the minute that begins *at*.

    *completed*, *retried* and *failed* count outcomes that were recorded; *lost* counts leases that
    ended before their worker did, and were taken back. *run_seconds* is how long handlers ran in
    all, *wait_seconds* how long items were due before theirs began. The buckets are histograms of
    both: see `automate_kernel.outbox.percentile`.
    """

    at: datetime
    kind: str
    completed: int = 0
    retried: int = 0
    failed: int = 0
    lost: int = 0
    run_seconds: float = 0.0
    wait_seconds: float = 0.0
    run_buckets: Mapping[int, int] = field(default_factory=dict)
    wait_buckets: Mapping[int, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """All outcomes."""
        return self.completed + self.retried + self.failed

    @property
    def empty(self) -> bool:
        """Whether nothing was counted."""
        return not (self.total or self.lost or self.run_buckets)

    def run_percentile(self, share: float) -> float | None:
        """Within how many seconds a *share* of the handlers ended; None if none ran."""
        return percentile(self.run_buckets, share)

    def wait_percentile(self, share: float) -> float | None:
        """Within how many seconds a *share* of the items were begun once due; None if none was."""
        return percentile(self.wait_buckets, share)

    def __add__(self, other: Activity) -> Activity:
        """Both together, with the later of their minutes."""
        return self._with(other, 1)

    def __sub__(self, other: Activity) -> Activity:
        """What came since *other*, an earlier look at the same."""
        return self._with(other, -1)

    def _with(self, other: Activity, sign: int) -> Activity:
        return Activity(
            max(self.at, other.at),
            self.kind,
            self.completed + sign * other.completed,
            self.retried + sign * other.retried,
            self.failed + sign * other.failed,
            self.lost + sign * other.lost,
            self.run_seconds + sign * other.run_seconds,
            self.wait_seconds + sign * other.wait_seconds,
            _with(self.run_buckets, other.run_buckets, sign),
            _with(self.wait_buckets, other.wait_buckets, sign),
        )


def _with(one: Mapping[int, int], other: Mapping[int, int], sign: int) -> dict[int, int]:
    both = {b: one.get(b, 0) + sign * other.get(b, 0) for b in {*one, *other}}
    return {bucket: count for bucket, count in both.items() if count}
