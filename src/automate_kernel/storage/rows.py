"""
The seam: `Rows`, our tables in a transaction, which an adapter's `Storage` opens.

The transaction is the application's own, which we never commit, or one that `Storage.begin` begins
and ends. The text of each statement is written here once, for every adapter and database; an
adapter only runs it on the application's connection (`Rows.run`). Values cross in one format
whichever framework carries them, so two applications can share a database. Conditions are always
ANDed; needing an OR or a join means that a column is missing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import repeat
from operator import itemgetter
from typing import Any, Literal, Protocol, TypeVar

from automate_kernel.arguments import check_limit
from automate_kernel.errors import AutomateError, ErrorCodes, type_name
from automate_kernel.storage.codec import (
    JsonText,
    array_text,
    copy_text,
    decode,
    decode_time,
    encode,
)
from automate_kernel.storage.dialects import DIALECTS, Dialect, utc_now
from automate_kernel.storage.errors import DuplicateKeyError
from automate_kernel.storage.tables import TABLES, Column, Table, Type
from automate_kernel.storage.values import text_problem

Row = dict[str, Any]
NewRows = Sequence[Mapping[str, Any]]
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


_OPERATORS = {"eq": "=", "ne": "<>", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_TIME = Column("now", "time")
# Values of an IN, of which a statement may have several: SQLite's limit is 32,766 parameters.
_LONG_LIST = 5_000


@lru_cache(256)
def _quoted(quote: str, names: tuple[str, ...]) -> str:
    return ", ".join(f"{quote}{name}{quote}" for name in names)


class _Statement:
    """
    The parameters of one statement, collected while its text is written.

    *style* is the driver's way to mark parameters: ``%s``, ``?`` or ``$`` (numbered).
    """

    def __init__(self, dialect: Dialect, style: str, clock: Clock | None) -> None:
        self._dialect = dialect
        self._style = style
        self._clock = clock
        self.parameters: list[Any] = []
        # One statement has one time, whosever clock it is.
        self._now: datetime | None = None
        self._instants: dict[float, Any] = {}

    def name(self, name: str) -> str:
        return f"{self._dialect.quote}{name}{self._dialect.quote}"

    def names(self, names: Sequence[str]) -> str:
        return _quoted(self._dialect.quote, tuple(names))

    def bind(self, value: Any) -> str:
        self.parameters.append(value)
        return f"${len(self.parameters)}" if self._style == "$" else self._style

    def value(self, column: Column, value: Any) -> str:
        """Return the expression of *value* for *column*."""
        if isinstance(value, Now):
            return self.now(value.offset)
        return self.cast(column.type, self.bind(encode(self._dialect, column, value)))

    def cast(self, type_: Type, text: str) -> str:
        """Return *text* cast to the type where the database needs it."""
        cast = self._dialect.casts.get(type_)
        return f"{text}::{cast}" if cast else text

    def now(self, offset: float) -> str:
        """Return the expression of the database's clock, *offset* seconds from now."""
        if self._clock is None and self._dialect.now:
            if not offset:
                return self._dialect.now
            return self._dialect.now_plus.format(self.bind(offset))
        return self.cast("time", self.bind(self._encoded_instant(offset)))

    def _encoded_instant(self, offset: float) -> Any:
        if self._now is None:
            self._now = (self._clock or utc_now)()
        if offset not in self._instants:
            instant = self._now + timedelta(seconds=offset)
            self._instants[offset] = encode(self._dialect, _TIME, instant)
        return self._instants[offset]

    def row(self, columns: Sequence[Column], values: Sequence[Any]) -> str:
        servers = self._clock is None and bool(self._dialect.now)
        first, cells = len(self.parameters), []
        casts, plain = self._dialect.casts, self._dialect.arrays
        for column, value in zip(columns, values, strict=True):
            type_ = column.type
            if type(value) is not Now:
                # Where there are arrays, only JSON has to be encoded.
                as_is = plain and type_ != "json"
                encoded = value if as_is else encode(self._dialect, column, value)
            elif servers:
                cells.append(self._dialect.now_plus if value.offset else self._dialect.now)
                self.parameters += [value.offset] if value.offset else []
                continue
            else:
                encoded = self._encoded_instant(value.offset)
            # What is no parameter costs neither the driver nor the database anything.
            if encoded is not None and column.fixed:
                cells.append(_literal(encoded))
                continue
            cell = "NULL"
            if encoded is not None:
                cell = "{}"
                self.parameters.append(encoded)
            cells.append(f"{cell}::{casts[type_]}" if type_ in casts else cell)
        # Numbered markers depend on the row's place in the statement, the others look alike.
        return _marked(", ".join(cells), self._style, first if self._style == "$" else 0)

    def changes(self, table: Table, changes: Mapping[str, Any]) -> str:
        return ", ".join(
            f"{self.name(column)} = {self.name(column)} + {self.bind(value.amount)}"
            if isinstance(value, Plus)
            else f"{self.name(column)} = {self.value(table.column(column), value)}"
            for column, value in changes.items()
        )

    def where(self, table: Table, where: Sequence[Where], before: str = " WHERE ") -> str:
        """Return the conditions, all of which must hold, with *before* in front of them."""
        if not where:
            return ""
        return before + " AND ".join(self._condition(table, one) for one in where)

    def _condition(self, table: Table, where: Where) -> str:
        name, column = self.name(where.column), table.column(where.column)
        if where.operator == "in":
            return f"{name} {self._in(column, where.value)}"
        if where.value is None:
            return f"{name} IS {'NOT ' if where.operator == 'ne' else ''}NULL"
        value = _literal(where.value) if column.fixed else self.value(column, where.value)
        return f"{name} {_OPERATORS[where.operator]} {value}"

    def _in(self, column: Column, values: Sequence[Any]) -> str:
        if column.fixed:
            return "IN (" + ", ".join(map(_literal, values)) + ")"
        if self._dialect.arrays:
            encoded = [encode(self._dialect, column, value) for value in values]
            # asyncpg sends nothing but a list for an array; the others take long over a list. No
            # cast from text: it would be made again for each row that is compared.
            array = encoded if self._style == "$" else array_text(encoded)
            return f"= ANY({self.bind(array)}::{self._dialect.casts.get(column.type, 'text')}[])"
        encoded = [encode(self._dialect, column, value) for value in values]
        if self._dialect.long_list and len(encoded) > _LONG_LIST:
            return f"IN {self._dialect.long_list.format(self.bind(json.dumps(encoded)))}"
        self.parameters += encoded
        return f"IN ({', '.join([self._style] * len(values))})"

    def tail(
        self,
        table: Table,
        order_by: Sequence[str],
        limit: int | None,
        offset: int = 0,
        *,
        lock: bool = False,
        skip_locked: bool = False,
        share: bool = False,
    ) -> str:
        parts = []
        if order_by:
            # With the table's name, or it would be the column as it is selected: as text, which is
            # in no index, and in another order where clocks are changed.
            parts.append("ORDER BY " + ", ".join(
                f"{self.name(table.name)}.{self.name(name.lstrip('-'))}"
                + (" DESC" if name[0] == "-" else "")
                for name in order_by
            ))  # fmt: skip
        if limit is not None:
            parts.append(f"LIMIT {self.bind(check_limit(limit, least=0))}")
        if offset:
            parts.append(f"OFFSET {self.bind(offset)}")
        if lock and self._dialect.row_locks:
            how = "FOR SHARE" if share and self._dialect.shares_locks else "FOR UPDATE"
            parts.append(f"{how} SKIP LOCKED" if skip_locked else how)
        return "".join(f" {part}" for part in parts)

    def chosen(
        self,
        table: Table,
        parts: Sequence[Portion],
        order_by: Sequence[str],
        limit: int,
        skip: bool,
    ) -> str:
        """Return the condition that a row's key is among those to take."""
        key = self.name(table.key)
        queries = [
            f"SELECT {key} FROM {self.name(table.name)}"
            + self.where(table, part.where)
            + self.tail(table, order_by, part.limit, lock=skip, skip_locked=skip)
            for part in parts
        ]
        inner = queries[0]
        if len(queries) > 1:
            # Each in parentheses of its own, as locks and LIMIT need; in the order of the parts.
            inner = " UNION ALL ".join(
                f"SELECT {key} FROM ({query}) part_{number}" for number, query in enumerate(queries)
            )
            inner += f" LIMIT {self.bind(limit)}"
        # As an array PostgreSQL runs the inner query once, before it looks for the rows.
        return f"= ANY(ARRAY({inner}))" if self._dialect.arrays else f"IN ({inner})"


