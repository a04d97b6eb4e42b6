"""A database, a ledger, the processes on them, and what must hold when all is over."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import fault_kernel
import processes
import sqlalchemy as sa
from automate_kernel.outbox.item import FINISHED
from automate_kernel.storage.tables import ORDERING_LOCK, OUTBOX, STEP
from automate_sqlalchemy import metadata
from fault_invariants import Invariants, plain
from leases import lapse
from worker_process import Order

_FOLDER = Path(__file__).parent
_SOURCE = _FOLDER.parents[1] / "src"
PATIENCE_SECONDS = 60.0
_numbers = itertools.count(1)

# The database's own account of what happened to each item, kept by triggers in the very
# transactions that changed them; and of each step that was saved a second time.
_HISTORY = """CREATE TABLE history (
    id {serial}, item VARCHAR(40), before VARCHAR(16), after VARCHAR(16),
    token VARCHAR(40), attempts INTEGER, attempts_before INTEGER)"""
_NOTE = (
    "INSERT INTO history (item, before, after, token, attempts, attempts_before) VALUES"
    " (OLD.id, OLD.status, NEW.status, NEW.lease_token, NEW.attempt_count, OLD.attempt_count);"
)
# An item may be claimed by whoever inserts it.
_NOTE_CLAIMED = (
    "INSERT INTO history (item, after, token, attempts, attempts_before) VALUES"
    " (NEW.id, NEW.status, NEW.lease_token, NEW.attempt_count, 0);"
)
_NOTE_STEP = "INSERT INTO saved_again VALUES (OLD.id);"
_TRIGGERS = {
    "sqlite": [
        f"CREATE TRIGGER keep_history AFTER UPDATE OF status, lease_token ON {OUTBOX}"
        " WHEN OLD.status <> NEW.status OR OLD.lease_token IS NOT NEW.lease_token"
        f" BEGIN {_NOTE} END",
        f"CREATE TRIGGER keep_claimed AFTER INSERT ON {OUTBOX}"
        f" WHEN NEW.status = 'RUNNING' BEGIN {_NOTE_CLAIMED} END",
        f"CREATE TRIGGER keep_steps AFTER UPDATE ON {STEP}"
        f" WHEN OLD.status = 'COMPLETED' BEGIN {_NOTE_STEP} END",
    ],
    "postgresql": [
        "CREATE OR REPLACE FUNCTION keep_history() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN {_NOTE} RETURN NULL; END $$",
        f"CREATE OR REPLACE TRIGGER keep_history AFTER UPDATE ON {OUTBOX} FOR EACH ROW WHEN"
        " (OLD.status <> NEW.status OR OLD.lease_token IS DISTINCT FROM NEW.lease_token)"
        " EXECUTE FUNCTION keep_history()",
        "CREATE OR REPLACE FUNCTION keep_claimed() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN {_NOTE_CLAIMED} RETURN NULL; END $$",
        f"CREATE OR REPLACE TRIGGER keep_claimed AFTER INSERT ON {OUTBOX} FOR EACH ROW WHEN"
        " (NEW.status = 'RUNNING') EXECUTE FUNCTION keep_claimed()",
        "CREATE OR REPLACE FUNCTION keep_steps() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN {_NOTE_STEP} RETURN NULL; END $$",
        f"CREATE OR REPLACE TRIGGER keep_steps AFTER UPDATE ON {STEP} FOR EACH ROW WHEN"
        " (OLD.status = 'COMPLETED') EXECUTE FUNCTION keep_steps()",
    ],
}


def until(condition: Callable[[], Any]) -> None:
    """Wait for *condition*, which looks at what the processes did."""
    deadline, tick = time.monotonic() + PATIENCE_SECONDS, threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        tick.wait(0.02)


class Forks:
    """The process that forks all the others, so that none has to import anything."""

    def __init__(self) -> None:
        places = [_SOURCE, _FOLDER, _FOLDER.parent / "support", os.environ.get("PYTHONPATH", "")]
        path = os.pathsep.join(map(str, places))
        self._process = processes.start(
            [sys.executable, str(_FOLDER / "worker_process.py")],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **question: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(PATIENCE_SECONDS)
        finally:
            processes.end(self._process)


class Process:
    """A process that is under way."""

    def __init__(self, forks: Forks, order: Order) -> None:
        self._forks, self._order = forks, order
        self.pid: int = forks.ask(**asdict(order))
        self.code: int | None = None

    @property
    def alive(self) -> bool:
        if self.code is None:
            self.code = self._forks.ask(pid=self.pid)
        return self.code is None

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    @property
    def is_stopped(self) -> bool:
        """True if none of its threads runs; where the system doesn't tell, that is assumed."""
        try:
            states = [each.read_text() for each in Path(f"/proc/{self.pid}/task").glob("*/stat")]
        except OSError:  # a thread has just ended
            return False
        return all(state.rpartition(")")[2].split()[0] in "TtZX" for state in states)

    def kill(self) -> None:
        if self.alive:
            self.send(signal.SIGKILL)
            self.ended()

    def ended(self) -> int:
        """How it ended: its exit code, or minus the number of a signal."""
        until(lambda: not self.alive)
        assert self.code is not None
        return self.code

    def said(self) -> str:
        return Path(self._order.output).read_text()

    def complained(self) -> str:
        return Path(self._order.output + ".errors").read_text()

    def stopped(self) -> dict[str, int]:
        """What it says of itself after a graceful stop, which must succeed."""
        self.send(signal.SIGTERM)
        assert self.ended() == 0, self.complained()
        stats: dict[str, int] = json.loads(self.said().splitlines()[-1])
        return stats


