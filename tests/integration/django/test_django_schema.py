"""The tables that migrations make are checked, and indexes that can't be used are mended."""

from __future__ import annotations

from io import StringIO

import pytest
from automate_django.storage import DjangoStorage
from automate_kernel.base.errors import AutomateError, StorageError
from automate_kernel.storage.migration import require_schema
from django.core.management import CommandError, call_command
from django.db import connections

# A condition that no statement of ours has, so that PostgreSQL never uses it.
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
    assert report.manager == "django"


@pytest.fixture
def cast(postgresql: str) -> str:
    """A database with a claim's index that can't be used."""
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
        call_command("automate", "db", "migrate", "--check", stdout=out)
    assert "::text IS NULL" in out.getvalue()
    out = StringIO()
    call_command("automate", "db", "migrate", "--sql", stdout=out)
    assert out.getvalue().count(";") == 2
    assert not DjangoStorage().check_schema().ok
    call_command("automate", "db", "migrate", stdout=StringIO())
    assert DjangoStorage().check_schema().ok
    call_command("automate", "db", "migrate", "--check", stdout=StringIO())


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
