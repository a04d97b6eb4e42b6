"""
The outbox in slices that an index serves, so that a page of a million rows opens at once.

A slice is what an operator looks at: the failed items, those that are due. Its rows come in the
order of an index, a page at a time, each page from where the one before ended. Nothing is counted
and nothing is skipped over. A filter that no index serves looks through a bounded stretch of the
slice and says how far it looked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.core import signing
from django.db.models import (
    BooleanField,
    CharField,
    DateTimeField,
    Expression,
    F,
    Field,
    Q,
    QuerySet,
    UUIDField,
    Value,
)

__all__ = ["PATIENCE", "SLICES", "Page", "Part", "Slice", "Word", "read_page"]

LOOKED = 20_000
"""Through how many rows one request looks for those that a filter wants."""
LOOKED_FOR_ONE = 100_000
"""The same for a tenant, who has no other way to its rows."""

PATIENCE = 1.5
"""For how many seconds a page looks on while it has found nothing."""

_SALT = "automate_django.pages.cursor"


class Word(Expression):
    """
    One of our own words, written into the statement's text.

    A partial index can't be matched with a parameter, whose value a plan doesn't know.
    """

    def __init__(self, text: str) -> None:
        if not text.isidentifier():
            raise ValueError(f"{text!r} is no word of ours")
        super().__init__(output_field=CharField())
        self.text = text

    def as_sql(self, compiler: Any, connection: Any) -> Any:
        """The word in quotes, and no parameters."""
        return f"'{self.text}'", ()


class Beyond(Expression):
    """
    Whether a row comes after a place in an order of several columns: ``(kind, id) > ('k', 7)``.

    As one comparison of rows, which an index begins to read at; a chain of ANDs and ORs would have
    it read everything before that, too.
    """

    conditional = True

    def __init__(self, columns: Sequence[str], values: Sequence[Any], operator: str) -> None:
        super().__init__(output_field=BooleanField())
        self.columns, self.values, self.operator = tuple(columns), tuple(values), operator
        self.sources: list[Any] = [
            *(F(name) for name in columns),
            *(Value(value, _field(name)) for name, value in zip(columns, values, strict=True)),
        ]

    def get_source_expressions(self) -> list[Any]:
        """The columns, and then the values."""
        return self.sources

    def set_source_expressions(self, exprs: Sequence[Any]) -> None:
        """Take the resolved columns and values."""
        self.sources = list(exprs)

    def as_sql(self, compiler: Any, connection: Any) -> Any:
        """The comparison of the two rows."""
        compiled = [compiler.compile(one) for one in self.sources]
        half = len(self.columns)
        texts = [text for text, _ in compiled]
        left, right = ", ".join(texts[:half]), ", ".join(texts[half:])
        parameters = [each for _, given in compiled for each in given]
        return f"({left}) {self.operator} ({right})", parameters


@dataclass(frozen=True, slots=True)
class Part:
    """
    The rows that one index holds, and its *order*: columns that all ascend or all descend.

    *tenants* says that all of its rows have a tenant, or that none has.
    """

    condition: Q
    order: tuple[str, ...] = ("-id",)
    tenants: bool | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the order."""
        return tuple(name.lstrip("-") for name in self.order)

    def place(self, row: Any) -> list[Any]:
        """Where *row* stands in the order, as JSON."""
        return [_written(getattr(row, name)) for name in self.columns]

    def beyond(self, place: Sequence[Any]) -> Beyond:
        """The rows that come after *place*."""
        operator = "<" if self.order[0].startswith("-") else ">"
        return Beyond(self.columns, self._values(place), operator)

    def up_to(self, place: Sequence[Any]) -> Beyond:
        """The rows that come no later than *place*."""
        operator = ">=" if self.order[0].startswith("-") else "<="
        return Beyond(self.columns, self._values(place), operator)

    def _values(self, place: Sequence[Any]) -> list[Any]:
        return [_read_value(name, text) for name, text in zip(self.columns, place, strict=True)]


@dataclass(frozen=True, slots=True)
class Slice:
    """
    One way to look at the outbox.

    It is made of *parts*, one after the other. *indexed* says whether their rows alone stand in an
    index in their order. *actions* are what can be done with them.
    """

    name: str
    label: str
    parts: tuple[Part, ...]
    indexed: bool = True
    actions: tuple[str, ...] = ()
    hint: str = ""

    @property
    def condition(self) -> Q:
        """What holds for the rows of the slice."""
        condition = Q()
        for part in self.parts:
            condition |= part.condition
        return condition


_READY = Q(waiting_for=Word("worker"))

