"""
A worker process that the fault tests kill: ``python worker_process.py URL LEDGER LEASE_SECONDS``.

It says ``ready``, works once it is told to, and tells its statistics when it was stopped. Every
side effect is a line in the ledger, written in one piece, which outlives the process.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from automate_kernel import signals
from automate_kernel.context import current_call
from automate_kernel.kernel import Kernel
from automate_kernel.outbox import Backoff, RowsOutboxStore
from automate_kernel.workflows.execution import StepStatus
from automate_sqlalchemy import SqlAlchemyStorage

WORKFLOW = {
    "name": "crash",
    "trigger": {"type": "manual"},
    "steps": [
        {"id": "first", "action": "work.do", "input": {"value": "{{ event.payload.n }}"}},
        {
            "id": "each",
            "action": "work.do",
            "for_each": [1, 2, 3, 4],
            "concurrency": 2,
            "input": {"value": "{{ item }}"},
        },
        {"id": "beside", "action": "work.do", "needs": ["first"], "input": {"value": 7}},
        {
            "id": "last",
            "action": "work.do",
            "needs": ["each", "beside"],
            "input": {"value": "{{ steps.first.output }}"},
        },
    ],
    "output": ["{{ steps.last.output }}", "{{ steps.each.output }}"],
}


class Ledger:
    """Lines that are there once `write` has returned, in the order in which they were written."""

    def __init__(self, file: str | Path) -> None:
        self._file = Path(file)
        self._descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, *words: Any) -> None:
        os.write(self._descriptor, (" ".join(map(str, words)) + "\n").encode())

    def lines(self) -> list[list[str]]:
        return [line.split() for line in self._file.read_text().splitlines()]


def open_engine(url: str) -> sa.Engine:
    engine = sa.create_engine(url)
    if engine.dialect.name == "sqlite":

        @sa.event.listens_for(engine, "connect")
        def patient(connection: sqlite3.Connection, _: object) -> None:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA busy_timeout = 20000")

    return engine


def open_kernel(url: str, ledger: Ledger, lease_seconds: float) -> Kernel:
    """The kernel of the fault tests, whose actions and handlers write down what they do."""
    storage = SqlAlchemyStorage(open_engine(url))
    # What a dead worker held comes back soon, for the test to be quick.
    outbox = RowsOutboxStore(storage, lease_seconds=lease_seconds, backoff=Backoff(0.05, 0.2))
    kernel = Kernel(storage, outbox=outbox, discover=False, secrets={})
    kernel.add_workflow(WORKFLOW)

    @kernel.action("work.do")
    def work(value: int) -> int:
        call = current_call()
        assert call is not None
        key = call.idempotency_key
        ledger.write("call", key, call.attempt)
        execution = kernel.executions.get(call.execution_id or "")
        position = int((key or "").rpartition(":")[2])
        run = execution and execution.step(call.step_id or "", position)
        if run is not None and run.status is StepStatus.COMPLETED:
            ledger.write("again", key)
        _take_time(ledger)
        return value * 10

    @kernel.handler("job")
    def job(item: Any) -> None:
        ledger.write("job", item.id, item.attempt_count)
        _take_time(ledger)

    @kernel.handler("effect", transactional=True)
    def effect(item: Any, transaction: sa.Connection) -> None:
        transaction.exec_driver_sql(f"INSERT INTO effects VALUES ('{item.id}')")
        _take_time(ledger, 0.002)

    def note(sender: Any, execution: Any, step: Any) -> None:
        ledger.write("saved", f"{execution.id}:{step.step_id}:{step.position}")

    signals.step_completed.connect(note, sender=kernel, weak=False)
    return kernel


def _take_time(ledger: Ledger, most: float = 0.06) -> None:
    time.sleep(random.random() * most)
    hold = ledger._file.with_suffix(".hold")
    if hold.exists():
        ledger.write("holding")
        while hold.exists():
            time.sleep(0.005)


def main(url: str, file: str, lease_seconds: str) -> None:
    kernel = open_kernel(url, Ledger(file), float(lease_seconds))
    worker = kernel.worker(slots=4, poll_seconds=0.1)
    signal.signal(signal.SIGTERM, lambda *_: worker.stop())
    print("ready", flush=True)
    sys.stdin.readline()
    stats = worker.run()
    print(json.dumps(asdict(stats)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
