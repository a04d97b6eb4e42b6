"""The test project, its databases, and a clean outbox for each test."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

PROJECT = Path(__file__).parents[2] / "django_project"
sys.path.insert(0, str(PROJECT))

from shopsite.configured import add_database, configure  # noqa: E402

configure()

from automate_django.kernel import forget_kernel  # noqa: E402
from django.apps import apps  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connections  # noqa: E402
from shopsite.routing import TestedDatabase  # noqa: E402


@pytest.fixture(scope="session")
def sqlite_alias() -> str:
    """The SQLite database, migrated."""
    call_command("migrate", verbosity=0)
    return "default"


@pytest.fixture(scope="session")
def postgresql_database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A database of its own on the session's PostgreSQL."""
    try:
        url = request.getfixturevalue("postgresql_server")
    except pytest.FixtureLookupError:
        pytest.skip("no PostgreSQL in this session")
    import psycopg

    url = url.replace("+psycopg", "")
    name = f"shop_{uuid4().hex[:12]}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    server, _, query = url.partition("?")
    yield f"{server.rpartition('/')[0]}/{name}" + (f"?{query}" if query else "")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def postgresql_alias(postgresql_database_url: str) -> Iterator[str]:
    """The PostgreSQL database, migrated."""
    add_database("postgresql", postgresql_database_url)
    call_command("migrate", database="postgresql", verbosity=0)
    yield "postgresql"
    connections["postgresql"].close()


@pytest.fixture(params=["sqlite", "postgresql"])
def alias(request: pytest.FixtureRequest) -> Iterator[str]:
    """The alias of a database, in turn, which the project's models then use; empty at the start."""
    alias = request.getfixturevalue(f"{request.param}_alias")
    yield from _using(alias)


@pytest.fixture
def sqlite(sqlite_alias: str) -> Iterator[str]:
    """`alias` for a test that one database is enough for."""
    yield from _using(sqlite_alias)


@pytest.fixture
def postgresql(postgresql_alias: str) -> Iterator[str]:
    """`alias` for a test that needs PostgreSQL."""
    yield from _using(postgresql_alias)


def _using(alias: str) -> Iterator[str]:
    TestedDatabase.alias = alias
    _empty(alias)
    forget_kernel()
    yield alias
    forget_kernel()
    TestedDatabase.alias = "default"


def _empty(alias: str) -> None:
    models: list[Any] = [
        *apps.get_app_config("automate_django").get_models(),
        *apps.get_app_config("shop").get_models(),
    ]
    with connections[alias].cursor() as cursor:
        for model in models:
            cursor.execute(f"DELETE FROM {model._meta.db_table}")
