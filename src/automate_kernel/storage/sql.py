"""
`Rows` over anything that can run one SQL statement.

The text of each statement is written here once, for every adapter and database; an adapter says
how a statement is run on the host's connection (`SqlRows.run`) and nothing else. Values cross in
one format whichever framework carries them, so two hosts can share a database.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

from automate_kernel.storage.rows import Clock, Now, Plus, Row, Where
from automate_kernel.storage.tables import TABLES, Column, Table

__all__ = ["DIALECTS", "Dialect", "JsonText", "SqlRows", "utc_now"]

_OPERATORS = {"eq": "=", "ne": "<>", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
# Bind parameters in one INSERT: SQLite's limit is 32,766 and PostgreSQL's 65,535.
_MAX_PARAMETERS = 30_000


class JsonText(str):
    """JSON that is encoded already, so that it isn't encoded twice."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Dialect:
    """What one database does in its own way."""

    name: str
    quote: str = '"'
    arrays: bool = False
    """``= ANY(array)``: one statement text, and so one plan, for every number of values."""
    returning: bool = True
    """``UPDATE … RETURNING``."""
    skip_locked: bool = False
    row_locks: bool = True
    notifies: bool = False
    conflict: str = " ON CONFLICT DO NOTHING"
    insert: str = "INSERT INTO"
    now: str = ""
    """The server's clock; empty where there is none and the process's own must serve."""
    now_plus: str = ""
    casts: Mapping[str, str] = field(default_factory=dict)
    first: str = ""
    """The statement that a transaction of our own begins with."""


_POSTGRESQL_CASTS = {"id": "uuid", "json": "jsonb", "time": "timestamptz", "int": "integer"}

DIALECTS: dict[str, Dialect] = {
    "postgresql": Dialect(
        "postgresql",
        arrays=True,
        skip_locked=True,
        notifies=True,
        now="statement_timestamp()",
        now_plus="statement_timestamp() + {} * interval '1 second'",
        casts=_POSTGRESQL_CASTS,
    ),
    "sqlite": Dialect(
        "sqlite",
        row_locks=False,
        # A deferred transaction that reads first and writes later fails at once with "database is
        # locked" when another has written in between; one that writes first waits its turn.
        first="UPDATE automate_outbox_pause SET kind = kind WHERE 0",
    ),
    "mysql": Dialect(
        "mysql",
        quote="`",
        returning=False,
        skip_locked=True,
        # Lengths and JSON are checked before a row gets here, so IGNORE hides duplicates alone.
        insert="INSERT IGNORE INTO",
        conflict="",
        # The default, REPEATABLE READ, locks gaps (so that claims and enqueueing deadlock), and on
        # MariaDB it refuses a row that another has changed since the transaction's first read.
        first="SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
        now="UTC_TIMESTAMP(6)",
        now_plus="UTC_TIMESTAMP(6) + INTERVAL {} * 1000000 MICROSECOND",
    ),
}


