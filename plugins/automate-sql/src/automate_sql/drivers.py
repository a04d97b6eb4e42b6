"""
Drivers and dialects: how each keeps a query to itself, bounds time, and ends what runs.

The server holds a query to one statement that writes nothing, whatever its text:

* Each driver sends a text so that the server takes one statement of it. A new connection is tried.
* A query runs in a transaction that the server keeps from writing. It can't end it: the statement
  begins with a word of `statement`.
* What a session keeps beyond its transaction ends before another call has the connection. Behind a
  pooler it ends within the transaction.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import socket
import sqlite3
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa

from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_sql.config import SqlConfig

_CANCEL_SECONDS = 2.0
_MOST_BYTES = 64 * 1024 * 1024
_MYSQL = ("mysql", "mariadb")
# What a session of PostgreSQL keeps beyond its transaction, ended before the commit: behind a
# pooler whatever comes after it may reach another session. Deferred triggers could begin it again.
_END_SESSION = (
    "SET CONSTRAINTS ALL IMMEDIATE", "SELECT pg_advisory_unlock_all()", "CLOSE ALL", "UNLISTEN *",
    "DISCARD TEMP", "DISCARD SEQUENCES", "RESET ALL", "SET SESSION AUTHORIZATION DEFAULT",
)  # fmt: skip
_SAVEPOINT = "automate_begin"
_COM_RESET_CONNECTION = 31
# The modes of MySQL and MariaDB that change what a quotation is, and those that set them.
_QUOTING = frozenset(
    ("ANSI_QUOTES", "NO_BACKSLASH_ESCAPES", "ANSI", "DB2", "MAXDB", "MSSQL", "ORACLE", "POSTGRESQL")
)
_GRANTED = (
    "SELECT count(*) FROM information_schema.user_privileges"
    " WHERE privilege_type IN ('FILE', 'SUPER', 'SYSTEM_VARIABLES_ADMIN', 'CONNECTION ADMIN')"
)
_MAY_MORE = {
    "postgresql": "SELECT bool_or(rolsuper OR rolreplication OR rolname ="
    " ANY ('{pg_execute_server_program,pg_read_server_files,pg_write_server_files}'))"
    " FROM pg_roles WHERE pg_has_role(current_user, oid, 'MEMBER')",
    "mysql": _GRANTED,
    "mariadb": _GRANTED,
}
_READ_PRAGMA = re.compile(r"query_only|\w+_x?(?:info|list)|\w+_check")
_ACTING_PRAGMAS = ("optimize", "incremental_vacuum", "wal_checkpoint", "shrink_memory")


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
    if driver in ("psycopg", "psycopg_async", "psycopg2"):
        # Below two seconds libpq takes two.
        found: dict[str, Any] = {"connect_timeout": max(2, math.ceil(connect))}
        return found if driver == "psycopg2" else {**found, **_extended(driver)}
    if driver == "asyncpg":
        # No prepared statement has a name: they are forgotten with what else a session keeps.
        return {
            "timeout": connect, "command_timeout": whole, "statement_cache_size": 0,
            "prepared_statement_cache_size": 0, "prepared_statement_name_func": str,
        }  # fmt: skip
    if driver == "pymysql":
        seconds = math.ceil(whole) + 1
        return {
            "connect_timeout": math.ceil(connect), "read_timeout": seconds,
            "write_timeout": seconds, "charset": "utf8mb4", "local_infile": False,
        }  # fmt: skip
    if driver == "mysqldb":
        return {"connect_timeout": math.ceil(connect), "multi_statements": False}
    if driver in ("aiomysql", "asyncmy", "mysqlconnector"):
        return {"connect_timeout": math.ceil(connect)}
    if driver in ("pysqlite", "aiosqlite"):
        return {"timeout": min(whole, 5.0), "factory": _BoundedConnection}
    return {}


def _extended(driver: str) -> dict[str, Any]:
    """Return the arguments with which psycopg sends every text by the extended protocol."""
    import psycopg

    kind: Any = psycopg.Cursor if driver == "psycopg" else psycopg.AsyncCursor

    # Without parameters it sends a text in a way in which the server takes several statements.
    # `_takes_two` shows on each connection that this is still the method to replace.
    class OneStatementCursor(kind):  # type: ignore[misc]
        def _execute_send(self, query: Any, *, force_extended: bool = True, **options: Any) -> None:
            super()._execute_send(query, force_extended=True, **options)

    return {"cursor_factory": OneStatementCursor, "prepare_threshold": None}


class _BoundedConnection(sqlite3.Connection):
    """
    A connection to SQLite that makes no value of a gigabyte in this process's memory.

    No statement opens another file with it, or loads code.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if sys.version_info >= (3, 11):  # older ones can't set it
            self.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MOST_BYTES)
        self.set_authorizer(_authorize)


def _authorize(what: int, first: str | None, second: str | None, *_: str | None) -> int:
    if what in (sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH):
        return sqlite3.SQLITE_DENY
    if what == sqlite3.SQLITE_FUNCTION and second in ("load_extension", "fts3_tokenizer"):
        return sqlite3.SQLITE_DENY
    if what == sqlite3.SQLITE_PRAGMA:
        name = (first or "").lower()
        # With a value it is a question or a change.
        if name in _ACTING_PRAGMAS or (second is not None and not _READ_PRAGMA.fullmatch(name)):
            return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK


