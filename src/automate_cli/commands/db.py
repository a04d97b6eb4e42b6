"""``automate db``: make the kernel's tables, check them, and add what is missing."""

from __future__ import annotations

from typing import Any

from automate_cli import inputs
from automate_cli.command import Commands, Context, WorkFailedError
from automate_cli.inputs import flag
from automate_cli.output import attributes
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.storage.emit_function import emit_function_sql

app: Commands = Commands(
    "db", "Make the tables in the database, check them, and add what is missing."
)
hosted: Commands = Commands("db", "Check the kernel's tables, and mend their indexes.")
"""The commands for tables that an application's own migrations make."""

_SQL = flag("--sql", "Show the SQL and run nothing.")
_EMIT = flag(
    "--emit-function", "Make the SQL function automate_emit too, on PostgreSQL, for any language."
)
_CHECK = flag(
    "--check", "Show what is missing or wrong, and run nothing; exit with 1 if anything is."
)


def _storage(context: Context, *, file: bool = False) -> Any:
    storage: Any = context.session.bare(file=file)
    if not hasattr(storage, "check_schema"):
        raise AutomateError(
            ErrorCodes.FAILED_PRECONDITION,
            f"{storage.describe()} has no tables that could be looked at",
            hint="give the kernel a storage on a database",
        )
    return storage


def _check(context: Context) -> None:
    """Show each difference from the tables of this release, and the command that mends it."""
    out, report = context.out, _storage(context).check_schema()
    out.data(
        {
            "database": report.place,
            "ok": report.ok,
            "managed_by": report.manager,
            "differences": [
                attributes(each, "kind", "table", "name", "text", "needed")
                for each in report.differences
            ],
            "remedy": None if report.ok else report.remedy,
        }
    )
    managed = f" ({report.manager.capitalize()} manages the tables)"
    out.line(report.place + ("" if report.manager == "automate" else managed))
    problem = "it has none of the tables"
    if not report.empty:
        problem = f"{len(report.differences)} differences from the tables of this release"
        for each in report.differences:
            out.line(("missing: " if each.needed else "slow: ") + each.text)
    if not report.ok:
        raise WorkFailedError(message=problem, hint=report.remedy)
    out.line("as they should be")


@app.called(
    "automate db migrate --database postgresql://user@host/name",
    "automate db migrate --sql > tables.sql",
    "automate db migrate --check",
    "automate db migrate --emit-function",
)
def migrate(
    context: Context,
    sql: bool = _SQL,
    check: bool = _CHECK,
    emit_function: bool = _EMIT,
    force: bool = flag("--force", "Migrate though Alembic manages the tables."),
) -> None:
    """
    Make the tables, and add what is missing in those that are there; rows stay.

    Where you have migrations of your own, let them do it: automate_sqlalchemy.metadata is for
    Alembic, and Django brings its own. For SQLite files this happens by itself.

    In one transaction, except on MariaDB and MySQL: run again after an interruption, it goes on.
    Start workers of this release afterwards; those of the release before may still run meanwhile.
    Making an index holds up writers on a large table: take the SQL of --sql then, and add
    CONCURRENTLY on PostgreSQL.
    """
    options = {"force": True} if force else {}
    _migrate(context, sql=sql, check=check, emit_function=emit_function, options=options)


@hosted.called("automate db migrate --check", "automate db migrate", name="migrate")
def mend(
    context: Context, sql: bool = _SQL, check: bool = _CHECK, emit_function: bool = _EMIT
) -> None:
    """
    Rebuild indexes that are wrong; rows stay.

    Missing tables and columns are for manage.py migrate. Making an index holds up writers on a
    large table: take the SQL of --sql then, and add CONCURRENTLY on PostgreSQL.
    """
    _migrate(context, sql=sql, check=check, emit_function=emit_function, options={})


def _migrate(
    context: Context, *, sql: bool, check: bool, emit_function: bool, options: dict[str, Any]
) -> None:
    if emit_function:
        options = {**options, "emit_function": True}
    if check:
        inputs.alone("--check", sql=sql, **options)
        _check(context)
        return
    storage, out = _storage(context, file=not sql), context.out
    report = storage.check_schema()
    if sql:
        function = [emit_function_sql()] if emit_function else []
        _show_sql(context, report.place, [*report.statements, *function])
        return
    made = [each.name for each in report.differences if each.kind == "table"]
    run = storage.migrate(**options)
    out.data({"database": report.place, "statements": run, "created": made})
    if report.empty:
        out.line(f"{report.place}: {len(made)} tables created")
        return
    for text in run:
        first = text.partition("\n")[0].removesuffix("(").rstrip()
        out.line(f"{first} … done")
    out.line(f"{report.place}: " + ("migrated" if run else "there was nothing to do"))


def _show_sql(context: Context, place: str, statements: list[str]) -> None:
    context.out.data({"database": place, "statements": statements})
    for text in statements:
        context.out.line(f"{text};")
    if not statements:
        context.out.note(f"{place}: there is nothing to do")
