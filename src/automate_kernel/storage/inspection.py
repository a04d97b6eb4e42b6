"""What tables a database has, as its own catalogue tells."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from automate_kernel.errors import StorageError
from automate_kernel.storage.sql import SqlRows

__all__ = ["FoundColumn", "FoundIndex", "FoundTable", "Manager", "manager_of", "read_tables"]

Manager = str
"""What brings the tables from one version to the next: ``django``, ``alembic`` or ``automate``."""


@dataclass(frozen=True, slots=True)
class FoundColumn:
    """A column: *type* is the database's word for it; *default* tells that it has one."""

    name: str
    type: str
    null: bool
    default: bool = False


@dataclass(frozen=True, slots=True)
class FoundIndex:
    """
    An index: *where* is its condition as the database writes it, empty if it has none.

    A column that descends has `` DESC`` after its name; ``?`` is an expression. An index that isn't
    *valid* was begun and never finished.
    """

    name: str
    columns: tuple[str, ...]
    unique: bool
    where: str = ""
    valid: bool = True


@dataclass(slots=True)
class FoundTable:
    """A table of the database."""

    name: str
    columns: dict[str, FoundColumn] = field(default_factory=dict)
    indexes: dict[str, FoundIndex] = field(default_factory=dict)


def read_tables(rows: SqlRows, names: Iterable[str]) -> dict[str, FoundTable]:
    """Those of the tables *names* that the database has; two or three queries, however many."""
    read = {"postgresql": _postgresql, "sqlite": _sqlite, "mysql": _mysql}[rows.dialect.name]
    return read(rows, list(names))


def manager_of(rows: SqlRows) -> Manager:
    """
    Who keeps account of our tables.

    Django where our app's migrations were applied; Alembic where it has ever been in this
    database; else nobody but us.
    """
    found = read_tables(rows, ["django_migrations", "alembic_version"])
    if "django_migrations" in found:
        sql = "SELECT count(*) FROM django_migrations WHERE app = 'automate_django'"
        if int(rows.run(sql, (), fetch=True)[0][0]):
            return "django"
    return "alembic" if "alembic_version" in found else "automate"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


# -- PostgreSQL ------------------------------------------------------------------------------------

# By to_regclass, so that the table is meant which a statement without a schema would reach.
_PG_TABLES = "c.oid = ANY(ARRAY[{}]::oid[])"
_PG_COLUMNS = """
SELECT c.relname::text, a.attname::text, format_type(a.atttypid, a.atttypmod), NOT a.attnotnull,
       a.atthasdef
  FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
 WHERE {} AND a.attnum > 0 AND NOT a.attisdropped ORDER BY c.relname, a.attnum
"""
_PG_INDEXES = """
SELECT c.relname::text, i.relname::text, x.indisunique, x.indisvalid,
       (SELECT string_agg(coalesce(a.attname::text, '?')
                          || CASE WHEN x.indoption[k.place - 1] & 1 = 1 THEN ' DESC' ELSE '' END,
                          ',' ORDER BY k.place)
          FROM unnest(x.indkey::int2[]) WITH ORDINALITY k(number, place)
          LEFT JOIN pg_attribute a
            ON a.attrelid = c.oid AND a.attnum = k.number AND k.number > 0
         WHERE k.place <= x.indnkeyatts),
       coalesce(pg_get_expr(x.indpred, x.indrelid), '')
  FROM pg_class c JOIN pg_index x ON x.indrelid = c.oid JOIN pg_class i ON i.oid = x.indexrelid
 WHERE {} AND NOT x.indisprimary
"""


def _postgresql(rows: SqlRows, names: list[str]) -> dict[str, FoundTable]:
    these = _PG_TABLES.format(", ".join(f"to_regclass('{name}')::oid" for name in names))
    found: dict[str, FoundTable] = {}
    for table, name, type_, null, default in rows.run(_PG_COLUMNS.format(these), (), fetch=True):
        own = found.setdefault(table, FoundTable(table))
        own.columns[name] = FoundColumn(name, type_, bool(null), bool(default))
    for table, name, unique, valid, columns, where in rows.run(
        _PG_INDEXES.format(these), (), fetch=True
    ):
        index = FoundIndex(name, tuple(columns.split(",")), bool(unique), where, bool(valid))
        found[table].indexes[name] = index
    return found


# -- SQLite ----------------------------------------------------------------------------------------

