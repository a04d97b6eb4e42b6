"""
Rates of calls to services, which all processes on one database keep together.

A rate is one time in a row of the budgets' table: from then on a service takes its full burst
again. Who is about to call takes places in the line, each a time to send at. A place belongs to
nobody once its time is over, so a process that dies leaves nothing behind.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.operations.budgets import CALL_RATE, make_room
from automate_kernel.storage.deadlocks import write
from automate_kernel.storage.query import Now, Where
from automate_kernel.storage.rows import Row, Rows, Storage
from automate_kernel.storage.tables import BUDGET

__all__ = ["CallRate", "CallRates"]

# More than any service asks for; a time of a database can't be of any year.
_LONGEST_SECONDS = 366 * 86_400.0


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
            found = rows.select(BUDGET, where, columns=("ends_at",))
            return (found[0]["ends_at"] - rows.now()).total_seconds() if found else 0.0

    def hold(self, rate: CallRate, seconds: float) -> None:
        """Keep all processes from calling the service for *seconds*, as it has asked."""
        if write(self._storage, None, partial(_held, rate=rate, seconds=seconds)):
            make_room(self._storage)


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
    row, opened = _locked(rows, rate)
    now = rows.now()
    free = max(row["ends_at"], now)
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
    row, opened = _locked(rows, rate)
    # Calls that are ahead of an even pace wait too.
    until = rows.now() + timedelta(seconds=min(seconds, _LONGEST_SECONDS) + rate.ahead)
    if row["ends_at"] < until:
        _move(rows, rate, until)
    return opened


def _move(rows: Rows, rate: CallRate, until: datetime) -> None:
    changes = {"ends_at": until, "updated_at": Now()}
    rows.update(BUDGET, [Where("id", "eq", rate.id)], changes)


def _locked(rows: Rows, rate: CallRate) -> tuple[Row, bool]:
    """Lock the row of *rate*, and return it, and True if it was made for that."""
    opened, its = False, [Where("id", "eq", rate.id)]
    while True:
        # Again if another has deleted it in between.
        if found := rows.select(BUDGET, its, lock=True, columns=("id", "ends_at")):
            return found[0], opened
        rows.ensure(BUDGET, _new(rate))
        opened = True


def _new(rate: CallRate) -> Sequence[Row]:
    row: Row = {"id": rate.id, "name": CALL_RATE, "tenant_id": None, "execution_id": None}
    times = {"created_at": Now(), "updated_at": Now(), "ends_at": Now()}
    return [{**row, "spent": {}, "reserved": {}, **times}]
