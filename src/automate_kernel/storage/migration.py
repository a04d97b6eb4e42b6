"""
Migration: it compares a database's tables with ours, and makes the statements that mend them.

It compares the database's catalogue with `automate_kernel.storage.tables`, so a table, column or
index that is added there needs no more.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from automate_kernel.base.errors import AutomateError, ErrorCodes, StorageError
from automate_kernel.secrets.logs import get_logger
from automate_kernel.storage.dialects import Dialect
from automate_kernel.storage.rows import Rows, Storage
from automate_kernel.storage.shortage import warn_of
from automate_kernel.storage.tables import NULL, TABLES, Column, Index, Table

logger: logging.Logger = get_logger(__name__)

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


def _type_of(dialect: Dialect, column: Column) -> str:
    return _TYPES[dialect.name][column.type].format(column.length)


def create_statements(dialect: Dialect, table: Table) -> list[str]:
    """Return the statements that create *table* with its indexes."""
    key = _name(dialect, table.key)
    lines = [_column(dialect, column) for column in table.columns] + [f"PRIMARY KEY ({key})"]
    body = ",\n  ".join(lines)
    made = [f"CREATE TABLE {_name(dialect, table.name)} (\n  {body}\n)"]
    made += [_create_index(dialect, table, index) for index in table.indexes]
    if table.storage and dialect.name == "postgresql":
        settings = ", ".join(f"{name} = {value}" for name, value in table.storage)
        made.append(f"{_alter(dialect, table)} SET ({settings})")
    return made


def _add_column(dialect: Dialect, table: Table, column: Column) -> str:
    """
    Return the statement that adds *column* to a table with rows in it.

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
    return f"{_alter(dialect, table)} ADD COLUMN {text}"


def _create_index(dialect: Dialect, table: Table, index: Index) -> str:
    """Return the statement that makes *index*, on some rows only where the database can."""
    names = ", ".join(_name(dialect, name) for name in _columns_of(dialect, index))
    unique = "UNIQUE " if index.unique else ""
    where = f" WHERE {_condition(dialect, index)}" if index.where and _partial(dialect) else ""
    return (
        f"CREATE {unique}INDEX {_name(dialect, index.name)}"
        f" ON {_name(dialect, table.name)} ({names}){where}"
    )


def _columns_of(dialect: Dialect, index: Index) -> tuple[str, ...]:
    return index.columns if _partial(dialect) else index.whole


def _drop_index(dialect: Dialect, table: str, name: str) -> str:
    on = f" ON {_name(dialect, table)}" if dialect.name == "mysql" else ""
    return f"DROP INDEX {_name(dialect, name)}{on}"


def _condition(dialect: Dialect, index: Index) -> str:
    """Return the condition for a row to stand in *index*."""
    return " AND ".join(
        f"{_name(dialect, name)} "
        + ("IS NULL" if value == NULL else "IS NOT NULL" if value is None else f"= '{value}'")
        for name, value in index.where
    )


def _partial(dialect: Dialect) -> bool:
    return dialect.name != "mysql"


def _column(dialect: Dialect, column: Column) -> str:
    null = "" if column.null else " NOT NULL"
    return f"{_name(dialect, column.name)} {_type_of(dialect, column)}{null}"


def _alter(dialect: Dialect, table: Table) -> str:
    return f"ALTER TABLE {_name(dialect, table.name)}"


def _name(dialect: Dialect, name: str) -> str:
    return f"{dialect.quote}{name}{dialect.quote}"


@dataclass(frozen=True, slots=True)
class _FoundColumn:
    """A column, with the database's word for its type."""

    name: str
    type: str
    null: bool


@dataclass(frozen=True, slots=True)
class _FoundIndex:
    """
    An index, with its condition as the database writes it, empty if it has none.

    A column that descends has `` DESC`` after its name; ``?`` is an expression. An index that isn't
    *valid* was begun and never finished.
    """

    name: str
    columns: tuple[str, ...]
    unique: bool
    where: str = ""
    valid: bool = True


