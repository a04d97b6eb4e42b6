"""``automate db``: make our tables."""

from __future__ import annotations

import typer

from automate_kernel.cli.command import Context, command, group

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    own = group("db", "Make the tables in the database.")
    command(
        own,
        "create",
        data=True,
        examples=("automate db create --database postgresql://user@host/name",),
    )(create)
    app.add_typer(own)


def create(context: Context) -> None:
    """
    Create the tables that are missing.

    Where you have migrations of your own, let them do it: automate_sqlalchemy.metadata is for
    Alembic, and Django brings its own. For SQLite files this happens by itself.
    """
    from automate_kernel.cli.database import missing_tables

    storage = context.session.open_storage(create=False)
    try:
        missing = missing_tables(storage)
        if missing:
            storage.create_tables()
        context.out.data({"database": storage.describe(), "created": missing})
        told = f"{len(missing)} tables created" if missing else "the tables are there already"
        context.out.line(f"{storage.describe()}: {told}")
    finally:
        storage.engine.dispose()