@lru_cache(1024)
def _marked(template: str, style: str, first: int) -> str:
    """Return *template* with markers of parameters in place of its braces."""
    count = template.count("{}")
    numbers = range(first + 1, first + count + 1)
    return template.format(*(f"${number}" if style == "$" else style for number in numbers))


_COMPARED: dict[str, tuple[type, ...]] = {
    "text": (str,), "longtext": (str,), "time": (datetime, Now), "int": (int, Now),
}  # fmt: skip
_WORDS: dict[type, str] = {str: "a text", datetime: "a datetime", int: "a whole number"}
_ID = re.compile("[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}", re.ASCII | re.IGNORECASE)


def _check_type(column: Column, one: Where) -> None:
    """Raise ``INVALID_ARGUMENT`` for a value that is no possible one of *column*."""
    wanted = _COMPARED.get(column.type)
    if wanted is None or one.value is None:
        return
    for each in one.value if one.operator == "in" else (one.value,):
        if not isinstance(each, wanted):
            raise AutomateError(
                ErrorCodes.INVALID_ARGUMENT,
                f"{one.column} is {_WORDS[wanted[0]]}, and can't be {type_name(each)}",
            )


def _matches_nothing(table: Table, where: Sequence[Where]) -> bool:
    """
    Return True if no row can match: of an empty IN list, or of a value that can't be stored.

    Else "zz" in place of an id would be an error on PostgreSQL, and none elsewhere. Raises
    ``INVALID_ARGUMENT`` for a value of another type than the column's: SQLite would compare 5 with
    text, or find nothing, and PostgreSQL would seem to be away.
    """
    for one in where:
        value, column = one.value, table.column(one.column)
        _check_type(column, one)
        if one.operator == "in":
            # Of several the caller has read the ids, as a rule; to look at each would cost.
            if not value or (len(value) == 1 and not _can_be(column, next(iter(value)))):
                return True
        elif one.operator == "eq" and not _can_be(column, value):
            return True
    return False


