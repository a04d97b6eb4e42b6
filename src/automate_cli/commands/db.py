"""``automate db``: create the kernel's tables, check them, and migrate them to this release."""

from __future__ import annotations

from typing import Any

from automate_cli.command import Commands, Context, WorkFailedError
from automate_cli.inputs import flag
from automate_cli.output import attributes
from automate_kernel.base.errors import AutomateError, ErrorCodes

app: Commands = Commands(
    "db", "Make the tables in the database, check them, and migrate them to this release."
)
hosted: Commands = Commands("db", "Check the kernel's tables, and mend their indexes.")
"""The commands for tables that an application's own migrations make."""

_SQL = flag("--sql", "Show the SQL and run nothing.")


def _storage(context: Context, *, file: bool = False) -> Any:
    storage: Any = context.session.bare(file=file)
    if not hasattr(storage, "check_schema"):
        raise AutomateError(
            ErrorCodes.FAILED_PRECONDITION,
            f"{storage.describe()} has no tables that could be looked at",
            hint="give the kernel a storage on a database",
        )
    return storage


@app.called(
    "automate db create --database postgresql://user@host/name",
    "automate db create --sql > tables.sql",
)
def create(context: Context, sql: bool = _SQL) -> None:
    """
    Create the tables that are missing.

    Where you have migrations of your own, let them do it: automate_sqlalchemy.metadata is for
    Alembic, and Django brings its own. For SQLite files this happens by itself.
    """
    storage = _storage(context, file=not sql)
    report = storage.check_schema()
    missing = [each for each in report.differences if each.kind == "table"]
    if sql:
        _show_sql(context, report.place, [text for each in missing for text in each.statements])
        return
    storage.create_tables()
    names, place = [each.name for each in missing], report.place
    context.out.data({"database": place, "created": names})
    text = f"{len(names)} tables created" if names else "the tables are there already"
    context.out.line(f"{place}: {text}")
    left = storage.check_schema()
    if not left.ok:
        context.out.note(f"they are not those of this release: {left.remedy}")


@hosted.called("automate db check")
@app.called("automate db check", "automate db check --json")
def check(context: Context) -> None:
    """
    Compare tables, columns and indexes with those of this release.

    Shows each difference, and the command that mends it. Exits with 1 if there is any.
    """
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


@app.called("automate db migrate --sql", "automate db migrate")
def migrate(
    context: Context,
    sql: bool = _SQL,
    force: bool = flag("--force", "Migrate though Alembic manages the tables."),
) -> None:
    """
    Add what this release needs to the tables; rows stay.

    In one transaction, except on MariaDB and MySQL: run again after an interruption, it goes on.
    Start workers of this release afterwards; those of the release before may still run meanwhile.
    Making an index holds up writers on a large table: take the SQL of --sql then, and add
    CONCURRENTLY on PostgreSQL.
    """
    _migrate(context, sql=sql, options={"force": True} if force else {})


@hosted.called("automate db migrate --sql", "automate db migrate", name="migrate")
def mend(context: Context, sql: bool = _SQL) -> None:
    """
    Make wrong indexes anew; rows stay.

    Missing tables and columns are for manage.py migrate. Making an index holds up writers on a
    large table: take the SQL of --sql then, and add CONCURRENTLY on PostgreSQL.
    """
    _migrate(context, sql=sql, options={})


def _migrate(context: Context, *, sql: bool, options: dict[str, Any]) -> None:
    storage, out = _storage(context, file=not sql), context.out
    report = storage.check_schema()
    if sql:
        _show_sql(context, report.place, list(report.statements))
        return
    run = storage.migrate(**options)
    out.data({"database": report.place, "statements": run})
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
