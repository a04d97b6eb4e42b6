"""One SQL statement in the making: its text's parts, and the parameters that they bind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from automate_kernel.storage.codec import array_text, encode
from automate_kernel.storage.dialects import Dialect, utc_now
from automate_kernel.storage.rows import Clock, Now, Plus, Where
from automate_kernel.storage.schema import Column, Table, Type

__all__ = ["Statement", "literal", "matches_nothing"]

_OPERATORS = {"eq": "=", "ne": "<>", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_TIME = Column("now", "time")


class Statement:
    """
    The parameters of one statement, collected while its text is written.

    *style* is the driver's way to mark parameters: ``%s``, ``?`` or ``$`` (numbered).
    """

    def __init__(self, dialect: Dialect, style: str, clock: Clock | None) -> None:
        self._dialect = dialect
        self._style = style
        self._clock = clock
        self.parameters: list[Any] = []
        # One statement has one time, whoever's clock it is.
        self._now: datetime | None = None
        self._instants: dict[float, Any] = {}

    def name(self, name: str) -> str:
        """A name of ours, quoted."""
        return f"{self._dialect.quote}{name}{self._dialect.quote}"

    def names(self, names: Sequence[str]) -> str:
        """Names of ours, quoted, with commas between."""
        return ", ".join(map(self.name, names))

    def bind(self, value: Any) -> str:
        """The marker of a new parameter."""
        self.parameters.append(value)
        return f"${len(self.parameters)}" if self._style == "$" else self._style

    def value(self, column: Column, value: Any) -> str:
        """*value* as the column holds it."""
        if isinstance(value, Now):
            return self.now(value.offset)
        return self.cast(column.type, self.bind(encode(self._dialect, column, value)))

    def cast(self, type_: Type, text: str) -> str:
        """An expression as a value of this type."""
        cast = self._dialect.casts.get(type_)
        return f"{text}::{cast}" if cast else text

    def now(self, offset: float) -> str:
        """The database's clock, *offset* seconds from now."""
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
        """The values of a new row, with commas between."""
        servers = self._clock is None and bool(self._dialect.now)
        first, cells = len(self.parameters), []
        for column, value in zip(columns, values, strict=True):
            if type(value) is not Now:
                encoded = encode(self._dialect, column, value)
            elif servers:
                cells.append(self._dialect.now_plus if value.offset else self._dialect.now)
                self.parameters += [value.offset] if value.offset else []
                continue
            else:
                encoded = self._encoded_instant(value.offset)
            # What is no parameter costs neither the driver nor the database anything.
            if encoded is None:
                cells.append(self.cast(column.type, "NULL"))
            elif column.fixed:
                cells.append(literal(encoded))
            else:
                cells.append(self.cast(column.type, "{}"))
                self.parameters.append(encoded)
        # Numbered markers tell where in the statement the row is, the others look alike.
        return _marked(", ".join(cells), self._style, first if self._style == "$" else 0)

    def changes(self, table: Table, changes: Mapping[str, Any]) -> str:
        """What stands after SET."""
        return ", ".join(
            f"{self.name(column)} = {self.name(column)} + {self.bind(value.amount)}"
            if isinstance(value, Plus)
            else f"{self.name(column)} = {self.value(table.column(column), value)}"
            for column, value in changes.items()
        )

    def where(self, table: Table, where: Sequence[Where], before: str = " WHERE ") -> str:
        """The conditions, all of which must hold."""
        if not where:
            return ""
        return before + " AND ".join(self._condition(table, one) for one in where)

    def _condition(self, table: Table, where: Where) -> str:
        name, column = self.name(where.column), table.column(where.column)
        if where.operator == "in":
            return f"{name} {self._in(column, where.value)}"
        if where.value is None:
            return f"{name} IS {'NOT ' if where.operator == 'ne' else ''}NULL"
        value = literal(where.value) if column.fixed else self.value(column, where.value)
        return f"{name} {_OPERATORS[where.operator]} {value}"

    def _in(self, column: Column, values: Sequence[Any]) -> str:
        if column.fixed:
            return "IN (" + ", ".join(map(literal, values)) + ")"
        if self._dialect.arrays:
            encoded = [encode(self._dialect, column, value) for value in values]
            # asyncpg sends nothing but a list for an array; the others take long over a list. No
            # cast from text: it would be made again for each row that is compared.
            array = encoded if self._style == "$" else array_text(encoded)
            return f"= ANY({self.bind(array)}::{self._dialect.casts.get(column.type, 'text')}[])"
        self.parameters += [encode(self._dialect, column, value) for value in values]
        return f"IN ({', '.join([self._style] * len(values))})"

    def tail(
        self,
        table: Table,
        order_by: Sequence[str],
        limit: int | None,
        *,
        lock: bool = False,
        skip_locked: bool = False,
    ) -> str:
        """Order, limit and row locks."""
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
            parts.append(f"LIMIT {self.bind(limit)}")
        if lock and self._dialect.row_locks:
            parts.append("FOR UPDATE SKIP LOCKED" if skip_locked else "FOR UPDATE")
        return "".join(f" {part}" for part in parts)


@lru_cache(1024)
def _marked(template: str, style: str, first: int) -> str:
    """*template* with markers of parameters in place of its braces."""
    count = template.count("{}")
    numbers = range(first + 1, first + count + 1)
    return template.format(*(f"${number}" if style == "$" else style for number in numbers))


def matches_nothing(where: Sequence[Where]) -> bool:
    """Whether an empty IN list makes the statement match no row."""
    return any(one.operator == "in" and not one.value for one in where)


def literal(word: str) -> str:
    """One of our own words as SQL text."""
    if not word.isidentifier() or not word.isascii():
        raise ValueError(f"not one of our words: {word!r}")
    return f"'{word}'"