_SQLITE_COLUMNS = """
SELECT m.name, p.name, p.type, p."notnull", p.dflt_value IS NOT NULL
  FROM sqlite_master m, pragma_table_info(m.name) p
 WHERE m.type = 'table' AND m.name IN ({})
"""
_SQLITE_INDEXES = """
SELECT m.name, l.name, l."unique", x.name, x."desc", coalesce(i.sql, '')
  FROM sqlite_master m, pragma_index_list(m.name) l, pragma_index_xinfo(l.name) x
  LEFT JOIN sqlite_master i ON i.type = 'index' AND i.name = l.name
 WHERE m.type = 'table' AND m.name IN ({}) AND l.origin <> 'pk' AND x.key
 ORDER BY m.name, l.name, x.seqno
"""


def _sqlite(rows: SqlRows, names: list[str]) -> dict[str, FoundTable]:
    these, found = _listed(names), dict[str, FoundTable]()
    for table, name, type_, not_null, default in rows.run(
        _SQLITE_COLUMNS.format(these), (), fetch=True
    ):
        own = found.setdefault(table, FoundTable(table))
        own.columns[name] = FoundColumn(name, type_.lower(), not not_null, bool(default))
    for table, name, unique, column, descends, sql in rows.run(
        _SQLITE_INDEXES.format(these), (), fetch=True
    ):
        before = found[table].indexes.get(name)
        columns = before.columns if before else ()
        here = (column or "?") + (" DESC" if descends else "")
        _, _, where = _partitioned(sql)
        found[table].indexes[name] = FoundIndex(name, (*columns, here), bool(unique), where)
    return found


def _partitioned(sql: str) -> tuple[str, str, str]:
    """The text of a CREATE INDEX around its WHERE: none of our names holds the word."""
    position = sql.upper().find(" WHERE ")
    return (sql, "", "") if position < 0 else (sql[:position], "WHERE", sql[position + 7 :])


# -- MariaDB and MySQL -----------------------------------------------------------------------------

_MYSQL_COLUMNS = """
SELECT TABLE_NAME, COLUMN_NAME, COLUMN_TYPE, COLLATION_NAME, IS_NULLABLE, COLUMN_DEFAULT
  FROM information_schema.COLUMNS
 WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME IN ({}) ORDER BY TABLE_NAME, ORDINAL_POSITION
"""
# MariaDB's word for JSON is a long text with a check of this kind.
_MARIADB_JSON = """
SELECT TABLE_NAME, CONSTRAINT_NAME FROM information_schema.CHECK_CONSTRAINTS
 WHERE CONSTRAINT_SCHEMA = DATABASE() AND TABLE_NAME IN ({})
   AND LOCATE('json_valid(', LOWER(CHECK_CLAUSE)) > 0
"""
_MYSQL_INDEXES = """
SELECT TABLE_NAME, INDEX_NAME, NON_UNIQUE, COLUMN_NAME, COLLATION
  FROM information_schema.STATISTICS
 WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME IN ({}) AND INDEX_NAME <> 'PRIMARY'
 ORDER BY TABLE_NAME, INDEX_NAME, SEQ_IN_INDEX
"""


def _mysql(rows: SqlRows, names: list[str]) -> dict[str, FoundTable]:
    these, found = _listed(names), dict[str, FoundTable]()
    checked: set[tuple[str, str]] = set()
    if "mariadb" in _text(rows.run("SELECT VERSION()", (), fetch=True)[0][0]).lower():
        for table, name in rows.run(_MARIADB_JSON.format(these), (), fetch=True):
            checked.add((_text(table), _text(name)))
    for table, name, type_, collation, null, default in rows.run(
        _MYSQL_COLUMNS.format(these), (), fetch=True
    ):
        own = found.setdefault(table, FoundTable(table))
        shown = f"{_text(type_)} {_text(collation)}" if collation else _text(type_)
        shown = "json" if (table, name) in checked else shown
        # MariaDB's word for no default of a column that may be null is the text NULL.
        has_default = default is not None and _text(default).upper() != "NULL"
        own.columns[name] = FoundColumn(name, shown.lower(), null == "YES", has_default)
    for table, name, not_unique, column, order in rows.run(
        _MYSQL_INDEXES.format(these), (), fetch=True
    ):
        before = found[table].indexes.get(name)
        columns = before.columns if before else ()
        here = (column or "?") + (" DESC" if order == "D" else "")
        found[table].indexes[name] = FoundIndex(name, (*columns, here), not not_unique)
    return found


def _text(value: object) -> str:
    """Text, which some drivers of MySQL give as bytes."""
    if isinstance(value, bytes):
        return value.decode()
    if not isinstance(value, str):
        raise StorageError("the database's catalogue can't be read")
    return value