def _can_be(column: Column, value: Any) -> bool:
    """Return True if *column* can have *value*, which is of its type."""
    if value is None or type(value) is Now:
        return True
    if column.type == "id":
        return _ID.fullmatch(str(value)) is not None
    return not isinstance(value, str) or not text_problem(value)


def _literal(word: str) -> str:
    """Return one of our own words as SQL text."""
    if not word.isidentifier() or not word.isascii():
        raise ValueError(f"not one of our words: {word!r}")
    return f"'{word}'"


_POSTGRESQL = DIALECTS["postgresql"]
# Lines sent at once: the server works on some while the next are written.
_BLOCK = 250


def _insert_source(
    statement: _Statement,
    columns: Sequence[Column],
    rows: NewRows,
    notify: str = "",
    *,
    arrays: bool = False,
) -> str:
    """
    Return the source of an INSERT into *columns*; on PostgreSQL it may *notify* as well.

    A notice in the statement itself costs no round trip and no reading of a result.
    """
    notice = f" pg_notify({_literal(notify)}, '') AS notice" if notify else ""
    source = _from_arrays(statement, columns, rows) if arrays else None
    if source is not None:
        return f"{source},{notice}" if notice else source
    cells = [statement.row(columns, [row[column.name] for column in columns]) for row in rows]
    if notice and len(cells) == 1:
        # Planned in less time than one row of VALUES.
        return f"SELECT {cells[0]} FROM{notice}"
    values = f"VALUES ({'), ('.join(cells)})"
    return f"SELECT given.* FROM ({values}) AS given,{notice}" if notice else values


