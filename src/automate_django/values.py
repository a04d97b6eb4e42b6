"""JSON as the kernel writes it, for a model's own field."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from automate_kernel.storage.codec import json_text


class ExactJSONEncoder(json.JSONEncoder):
    """The ``encoder`` of a ``JSONField`` whose numbers keep their types in every database."""

    def encode(self, o: Any) -> str:
        """Return *o* as JSON."""
        return str(json_text(o))


def keep_text(schema_editor: Any, columns: Mapping[str, Iterable[tuple[str, bool]]]) -> None:
    """
    Let MariaDB and MySQL keep JSON as the text that it is, for migrations.

    *columns* has the names of each table's columns, with True for those that may be null. Their
    contents stay. MariaDB's check of them goes, which refuses more than 32 levels of nesting.
    """
    if schema_editor.connection.vendor != "mysql":
        return
    for table, these in columns.items():
        changes = ", ".join(
            f"MODIFY `{name}` longtext CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
            f" {'NULL' if null else 'NOT NULL'}"
            for name, null in these
        )
        schema_editor.execute(f"ALTER TABLE `{table}` {changes}")


def compare_exactly(
    schema_editor: Any, tables: Iterable[str], columns: Iterable[tuple[str, str, int]] = ()
) -> None:
    """
    Let MySQL and MariaDB distinguish ``a`` from ``A``, for migrations.

    It holds for all of *tables*, and for *columns* of other tables (table, name, length), which may
    be null.
    """
    if schema_editor.connection.vendor != "mysql":
        return
    exact = "CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
    for table in tables:
        schema_editor.execute(f"ALTER TABLE `{table}` CONVERT TO {exact}")
    for table, name, length in columns:
        change = f"MODIFY `{name}` varchar({length}) {exact} NULL"
        schema_editor.execute(f"ALTER TABLE `{table}` {change}")
