"""
How much of one kind runs at once, and how much of it starts in a time, over all workers.

A limit is a row. Who claims items of its kind locks it, counts what of the kind runs, takes what
is left, and notes the starts: so limits are exact however many workers there are, and nothing has
to be given back. What finishes, is released or reaped is no longer counted, that is all.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import MappingProxyType

from automate_kernel.errors import AutomateError, ErrorCodes
from automate_kernel.outbox.fair_share import Sharing, ready_kinds
from automate_kernel.outbox.item import check_text
from automate_kernel.storage.rows import Now, Row, Rows, Storage, Where
from automate_kernel.storage.tables import LIMIT, OUTBOX

__all__ = ["Limit", "Limiting"]

_MOST = 2_147_483_647
# A limit that another worker holds is free again within so long.
_BUSY_SECONDS = 0.02
# A kind of which enough runs may have room again at any time: whoever ends one looks at once.
_FULL_SECONDS = 0.5
_Take = Callable[[Sequence[str], int, Sharing], list[Row]]
"""Claims up to so many of some kinds."""


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
            if value is not None and not 1 <= value <= _MOST:
                raise _invalid(f"{name} must be a whole number above 0", "pause() stops a kind")
        if self.burst is not None and self.rate is None:
            raise _invalid("a burst needs a rate")
        if not 0.001 <= self.per_seconds <= _MOST / 1000:
            raise _invalid(f"per_seconds must be from 0.001 to {_MOST // 1000}")

    @property
    def seconds_apart(self) -> float:
        """How long one start takes to be made up for; 0 without a rate."""
        return self.per_seconds / self.rate if self.rate else 0.0

    @classmethod
    def of(cls, row: Row) -> Limit:
        """The limit that a row of the table holds."""
        return cls(
            row["kind"],
            row["concurrency"],
            row["rate"],
            row["per_milliseconds"] / 1000,
            row["burst"],
            bool(row["declared"]),
        )

    def to_changes(self) -> Row:
        """What setting it changes of its row."""
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
class _Room:
    """How many items of a limited kind may be claimed now, under the lock of its limit."""

    limit: Limit
    free: int
    now: datetime
    full_at: datetime
    """When the starts so far would be made up for."""

    def started(self, count: int) -> Row:
        """Note *count* starts; returns what they change of the limit's row."""
        seconds = count * self.limit.seconds_apart
        # Rounded up: a timestamp holds microseconds, and no start may come too early.
        self.full_at += timedelta(microseconds=math.ceil(seconds * 1_000_000))
        return {"full_at": self.full_at, "updated_at": Now()}

    def wait(self) -> float:
        """Seconds until the next start is free, 0 or less if one is now."""
        bucket = (self.limit.burst or self.limit.rate or 1) - 1
        return (self.full_at - self.now).total_seconds() - bucket * self.limit.seconds_apart


