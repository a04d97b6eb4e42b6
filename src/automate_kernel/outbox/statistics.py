"""
Statistics: counts and durations by minute and name, gathered in memory and kept in a table.

Items are counted by kind, executions by workflow. Durations are counted in buckets, ten to each
power of ten.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta, timezone
from functools import lru_cache, partial
from math import ceil, log10
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from automate_kernel.base import runtime
from automate_kernel.base.forks import new_lock
from automate_kernel.outbox.item import new_id
from automate_kernel.storage.query import Where
from automate_kernel.storage.rows import Row, Rows, Storage, write

if TYPE_CHECKING:
    from typing_extensions import Self

FIRST, LAST = -50, 60
"""The buckets of 10 µs and less, and of 12 days and more."""

# A history has so many blocks of a length at least, or those of the next shorter length.
_LEAST_BLOCKS = 6
# A block is rolled up so long after its end, for so long at once.
_LATE_MINUTES = 2
_ROLLING_SECONDS = 0.5
_NAMESPACE = uuid.UUID("c7a0d6f8-1a57-4a3e-9d0a-8f1de1c2e9b7")

_SHORTEST, _LONGEST = 10 ** (FIRST / 10), 10 ** (LAST / 10)


def bucket_of(seconds: float) -> int:
    """Return the bucket that a duration is counted in."""
    if seconds <= _SHORTEST:
        return FIRST
    return ceil(log10(seconds) * 10) if seconds < _LONGEST else LAST


def upper_bound(bucket: int) -> float:
    """Return the longest duration that *bucket* holds, in seconds."""
    return float(10 ** (bucket / 10))


def percentile(buckets: Mapping[int, int], share: float) -> float | None:
    """
    Return the duration within which a *share* of those in *buckets* stayed; None if they are empty.

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


@dataclass(slots=True)
class Times:
    """Durations: their sum, and a histogram."""

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
        """Return the value that is stored."""
        return {
            "seconds": round(self.seconds, 6),
            "buckets": {str(bucket): self.buckets[bucket] for bucket in sorted(self.buckets)},
        }

    def merge_json(self, data: Mapping[str, Any]) -> None:
        """Add a stored value."""
        self.seconds += data["seconds"]
        buckets = self.buckets
        for text, count in data["buckets"].items():
            bucket = _part(text)
            buckets[bucket] = buckets.get(bucket, 0) + count


@lru_cache(1024)
def _part(text: str) -> Any:
    """Return the number of a bucket, or another word as it is."""
    return int(text) if text.lstrip("-").isdecimal() else text


MOST_NAMES = 100
"""The number of names that are told apart in one minute, or on one page of metrics."""
OTHERS = "(others)"
"""The name under which further ones are counted."""

NamedNumbers = Mapping[tuple[str, "str | int"], float]
"""Numbers by a name, and by a word (``seconds``, an outcome) or the number of a bucket."""


@dataclass(slots=True)
class NamedCounts:
    """The numbers of one name: by outcome, and a histogram of durations with its sum."""

    outcomes: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    buckets: dict[int, int] = field(default_factory=dict)


def counts_by_name(numbers: NamedNumbers) -> dict[str, NamedCounts]:
    """Return *numbers* by their names, sorted; of too many the last ones as `OTHERS`."""
    names = set(sorted({name for name, _ in numbers if name != OTHERS})[:MOST_NAMES])
    found: dict[str, NamedCounts] = {}
    for (name, part), number in numbers.items():
        one = found.setdefault(name if name in names else OTHERS, NamedCounts())
        if part == "seconds":
            one.seconds += number
        elif isinstance(part, int):
            one.buckets[part] = one.buckets.get(part, 0) + int(number)
        else:
            one.outcomes[part] = one.outcomes.get(part, 0) + int(number)
    return dict(sorted(found.items()))


@dataclass(slots=True)
class NamedTimes:
    """Outcomes and durations by name, of `MOST_NAMES` at most."""

    numbers: defaultdict[tuple[str, str | int], float] = field(
        default_factory=lambda: defaultdict(int)
    )
    _names: set[str] = field(default_factory=set)

    def add(self, name: str, outcome: str, seconds: float | None) -> None:
        """Count an *outcome* under *name*, and how long it took."""
        if name not in self._names:
            if len(self._names) >= MOST_NAMES:
                name = OTHERS
            else:
                self._names.add(name)
        self.numbers[name, outcome] += 1
        if seconds is not None:
            self.numbers[name, bucket_of(seconds)] += 1
            self.numbers[name, "seconds"] += seconds

    def merge(self, other: NamedTimes) -> None:
        """Add what *other* holds."""
        for (name, part), number in other.numbers.items():
            known = name in self._names or len(self._names) < MOST_NAMES
            if known and name != OTHERS:
                self._names.add(name)
            self.numbers[name if known else OTHERS, part] += number

    def to_json(self) -> dict[str, dict[str, float]] | None:
        """Return the value that is stored: None if nothing was counted."""
        data: dict[str, dict[str, float]] = {}
        for (name, part), number in sorted(self.numbers.items(), key=str):
            data.setdefault(name, {})[str(part)] = round(number, 6)
        return data or None

    def merge_json(self, data: Mapping[str, Mapping[str, float]] | None) -> None:
        """Add a stored value."""
        numbers = self.numbers
        for name, its in (data or {}).items():
            for part, number in its.items():
                numbers[name, _part(part)] += number


