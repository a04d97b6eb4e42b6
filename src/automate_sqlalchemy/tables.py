"""Our tables as SQLAlchemy's, for `create_all` and for Alembic's autogenerate."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql

from automate_kernel.storage import TABLES, Column, Index, Table
from automate_kernel.storage.tables import NULL

metadata: sa.MetaData = sa.MetaData()
"""
All our tables. Give them to Alembic beside your own: ``[Base.metadata, metadata]``.

JSON is text in SQLite, MariaDB and MySQL, also in a query through these tables.
"""

# Whatever characters the database has by default: error texts and payloads hold any.
_LONGTEXT = mysql.LONGTEXT(charset="utf8mb4", collation="utf8mb4_bin")
_LONG_TEXT = sa.Text().with_variant(_LONGTEXT, "mysql", "mariadb")
# Text keeps JSON as it is. SQLite's JSON columns would change numbers (1.0 becomes 1). MariaDB's
# refuse what is nested deeper than 32 levels.
_JSON = (
    sa.JSON()
    .with_variant(postgresql.JSONB(), "postgresql")
    .with_variant(sa.Text(), "sqlite")
    .with_variant(_LONGTEXT, "mysql", "mariadb")
)


def _type(column: Column) -> sa.types.TypeEngine[Any]:
    if column.type == "id":
        return sa.CHAR(32).with_variant(postgresql.UUID(as_uuid=False), "postgresql")
    if column.type == "text":
        # Elsewhere texts are compared exactly; their default here ignores case and accents.
        exact = mysql.VARCHAR(column.length, charset="utf8mb4", collation="utf8mb4_bin")
        return sa.String(column.length).with_variant(exact, "mysql", "mariadb")
    if column.type == "json":
        return _JSON
    if column.type == "time":
        return sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
    return sa.Integer() if column.type == "int" else _LONG_TEXT


def _index(index: Index, table: sa.Table) -> sa.Index:
    columns = [table.c[name] for name in index.columns]
    where = [_condition(table.c[name], value) for name, value in index.where]
    condition: Any = sa.and_(*where) if where else None
    partial = {"postgresql_where": condition, "sqlite_where": condition}
    return sa.Index(index.name, *columns, unique=index.unique, **partial)


def _condition(column: sa.Column[Any], value: str | None) -> sa.ColumnElement[bool]:
    if value == NULL:
        return column.is_(None)
    return column.is_not(None) if value is None else column == value


def _has_whole_indexes(*_: Any, dialect: sa.Dialect, **__: Any) -> bool:
    return dialect.name in ("mysql", "mariadb")


def _table(spec: Table) -> sa.Table:
    columns = (
        sa.Column(
            column.name, _type(column), primary_key=column.name == spec.key, nullable=column.null
        )
        for column in spec.columns
    )
    table = sa.Table(spec.name, metadata, *columns)
    for index in spec.indexes:
        _index(index, table)
    if whole := [index for index in spec.indexes if index.whole != index.columns]:
        changes = ", ".join(
            f"DROP INDEX {index.name}, ADD INDEX {index.name} ({', '.join(index.whole)})"
            for index in whole
        )
        # SQLAlchemy has one index of a name, whatever the database can.
        alter = sa.DDL(f"ALTER TABLE %(fullname)s {changes}")  # type: ignore[no-untyped-call]
        sa.event.listen(table, "after_create", alter.execute_if(callable_=_has_whole_indexes))
    if spec.storage:
        settings = ", ".join(f"{name} = {value}" for name, value in spec.storage)
        # Not as an option of the table, which SQLAlchemy knows from 2.1 on.
        alter = sa.DDL(f"ALTER TABLE %(fullname)s SET ({settings})")  # type: ignore[no-untyped-call]
        sa.event.listen(table, "after_create", alter.execute_if(dialect="postgresql"))
    return table


for _spec in TABLES.values():
    _table(_spec)
