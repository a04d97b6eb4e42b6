"""The text of statements, and their parameters, as each database and driver wants them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import repeat
from operator import itemgetter, methodcaller
from typing import Any

from automate_kernel.base import runtime
from automate_kernel.base.arguments import check_limit
from automate_kernel.storage.codec import (
    NULL,
    JsonText,
    array_text,
    copy_text,
    encode,
    encoders_of,
)
from automate_kernel.storage.dialects import DIALECTS, Clock, Dialect
from automate_kernel.storage.query import Now, PerKey, Plus, Portion, Where
from automate_kernel.storage.tables import TABLES, Column, Table, Type

NewRows = Sequence[Mapping[str, Any]]
_OPERATORS = {"eq": "=", "ne": "<>", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
# As text: a JsonText is told from what is not encoded yet.
_NULL_JSON = str(NULL)
# Values of an IN, of which a statement may have several: SQLite's limit is 32,766 parameters.
_LONG_LIST = 5_000


@lru_cache(256)
def _quoted(quote: str, names: tuple[str, ...]) -> str:
    return ", ".join(f"{quote}{name}{quote}" for name in names)


class SqlStatement:
    """
    The parameters of one statement, collected while its text is written.

    A text depends on the columns and on the kinds of their values alone, so each of its parts is
    written once. *style* is the driver's way to mark parameters: ``%s``, ``?`` or ``$`` (numbered).
    `marks_of` puts the marks in the place of ``{}``.
    """

    def __init__(self, dialect: Dialect, style: str, clock: Clock | None) -> None:
        self._dialect = dialect
        self._style = style
        self._clock = clock
        self._encoders = encoders_of(dialect)
        self._servers = clock is None and bool(dialect.now)
        self.parameters: list[Any] = []
        # One statement has one time, whosever clock it is.
        self._now: datetime | None = None
        self._instants: dict[float, Any] = {}

    def name(self, name: str) -> str:
        """Return *name* in quotes."""
        return _quoted(self._dialect.quote, (name,))

    def names(self, names: Sequence[str]) -> str:
        """Return *names* in quotes, with commas between them."""
        return _quoted(self._dialect.quote, tuple(names))

    def value(self, column: Column, value: Any) -> str:
        """Return the expression of *value* for *column*."""
        return _expression(self._dialect, column.type, self._kind(column, value))

    def _kind(self, column: Column, value: Any) -> str:
        """Add the parameter of *value*, if it needs one, and return its kind."""
        if type(value) is not Now:
            encoder = self._encoders.get(column.type)
            if value is None:
                value = _NULL_JSON if column.type == "json" and not column.null else None
            elif encoder is not None:
                value = encoder(value)
            self.parameters.append(value)
            return _PARAMETER
        if not self._servers:
            if value.offset not in self._instants:
                if self._now is None:
                    self._now = (self._clock or runtime.utc_now)()
                instant = self._now + timedelta(seconds=value.offset)
                encoder = self._encoders.get("time")
                self._instants[value.offset] = encoder(instant) if encoder else instant
            self.parameters.append(self._instants[value.offset])
            return _PARAMETER
        if not value.offset:
            return _NOW
        self.parameters.append(value.offset)
        return _NOW_PLUS

    def row(self, table: Table, names: tuple[str, ...], values: Iterable[Any]) -> str:
        """Return the expressions of a row's *values*, with commas between them."""
        kinds: list[str] = []
        # Where there are arrays, only JSON has to be encoded.
        encoders, parameters, columns = self._encoders, self.parameters, table.by_name
        for name, value in zip(names, values, strict=True):
            column = columns[name]
            if type(value) is Now:
                if value.offset in self._instants:
                    parameters.append(self._instants[value.offset])
                    kinds.append(_PARAMETER)
                else:
                    kinds.append(self._kind(column, value))
            elif value is None and (column.type != "json" or column.null):
                kinds.append(_ABSENT)
            # What is no parameter costs neither the driver nor the database anything.
            elif column.fixed:
                kinds.append(_literal(value))
            else:
                encoder = encoders.get(column.type)
                parameters.append(
                    _NULL_JSON if value is None else value if encoder is None else encoder(value)
                )
                kinds.append(_PARAMETER)
        return _row_text(self._dialect, table.name, names, tuple(kinds))

    def changes(self, table: Table, changes: Mapping[str, Any]) -> str:
        """Return what stands behind SET."""
        kinds: list[str] = []
        text_of: Callable[..., str] = _changes_text
        for name, value in changes.items():
            if type(value) is Plus:
                self.parameters.append(value.amount)
                kinds.append(_PLUS)
            elif type(value) is PerKey:
                kinds.append(self._cases(table, table.by_name[name], value))
                text_of = _changes_text.__wrapped__
            else:
                kinds.append(self._kind(table.by_name[name], value))
        return text_of(self._dialect, table.name, tuple(changes), tuple(kinds))

    def _cases(self, table: Table, column: Column, given: PerKey) -> str:
        key = table.by_name[table.key]
        cases = [
            f"WHEN {self.value(key, each)} THEN {self.value(column, its)}"
            for each, its in given.values.items()
        ]
        return f"CASE {self.name(key.name)} {' '.join(cases)} END"

    def insert(self, table: Table, rows: NewRows) -> str:
        """Return the INSERT of *rows*, all of which have the same columns."""
        names = tuple(rows[0])
        many = self._dialect.arrays and len(rows) > 1
        source = _from_arrays(self, columns_of(table, names), rows) if many else None
        if source is None:
            given = itemgetter(*names) if len(names) > 1 else None
            cells = [
                self.row(table, names, given(row) if given else (row[names[0]],)) for row in rows
            ]
            source = f"VALUES ({'), ('.join(cells)})"
        quote = self._dialect.quote
        return f"INSERT INTO {quote}{table.name}{quote} ({_quoted(quote, names)}) {source}"

    def where(self, table: Table, where: Sequence[Where], before: str = " WHERE ") -> str:
        """Return the conditions, all of which must hold, with *before* in front of them."""
        if not where:
            return ""
        kinds: list[tuple[str, str, str]] = []
        text_of: Callable[..., str] = _conditions_text
        for one in where:
            column = table.by_name[one.column]
            if one.operator == "in":
                kind = self._list(column, one.value)
                if len(kind) > _LONG_KIND:
                    text_of = _conditions_text.__wrapped__
            elif one.value is None:
                kind = _ABSENT
            elif column.fixed:
                kind = _literal(one.value)
            else:
                kind = self._kind(column, one.value)
            kinds.append((one.column, one.operator, kind))
        return text_of(self._dialect, table.name, tuple(kinds), before)

    def _list(self, column: Column, values: Sequence[Any]) -> str:
        """Add the parameters of an IN, and return what stands behind the column's name."""
        if column.fixed:
            return f"IN ({', '.join(map(_literal, values))})"
        encoder = self._encoders.get(column.type)
        encoded = list(values) if encoder is None else [encoder(value) for value in values]
        if self._dialect.arrays:
            # asyncpg sends nothing but a list for an array; the others take long over a list. No
            # cast from text: it would be made again for each row that is compared.
            self.parameters.append(encoded if self._style == "$" else array_text(encoded))
            return f"= ANY({{}}::{self._dialect.casts.get(column.type, 'text')}[])"
        if self._dialect.long_list and len(encoded) > _LONG_LIST:
            self.parameters.append(json.dumps(encoded))
            return f"IN {self._dialect.long_list}"
        self.parameters += encoded
        return f"IN ({', '.join(['{}'] * len(encoded))})"

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
        if limit is not None:
            self.parameters.append(check_limit(limit, least=0))
        if offset:
            self.parameters.append(offset)
        locks = ""
        if lock and self._dialect.row_locks:
            how = "FOR SHARE" if share and self._dialect.shares_locks else "FOR UPDATE"
            locks = f" {how} SKIP LOCKED" if skip_locked else f" {how}"
        order = _order_text(self._dialect.quote, table.name, tuple(order_by)) if order_by else ""
        bounds = " LIMIT {}" if limit is not None else ""
        return f"{order}{bounds}{' OFFSET {}' if offset else ''}{locks}"

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
            inner += " LIMIT {}"
            self.parameters.append(limit)
        # As an array PostgreSQL runs the inner query once, before it looks for the rows.
        return f"= ANY(ARRAY({inner}))" if self._dialect.arrays else f"IN ({inner})"


