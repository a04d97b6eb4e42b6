"""
What a database lacks of our tables, and the statements that bring it there.

Both come from comparing the database's catalogue with `automate_kernel.storage.tables`, so that a
column or index which is added there needs no more. What no comparison finds is a `Step`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from automate_kernel.errors import AutomateError, ErrorCodes, StorageError
from automate_kernel.logs import get_logger
from automate_kernel.storage.ddl import (
    add_column,
    condition,
    create_index,
    create_table,
    drop_index,
    json_as_text,
    partial,
    type_of,
)
from automate_kernel.storage.dialects import Dialect
from automate_kernel.storage.inspection import (
    FoundColumn,
    FoundIndex,
    FoundTable,
    Manager,
    manager_of,
    read_tables,
)
from automate_kernel.storage.rows import Now, Storage, Where
from automate_kernel.storage.schema import NULL, Column, Index, Table
from automate_kernel.storage.sql import SqlRows
from automate_kernel.storage.tables import SCHEMA, TABLES, VERSION

__all__ = [
    "STEPS",
    "Difference",
    "SchemaReport",
    "Step",
    "inspect_schema",
    "make_tables",
    "migrate_schema",
    "require_schema",
]

logger: logging.Logger = get_logger(__name__)


_VERSION_ROW = "automate"
# Taken while a schema is changed, so that of two that migrate at once one finds nothing to do.
_LOCK = 4_276_115_017
_LOCK_SECONDS = 60
_PATIENCE = "10s"


@dataclass(frozen=True, slots=True)
class Step:
    """
    What comparison can't find, for databases whose version is below *version*.

    *statements* are made for a dialect, and run after all that is missing was added. On MariaDB
    and MySQL each must bear to be run again.
    """

    version: int
    name: str
    statements: Callable[[Dialect], Sequence[str]]


STEPS: tuple[Step, ...] = ()
"""All there ever were, the oldest first."""


@dataclass(frozen=True, slots=True)
class Difference:
    """
    One thing that is not as it should be.

    Without what is *needed* no worker can work, or not safely; else it works, but slowly. Where
    *statements* is empty nobody but a person can mend it.
    """

    kind: Literal["table", "column", "index", "version"]
    table: str
    name: str
    text: str
    needed: bool
    statements: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SchemaReport:
    """
    How a database's tables compare with those of this release.

    *version* is what `migrate` has recorded, None where it never did. *manager* says who keeps
    account of our tables: ``django``, ``alembic`` or ``automate``. *place* names the database.
    """

    place: str
    version: int | None
    manager: Manager
    differences: tuple[Difference, ...]
    expected: int = VERSION
    dialect: str = ""

    @property
    def ok(self) -> bool:
        """Whether there is nothing to mend."""
        return not self.differences

    @property
    def empty(self) -> bool:
        """Whether the database has none of our tables."""
        return {each.name for each in self.differences if each.kind == "table"} >= set(TABLES)

    @property
    def needed(self) -> tuple[Difference, ...]:
        """The differences without whose mending no worker can work."""
        return tuple(each for each in self.differences if each.needed)

    @property
    def statements(self) -> tuple[str, ...]:
        """The SQL that `migrate` would run for the differences, in order."""
        return tuple(sql for each in self.differences for sql in each.statements)

    @property
    def script(self) -> tuple[str, ...]:
        """What a person runs instead of `migrate`: the statements, and those that note it."""
        if self.manager == "django" or (self.ok and self.version == self.expected):
            return self.statements
        now = "UTC_TIMESTAMP(6)" if self.dialect == "mysql" else "CURRENT_TIMESTAMP"
        values = f"'{_VERSION_ROW}', {self.expected}, {now}"
        return (
            *self.statements,
            f"DELETE FROM {SCHEMA} WHERE name = '{_VERSION_ROW}'",
            f"INSERT INTO {SCHEMA} (name, version, migrated_at) VALUES ({values})",
        )

    @property
    def remedy(self) -> str:
        """Which command mends it."""
        if self.manager == "django":
            return (
                "run manage.py migrate automate_django"
                if any(each.kind in ("table", "column") for each in self.differences)
                else "run manage.py automate_db migrate, which makes the indexes anew"
            )
        if self.empty:
            return "run automate db create, or let your migrations make them"
        if self.manager == "alembic":
            return (
                "run alembic revision --autogenerate and alembic upgrade head with "
                "automate_sqlalchemy.metadata among your target_metadata; wrong indexes are mended "
                "by automate db migrate --force"
            )
        return "run automate db migrate (--sql shows what it does)"

    def require(self) -> None:
        """Raise `StorageError` if no worker could work with these tables; says what is missing."""
        if self.needed:
            # What is missing first: it stops every worker, and is what people look for.
            order = sorted(self.needed, key=lambda each: "missing" not in each.text)
            found = "; ".join(each.text for each in order[:5])
            more = f"; and {len(order) - 5} more" if len(order) > 5 else ""
            raise StorageError(
                f"{self.place}: the tables are not those of this release: {found}{more}",
                code=ErrorCodes.FAILED_PRECONDITION,
                hint=self.remedy,
                retryable=False,
            )


def inspect_schema(rows: SqlRows, place: str) -> SchemaReport:
    """Compare what the database has with our tables. Reads its catalogue, and no row but one."""
    found = read_tables(rows, TABLES)
    version = _recorded(rows) if SCHEMA in found else None
    differences = [
        difference
        for table in TABLES.values()
        for difference in _compared(rows.dialect, table, found.get(table.name))
    ]
    manager = manager_of(rows)
    if found and manager == "automate":
        differences += _steps_left(rows.dialect, version)
    return SchemaReport(place, version, manager, tuple(differences), dialect=rows.dialect.name)


def require_schema(storage: Storage) -> None:
    """
    Raise `StorageError` if no worker could work with the tables of *storage*.

    What only makes it slow is logged, and a database that can't be reached is left to the worker,
    which waits for it. A storage that can't tell is taken to be right.
    """
    check = getattr(storage, "check_schema", None)
    if check is None:
        return
    try:
        report: SchemaReport = check()
    except StorageError as error:
        if not error.retryable:
            raise
        logger.warning("the tables could not be checked: %s", error)
        return
    report.require()
    for each in report.differences:
        logger.warning("%s: %s; %s", report.place, each.text, report.remedy)


def make_tables(rows: SqlRows, place: str) -> list[str]:
    """Create the tables that are missing, and nothing else; returns their names."""
    with _alone(rows):
        report = inspect_schema(rows, place)
        missing = [each for each in report.differences if each.kind == "table"]
        for each in missing:
            _run(rows, each.statements)
        if report.empty and report.manager != "django":
            _record(rows)
    return [each.name for each in missing]


def migrate_schema(rows: SqlRows, place: str, *, force: bool = False) -> list[str]:
    """
    Bring the tables to this release's version in the transaction of *rows*; returns what was run.

    Nothing is dropped but indexes that are made anew. Where Django keeps account of the tables it
    has to make what is missing, and where Alembic does it should: raises `AutomateError`, there
    unless *force* is given. Raises it too for what no statement can mend.
    """
    with _alone(rows):
        report = inspect_schema(rows, place)
        _refuse(report, force)
        if rows.dialect.name == "postgresql":
            # One who waits for a lock on a table holds up all who come after.
            rows.run(f"SET LOCAL lock_timeout = '{_PATIENCE}'", (), fetch=False)
        _run(rows, report.statements)
        left = [each for each in inspect_schema(rows, place).differences if each.kind != "version"]
        if left:
            text = "; ".join(each.text for each in left)
            raise AutomateError(ErrorCodes.INTERNAL, f"{place}: this is left to mend: {text}")
        if report.manager != "django" and report.version != VERSION:
            _record(rows)
    return list(report.statements)


def _refuse(report: SchemaReport, force: bool) -> None:
    if report.version is not None and report.version > VERSION:
        raise AutomateError(
            ErrorCodes.FAILED_PRECONDITION,
            f"{report.place}: its tables are of version {report.version}, and this release's of "
            f"version {VERSION}",
            hint="install the release that migrated them, or a later one",
        )
    by_hand = [each.text for each in report.differences if not each.statements]
    if by_hand:
        raise AutomateError(
            ErrorCodes.FAILED_PRECONDITION,
            f"{report.place}: {'; '.join(by_hand)}",
            hint="mend this by hand: no statement of ours does it without a risk for your rows",
        )
    structural = any(each.kind in ("table", "column") for each in report.differences)
    theirs = report.manager == "django" and structural
    if theirs or (report.manager == "alembic" and report.differences and not force):
        raise AutomateError(
            ErrorCodes.FAILED_PRECONDITION,
            f"{report.place}: {report.manager.capitalize()} keeps account of these tables",
            hint=report.remedy,
        )


# -- comparing -------------------------------------------------------------------------------------


def _compared(dialect: Dialect, table: Table, found: FoundTable | None) -> Iterator[Difference]:
    if found is None:
        made = tuple(create_table(dialect, table))
        text = f"the table {table.name} is missing"
        yield Difference("table", table.name, table.name, text, True, made)
        return
    for column in table.columns:
        yield from _compared_column(dialect, table, column, found.columns.get(column.name))
    known = {column.name for column in table.columns}
    for name, other in found.columns.items():
        if name not in known and not other.null and not other.default:
            text = f"{table.name}.{name}, which is not ours, must not be null: no row can be added"
            yield Difference("column", table.name, name, text, True)
    for index in table.indexes:
        yield from _compared_index(dialect, table, index, found)


def _compared_column(
    dialect: Dialect, table: Table, column: Column, found: FoundColumn | None
) -> Iterator[Difference]:
    place = f"{table.name}.{column.name}"
    if found is None:
        sql = add_column(dialect, table, column)
        yield Difference("column", table.name, column.name, f"{place} is missing", True, (sql,))
        return
    if column.null and not found.null:
        text = f"{place} must be allowed to be null"
        allowed = _changed(dialect, table, column, nullness=True)
        yield Difference("column", table.name, column.name, text, True, allowed)
    if wanted := _other_type(dialect, column, found.type):
        text = f"{place} is {found.type}, and should be {wanted}"
        widened: tuple[str, ...] = ()
        if column.type == "json" and found.type == "json":
            widened = json_as_text(dialect, table, column)
        elif column.type == "text":
            widened = _changed(dialect, table, column)
        yield Difference("column", table.name, column.name, text, True, widened)


def _changed(
    dialect: Dialect, table: Table, column: Column, *, nullness: bool = False
) -> tuple[str, ...]:
    """The statement that gives a column our type and nullness; none where it takes a new table."""
    alter, quote = f"ALTER TABLE {dialect.quote}{table.name}{dialect.quote}", dialect.quote
    name, type_ = f"{quote}{column.name}{quote}", type_of(dialect, column)
    if dialect.name == "postgresql":
        how = "DROP NOT NULL" if nullness else f"TYPE {type_}"
        return (f"{alter} ALTER COLUMN {name} {how}",)
    if dialect.name == "mysql":
        return (f"{alter} MODIFY {name} {type_}{'' if column.null else ' NOT NULL'}",)
    return ()


_PG_TYPES = {
    "id": "uuid", "longtext": "text", "json": "jsonb", "int": "integer",
    "time": "timestamp with time zone",
}  # fmt: skip
_MYSQL_TYPES = {
    # Django's are UUIDs where MariaDB has them.
    "id": r"(char\(32\).*|uuid)", "longtext": "longtext.*", "json": "longtext.*",
    "int": r"int(eger)?(\(\d+\))?", "time": r"datetime\(6\)",
}  # fmt: skip


def _other_type(dialect: Dialect, column: Column, found: str) -> str | None:
    """The type that *column* should have, if what it has can't hold the same values."""
    if dialect.name == "sqlite":
        # Whatever a column is declared as, it holds everything; only JSON changes what it holds.
        return "text" if column.type == "json" and found.lower() == "json" else None
    wanted = type_of(dialect, column)
    if column.type == "text":
        length = re.match(r"(?:character varying|varchar)\((\d+)\)", found)
        if found in ("text", "character varying"):
            return None
        exact = dialect.name != "mysql" or found.endswith("_bin")
        fits = length is not None and int(length[1]) >= column.length and exact
        return None if fits else wanted
    if dialect.name == "postgresql":
        return None if found == _PG_TYPES[column.type] else wanted
    return None if re.fullmatch(_MYSQL_TYPES[column.type], found) else wanted


