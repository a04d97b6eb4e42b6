"""The kernel's contracts, and a server that misbehaves below SQL."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import traceback
from contextlib import closing, contextmanager, suppress
from typing import Any, ClassVar

import pytest
import sqlalchemy as sa
from automate_kernel import AutomateError, Connector, ErrorCodes
from automate_kernel.plugins.connectors import ConnectorContext
from automate_testing import ConnectorContract, PollContract
from automate_sql import SqlConnector
from waiting import within

SECRET = "canary-7Qm2xVb91tZkP0eL"


def table(url: str) -> sa.Engine:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE IF EXISTS item")
        connection.exec_driver_sql("CREATE TABLE item (id INTEGER PRIMARY KEY, name VARCHAR(100))")
    return engine


class TestSqlConnector(ConnectorContract):
    supports_webhooks = False
    example_inputs: ClassVar[Any] = {
        "query": {"query": "SELECT id FROM item WHERE id > :id", "params": {"id": 0}},
        "page": {"table": "item", "key": "id"},
        "tables": {},
        "describe": {"table": "item"},
        "export": {"query": "SELECT id FROM item", "file": "items.csv", "format": "csv"},
        "execute": {
            "statement": "INSERT INTO item (name) VALUES (:name)",
            "params": {"name": "Ada"},
        },
        "execute_many": {
            "statement": "DELETE FROM item WHERE id = :id",
            "rows": [{"id": 1}, {"id": 2}],
        },
    }
    bad_configs = (
        {"url": "postgresql+psycopg://ada:a-password-Xy71@127.0.0.1:9/shop"},
        {"url": "postgresql+asyncpg://ada:a-password-Xy71@127.0.0.1:9/shop"},
        {"url": "mysql+pymysql://ada:a-password-Xy71@127.0.0.1:9/shop"},
        {"url": "sqlite:////nowhere/shop.sqlite3"},
        {"url": "sqlite://"},
        {"url": "nonsense://ada:a-password-Xy71@127.0.0.1/shop"},
        {"url": "no url, but a-password-Xy71"},
    )

    @pytest.fixture
    def connector(self, sqlite_url, tmp_path) -> Connector:
        table(sqlite_url).dispose()
        config = {"url": sqlite_url, "allow_writes": True, "files_to": str(tmp_path)}
        return SqlConnector(config, ctx=ConnectorContext(key="sql"))


class TestNewRowsByNumber(PollContract):
    poll = "new_row"

    @pytest.fixture
    def connector(self, sqlite_url):
        self.engine = table(sqlite_url)
        yield SqlConnector({"url": sqlite_url, "watch": {"table": "item", "column": "id"}})
        self.engine.dispose()

    def happen(self, connector):
        with self.engine.begin() as connection:
            connection.exec_driver_sql("INSERT INTO item (name) VALUES ('x')")


class TestNewRowsByTime(TestNewRowsByNumber):
    @pytest.fixture
    def connector(self, sqlite_url):
        self.engine = sa.create_engine(sqlite_url)
        with self.engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE item (id INTEGER PRIMARY KEY, made DATETIME)")
        watch = {"table": "item", "column": "made", "key": "id", "lag_seconds": 5}
        yield SqlConnector({"url": sqlite_url, "watch": {**watch, "start": "beginning"}})
        self.engine.dispose()

    def happen(self, connector):
        with self.engine.begin() as connection:
            connection.exec_driver_sql(
                "INSERT INTO item (made) VALUES (datetime('now', '-10 seconds'))"
            )


# -- a server that misbehaves ------------------------------------------------------------------

_MANNERS = ("silent", "closes", "garbage", "endless", "almost", "short")
# A greeting of MySQL's protocol, version 10, whose last name is no UTF-8; and one cut in its midst.
_GREETING = (
    b"\n8.0\0" + bytes(4) + b"saltsalt\0" + b"\xff\xff" + b"\x2d\x02\0" + b"\xff\xff" + b"\x15"
    + bytes(10) + b"saltsaltsalt\0" + b"\xff\xfe\0"
)  # fmt: skip


@contextmanager
def hostile_server(manner: str):
    """A server of TCP that answers in no protocol: never, by closing, with noise, without end."""
    stopping = threading.Event()

    def serve(peer: socket.socket) -> None:
        with suppress(OSError), closing(peer):
            if manner == "silent":
                stopping.wait(30)
            while manner == "endless" and not stopping.is_set():
                peer.sendall(os.urandom(65_536))
            if manner == "garbage":
                peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" + os.urandom(200))
            greeting = {"almost": _GREETING, "short": _GREETING[:10]}.get(manner, b"")
            if greeting:
                peer.sendall(len(greeting).to_bytes(3, "little") + b"\0" + greeting)
                peer.recv(1)

    def accept() -> None:
        with suppress(OSError):
            while True:
                peer, _ = listener.accept()
                threading.Thread(target=serve, args=(peer,), daemon=True).start()

    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        stopping.set()
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("manner", _MANNERS)
@pytest.mark.parametrize("driver", ["postgresql+psycopg", "postgresql+asyncpg", "mysql+pymysql"])
def test_a_hostile_server_is_unavailable_in_time(driver, manner, make, caplog):
    """The call ends, is tried again, and shows no secret."""
    with hostile_server(manner) as port, caplog.at_level(logging.DEBUG):
        kernel = make(
            f"{driver}://ada:{SECRET}@127.0.0.1:{port}/shop",
            connect_timeout_seconds=2, timeout_seconds=60,
        )  # fmt: skip

        def ask() -> AutomateError:
            with pytest.raises(AutomateError) as caught:
                kernel.invoke("sql.query", {"query": "SELECT 1 AS n"})
            return caught.value

        error = within(8, ask)
    shown = "".join(traceback.format_exception(error)) + caplog.text + repr(vars(error))
    assert SECRET not in shown
    assert error.code is ErrorCodes.UNAVAILABLE, error
    assert error.retryable


@pytest.mark.parametrize("driver", ["postgresql+psycopg", "postgresql+asyncpg", "mysql+pymysql"])
def test_nobody_at_the_port_is_unavailable(driver, make):
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(AutomateError) as caught:
            make(f"{driver}://ada:{SECRET}@127.0.0.1:{port}/shop").invoke("sql.tables")
    assert caught.value.code is ErrorCodes.UNAVAILABLE
    assert SECRET not in str(caught.value)


class Proxy:
    """Passes bytes on between a driver and a database, until it is told to be silent."""

    def __init__(self, port: int) -> None:
        self._port, self.silent = port, False
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._port))
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._pass, args=pair, daemon=True).start()

    def _pass(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65_536):
                if not self.silent:
                    other.sendall(data)


def test_a_server_that_falls_silent_ends_in_time(mariadb_url, make, answered):
    """In the middle of a connection that was good."""
    url = sa.make_url(mariadb_url)
    proxy = Proxy(url.port)
    kernel = make(url.set(port=proxy.port).render_as_string(False), timeout_seconds=4)
    assert answered(kernel)
    proxy.silent = True
    begin = time.monotonic()
    with pytest.raises(AutomateError) as caught:
        kernel.invoke("sql.query", {"query": "SELECT 1 AS n"})
    assert caught.value.retryable
    assert time.monotonic() - begin < 12


def test_a_password_from_the_secrets_is_read_for_each_connection(mariadb_url, make):
    """A wrong one is no reason to try again, and is not shown."""
    engine = sa.create_engine(mariadb_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE OR REPLACE USER ada@localhost IDENTIFIED BY '{SECRET}'")
        connection.exec_driver_sql("GRANT ALL ON *.* TO ada@localhost")
    url = sa.make_url(mariadb_url).set(username="ada").render_as_string(False)
    kernel = make(url, secret="PASSWORD")
    assert kernel.invoke("sql.query", {"query": "SELECT 1 AS n"})["row_count"] == 1
    with engine.connect() as connection:
        connection.exec_driver_sql("ALTER USER ada@localhost IDENTIFIED BY 'another'")
    engine.dispose()
    kernel = make(url, secret="PASSWORD")
    with pytest.raises(AutomateError) as caught:
        kernel.invoke("sql.query", {"query": "SELECT 1 AS n"})
    assert caught.value.code is ErrorCodes.UNAUTHENTICATED
    assert not caught.value.retryable
    assert SECRET not in str(caught.value)