@dataclass(slots=True)
class MinuteRow:
    """Numbers and `Times` of one process, under one *name* in one minute; *id* is their row's."""

    name: str
    at: datetime | None = None
    id: str = field(default_factory=new_id)

    def merge(self, other: Any) -> None:
        """Add what *other* counted."""
        for each in fields(self):
            value, its = getattr(self, each.name), getattr(other, each.name)
            if isinstance(value, (Times, NamedTimes)):
                value.merge(its)
            elif isinstance(value, int):
                setattr(self, each.name, value + its)


R = TypeVar("R", bound=MinuteRow)


class Minutes(Generic[R]):
    """
    Rows that are gathered in memory, one for each name and minute, until they are written down.

    *make* makes an empty row for a name and a minute.
    """

    def __init__(self, make: Callable[..., R]) -> None:
        self._make = make
        self._lock = new_lock()
        self._gathered: dict[str, R] = {}
        self._unsaved: dict[tuple[datetime, str], R] = {}
        self._minute: dict[str, R] = {}

    def _row(self, name: str) -> R:
        """Return the row in which *name* is counted; to be called with the lock held."""
        row = self._gathered.get(name)
        if row is None:
            row = self._gathered[name] = self._make(name)
        return row

    def unsaved(self, minute: datetime) -> list[R]:
        """
        Return the rows to write, after what was gathered since the last call joined *minute*'s.

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
        """Forget what `unsaved` gave: it is written."""
        self._unsaved.clear()

    @property
    def idle(self) -> bool:
        """True if there is nothing to write."""
        return not self._gathered and not self._unsaved


@dataclass(frozen=True, slots=True)
class MinuteTotal:
    """Statistics of one *kind*, which add up, in the minute that begins *at*."""

    at: datetime
    kind: str
    completed: int = 0

    @property
    def empty(self) -> bool:
        """True if nothing was counted."""
        values = (getattr(self, each.name) for each in fields(self))
        return not any(value for value in values if isinstance(value, (int, Mapping)))

    def __add__(self, other: Self) -> Self:
        """Add both, with the later of their minutes."""
        return _sum(self, other, 1)

    def __sub__(self, other: Self) -> Self:
        """Take away *other*, an earlier state of the same statistics."""
        return _sum(self, other, -1)


T = TypeVar("T", bound=MinuteTotal)


def _sum(one: T, other: T, sign: int) -> T:
    sums: dict[str, Any] = {"at": max(one.at, other.at)}
    for name in (each.name for each in fields(one)):
        mine, its = getattr(one, name), getattr(other, name)
        if isinstance(mine, Mapping):
            both = {each: mine.get(each, 0) + sign * its.get(each, 0) for each in {*mine, *its}}
            sums[name] = {bucket: count for bucket, count in both.items() if count}
        elif isinstance(mine, (int, float)):
            sums[name] = mine + sign * its
    return replace(one, **sums)


def total_by_kind(activity: Iterable[T]) -> dict[str, T]:
    """Add up the minutes of each kind, sorted by kind; *at* is the latest."""
    totals: dict[str, T] = {}
    for one in activity:
        total = totals.get(one.kind)
        totals[one.kind] = one if total is None else total + one
    return dict(sorted(totals.items()))


@dataclass(frozen=True, slots=True)
class MinuteTable:
    """
    A table of statistics: a row for each minute, worker and value of the column *name*.

    *counts* are columns with numbers, and attributes of what `Minutes` gathers. So are *times*,
    durations that stand in columns called ``…_times``. *named* are columns with `NamedTimes`.

    *blocks* are lengths in minutes, each a multiple of the one before. Of each block of so many
    minutes `roll_up` writes a row for each name, so that `history` reads few rows.
    """

    table: str
    name: str
    counts: tuple[str, ...]
    times: tuple[str, ...]
    named: tuple[str, ...] = ()
    blocks: tuple[int, ...] = ()

    def write(self, rows: Rows, worker_id: str, gathered: Minutes[Any]) -> None:
        """Write what is unsaved; call `Minutes.saved` once that is committed."""
        for row in gathered.unsaved(_minute(rows.now())):
            changes: Row = {name: getattr(row, name) for name in self.counts}
            changes |= {f"{name}_times": getattr(row, name).to_json() for name in self.times}
            changes |= {name: getattr(row, name).to_json() for name in self.named}
            # Nobody else writes this row, so there is no race between the two.
            if not rows.update(self.table, [Where("id", "eq", row.id)], changes):
                about = {"id": row.id, "at": row.at, "worker_id": worker_id, self.name: row.name}
                about |= {"minutes": 1} if self.blocks else {}
                rows.insert(self.table, [{**about, **changes}])

    def read(self, rows: Rows, seconds: float, total: type[T]) -> list[T]:
        """Return the totals of all workers in the last *seconds*, the oldest first."""
        # The minute that has begun by then counts whole.
        since = _minute(rows.now() - timedelta(seconds=seconds))
        found = self._read(rows, 1, since)
        return self._totals(found, 1, total)

    def history(self, rows: Rows, seconds: float, total: type[T]) -> list[T]:
        """
        Return the totals of the last *seconds*, as `read` does, of whole blocks: about 30 at most.

        What has not been rolled up yet is read from shorter blocks, and minute by minute.
        """
        now = rows.now()
        fitting = [each for each in self.blocks if seconds >= each * 60 * _LEAST_BLOCKS]
        block = max(fitting, default=1)
        since = _block(now - timedelta(seconds=seconds), block)
        found: list[Row] = []
        for length in [*sorted(fitting, reverse=True), 1]:
            some = self._read(rows, length, since)
            found += some
            ends = (row["at"] + timedelta(minutes=length) for row in some)
            since = max(since, *ends) if some else since
        return self._totals(found, block, total)

    def roll_up(self, storage: Storage) -> bool:
        """Write the rows of blocks that are over, some at once; return True if there are more."""
        until = runtime.monotonic() + _ROLLING_SECONDS
        for shorter, block in zip((1, *self.blocks), self.blocks, strict=False):
            # A longer block is made of the shorter ones, of all of them.
            while write(storage, None, partial(self._roll_up, shorter=shorter, block=block)):
                if runtime.monotonic() >= until:
                    return True
        return False

    def _roll_up(self, rows: Rows, shorter: int, block: int) -> bool:
        """Write the rows of the next block, if it is over and has any; return True if it had."""
        newest = rows.select(
            self.table, [Where("minutes", "eq", block)], order_by=("-at",), limit=1, columns=("at",)
        )
        begin = [Where("at", "ge", row["at"] + timedelta(minutes=block)) for row in newest]
        first = rows.select(
            self.table, [Where("minutes", "eq", shorter), *begin], order_by=("at",), limit=1,
            columns=("at",),
        )  # fmt: skip
        if not first:
            return False
        at = _block(first[0]["at"], block)
        end = at + timedelta(minutes=block)
        # Workers write their last counts of a minute some seconds later.
        if end + timedelta(minutes=_LATE_MINUTES) > rows.now():
            return False
        groups: dict[str, list[Row]] = {}
        for row in self._read(rows, shorter, at, Where("at", "lt", end)):
            groups.setdefault(row[self.name], []).append(row)
        made = []
        for name, group in sorted(groups.items()):
            # Another worker may write the same row: it is there once.
            key = str(uuid.uuid5(_NAMESPACE, f"{self.table}\n{block}\n{at.isoformat()}\n{name}"))
            about = {"id": key, "at": at, "worker_id": None, self.name: name, "minutes": block}
            times, named = self._merged(group)
            sums = {each: sum(row[each] for row in group) for each in self.counts}
            sums |= {f"{each}_times": one.to_json() for each, one in times.items()}
            sums |= {each: one.to_json() for each, one in named.items()}
            made.append({**about, **sums})
        rows.insert(self.table, made)
        return True

    def _read(self, rows: Rows, length: int, since: datetime, *more: Where) -> list[Row]:
        """Return the rows of blocks of that *length* from *since* on."""
        read = ("at", self.name, *self.counts, *(f"{name}_times" for name in self.times))
        where = [Where("minutes", "eq", length)] if self.blocks else []
        where += [Where("at", "ge", since), *more]
        return rows.select(self.table, where, columns=(*read, *self.named))

    def _totals(self, found: list[Row], block: int, total: type[T]) -> list[T]:
        groups: dict[tuple[datetime, str], list[Row]] = {}
        for row in found:
            groups.setdefault((_block(row["at"], block), row[self.name]), []).append(row)
        return [total(*key, **self._sums(groups[key])) for key in sorted(groups)]

    def _merged(self, group: list[Row]) -> tuple[dict[str, Times], dict[str, NamedTimes]]:
        # Summed up in place: a day of a busy outbox is some ten thousand rows.
        times = {name: Times() for name in self.times}
        named = {name: NamedTimes() for name in self.named}
        for row in group:
            for name, one in times.items():
                one.merge_json(row[f"{name}_times"])
            for name, each in named.items():
                each.merge_json(row[name])
        return times, named

    def _sums(self, group: list[Row]) -> dict[str, Any]:
        sums: dict[str, Any] = {name: sum(row[name] for row in group) for name in self.counts}
        times, named = self._merged(group)
        for name, one in times.items():
            sums |= {f"{name}_seconds": one.seconds, f"{name}_buckets": one.buckets}
        return sums | {name: each.numbers for name, each in named.items()}


def _minute(moment: datetime) -> datetime:
    return moment.replace(second=0, microsecond=0)


def _block(moment: datetime, minutes: int) -> datetime:
    """Return the beginning of the block of so many *minutes* that has *moment*."""
    since = int(moment.timestamp()) // 60
    return datetime.fromtimestamp((since - since % minutes) * 60, tz=timezone.utc)