def _compared_index(
    dialect: Dialect, table: Table, index: Index, found: FoundTable
) -> Iterator[Difference]:
    same = found.indexes.get(index.name)
    if same is None:
        # A unique constraint's index may have a name of the database's own.
        if any(not _wrong(dialect, index, other) for other in found.indexes.values()):
            return
        text = f"the index {index.name} is missing on {table.name}"
        made = (create_index(dialect, table, index),)
        yield Difference("index", table.name, index.name, text, index.unique, made)
        return
    wrong = _wrong(dialect, index, same)
    if wrong:
        again = (drop_index(dialect, table.name, index.name), create_index(dialect, table, index))
        text = f"the index {index.name} on {table.name} {wrong}"
        needed = index.unique and not same.unique
        yield Difference("index", table.name, index.name, text, needed, again)


def _wrong(dialect: Dialect, index: Index, found: FoundIndex) -> str:
    """What is wrong with an index; nothing if it serves as ours would."""
    if not found.valid:
        return "was begun and never finished"
    if found.columns != index.columns:
        return f"has the columns {', '.join(found.columns)} instead of {', '.join(index.columns)}"
    if found.unique != index.unique:
        return "is not unique" if index.unique else "is unique, and should not be"
    if not partial(dialect):
        return ""
    if _conditions(found.where) != frozenset(index.where):
        wanted = condition(dialect, index) or "no condition"
        text = f"has {found.where or 'no condition'} for {wanted}"
        if "::text IS" in found.where:
            # Django 4.2.0 to 4.2.5 wrote them so.
            text += ", which PostgreSQL can't use"
        return text
    return ""


