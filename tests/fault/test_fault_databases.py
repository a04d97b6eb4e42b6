"""Workers are killed and frozen over executions on the databases beside PostgreSQL."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
import storm_process
from automate_kernel.storage.tables import EXECUTION, OUTBOX, STEP
from automate_sqlalchemy import SqlAlchemyStorage
from database_servers import fresh_database
from fault_scene import until

SEED, WORKERS = 20261202, 3


class Workers:
    """Processes of workers on the database at *url*; in the place of each that is killed another."""

    def __init__(self, url: str, calls: Path) -> None:
        self._command = [sys.executable, storm_process.__file__, url, str(calls)]
        self.all: list[subprocess.Popen[bytes]] = [self._start() for _ in range(WORKERS)]
        self.thaws: list[threading.Timer] = []

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._command)

    def kill(self, choose: random.Random) -> None:
        one = choose.choice(self.all)
        one.kill()
        one.wait()
        self.all[self.all.index(one)] = self._start()

    def freeze(self, choose: random.Random) -> None:
        """Stop one for longer than its lease. It may hold the one lock of SQLite meanwhile."""
        one = choose.choice(self.all)
        one.send_signal(signal.SIGSTOP)
        thaw = threading.Timer(3.0, one.send_signal, [signal.SIGCONT])
        self.thaws.append(thaw)
        thaw.start()

    def stop(self) -> None:
        for thaw in self.thaws:
            thaw.join()
        for one in self.all:
            one.terminate()
        for one in self.all:
            # One that has just been started doesn't listen yet.
            assert one.wait(60) in (0, -signal.SIGTERM)


@pytest.fixture(params=["sqlite", "mariadb"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/storm.sqlite3"
        return
    with fresh_database(request.getfixturevalue("mariadb_server")) as made:
        yield made


@pytest.mark.long
def test_workers_that_die_over_executions_elsewhere(url: str, tmp_path: Path, full: bool) -> None:
    """Each event has one execution that completes, no saved step is called again, none is left."""
    count, kills, freezes = (100, 40, 6) if full else (30, 12, 2)
    choose, calls = random.Random(SEED), tmp_path / "calls"
    engine = sa.create_engine(url)
    storage = SqlAlchemyStorage(engine)
    storage.create_tables()
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE booked (n INTEGER PRIMARY KEY)"))
    kernel = storm_process.opened(url, calls)
    workers = Workers(url, calls)
    try:
        faults = ["kill"] * kills + ["freeze"] * freezes
        choose.shuffle(faults)
        for n in range(count):
            kernel.emit(storm_process.EVENT, {"n": n}, idempotency_key=f"order-{n}")
            for fault in faults[n * len(faults) // count : (n + 1) * len(faults) // count]:
                time.sleep(choose.uniform(0.1, 0.6))
                getattr(workers, fault)(choose)

        def ended() -> bool:
            with engine.connect() as connection:
                found = connection.execute(
                    sa.text(f"SELECT count(*) FROM {EXECUTION} WHERE completed_at IS NOT NULL")
                )
                return bool(found.scalar() == 2 * count)

        until(ended)
    finally:
        workers.stop()
    check(engine, kernel, calls, count)
    kernel.close()
    engine.dispose()


def check(engine: sa.Engine, kernel: storm_process.Kernel, calls: Path, count: int) -> None:
    executions = kernel.executions.find(limit=2 * count + 1)
    assert Counter((one.name, one.status.value) for one in executions) == {
        ("orders", "COMPLETED"): count, ("parcel", "COMPLETED"): count,
    }  # fmt: skip
    assert len({one.event.payload["n"] for one in executions if one.name == "orders"}) == count
    saved = {
        (one.id, run.step_id, run.position): run.completed_at
        for one in executions for run in one.steps
    }  # fmt: skip
    called = Counter[tuple[str, str, int]]()
    for line in calls.read_text().splitlines():
        at, execution_id, step_id, position = line.split()
        key = (execution_id, step_id, int(position))
        called[key] += 1
        completed_at = saved[key]
        # The clock of the database and of this process are one; it rounds.
        assert completed_at is not None and float(at) < completed_at.timestamp() + 0.01, key
    assert max(called.values()) > 1, "no kill hit a step: it shows nothing"
    with engine.connect() as connection:
        booked = connection.execute(sa.text("SELECT n FROM booked")).scalars().all()
        assert sorted(booked) == list(range(count))
        for table, what in (
            (OUTBOX, "lease_expires_at IS NOT NULL"),
            (OUTBOX, "status <> 'COMPLETED'"),
            (STEP, "completed_at IS NULL"),
        ):
            left = connection.execute(sa.text(f"SELECT count(*) FROM {table} WHERE {what}"))
            assert left.scalar() == 0, (table, what)
