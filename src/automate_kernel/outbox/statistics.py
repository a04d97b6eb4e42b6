"""What workers have done, minute by minute: how it is gathered, and how it is read."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from math import ceil, log10
from typing import Any, Generic, Protocol, TypeVar

from automate_kernel.outbox.ids import new_id
from automate_kernel.outbox.item import ItemStatus, OutboxItem, OutcomeRecorded, ReapResult, Result

__all__ = [
    "FIRST",
    "LAST",
    "ActivityLog",
    "ActivityRow",
    "Minutes",
    "Times",
    "bucket_of",
    "percentile",
    "total_by_kind",
    "upper_bound",
]

FIRST, LAST = -50, 60
"""10 µs and less, and 12 days and more."""

_SHORTEST, _LONGEST = 10 ** (FIRST / 10), 10 ** (LAST / 10)


def bucket_of(seconds: float) -> int:
    """The bucket that a duration is counted in."""
    if seconds <= _SHORTEST:
        return FIRST
    return ceil(log10(seconds) * 10) if seconds < _LONGEST else LAST


def upper_bound(bucket: int) -> float:
    """The longest duration that *bucket* holds, in seconds."""
    return float(10 ** (bucket / 10))


def percentile(buckets: Mapping[int, int], share: float) -> float | None:
    """
    The duration that a *share* of those counted in *buckets* stayed within; None if there are none.

    ``percentile(activity.run_buckets, 0.95)`` is the p95 of run times, in seconds.
    """
    total = sum(buckets.values())
    if not total:
        return None
    wanted = min(max(share, 0.0), 1.0) * total
    seen = 0
    for bucket in sorted(buckets):
        count = buckets[bucket]
        if count and seen + count >= wanted:
            # Within a bucket they are taken to lie evenly on the scale.
            return upper_bound(bucket) / 10 ** (0.1 * (1 - (wanted - seen) / count))
        seen += count
    return upper_bound(max(buckets))


class MinuteRow(Protocol):
    """What is counted in one minute."""

    at: datetime | None

    def merge(self, other: Any, /) -> None:
        """Add what *other* counted."""


R = TypeVar("R", bound=MinuteRow)

# So many of a group are timed, and stand for the others: to time each would cost a worker that
# finishes thousands a second more than finishing them does.
_TIMED = 32
_COMPLETED, _RETRY, _FAILED = ItemStatus.COMPLETED, ItemStatus.RETRY, ItemStatus.FAILED


@dataclass(slots=True)
class Times:
    """How long something took: the sum, and a histogram (`automate_kernel.outbox.statistics`)."""

    seconds: float = 0.0
    buckets: dict[int, int] = field(default_factory=dict)

    def add(self, seconds: float, count: int = 1) -> None:
        """Count *count* durations of that many *seconds*."""
        bucket = bucket_of(seconds)
        self.buckets[bucket] = self.buckets.get(bucket, 0) + count
        self.seconds += seconds * count

    def merge(self, other: Times) -> None:
        """Add what *other* holds."""
        self.seconds += other.seconds
        for bucket, count in other.buckets.items():
            self.buckets[bucket] = self.buckets.get(bucket, 0) + count

    def to_json(self) -> dict[str, Any]:
        """What is stored."""
        return {
            "seconds": round(self.seconds, 6),
            "buckets": {str(bucket): self.buckets[bucket] for bucket in sorted(self.buckets)},
        }

    def merge_json(self, data: Mapping[str, Any]) -> None:
        """Add what was stored."""
        self.seconds += data["seconds"]
        buckets = self.buckets
        for text, count in data["buckets"].items():
            bucket = int(text)
            buckets[bucket] = buckets.get(bucket, 0) + count


@dataclass(slots=True)
class ActivityRow:
    """What one worker did to items of one kind in one minute; *id* is its row's."""

    kind: str
    at: datetime | None = None
    id: str = field(default_factory=new_id)
    completed: int = 0
    retried: int = 0
    failed: int = 0
    lost: int = 0
    run: Times = field(default_factory=Times)
    wait: Times = field(default_factory=Times)

    def merge(self, other: ActivityRow) -> None:
        """Add what *other* counted."""
        self.completed += other.completed
        self.retried += other.retried
        self.failed += other.failed
        self.lost += other.lost
        self.run.merge(other.run)
        self.wait.merge(other.wait)