@dataclass(slots=True)
class _FoundTable:
    """A table of the database."""

    columns: dict[str, _FoundColumn] = field(default_factory=dict)
    indexes: dict[str, _FoundIndex] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Catalogue:
    """
    The queries for a database's catalogue, with a place for the *table* names in question.

    *columns* gives table, name, type and nullness. *indexes* gives a row for each column of each
    index but the primary key's, in order: table, name, uniqueness, validity, column (null for an
    expression), if that descends, and the condition.
    """

    columns: str
    indexes: str
    table: str = "'{}'"


_CATALOGUES = {
    "postgresql": _Catalogue(
        """
SELECT c.relname::text, a.attname::text, format_type(a.atttypid, a.atttypmod), NOT a.attnotnull
  FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
 WHERE c.oid = ANY(ARRAY[{}]::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
 ORDER BY c.relname, a.attnum
""",
        """
SELECT c.relname::text, i.relname::text, x.indisunique, x.indisvalid, a.attname::text,
       x.indoption[k.place - 1] & 1 = 1, coalesce(pg_get_expr(x.indpred, x.indrelid), '')
  FROM pg_class c JOIN pg_index x ON x.indrelid = c.oid JOIN pg_class i ON i.oid = x.indexrelid
 CROSS JOIN unnest(x.indkey::int2[]) WITH ORDINALITY k(number, place)
  LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.number AND k.number > 0
 WHERE c.oid = ANY(ARRAY[{}]::oid[]) AND NOT x.indisprimary AND k.place <= x.indnkeyatts
 ORDER BY c.relname, i.relname, k.place
""",
        # So that the table is meant which a statement without a schema would reach.
        table="to_regclass('{}')::oid",
    ),
    "sqlite": _Catalogue(
        """
SELECT m.name, p.name, p.type, NOT p."notnull"
  FROM sqlite_master m, pragma_table_info(m.name) p
 WHERE m.type = 'table' AND m.name IN ({})
""",
        # A condition begins at the WHERE: none of our names holds the word.
        """
SELECT m.name, l.name, l."unique", 1, x.name, x."desc",
       CASE WHEN instr(upper(i.sql), ' WHERE ')
            THEN substr(i.sql, instr(upper(i.sql), ' WHERE ') + 7) ELSE '' END
  FROM sqlite_master m, pragma_index_list(m.name) l, pragma_index_xinfo(l.name) x
  LEFT JOIN sqlite_master i ON i.type = 'index' AND i.name = l.name
 WHERE m.type = 'table' AND m.name IN ({}) AND l.origin <> 'pk' AND x.key
 ORDER BY m.name, l.name, x.seqno
""",
    ),
    "mysql": _Catalogue(
        """
SELECT TABLE_NAME, COLUMN_NAME, CONCAT_WS(' ', COLUMN_TYPE, COLLATION_NAME), IS_NULLABLE = 'YES'
  FROM information_schema.COLUMNS
 WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME IN ({}) ORDER BY TABLE_NAME, ORDINAL_POSITION
""",
        """
SELECT TABLE_NAME, INDEX_NAME, NOT NON_UNIQUE, 1, COLUMN_NAME, COLLATION = 'D', ''
  FROM information_schema.STATISTICS
 WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME IN ({}) AND INDEX_NAME <> 'PRIMARY'
 ORDER BY TABLE_NAME, INDEX_NAME, SEQ_IN_INDEX
""",
    ),
}


def _read_tables(rows: Rows, names: Iterable[str]) -> dict[str, _FoundTable]:
    """Return those of the tables *names* that the database has, in two queries."""
    catalogue = _CATALOGUES[rows.dialect.name]
    these = ", ".join(catalogue.table.format(name) for name in names)
    found: dict[str, _FoundTable] = {}
    for *texts, null in rows.run(catalogue.columns.format(these), (), fetch=True):
        table, name, type_ = map(_text, texts)
        own = found.setdefault(table, _FoundTable())
        own.columns[name] = _FoundColumn(name, type_.lower(), bool(null))
    for table, name, unique, valid, column, descends, where in rows.run(
        catalogue.indexes.format(these), (), fetch=True
    ):
        indexes = found[table].indexes
        before = indexes[name].columns if name in indexes else ()
        columns = (*before, (column or "?") + (" DESC" if descends else ""))
        indexes[name] = _FoundIndex(name, columns, bool(unique), where, bool(valid))
    return found


