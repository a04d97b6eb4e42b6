"""
Pages of a table that may have millions of rows: each page costs the same.

Rows come in the order of an index, each page from the place where the one before ended. Nothing is
skipped over. Conditions that no index serves are looked for along a bounded stretch.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from automate_kernel.base import runtime
from automate_kernel.base.arguments import check_limit
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.storage.query import Operator, Portion, Where
from automate_kernel.storage.rows import Row, Rows
from automate_kernel.storage.tables import TABLES
from automate_kernel.storage.values import read_json, text_problem

LOOK = 20_000
"""The number of rows in one stretch."""
# So many rows are looked at together at first.
_CHOSEN_FROM = 200
_ASCENDING: tuple[Operator, Operator, Operator] = ("gt", "lt", "le")
_DESCENDING: tuple[Operator, Operator, Operator] = ("lt", "gt", "ge")


@dataclass(frozen=True, slots=True)
class IndexRange:
    """
    Rows that stand together in an index: *where* holds for them, *order* is the index's.

    All columns of *order* ascend, or all descend (``-id``). *rest* are conditions that the index
    doesn't serve. A list of several ranges is read in the order of their *key*.
    """

    where: Sequence[Where] = ()
    order: tuple[str, ...] = ("-id",)
    rest: Sequence[Where] = ()
    key: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the order."""
        return tuple(name.lstrip("-") for name in self.order)

    def place(self, row: Row) -> list[Any]:
        """Return the place of *row* in the order."""
        return [row[name] for name in self.columns]


@dataclass(frozen=True, slots=True)
class RowPage:
    """
    A page of rows; *after* leads to the next one, and is empty at the end.

    *looked* is above 0 if there may be more, but only so many rows were looked through.
    """

    rows: list[Row] = field(default_factory=list)
    after: str = ""
    looked: int = 0


def read_page(
    rows: Rows,
    table: str,
    ranges: Sequence[IndexRange],
    *,
    name: str,
    after: str = "",
    limit: int = 50,
    look: int = LOOK,
    seconds: float = 0.0,
    columns: Sequence[str] = (),
) -> RowPage:
    """
    Return up to *limit* rows of *ranges*, beyond the place *after*.

    Where a range has a rest, *look* rows of it are looked through; and again as many as long as
    nothing was found, for as many *seconds*. Raises ``INVALID_ARGUMENT`` if *after* is a place in
    another list than the one called *name*.
    """
    limit = check_limit(limit)
    key, begin = _read_place(table, name, ranges, after) if after else ("", None)
    until, looked = runtime.monotonic() + seconds, 0
    found: list[tuple[IndexRange, Row]] = []
    for one in sorted(ranges, key=lambda each: each.key):
        if one.key < key:
            continue
        place = begin if one.key == key else None
        while True:
            end = _end(rows, table, one, place, look) if one.rest else None
            some = _select(rows, table, one, place, end, limit + 1 - len(found), columns)
            found += [(one, row) for row in some]
            if len(found) > limit:
                last, row = found[limit - 1]
                here = _write_place(name, last, last.place(row))
                return RowPage([row for _, row in found[:limit]], here)
            looked += look
            if end is None:
                break
            if found or runtime.monotonic() >= until:
                here = _write_place(name, one, end)
                return RowPage([row for _, row in found], here, looked)
            place = end
    return RowPage([row for _, row in found])


def read_chosen_page(
    rows: Rows,
    table: str,
    one: IndexRange,
    choose: Callable[[list[Row]], list[Row]],
    *,
    name: str,
    after: str = "",
    limit: int = 50,
    look: int = LOOK,
    seconds: float = 0.0,
    columns: Sequence[str] = (),
) -> RowPage:
    """
    Return up to *limit* rows of *one* that *choose* keeps of each few hundred, as `read_page` does.

    It is for conditions on what stands in other tables, so that a quarter of *look* rows are looked
    through. The number of statements is bounded: more rows are read each time.
    """
    limit, look = check_limit(limit), look // 4
    place = _read_place(table, name, [one], after)[1] if after else None
    until, looked, size = runtime.monotonic() + seconds, 0, max(_CHOSEN_FROM, limit + 1)
    found: list[Row] = []
    while True:
        some = _select(rows, table, one, place, None, size, columns)
        found += choose(some)
        if len(found) > limit:
            return RowPage(found[:limit], _write_place(name, one, one.place(found[limit - 1])))
        if len(some) < size:
            return RowPage(found)
        looked += len(some)
        place, size = one.place(some[-1]), min(size * 8, max(size, look - looked))
        if looked >= look and (found or runtime.monotonic() >= until):
            return RowPage(found, _write_place(name, one, place), looked)