class Limiting:
    """The part of `RowsOutboxStore` that keeps limits."""

    storage: Storage
    skip_locked: bool
    _control_seconds: float
    _sharing: Sharing
    _known_limits: Mapping[str, Limit] = MappingProxyType({})
    _limits_until: float = 0.0
    # When limited kinds may start again that could not at the last claim, by the monotonic clock.
    _free_at: Mapping[str, float] = MappingProxyType({})
    _sharing_of: Mapping[str, Sharing] = MappingProxyType({})
    _turns: int = 0

    def limit(
        self,
        kind: str,
        *,
        concurrency: int | None = None,
        rate: int | None = None,
        per_seconds: float = 1.0,
        burst: int | None = None,
    ) -> None:
        """Set the limit of a kind; see `OutboxStore.limit`."""
        self._set(Limit(kind, concurrency, rate, per_seconds, burst), [])
        self._limits_until = 0.0

    def declare_limits(self, limits: Iterable[Limit], *, kinds: Iterable[str] = ()) -> None:
        """Set limits that the code declares; see `OutboxStore.declare_limits`."""
        declared = Where("declared", "eq", 1)
        gone = set(kinds)
        for limit in limits:
            self._set(replace(limit, declared=True), [declared])
            gone.discard(limit.kind)
        with self.storage.begin() as rows:
            rows.delete(LIMIT, [Where("kind", "in", sorted(gone)), declared])
        self._limits_until = 0.0

    def _set(self, limit: Limit, only: Sequence[Where]) -> None:
        with self.storage.begin() as rows:
            row = {"kind": limit.kind, **limit.to_changes(), "full_at": Now()}
            if not rows.insert(LIMIT, [row]):
                its = [Where("kind", "eq", limit.kind), *only]
                rows.update(LIMIT, its, limit.to_changes())

    def unlimit(self, kind: str) -> bool:
        """Lift the limit of a kind; see `OutboxStore.unlimit`."""
        with self.storage.begin(atomic=False) as rows:
            lifted = bool(rows.delete(LIMIT, [Where("kind", "eq", kind)]))
        self._limits_until = 0.0
        return lifted

    def limits(self) -> list[Limit]:
        """All limits; see `OutboxStore.limits`."""
        with self.storage.begin(atomic=False) as rows:
            return [Limit.of(row) for row in rows.select(LIMIT, order_by=("kind",))]

    # -- claiming ------------------------------------------------------------------------------

    def _limited_kinds(self, rows: Rows, kinds: Collection[str] | None) -> list[str]:
        """Those of *kinds* (all if None) that have a limit, as far as is known."""
        now = time.monotonic()
        if now >= self._limits_until:
            self._known_limits = {row["kind"]: Limit.of(row) for row in rows.select(LIMIT)}
            self._limits_until = now + self._control_seconds
            # Of its own, since a backlog behind a limit says nothing of the other kinds; and kept,
            # since tenants take turns at the few places that there are.
            self._sharing_of = {
                kind: self._sharing_of.get(kind) or Sharing(self._control_seconds / 20)
                for kind in self._known_limits
            }
        if self._free_at:
            self._free_at = {
                kind: at
                for kind, at in self._free_at.items()
                if kinds is not None and kind not in kinds
            }
        return [kind for kind in self._known_limits if kinds is None or kind in kinds]

    def _claim_apart(
        self,
        rows: Rows,
        limited: Sequence[str],
        kinds: Collection[str] | None,
        limit: int,
        take: _Take,
    ) -> list[Row]:
        """
        Claim limited kinds, each for itself, and all the others together.

        They take turns at being first, and none gets more than its share while others wait.
        """
        ready = ready_kinds(rows, None if kinds is None else list(kinds))
        others = [kind for kind in (ready if kinds is None else kinds) if kind not in limited]
        rooms = self._rooms(rows, [kind for kind in limited if kind in ready])
        # What each counts for: as many kinds as it stands for.
        parts: list[tuple[_Room | None, int]] = [(room, 1) for room in rooms]
        if waiting := len(set(ready).difference(limited)):
            parts.append((None, waiting))
        self._turns += 1
        turn = self._turns % max(1, len(parts))
        claimed: list[Row] = []
        more, weight = False, sum(kinds_of for _, kinds_of in parts)
        for room, kinds_of in [*parts[turn:], *parts[:turn]]:
            share = math.ceil((limit - len(claimed)) * kinds_of / weight)
            weight -= kinds_of
            if room is None:
                taken = take(others, share, self._sharing) if share else []
                more = len(taken) == share
            else:
                taken = self._start(rows, room, min(share, room.free), take)
            claimed += taken
        if more and len(claimed) < limit:
            claimed += take(others, limit - len(claimed), self._sharing)
        return sorted(claimed, key=lambda row: (row["sort_at"], row["id"]))

    def _start(self, rows: Rows, room: _Room, count: int, take: _Take) -> list[Row]:
        kind = room.limit.kind
        taken = take([kind], count, self._sharing_of.get(kind, self._sharing)) if count else []
        if taken:
            # Without a rate too: where the database compares snapshots, it must see a change.
            rows.update(LIMIT, [Where("kind", "eq", kind)], room.started(len(taken)))
            self._wait_for_token(room)
        return taken

    def _wait_for_token(self, room: _Room) -> None:
        if room.limit.rate is not None and (wait := room.wait()) > 0:
            self._wait_for(room.limit.kind, wait)

    def _wait_for(self, kind: str, seconds: float) -> None:
        self._free_at = {**self._free_at, kind: time.monotonic() + seconds}

    def _rooms(self, rows: Rows, ready: Sequence[str]) -> list[_Room]:
        """
        Those of the limited kinds *ready* of which something may start, their limits locked.

        A limit that is locked already is left out: another worker claims that kind right now.
        """
        found = rows.select(
            LIMIT, [Where("kind", "in", ready)], order_by=("kind",), lock=True,
            skip_locked=self.skip_locked,
        )  # fmt: skip
        for kind in set(ready).difference(row["kind"] for row in found):
            self._wait_for(kind, _BUSY_SECONDS)
        if not found:
            return []
        running = self._running(rows, [row["kind"] for row in found if row["concurrency"]])
        now = rows.now()
        rooms = [_room(row, running.get(row["kind"], 0), now) for row in found]
        for row, room in zip(found, rooms, strict=True):
            self._wait_for_token(room)
            if room.free <= 0:
                self._free_at = {row["kind"]: time.monotonic() + _FULL_SECONDS, **self._free_at}
            if room.limit.rate is not None and row["full_at"] > room.full_at:
                # Owed more than can be: by a clock that was wrong, or under another rate.
                rows.update(LIMIT, [Where("kind", "eq", row["kind"])], room.started(0))
        return [room for room in rooms if room.free > 0]

    def _running(self, rows: Rows, kinds: Sequence[str]) -> dict[str, int]:
        # By their leases, which have an index: what runs is little beside what waits or is done.
        its = [Where("kind", "in", kinds), Where("lease_expires_at", "ne", None)]
        return {row["kind"]: row["n"] for row in rows.count(OUTBOX, ("kind",), its)}

    def _due_by_limits(self, due: float | None) -> float | None:
        """*due*, or the seconds until a start is free if that is all that due items wait for."""
        if due is None or due > 0 or not self._free_at:
            return due
        return max(0.001, min(self._free_at.values()) - time.monotonic())


def _room(row: Row, running: int, now: datetime) -> _Room:
    limit = Limit.of(row)
    free = _MOST if limit.concurrency is None else limit.concurrency - running
    if limit.rate is None:
        return _Room(limit, free, now, now)
    apart, burst = limit.seconds_apart, limit.burst or limit.rate
    # No more than a whole bucket is owed, whatever the limit or the clock was before.
    owed = min(max(0.0, (row["full_at"] - now).total_seconds()), burst * apart)
    # A little more, since a sum of microseconds may miss a whole number by one.
    tokens = math.floor(burst - owed / apart + 1e-6)
    return _Room(limit, min(free, tokens), now, now + timedelta(seconds=owed))
