"""The text of statements that make and change our tables, written from their data."""

from __future__ import annotations

from automate_kernel.errors import StorageError
from automate_kernel.storage.dialects import Dialect
from automate_kernel.storage.schema import NULL, Column, Index, Table

__all__ = [
    "add_column",
    "condition",
    "create_index",
    "create_table",
    "drop_index",
    "json_as_text",
    "partial",
    "type_of",
]

_EXACT = "CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
_TYPES: dict[str, dict[str, str]] = {
    "postgresql": {
        "id": "UUID", "text": "VARCHAR({})", "longtext": "TEXT", "json": "JSONB",
        "int": "INTEGER", "time": "TIMESTAMP WITH TIME ZONE",
    },
    "sqlite": {
        "id": "CHAR(32)", "text": "VARCHAR({})", "longtext": "TEXT",
        # A column of type JSON would make numbers of its own of what it holds: 1.0 becomes 1.
        "json": "TEXT", "int": "INTEGER", "time": "DATETIME",
    },
    "mysql": {
        "id": "CHAR(32)", "longtext": f"LONGTEXT {_EXACT}", "int": "INTEGER",
        # Their own type refuses what is nested deeper than 32 levels, or changes large numbers.
        "json": f"LONGTEXT {_EXACT}",
        # Elsewhere texts are compared exactly; their default here ignores case and accents.
        "text": f"VARCHAR({{}}) {_EXACT}",
        "time": "DATETIME(6)",
    },
}  # fmt: skip


def type_of(dialect: Dialect, column: Column) -> str:
    """The type of *column* in this database."""
    return _TYPES[dialect.name][column.type].format(column.length)


def create_table(dialect: Dialect, table: Table) -> list[str]:
    """The statements that make *table* with its indexes."""
    key = _name(dialect, table.key)
    lines = [_column(dialect, column) for column in table.columns] + [f"PRIMARY KEY ({key})"]
    body = ",\n  ".join(lines)
    made = [f"CREATE TABLE {_name(dialect, table.name)} (\n  {body}\n)"]
    made += [create_index(dialect, table, index) for index in table.indexes]
    if table.storage and dialect.name == "postgresql":
        settings = ", ".join(f"{name} = {value}" for name, value in table.storage)
        made.append(f"ALTER TABLE {_name(dialect, table.name)} SET ({settings})")
    return made


def add_column(dialect: Dialect, table: Table, column: Column) -> str:
    """
    The statement that adds *column* to a table with rows in it.

    Its default stays, so that a worker of the release before can go on writing rows without it.
    """
    if not column.null and not column.default:
        raise StorageError(
            f"{table.name}.{column.name} can't be added: it must not be null and has no default",
            hint="the column needs a default in automate_kernel/storage/tables.py",
        )
    text = _column(dialect, column)
    if column.default:
        # In parentheses it is an expression, which MySQL wants for JSON, and SQLite refuses.
        given = f"({column.default})" if dialect.name == "mysql" else column.default
        text += f" DEFAULT {given}"
    return f"ALTER TABLE {_name(dialect, table.name)} ADD COLUMN {text}"


def json_as_text(dialect: Dialect, table: Table, column: Column) -> tuple[str, ...]:
    """The statements that make text of a column of the database's own type for JSON."""
    alter, name = f"ALTER TABLE {_name(dialect, table.name)}", _name(dialect, column.name)
    if dialect.name == "mysql":
        return (f"{alter} MODIFY {_column(dialect, column)}",)
    new = _name(dialect, f"{column.name}_text")
    null = "" if column.null else " NOT NULL DEFAULT 'null'"
    return (
        f"{alter} ADD COLUMN {new} {type_of(dialect, column)}{null}",
        f"UPDATE {_name(dialect, table.name)} SET {new} = CAST({name} AS TEXT)",
        f"{alter} DROP COLUMN {name}",
        f"{alter} RENAME COLUMN {new} TO {name}",
    )


def create_index(dialect: Dialect, table: Table, index: Index) -> str:
    """The statement that makes *index*, on some rows only where the database can."""
    names = ", ".join(_name(dialect, name) for name in index.columns)
    unique = "UNIQUE " if index.unique else ""
    where = f" WHERE {condition(dialect, index)}" if index.where and partial(dialect) else ""
    return (
        f"CREATE {unique}INDEX {_name(dialect, index.name)}"
        f" ON {_name(dialect, table.name)} ({names}){where}"
    )


def drop_index(dialect: Dialect, table: str, name: str) -> str:
    """The statement that removes an index."""
    on = f" ON {_name(dialect, table)}" if dialect.name == "mysql" else ""
    return f"DROP INDEX {_name(dialect, name)}{on}"


def condition(dialect: Dialect, index: Index) -> str:
    """Which rows stand in *index*."""
    return " AND ".join(
        f"{_name(dialect, name)} "
        + ("IS NULL" if value == NULL else "IS NOT NULL" if value is None else f"= '{value}'")
        for name, value in index.where
    )


def partial(dialect: Dialect) -> bool:
    """Whether an index can be on some rows only."""
    return dialect.name != "mysql"


def _column(dialect: Dialect, column: Column) -> str:
    null = "" if column.null else " NOT NULL"
    return f"{_name(dialect, column.name)} {type_of(dialect, column)}{null}"


def _name(dialect: Dialect, name: str) -> str:
    return f"{dialect.quote}{name}{dialect.quote}"
