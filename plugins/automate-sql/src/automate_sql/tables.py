"""Tables: their names, columns and keys, and their rows in the order of a key."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from pydantic import BaseModel, Field

from automate_kernel.base.errors import AutomateError, ErrorCodes, did_you_mean

_MOST_NAMES = 1_000


class TableColumn(BaseModel):
    """A column of a table."""

    name: str
    type: str = Field(description="The type, in the database's words.")
    nullable: bool
    default: str | None = None


class ForeignKey(BaseModel):
    """Columns that refer to those of another table."""

    columns: list[str]
    table: str
    references: list[str]


class Description(BaseModel):
    """The columns and keys of a table."""

    table: str
    columns: list[TableColumn]
    primary_key: list[str]
    foreign_keys: list[ForeignKey]


class FoundTable:
    """A table that is in the database, with its columns."""

    def __init__(self, connection: sa.Connection, name: str) -> None:
        self.name, (self._schema, self._table) = name, _split(name)
        self._inspector = sa.inspect(connection)
        try:
            self._columns = self._inspector.get_columns(self._table, self._schema)
        except sa.exc.NoSuchTableError:
            self._columns = []
        if not self._columns:
            raise AutomateError(
                ErrorCodes.NOT_FOUND,
                f"there is no table {name[:200]!r}",
                hint=did_you_mean(name, names(connection)) or "the action `tables` lists them",
            )
        # SQLite keeps what was written, in any form: compared as it is, nothing is out of order.
        raw = connection.dialect.name == "sqlite"
        self._types = {
            each["name"]: sa.types.NULLTYPE if raw else each["type"] for each in self._columns
        }
        self.reflected: dict[str, Any] = {each["name"]: each["type"] for each in self._columns}
        self.clause: sa.TableClause = sa.table(
            self._table, *(sa.column(n, t) for n, t in self._types.items()), schema=self._schema
        )

    def column(self, name: str) -> sa.ColumnClause[Any]:
        """Return the column *name*, or raise ``NOT_FOUND`` with the names of all."""
        if name not in self._types:
            raise AutomateError(
                ErrorCodes.NOT_FOUND,
                f"the table {self.name!r} has no column {name[:200]!r}",
                hint=did_you_mean(name, self._types, also=f"it has: {', '.join(self._types)}"),
            )
        found: sa.ColumnClause[Any] = self.clause.c[name]
        return found

    def select(self, columns: Sequence[str], *needed: str) -> sa.Select[Any]:
        """Return the selection of *columns* and those *needed*; of all without any."""
        wanted = dict.fromkeys([*columns, *needed]) if columns else self._types
        return sa.select(*(self.column(each) for each in wanted))

    def native(self, name: str, value: Any) -> Any:
        """Return the JSON *value* of a column as the driver wants it."""
        try:
            kind = self._types[name].python_type
        except NotImplementedError:
            return value
        try:
            return _converted(value, kind)
        except (ValueError, TypeError, ArithmeticError):
            raise AutomateError(
                ErrorCodes.INVALID_ARGUMENT, f"the value for the column {name!r} can't be read"
            ) from None

    def description(self) -> Description:
        """Return the columns and keys."""
        key = self._inspector.get_pk_constraint(self._table, self._schema)
        foreign = self._inspector.get_foreign_keys(self._table, self._schema)
        return Description(
            table=self.name,
            columns=[
                TableColumn(
                    name=each["name"],
                    type=_type_name(each["type"], self._inspector.dialect),
                    nullable=bool(each["nullable"]),
                    default=None if each.get("default") is None else str(each["default"]),
                )
                for each in self._columns
            ],
            primary_key=list(key.get("constrained_columns") or ()),
            foreign_keys=[
                ForeignKey(
                    columns=list(each["constrained_columns"]),
                    table=".".join(filter(None, (each["referred_schema"], each["referred_table"]))),
                    references=list(each["referred_columns"]),
                )
                for each in foreign
            ],
        )


def names(connection: sa.Connection, schema: str | None = None) -> list[str]:
    """Return the names of the tables and views of a *schema*, by default the usual one."""
    inspector = sa.inspect(connection)
    found = sorted({*inspector.get_table_names(schema), *inspector.get_view_names(schema)})
    return [f"{schema}.{each}" if schema else each for each in found][:_MOST_NAMES]


def _split(name: str) -> tuple[str | None, str]:
    schema, _, table = name.rpartition(".")
    return schema or None, table


def _type_name(type_: Any, dialect: sa.Dialect) -> str:
    try:
        return str(type_.compile(dialect=dialect))
    except sa.exc.SQLAlchemyError:
        return str(type(type_).__name__)


def _converted(value: Any, kind: type) -> Any:
    if isinstance(value, dict) and kind is bytes:
        return base64.b64decode(value["base64"])
    if not isinstance(value, str):
        return value
    if kind in (datetime, date, time):
        return kind.fromisoformat(value)
    if kind in (Decimal, UUID, int):
        return kind(value)
    return value
