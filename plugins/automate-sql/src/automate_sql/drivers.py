"""Drivers and dialects: how each bounds time, refuses writes, and ends a running statement."""

from __future__ import annotations

import contextlib
import math
import os
import socket
import sqlite3
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa

from automate_sql.config import SqlConfig

_CANCEL_SECONDS = 2.0
_MOST_BYTES = 64 * 1024 * 1024
_MYSQL = ("mysql", "mariadb")


def opened_url(url: sa.URL) -> sa.URL:
    """Return *url* so that a file of SQLite that isn't there is an error, not a new database."""
    if url.get_backend_name() != "sqlite" or "uri" in url.query:
        return url
    path = quote(str(Path(url.database or "").absolute()))
    return url.set(database=f"file:{path}", query={**url.query, "mode": "rw", "uri": "true"})


def connect_args(url: sa.URL, config: SqlConfig) -> dict[str, Any]:
    """Return the arguments with which the driver of *url* bounds its connection and its waits."""
    connect, whole = config.connect_timeout_seconds, config.timeout_seconds
    driver = url.get_driver_name()
    if driver in ("psycopg", "psycopg2"):
        # Below two seconds libpq takes two.
        return {"connect_timeout": max(2, math.ceil(connect))}
    if driver == "asyncpg":
        return {"timeout": connect, "command_timeout": whole}
    if driver == "pymysql":
        seconds = math.ceil(whole) + 1
        return {
            "connect_timeout": math.ceil(connect), "read_timeout": seconds,
            "write_timeout": seconds, "charset": "utf8mb4",
        }  # fmt: skip
    if driver in ("mysqldb", "aiomysql", "asyncmy", "mysqlconnector"):
        return {"connect_timeout": math.ceil(connect)}
    if driver in ("pysqlite", "aiosqlite"):
        return {"timeout": min(whole, 5.0), "factory": _BoundedConnection}
    return {}


class _BoundedConnection(sqlite3.Connection):
    """A connection to SQLite, which makes no value of a gigabyte in this process's memory."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if sys.version_info >= (3, 11):  # older ones can't set it
            self.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MOST_BYTES)


def begin(connection: sa.Connection, *, writes: bool, seconds: float) -> None:
    """Begin a transaction that the database keeps from writing, unless it *writes*, and bounds."""
    name, milliseconds = connection.dialect.name, max(1, int(seconds * 1000))
    run = connection.exec_driver_sql
    if name == "sqlite":
        run(f"PRAGMA query_only = {int(not writes)}")
        return
    if name in (*_MYSQL, "oracle", "postgresql"):
        run("SET TRANSACTION READ WRITE" if writes else "SET TRANSACTION READ ONLY")
    if name == "postgresql":
        run(f"SET LOCAL statement_timeout = {milliseconds}")
    elif getattr(connection.dialect, "is_mariadb", False):
        run(f"SET SESSION max_statement_time = {seconds:.3f}")
    elif name in _MYSQL:
        run(f"SET SESSION max_execution_time = {milliseconds}")


def cancel(connection: Any, spare: sa.Engine) -> None:
    """
    Ask the database to end what the driver's *connection* runs, from another thread.

    *spare* opens another connection where the request needs one.
    """
    with contextlib.suppress(Exception):
        if hasattr(connection, "cancel_safe"):
            connection.cancel_safe(timeout=_CANCEL_SECONDS)
        elif hasattr(connection, "interrupt"):
            connection.interrupt()
        elif hasattr(connection, "thread_id"):
            with spare.connect() as other:
                other.exec_driver_sql(f"KILL QUERY {int(connection.thread_id())}")
        elif hasattr(connection, "cancel"):
            connection.cancel()


def interrupt(connection: Any) -> None:
    """End what SQLite runs for an asynchronous driver, which has no means of its own."""
    inner: Any = getattr(getattr(connection, "driver_connection", None), "_conn", None)
    with contextlib.suppress(Exception):
        inner.interrupt()


def cut(connection: Any) -> None:
    """Cut the network connection of a driver's *connection*, so that whoever waits for it wakes."""
    with contextlib.suppress(Exception):
        if hasattr(connection, "terminate"):
            connection.terminate()
        descriptor = _descriptor(connection)
        if descriptor is not None:
            # A duplicate: the driver closes its own, and may be at it.
            with socket.socket(fileno=os.dup(descriptor)) as duplicate:
                duplicate.shutdown(socket.SHUT_RDWR)


def _descriptor(connection: Any) -> int | None:
    if hasattr(connection, "pgconn"):
        return int(connection.pgconn.socket)
    if hasattr(connection, "fileno"):
        return int(connection.fileno())
    inner = getattr(connection, "_sock", None)
    return int(inner.fileno()) if inner is not None else None