def _text(value: object) -> str:
    """Return text, which some drivers of MySQL give as bytes."""
    if isinstance(value, bytes):
        return value.decode()
    if not isinstance(value, str):
        raise StorageError("the database's catalogue can't be read")
    return value


def _manager_of(rows: Rows) -> str:
    """
    Return the tool that keeps account of our tables.

    It is Django where our app's migrations were applied, and Alembic where it has ever been in this
    database; else our own command.
    """
    found = _read_tables(rows, ["django_migrations", "alembic_version"])
    if "django_migrations" in found:
        sql = "SELECT count(*) FROM django_migrations WHERE app = 'automate_django'"
        if int(rows.run(sql, (), fetch=True)[0][0]):
            return "django"
    return "alembic" if "alembic_version" in found else "automate"


# Taken while a schema is changed, so that of two that migrate at once one finds nothing to do.
_LOCK = 4_276_115_017
_LOCK_SECONDS = 60
_NAME_OF_LOCK = "automate_schema"
_PATIENCE = "10s"


@dataclass(frozen=True, slots=True)
class SchemaDifference:
    """
    One difference between a database's tables and ours.

    A *needed* difference stops every worker, or makes work unsafe; another only slows work down.
    Where *statements* is empty a person must mend it.
    """

    kind: Literal["table", "column", "index"]
    table: str
    name: str
    text: str
    needed: bool
    statements: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SchemaReport:
    """
    The comparison of a database's tables with those of this release.

    *manager* is the tool that keeps account of our tables: ``django``, ``alembic`` or ``automate``.
    *place* names the database.
    """

    place: str
    manager: str
    differences: tuple[SchemaDifference, ...]

    @property
    def ok(self) -> bool:
        """True if there is nothing to mend."""
        return not self.differences

    @property
    def empty(self) -> bool:
        """True if the database has none of our tables."""
        return {each.name for each in self.differences if each.kind == "table"} >= set(TABLES)

    @property
    def needed(self) -> tuple[SchemaDifference, ...]:
        """The differences that must be mended before a worker can work."""
        return tuple(each for each in self.differences if each.needed)

    @property
    def statements(self) -> tuple[str, ...]:
        """The SQL that `migrate` would run for the differences, in order."""
        return tuple(sql for each in self.differences for sql in each.statements)

    @property
    def remedy(self) -> str:
        """The command that mends the differences."""
        if self.manager == "django":
            return (
                "run manage.py migrate automate_django"
                if any(each.kind in ("table", "column") for each in self.differences)
                else "run manage.py automate db migrate, which rebuilds the indexes"
            )
        if self.empty:
            return "run automate db migrate, or let your migrations make them"
        if self.manager == "alembic":
            return (
                "run alembic revision --autogenerate and alembic upgrade head with "
                "automate_sqlalchemy.metadata among your target_metadata; wrong indexes are mended "
                "by automate db migrate --force"
            )
        return "run automate db migrate (--sql shows what it does)"

    def require(self) -> None:
        """Raise `StorageError` with the missing parts if no worker could work with these tables."""
        if self.needed:
            # Missing parts first: they stop every worker, and people look for them.
            order = sorted(self.needed, key=lambda each: "missing" not in each.text)
            found = "; ".join(each.text for each in order[:5])
            more = f"; and {len(order) - 5} more" if len(order) > 5 else ""
            raise StorageError(
                f"{self.place}: the tables are not those of this release: {found}{more}",
                code=ErrorCodes.FAILED_PRECONDITION,
                hint=self.remedy,
                retryable=False,
            )


def inspect_schema(rows: Rows, place: str) -> SchemaReport:
    """Compare the database with our tables. It reads the catalogue alone."""
    found = _read_tables(rows, TABLES)
    differences = [
        difference
        for table in TABLES.values()
        for difference in _compared(rows.dialect, table, found.get(table.name))
    ]
    return SchemaReport(place, _manager_of(rows), tuple(differences))


