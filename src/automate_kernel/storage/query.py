"""The terms of a query: conditions, changes, and the database's clock."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from automate_kernel.base.errors import AutomateError, ErrorCodes, type_name
from automate_kernel.storage.tables import Column, Table
from automate_kernel.storage.values import text_problem

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
class PerKey:
    """A change that gives each row the value under its key; *values* has all rows that match."""

    values: Mapping[str, Any]


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


_COMPARED: dict[str, tuple[type, ...]] = {
    "text": (str,), "longtext": (str,), "time": (datetime, Now), "int": (int, Now),
}  # fmt: skip
_WORDS: dict[type, str] = {str: "a text", datetime: "a datetime", int: "a whole number"}
_ID = re.compile("[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}", re.ASCII | re.IGNORECASE)


def _wrong_type(column: Column, value: Any) -> AutomateError:
    word = _WORDS[_COMPARED[column.type][0]]
    return AutomateError(
        ErrorCodes.INVALID_ARGUMENT, f"{column.name} is {word}, and can't be {type_name(value)}"
    )


def matches_nothing(table: Table, where: Sequence[Where]) -> bool:
    """
    Return True if no row can match: of an empty IN list, or of a value that can't be stored.

    Else "zz" in place of an id would be an error on PostgreSQL, and none elsewhere. Raises
    ``INVALID_ARGUMENT`` for a value of another type than the column's: SQLite would compare 5 with
    text, or find nothing, and PostgreSQL would seem to be away.
    """
    for one in where:
        values = one.value if one.operator == "in" else (one.value,)
        if not values:
            return True
        column = table.by_name[one.column]
        wanted = _COMPARED.get(column.type)
        if wanted is not None:
            for each in values:
                if not isinstance(each, wanted) and (each is not None or one.operator == "in"):
                    raise _wrong_type(column, each)
        # Of several the caller has read the ids, as a rule; to look at each would cost.
        if len(values) != 1 or one.operator not in ("eq", "in"):
            continue
        (value,) = values
        if column.type == "id" and value is not None:
            if _ID.fullmatch(str(value)) is None:
                return True
        elif isinstance(value, str) and text_problem(value):
            return True
    return False
