"""The test project, its databases, and a clean outbox for each test."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import processes
import pytest
import waiting
import warm_forks
from warm_forks import Forked

PROJECT = Path(__file__).parents[2] / "django_project"
SOURCE = Path(__file__).parents[3] / "src"
PATIENCE_SECONDS = 120.0
sys.path.insert(0, str(PROJECT))

from shopsite.configured import add_database, configure  # noqa: E402

configure()

from automate_django.kernel import forget_kernel  # noqa: E402
from django.db import connections  # noqa: E402
from shopsite.emptying import OUTBOX, delete_rows  # noqa: E402
from shopsite.making import make_tables  # noqa: E402
from shopsite.routing import TestedDatabase  # noqa: E402


@pytest.fixture(scope="session")
def sqlite_alias() -> str:
    """The SQLite database, migrated."""
    make_tables()
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
    make_tables("postgresql")
    yield "postgresql"
    connections["postgresql"].close()


@pytest.fixture(scope="session")
def mariadb_alias(request: pytest.FixtureRequest) -> Iterator[str]:
    """A MariaDB database, migrated, through PyMySQL in place of mysqlclient."""
    pymysql = pytest.importorskip("pymysql", reason="MariaDB: the package pymysql is missing")
    url = request.getfixturevalue("mariadb_server")
    pymysql.install_as_MySQLdb()
    parts, name = urlsplit(url), f"shop_{uuid4().hex[:12]}"
    server = pymysql.connect(
        host=parts.hostname, port=parts.port or 3306, user=parts.username,
        password=parts.password or "", autocommit=True, ssl_disabled=True,
    )  # fmt: skip
    with server, server.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        add_database("mariadb", parts._replace(path=f"/{name}", query="").geturl())
        make_tables("mariadb")
        yield "mariadb"
        connections["mariadb"].close()
        cursor.execute(f"DROP DATABASE {name}")


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


@pytest.fixture
def mariadb(mariadb_alias: str) -> Iterator[str]:
    """`alias` for a test about MariaDB."""
    yield from _using(mariadb_alias)


@pytest.fixture
def replica(sqlite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A database that the router reads our tables from, and that never hears of any of them."""

    def db_for_read(self: Any, model: Any, **hints: Any) -> str:
        return "replica" if model._meta.app_label == "automate_django" else sqlite

    path = str(tmp_path / "replica.sqlite3")
    connections.settings["replica"] = {**connections.settings[sqlite], "NAME": path}
    monkeypatch.setattr(TestedDatabase, "db_for_read", db_for_read)
    yield "replica"
    connections["replica"].close()
    del connections["replica"], connections.settings["replica"]


def _using(alias: str) -> Iterator[str]:
    TestedDatabase.alias = alias
    delete_rows(alias, OUTBOX)
    forget_kernel()
    yield alias
    forget_kernel()
    TestedDatabase.alias = "default"


@pytest.fixture
def environment(request: pytest.FixtureRequest) -> dict[str, str]:
    """What tells another process which database the test has chosen, by a fixture before this."""
    alias = TestedDatabase.alias
    path = os.pathsep.join([str(SOURCE), os.environ.get("PYTHONPATH", "")])
    found = {**os.environ, "PYTHONPATH": path, "DJANGO_SETTINGS_MODULE": "shopsite.settings"}
    if alias == "postgresql":
        found["SHOP_POSTGRESQL"] = request.getfixturevalue("postgresql_database_url")
    else:
        found["SHOP_SQLITE"] = str(connections[alias].settings_dict["NAME"])
    return found


@pytest.fixture(scope="session")
def project_forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where ``manage.py`` is forked, with what it imports before it knows its settings."""
    address = tmp_path_factory.mktemp("project-forks") / "socket"
    imported = (*warm_forks.COMMAND_LINE, *warm_forks.DJANGO)
    with warm_forks.serving(address, imported, os.environ) as served:
        yield served


@pytest.fixture
def start(environment: dict[str, str], project_forks: str) -> Iterator[Callable[..., Forked]]:
    """Start ``manage.py``; what it is and has started, and runs still at the end, is killed."""
    started: list[Forked] = []

    def start(*arguments: str, cwd: Path = PROJECT, stderr: int = subprocess.STDOUT) -> Forked:
        process = warm_forks.start(
            project_forks,
            [sys.executable, "manage.py", *arguments],
            cwd=cwd,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        processes.end(process)


@pytest.fixture
def until() -> Callable[..., None]:
    """Wait for a condition, as long as a process lives."""
    return _until


def _until(
    condition: Callable[[], bool],
    process: Forked,
    patience: float = PATIENCE_SECONDS,
) -> None:
    def why() -> str:
        process.kill()
        return f"it did not happen; the worker said:\n{process.communicate()[0]}"

    waiting.until(condition, patience, process=process, why=why)


class Markup(HTMLParser):
    """Collects what ``default-src 'self'`` would refuse, and what a reader would miss."""

    def __init__(self) -> None:
        super().__init__()
        self.wrong: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "style" or (tag == "script" and "src" not in given):
            self.wrong.append(f"inline <{tag}>")
        for name, value in attrs:
            if name == "style" or name.startswith("on"):
                self.wrong.append(f"<{tag} {name}>")
            if name in {"src", "href", "action"} and (value or "").startswith(
                ("http:", "https:", "//", "javascript:", "data:")
            ):
                self.wrong.append(f"<{tag} {name}={value}>")
        if tag == "img" and "alt" not in given:
            self.wrong.append("<img> without alt")
        if "id" in given:
            self.ids.append(str(given["id"]))


@pytest.fixture
def markup_of() -> Callable[[str], Markup]:
    """Reads a page, for what is wrong with its markup."""

    def markup_of(html: str) -> Markup:
        found = Markup()
        found.feed(html)
        return found

    return markup_of