def require_schema(storage: Storage) -> None:
    """
    Raise `StorageError` if no worker could work with the tables of *storage*.

    A difference that only makes work slow is logged. A database that can't be reached is left to
    the worker, which waits for it. A storage without ``check_schema`` is taken to be right.
    """
    check = getattr(storage, "check_schema", None)
    if check is None:
        return
    try:
        report: SchemaReport = check()
    except StorageError as error:
        if not error.retryable:
            raise
        warn_of(logger, error, "the tables could not be checked: %s")
        return
    report.require()
    for each in report.differences:
        logger.warning("%s: %s; %s", report.place, each.text, report.remedy)


def make_tables(rows: Rows, place: str) -> list[str]:
    """Create the missing tables, and nothing else; return their names."""
    with _alone(rows):
        report = inspect_schema(rows, place)
        missing = [each for each in report.differences if each.kind == "table"]
        for each in missing:
            _run(rows, each.statements)
    return [each.name for each in missing]


def migrate_schema(
    rows: Rows, place: str, *, force: bool = False, emit_function: bool = False
) -> list[str]:
    """
    Add to the tables what this release needs, in the transaction of *rows*; return the statements.

    Only indexes that are made anew are dropped. With *emit_function* the function ``automate_emit``
    is made too; one that is there is kept up with this release. Raises `AutomateError` where Django
    keeps account of the tables and columns or tables are missing; where Alembic does, unless
    *force*; and for a difference that no statement can mend.
    """
    with _alone(rows):
        report = inspect_schema(rows, place)
        _refuse(report, force)
        if rows.dialect.name == "postgresql":
            # A wait for a lock on a table holds up every statement that comes after.
            rows.run(f"SET LOCAL lock_timeout = '{_PATIENCE}'", (), fetch=False)
        _run(rows, report.statements)
        if left := inspect_schema(rows, place).differences:
            text = "; ".join(each.text for each in left)
            raise AutomateError(ErrorCodes.INTERNAL, f"{place}: this is left to mend: {text}")
        # Here alone: who only imports the kernel, or migrates nothing, has no use of it.
        from automate_kernel.storage.emit_function import change_of_emit_function

        changes = change_of_emit_function(rows, wanted=emit_function)
        _run(rows, changes)
    return [*report.statements, *changes]


def _refuse(report: SchemaReport, force: bool) -> None:
    def refusal(text: str, hint: str) -> AutomateError:
        text = f"{report.place}: {text}"
        return AutomateError(ErrorCodes.FAILED_PRECONDITION, text, hint=hint)

    if by_hand := [each.text for each in report.differences if not each.statements]:
        raise refusal(
            "; ".join(by_hand),
            "mend this by hand: no statement of ours does it without a risk for your rows",
        )
    structural = any(each.kind in ("table", "column") for each in report.differences)
    theirs = report.manager == "django" and structural
    if theirs or (report.manager == "alembic" and report.differences and not force):
        manager = report.manager.capitalize()
        raise refusal(f"{manager} keeps account of these tables", report.remedy)


def _compared(
    dialect: Dialect, table: Table, found: _FoundTable | None
) -> Iterator[SchemaDifference]:
    if found is None:
        made = tuple(create_statements(dialect, table))
        text = f"the table {table.name} is missing"
        yield SchemaDifference("table", table.name, table.name, text, True, made)
        return
    for column in table.columns:
        yield from _compared_column(dialect, table, column, found.columns.get(column.name))
    for index in table.indexes:
        yield from _compared_index(dialect, table, index, found)


def _compared_column(
    dialect: Dialect, table: Table, column: Column, found: _FoundColumn | None
) -> Iterator[SchemaDifference]:
    place = f"{table.name}.{column.name}"
    differs = partial(SchemaDifference, "column", table.name, column.name)
    if found is None:
        yield differs(f"{place} is missing", True, (_add_column(dialect, table, column),))
        return
    if column.null and not found.null:
        yield differs(f"{place} must be allowed to be null", True)
    if wanted := _other_type(dialect, column, found.type):
        yield differs(f"{place} is {found.type}, and should be {wanted}", True)


