"""The tables that migrations make are checked, and indexes that can't be used are mended."""

from __future__ import annotations

from importlib import import_module
from io import StringIO

import pytest
from automate_django.storage import DjangoStorage
from automate_kernel.base.errors import AutomateError, StorageError
from automate_kernel.storage.migration import require_schema
from django.core.management import CommandError, call_command
from django.db import connections

# As Django 4.2.0 to 4.2.5 writes it with psycopg 3.
CAST = (
    "CREATE INDEX automate_outbox_ready ON automate_outbox (kind, sort_at, id)"
    " WHERE (tenant_id)::text IS NULL AND waiting_for = 'worker'"
)


def run(alias: str, *statements: str) -> None:
    """Run SQL on a database."""
    with connections[alias].cursor() as cursor:
        for sql in statements:
            cursor.execute(sql)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "mariadb"])
def test_what_the_migrations_make_is_right(kind: str, request: pytest.FixtureRequest) -> None:
    """On every database: no difference, and Django is known to keep account of it."""
    request.getfixturevalue(kind)
    report = DjangoStorage().check_schema()
    assert [each.text for each in report.differences] == []
    assert (report.manager, report.version) == ("django", None)


@pytest.fixture
def cast(postgresql: str) -> str:
    """A database with the claim's index as an early Django 4.2 has made it."""
    run(postgresql, "DROP INDEX automate_outbox_ready", CAST)
    yield postgresql
    DjangoStorage().migrate()
    assert DjangoStorage().check_schema().ok


def test_an_index_that_postgresql_cant_use(cast: str) -> None:
    """The doctor names it and the command that mends it, and the command mends it."""
    out = StringIO()
    call_command("automate_doctor", "--json", stdout=out)
    assert "automate_outbox_ready" in out.getvalue()
    assert "manage.py automate db migrate" in out.getvalue()
    out = StringIO()
    with pytest.raises(CommandError, match="1 difference"):
        call_command("automate", "db", "check", stdout=out)
    assert "PostgreSQL can't use" in out.getvalue()
    out = StringIO()
    call_command("automate", "db", "migrate", "--sql", stdout=out)
    assert out.getvalue().count(";") == 2
    assert not DjangoStorage().check_schema().ok
    call_command("automate", "db", "migrate", stdout=StringIO())
    assert DjangoStorage().check_schema().ok
    call_command("automate", "db", "check", stdout=StringIO())


def test_a_migration_mends_the_indexes_of_an_early_django(cast: str) -> None:
    """Since no later version of Django does."""
    module = import_module("automate_django.migrations.0009_execution_activity")
    with connections[cast].schema_editor() as editor:
        module.mend_conditions(None, editor)
    assert DjangoStorage().check_schema().ok


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_missing_column_is_for_djangos_migrations(
    kind: str, request: pytest.FixtureRequest
) -> None:
    """A worker refuses to begin, and says so; our own migration leaves it to Django's."""
    alias = request.getfixturevalue(kind)
    run(alias, "ALTER TABLE automate_worker DROP COLUMN problem")
    try:
        with pytest.raises(StorageError, match="automate_worker.problem") as caught:
            require_schema(DjangoStorage())
        assert "manage.py migrate automate_django" in str(caught.value.hint)
        with pytest.raises(AutomateError, match="Django keeps account"):
            DjangoStorage().migrate()
        with pytest.raises(CommandError, match="automate_worker.problem"):
            call_command("automate_worker", "--until-idle", stdout=StringIO())
    finally:
        run(alias, "ALTER TABLE automate_worker ADD COLUMN problem text NULL")
    assert DjangoStorage().check_schema().ok
