"""
Limits of a kind over all workers: how many items run at once, and how many start in a time.

A limit is a row. Who claims items of its kind locks it, counts what of the kind runs, takes what
is left, and notes the starts: so limits are exact however many workers there are, and nothing has
to be given back. What finishes, is released or reaped is no longer counted, that is all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from operator import itemgetter
from typing import Generic, TypeVar

from automate_kernel.base import runtime
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.outbox.fair_share import FairShare, ready_kinds
from automate_kernel.outbox.item import check_text
from automate_kernel.storage.query import Now, Where
from automate_kernel.storage.rows import Row, Rows, Storage, write
from automate_kernel.storage.tables import LIMIT, OUTBOX

T = TypeVar("T")

_MOST = 2_147_483_647
# A limit that another worker holds is free again within so long.
_BUSY_SECONDS = 0.02
# A kind of which enough runs may have room again at any time: whoever ends an item looks at once.
_FULL_SECONDS = 0.5
Take = Callable[[Sequence[str], int, FairShare], list[Row]]
"""Claims up to so many items of some kinds, by a share."""


@dataclass(frozen=True, slots=True)
class Limit:
    """
    At most *concurrency* items of *kind* at once, and *rate* starts per *per_seconds*.

    After a lull up to *burst* (by default *rate*) start at once, so in any t seconds at most
    ``burst + rate * t / per_seconds`` do. *declared* ones come from the code; those that an
    operator set go before them. Raises ``INVALID_ARGUMENT`` for what can't be a limit.
    """

    kind: str
    concurrency: int | None = None
    rate: int | None = None
    per_seconds: float = 1.0
    burst: int | None = None
    declared: bool = False

    def __post_init__(self) -> None:
        check_text(self.kind, "kind")
        if self.concurrency is None and self.rate is None:
            raise _invalid("a limit needs a concurrency or a rate", "unlimit() lifts a limit")
        for name in ("concurrency", "rate", "burst"):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool)
            if value is not None and not (whole and 1 <= value <= _MOST):
                raise _invalid(f"{name} must be a whole number above 0", "pause() stops a kind")
        if self.burst is not None and self.rate is None:
            raise _invalid("a burst needs a rate")
        number = isinstance(self.per_seconds, (int, float))
        if not number or not 0.001 <= self.per_seconds <= _MOST / 1000:
            raise _invalid(f"per_seconds must be from 0.001 to {_MOST // 1000}")

    @property
    def seconds_apart(self) -> float:
        """Seconds until one start is made up for; 0 without a rate."""
        return self.per_seconds / self.rate if self.rate else 0.0

    @classmethod
    def of(cls, row: Row) -> Limit:
        """Return the limit of a row of the table."""
        same = {name: row[name] for name in ("kind", "concurrency", "rate", "burst")}
        seconds = row["per_milliseconds"] / 1000
        return cls(**same, per_seconds=seconds, declared=bool(row["declared"]))

    def to_changes(self) -> Row:
        """Return the changes of its row that set it."""
        return {
            "concurrency": self.concurrency,
            "rate": self.rate,
            "per_milliseconds": round(self.per_seconds * 1000),
            "burst": self.burst,
            "declared": int(self.declared),
            "updated_at": Now(),
        }


def _invalid(message: str, hint: str | None = None) -> AutomateError:
    return AutomateError(ErrorCodes.INVALID_ARGUMENT, message, hint=hint)


@dataclass(slots=True)
class _Budget:
    """The number of items of a limited kind that may be claimed now, under its limit's lock."""

    limit: Limit
    free: int
    now: datetime
    bucket_full_at: datetime
    """The time at which the starts so far would be made up for."""

    @classmethod
    def of(cls, row: Row, running: int, now: datetime) -> _Budget:
        """Return the budget of a row of limits, while so many items of its kind are *running*."""
        limit = Limit.of(row)
        free = _MOST if limit.concurrency is None else limit.concurrency - running
        if limit.rate is None:
            return cls(limit, free, now, now)
        apart, burst = limit.seconds_apart, limit.burst or limit.rate
        # No more than a whole bucket is owed, whatever the limit or the clock was before.
        owed = min(max(0.0, (row["full_at"] - now).total_seconds()), burst * apart)
        # A little more, since a sum of microseconds may miss a whole number by one.
        tokens = math.floor(burst - owed / apart + 1e-6)
        return cls(limit, min(free, tokens), now, now + timedelta(seconds=owed))

    def started(self, count: int) -> Row:
        """Note *count* starts; returns what they change of the limit's row."""
        seconds = count * self.limit.seconds_apart
        # Rounded up: a timestamp holds microseconds, and no start may come too early.
        self.bucket_full_at += timedelta(microseconds=math.ceil(seconds * 1_000_000))
        return {"full_at": self.bucket_full_at, "updated_at": Now()}

    def wait(self) -> float:
        """Return the seconds until the next start is free, 0 or less if one is now."""
        if self.limit.rate is None:
            return 0.0
        bucket = (self.limit.burst or self.limit.rate) - 1
        return (self.bucket_full_at - self.now).total_seconds() - bucket * self.limit.seconds_apart