_NULLNESS = re.compile(r'"?(\w+)"? IS (NOT )?NULL', re.IGNORECASE)
# PostgreSQL compares a varchar as text, and says so.
_EQUALITY = re.compile(r"""\(?["]?(\w+)["]?\)?(?:::text)? = '(\w*)'(?:::[\w ]+)?""")


def _conditions(text: str) -> frozenset[tuple[str, str | None]] | None:
    """
    A condition as `Index.where` has it, out of what a database tells; None for any other.

    A cast in front of IS NULL is another condition to PostgreSQL's planner.
    """
    text = " ".join(text.split())
    if not text:
        return frozenset()
    found: set[tuple[str, str | None]] = set()
    for part in re.split(r" AND ", _bare(text), flags=re.IGNORECASE):
        if match := _NULLNESS.fullmatch(_bare(part)):
            found.add((match[1], None if match[2] else NULL))
        elif match := _EQUALITY.fullmatch(_bare(part)):
            found.add((match[1], match[2]))
        else:
            return None
    return frozenset(found)


def _bare(text: str) -> str:
    """*text* without the parentheses around all of it."""
    while text.startswith("(") and text.endswith(")"):
        depth = 0
        for position, character in enumerate(text):
            depth += (character == "(") - (character == ")")
            if depth == 0 and position < len(text) - 1:
                return text
        text = text[1:-1].strip()
    return text