def _from_arrays(statement: _Statement, columns: Sequence[Column], rows: NewRows) -> str | None:
    """
    Return ``SELECT … FROM unnest(…)`` for *rows*; a column that is the same in all is sent once.

    It is None if a column mixes instants with the database's clock.
    """
    if len(rows) < 2:
        return None
    cells = [(column, [row[column.name] for row in rows]) for column in columns]
    varying = [values for _, values in cells if not _alike(values)]
    if not varying or any(type(value) is Now for values in varying for value in values):
        return None
    arrays: list[str] = []
    selected: list[str] = []
    for column, values in cells:
        if _alike(values):
            selected.append(statement.value(column, values[0]))
        else:
            encoded = [encode(_POSTGRESQL, column, value) for value in values]
            arrays.append(array_text(encoded))
            selected.append(statement.cast(column.type, f"given.a{len(arrays)}"))
    names = ", ".join(f"a{number + 1}" for number in range(len(arrays)))
    # Bound here and not above: markers count from left to right.
    # By way of text: asyncpg sends nothing but a list for an array.
    given = ", ".join(f"{statement.bind(array)}::text::text[]" for array in arrays)
    return f"SELECT {', '.join(selected)} FROM unnest({given}) AS given({names})"


def _copied_lines(columns: Sequence[Column], rows: NewRows, now: datetime | None) -> Iterator[str]:
    """Yield *rows* as COPY's text; *now* is the database's time, if one of them asks for it."""
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        cells = [_cells(column, [row[column.name] for row in block], now) for column in columns]
        yield "\n".join(map("\t".join, zip(*cells, strict=True))) + "\n"


def copy_through(connection: Any, sql: str, lines: Iterable[str]) -> int | None:
    """Run COPY on a connection of psycopg 3 and return the count; None with another driver."""
    cursor: Any = connection.cursor() if hasattr(connection, "__enter__") else None
    if not hasattr(cursor, "copy"):
        return None
    with cursor:
        with cursor.copy(sql) as copy:
            for line in lines:
                copy.write(line)
        return int(cursor.rowcount)


def _cells(column: Column, values: list[Any], now: datetime | None) -> Iterable[str]:
    def cell(value: Any) -> str:
        if type(value) is Now and now is not None:
            value = now + timedelta(seconds=value.offset)
        return copy_text(encode(_POSTGRESQL, column, value))

    return repeat(cell(values[0]), len(values)) if _alike(values) else map(cell, values)


def _alike(values: list[Any]) -> bool:
    return values.count(values[0]) == len(values)


# Bind parameters in one INSERT: SQLite's limit is 32,766 and PostgreSQL's 65,535.
_MAX_PARAMETERS = 30_000
# Rows and characters in one INSERT, so that no statement gets much beyond some megabytes: MariaDB
# takes 16 MB by default.
_MOST_AT_ONCE = 5_000
_MOST_TEXT = 2_000_000
# From here on COPY, which needs two more statements, is quicker than INSERT.
_WORTH_COPYING = 50


