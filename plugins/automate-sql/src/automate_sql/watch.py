"""
The poll for new rows: each row once, also one that is committed after a row with a higher value.

Two transactions insert the rows 5 and 6, and that of row 6 commits first. A poll that goes on after
6 never sees row 5. Two ways out:

* By an integer key, the numbers that are missing between rows are kept as gaps, and looked for
  again. On PostgreSQL a gap is given up when every transaction that ran when it was found has
  ended, elsewhere after the lag.
* By a time, rows are taken once they are older than the lag. Rows of one time are ordered by a key.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from automate_kernel.base.errors import ConfigError
from automate_kernel.plugins.connectors import PolledEvent, PollResult
from automate_sql.config import TableWatch
from automate_sql.reading import OpenResult, Row
from automate_sql.tables import FoundTable

MOST_EVENTS = 500
_MOST_LATE = MOST_EVENTS // 2
_MOST_GAPS = 400
_LOOK_BACK = 1_000


@dataclass(frozen=True, slots=True)
class DatabaseMoment:
    """The database's time in seconds, and PostgreSQL's oldest and next transaction."""

    seconds: int
    oldest: int = 0
    following: int = 0

    @classmethod
    def now(cls, connection: sa.Connection) -> DatabaseMoment:
        """Ask the database."""
        name, ask = connection.dialect.name, connection.exec_driver_sql
        if name == "postgresql":
            row = ask(
                "SELECT extract(epoch FROM clock_timestamp())::bigint,"
                " pg_snapshot_xmin(s)::text::bigint, pg_snapshot_xmax(s)::text::bigint"
                " FROM pg_current_snapshot() AS s"
            ).one()
            return cls(int(row[0]), int(row[1]), int(row[2]))
        if name in ("mysql", "mariadb"):
            return cls(int(ask("SELECT unix_timestamp()").scalar_one()))
        return cls(int(time.time()))

    def is_over(self, since: Sequence[int], lag: float) -> bool:
        """Return True if nothing that ran at the moment *since* can still commit."""
        seconds, following = since
        return self.seconds - seconds >= lag and self.oldest >= following

    def noted(self) -> list[int]:
        """Return the moment for a cursor."""
        return [self.seconds, self.following]


def poll_rows(connection: sa.Connection, watch: TableWatch, cursor: Any) -> PollResult:
    """
    Return the rows that are new since *cursor*, in a read-only transaction.

    A cursor of another table or column doesn't count: the watch starts over.
    """
    of = [watch.table, watch.column, watch.key]
    if cursor is not None and cursor.get("of", of) != of:
        cursor = None
    result = _polled(connection, watch, cursor)
    return replace(result, cursor={**result.cursor, "of": of})


def _polled(connection: sa.Connection, watch: TableWatch, cursor: Any) -> PollResult:
    # The session has one snapshot: what began after the moment was asked for shows no rows either.
    table = FoundTable(connection, watch.table)
    column = table.reflected[table.column(watch.column).name]
    if watch.key is not None:
        table.column(watch.key)
        return _ByTime(connection, table, watch).poll(cursor)
    if not isinstance(column, sa.Integer):
        raise ConfigError(
            f"the column {watch.column!r} of the watch is no integer",
            hint="name the unique `key` that orders rows of one time, too",
        )
    return _ByNumber(connection, table, watch).poll(cursor)


class _ByNumber:
    """New rows by an integer key, and by the gaps between its values."""

    def __init__(self, connection: sa.Connection, table: FoundTable, watch: TableWatch) -> None:
        self._connection, self._table, self._watch = connection, table, watch
        self._column = table.column(watch.column)
        self._now = DatabaseMoment.now(connection)

    def poll(self, cursor: Any) -> PollResult:
        if cursor is None:
            return PollResult(cursor=self._first())
        lag, settled = self._watch.lag_seconds, cursor["settled"]
        begins = cursor["after"] is None and settled is not None
        if begins and not self._now.is_over(settled[1], lag):
            return PollResult(cursor=cursor)
        gaps = cursor["gaps"]
        late = self._late(gaps)
        new = self._rows(self._after(cursor["after"]), MOST_EVENTS - len(late))
        gaps = self._closed(gaps, [self._number(each) for each in late])
        after, base = cursor["after"], settled[0] if settled else None
        taken: list[Row] = []
        for row in new:
            number = self._number(row)
            if gap := self._gap(after, number, base):
                if len(gaps) >= _MOST_GAPS:
                    break  # it waits until some have been given up
                gaps.append(gap)
            taken.append(row)
            after = number
        full = len(late) + len(new) >= MOST_EVENTS and len(taken) == len(new)
        if len(late) < _MOST_LATE:  # else there are more in the gaps, which have yet to be read
            gaps = [each for each in gaps if not self._now.is_over(each[2:], lag)]
        following = {"after": after, "gaps": gaps, "settled": settled}
        return PollResult(
            [self._event(each) for each in (*late, *taken)],
            following,
            more=full or len(late) == _MOST_LATE,
        )

    def _first(self) -> dict[str, Any]:
        last = self._connection.execute(sa.select(sa.func.max(self._column))).scalar_one()
        if self._watch.start == "beginning":
            settled = None if last is None else [int(last), self._now.noted()]
            return {"after": None, "gaps": [], "settled": settled}
        if last is None:
            return {"after": None, "gaps": [], "settled": None}
        # A row below the last may be on its way.
        begin, gaps = int(last) - _LOOK_BACK, []
        before = begin - 1
        its = sa.select(self._column).where(self._column >= begin).order_by(self._column)
        for number in self._connection.execute(its).scalars():
            if gap := self._gap(before, int(number), None):
                gaps.append(gap)
            before = int(number)
        return {"after": before, "gaps": gaps[-_MOST_GAPS:], "settled": None}

    def _gap(self, after: int | None, number: int, base: int | None) -> list[int] | None:
        """Return the numbers between two rows as a gap; those up to *base* are settled."""
        if base is not None:
            after = base if after is None else max(after, base)
        if after is None:  # the first row of a table: one below it may be on its way
            after = number - _LOOK_BACK - 1
        if number - after <= 1:
            return None
        return [after + 1, number - 1, *self._now.noted()]

    def _late(self, gaps: list[list[int]]) -> list[Row]:
        if not gaps:
            return []
        inside = sa.or_(*(self._column.between(low, high) for low, high, *_ in gaps))
        return self._rows(inside, _MOST_LATE)

    def _closed(self, gaps: list[list[int]], found: list[int]) -> list[list[int]]:
        """Return *gaps* without the numbers that were *found* in them."""
        left = [list(each) for each in gaps]
        for number in found:
            place = next(i for i, each in enumerate(left) if each[0] <= number <= each[1])
            low, high, *since = left[place]
            parts = [[low, number - 1, *since], [number + 1, high, *since]]
            left[place : place + 1] = [each for each in parts if each[0] <= each[1]]
        return left

    def _after(self, after: int | None) -> sa.ColumnElement[bool]:
        return sa.true() if after is None else self._column > after

    def _rows(self, where: sa.ColumnElement[bool], most: int) -> list[Row]:
        query = self._table.select(self._watch.columns, self._watch.column).where(where)
        result = self._connection.execute(query.order_by(self._column).limit(most))
        return OpenResult(result).fetch(most)

    def _number(self, row: Row) -> int:
        return int(row[self._watch.column])

    def _event(self, row: Row) -> PolledEvent:
        return PolledEvent(f"{self._watch.table}:{self._number(row)}", row)


class _ByTime:
    """New rows by a time, which is older than the lag, and a key."""

    def __init__(self, connection: sa.Connection, table: FoundTable, watch: TableWatch) -> None:
        self._connection, self._table, self._watch = connection, table, watch
        self._column, self._key = table.column(watch.column), table.column(watch.key or "")
        kind = table.reflected[watch.column]
        if not isinstance(kind, (sa.DateTime, sa.types.NullType)) and not self._is_sqlite:
            raise ConfigError(
                f"the column {watch.column!r} of the watch is no date with a time",
                hint="without `key` it is an integer key",
            )
        self._zoned = bool(getattr(kind, "timezone", False))

    @property
    def _is_sqlite(self) -> bool:
        return self._connection.dialect.name == "sqlite"

    def poll(self, cursor: Any) -> PollResult:
        if cursor is None:
            begin = self._watch.start == "beginning"
            return PollResult(cursor={"after": None if begin else [self._now(), None]})
        result = self._connection.execute(self._query(cursor["after"]))
        rows = OpenResult(result).fetch(MOST_EVENTS)
        watch, after = self._watch, cursor["after"]
        if rows:
            after = [rows[-1][watch.column], rows[-1][watch.key or ""]]
        events = [PolledEvent(self._id(each), each) for each in rows]
        return PollResult(events, {"after": after}, more=len(rows) >= MOST_EVENTS)

    def _query(self, after: Any) -> sa.Select[Any]:
        watch = self._watch
        query = self._table.select(watch.columns, watch.column, watch.key or "")
        query = query.where(self._settled()).order_by(self._column, self._key).limit(MOST_EVENTS)
        if after is None:
            return query
        value = self._table.native(watch.column, after[0])
        if after[1] is None:
            return query.where(self._column > value)
        key = self._table.native(watch.key or "", after[1])
        return query.where(self._column >= value, sa.or_(self._column > value, self._key > key))

    def _id(self, row: Row) -> str:
        watch = self._watch
        return f"{watch.table}:{row[watch.key or '']}@{row[watch.column]}"

    def _settled(self) -> sa.ColumnElement[bool]:
        lag = self._watch.lag_seconds
        if self._is_sqlite:
            # Its function reads all forms of a time in text.
            return sa.func.datetime(self._column) <= sa.func.datetime("now", f"-{lag:f} seconds")
        if self._connection.dialect.name in ("mysql", "mariadb"):
            return self._column <= sa.text(f"now(6) - INTERVAL {lag:.6f} SECOND")
        clock = "clock_timestamp()" if self._zoned else "clock_timestamp()::timestamp"
        if self._connection.dialect.name == "postgresql":
            return self._column <= sa.text(f"{clock} - INTERVAL '{lag:f} seconds'")
        raise ConfigError("a watch by time is for PostgreSQL, MySQL, MariaDB and SQLite")

    def _now(self) -> str:
        dialect = self._connection.dialect.name
        words = {"sqlite": "datetime('now')", "postgresql": "clock_timestamp()"}.get(dialect)
        if dialect == "postgresql" and not self._zoned:
            words = "clock_timestamp()::timestamp"
        found = self._connection.exec_driver_sql(f"SELECT {words or 'now(6)'}").scalar_one()
        return found if isinstance(found, str) else str(found.isoformat())
