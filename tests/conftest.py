"""Real databases for the tests, and where commands are forked: each started only if a test asks."""

from __future__ import annotations

import contextlib
import gc
import logging
import math
import os
import shutil
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import example_counts
import processes  # noqa: F401 - whatever is started from here on hears SIGINT again
import pytest
import sqlalchemy as sa
import tables_emptied
import warm_forks
from database_servers import (  # noqa: F401
    fresh_database,
    mariadb_server,
    pooled,
    postgresql_server,
)

pytest.register_assert_rewrite("automate_testing", "suites")
# A plugin that test_previous_plugin.py installs, and whose tests it runs.
collect_ignore = ["previous"]


@pytest.hookimpl(trylast=True)  # after -k and -m
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """
    Try what is marked ``any_storage`` in memory and on one database in turn.

    It runs on each with ``--every-storage`` or ``--full``, and for whoever asks for tests by name.
    """
    by_name = config.option.keyword or any("::" in each for each in config.args)
    if config.getoption("--every-storage") or example_counts.full_length or by_name:
        return
    left = [each for each in items if not _is_its_turn(each)]
    config.hook.pytest_deselected(items=left)
    out = set(left)
    items[:] = [each for each in items if each not in out]


def _is_its_turn(item: pytest.Item) -> bool:
    if not item.get_closest_marker("any_storage") or item.get_closest_marker("every_storage"):
        return True
    given = item.callspec.params if hasattr(item, "callspec") else {}
    storage = given.get("clocked_storage", given.get("storage", "memory"))
    if storage == "memory":
        return True
    case = zlib.crc32(item.nodeid.replace(storage, "").encode())
    return DATABASES.index(storage) == case % len(DATABASES)


def pytest_collection_finish() -> None:
    """Let no garbage collection look at the tests again: there are half a million objects of them."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where commands are forked, with what each of them imports."""
    address = tmp_path_factory.mktemp("forks") / "socket"
    with warm_forks.serving(address, warm_forks.COMMAND_LINE, os.environ) as served:
        yield served


@pytest.fixture
def new_database() -> Callable[[str], contextlib.AbstractContextManager[str]]:
    """A function that makes a new database on a server; see `fresh_database`."""
    return fresh_database


@contextlib.contextmanager
def our_tables(url: str, **options: object) -> Iterator[sa.Engine]:
    """An engine on a database that has our tables."""
    from automate_sqlalchemy import metadata

    engine = sa.create_engine(url, **options)
    metadata.create_all(engine)
    try:
        yield engine
    finally:
        engine.dispose()


def _emptied(engine: sa.Engine) -> sa.Engine:
    """*engine*, with nothing in our tables."""
    from automate_sqlalchemy import metadata

    with engine.begin() as connection:
        do = connection.exec_driver_sql
        tables_emptied.empty(metadata.tables, lambda query: do(query).fetchall(), do)
    return engine


@pytest.fixture
def emptied() -> Callable[[sa.Engine], sa.Engine]:
    """A function that empties our tables and gives the engine back."""
    return _emptied


# -- SQLite --------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def _sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("sqlite") / "template.sqlite3"
    with our_tables(f"sqlite:///{file}"):
        return file


@pytest.fixture
def sqlite_engine(_sqlite_template: Path, tmp_path: Path) -> Iterator[sa.Engine]:
    """An engine on a new SQLite file with our tables."""
    file = shutil.copy(_sqlite_template, tmp_path / "automate.sqlite3")
    engine = sa.create_engine(f"sqlite:///{file}")

    @sa.event.listens_for(engine, "connect")
    def without_fsync(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("PRAGMA synchronous = OFF")

    yield engine
    engine.dispose()


# -- PostgreSQL ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def postgresql_url(postgresql_server: str) -> Iterator[str]:
    """The SQLAlchemy URL of an empty database, one for each test module."""
    with fresh_database(postgresql_server) as url:
        yield url


@pytest.fixture(scope="module")
def _postgresql_tables(postgresql_server: str) -> Iterator[sa.Engine]:
    # A zone of its own, so that a time which is not in UTC shows.
    options = {"options": "-c timezone=America/Lima"}
    with (
        fresh_database(postgresql_server) as url,
        our_tables(url, connect_args=options) as engine,
    ):
        yield engine


@pytest.fixture
def postgresql_engine(_postgresql_tables: sa.Engine) -> sa.Engine:
    """An engine on PostgreSQL with our tables, which are empty."""
    return _emptied(_postgresql_tables)


@pytest.fixture(scope="module")
def _pooled_tables(_postgresql_tables: sa.Engine) -> Iterator[sa.Engine]:
    with pooled(_postgresql_tables.url) as url:
        engine = sa.create_engine(url)
        yield engine
        engine.dispose()


@pytest.fixture
def pooled_engine(_pooled_tables: sa.Engine) -> sa.Engine:
    """An engine on PostgreSQL behind PgBouncer, with our tables, which are empty."""
    return _emptied(_pooled_tables)


# -- MariaDB -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def _mariadb_tables(mariadb_server: str) -> Iterator[sa.Engine]:
    with fresh_database(mariadb_server) as url, our_tables(url) as engine:
        yield engine


@pytest.fixture
def mariadb_engine(_mariadb_tables: sa.Engine) -> sa.Engine:
    """An engine on MariaDB with our tables, which are empty."""
    return _emptied(_mariadb_tables)


# -- all of them ---------------------------------------------------------------------------------


DATABASES = ["sqlite", "postgresql", "mariadb"]
STORAGES = ["memory", *DATABASES]


@pytest.fixture(params=STORAGES)
def storage(request: pytest.FixtureRequest) -> Any:
    """A storage of each kind, in turn, which is empty."""
    return _storage(request)


@pytest.fixture(params=STORAGES)
def clocked_storage(request: pytest.FixtureRequest, clock: Any) -> Any:
    """The same, by `clock`."""
    return _storage(request, clock=clock)


@pytest.fixture
def kernel() -> Iterator[Any]:
    """A kernel in memory, with nothing in it."""
    from automate_kernel import Kernel

    with Kernel(discover=False, secrets={}) as made:
        yield made


@pytest.fixture
def always_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look counts: what a busy machine took long to count would be kept for a while."""
    from automate_kernel.monitoring import overview

    monkeypatch.setattr(overview, "_COUNT_SHARE", math.inf)


@pytest.fixture
def clock() -> Any:
    """A clock that only the test moves."""
    from automate_testing.clock import FakeClock

    return FakeClock()


def _storage(request: pytest.FixtureRequest, **options: Any) -> Any:
    from automate_kernel.storage import MemoryStorage
    from automate_sqlalchemy import SqlAlchemyStorage

    if request.param == "memory":
        return MemoryStorage(**options)
    return SqlAlchemyStorage(request.getfixturevalue(f"{request.param}_engine"), **options)


# -- whatever the test ---------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """What a test does to the logging of the process ends with it: the command sets it up anew."""
    root = logging.getLogger()
    level = root.level
    levels = {
        name: logger.level
        for name, logger in root.manager.loggerDict.items()
        if isinstance(logger, logging.Logger)
    }
    yield
    # pytest's own handlers come and go by themselves.
    root.handlers[:] = [one for one in root.handlers if "automate_cli" not in type(one).__module__]
    if root.level != level:
        root.setLevel(level)
    for name, before in levels.items():
        logger = logging.getLogger(name)
        # Each setting makes every logger forget what it knows.
        if logger.level != before:
            logger.setLevel(before)