def begin(connection: sa.Connection, *, writes: bool, seconds: float) -> None:
    """
    Begin a transaction that the database keeps from writing, unless it *writes*, and bounds.

    It ends a statement after *seconds*, and a transaction of a process that is frozen or gone.
    """
    if "checked" not in connection.info:
        _check(connection)
        connection.info["checked"] = True
    name, run = connection.dialect.name, connection.exec_driver_sql
    milliseconds = max(1, int(seconds * 1000))
    if name == "sqlite":
        run(f"PRAGMA query_only = {int(not writes)}")
    elif name == "postgresql":
        mode = "READ WRITE" if writes else "ISOLATION LEVEL REPEATABLE READ, READ ONLY"
        run(f"SET TRANSACTION {mode}")
        run(
            f"SELECT set_config('statement_timeout', '{milliseconds}', true),"
            f" set_config('idle_in_transaction_session_timeout', '{milliseconds}', true),"
            " set_config('standard_conforming_strings', 'on', true)"
        )
        if connection.info["pooled"]:
            run(f"SAVEPOINT {_SAVEPOINT}")
    else:
        bound = f"max_execution_time = {milliseconds}"
        if getattr(connection.dialect, "is_mariadb", False):
            idle = math.ceil(seconds)
            bound = f"max_statement_time = {seconds:.3f}, SESSION idle_transaction_timeout = {idle}"
        run(f"{connection.info['settings']}, SESSION {bound}")
        run(f"START TRANSACTION READ {'WRITE' if writes else 'ONLY'}")


def _check(connection: sa.Connection) -> None:
    """Raise unless a new *connection* is held to one statement for each text."""
    if _takes_two(connection):
        raise _unsafe(
            f"the driver {connection.dialect.driver} lets several statements through in one text",
            "use postgresql+psycopg, postgresql+asyncpg or mysql+pymysql, without options for that",
        )
    connection.rollback()
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")
        if connection.exec_driver_sql("SHOW transaction_read_only").scalar_one() != "on":
            raise _unsafe("the driver begins no transaction", "leave autocommit out of the URL")
        connection.info["pooled"] = _is_pooled(connection)
    elif connection.dialect.name in _MYSQL:
        asked = "SELECT @@sql_mode, @@character_set_client, @@collation_connection"
        modes, charset, collation = connection.exec_driver_sql(asked).one()
        kept = ",".join(each for each in modes.split(",") if each not in _QUOTING)
        connection.info["settings"] = (
            f"SET NAMES {charset} COLLATE {collation}, SESSION sql_mode = '{kept}'"
        )
    connection.rollback()


def _is_pooled(connection: sa.Connection) -> bool:
    """Return True if a pooler stands between, which may give each transaction another session."""
    raw: Any = connection.connection.driver_connection
    asked = getattr(raw, "get_server_pid", None) or getattr(raw, "get_backend_pid", None)
    known = raw.pgconn.backend_pid if hasattr(raw, "pgconn") else asked() if asked else None
    # A pooler answers the client's login itself, with a number of its own. Without one it is sure.
    return bool(known != connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())


def commit(connection: sa.Connection) -> None:
    """Commit; behind a pooler, end first what the session keeps."""
    if connection.info.get("pooled"):
        for sql in _END_SESSION:
            connection.exec_driver_sql(sql)
    connection.commit()


def user_warning(connection: sa.Connection) -> str:
    """Return words on what the user may do that no read-only transaction stops; else nothing."""
    if (asked := _MAY_MORE.get(connection.dialect.name)) is None:
        return ""
    if not connection.exec_driver_sql(asked).scalar():
        return ""
    return (
        "; but its user may reach files of the server, or more, from any query:"
        " give the connector a user that may only read"
    )


def _takes_two(connection: sa.Connection) -> bool:
    try:
        connection.exec_driver_sql("SELECT 1; SELECT 2").close()
    except sqlite3.Warning:  # before Python 3.11
        return False
    except sa.exc.ProgrammingError:
        return False
    return True


def _unsafe(problem: str, hint: str) -> AutomateError:
    return AutomateError(ErrorCodes.FAILED_PRECONDITION, problem, hint=hint)


def give_back(connection: sa.Connection) -> None:
    """
    Roll back, end what the session keeps beyond its transaction, and close *connection*.

    A connection for which that doesn't work is not used again.
    """
    kept = False
    try:
        with contextlib.suppress(Exception):
            kept = connection.invalidated or _is_reset(connection)
    finally:
        if not kept:
            connection.invalidate()
        connection.close()


def _is_reset(connection: sa.Connection) -> bool:
    if connection.info.get("pooled") and connection.in_transaction():
        # A rollback ends all but locks, and a transaction that has failed takes nothing else.
        connection.exec_driver_sql(f"ROLLBACK TO SAVEPOINT {_SAVEPOINT}")
        connection.exec_driver_sql("SELECT pg_advisory_unlock_all()")
    connection.rollback()
    if connection.info.get("pooled"):
        return True
    name = connection.dialect.name
    raw: Any = connection.connection.dbapi_connection
    if name == "postgresql":
        if connection.dialect.driver == "asyncpg":
            # At once: a pooler may give what is prepared to another connection than what follows.
            raw.run_async(lambda inner: inner.execute("DISCARD ALL"))
            return True
        raw.autocommit = True
        connection.exec_driver_sql("DISCARD ALL")
        connection.rollback()
        raw.autocommit = False
    elif name in _MYSQL:
        return _is_reset_mysql(raw)
    return True


def _is_reset_mysql(raw: Any) -> bool:
    # PyMySQL has no method of its own for the command, and would not repeat one of the URL.
    if not hasattr(raw, "_read_ok_packet") or raw.init_command is not None:
        return False
    raw._execute_command(_COM_RESET_CONNECTION, b"")  # noqa: SLF001
    raw._read_ok_packet()  # noqa: SLF001
    return True


def cancel(connection: Any, spare: sa.Engine) -> None:
    """
    Ask the database to end what the driver's *connection* runs, from another thread.

    *spare* opens another connection where the request needs it.
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