def read_merged_page(
    rows: Rows,
    table: str,
    among: Sequence[Sequence[Where]],
    *,
    order: tuple[str, ...],
    name: str,
    columns: Sequence[str],
    after: str = "",
    limit: int = 50,
) -> RowPage:
    """
    Return up to *limit* rows that match one of *among*, in *order*, as `read_page` does.

    An index has the rows of each of *among* in this order. Rows with the same place count as one.
    """
    limit, one = check_limit(limit), IndexRange(order=order)
    place = _read_place(table, name, [one], after)[1] if after else None
    parts = [
        Portion([*where, *beyond], limit + 1)
        for beyond in between(order, place, None)
        for where in among
    ]
    some = rows.select_parts(table, parts, order_by=order, columns=columns)
    each = {tuple(one.place(row)): row for part in some for row in part}
    found = [each[place] for place in sorted(each, reverse=order[0].startswith("-"))]
    if len(found) <= limit:
        return RowPage(found)
    return RowPage(found[:limit], _write_place(name, one, one.place(found[limit - 1])))


def range_key(after: str) -> str:
    """Return the `IndexRange.key` of the place *after*; empty if it is no place."""
    try:
        return str(_parsed(after)[1])
    except (ValueError, TypeError):
        return ""


def between(
    order: Sequence[str], start: Sequence[Any] | None, end: Sequence[Any] | None
) -> Iterator[list[Where]]:
    """
    Give conditions for what comes after *start* and no later than *end* in *order*.

    One list after the other gives the rows in order. An index serves each list, where it may not
    serve a single condition with ORs.
    """
    name, rest = order[0].lstrip("-"), order[1:]
    beyond, short_of, up_to = _DESCENDING if order[0].startswith("-") else _ASCENDING

    def beside(
        place: Any, start: Sequence[Any] | None, end: Sequence[Any] | None
    ) -> Iterator[list[Where]]:
        for more in between(rest, start, end):
            yield [Where(name, "eq", place), *more]

    if rest and start is not None and end is not None and start[0] == end[0]:
        yield from beside(start[0], start[1:], end[1:])
        return
    if rest and start is not None:
        yield from beside(start[0], start[1:], None)
    yield [
        *([] if start is None else [Where(name, beyond, start[0])]),
        *([] if end is None else [Where(name, short_of if rest else up_to, end[0])]),
    ]
    if rest and end is not None:
        yield from beside(end[0], None, end[1:])


def _end(
    rows: Rows, table: str, one: IndexRange, place: Sequence[Any] | None, look: int
) -> list[Any] | None:
    """Return the place of the last of the next *look* rows; None if there are fewer."""
    left = look
    *first, rest = between(one.order, place, None)
    # Rows beside *place*, few as a rule. To count them would not be bounded by *look*.
    for where in first:
        found = rows.select(
            table, [*one.where, *where], order_by=one.order, limit=left, columns=one.columns
        )
        if len(found) == left:
            return one.place(found[-1])
        left -= len(found)
    found = rows.select(
        table, [*one.where, *rest], order_by=one.order, limit=1, offset=left - 1,
        columns=one.columns,
    )  # fmt: skip
    return one.place(found[0]) if found else None


def _select(
    rows: Rows,
    table: str,
    one: IndexRange,
    start: Sequence[Any] | None,
    end: Sequence[Any] | None,
    limit: int,
    columns: Sequence[str],
) -> list[Row]:
    found: list[Row] = []
    for where in between(one.order, start, end):
        if len(found) < limit:
            found += rows.select(
                table, [*one.where, *where, *one.rest], order_by=one.order,
                limit=limit - len(found), columns=columns,
            )  # fmt: skip
    return found


def _write_place(name: str, one: IndexRange, place: Sequence[Any]) -> str:
    values = [each.isoformat() if isinstance(each, datetime) else each for each in place]
    text = json.dumps([name, one.key, values], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _read_place(
    table: str, name: str, ranges: Sequence[IndexRange], after: str
) -> tuple[str, list[Any] | None]:
    try:
        given, key, place = _parsed(after)
        if given != name or not isinstance(key, str):
            raise ValueError(given)
        for one in ranges:
            if one.key == key:
                return key, [_value(table, *pair) for pair in zip(one.columns, place, strict=True)]
    except (ValueError, TypeError):
        raise AutomateError(
            ErrorCodes.INVALID_ARGUMENT, "there is no such page of this list",
            hint="begin with its first page",
        ) from None  # fmt: skip
    return key, None  # nothing is left of that range: the next one follows


def _parsed(after: str) -> tuple[Any, Any, Any]:
    padded = after + "=" * (-len(after) % 4)
    name, key, place = read_json(base64.urlsafe_b64decode(padded.encode("ascii")).decode())
    return name, key, place


def _value(table: str, name: str, given: Any) -> Any:
    type_ = TABLES[table].by_name[name].type
    if not isinstance(given, str) or text_problem(given):
        raise ValueError(name)
    if type_ == "id":
        return str(UUID(given))
    if type_ == "time":
        moment = datetime.fromisoformat(given)
        if moment.tzinfo is None:
            raise ValueError(name)
        return moment
    return given