class Scene(Invariants):
    """A database, a ledger, and the processes on them."""

    def __init__(self, url: str, folder: Path, forks: Forks, lease_seconds: float = 1.0) -> None:
        self.url, self.lease_seconds = url, lease_seconds
        self._folder, self._forks = folder, forks
        self.ledger = fault_kernel.Ledger(folder / f"ledger-{next(_numbers)}")
        self.kernel = fault_kernel.open_kernel(url, self.ledger, lease_seconds, 0.0)
        self.outbox = self.kernel.outbox
        self.engine = self.kernel.storage.engine
        self.postgresql = self.engine.dialect.name == "postgresql"
        self.processes: list[Process] = []
        self.requeued: set[str] = set()
        """Items that were finished and put back, by command."""
        self.meanwhile: Callable[[], Any] = bool
        """Is called while the sessions of a killed process are waited for."""
        metadata.create_all(self.engine)
        with self.engine.begin() as connection:
            self._add_tables(connection.exec_driver_sql)
        self.empty()

    def _add_tables(self, run: Callable[[str], Any]) -> None:
        for name in ("history", "saved_again", "effects", "orders", "booked"):
            run(f"DROP TABLE IF EXISTS {name}")
        serial = "SERIAL" if self.postgresql else "INTEGER PRIMARY KEY AUTOINCREMENT"
        run(_HISTORY.format(serial=serial))
        run("CREATE TABLE saved_again (step VARCHAR(40))")
        run("CREATE TABLE effects (item VARCHAR(40), token VARCHAR(40))")
        run("CREATE TABLE orders (id INTEGER PRIMARY KEY)")
        run("CREATE TABLE booked (step VARCHAR(100))")
        if not self.postgresql:
            for name in ("keep_history", "keep_claimed", "keep_steps"):
                run(f"DROP TRIGGER IF EXISTS {name}")
        for statement in _TRIGGERS[self.engine.dialect.name]:
            run(statement)

    def empty(self) -> None:
        """Forget all that happened so far."""
        with self.engine.begin() as connection:
            for table in metadata.sorted_tables:
                connection.execute(table.delete())
            for name in ("history", "saved_again", "effects", "orders", "booked"):
                connection.exec_driver_sql(f"DELETE FROM {name}")
        self.ledger.empty()
        self.requeued.clear()

    def start(self, **order: Any) -> Process:
        """A worker, or what *order* says."""
        output = str(self._folder / f"output-{next(_numbers)}")
        order = {"url": self.url, "lease_seconds": self.lease_seconds, **order}
        process = Process(self._forks, Order(ledger=str(self.ledger.file), output=output, **order))
        self.processes.append(process)
        return process

    def kill(self, process: Process) -> None:
        """By SIGKILL; it is noted when."""
        process.kill()
        self.ledger.write("killed", process.pid, time.monotonic())
        self.ended(process)

    def ended(self, process: Process) -> int:
        """
        How *process* ended, once its sessions have ended too.

        Until then what it had sent may yet be done, a claim say, and its locks are held. A session
        that waits for a lock doesn't notice that its client is gone: so who holds it, perhaps
        frozen, has to go on `meanwhile`.
        """
        self.processes.remove(process)
        code = process.ended()
        if self.postgresql:
            its = f"application_name = '{fault_kernel.sessions_of(process.pid)}'"
            its += " AND datname = current_database()"
            sessions = f"SELECT pid FROM pg_stat_activity WHERE {its}"
            until(lambda: (self.meanwhile(), not self.rows(sessions))[-1])
        return code

    def lapse(self, process: Process) -> None:
        """Take back what *process* held, which is dead."""
        lapse(self.kernel, process.pid)

    def stop_at(self, name: str) -> dict[str, str]:
        """The payload of a job that ends once the scene has gone on from *name*."""
        self.ledger.switch(name).touch()
        return {"stop": name}

    def stopped(self) -> tuple[str, Process]:
        """
        Wait until a process that lives is at a stop; return the stop's name, and the process.

        So a fault comes in the midst of work, however long the test itself was held up.
        """
        found: list[tuple[str, Process]] = []

        def look() -> bool:
            living = {str(each.pid): each for each in self.processes}
            for pid, name in self.words("holding"):
                if pid in living and self.ledger.switch(name).exists():
                    found.append((name, living[pid]))
                    return True
            return False

        until(look)
        return found[0]

    def go_on(self, name: str) -> None:
        """Let the work go on from a stop."""
        self.ledger.switch(name).unlink()

    def stop_all(self) -> list[dict[str, int]]:
        """Stop the workers that are left, as a host would; what they say of themselves."""
        told = [process.stopped() for process in self.processes]
        self.processes.clear()
        return told

    def close(self) -> None:
        for process in self.processes:
            if process.alive:
                process.send(signal.SIGCONT)
                process.kill()
        self.kernel.close()
        self.engine.dispose()

    def all_report(self) -> bool:
        """Whether each worker has found its database at its start: one that doesn't ends."""
        return {each.pid for each in self.processes} <= {each.pid for each in self.outbox.workers()}

    def words(self, first: str) -> list[list[str]]:
        return self.ledger.words(first)

    def stood_still(self) -> set[int]:
        """The processes that a busy machine kept from running for so long that leases were lost."""
        return {int(pid) for (pid,) in self.words("stood")}

    def ran_again(self) -> list[str]:
        """The jobs that ran again although the process that began them before never stood still."""
        pids: dict[str, list[int]] = {}
        for item_id, _, pid, _ in self.words("job"):
            pids.setdefault(item_id, []).append(int(pid))
        still = self.stood_still()
        return [item_id for item_id, its in pids.items() if not still.issuperset(its[:-1])]

    def rows(self, sql: str) -> list[Any]:
        with self.engine.connect() as connection:
            return list(connection.exec_driver_sql(sql).all())

    def run(self, sql: str) -> None:
        with self.engine.begin() as connection:
            connection.exec_driver_sql(sql)

    def stops_free_of_locks(self, process: Process, item_id: str) -> bool:
        """Stop *process*; if it is in the middle of a transaction on the item, let it go on."""
        process.send(signal.SIGSTOP)
        # A thread that is in the middle of a call stops after it, and may have a lock by then.
        until(lambda: process.is_stopped)
        try:
            with self.engine.connect() as connection:
                if self.postgresql:
                    its = f"SELECT id FROM {OUTBOX} WHERE id = '{item_id}' FOR UPDATE NOWAIT"
                else:
                    connection.exec_driver_sql("PRAGMA busy_timeout = 100")
                    its = "BEGIN IMMEDIATE"
                connection.exec_driver_sql(its)
                connection.invalidate()
        except sa.exc.OperationalError:
            process.send(signal.SIGCONT)
            return False
        return True

    def drain(self) -> None:
        """Wait until all is finished; if it never is, say what is left, and what the workers do."""
        try:
            self._await_end()
        except AssertionError as error:
            columns = "id, kind, status, waiting_for, attempt_count, next_attempt_at, lease_owner"
            left = self.rows(
                f"SELECT {columns}, ordering_key FROM {OUTBOX}"
                f" WHERE status IN ('PENDING', 'RETRY', 'RUNNING') ORDER BY id LIMIT 20"
            )
            holders = f"SELECT item_id FROM {ORDERING_LOCK}"
            told = [
                str(row)
                for row in (
                    *left,
                    *self.rows(f"SELECT * FROM {ORDERING_LOCK}"),
                    *self.rows(
                        f"SELECT {columns}, lease_token FROM {OUTBOX} WHERE id IN ({holders})"
                    ),
                    # As text, which is how the history has them.
                    *(
                        row
                        for row in self.rows("SELECT * FROM history ORDER BY id")
                        if plain(row.item) in {plain(lane.item_id) for lane in self.rows(holders)}
                    ),
                )
            ]
            for process in self.processes:
                if process.alive:
                    process.send(signal.SIGUSR1)  # it writes down where its threads are
                    threading.Event().wait(0.5)
                told.append(
                    f"process {process.pid}, {process.code}: {process.complained()[-6000:]}"
                )
            raise AssertionError("\n".join(["not all was finished:", *told])) from error

    def _await_end(self) -> None:
        # As long as something is done for the first time: a busy machine takes what it takes.
        left = self._left_to_do()
        while left:
            until(lambda least=left: self._left_to_do() < least)
            left = self._left_to_do()

    def _left_to_do(self) -> int:
        counts: Counter[str] = Counter()
        for of_kind in self.outbox.stats().counts.values():
            counts.update(of_kind)
        return 2 * counts["PENDING"] + counts["RETRY"] + counts["RUNNING"]

    def unfinished(self) -> int:
        counts: Counter[str] = Counter()
        for of_kind in self.outbox.stats().counts.values():
            counts.update(of_kind)
        return counts.total() - sum(counts[status] for status in FINISHED)