class Minutes(Generic[R]):
    """
    Rows that are gathered in memory, one per name and minute, until they are written down.

    *make* makes an empty row for a name and a minute.
    """

    def __init__(self, make: Callable[..., R]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._gathered: dict[str, R] = {}
        self._unsaved: dict[tuple[datetime, str], R] = {}
        self._minute: dict[str, R] = {}

    def _row(self, name: str) -> R:
        """What is gathered for *name*; to be called with the lock."""
        row = self._gathered.get(name)
        if row is None:
            row = self._gathered[name] = self._make(name)
        return row

    def unsaved(self, minute: datetime) -> list[R]:
        """
        The rows to write, after what was gathered since the last call is added to *minute*'s.

        Each holds all of its minute, so that writing it twice does no harm.
        """
        with self._lock:
            gathered, self._gathered = self._gathered, {}
        for name, new in gathered.items():
            row = self._minute.get(name)
            if row is None or row.at != minute:
                row = self._minute[name] = self._make(name, minute)
            row.merge(new)
            self._unsaved[minute, name] = row
        return list(self._unsaved.values())

    def saved(self) -> None:
        """What `unsaved` gave is written: forget it."""
        self._unsaved.clear()

    @property
    def idle(self) -> bool:
        """Whether there is nothing to write."""
        return not self._gathered and not self._unsaved


class TimedItem(Protocol):
    """An item with the times at which a worker claimed, began and ended it."""

    @property
    def item(self) -> OutboxItem:
        """The item."""

    @property
    def claimed_at(self) -> float:
        """The claim, on this machine's monotonic clock as the others."""

    @property
    def started_at(self) -> float | None:
        """The beginning; None if it did not begin."""

    @property
    def ended_at(self) -> float | None:
        """The end."""


class ActivityLog(Minutes[ActivityRow]):
    """
    Gathers in memory what a worker does, until it is written down.

    `add` is called once for each group of outcomes, from the worker's hot path. Counts are exact.
    Of a large group only some are timed, and stand for the rest.
    """

    def __init__(self) -> None:
        super().__init__(ActivityRow)
        self._offset = 0

    def add(self, group: Sequence[tuple[TimedItem, Result]], lost: Collection[str]) -> None:
        """Count the outcomes of *group*, but for those whose lease was *lost*."""
        stride = len(group) // _TIMED + 1
        self._offset = (self._offset + 1) % stride
        with self._lock:
            rows = self._gathered
            for task, result in group:
                kind = task.item.kind
                row = rows.get(kind)
                if row is None:
                    row = rows[kind] = ActivityRow(kind)
                if type(result) is OutcomeRecorded:
                    status = result.outcome.status if result.outcome else _COMPLETED
                elif result is None or (lost and result.item_id in lost):  # type: ignore[union-attr]
                    continue  # whoever took it over counts it
                else:
                    status = result.status  # type: ignore[union-attr]
                if status is _COMPLETED:
                    row.completed += 1
                elif status is _RETRY:
                    row.retried += 1
                elif status is _FAILED:
                    row.failed += 1
            for task, _ in group[self._offset :: stride]:
                self._time(rows[task.item.kind], task, stride)

    def _time(self, row: ActivityRow, task: TimedItem, count: int) -> None:
        if task.started_at is None or task.ended_at is None:
            return  # handed back without having begun
        row.run.add(task.ended_at - task.started_at, count)
        item = task.item
        # Until the claim on the database's clock, and from there on our own.
        waited = (item.updated_at - item.next_attempt_at).total_seconds()
        row.wait.add(waited + task.started_at - task.claimed_at, count)

    def reaped(self, result: ReapResult) -> None:
        """Count items that were taken back from workers that are gone."""
        with self._lock:
            for item in result.retried:
                self._row(item.kind).lost += 1
            for item in result.failed:
                row = self._row(item.kind)
                row.lost += 1
                row.failed += 1


class Kinded(Protocol):
    """What is counted under a *kind*, and adds up."""

    @property
    def kind(self) -> str:
        """The name that it is counted under."""

    def __add__(self, other: Any, /) -> Any:
        """Both together."""


K = TypeVar("K", bound=Kinded)


def total_by_kind(activity: Iterable[K]) -> dict[str, K]:
    """One sum per kind of all its minutes, sorted by kind; its *at* is the latest."""
    totals: dict[str, K] = {}
    for one in activity:
        total = totals.get(one.kind)
        totals[one.kind] = one if total is None else total + one
    return dict(sorted(totals.items()))
