"""
`Rows` over anything that can run one SQL statement.

The text of each statement is written here once, for every adapter and database; an adapter says
how a statement is run on the host's connection (`SqlRows.run`) and nothing else. Values cross in
one format whichever framework carries them, so two hosts can share a database.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from operator import itemgetter
from typing import Any

from automate_kernel.storage.bulk import copied_lines, copy_statement, insert_source
from automate_kernel.storage.codec import decode, decode_time
from automate_kernel.storage.dialects import Dialect, utc_now
from automate_kernel.storage.failures import DuplicateKeyError
from automate_kernel.storage.rows import Clock, Part, Row, Where
from automate_kernel.storage.statement import Statement, matches_nothing
from automate_kernel.storage.tables import TABLES, Column, Table

__all__ = ["SqlRows"]

# Bind parameters in one INSERT: SQLite's limit is 32,766 and PostgreSQL's 65,535.
_MAX_PARAMETERS = 30_000
# Rows in one INSERT from arrays, so that no statement gets much beyond some megabytes.
_MOST_AT_ONCE = 5_000
# From here on COPY, which needs two more statements, is quicker than INSERT.
_WORTH_COPYING = 50


class SqlRows:
    """
    `Rows` whose statements an adapter runs.

    *style* is the driver's way to mark parameters: ``%s``, ``?`` or ``$`` (numbered).
    """

    native: Any = None

    def __init__(self, dialect: Dialect, style: str, clock: Clock | None = None) -> None:
        self.dialect = dialect
        self._style = style
        self._clock = clock

    def run(self, sql: str, parameters: Sequence[Any], *, fetch: bool) -> Any:
        """Run one statement: its rows as sequences if *fetch*, else the count of rows hit."""
        raise NotImplementedError

    def copy(self, sql: str, lines: Iterable[str]) -> int | None:
        """Run COPY … FROM STDIN with *lines*: how many rows; None if the driver has no COPY."""
        return None

    def _statement(self) -> Statement:
        return Statement(self.dialect, self._style, self._clock)

    # -- writing -----------------------------------------------------------------------------

    def insert(
        self,
        table: str,
        rows: Sequence[Mapping[str, Any]],
        *,
        notify: str = "",
        fresh: bool = False,
    ) -> int:
        """Add rows; see `Rows.insert`."""
        if not rows:
            return 0
        spec, names = TABLES[table], list(rows[0])
        notify = notify if self.dialect.notifies else ""
        arrays = self.dialect.arrays and len(rows) > 1
        # COPY fails on a key that exists, where an insert is to skip it.
        if arrays and fresh and len(rows) >= _WORTH_COPYING:
            copied = self._copy(spec, names, rows, notify)
            if copied is not None:
                return copied
        chunk = _MOST_AT_ONCE if arrays else max(1, _MAX_PARAMETERS // len(names))
        add = self._insert if fresh or self.dialect.conflict else self._insert_new
        return sum(
            add(spec, names, rows[start : start + chunk], notify, fresh)
            for start in range(0, len(rows), chunk)
        )

    def _insert(
        self,
        table: Table,
        names: list[str],
        rows: Sequence[Mapping[str, Any]],
        notify: str,
        fresh: bool,
    ) -> int:
        statement, columns = self._statement(), _only(table.name, tuple(names))
        source = insert_source(statement, columns, rows, notify, arrays=self.dialect.arrays)
        sql = (
            f"INSERT INTO {statement.name(table.name)} ({statement.names(names)})"
            f" {source}{'' if fresh else self.dialect.conflict}"
        )
        return int(self.run(sql, statement.parameters, fetch=False))

    def _insert_new(
        self,
        table: Table,
        names: list[str],
        rows: Sequence[Mapping[str, Any]],
        notify: str,
        fresh: bool,
    ) -> int:
        """
        `_insert` where no statement skips a key that exists.

        There a statement that fails has done nothing, and the transaction goes on.
        """
        try:
            return self._insert(table, names, rows, notify, fresh)
        except DuplicateKeyError:
            if len(rows) == 1:
                return 0
        # Halves, since mostly one or none of many is there already.
        middle = len(rows) // 2
        return self._insert_new(table, names, rows[:middle], notify, fresh) + self._insert_new(
            table, names, rows[middle:], notify, fresh
        )

    def _copy(
        self, table: Table, names: list[str], rows: Sequence[Mapping[str, Any]], notify: str
    ) -> int | None:
        columns = _only(table.name, tuple(names))
        lines = copied_lines(columns, rows, self.now)
        count = self.copy(copy_statement(self._statement(), table, columns), lines)
        if count and notify:
            statement = self._statement()
            sql = f"SELECT pg_notify({statement.bind(notify)}, '')::text"
            self.run(sql, statement.parameters, fetch=True)
        return count

    def update(self, table: str, where: Sequence[Where], changes: Mapping[str, Any]) -> int:
        """Change all rows that match; see `Rows.update`."""
        if matches_nothing(where):
            return 0
        spec, statement = TABLES[table], self._statement()
        sql = f"UPDATE {statement.name(table)} SET {statement.changes(spec, changes)}"
        sql += statement.where(spec, where)
        return int(self.run(sql, statement.parameters, fetch=False))

    def delete(self, table: str, where: Sequence[Where]) -> int:
        """Remove all rows that match; see `Rows.delete`."""
        if matches_nothing(where):
            return 0
        statement = self._statement()
        sql = f"DELETE FROM {statement.name(table)}" + statement.where(TABLES[table], where)
        return int(self.run(sql, statement.parameters, fetch=False))

    def remove(self, table: str, where: Sequence[Where]) -> list[Any]:
        """Remove all rows that match and return their keys; see `Rows.remove`."""
        if matches_nothing(where):
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

    # -- reading -----------------------------------------------------------------------------

    def select(
        self,
        table: str,
        where: Sequence[Where] = (),
        *,
        order_by: Sequence[str] = (),
        limit: int | None = None,
        lock: bool = False,
        skip_locked: bool = False,
        columns: Sequence[str] = (),
    ) -> list[Row]:
        """Read rows; see `Rows.select`."""
        if matches_nothing(where):
            return []
        spec, statement = TABLES[table], self._statement()
        wanted = _columns(spec, columns)
        sql = (
            f"SELECT {self._read(wanted)} FROM {statement.name(table)}"
            + statement.where(spec, where)
            + statement.tail(spec, order_by, limit, lock=lock, skip_locked=skip_locked)
        )
        return decode(wanted, self.run(sql, statement.parameters, fetch=True))

    def now(self) -> datetime:
        """The database's clock."""
        if self._clock is not None or not self.dialect.now:
            return (self._clock or utc_now)()
        return decode_time(self.run(f"SELECT {self.dialect.now}", (), fetch=True)[0][0])

    def count(self, table: str, by: Sequence[str] = (), where: Sequence[Where] = ()) -> list[Row]:
        """Count matching rows per value of *by*; see `Rows.count`."""
        if matches_nothing(where):
            return []
        spec, statement = TABLES[table], self._statement()
        columns = [spec.column(name) for name in by]
        read = f"{self._read(columns)}, count(*)" if by else "count(*)"
        sql = f"SELECT {read} FROM {statement.name(table)}" + statement.where(spec, where)
        sql += f" GROUP BY {statement.names(by)}" if by else ""
        counted = self.run(sql, statement.parameters, fetch=True)
        return decode([*columns, Column("n", "int")], counted)

    def distinct(self, table: str, column: str, where: Sequence[Where] = ()) -> list[Any]:
        """The values of *column*, each once; see `Rows.distinct`."""
        if matches_nothing(where):
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

    # -- taking ------------------------------------------------------------------------------

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
        """Change the first rows in order and return them; see `Rows.take`."""
        if matches_nothing(where):
            return []
        parts = parts or (Part((), limit),)
        if not self.dialect.returning:
            return self._take_in_steps(
                table, where, order_by, limit, changes, skip_locked, columns, parts
            )
        spec, statement = TABLES[table], self._statement()
        key, skip = statement.name(spec.key), skip_locked and self.dialect.skip_locked
        sets = statement.changes(spec, changes)
        chosen = self._chosen(statement, spec, where, order_by, limit, skip, parts)
        # Without locks another may have changed a row since the inner query saw it: check again.
        again = "" if skip else statement.where(spec, where, " AND ")
        wanted = _columns(spec, columns)
        sql = (
            f"UPDATE {statement.name(table)} SET {sets} WHERE {key} {chosen}{again}"
            f" RETURNING {self._read(wanted)}"
        )
        taken = decode(wanted, self.run(sql, statement.parameters, fetch=True))
        return _sorted(taken, order_by)

    def _chosen(
        self,
        statement: Statement,
        table: Table,
        where: Sequence[Where],
        order_by: Sequence[str],
        limit: int,
        skip: bool,
        parts: Sequence[Part],
    ) -> str:
        """The condition that a row's key is among those to take."""
        key = statement.name(table.key)
        queries = [
            f"SELECT {key} FROM {statement.name(table.name)}"
            + statement.where(table, [*where, *part.where])
            + statement.tail(table, order_by, min(limit, part.limit), lock=skip, skip_locked=skip)
            for part in parts
        ]
        inner = queries[0]
        if len(queries) > 1:
            # Each in parentheses of its own, as locks and LIMIT need; in the order of the parts.
            inner = " UNION ALL ".join(
                f"SELECT {key} FROM ({query}) part_{number}" for number, query in enumerate(queries)
            )
            inner += f" LIMIT {statement.bind(limit)}"
        # As an array PostgreSQL runs the inner query once, before it looks for the rows.
        return f"= ANY(ARRAY({inner}))" if self.dialect.arrays else f"IN ({inner})"

    def _take_in_steps(
        self,
        table: str,
        where: Sequence[Where],
        order_by: Sequence[str],
        limit: int,
        changes: Mapping[str, Any],
        skip_locked: bool,
        columns: Sequence[str],
        parts: Sequence[Part],
    ) -> list[Row]:
        key = TABLES[table].key
        keys: list[Any] = []
        for part in parts:
            if limit > len(keys):
                found = self.select(
                    table, [*where, *part.where], order_by=order_by,
                    limit=min(part.limit, limit - len(keys)),
                    lock=True, skip_locked=skip_locked, columns=(key,),
                )  # fmt: skip
                keys += [row[key] for row in found]
        chosen = [Where(key, "in", keys)]
        self.update(table, chosen, changes)
        return self.select(table, chosen, order_by=order_by, columns=columns)

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


def _columns(table: Table, names: Sequence[str]) -> Sequence[Column]:
    return _only(table.name, tuple(names)) if names else table.columns


def _sorted(rows: list[Row], order_by: Sequence[str]) -> list[Row]:
    """*rows* in order, since RETURNING promises none."""
    # Sorting by the last column first keeps the order of the earlier ones.
    for name in reversed(order_by):
        rows.sort(key=itemgetter(name.lstrip("-")), reverse=name[0] == "-")
    return rows
