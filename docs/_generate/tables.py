"""The page of the tables, and the one of the template filters."""

from __future__ import annotations

import re
from collections.abc import Iterator

from _generate.django_facts import facts
from _generate.markdown import NOTE, prose
from _generate.table_notes import (
    COLUMN_NOTES,
    DJANGO_TABLES_INTRODUCTION,
    TABLE_NOTES,
    TABLES_INTRODUCTION,
)

__all__ = ["filters", "tables"]


def tables() -> str:
    """The page of our tables, with every column and index."""
    from automate_kernel.storage.tables import NULL, TABLES

    parts = [NOTE, "# Tables", TABLES_INTRODUCTION]
    for table in TABLES.values():
        parts += [f"## `{table.name}`", TABLE_NOTES[table.name]]
        rows = ["| column | type | null | meaning |", "| --- | --- | --- | --- |"]
        for column in table.columns:
            kind = f"text({column.length})" if column.type == "text" else column.type
            note = COLUMN_NOTES.get((table.name, column.name)) or COLUMN_NOTES.get(
                ("*", column.name), ""
            )
            key = " (primary key)" if column.name == table.key else ""
            rows.append(
                f"| `{column.name}` | {kind} | {'yes' if column.null else 'no'} | {note}{key} |"
            )
        parts.append("\n".join(rows))
        for index in table.indexes:
            condition = " and ".join(
                f"`{name}` is {'not null' if value is None else 'null'}"
                if value in (None, NULL)
                else f"`{name}` = `{value}`"
                for name, value in index.where
            )
            unique = "Unique index" if index.unique else "Index"
            where = f", where {condition}" if condition else ""
            columns = ", ".join(f"`{name}`" for name in index.columns)
            parts.append(f"- {unique} `{index.name}` on {columns}{where}.")
    parts += ["## Of Django alone", DJANGO_TABLES_INTRODUCTION, *_of_django(set(TABLES))]
    text = "\n\n".join(parts)
    return re.sub(r"(\n- [^\n]*)\n\n(?=- )", r"\1\n", text) + "\n"


def _of_django(shared: set[str]) -> Iterator[str]:
    for model in facts()["models"]:
        table = model["table"]
        if table in shared:
            continue
        yield f"### `{table}`"
        yield f"{prose(model['doc']).split(chr(10) * 2)[0]} Model: `{model['model']}`."
        rows = ["| column | type | null | meaning |", "| --- | --- | --- | --- |"]
        for column in model["columns"]:
            kind = _TYPES.get(column["type"], column["type"])
            kind += f"({column['length']})" if column["length"] and kind == "text" else ""
            note = COLUMN_NOTES.get((table, column["name"])) or COLUMN_NOTES.get(
                ("*", column["name"]), ""
            )
            note = note.removesuffix(", on the database's clock")  # it is Django's here
            note += " (primary key)" if column["key"] else ""
            note += f" (of `{column['to']}`)" if column["to"] else ""
            null = "yes" if column["null"] else "no"
            rows.append(f"| `{column['name']}` | {kind} | {null} | {note.strip()} |")
        yield "\n".join(rows)
        for name, columns, unique in model["indexes"]:
            what = "Unique index" if unique else "Index"
            called = f" `{name}`" if name else ""
            yield f"- {what}{called} on {', '.join(f'`{each}`' for each in columns)}."


_TYPES = {
    "BigAutoField": "counter", "BinaryField": "bytes", "BooleanField": "yes or no",
    "CharField": "text", "DateTimeField": "time", "ForeignKey": "key", "IntegerField": "int",
    "JSONField": "json", "PositiveSmallIntegerField": "int", "TextField": "long text",
    "UUIDField": "id",
}  # fmt: skip


def filters() -> str:
    """The page of the template filters."""
    from automate_kernel.templates.filters import BUILTIN_FILTERS, JINJA_FILTERS, JINJA_TESTS

    parts = [NOTE, "# Template filters and tests"]
    parts.append(
        "Ours, with what they do. `$secret:` references can't be filtered. How to add one is in"
        " [templates](templates.md#filters-of-your-own)."
    )
    rows = ["| filter | gives |", "| --- | --- |"]
    for name, function in sorted(BUILTIN_FILTERS.items()):
        summary = prose(function.__doc__).replace("\n", " ").replace("|", "\\|")
        rows.append(f"| `{name}` | {summary} |")
    parts.append("\n".join(rows))
    parts.append(
        "Jinja's own, as [its documentation](https://jinja.palletsprojects.com/en/stable/templates/"
        "#list-of-builtin-filters) has them: "
        + ", ".join(f"`{n}`" for n in sorted(JINJA_FILTERS))
        + "."
    )
    parts.append("Tests (`is …`): " + ", ".join(f"`{n}`" for n in sorted(JINJA_TESTS)) + ".")
    return "\n\n".join(parts) + "\n"
