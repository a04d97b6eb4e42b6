"""What a table is made of, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

__all__ = ["NULL", "Column", "Index", "Table", "Type"]

Type = Literal["id", "text", "longtext", "json", "int", "time"]

NULL = "null"
"""In the condition of an index: where the column is null."""


@dataclass(frozen=True, slots=True)
class Column:
    """
    A column: ``id`` is a UUID, ``text`` has a *length*, ``longtext`` none, ``time`` is in UTC.

    The values of a *fixed* column are a few words of ours. They are written into the text of a
    statement, because no database can match a bound parameter with a partial index's condition
    when it makes a plan to keep.

    *default* is what rows hold that are older than the column, as text of SQL: ``0``, ``'[]'``.
    Every column that is added to a table and isn't *null* needs one, and workers of the release
    before go on writing rows without it.
    """

    name: str
    type: Type
    length: int = 0
    null: bool = False
    fixed: bool = False
    default: str = ""


@dataclass(frozen=True, slots=True)
class Index:
    """
    An index, on some rows only where the database can.

    *where* holds columns and their values, all of which must match; a value of None means: where
    the column is not null, and `NULL`: where it is. A database without partial indexes has the
    whole one.
    """

    name: str
    columns: tuple[str, ...]
    where: tuple[tuple[str, str | None], ...] = ()
    unique: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table: its first column is the primary key, and *storage* are PostgreSQL's parameters."""

    name: str
    columns: tuple[Column, ...]
    indexes: tuple[Index, ...] = field(default=())
    storage: tuple[tuple[str, float], ...] = ()

    @property
    def key(self) -> str:
        """The primary key's column."""
        return self.columns[0].name

    @property
    def unique(self) -> tuple[tuple[str, ...], ...]:
        """What must be unique beside the primary key."""
        return tuple(index.columns for index in self.indexes if index.unique)

    def column(self, name: str) -> Column:
        """The column called *name*; raises KeyError."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(f"{self.name} has no column {name!r}")
