"""
Rates of calls to services, which all processes on one database keep together.

A rate is one time in a row of the budgets' table: from then on a service takes its full burst
again. Who is about to call takes places in the line, each a time to send at. A place belongs to
nobody once its time is over, so a process that dies leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from automate_kernel.base import runtime
from automate_kernel.base.errors import AutomateError, ErrorCodes, StorageError
from automate_kernel.base.forks import new_lock
from automate_kernel.operations.budgets import CALL_RATE, make_room
from automate_kernel.operations.error_mapping import retry_after_of
from automate_kernel.storage.query import Now, Where
from automate_kernel.storage.rows import Row, Rows, Storage, has_only_lock, write
from automate_kernel.storage.tables import BUDGET

__all__ = ["CallRate", "CallRates", "ServiceWait"]

logger: logging.Logger = logging.getLogger(__name__)
T = TypeVar("T")

LONGEST_WAIT_SECONDS = 5.0
"""A call that a service wants later than that fails, and its worker is free."""
PATIENCE_SECONDS = 10.0
"""A database that has not answered by then is away."""
# A wait that another process was asked for is known by then.
_LOOK_SECONDS = 1.0
# More than any service asks for; a time of a database can't be of any year.
_LONGEST_SECONDS = 366 * 86_400.0
_TIMES = ("ends_at", "updated_at")
# Clocks are corrected by less all the time, and that holds up nobody for long.
_CLOCK_SLACK = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class CallRate:
    """
    A rate by its *name*: a call each *interval* seconds, and *burst* of them at once.

    With an interval of 0 nothing is counted, and only what a service asks for is kept.
    """

    name: tuple[str, ...]
    interval: float = 0.0
    burst: int = 1

    @property
    def ahead(self) -> float:
        """The seconds by which calls may be ahead of an even pace."""
        return (self.burst - 1) * self.interval

    @property
    def id(self) -> str:
        """The key of its row."""
        # A list of lists is none of a budget; JSON keeps the parts apart.
        about = json.dumps([CALL_RATE, list(self.name)])
        return hashlib.sha256(about.encode("ascii")).hexdigest()


class CallRates:
    """The rates of calls in the tables of *storage*, by the database's clock."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    @property
    def alone(self) -> bool:
        """
        True if nothing can be counted here: this call is a part of a transactional one on SQLite.

        That transaction has the only lock for writing. So no other process can take a place either.
        """
        return has_only_lock(self._storage)

    def take(self, rate: CallRate, most: int, longest_wait: float) -> list[float]:
        """
        Take the next places in the line, *most* or fewer; return the seconds until each.

        Raises ``RESOURCE_EXHAUSTED`` with ``retry_after``, and takes none, if the first is further
        away than *longest_wait*.
        """
        work = partial(_taken, rate=rate, most=most, longest_wait=longest_wait)
        taken, opened = write(self._storage, None, work)
        if opened:
            make_room(self._storage)
        return taken

    def wait(self, rate: CallRate) -> float:
        """Return the seconds until a service takes a call again, as it has asked for; 0 at once."""
        # No transaction: who looks holds up nobody.
        with self._storage.begin(atomic=False) as rows:
            where = [Where("id", "eq", rate.id), Where("ends_at", "gt", Now())]
            found = rows.select(BUDGET, where, columns=_TIMES)
            now = rows.now()
        if not found:
            return 0.0
        if _is_ahead(found[0], now):
            return write(self._storage, None, partial(_put_right, rate=rate))
        ends_at: datetime = found[0]["ends_at"]
        return max(0.0, (ends_at - now).total_seconds())

    def hold(self, rate: CallRate, seconds: float) -> None:
        """Keep all processes from calling the service for *seconds*, as it has asked."""
        if write(self._storage, None, partial(_held, rate=rate, seconds=seconds)):
            make_room(self._storage)


class ServiceWait:
    """
    The wait that a service has asked for, as this process knows it by *clock*.

    With *rates* all processes on one database know the wait of this *name*. It holds names only: a
    secret could be guessed from its hash.
    """

    def __init__(
        self,
        name: tuple[str, ...],
        rates: CallRates | None,
        clock: Callable[[], float] = runtime.clock,
    ) -> None:
        self._rate, self._rates, self._clock = CallRate(name), rates, clock
        self._lock = new_lock()
        self._looks_at = self._until = float("-inf")
        self._warned = False

    async def look(self) -> float:
        """Return the seconds that are left of it; the database is asked once in a second."""
        with self._lock:
            now = self._clock()
            known, fresh = max(self._until - now, 0.0), now < self._looks_at
            if not fresh:
                self._looks_at = now + _LOOK_SECONDS
        rates = self._rates
        if fresh or rates is None:
            return known
        try:
            wait = await off_the_loop(lambda: rates.wait(self._rate))
        except AutomateError as error:
            if not self._warned:
                text = "waits that a service asks other processes for are unknown: %s"
                logger.warning(text, error)
            self._warned = True
            return known
        with self._lock:
            self._warned = False
            self._until = max(self._until, self._clock() + wait)
            return max(self._until - self._clock(), 0.0)

    async def turn(self, longest_seconds: float = LONGEST_WAIT_SECONDS) -> None:
        """
        Return once the service takes a call again.

        Raises ``RESOURCE_EXHAUSTED`` with ``retry_after`` at once if that takes longer than
        *longest_seconds*.
        """
        while wait := await self.look():
            if wait > longest_seconds:
                raise too_long(wait)
            await asyncio.sleep(wait)

    async def heed(self, status: int, headers: Mapping[str, Any]) -> None:
        """Keep all processes from calling if an answer refuses the call, with ``Retry-After``."""
        if status >= 400 and (wait := retry_after_of(headers)):
            await self.hold(wait)

    async def hold(self, seconds: float, *paces: CallRate) -> None:
        """Keep all processes from calling for *seconds*, as the service has asked; *paces* too."""
        with self._lock:
            self._until = max(self._until, self._clock() + seconds)
        rates = self._rates
        if rates is None or rates.alone:
            return

        def hold() -> None:
            for rate in (self._rate, *paces):
                rates.hold(rate, seconds)

        try:
            await off_the_loop(hold)
        except AutomateError as error:
            logger.warning("other processes don't know that a service asks to wait: %s", error)