_MYSQL_TYPES = {
    # Django's are UUIDs where MariaDB has them.
    "id": r"(char\(32\).*|uuid)", "longtext": "longtext.*", "json": "longtext.*",
    "int": r"int(eger)?(\(\d+\))?", "time": r"datetime\(6\)",
}  # fmt: skip


def _other_type(dialect: Dialect, column: Column, found: str) -> str | None:
    """Return the type that *column* should have, if its own can't hold the same values."""
    if dialect.name == "sqlite":
        # A column of any type holds everything; only JSON changes the values.
        return "text" if column.type == "json" and found == "json" else None
    wanted = _type_of(dialect, column)
    if column.type == "text":
        length = re.match(r"(?:character varying|varchar)\((\d+)\)", found)
        if found in ("text", "character varying"):
            return None
        exact = dialect.name != "mysql" or found.endswith("_bin")
        fits = length is not None and int(length[1]) >= column.length and exact
        return None if fits else wanted
    if dialect.name == "postgresql":
        return None if found == wanted.lower() else wanted
    return None if re.fullmatch(_MYSQL_TYPES[column.type], found) else wanted


def _compared_index(
    dialect: Dialect, table: Table, index: Index, found: _FoundTable
) -> Iterator[SchemaDifference]:
    differs = partial(SchemaDifference, "index", table.name, index.name)
    made = _create_index(dialect, table, index)
    same = found.indexes.get(index.name)
    if same is None:
        # A unique constraint's index may have a name of the database's own.
        if all(_wrong(dialect, index, other) for other in found.indexes.values()):
            text = f"the index {index.name} is missing on {table.name}"
            yield differs(text, index.unique, (made,))
    elif wrong := _wrong(dialect, index, same):
        again = (_drop_index(dialect, table.name, index.name), made)
        text = f"the index {index.name} on {table.name} {wrong}"
        yield differs(text, index.unique and not same.unique, again)


def _wrong(dialect: Dialect, index: Index, found: _FoundIndex) -> str:
    """Return the fault of an index; empty if it serves as ours would."""
    if not found.valid:
        return "was begun and never finished"
    columns = _columns_of(dialect, index)
    if found.columns != columns:
        return f"has the columns {', '.join(found.columns)} instead of {', '.join(columns)}"
    if found.unique != index.unique:
        return "is not unique" if index.unique else "is unique, and should not be"
    if not _partial(dialect):
        return ""
    wanted = _condition(dialect, index)
    if _conditions(found.where) != _conditions(wanted):
        return f"has {found.where or 'no condition'} for {wanted or 'no condition'}"
    return ""


_KEYWORDS = re.compile(r"\b(and|is|not|null)\b", re.IGNORECASE)
# PostgreSQL compares a varchar as text, and says so. In front of IS NULL such a cast makes another
# condition, to its planner.
_CAST = re.compile(r"::(text|character varying)\b(?! IS)")


def _conditions(text: str) -> frozenset[str]:
    """Return the parts of a condition, in one form for all ways in which a database writes them."""
    text = _KEYWORDS.sub(lambda word: word[0].upper(), " ".join(text.split()))
    return frozenset(_CAST.sub("", re.sub(r'[()"]', "", text)).split(" AND "))


def _run(rows: Rows, statements: Sequence[str]) -> None:
    for sql in statements:
        rows.run(sql, (), fetch=False)


@contextmanager
def _alone(rows: Rows) -> Iterator[None]:
    """Wait until nobody else changes the schema; on SQLite the transaction has done so."""
    if rows.dialect.name == "postgresql":
        rows.run(f"SELECT pg_advisory_xact_lock({_LOCK})", (), fetch=True)
    if rows.dialect.name != "mysql":
        yield
        return
    taken = rows.run(f"SELECT GET_LOCK('{_NAME_OF_LOCK}', {_LOCK_SECONDS})", (), fetch=True)[0][0]
    if taken != 1:
        raise StorageError(f"another process has been migrating for {_LOCK_SECONDS} s")
    try:
        yield
    finally:
        rows.run(f"SELECT RELEASE_LOCK('{_NAME_OF_LOCK}')", (), fetch=True)
