"""
The seam: what an adapter must supply so that everything else is written once.

An adapter gives a `Storage`, which opens `Rows`. `Rows` is always inside a transaction: the host's
own, which it never commits, or one that `Storage.begin` began and ends. Conditions are always
ANDed; what would need an OR or a join is a missing column.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol, TypeVar

__all__ = ["Clock", "Now", "Operator", "Part", "Plus", "Row", "Rows", "Storage", "Wakeup", "Where"]

Row = dict[str, Any]
T = TypeVar("T")
Clock = Callable[[], datetime]
"""Gives the time, aware and in UTC. Injected only where a test needs to hold the time still."""

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
    """A change that adds *amount* to what the column holds."""

    amount: int


@dataclass(frozen=True, slots=True)
class Now:
    """
    The database's clock, *offset* seconds from now, as a value of a condition, row or change.

    Durations travel to the database and instants don't: a worker's clock may be minutes off.
    """

    offset: float = 0.0


@dataclass(frozen=True, slots=True)
class Part:
    """Some of the rows that `Rows.take` may take: further conditions, and at most how many."""

    where: Sequence[Where]
    limit: int


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
        Add *rows*; one whose key exists already is skipped. Returns how many were added.

        All have the same columns. *fresh* ones are known to have no key that exists, which lets
        many go in by a quicker way; if one exists all the same, that is an error.

        With *notify*, listeners on that channel wake once the transaction commits, where the
        database can do that; elsewhere nothing happens and they find out by polling.
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
        parts: Sequence[Part] = (),
    ) -> list[Row]:
        """
        Change up to *limit* rows, the first in order, and return them as changed, in order.

        Of two transactions that take at once each row goes to one. With *skip_locked* neither
        waits for the other; without, fewer rows may come back than there are. With *parts* the
        rows are the first in order of each part, one part after the other until *limit*. What
        *order_by* names must be among *columns*.
        """

    def update(self, table: str, where: Sequence[Where], changes: Mapping[str, Any]) -> int:
        """Change all rows that match, and return how many did."""

    def delete(self, table: str, where: Sequence[Where]) -> int:
        """Remove all rows that match, and return how many did."""

    def remove(self, table: str, where: Sequence[Where]) -> list[Any]:
        """Remove all rows that match, and return their keys."""

    def now(self) -> datetime:
        """The database's clock."""

    def count(self, table: str, by: Sequence[str] = (), where: Sequence[Where] = ()) -> list[Row]:
        """Count matching rows per value of the columns *by*: rows of those columns and ``n``."""

    def distinct(self, table: str, column: str, where: Sequence[Where] = ()) -> list[Any]:
        """
        The values of *column* (nulls left out) among matching rows, each once, in order.

        Costs a look into the index for each value, and nothing for each row, if there is an index
        that the conditions and *column* lead.
        """


class Wakeup(Protocol):
    """Waits until something may have been enqueued. Missing a notice costs time, never an item."""

    def wait(self, timeout: float) -> bool:
        """Block for at most *timeout* seconds; True if a notice came."""

    def wake(self) -> None:
        """End a wait that is going on, from another thread."""

    def close(self) -> None:
        """Give back what it holds."""


class Storage(Protocol):
    """A host's database: opens transactions, or joins the host's."""

    @property
    def supports_skip_locked(self) -> bool:
        """Whether ``skip_locked`` has an effect; False where one writer holds the whole file."""

    def begin(
        self, transaction: Any = None, *, atomic: bool = True
    ) -> AbstractContextManager[Rows]:
        """
        Rows in the host's *transaction*, or else in one of our own.

        What *transaction* may be is the adapter's to say (a SQLAlchemy ``Session`` or
        ``Connection``; in Django nothing, since the open ``atomic()`` block is meant). The host's
        is never committed or rolled back here; our own commits unless the block raises. Without
        *atomic* the statements of the block need not stand or fall together, and each may commit
        by itself, which saves the round trips of BEGIN and COMMIT.
        """

    async def abegin(self, transaction: Any, work: Callable[[Rows], T]) -> T:
        """Run *work* with Rows as `begin` gives them, in an asynchronous host transaction."""

    def wakeup(self, channel: str) -> Wakeup | None:
        """Something that waits for `Rows.notify`, or None where polling is all there is."""

    def create_tables(self) -> None:
        """Create what is missing of our tables. For a host that has no migrations."""

    def describe(self) -> str:
        """The database's name and place for people, without a password."""

    def close(self) -> None:
        """Give back what the storage itself opened. A host's engine stays open."""