def utc_now() -> datetime:
    """The process's own clock."""
    return datetime.now(timezone.utc)


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

    def insert(self, table: str, rows: Sequence[Mapping[str, Any]], *, notify: str = "") -> int:
        """Add rows; see `Rows.insert`."""
        if not rows:
            return 0
        spec, names = TABLES[table], list(rows[0])
        chunk = max(1, _MAX_PARAMETERS // len(names))
        return sum(
            self._insert(spec, names, rows[start : start + chunk], notify)
            for start in range(0, len(rows), chunk)
        )

    def _insert(
        self, table: Table, names: list[str], rows: Sequence[Mapping[str, Any]], notify: str
    ) -> int:
        statement = _Statement(self)
        columns = [table.column(name) for name in names]
        values = ", ".join(
            "(" + ", ".join(statement.value(column, row[column.name]) for column in columns) + ")"
            for row in rows
        )
        sql = (
            f"{self.dialect.insert} {self._name(table.name)} ({self._list(names)})"
            f" VALUES {values}{self.dialect.conflict}"
        )
        if notify and self.dialect.notifies:
            # In the statement itself it costs no round trip, and PostgreSQL folds equal notices.
            sql += f" RETURNING pg_notify({statement.bind(notify)}, '')::text"
            return len(self.run(sql, statement.parameters, fetch=True))
        return int(self.run(sql, statement.parameters, fetch=False))

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
        if _nothing(where):
            return []
        spec, statement = TABLES[table], _Statement(self)
        wanted = _columns(spec, columns)
        sql = (
            f"SELECT {self._read(wanted)} FROM {self._name(table)}"
            + statement.where(spec, where)
            + self._tail(order_by, limit, statement, lock=lock, skip_locked=skip_locked)
        )
        return _decode(wanted, self.run(sql, statement.parameters, fetch=True))

    def take(
        self,
        table: str,
        where: Sequence[Where],
        *,
        order_by: Sequence[str],
        limit: int,
        changes: Mapping[str, Any],
        skip_locked: bool = True,
    ) -> list[Row]:
        """Change the first rows in order and return them; see `Rows.take`."""
        if _nothing(where):
            return []
        if not self.dialect.returning:
            return self._take_in_steps(table, where, order_by, limit, changes, skip_locked)
        spec, statement = TABLES[table], _Statement(self)
        key, skip = self._name(spec.key), skip_locked and self.dialect.skip_locked
        sets = statement.changes(spec, changes)
        inner = (
            f"SELECT {key} FROM {self._name(table)}"
            + statement.where(spec, where)
            + self._tail(order_by, limit, statement, lock=skip, skip_locked=skip)
        )
        # As an array PostgreSQL runs the inner query once, before it looks for the rows.
        chosen = f"= ANY(ARRAY({inner}))" if self.dialect.arrays else f"IN ({inner})"
        # Without locks another may have changed a row since the inner query saw it: check again.
        again = "" if skip else statement.where(spec, where, " AND ")
        sql = (
            f"UPDATE {self._name(table)} SET {sets} WHERE {key} {chosen}{again}"
            f" RETURNING {self._read(spec.columns)}"
        )
        rows = _decode(spec.columns, self.run(sql, statement.parameters, fetch=True))
        return _sorted(rows, order_by)

    def _take_in_steps(
        self,
        table: str,
        where: Sequence[Where],
        order_by: Sequence[str],
        limit: int,
        changes: Mapping[str, Any],
        skip_locked: bool,
    ) -> list[Row]:
        key = TABLES[table].key
        found = self.select(
            table, where, order_by=order_by, limit=limit, lock=True, skip_locked=skip_locked,
            columns=(key,),
        )  # fmt: skip
        chosen = [Where(key, "in", [row[key] for row in found])]
        self.update(table, chosen, changes)
        return self.select(table, chosen, order_by=order_by)

    def update(self, table: str, where: Sequence[Where], changes: Mapping[str, Any]) -> int:
        """Change all rows that match; see `Rows.update`."""
        if _nothing(where):
            return 0
        spec, statement = TABLES[table], _Statement(self)
        sql = f"UPDATE {self._name(table)} SET {statement.changes(spec, changes)}"
        sql += statement.where(spec, where)
        return int(self.run(sql, statement.parameters, fetch=False))

    def delete(self, table: str, where: Sequence[Where]) -> int:
        """Remove all rows that match; see `Rows.delete`."""
        if _nothing(where):
            return 0
        statement = _Statement(self)
        sql = f"DELETE FROM {self._name(table)}" + statement.where(TABLES[table], where)
        return int(self.run(sql, statement.parameters, fetch=False))

    def now(self) -> datetime:
        """The database's clock."""
        if self._clock is not None or not self.dialect.now:
            return (self._clock or utc_now)()
        return _decode_time(self.run(f"SELECT {self.dialect.now}", (), fetch=True)[0][0])

    def count(self, table: str, by: Sequence[str] = (), where: Sequence[Where] = ()) -> list[Row]:
        """Count matching rows per value of *by*; see `Rows.count`."""
        if _nothing(where):
            return []
        spec, statement = TABLES[table], _Statement(self)
        columns = [spec.column(name) for name in by]
        sql = f"SELECT {', '.join([*map(self._read_one, columns), 'count(*)'])}"
        sql += f" FROM {self._name(table)}" + statement.where(spec, where)
        sql += f" GROUP BY {self._list(by)}" if by else ""
        return _decode(
            [*columns, Column("n", "int")], self.run(sql, statement.parameters, fetch=True)
        )

    # -- parts of statements -----------------------------------------------------------------

    def _name(self, name: str) -> str:
        return f"{self.dialect.quote}{name}{self.dialect.quote}"

    def _list(self, names: Sequence[str]) -> str:
        return ", ".join(map(self._name, names))

    def _read(self, columns: Sequence[Column]) -> str:
        return ", ".join(map(self._read_one, columns))

    def _read_one(self, column: Column) -> str:
        name = self._name(column.name)
        # Drivers and frameworks disagree on what these become in Python; text is text everywhere.
        as_text = self.dialect.arrays and column.type in ("id", "json")
        return f"{name}::text" if as_text else name

    def _tail(
        self,
        order_by: Sequence[str],
        limit: int | None,
        statement: _Statement,
        *,
        lock: bool,
        skip_locked: bool,
    ) -> str:
        parts = []
        if order_by:
            parts.append("ORDER BY " + ", ".join(
                f"{self._name(name.lstrip('-'))}{' DESC' if name[0] == '-' else ''}"
                for name in order_by
            ))  # fmt: skip
        if limit is not None:
            parts.append(f"LIMIT {statement.bind(limit)}")
        if lock and self.dialect.row_locks:
            parts.append("FOR UPDATE SKIP LOCKED" if skip_locked else "FOR UPDATE")
        return "".join(f" {part}" for part in parts)


class _Statement:
    """The parameters of one statement, collected while its text is written."""

    def __init__(self, rows: SqlRows) -> None:
        self._rows = rows
        self._dialect = rows.dialect
        self.parameters: list[Any] = []

    def bind(self, value: Any) -> str:
        self.parameters.append(value)
        style = self._rows._style
        return f"${len(self.parameters)}" if style == "$" else style

    def value(self, column: Column, value: Any) -> str:
        if isinstance(value, Now):
            return self._now(value)
        marker = self.bind(encode(self._dialect, column, value))
        cast = self._dialect.casts.get(column.type)
        return f"{marker}::{cast}" if cast else marker

    def _now(self, now: Now) -> str:
        clock = self._rows._clock
        if clock is None and self._dialect.now:
            if not now.offset:
                return self._dialect.now
            return self._dialect.now_plus.format(self.bind(now.offset))
        instant = (clock or utc_now)() + timedelta(seconds=now.offset)
        return self.value(_TIME, instant)

    def changes(self, table: Table, changes: Mapping[str, Any]) -> str:
        name = self._rows._name
        return ", ".join(
            f"{name(column)} = {name(column)} + {self.bind(value.amount)}"
            if isinstance(value, Plus)
            else f"{name(column)} = {self.value(table.column(column), value)}"
            for column, value in changes.items()
        )

    def where(self, table: Table, where: Sequence[Where], before: str = " WHERE ") -> str:
        if not where:
            return ""
        return before + " AND ".join(self._condition(table, one) for one in where)

    def _condition(self, table: Table, where: Where) -> str:
        name, column = self._rows._name(where.column), table.column(where.column)
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
            return f"= ANY({self.bind(encoded)}::{self._dialect.casts.get(column.type, 'text')}[])"
        return "IN (" + ", ".join(self.value(column, value) for value in values) + ")"


_TIME = Column("now", "time")


def _literal(word: str) -> str:
    """One of our own words as SQL text."""
    if not word.isidentifier() or not word.isascii():
        raise ValueError(f"not one of our words: {word!r}")
    return f"'{word}'"


def encode(dialect: Dialect, column: Column, value: Any) -> Any:
    """What is handed to the driver for *value*."""
    if value is None and not (column.type == "json" and not column.null):
        return None
    if column.type == "json":
        if isinstance(value, JsonText):
            return str(value)
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    if column.type == "id" and not dialect.arrays:
        return str(value).replace("-", "")
    if column.type == "time" and not dialect.arrays:
        naive = value.astimezone(timezone.utc).replace(tzinfo=None)
        return naive if dialect.name == "mysql" else naive.isoformat(" ", "microseconds")
    return value


def _decode_id(value: Any) -> str:
    text = str(value)
    if len(text) == 32:
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
    return text


def _decode_time(value: Any) -> datetime:
    moment: datetime = datetime.fromisoformat(value) if isinstance(value, str) else value
    # Drivers give the zone of the database session, or none where the column has none.
    return moment.astimezone(timezone.utc) if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


def _decode_json(value: Any) -> Any:
    return json.loads(value) if isinstance(value, (str, bytes)) else value


_DECODERS: dict[str, Callable[[Any], Any]] = {
    "id": _decode_id,
    "time": _decode_time,
    "json": _decode_json,
}


def _decode(columns: Sequence[Column], rows: Sequence[Sequence[Any]]) -> list[Row]:
    names = [column.name for column in columns]
    decoders = [
        (column.name, _DECODERS[column.type]) for column in columns if column.type in _DECODERS
    ]
    decoded = []
    for values in rows:
        row = dict(zip(names, values, strict=True))
        for name, decoder in decoders:
            if row[name] is not None:
                row[name] = decoder(row[name])
        decoded.append(row)
    return decoded


def _columns(table: Table, names: Sequence[str]) -> Sequence[Column]:
    return [table.column(name) for name in names] if names else table.columns


def _nothing(where: Sequence[Where]) -> bool:
    """Whether an empty IN list makes the statement match no row."""
    return any(one.operator == "in" and not one.value for one in where)


def _sorted(rows: list[Row], order_by: Sequence[str]) -> list[Row]:
    # RETURNING promises no order. Sorting by the last column first keeps the earlier ones' order.
    for name in reversed(order_by):
        rows.sort(key=lambda row: row[name.lstrip("-")], reverse=name[0] == "-")
    return rows
