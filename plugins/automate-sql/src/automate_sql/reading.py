"""Reading: rows of a statement a batch at a time, within bounds of their number and their bytes."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_sql.database import DatabaseSession
from automate_sql.values import jsonable

BATCH = 500
# So many rows may be in memory before anything is known of their width.
_FIRST = 10
_BATCH_SIZE = 2_000_000

Row = dict[str, Any]


@dataclass(slots=True)
class FittingRows:
    """The rows that a call returns, as JSON. With *more* there are others."""

    rows: list[Row] = field(default_factory=list)
    more: bool = False


class OpenResult:
    """An open result, whose rows come in batches."""

    def __init__(self, result: sa.CursorResult[Any]) -> None:
        self._result = result
        self.columns: list[str] = list(result.keys())
        if len(set(self.columns)) < len(self.columns):
            twice = sorted({each for each in self.columns if self.columns.count(each) > 1})
            raise AutomateError(
                ErrorCodes.INVALID_ARGUMENT,
                f"two columns have one name: {', '.join(twice)[:200]}",
                hint="name them apart with AS",
            )
        self.drains: bool = _drains(result)

    def fetch(self, size: int) -> list[Row]:
        """Return the next rows, at most *size*; none at the end."""
        return [self._row(each) for each in self._result.fetchmany(size)]

    def _row(self, values: sa.Row[Any]) -> Row:
        pairs = zip(self.columns, values, strict=True)
        return {name: jsonable(value) for name, value in pairs}


def _drains(result: sa.CursorResult[Any]) -> bool:
    """Return True if all that is still to come is read before *result* closes."""
    return result.dialect.name in ("mysql", "mariadb")


def opened(connection: sa.Connection, clause: sa.Executable, *, streams: bool) -> OpenResult | None:
    """Execute *clause*; return its rows, which stay at the server if it *streams*, or None."""
    # For this statement alone, not for the connection.
    options = {"stream_results": True, "max_row_buffer": BATCH} if streams else {}
    result = connection.execute(clause, execution_options=options)
    try:
        return OpenResult(result) if result.returns_rows else None
    except AutomateError:
        if _drains(result):
            connection.invalidate()
        raise


async def batches(
    session: DatabaseSession, clause: sa.Executable, *, streams: bool
) -> AsyncGenerator[list[Row], None]:
    """Yield the rows of *clause*, a batch at a time."""
    cursor = await session.run(lambda connection: opened(connection, clause, streams=streams))
    if cursor is None:
        raise AutomateError(ErrorCodes.INVALID_ARGUMENT, "the statement returns no rows")
    finished, size = False, _FIRST
    try:
        while len(rows := await session.run(lambda _, most=size: cursor.fetch(most))) == size:
            yield rows
            size = _following(rows)
        if rows:
            yield rows
        finished = True
    finally:
        if not finished and cursor.drains:
            await session.drop()


def _following(rows: list[Row]) -> int:
    """Return how many rows as wide as the widest of *rows* are a batch."""
    widest = max(sum(_width(value) for value in row.values()) for row in rows)
    return max(1, min(BATCH, 10 * len(rows), _BATCH_SIZE // (widest + 1)))


def _width(value: Any) -> int:
    return len(value if isinstance(value, str) else str(value))


def bounded(
    rows: Iterator[Row], taken: FittingRows, *, most_rows: int, most_bytes: int, used: int
) -> int:
    """Put *rows* into *taken* as long as they fit; return the bytes that are used."""
    for row in rows:
        size = len(json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass")) + 1
        if len(taken.rows) >= most_rows or (used + size > most_bytes and taken.rows):
            taken.more = True
            return used
        if size > most_bytes:
            raise AutomateError(
                ErrorCodes.RESOURCE_EXHAUSTED,
                f"one row has more than max_bytes of {most_bytes:,} bytes",
                retryable=False,
                hint="select fewer columns, or raise max_bytes",
            )
        taken.rows.append(row)
        used += size
    return used


async def read(
    session: DatabaseSession,
    clause: sa.Executable,
    *,
    streams: bool,
    most_rows: int,
    most_bytes: int,
) -> FittingRows:
    """Return the rows of *clause* that fit the bounds. The others are not fetched."""
    taken, used = FittingRows(), 0
    found = batches(session, clause, streams=streams)
    try:
        async for rows in found:
            used = bounded(iter(rows), taken, most_rows=most_rows, most_bytes=most_bytes, used=used)
            if taken.more:
                break
    finally:
        await found.aclose()
    return taken


def too_many(most_rows: int, most_bytes: int) -> AutomateError:
    """Return the error for rows that don't fit a call which wanted all of them."""
    return AutomateError(
        ErrorCodes.RESOURCE_EXHAUSTED,
        f"there are more than {most_rows:,} rows, or {most_bytes:,} bytes of them",
        retryable=False,
        hint="give max_rows and go on from the last row, or use export",
    )