# -- texts, each written once ----------------------------------------------------------------------

# The kinds of values. A word of our own, or another piece of text, is itself.
_PARAMETER, _ABSENT, _NOW, _NOW_PLUS, _PLUS = "{}", "NULL", "now", "now+", "+"
# A list with so much text is written each time: there is another text for each number of values.
_LONG_KIND = 1_000


@lru_cache(4)
def marks_of(style: str) -> Callable[[str], str]:
    """Return the function that puts markers of parameters in the place of a text's braces."""
    return _numbered if style == "$" else methodcaller("replace", "{}", style)


def _numbered(template: str) -> str:
    first, *others = template.split("{}")
    return first + "".join(f"${number}{text}" for number, text in enumerate(others, 1))


@lru_cache(256)
def _expression(dialect: Dialect, type_: Type, kind: str) -> str:
    if kind == _NOW:
        return dialect.now
    if kind == _NOW_PLUS:
        return dialect.now_plus
    if kind in (_PARAMETER, _ABSENT) and type_ in dialect.casts:
        return f"{kind}::{dialect.casts[type_]}"
    return kind


@lru_cache(1024)
def _row_text(dialect: Dialect, table: str, names: tuple[str, ...], kinds: tuple[str, ...]) -> str:
    columns = TABLES[table].by_name
    return ", ".join(
        _expression(dialect, columns[name].type, kind)
        for name, kind in zip(names, kinds, strict=True)
    )


