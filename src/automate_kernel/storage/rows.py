"""
The interfaces of the seam: an adapter supplies a `Storage`, and all else is written once.

A `Storage` opens `Rows`. `Rows` is always inside a transaction: the application's own, which it
never commits, or one that `Storage.begin` begins and ends. Conditions are always ANDed; needing an
OR or a join means that a column is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol, TypeVar

Row = dict[str, Any]
T = TypeVar("T")
Clock = Callable[[], datetime]
"""A function that gives the time, aware and in UTC. Tests inject one to hold the time still."""

Operator = Literal["eq", "ne", "lt", "le", "gt", "ge", "in"]


@dataclass(frozen=True, slots=True)
class Where:
    """
    One condition on a column.

    ``eq`` and ``ne`` with None mean IS NULL and IS NOT NULL. ``in`` takes a sequence.
    """

    column: str
    operator: Operator
    value: Any


@dataclass(frozen=True, slots=True)
class Plus:
    """A change that adds *amount* to the value in the column."""

    amount: int


@dataclass(frozen=True, slots=True)
class Now:
    """
    The database's clock, *offset* seconds from now, as a value of a condition, row or change.

    Durations travel to the database, not instants: a worker's clock may be minutes off.
    """

    offset: float = 0.0


@dataclass(frozen=True, slots=True)
class Portion:
    """A part of the rows that `Rows.take` may take: more conditions, and its most rows."""

    where: Sequence[Where]
    limit: int


@dataclass(slots=True)
class Checkpoint:
    """
    The progress of one execution, whose item is claimed with *token*.

    *steps* are rows of `automate_kernel.storage.tables.STEP` with all columns; their times are
    None or `Now`. One whose step has a row already changes it, unless that step has ended. With
    *status* the execution's status, error and *output* (JSON) are written. *progress* forgets the
    crashes of workers so far. *ends* completes the item; else its lease is renewed.
    """

    item_id: str
    token: str
    execution_id: str
    steps: Sequence[Row] = ()
    status: str | None = None
    error_code: str | None = None
    error: str | None = None
    error_group: str | None = None
    output: str | None = None
    progress: bool = False
    ends: bool = False


class Rows(Protocol):
    """
    Our tables inside one transaction of the host's database.

    Values are plain Python: ids and text are ``str``, JSON columns any JSON value, times aware
    ``datetime`` in UTC. Column names come from `automate_kernel.storage.tables` and are trusted.
    """

    native: Any
    """The host's own handle on this transaction, for a handler that writes in it."""

    def insert(
        self,
        table: str,
        rows: Sequence[Mapping[str, Any]],
        *,
        notify: str = "",
        fresh: bool = False,
    ) -> int:
        """
        Add *rows*, skipping each whose key exists, and return the number of those added.

        All have the same columns. The keys of *fresh* rows are known to be new, so many rows go in
        by a quicker way; an existing key is then an error.

        With *notify*, listeners on that channel wake once the transaction commits, where the
        database can do that; elsewhere they find out by polling.
        """

    def select(
        self,
        table: str,
        where: Sequence[Where] = (),
        *,
        order_by: Sequence[str] = (),
        limit: int | None = None,
        offset: int = 0,
        lock: bool = False,
        skip_locked: bool = False,
        columns: Sequence[str] = (),
    ) -> list[Row]:
        """Read rows in order (``-column`` descends), locked until the transaction ends if asked."""

    def take(
        self,
        table: str,
        where: Sequence[Where],
        *,
        order_by: Sequence[str],
        limit: int,
        changes: Mapping[str, Any],
        skip_locked: bool = True,
        columns: Sequence[str] = (),
        parts: Sequence[Portion] = (),
    ) -> list[Row]:
        """
        Change up to *limit* rows, the first in order, and return them as changed, in order.

        Of two transactions that take at once, one gets each row. With *skip_locked* neither waits
        for the other; without it, fewer rows may come back than there are. With *parts* the rows
        are the first in order of each part, one part after the other until *limit*. *columns*
        must include those of *order_by*.
        """

    def update(self, table: str, where: Sequence[Where], changes: Mapping[str, Any]) -> int:
        """Change all rows that match, and return their number."""

    def delete(self, table: str, where: Sequence[Where]) -> int:
        """Remove all rows that match, and return their number."""

    def remove(self, table: str, where: Sequence[Where]) -> list[Any]:
        """Remove all rows that match, and return their keys."""

    def checkpoint(self, group: Sequence[Checkpoint], lease_seconds: float) -> set[str]:
        """
        Save the progress of executions; return the items whose claims held.

        Of an item that is claimed with another token, or whose execution has ended, nothing is
        written. The others' leases are renewed for *lease_seconds*. It is one statement on
        PostgreSQL; elsewhere the transaction must be atomic.
        """

    def now(self) -> datetime:
        """Return the time of the database's clock."""

    def count(self, table: str, by: Sequence[str] = (), where: Sequence[Where] = ()) -> list[Row]:
        """Count matching rows per value of the columns *by*: rows of those columns and ``n``."""

    def distinct(self, table: str, column: str, where: Sequence[Where] = ()) -> list[Any]:
        """
        Return the values of *column* among matching rows, each once, in order, without nulls.

        It costs a look into the index for each value, and nothing for each row, if the conditions
        and *column* lead an index.
        """


class Wakeup(Protocol):
    """A wait for new items. Missing a notice costs time, never an item."""

    def wait(self, timeout: float) -> bool:
        """Block for at most *timeout* seconds; True if a notice came."""

    def wake(self) -> None:
        """End a wait that is going on, from another thread."""

    def close(self) -> None:
        """Give back its resources."""


class Storage(Protocol):
    """An application's database: opens transactions, or joins the application's."""

    @property
    def supports_skip_locked(self) -> bool:
        """True if ``skip_locked`` has an effect; False where one writer holds the whole file."""

    def begin(
        self, transaction: Any = None, *, atomic: bool = True
    ) -> AbstractContextManager[Rows]:
        """
        Open `Rows` in the application's *transaction*, or else in one of our own.

        The adapter defines the types of *transaction*: a SQLAlchemy ``Session`` or ``Connection``;
        in Django nothing, since the open ``atomic()`` block is meant. The application's is never
        committed or rolled back here; our own commits unless the block raises. Without *atomic*
        each statement of the block may commit by itself, which saves the round trips of BEGIN and
        COMMIT.
        """

    async def arun_in(self, transaction: Any, work: Callable[[Rows], T]) -> T:
        """Run *work* with `Rows`, as `begin` opens them, in an asynchronous transaction."""

    def wakeup(self, channel: str) -> Wakeup | None:
        """Return a `Wakeup` for the notices on *channel*, or None where workers can only poll."""

    def create_tables(self) -> None:
        """Create our tables that are missing, for an application without migrations."""

    def describe(self) -> str:
        """Return the database's name and place for people, without a password."""

    def close(self) -> None:
        """Give back what the storage itself opened. An application's engine stays open."""
