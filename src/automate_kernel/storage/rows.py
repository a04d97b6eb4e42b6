"""
The seam: `Rows`, our tables in a transaction, which an adapter's `Storage` opens.

The transaction is the application's own, which we never commit, or one that `Storage.begin` begins
and ends. The text of each statement is written once, for every adapter and database
(`automate_kernel.storage.sql`); an adapter only runs it on the application's connection
(`Rows.run`). Values cross in one format whichever framework carries them, so two applications can
share a database. Conditions are always ANDed; needing an OR or a join means that a column is
missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from contextvars import ContextVar
from dataclasses import replace
from datetime import datetime
from functools import partial
from operator import itemgetter
from typing import Any, Protocol, TypeVar

from automate_kernel.base import runtime
from automate_kernel.storage.codec import decode, decode_time
from automate_kernel.storage.dialects import Clock, Dialect
from automate_kernel.storage.errors import DeadlockError, DuplicateKeyError
from automate_kernel.storage.query import Now, Portion, Where, matches_nothing
from automate_kernel.storage.sql import (
    NewRows,
    SqlStatement,
    columns_of,
    copied_lines,
    marks_of,
    parts_of,
    selected,
)
from automate_kernel.storage.tables import TABLES, Column, Table

Row = dict[str, Any]
T = TypeVar("T")

# Bind parameters in one INSERT: SQLite's limit is 32,766 and PostgreSQL's 65,535.
_MAX_PARAMETERS = 30_000
# Rows in one INSERT.
_MOST_AT_ONCE = 5_000
# From here on COPY, which needs two more statements, is quicker than INSERT.
_WORTH_COPYING = 50
# SQLite joins 500 queries at most.
_PARTS_AT_ONCE = 100


class _Queries(runtime.local):
    count = 0


queries = _Queries()
"""The number of queries of this thread so far; the difference is the cost of a piece of work."""


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
        self._clock = clock
        self._marked = marks_of(style)
        self._statement = partial(SqlStatement, dialect, style, clock)

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

    def query(self, template: str, parameters: Sequence[Any]) -> list[Any]:
        """Run a statement that has ``{}`` in the place of each parameter; return its rows."""
        queries.count += 1
        found: list[Any] = self.run(self._marked(template), parameters, fetch=True)
        return found

    def insert(
        self, table: str, rows: NewRows, *, notify: bool = False, fresh: bool = False
    ) -> int:
        """
        Add *rows*, skipping each whose key exists, and return the number of those added.

        All have the same columns. The keys of *fresh* rows are known to be new, so many rows go in
        by a quicker way; an existing key is then an error.

        With *notify*, workers that wait for items are woken as by `notify`.
        """
        insert = self._insert if len(rows) == 1 else self._insert_all
        added = insert(TABLES[table], rows, fresh) if rows else 0
        if added and notify:
            self.notify()
        return added

    def _insert_all(self, spec: Table, rows: NewRows, fresh: bool) -> int:
        arrays = self.dialect.arrays
        # COPY fails on a key that exists, where an insert is to skip it.
        if arrays and fresh and len(rows) >= _WORTH_COPYING:
            copied = self._copy(spec, rows)
            if copied is not None:
                return copied
        chunk = _MOST_AT_ONCE if arrays else max(1, _MAX_PARAMETERS // len(rows[0]))
        return sum(self._insert(spec, some, fresh) for some in parts_of(spec, rows, chunk))

    def _insert(self, table: Table, rows: NewRows, fresh: bool) -> int:
        statement = self._statement()
        sql = statement.insert(table, rows) + ("" if fresh else self.dialect.conflict)
        try:
            return int(self.run(self._marked(sql), statement.parameters, fetch=False))
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
        return sum(self._insert(table, half, fresh) for half in halves)

    def ensure(self, table: str, rows: NewRows) -> None:
        """
        Add rows whose keys do not exist, as a step before locking them.

        MariaDB lets all who find a key share a lock on its row, so that two who then want it for
        themselves wait for each other. Here each has it alone.
        """
        if rows:
            for some in parts_of(TABLES[table], rows, max(1, _MAX_PARAMETERS // len(rows[0]))):
                self._ensure(TABLES[table], some)

    def _ensure(self, spec: Table, rows: NewRows) -> None:
        statement = self._statement()
        key = statement.name(spec.key)
        sql = statement.insert(spec, rows)
        sql += self.dialect.conflict or f" ON DUPLICATE KEY UPDATE {key} = {key}"
        self.run(self._marked(sql), statement.parameters, fetch=False)

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
            f"added_{number} AS ({statement.insert(TABLES[table], rows)}{self.dialect.conflict})"
            for number, (table, rows) in enumerate(given)
        ]
        sql = f"WITH {', '.join(parts)} SELECT {self.dialect.now}"
        return decode_time(self.query(sql, statement.parameters)[0][0])

    def _copy(self, table: Table, rows: NewRows) -> int | None:
        columns, statement = columns_of(table, tuple(rows[0])), self._statement()
        names = statement.names(list(rows[0]))
        sql = f"COPY {statement.name(table.name)} ({names}) FROM STDIN"
        times = [column.name for column in columns if column.type == "time"]
        asks = any(type(row[name]) is Now for name in times for row in rows)
        # The time at once: while COPY runs the connection answers nothing.
        return self.copy(sql, copied_lines(columns, rows, self.now() if asks else None))

    def begun(self, *, bounded: bool) -> None:
        """Run what a transaction of our own begins with; see `Storage.begin`."""
        bound = self.dialect.bounds_idle if bounded else ""
        for sql in (self.dialect.first, bound):
            if sql and not self.begins_with(sql):
                self.run(sql, (), fetch=False)

    def begins_with(self, sql: str) -> bool:
        """Begin the transaction with *sql* at once, or return False where that saves nothing."""
        return False

    def notify(self) -> None:
        """
        Have the workers woken that wait for items, once the transaction is committed.

        Nothing happens in the transaction itself. Where that can't be done, workers poll.
        """

    def update(self, table: str, where: Sequence[Where], changes: Mapping[str, Any]) -> int:
        """Change all rows that match, and return their number."""
        if matches_nothing(TABLES[table], where):
            return 0
        spec, statement, quote = TABLES[table], self._statement(), self.dialect.quote
        sql = f"UPDATE {quote}{table}{quote} SET {statement.changes(spec, changes)}"
        sql += statement.where(spec, where)
        return int(self.run(self._marked(sql), statement.parameters, fetch=False))

    def delete(self, table: str, where: Sequence[Where]) -> int:
        """Remove all rows that match, and return their number."""
        if matches_nothing(TABLES[table], where):
            return 0
        statement = self._statement()
        sql = f"DELETE FROM {statement.name(table)}" + statement.where(TABLES[table], where)
        return int(self.run(self._marked(sql), statement.parameters, fetch=False))

    def delete_some(
        self, table: str, where: Sequence[Where], limit: int, order_by: Sequence[str] = ()
    ) -> int:
        """Remove up to *limit* rows that match, and return their number; for large tables."""
        key = TABLES[table].key
        found = self.select(table, where, order_by=order_by, limit=limit, columns=(key,))
        return self.delete(table, [Where(key, "in", [row[key] for row in found])])

    def remove(self, table: str, where: Sequence[Where]) -> list[Any]:
        """Remove all rows that match, and return their keys."""
        if matches_nothing(TABLES[table], where):
            return []
        key = TABLES[table].key
        if not self.dialect.returning:
            found = self.select(table, where, order_by=(key,), lock=True, columns=(key,))
            keys = [row[key] for row in found]
            self.delete(table, [Where(key, "in", keys), *where])
            return keys
        columns, statement = columns_of(TABLES[table], (key,)), self._statement()
        sql = f"DELETE FROM {statement.name(table)}" + statement.where(TABLES[table], where)
        sql += f" RETURNING {selected(self.dialect, columns)}"
        removed = decode(columns, self.query(sql, statement.parameters))
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
        if matches_nothing(TABLES[table], where):
            return []
        spec, statement, quote = TABLES[table], self._statement(), self.dialect.quote
        wanted = columns_of(spec, columns)
        sql = (
            f"SELECT {selected(self.dialect, wanted)} FROM {quote}{table}{quote}"
            + statement.where(spec, where)
            + statement.tail(
                spec, order_by, limit, offset, lock=lock, skip_locked=skip_locked, share=share
            )
        )
        return decode(wanted, self.query(sql, statement.parameters))

    def select_parts(
        self,
        table: str,
        parts: Sequence[Portion],
        *,
        order_by: Sequence[str],
        columns: Sequence[str],
    ) -> list[list[Row]]:
        """
        Return the first rows in order of each part: a list for each.

        A hundred parts are one statement, and each reads the index that serves it. *columns* must
        include those of *order_by*.
        """
        spec = TABLES[table]
        wanted, found = columns_of(spec, columns), [list[Row]() for _ in parts]
        able = [n for n, part in enumerate(parts) if not matches_nothing(spec, part.where)]
        for start in range(0, len(able), _PARTS_AT_ONCE):
            statement = self._statement()
            read = f" AS part, {selected(self.dialect, wanted)} FROM {statement.name(table)}"
            texts = [
                f"SELECT * FROM (SELECT {number}{read}{statement.where(spec, parts[number].where)}"
                f"{statement.tail(spec, order_by, parts[number].limit)}) part_{number}"
                for number in able[start : start + _PARTS_AT_ONCE]
            ]
            rows = self.query(" UNION ALL ".join(texts), statement.parameters)
            for row in decode([Column("part", "int"), *wanted], rows):
                found[row.pop("part")].append(row)
        # UNION promises no order.
        for some in found:
            _sort(some, order_by)
        return found

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
            return (self._clock or runtime.utc_now)()
        return decode_time(self.query(f"SELECT {self.dialect.now}", ())[0][0])

    def count(
        self,
        table: str,
        by: Sequence[str] = (),
        where: Sequence[Where] = (),
        *,
        ends: str = "",
    ) -> list[Row]:
        """
        Count matching rows per value of the columns *by*: rows of those columns and ``n``.

        With *ends*, a column, they have the ``least`` and the ``most`` of its values too.
        """
        if matches_nothing(TABLES[table], where):
            return []
        spec, statement = TABLES[table], self._statement()
        columns = [spec.by_name[name] for name in by]
        read = f"{selected(self.dialect, columns)}, count(*)" if by else "count(*)"
        more = [Column("n", "int")]
        if ends:
            column = spec.by_name[ends]
            more += [replace(column, name=name) for name in ("least", "most")]
            value = statement.name(ends)
            if column.type == "id" and self.dialect.arrays:
                value += '::text COLLATE "C"'  # older servers of PostgreSQL have no least UUID
            read += f", min({value}), max({value})"
        sql = f"SELECT {read} FROM {statement.name(table)}" + statement.where(spec, where)
        sql += f" GROUP BY {statement.names(by)}" if by else ""
        counted = self.query(sql, statement.parameters)
        return decode([*columns, *more], counted)

    def counts(self, *among: tuple[str, Sequence[Where]], most: int) -> list[int]:
        """Count for each table the rows that match, *most* at most, in one statement."""
        statement = self._statement()
        parts = [
            f"(SELECT count(*) FROM (SELECT 1 FROM {statement.name(table)}"
            f"{statement.where(TABLES[table], where)}{statement.tail(TABLES[table], (), most)})"
            f" part_{number})"
            for number, (table, where) in enumerate(among)
            if not matches_nothing(TABLES[table], where)
        ]
        row = list(
            self.query(f"SELECT {', '.join(parts)}", statement.parameters)[0] if parts else ()
        )
        return [
            0 if matches_nothing(TABLES[table], where) else row.pop(0) for table, where in among
        ]

    def found(
        self,
        *among: tuple[str, Sequence[Where]],
        first: tuple[str, str, Sequence[Where]] | None = None,
    ) -> list[Any]:
        """
        Return for each table, with its conditions, whether a row matches. It is one statement.

        With *first*, a table with a column of times and conditions, two times follow: the least of
        these, or None, and the time of the database's clock.
        """
        statement = self._statement()
        parts = [
            f"EXISTS (SELECT 1 FROM {statement.name(table)}{statement.where(TABLES[table], where)})"
            for table, where in among
        ]
        if first is not None:
            table, column, where = first
            spec = TABLES[table]
            parts.append(
                f"(SELECT {selected(self.dialect, [spec.by_name[column]])}"
                f" FROM {statement.name(table)}{statement.where(spec, where)}"
                f"{statement.tail(spec, (column,), 1)})"
            )
            parts += [self.dialect.now] if self.asks_server else []
        row = self.query(f"SELECT {', '.join(parts)}", statement.parameters)[0]
        found: list[Any] = [bool(value) for value in row[: len(among)]]
        if first is not None:
            least = row[len(among)]
            found.append(None if least is None else decode_time(least))
            found.append(decode_time(row[-1]) if self.asks_server else self.now())
        return found

    def least(
        self, table: str, *, by: str, of: Sequence[tuple[str, Sequence[Where]]]
    ) -> dict[Any, Any]:
        """
        Return the least value per value of *by*, in several columns of one type.

        *of* has the columns, each with the conditions on its rows. It is one statement, and sees
        one moment; each part of it may use an index of its own.
        """
        spec, statement = TABLES[table], self._statement()
        columns = [spec.by_name[by], replace(spec.by_name[of[0][0]], name="least")]
        key, value = statement.name(by), statement.name("least")
        parts = [
            f"SELECT {key}, {statement.name(column)} AS {value} FROM {statement.name(table)}"
            + statement.where(spec, where)
            for column, where in of
            if not matches_nothing(spec, where)
        ]
        if not parts:
            return {}
        sql = (
            f"SELECT {selected(self.dialect, columns)} FROM (SELECT {key}, min({value}) AS {value}"
            f" FROM ({' UNION ALL '.join(parts)}) parts GROUP BY {key}) found"
        )
        found = decode(columns, self.query(sql, statement.parameters))
        return {row[by]: row["least"] for row in found}

    def distinct(self, table: str, column: str, where: Sequence[Where] = ()) -> list[Any]:
        """
        Return the values of *column* among matching rows, each once, in order, without nulls.

        It costs a look into the index for each value, and nothing for each row, if the conditions
        and *column* lead an index.
        """
        if matches_nothing(TABLES[table], where):
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
        return [row[0] for row in self.query(sql, statement.parameters)]

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
        if matches_nothing(TABLES[table], where):
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
        wanted = columns_of(spec, columns)
        sql = (
            f"UPDATE {statement.name(table)} SET {sets} WHERE {statement.name(spec.key)} {among}"
            f"{again} RETURNING {selected(self.dialect, wanted)}"
        )
        taken = decode(wanted, self.query(sql, statement.parameters))
        # RETURNING promises no order.
        _sort(taken, order_by)
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


def _sort(found: list[Row], order_by: Sequence[str]) -> None:
    # Sorting by the last column first keeps the order of the earlier.
    for name in reversed(order_by):
        found.sort(key=itemgetter(name.lstrip("-")), reverse=name[0] == "-")


def begin_through(connection: Any, sql: str) -> bool:
    """
    Begin a transaction with *sql* in one round trip, on a connection of psycopg 3.

    Returns False where that can't be: the driver's own way then begins it, or says what is wrong.
    """
    server: Any = getattr(connection, "pgconn", None)
    options = ("isolation_level", "read_only", "deferrable")
    # A BEGIN with options is the driver's to write.
    plain = all(getattr(connection, name, "") is None for name in options)
    if server is None or not plain or connection.autocommit:
        return False
    with suppress(Exception):
        if server.transaction_status == 0:  # idle
            server.exec_(f"BEGIN; {sql}".encode())
            return bool(server.transaction_status == 2)  # in a transaction
    return False


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


class Wakeup(Protocol):
    """A wait for new items. Missing a notice costs time, never an item."""

    def expect(self) -> bool:
        """
        Ask for notices; return False if none was asked for so far, and they come from now on.

        Then look for work once more, since what came before was not announced.
        """

    def ignore(self) -> None:
        """Ask for no notices, until `expect` is called again."""

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
        self, transaction: Any = None, *, atomic: bool = True, bounded: bool = True
    ) -> AbstractContextManager[Rows]:
        """
        Open `Rows` in the application's *transaction*, or else in one of our own.

        The adapter defines the types of *transaction*: a SQLAlchemy ``Session`` or ``Connection``;
        in Django nothing, since the open ``atomic()`` block is meant. The application's is never
        committed or rolled back here; our own commits unless the block raises. Without *atomic*
        each statement of the block may commit by itself, which saves the round trips of BEGIN and
        COMMIT. A transaction of our own ends if it stands still for 15 seconds, where the database
        can do that: one that runs application code is not to be *bounded*.
        """

    def joins(self, transaction: Any) -> bool:
        """Return True if `begin` joins the application's transaction, and opens none of our own."""

    async def arun_in(self, transaction: Any, work: Callable[[Rows], T]) -> T:
        """
        Run *work* with `Rows`, as `begin` opens them, in an asynchronous transaction.

        In a transaction of our own it may be run again after a deadlock.
        """

    def wakeup(self) -> Wakeup | None:
        """Return a `Wakeup` for notices of new items, or None where workers can only poll."""

    def create_tables(self) -> None:
        """Create our tables that are missing, for an application without migrations."""

    def describe(self) -> str:
        """Return the database's name and place for people, without a password."""

    def close(self) -> None:
        """Give back what the storage itself opened. An application's engine stays open."""