class TimedCache(Generic[T]):
    """
    The last value that was read. It is kept for *seconds* by *clock*, which returns seconds.

    Threads may share it: two that read at the same time both keep what is new.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = runtime.clock) -> None:
        self._seconds, self._clock = seconds, clock
        # With the time until which it holds.
        self._known: tuple[T, float] | None = None

    def get(self, read: Callable[[], T], *, early: bool = False) -> T:
        """Return the value, read again if its time is over; *early* if half of its time is."""
        now, known = self._clock(), self._known
        if known is None or now >= known[1] - early * self._seconds / 2:
            known = self._known = read(), now + self._seconds
        return known[0]

    def forget(self) -> None:
        """Read it again the next time: it has just been changed."""
        self._known = None

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Forget it after the block; a commit whose reply is lost may have changed it too."""
        try:
            yield
        finally:
            self.forget()


class KindLimits:
    """
    The limits of all kinds, as one store keeps to them.

    It reads the table at most every *control_seconds*, and remembers when kinds may start again
    that could not at the last claim.
    """

    def __init__(self, storage: Storage, *, control_seconds: float, skip_locked: bool) -> None:
        self._storage, self._skip_locked = storage, skip_locked
        self._control_seconds = control_seconds
        self._known: TimedCache[Mapping[str, Limit]] = TimedCache(control_seconds)
        # By the monotonic clock.
        self._free_at: Mapping[str, float] = {}
        # Of its own for each kind, since a backlog behind a limit says nothing of other kinds; and
        # kept, since tenants take turns at the few places that there are.
        self._share_of: Mapping[str, FairShare] = {}
        self._turns = 0
        # The kinds whose declared limits this store has lifted.
        self._undeclared: set[str] = set()

    def set(self, limit: Limit) -> None:
        """Set the limit of a kind, whatever it was."""
        with self._known.changing():
            self._set(limit, [])

    def declare(self, limits: Iterable[Limit], kinds: Iterable[str]) -> None:
        """Set limits that the code declares; see `OutboxStore.declare_limits`."""
        declared = Where("declared", "eq", 1)
        gone = set(kinds)
        for limit in limits:
            with self._known.changing():
                self._set(replace(limit, declared=True), [declared])
            gone.discard(limit.kind)
            self._undeclared.discard(limit.kind)
        if gone <= self._undeclared:
            return  # each round of `run_until_idle` declares them
        undeclared = [Where("kind", "in", sorted(gone)), declared]
        with self._known.changing():
            write(self._storage, None, lambda rows: rows.delete(LIMIT, undeclared))
        self._undeclared |= gone

    def _set(self, limit: Limit, only: Sequence[Where]) -> None:
        row = {"kind": limit.kind, **limit.to_changes(), "full_at": Now()}

        def work(rows: Rows) -> None:
            if not rows.insert(LIMIT, [row]):
                rows.update(LIMIT, [Where("kind", "eq", limit.kind), *only], limit.to_changes())
            rows.notify()  # it may be a wider limit than the last

        write(self._storage, None, work)

    def lift(self, kind: str) -> bool:
        """Lift the limit of *kind*; False if it had none."""
        its = [Where("kind", "eq", kind)]

        def work(rows: Rows) -> bool:
            lifted = bool(rows.delete(LIMIT, its))
            rows.notify()
            return lifted

        with self._known.changing():
            return write(self._storage, None, work, atomic=False)

    def limited(
        self, rows: Rows, kinds: Collection[str] | None, *, early: bool = False
    ) -> list[str]:
        """
        Return those of *kinds* (all if None) that have a limit, as far as is known.

        Look at the table again *early*: when half the time is over for which it is known.
        """
        known = self._known.get(partial(self._read, rows), early=early)
        if self._free_at:
            self._free_at = {
                kind: at
                for kind, at in self._free_at.items()
                if kinds is not None and kind not in kinds
            }
        return [kind for kind in known if kinds is None or kind in kinds]

    def _read(self, rows: Rows) -> Mapping[str, Limit]:
        known = {row["kind"]: Limit.of(row) for row in rows.select(LIMIT)}
        refresh = self._control_seconds / 20
        self._share_of = {kind: self._share_of.get(kind) or FairShare(refresh) for kind in known}
        return known

    def claim(
        self,
        rows: Rows,
        limited: Sequence[str],
        kinds: Collection[str] | None,
        limit: int,
        share: FairShare,
        take: Take,
    ) -> list[Row]:
        """
        Claim *limited* kinds, each for itself, and all the others together by *share*.

        They take turns at being first, and none gets more than its share while others wait.
        """
        ready = ready_kinds(rows, None if kinds is None else list(kinds))
        others = [kind for kind in (ready if kinds is None else kinds) if kind not in limited]
        budgets = self._budgets(rows, [kind for kind in limited if kind in ready])
        # What each counts for: as many kinds as it stands for.
        parts: list[tuple[_Budget | None, int]] = [(budget, 1) for budget in budgets]
        if waiting := len(set(ready).difference(limited)):
            parts.append((None, waiting))
        self._turns += 1
        turn = self._turns % max(1, len(parts))
        claimed: list[Row] = []
        more, weight = False, sum(kinds_of for _, kinds_of in parts)
        for budget, kinds_of in [*parts[turn:], *parts[:turn]]:
            count = math.ceil((limit - len(claimed)) * kinds_of / weight)
            weight -= kinds_of
            if budget is None:
                taken = take(others, count, share) if count else []
                more = len(taken) == count
            else:
                taken = self._start(rows, budget, min(count, budget.free), share, take)
            claimed += taken
        if more and len(claimed) < limit:
            claimed += take(others, limit - len(claimed), share)
        return sorted(claimed, key=itemgetter("sort_at", "id"))

    def _start(
        self, rows: Rows, budget: _Budget, count: int, share: FairShare, take: Take
    ) -> list[Row]:
        kind = budget.limit.kind
        taken = take([kind], count, self._share_of.get(kind, share)) if count else []
        if taken:
            # Without a rate too: where the database compares snapshots, it must see a change.
            rows.update(LIMIT, [Where("kind", "eq", kind)], budget.started(len(taken)))
            self._wait_for(kind, budget.wait())
        return taken

    def _wait_for(self, kind: str, seconds: float) -> None:
        if seconds > 0:
            self._free_at = {**self._free_at, kind: runtime.monotonic() + seconds}

    def _budgets(self, rows: Rows, ready: Sequence[str]) -> list[_Budget]:
        """
        Return the budgets of those *ready* kinds of which something may start, their rows locked.

        A limit that is locked already is left out: another worker claims that kind right now.
        """
        found = rows.select(
            LIMIT, [Where("kind", "in", ready)], order_by=("kind",), lock=True,
            skip_locked=self._skip_locked,
        )  # fmt: skip
        for kind in set(ready).difference(row["kind"] for row in found):
            self._wait_for(kind, _BUSY_SECONDS)
        if not found:
            return []
        running = _running(rows, [row["kind"] for row in found if row["concurrency"]])
        now = rows.now()
        budgets = [_Budget.of(row, running.get(row["kind"], 0), now) for row in found]
        for row, budget in zip(found, budgets, strict=True):
            kind = row["kind"]
            self._wait_for(kind, budget.wait())
            if budget.free <= 0 and kind not in self._free_at:
                self._wait_for(kind, _FULL_SECONDS)
            if budget.limit.rate is not None and row["full_at"] > budget.bucket_full_at:
                # Owed more than can be: by a clock that was wrong, or under another rate.
                rows.update(LIMIT, [Where("kind", "eq", kind)], budget.started(0))
        return [budget for budget in budgets if budget.free > 0]

    def due_seconds(self, due: float | None) -> float | None:
        """Return *due*, or the seconds until a start is free if due items wait for that alone."""
        if due is None or due > 0 or not self._free_at:
            return due
        return max(0.001, min(self._free_at.values()) - runtime.monotonic())


def read_limits(rows: Rows) -> list[Limit]:
    """Return all limits, by kind."""
    return [Limit.of(row) for row in rows.select(LIMIT, order_by=("kind",))]


def _running(rows: Rows, kinds: Sequence[str]) -> dict[str, int]:
    # By their leases, which have an index: what runs is little beside what waits or is done.
    its = [Where("kind", "in", kinds), Where("lease_expires_at", "ne", None)]
    return {row["kind"]: row["n"] for row in rows.count(OUTBOX, ("kind",), its)}