SLICES: dict[str, Slice] = {
    one.name: one
    for one in (
        Slice(
            "failed",
            "Failed",
            (Part(Q(status=Word("FAILED"))),),
            actions=("retry", "discard"),
            hint="Given up: all attempts are spent, or the error can't go away by itself.",
        ),
        Slice(
            "due",
            "Due",
            (
                Part(_READY & Q(tenant_id__isnull=True), ("kind", "sort_at", "id"), False),
                Part(
                    _READY & Q(tenant_id__isnull=False),
                    ("kind", "tenant_id", "sort_at", "id"),
                    tenants=True,
                ),
            ),
            actions=("cancel", "reschedule"),
            hint="Ready for a worker. Each kind in the order in which they will be taken.",
        ),
        Slice(
            "later",
            "Later",
            (Part(Q(waiting_for=Word("time")), ("next_attempt_at", "id")),),
            actions=("cancel", "reschedule"),
            hint="Not due yet: delayed, or waiting for their next attempt.",
        ),
        Slice(
            "running",
            "Running",
            (Part(Q(lease_expires_at__isnull=False), ("lease_expires_at", "id")),),
            actions=("cancel",),
            hint="Leased to a worker now.",
        ),
        Slice(
            "held",
            "Held back",
            (Part(Q(waiting_for__in=(Word("key"), Word("resume")))),),
            indexed=False,
            actions=("cancel", "reschedule"),
            hint="Their kind is paused, or another item with their key is before them.",
        ),
        Slice(
            "done",
            "Completed",
            (Part(Q(status=Word("COMPLETED"))),),
            indexed=False,
            actions=("discard",),
        ),
        Slice(
            "cancelled",
            "Cancelled",
            (Part(Q(status=Word("CANCELLED"))),),
            indexed=False,
            actions=("retry", "discard"),
        ),
        Slice("all", "All", (Part(Q()),), hint="The newest first, whatever their status."),
    )
}


@dataclass(frozen=True, slots=True)
class Page:
    """
    A page of a slice.

    *following* leads to the next page. *looked* says how many rows were looked through if that is
    why there are not more; the next page looks on.
    """

    rows: list[Any] = field(default_factory=list)
    following: str = ""
    looked: int = 0


def read_page(
    queryset: QuerySet[Any],
    of: Slice,
    filters: Q | None,
    *,
    among: QuerySet[Any] | None = None,
    after: str = "",
    size: int = 50,
    looked: int | None = None,
    patience: float = 0.0,
    clock: Callable[[], float] = time.monotonic,
) -> Page:
    """
    A page of *of* with the rows that *filters* wants (None: all of them), after a cursor.

    If *queryset* has the rows of one tenant, *among* has everybody's: it is these that are passed
    over on the way, where no index leads to a tenant's. A cursor then tells an id of another's.

    It looks through *looked* rows, and on through as many as often as nothing was found, for as
    many seconds as *patience* has: an empty page says little of a table of millions.

    Raises `ValueError` for a cursor that this project never made.
    """
    first, place = _read(after, of) if after else (0, None)
    rows: list[tuple[int, Any]] = []
    if looked is None:
        looked = LOOKED if among is None else LOOKED_FOR_ONE
    bound = looked if filters is not None or among is not None or not of.indexed else 0
    until, total, number = clock() + patience, 0, first
    while number < len(of.parts):
        part = of.parts[number]
        if among is not None and part.tenants is False:
            number += 1
            continue
        passed = queryset if among is None or part.tenants else among
        wanted, end = _stretch(queryset, passed, part, of.indexed, place, bound)
        if filters is not None:
            wanted = wanted.filter(filters)
        rows += [(number, row) for row in wanted[: size + 1 - len(rows)]]
        if len(rows) > size:
            last, row = rows[size - 1]
            return Page([row for _, row in rows[:size]], _write(of, last, row))
        total += bound
        if end is None:
            number, place = number + 1, None
        elif rows or clock() >= until:
            return Page([row for _, row in rows], _write(of, number, end), total)
        else:
            place = part.place(end)
    return Page([row for _, row in rows])


def _stretch(
    queryset: QuerySet[Any],
    among: QuerySet[Any],
    part: Part,
    indexed: bool,
    place: Sequence[Any] | None,
    bound: int,
) -> tuple[QuerySet[Any], Any]:
    """
    The rows of *part* from *place* on, and the last one that is passed over if there are more.

    Up to *bound* of *among* are, in the order of an index: the part's own, if it has one.
    """
    wanted = _from(queryset, part, place).filter(part.condition)
    if not bound:
        return wanted, None
    passed = _from(among, part, place)
    passed = (passed.filter(part.condition) if indexed else passed).only(*part.columns)
    end = next(iter(passed[bound - 1 : bound]), None)
    return (wanted if end is None else wanted.filter(part.up_to(part.place(end)))), end


def _from(queryset: QuerySet[Any], part: Part, place: Sequence[Any] | None) -> QuerySet[Any]:
    ordered: QuerySet[Any] = queryset.order_by(*part.order)
    return ordered if place is None else ordered.filter(part.beyond(place))


def _field(name: str) -> Field[Any, Any]:
    if name == "id":
        return UUIDField()
    return DateTimeField() if name.endswith("_at") else CharField()


def _written(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value)


def _read_value(name: str, text: Any) -> Any:
    if name == "id":
        return UUID(text)
    return datetime.fromisoformat(text) if name.endswith("_at") else str(text)


def _write(of: Slice, number: int, row: Any) -> str:
    return signing.dumps([of.name, number, of.parts[number].place(row)], salt=_SALT)


def _read(cursor: str, of: Slice) -> tuple[int, list[Any]]:
    try:
        name, number, place = signing.loads(cursor, salt=_SALT)
    except signing.BadSignature:
        raise ValueError("there is no such page") from None
    if name != of.name:
        raise ValueError("this page belongs to another list")
    return number, place
