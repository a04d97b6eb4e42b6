"""The text of statements, and their parameters, as each database and driver wants them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import repeat
from operator import itemgetter
from typing import Any

from automate_kernel.base.arguments import check_limit
from automate_kernel.storage.codec import JsonText, array_text, copy_text, encode
from automate_kernel.storage.dialects import DIALECTS, Clock, Dialect, utc_now
from automate_kernel.storage.query import Now, PerKey, Plus, Portion, Where
from automate_kernel.storage.tables import TABLES, Column, Table, Type

NewRows = Sequence[Mapping[str, Any]]
_OPERATORS = {"eq": "=", "ne": "<>", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_TIME = Column("now", "time")
# Values of an IN, of which a statement may have several: SQLite's limit is 32,766 parameters.
_LONG_LIST = 5_000


@lru_cache(256)
def _quoted(quote: str, names: tuple[str, ...]) -> str:
    return ", ".join(f"{quote}{name}{quote}" for name in names)


class SqlStatement:
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
        """Return *name* in quotes."""
        return f"{self._dialect.quote}{name}{self._dialect.quote}"

    def names(self, names: Sequence[str]) -> str:
        """Return *names* in quotes, with commas between them."""
        return _quoted(self._dialect.quote, tuple(names))

    def bind(self, value: Any) -> str:
        """Add a parameter, and return its mark."""
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
        """Return the expressions of a row's *values*, with commas between them."""
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
        return marked(", ".join(cells), self._style, first if self._style == "$" else 0)

    def changes(self, table: Table, changes: Mapping[str, Any]) -> str:
        """Return what stands behind SET."""
        return ", ".join(
            f"{self.name(column)} = {self._changed(table, table.column(column), value)}"
            for column, value in changes.items()
        )

    def _changed(self, table: Table, column: Column, value: Any) -> str:
        if isinstance(value, Plus):
            return f"{self.name(column.name)} + {self.bind(value.amount)}"
        if not isinstance(value, PerKey):
            return self.value(column, value)
        key = table.column(table.key)
        cases = [
            f"WHEN {self.value(key, each)} THEN {self.value(column, its)}"
            for each, its in value.values.items()
        ]
        return f"CASE {self.name(key.name)} {' '.join(cases)} END"

    def insert(self, table: Table, rows: NewRows) -> str:
        """Return the INSERT of *rows*, all of which have the same columns."""
        columns = columns_of(table, tuple(rows[0]))
        source = self._source(columns, rows)
        return f"INSERT INTO {self.name(table.name)} ({self.names(list(rows[0]))}) {source}"

    def _source(self, columns: Sequence[Column], rows: NewRows) -> str:
        source = _from_arrays(self, columns, rows) if self._dialect.arrays else None
        if source is not None:
            return source
        cells = [self.row(columns, [row[column.name] for column in columns]) for row in rows]
        return f"VALUES ({'), ('.join(cells)})"

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
        """Return what stands behind the conditions of a SELECT: order, bounds and locks."""
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
def marked(template: str, style: str, first: int) -> str:
    """Return *template* with markers of parameters in place of its braces."""
    count = template.count("{}")
    numbers = range(first + 1, first + count + 1)
    return template.format(*(f"${number}" if style == "$" else style for number in numbers))


def _literal(word: str) -> str:
    """Return one of our own words as SQL text."""
    if not word.isidentifier() or not word.isascii():
        raise ValueError(f"not one of our words: {word!r}")
    return f"'{word}'"


_POSTGRESQL = DIALECTS["postgresql"]
# Lines sent at once: the server works on some while the next are written.
_BLOCK = 250


def _from_arrays(statement: SqlStatement, columns: Sequence[Column], rows: NewRows) -> str | None:
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


def copied_lines(columns: Sequence[Column], rows: NewRows, now: datetime | None) -> Iterator[str]:
    """Yield *rows* as COPY's text; *now* is the database's time, if one of them asks for it."""
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        cells = [_cells(column, [row[column.name] for row in block], now) for column in columns]
        yield "\n".join(map("\t".join, zip(*cells, strict=True))) + "\n"


def _cells(column: Column, values: list[Any], now: datetime | None) -> Iterable[str]:
    def cell(value: Any) -> str:
        if type(value) is Now and now is not None:
            value = now + timedelta(seconds=value.offset)
        return copy_text(encode(_POSTGRESQL, column, value))

    return repeat(cell(values[0]), len(values)) if _alike(values) else map(cell, values)


def _alike(values: list[Any]) -> bool:
    return values.count(values[0]) == len(values)


# Characters in one INSERT, so that no statement gets much beyond some megabytes: MariaDB takes
# 16 MB by default.
_MOST_TEXT = 2_000_000


def parts_of(table: Table, rows: NewRows, most: int) -> Iterator[NewRows]:
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


def selected(dialect: Dialect, columns: Sequence[Column]) -> str:
    """Return *columns* as they are read: text where drivers would differ."""
    pairs = tuple([(column.name, column.type) for column in columns])
    return _selected(dialect.quote, dialect.arrays, pairs)


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


def columns_of(table: Table, names: Sequence[str]) -> Sequence[Column]:
    """Return the columns of *table* with those *names*; all, if there are none."""
    return _only(table.name, tuple(names)) if names else table.columns