class Rows:
    """
    Our tables inside one transaction of the host's database. An adapter subclasses it with `run`.

    *style* is the driver's way to mark parameters: ``%s``, ``?`` or ``$`` (numbered). Values are
    plain Python: ids and text are ``str``, JSON columns any JSON value, times aware ``datetime`` in
    UTC. Column names come from `automate_kernel.storage.tables` and are trusted.
    """

    native: Any = None
    """The application's own handle on this transaction, for a handler that writes in it."""

    def __init__(self, dialect: Dialect, style: str, clock: Clock | None = None) -> None:
        self.dialect = dialect
        self._style = style
        self._clock = clock

    def run(self, sql: str, parameters: Sequence[Any], *, fetch: bool) -> Any:
        """Run one statement and return its rows as sequences if *fetch*, else the count of rows."""
        raise NotImplementedError

    def copy(self, sql: str, lines: Iterable[str]) -> int | None:
        """Run COPY with *lines* and return the count; None if the driver has no COPY."""
        return None

    @property
    def asks_server(self) -> bool:
        """True if times are the server's, and no clock of this process."""
        return self._clock is None and bool(self.dialect.now)

    @property
    def notifies(self) -> bool:
        """True if listeners can be told of what is written here."""
        return self.dialect.notifies

    def query(self, template: str, parameters: Sequence[Any]) -> list[Any]:
        """Run a statement that has ``{}`` in the place of each parameter; return its rows."""
        found: list[Any] = self.run(_marked(template, self._style, 0), parameters, fetch=True)
        return found

    def _statement(self) -> _Statement:
        return _Statement(self.dialect, self._style, self._clock)

    def insert(self, table: str, rows: NewRows, *, notify: str = "", fresh: bool = False) -> int:
        """
        Add *rows*, skipping each whose key exists, and return the number of those added.

        All have the same columns. The keys of *fresh* rows are known to be new, so many rows go in
        by a quicker way; an existing key is then an error.

        With *notify*, listeners on that channel wake once the transaction commits, where the
        database can do that; elsewhere they find out by polling.
        """
        if not rows:
            return 0
        spec = TABLES[table]
        notify = notify if self.notifies else ""
        arrays = self.dialect.arrays and len(rows) > 1
        # COPY fails on a key that exists, where an insert is to skip it.
        if arrays and fresh and len(rows) >= _WORTH_COPYING:
            copied = self._copy(spec, rows, notify)
            if copied is not None:
                return copied
        chunk = _MOST_AT_ONCE if arrays else max(1, _MAX_PARAMETERS // len(rows[0]))
        return sum(self._insert(spec, some, notify, fresh) for some in _parts(spec, rows, chunk))

    def _insert(self, table: Table, rows: NewRows, notify: str, fresh: bool) -> int:
        statement, columns = self._statement(), _columns(table, tuple(rows[0]))
        source = _insert_source(statement, columns, rows, notify, arrays=self.dialect.arrays)
        sql = (
            f"INSERT INTO {statement.name(table.name)} ({statement.names(list(rows[0]))})"
            f" {source}{'' if fresh else self.dialect.conflict}"
        )
        try:
            return int(self.run(sql, statement.parameters, fetch=False))
        except DuplicateKeyError:
            # Where INSERT can't skip an existing key, one that fails has done nothing, and the
            # transaction goes on.
            if fresh or self.dialect.conflict:
                raise
            if len(rows) == 1:
                return 0
        # Halves, since mostly one or none of many is there already.
        middle = len(rows) // 2
        halves = (rows[:middle], rows[middle:])
        return sum(self._insert(table, half, notify, fresh) for half in halves)

    def ensure(self, table: str, rows: NewRows) -> None:
        """
        Add rows whose keys do not exist, as a step before locking them.

        MariaDB lets all who find a key share a lock on its row, so that two who then want it for
        themselves wait for each other. Here each has it alone.
        """
        if rows:
            for some in _parts(TABLES[table], rows, max(1, _MAX_PARAMETERS // len(rows[0]))):
                self._ensure(TABLES[table], some)

    def _ensure(self, spec: Table, rows: NewRows) -> None:
        statement = self._statement()
        columns, key = _columns(spec, tuple(rows[0])), statement.name(spec.key)
        source = _insert_source(statement, columns, rows, arrays=self.dialect.arrays)
        sql = (
            f"INSERT INTO {statement.name(spec.name)} ({statement.names(list(rows[0]))}) {source}"
            f"{self.dialect.conflict or f' ON DUPLICATE KEY UPDATE {key} = {key}'}"
        )
        self.run(sql, statement.parameters, fetch=False)

    def insert_together(self, given: Sequence[tuple[str, NewRows]]) -> datetime:
        """
        Add rows to several tables, skipping each whose key exists; return the database's time.

        It is one statement on PostgreSQL, which needs no transaction around it.
        """
        given = [(table, rows) for table, rows in given if rows]
        if not (self.dialect.arrays and self.asks_server):
            for table, rows in given:
                self.insert(table, rows)
            return self.now()
        statement = self._statement()
        parts = [
            f"added_{number} AS ({self._insert_text(statement, TABLES[table], rows)})"
            for number, (table, rows) in enumerate(given)
        ]
        sql = f"WITH {', '.join(parts)} SELECT {self.dialect.now}"
        return decode_time(self.run(sql, statement.parameters, fetch=True)[0][0])

    def _insert_text(self, statement: _Statement, table: Table, rows: NewRows) -> str:
        names, columns = list(rows[0]), _columns(table, tuple(rows[0]))
        source = _insert_source(statement, columns, rows, arrays=self.dialect.arrays)
        return (
            f"INSERT INTO {statement.name(table.name)} ({statement.names(names)}) {source}"
            f"{self.dialect.conflict}"
        )

    def _copy(self, table: Table, rows: NewRows, notify: str) -> int | None:
        columns, statement = _columns(table, tuple(rows[0])), self._statement()
        names = statement.names(list(rows[0]))
        sql = f"COPY {statement.name(table.name)} ({names}) FROM STDIN"
        times = [column.name for column in columns if column.type == "time"]
        asks = any(type(row[name]) is Now for name in times for row in rows)
        # The time at once: while COPY runs the connection answers nothing.
        count = self.copy(sql, _copied_lines(columns, rows, self.now() if asks else None))
        if count and notify:
            self.notify(notify)
        return count

    def notify(self, channel: str) -> None:
        """Wake the listeners on *channel* once the transaction commits, where that can be done."""
        if self.notifies:
            statement = self._statement()
            sql = f"SELECT pg_notify({statement.bind(channel)}, '')::text"
            self.run(sql, statement.parameters, fetch=True)

    def update(self, table: str, where: Sequence[Where], changes: Mapping[str, Any]) -> int:
        """Change all rows that match, and return their number."""
        if _matches_nothing(TABLES[table], where):
            return 0
        spec, statement = TABLES[table], self._statement()
        sql = f"UPDATE {statement.name(table)} SET {statement.changes(spec, changes)}"
        sql += statement.where(spec, where)
        return int(self.run(sql, statement.parameters, fetch=False))

    def delete(self, table: str, where: Sequence[Where]) -> int:
        """Remove all rows that match, and return their number."""
        if _matches_nothing(TABLES[table], where):
            return 0
        statement = self._statement()
        sql = f"DELETE FROM {statement.name(table)}" + statement.where(TABLES[table], where)
        return int(self.run(sql, statement.parameters, fetch=False))

    def remove(self, table: str, where: Sequence[Where]) -> list[Any]:
        """Remove all rows that match, and return their keys."""
        if _matches_nothing(TABLES[table], where):
            return []
        key = TABLES[table].key
        if not self.dialect.returning:
            found = self.select(table, where, order_by=(key,), lock=True, columns=(key,))
            keys = [row[key] for row in found]
            self.delete(table, [Where(key, "in", keys), *where])
            return keys
        columns, statement = _columns(TABLES[table], (key,)), self._statement()
        sql = f"DELETE FROM {statement.name(table)}" + statement.where(TABLES[table], where)
        sql += f" RETURNING {self._read(columns)}"
        removed = decode(columns, self.run(sql, statement.parameters, fetch=True))
        return [row[key] for row in removed]

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
        share: bool = False,
        columns: Sequence[str] = (),
    ) -> list[Row]:
        """
        Read rows in order (``-column`` descends), locked until the transaction ends if asked.

        With *share* others may lock them in this way too, where the database can do that.
        """
        if _matches_nothing(TABLES[table], where):
            return []
        spec, statement = TABLES[table], self._statement()
        wanted = _columns(spec, columns)
        sql = (
            f"SELECT {self._read(wanted)} FROM {statement.name(table)}"
            + statement.where(spec, where)
            + statement.tail(
                spec, order_by, limit, offset, lock=lock, skip_locked=skip_locked, share=share
            )
        )
        return decode(wanted, self.run(sql, statement.parameters, fetch=True))

    def keep_writers_out(self, table: str) -> None:
        """
        Wait for the transactions that write to *table*, and keep others out until this one ends.

        Raises `LockedError` if it would take more than a moment. It does nothing where an INSERT
        that finds its key already there has locked that row: a lock on the row is enough then.
        """
        for text in self.dialect.lock_table:
            self.run(text.format(self._statement().name(table)), (), fetch=False)

    def wait_briefly(self) -> None:
        """
        Let the rest of this transaction raise `LockedError` where it would wait for a lock long.

        It does nothing where the database has a bound of its own for that, as MariaDB has.
        """
        if self.dialect.waits_briefly:
            self.run(self.dialect.waits_briefly, (), fetch=False)

    def bound_waits(self) -> None:
        """
        Let the rest of this transaction raise `LockedError` after half a minute behind a lock.

        It does nothing where the database or the connection has a bound of its own for that.
        """
        if self.dialect.bounds_waits:
            self.run(self.dialect.bounds_waits, (), fetch=True)

    def now(self) -> datetime:
        """Return the time of the database's clock."""
        if self._clock is not None or not self.dialect.now:
            return (self._clock or utc_now)()
        return decode_time(self.run(f"SELECT {self.dialect.now}", (), fetch=True)[0][0])

    def count(self, table: str, by: Sequence[str] = (), where: Sequence[Where] = ()) -> list[Row]:
        """Count matching rows per value of the columns *by*: rows of those columns and ``n``."""
        if _matches_nothing(TABLES[table], where):
            return []
        spec, statement = TABLES[table], self._statement()
        columns = [spec.column(name) for name in by]
        read = f"{self._read(columns)}, count(*)" if by else "count(*)"
        sql = f"SELECT {read} FROM {statement.name(table)}" + statement.where(spec, where)
        sql += f" GROUP BY {statement.names(by)}" if by else ""
        counted = self.run(sql, statement.parameters, fetch=True)
        return decode([*columns, Column("n", "int")], counted)

    def least(
        self, table: str, *, by: str, of: Sequence[tuple[str, Sequence[Where]]]
    ) -> dict[Any, Any]:
        """
        Return the least value per value of *by*, in several columns of one type.

        *of* has the columns, each with the conditions on its rows. It is one statement, and sees
        one moment; each part of it may use an index of its own.
        """
        spec, statement = TABLES[table], self._statement()
        columns = [spec.column(by), replace(spec.column(of[0][0]), name="least")]
        key, value = statement.name(by), statement.name("least")
        parts = [
            f"SELECT {key}, {statement.name(column)} AS {value} FROM {statement.name(table)}"
            + statement.where(spec, where)
            for column, where in of
            if not _matches_nothing(spec, where)
        ]
        if not parts:
            return {}
        sql = (
            f"SELECT {self._read(columns)} FROM (SELECT {key}, min({value}) AS {value}"
            f" FROM ({' UNION ALL '.join(parts)}) parts GROUP BY {key}) found"
        )
        found = decode(columns, self.run(sql, statement.parameters, fetch=True))
        return {row[by]: row["least"] for row in found}

    def distinct(self, table: str, column: str, where: Sequence[Where] = ()) -> list[Any]:
        """
        Return the values of *column* among matching rows, each once, in order, without nulls.

        It costs a look into the index for each value, and nothing for each row, if the conditions
        and *column* lead an index.
        """
        if _matches_nothing(TABLES[table], where):
            return []
        if not self.dialect.arrays:
            return self._distinct_in_steps(table, column, where)
        # PostgreSQL's planner has no skip scan for DISTINCT: this makes one, out of index look-ups.
        spec, statement = TABLES[table], self._statement()
        name, source = statement.name(column), statement.name(table)
        tail = f" ORDER BY {name} LIMIT 1"
        first = f"SELECT {name} FROM {source}" + statement.where(
            spec, [*where, Where(column, "ne", None)]
        )
        after = f"SELECT {name} FROM {source}" + statement.where(spec, where)
        after += f" {'AND' if where else 'WHERE'} {name} > found.value"
        sql = (
            f"WITH RECURSIVE found(value) AS (({first}{tail}) UNION ALL SELECT ({after}"
            f"{tail}) FROM found WHERE found.value IS NOT NULL)"
            " SELECT value FROM found WHERE value IS NOT NULL"
        )
        return [row[0] for row in self.run(sql, statement.parameters, fetch=True)]

    def _distinct_in_steps(self, table: str, column: str, where: Sequence[Where]) -> list[Any]:
        values: list[Any] = []
        beyond = Where(column, "ne", None)
        while found := self.select(
            table, [*where, beyond], order_by=(column,), limit=1, columns=(column,)
        ):
            values.append(found[0][column])
            beyond = Where(column, "gt", values[-1])
        return values

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
        if _matches_nothing(TABLES[table], where):
            return []
        parts = [
            Portion([*where, *part.where], min(limit, part.limit))
            for part in parts or (Portion((), limit),)
        ]
        spec, statement = TABLES[table], self._statement()
        if not self.dialect.returning:
            keys = self._locked_keys(spec, parts, order_by, limit, skip_locked)
            chosen = [Where(spec.key, "in", keys)]
            self.update(table, chosen, changes)
            return self.select(table, chosen, order_by=order_by, columns=columns)
        skip = skip_locked and self.dialect.skip_locked
        sets = statement.changes(spec, changes)
        among = statement.chosen(spec, parts, order_by, limit, skip)
        # Without locks another may have changed a row since the inner query saw it: check again.
        again = "" if skip else statement.where(spec, where, " AND ")
        wanted = _columns(spec, columns)
        sql = (
            f"UPDATE {statement.name(table)} SET {sets} WHERE {statement.name(spec.key)} {among}"
            f"{again} RETURNING {self._read(wanted)}"
        )
        taken = decode(wanted, self.run(sql, statement.parameters, fetch=True))
        # RETURNING promises no order. Sorting by the last column first keeps that of the earlier.
        for name in reversed(order_by):
            taken.sort(key=itemgetter(name.lstrip("-")), reverse=name[0] == "-")
        return taken

    def _locked_keys(
        self,
        table: Table,
        parts: Sequence[Portion],
        order_by: Sequence[str],
        limit: int,
        skip: bool,
    ) -> list[Any]:
        keys: list[Any] = []
        for part in parts:
            if limit > len(keys):
                found = self.select(
                    table.name, part.where, order_by=order_by, columns=(table.key,),
                    limit=min(part.limit, limit - len(keys)), lock=True, skip_locked=skip,
                )  # fmt: skip
                keys += [row[table.key] for row in found]
        return keys

    def _read(self, columns: Sequence[Column]) -> str:
        return _selected(
            self.dialect.quote,
            self.dialect.arrays,
            tuple([(column.name, column.type) for column in columns]),
        )


@lru_cache(256)
def _selected(quote: str, as_text: bool, columns: tuple[tuple[str, str], ...]) -> str:
    # Drivers and frameworks disagree on what these become in Python, and spend more on it than on
    # all else; text is text everywhere.
    return ", ".join(
        f"{quote}{name}{quote}" + ("::text" if as_text and type_ in ("id", "json", "time") else "")
        for name, type_ in columns
    )


@lru_cache(256)
def _only(table: str, names: tuple[str, ...]) -> tuple[Column, ...]:
    return tuple(map(TABLES[table].column, names))


def _parts(table: Table, rows: NewRows, most: int) -> Iterator[NewRows]:
    """Yield *rows* in parts of *most* rows, or fewer if they are large: one statement each."""
    long = [name for name in rows[0] if table.column(name).type in ("json", "longtext")]
    if len(rows) == 1 or (len(rows) <= most and _text_in(rows, long) <= _MOST_TEXT):
        yield rows
        return
    start = size = 0
    for end, row in enumerate(rows):
        its = _text_in([row], long)
        if end > start and (end - start >= most or size + its > _MOST_TEXT):
            yield rows[start:end]
            start, size = end, 0
        size += its
    yield rows[start:]


def _text_in(rows: NewRows, columns: Sequence[str]) -> int:
    """Return the number of characters in *columns* of *rows*; of JSON, if it is text already."""
    return sum(
        len(value)
        for name in columns
        for value in map(itemgetter(name), rows)
        if type(value) in _TEXT
    )


_TEXT = {str, JsonText}


def _columns(table: Table, names: Sequence[str]) -> Sequence[Column]:
    return _only(table.name, tuple(names)) if names else table.columns


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

    def joins(self, transaction: Any) -> bool:
        """Return True if `begin` joins the application's transaction, and opens none of our own."""

    async def arun_in(self, transaction: Any, work: Callable[[Rows], T]) -> T:
        """
        Run *work* with `Rows`, as `begin` opens them, in an asynchronous transaction.

        In a transaction of our own it may be run again after a deadlock.
        """

    def wakeup(self, channel: str) -> Wakeup | None:
        """Return a `Wakeup` for the notices on *channel*, or None where workers can only poll."""

    def create_tables(self) -> None:
        """Create our tables that are missing, for an application without migrations."""

    def describe(self) -> str:
        """Return the database's name and place for people, without a password."""

    def close(self) -> None:
        """Give back what the storage itself opened. An application's engine stays open."""
