"""Worker processes are killed at random moments, or stopped past their lease: nothing is lost."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from automate_kernel.outbox import ItemStatus, RowsOutboxStore
from automate_kernel.storage.tables import LANE
from automate_kernel.workflows.execution import ExecutionStatus, StepStatus
from automate_sqlalchemy import metadata

SCRIPT = Path(__file__).with_name("worker_process.py")
SOURCE = Path(__file__).parents[2] / "src"
PATIENCE_SECONDS = 40.0
JOBS, EFFECTS, EXECUTIONS, KEYS = 150, 50, 50, 5
KILLS = 10
SEED = 20261125


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("worker_process", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


worker_process = load_script()


def until(condition: Callable[[], Any]) -> None:
    deadline, tick = time.monotonic() + PATIENCE_SECONDS, threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        tick.wait(0.02)


class Process:
    """A worker process that is under way."""

    def __init__(self, url: str, ledger: Path, lease_seconds: float) -> None:
        path = os.pathsep.join([str(SOURCE), os.environ.get("PYTHONPATH", "")])
        self._process = subprocess.Popen(
            [sys.executable, str(SCRIPT), url, str(ledger), str(lease_seconds)],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def go(self) -> None:
        """Let it work, now that it is there."""
        assert self._process.stdout is not None
        assert self._process.stdin is not None
        assert self._process.stdout.readline() == "ready\n", self.said()
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def said(self) -> str:
        self._process.kill()
        return self._process.communicate()[1]

    def send(self, number: int) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self._process.communicate()

    def stopped(self) -> dict[str, int]:
        """What it says of itself after a graceful stop, which must succeed."""
        self.send(signal.SIGTERM)
        output, errors = self._process.communicate(timeout=PATIENCE_SECONDS)
        assert self._process.returncode == 0, errors
        stats: dict[str, int] = json.loads(output.splitlines()[-1])
        return stats


class Scene:
    """A database, a ledger, and the processes on them."""

    def __init__(self, url: str, folder: Path, lease_seconds: float) -> None:
        self.url, self.file, self.lease_seconds = url, folder / "ledger", lease_seconds
        self.ledger = worker_process.Ledger(self.file)
        self.kernel = worker_process.open_kernel(url, self.ledger, lease_seconds)
        self.engine = self.kernel.storage.engine
        metadata.create_all(self.engine)
        with self.engine.begin() as connection:
            for table in metadata.sorted_tables:
                connection.execute(table.delete())
            connection.exec_driver_sql("DROP TABLE IF EXISTS effects")
            connection.exec_driver_sql("CREATE TABLE effects (item VARCHAR(40))")
        self.hold = self.file.with_suffix(".hold")
        self.processes: list[Process] = []

    def start(self) -> Process:
        process = Process(self.url, self.file, self.lease_seconds)
        self.processes.append(process)
        return process

    def kill(self, process: Process) -> None:
        self.processes.remove(process)
        process.kill()

    def close(self) -> None:
        self.hold.unlink(missing_ok=True)
        for process in self.processes:
            process.send(signal.SIGCONT)
            process.kill()
        self.kernel.close()
        self.engine.dispose()

    def words(self, first: str) -> list[list[str]]:
        return [line[1:] for line in self.ledger.lines() if line[0] == first]

    def unfinished(self) -> int:
        counts: Counter[str] = Counter()
        for of_kind in self.kernel.outbox.stats().counts.values():
            counts.update(of_kind)
        return counts.total() - counts["COMPLETED"]


@pytest.fixture(params=["sqlite", "postgresql"])
def open_scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Scene]]:
    scenes: list[Scene] = []

    def open_scene(lease_seconds: float) -> Scene:
        if request.param == "sqlite":
            url = f"sqlite:///{tmp_path / 'automate.sqlite3'}"
        else:
            url = request.getfixturevalue("postgresql_url")
        scenes.append(Scene(url, tmp_path, lease_seconds))
        return scenes[-1]

    yield open_scene
    for scene in scenes:
        scene.close()


def test_kills_at_random_moments(open_scene: Callable[..., Scene]) -> None:
    """
    Whenever its workers are killed, all that was accepted is done in the end.

    No step runs again once its result was saved, what a transactional handler writes is there
    exactly once, and items with one ordering key begin in their order.
    """
    scene, choose = open_scene(1.0), random.Random(SEED)
    outbox = scene.kernel.outbox
    keyed: dict[str, list[str]] = {}
    jobs, effects, executions = [], [], []
    for n in range(JOBS):
        key = f"key-{n % KEYS}" if n % 5 == 0 else None
        jobs.append(outbox.enqueue("job", n, max_attempts=100, ordering_key=key))
        if key is not None:
            keyed.setdefault(key, []).append(jobs[-1])
    effects = [outbox.enqueue("effect", n, max_attempts=100) for n in range(EFFECTS)]
    executions = [scene.kernel.start("crash", {"n": n}) for n in range(EXECUTIONS)]

    working = [scene.start(), scene.start()]
    # The others stand by: a process takes longer to begin than much of the work.
    standing_by = [scene.start() for _ in range(KILLS)]
    for process in working:
        process.go()
    killed_while_working = 0
    # At random points of the work, not of the clock: a fast machine must not be done before them.
    left_at = sorted((choose.uniform(0.15, 0.97) for _ in range(KILLS)), reverse=True)
    total = scene.unfinished()
    for process, left in zip(standing_by, left_at):
        until(lambda left=left: scene.unfinished() <= total * left)
        killed_while_working += scene.unfinished() > 0
        scene.kill(working.pop(choose.randrange(2)))
        process.go()
        working.append(process)
    until(lambda: scene.unfinished() == 0)
    stats = [process.stopped() for process in working]
    scene.processes.clear()

    assert killed_while_working >= 3, "the work was done too soon: the test shows little"
    assert all(one["failed"] == 0 for one in stats)
    for item_id in (*jobs, *effects):
        item = outbox.get(item_id)
        assert item is not None
        assert item.status is ItemStatus.COMPLETED
    begun = Counter(item_id for item_id, _ in scene.words("job"))
    assert set(begun) == set(jobs)
    assert sum(begun.values()) > len(jobs), "no kill hit a job: the test shows nothing"
    with scene.engine.connect() as connection:
        written = connection.exec_driver_sql("SELECT item FROM effects").scalars().all()
        assert sorted(written) == sorted(effects)
        assert connection.exec_driver_sql(f"SELECT count(*) FROM {LANE}").scalar() == 0
    for ids in keyed.values():
        order = [item_id for item_id, _ in scene.words("job") if item_id in ids]
        assert list(dict.fromkeys(order)) == ids
        assert order == sorted(order)
    check_executions(scene, executions)


def check_executions(scene: Scene, executions: list[str]) -> None:
    for n, execution_id in enumerate(executions):
        execution = scene.kernel.executions.get(execution_id)
        assert execution is not None
        assert execution.status is ExecutionStatus.COMPLETED, execution.error
        assert execution.output == [n * 100, [10, 20, 30, 40]]
        assert {run.status for run in execution.steps} == {StepStatus.COMPLETED}
        assert len(execution.steps) == 8
    assert scene.words("again") == []
    saved: set[str] = set()
    calls: Counter[str] = Counter()
    for kind, *words in scene.ledger.lines():
        if kind == "saved":
            saved.add(words[0])
        elif kind == "call":
            assert words[0] not in saved, f"{words[0]} ran again after it was saved"
            calls[words[0]] += 1
    assert len(calls) == len(executions) * 7
    assert max(calls.values()) > 1, "no kill hit a step: the test shows nothing"


@pytest.mark.parametrize("kind", ["job", "effect", "execution"])
def test_a_worker_that_wakes_after_its_lease(open_scene: Callable[..., Scene], kind: str) -> None:
    """A process that was stopped, and that others took for dead, can't finish what it held."""
    scene = open_scene(0.5)
    kernel, outbox = scene.kernel, scene.kernel.outbox
    if kind == "effect" and scene.engine.dialect.name == "sqlite":
        pytest.skip("on SQLite a transaction that is open keeps all others out")
    if kind == "execution":
        execution_id = kernel.start("crash", {"n": 1})
        item_id = kernel.executions.get(execution_id).item_id
    else:
        execution_id, item_id = "", outbox.enqueue(kind)
    scene.hold.touch()
    process = scene.start()
    process.go()
    until(lambda: scene.words("holding"))
    process.send(signal.SIGSTOP)
    until(lambda: len(outbox.reap()))

    # With a long lease: the process recovers items too, once it is awake.
    rescuer = RowsOutboxStore(kernel.storage, lease_seconds=600)
    claimed: list[Any] = []

    def claim() -> bool:
        claimed.extend(rescuer.claim_batch("rescuer"))
        return bool(claimed)

    until(claim)
    assert [item.id for item in claimed] == [item_id]
    process.send(signal.SIGCONT)
    scene.hold.unlink()
    if kind == "execution":
        until(lambda: len(scene.words("call")) == 1)
    late = process.stopped()
    scene.processes.clear()
    assert (late["completed"], late["lost"]) == (0, 1)
    item = outbox.get(item_id)
    assert (item.status, item.lease_owner) == (ItemStatus.RUNNING, "rescuer")
    if kind == "execution":
        assert scene.words("saved") == []
        assert [run.output for run in kernel.executions.get(execution_id).steps] == [None]
    with scene.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM effects").scalar() == 0
    rescuer.mark_success(item_id, "rescuer")
    assert outbox.get(item_id).status is ItemStatus.COMPLETED
