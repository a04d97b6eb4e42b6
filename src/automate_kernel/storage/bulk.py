"""New rows in one statement; on PostgreSQL as it takes them quickest: from arrays, or by COPY."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import repeat
from typing import Any

from automate_kernel.storage.codec import array_text, copy_text, encode
from automate_kernel.storage.dialects import DIALECTS
from automate_kernel.storage.rows import Now
from automate_kernel.storage.statement import Statement, literal
from automate_kernel.storage.tables import Column, Table

__all__ = ["copied_lines", "copy_statement", "copy_through", "insert_source"]

_POSTGRESQL = DIALECTS["postgresql"]
# Lines sent at once: the server works on some while the next are written.
_BLOCK = 250


def insert_source(
    statement: Statement,
    columns: Sequence[Column],
    rows: Sequence[Mapping[str, Any]],
    notify: str = "",
    *,
    arrays: bool = False,
) -> str:
    """
    What stands in an INSERT after the names of *columns*; on PostgreSQL it may *notify* as well.

    In the statement itself a notice costs no round trip, and no result has to be read for it.
    """
    notice = f" pg_notify({literal(notify)}, '') AS notice" if notify else ""
    source = _from_arrays(statement, columns, rows) if arrays else None
    if source is not None:
        return f"{source},{notice}" if notice else source
    cells = [statement.row(columns, [row[column.name] for column in columns]) for row in rows]
    if notice and len(cells) == 1:
        # Planned in less time than one row of VALUES.
        return f"SELECT {cells[0]} FROM{notice}"
    values = f"VALUES ({'), ('.join(cells)})"
    return f"SELECT given.* FROM ({values}) AS given,{notice}" if notice else values


def _from_arrays(
    statement: Statement, columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]
) -> str | None:
    """
    ``SELECT … FROM unnest(…)`` for *rows*, where a column that is the same in all is sent once.

    None if a column mixes instants with the database's clock.
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


def copy_statement(statement: Statement, table: Table, columns: Sequence[Column]) -> str:
    """The COPY that takes `copied_lines`."""
    names = statement.names([column.name for column in columns])
    return f"COPY {statement.name(table.name)} ({names}) FROM STDIN"


def copied_lines(
    columns: Sequence[Column], rows: Sequence[Mapping[str, Any]], clock: Callable[[], datetime]
) -> Iterator[str]:
    """*rows* as COPY's text; *clock* is the database's, asked once."""
    times = [column.name for column in columns if column.type == "time"]
    asks = any(type(row[name]) is Now for name in times for row in rows)
    # At once, and not from inside the generator: while COPY runs the connection answers nothing.
    return _lines(columns, rows, clock() if asks else None)


def _lines(
    columns: Sequence[Column], rows: Sequence[Mapping[str, Any]], now: datetime | None
) -> Iterator[str]:
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        cells = [_cells(column, [row[column.name] for row in block], now) for column in columns]
        yield "\n".join(map("\t".join, zip(*cells, strict=True))) + "\n"


def copy_through(connection: Any, sql: str, lines: Iterable[str]) -> int | None:
    """Run COPY on psycopg 3's own connection: how many rows. None with any other driver."""
    cursor: Any = connection.cursor() if hasattr(connection, "__enter__") else None
    if not hasattr(cursor, "copy"):
        return None
    with cursor:
        with cursor.copy(sql) as copy:
            for line in lines:
                copy.write(line)
        return int(cursor.rowcount)


def _cells(column: Column, values: list[Any], now: datetime | None) -> Iterable[str]:
    if _alike(values):
        return repeat(_cell(column, values[0], now), len(values))
    return [_cell(column, value, now) for value in values]


def _cell(column: Column, value: Any, now: datetime | None) -> str:
    if type(value) is Now and now is not None:
        value = now + timedelta(seconds=value.offset)
    return copy_text(encode(_POSTGRESQL, column, value))


def _alike(values: list[Any]) -> bool:
    return values.count(values[0]) == len(values)