# -- the version -----------------------------------------------------------------------------------


def _steps_left(dialect: Dialect, version: int | None) -> Iterator[Difference]:
    for step in STEPS:
        if step.version > (version or 0):
            text = f"the step {step.name!r} of version {step.version} was not made"
            sql = tuple(step.statements(dialect))
            yield Difference("version", SCHEMA, step.name, text, False, sql)


def _recorded(rows: SqlRows) -> int | None:
    found = rows.select(SCHEMA, [Where("name", "eq", _VERSION_ROW)])
    return int(found[0]["version"]) if found else None


def _record(rows: SqlRows) -> None:
    changes: dict[str, Any] = {"version": VERSION, "migrated_at": Now()}
    if not rows.update(SCHEMA, [Where("name", "eq", _VERSION_ROW)], changes):
        rows.insert(SCHEMA, [{"name": _VERSION_ROW, **changes}])


def _run(rows: SqlRows, statements: Sequence[str]) -> None:
    for sql in statements:
        rows.run(sql, (), fetch=False)


@contextmanager
def _alone(rows: SqlRows) -> Iterator[None]:
    """Wait until nobody else changes the schema; on SQLite the transaction has seen to that."""
    if rows.dialect.name == "postgresql":
        rows.run(f"SELECT pg_advisory_xact_lock({_LOCK})", (), fetch=True)
    if rows.dialect.name != "mysql":
        yield
        return
    taken = rows.run(f"SELECT GET_LOCK('{SCHEMA}', {_LOCK_SECONDS})", (), fetch=True)[0][0]
    if taken != 1:
        raise StorageError(f"another process has been migrating for {_LOCK_SECONDS} s")
    try:
        yield
    finally:
        rows.run(f"SELECT RELEASE_LOCK('{SCHEMA}')", (), fetch=True)