in_transaction: ContextVar[bool] = ContextVar("automate_in_transaction", default=False)
"""True within a transactional call, and in the calls that it makes."""


def has_only_lock(storage: Storage) -> bool:
    """
    Return True within a transactional call that holds the only lock for writing, as on SQLite.

    Another transaction on *storage* waits for the end of the call that waits for it.
    """
    return in_transaction.get() and not storage.supports_skip_locked


# -- transactions ---------------------------------------------------------------------------------

# Of two transactions that wait for each other the database undoes one. It has kept nothing, so a
# transaction that was ours alone can simply begin again. Where the application has one open, all
# of it is undone, and only the application knows what it had done: it gets the error.
_DEADLOCK_TRIES = 10
_APART_SECONDS = 0.02


def write(
    storage: Storage, transaction: Any, work: Callable[[Rows], T], *, atomic: bool = True
) -> T:
    """
    Call *work* with rows as `Storage.begin` opens them, and return its result.

    After a deadlock in a transaction of our own it is called again, ten times at most.
    """
    tries = 1 if storage.joins(transaction) else _DEADLOCK_TRIES
    for left in reversed(range(tries)):
        try:
            with storage.begin(transaction, atomic=atomic) as rows:
                return work(rows)
        except DeadlockError:
            if not left:
                raise
        # Not in step with those that it would meet again.
        runtime.sleep(runtime.numbers.uniform(0, _APART_SECONDS * (_DEADLOCK_TRIES - left)))
    raise AssertionError("unreachable")


def write_bounded(storage: Storage, transaction: Any, work: Callable[[Rows], T]) -> T:
    """
    Do as `write` does, for what a person asks for.

    A transaction of the application's that goes on for long may lock what it needs. Rather than to
    stand still for as long, it raises `LockedError` after half a minute, in a transaction of our
    own.
    """
    if storage.joins(transaction):
        return write(storage, transaction, work)

    def bounded(rows: Rows) -> T:
        rows.bound_waits()
        return work(rows)

    return write(storage, transaction, bounded)
