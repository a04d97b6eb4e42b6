"""The tables of the project, whose own apps have no migrations."""

from __future__ import annotations

from django.core.management import call_command


def make_tables(alias: str = "default") -> None:
    """Make all tables of a database: first those that migrations make, to which others refer."""
    call_command("migrate", database=alias, verbosity=0)
    call_command("migrate", database=alias, run_syncdb=True, verbosity=0)
