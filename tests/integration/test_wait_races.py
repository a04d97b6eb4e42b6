"""Signals race with the executions that wait for them, in several workers on one database."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest
import sqlalchemy as sa
from example_counts import examples
from waiting import until
from automate_kernel import Kernel
from automate_kernel.storage.tables import WAIT
from automate_kernel.workflows.execution import ExecutionStatus
from automate_sqlalchemy import SqlAlchemyStorage

COUNT = examples(120, 40)
PATIENCE = 60.0
CHILD = {
    "name": "child",
    "trigger": {"type": "manual"},
    "steps": [{"id": "a", "action": "note"}, {"id": "nap", "sleep": "5ms"}],
    "output": "{{ event.payload.n }}",
}
PARENT = {
    "name": "parent",
    "trigger": {"type": "event", "event": "begin"},
    "steps": [
        {"id": "one", "wait_for": {"event": "one", "match": {"n": "{{ event.payload.n }}"}}},
        {"id": "all", "wait_for": {"event": "bell"}, "needs": []},
        {"id": "slow", "action": "rest", "needs": []},
        {
            "id": "sub",
            "workflow": "child",
            "for_each": [1, 2],
            "concurrency": 2,
            "input": {"n": "{{ item }}"},
            "needs": ["one"],
        },
        {"id": "end", "action": "note", "needs": ["all", "sub", "slow"]},
    ],
    "output": "{{ steps.sub.output }}",
}


def open_kernel(url: str) -> Kernel:
    # SQLite gives up after five seconds, in which a busy machine may let others alone come first.
    patient = {"timeout": 60} if url.startswith("sqlite") else {}
    engine = sa.create_engine(url, connect_args=patient)
    kernel = Kernel(SqlAlchemyStorage(engine), discover=False, secrets={})

    @kernel.action
    def note() -> None:
        """Return at once."""

    @kernel.action
    def rest() -> None:
        threading.Event().wait(random.random() * 0.05)

    for workflow in (CHILD, PARENT):
        kernel.add_workflow(workflow)
    return kernel


@pytest.mark.slow
@pytest.mark.parametrize("database", ["postgresql", "sqlite"])
def test_no_signal_is_lost_between_workers(request: Any, database: str) -> None:
    """Whatever comes first, and whichever worker sees it: each execution ends, by itself."""
    engine: sa.Engine = request.getfixturevalue(f"{database}_engine")
    url = engine.url.render_as_string(hide_password=False)
    kernels = [open_kernel(url) for _ in range(3)]
    workers = [kernel.worker(poll_seconds=0.1) for kernel in kernels[1:]]
    threads = [threading.Thread(target=worker.run, daemon=True) for worker in workers]
    for thread in threads:
        thread.start()
    try:
        emit, choose = kernels[0].emit, random.Random(7)
        for n in range(COUNT):
            emit("begin", {"n": n}, idempotency_key=f"begin-{n}")
            if choose.random() < 0.5:
                emit("one", {"n": n}, idempotency_key=f"one-{n}")
        # Some came before the execution began, and answer nothing: once more.
        find = kernels[0].executions.find
        until(lambda: len(find(workflow="parent", limit=COUNT + 1)) == COUNT, PATIENCE)
        for n in range(COUNT):
            emit("one", {"n": n})
        for _ in range(3):
            emit("bell")
        until(
            lambda: len(find(workflow="parent", status="COMPLETED", limit=COUNT + 1)) == COUNT,
            PATIENCE,
        )
        until(lambda: not any(worker.in_flight for worker in workers), PATIENCE)
    finally:
        for worker in workers:
            worker.stop()
        for thread in threads:
            thread.join(PATIENCE)
    for kernel in kernels:
        kernel.close()
    executions = kernels[0].executions.find(limit=COUNT * 4)
    assert {each.status for each in executions} == {ExecutionStatus.COMPLETED}
    assert len(executions) == 3 * COUNT
    assert {str(each.output) for each in executions if each.name == "parent"} == {"[1, 2]"}
    with kernels[0].storage.begin() as rows:
        assert rows.select(WAIT) == []
    failed = kernels[0].outbox.find(status="FAILED", limit=5)
    assert [(item.kind, item.last_error) for item in failed] == []