@lru_cache(1024)
def _changes_text(
    dialect: Dialect, table: str, names: tuple[str, ...], kinds: tuple[str, ...]
) -> str:
    columns = TABLES[table].by_name
    changes = []
    for name, kind in zip(names, kinds, strict=True):
        quoted = _quoted(dialect.quote, (name,))
        text = (
            f"{quoted} + {{}}" if kind == _PLUS else _expression(dialect, columns[name].type, kind)
        )
        changes.append(f"{quoted} = {text}")
    return ", ".join(changes)


@lru_cache(1024)
def _conditions_text(
    dialect: Dialect, table: str, kinds: tuple[tuple[str, str, str], ...], before: str
) -> str:
    columns = TABLES[table].by_name
    conditions = []
    for name, operator, kind in kinds:
        quoted = _quoted(dialect.quote, (name,))
        if operator == "in":
            text = kind
        elif kind == _ABSENT:
            text = f"IS {'NOT ' if operator == 'ne' else ''}NULL"
        else:
            text = f"{_OPERATORS[operator]} {_expression(dialect, columns[name].type, kind)}"
        conditions.append(f"{quoted} {text}")
    return before + " AND ".join(conditions)


@lru_cache(256)
def _order_text(quote: str, table: str, order_by: tuple[str, ...]) -> str:
    # With the table's name, or it would be the column as it is selected: as text, which is in no
    # index, and in another order where clocks are changed.
    return " ORDER BY " + ", ".join(
        f"{quote}{table}{quote}.{quote}{name.lstrip('-')}{quote}{' DESC' if name[0] == '-' else ''}"
        for name in order_by
    )


@lru_cache(256)
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
            cast = _POSTGRESQL.casts.get(column.type)
            selected.append(f"given.a{len(arrays)}" + (f"::{cast}" if cast else ""))
    names = ", ".join(f"a{number + 1}" for number in range(len(arrays)))
    # Added here and not above: parameters stand in the order of their marks. By way of text:
    # asyncpg sends nothing but a list for an array.
    statement.parameters += arrays
    given = ", ".join(["{}::text::text[]"] * len(arrays))
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
    if len(rows) == 1:
        yield rows
        return
    long = [name for name in rows[0] if table.by_name[name].type in ("json", "longtext")]
    if len(rows) <= most and _text_in(rows, long) <= _MOST_TEXT:
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
    return _selected(dialect, tuple([(column.name, column.type) for column in columns]))


@lru_cache(256)
def _selected(dialect: Dialect, columns: tuple[tuple[str, str], ...]) -> str:
    # Drivers and frameworks disagree on what these become in Python, and spend more on it than on
    # all else; text is text everywhere.
    texts = ("id", "json", "time") if dialect.arrays else ()
    return ", ".join(
        _quoted(dialect.quote, (name,)) + ("::text" if type_ in texts else "")
        for name, type_ in columns
    )


@lru_cache(256)
def _only(table: str, names: tuple[str, ...]) -> tuple[Column, ...]:
    columns = TABLES[table].by_name
    return tuple([columns[name] for name in names])


def columns_of(table: Table, names: Sequence[str]) -> Sequence[Column]:
    """Return the columns of *table* with those *names*; all, if there are none."""
    return _only(table.name, tuple(names)) if names else table.columns