async def off_the_loop(work: Callable[[], T]) -> T:
    """Do *work* on a thread: the database may be slow. Raises `StorageError` if it is."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        # Not wait_for, which may lose a cancellation before Python 3.12.
        if (await asyncio.wait([task], timeout=PATIENCE_SECONDS))[0]:
            return task.result()
    finally:
        task.cancel()
    raise unanswered()


def unanswered() -> StorageError:
    """Return the error of a database that does not answer."""
    return StorageError("it does not answer")


def no_count(reason: str) -> AutomateError:
    """Return the error of a call that the database can't count, for a *reason*."""
    return AutomateError(
        ErrorCodes.UNAVAILABLE,
        f"the database can't count the calls to the service, so none is made: {reason}",
        hint="`retry` of the step makes it once the database answers",
    )


def too_long(wait: float) -> AutomateError:
    """Return the error of a call that would wait for so many seconds."""
    return AutomateError(
        ErrorCodes.RESOURCE_EXHAUSTED,
        f"the service's rate limit leaves no room for {wait:.0f} seconds",
        retry_after=wait,
    )


def _taken(
    rows: Rows, *, rate: CallRate, most: int, longest_wait: float
) -> tuple[list[float], bool]:
    ends_at, now, opened = _locked(rows, rate)
    free = max(ends_at, now)
    first = (free - now).total_seconds() - rate.ahead
    if first > longest_wait:
        raise too_long(first)
    # A place that may be used at once comes alone: nobody else could use it a moment later.
    several = min(most, 1 + int((longest_wait - first) / rate.interval))
    if first + rate.interval <= 0:
        several = 1
    places = [max(0.0, first + number * rate.interval) for number in range(several)]
    _move(rows, rate, free + timedelta(seconds=several * rate.interval))
    return places, opened


def _held(rows: Rows, *, rate: CallRate, seconds: float) -> bool:
    ends_at, now, opened = _locked(rows, rate)
    # Calls that are ahead of an even pace wait too.
    until = now + timedelta(seconds=min(seconds, _LONGEST_SECONDS) + rate.ahead)
    if ends_at < until:
        _move(rows, rate, until)
    return opened


def _move(rows: Rows, rate: CallRate, until: datetime) -> None:
    changes = {"ends_at": until, "updated_at": Now()}
    rows.update(BUDGET, [Where("id", "eq", rate.id)], changes)


def _put_right(rows: Rows, *, rate: CallRate) -> float:
    """Write the end of a wait by the clock as it is now, and return the seconds until then."""
    ends_at, now, _ = _locked(rows, rate)
    _move(rows, rate, ends_at)
    return max(0.0, (ends_at - now).total_seconds())


def _locked(rows: Rows, rate: CallRate) -> tuple[datetime, datetime, bool]:
    """Lock the row of *rate*; return its end, the time, and True if it was made for that."""
    opened, its = False, [Where("id", "eq", rate.id)]
    while True:
        # Again if another has deleted it in between.
        if found := rows.select(BUDGET, its, lock=True, columns=_TIMES):
            row, now = found[0], rows.now()
            # The clock was put back: the wait is as long as it was when it was written.
            back = row["updated_at"] - now if _is_ahead(row, now) else timedelta()
            return row["ends_at"] - back, now, opened
        rows.ensure(BUDGET, _new(rate))
        opened = True


def _is_ahead(row: Row, now: datetime) -> bool:
    """Return True if *row* was written by a clock that has been put back since."""
    return bool(row["updated_at"] - now > _CLOCK_SLACK)


def _new(rate: CallRate) -> Sequence[Row]:
    row: Row = {"id": rate.id, "name": CALL_RATE, "tenant_id": None, "execution_id": None}
    times = {"created_at": Now(), "updated_at": Now(), "ends_at": Now()}
    return [{**row, "spent": {}, "reserved": {}, **times}]
