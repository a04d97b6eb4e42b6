"""The kernel of the fault tests: its actions and handlers write down what they do."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from automate_kernel import signals
from automate_kernel.operations.context import current_call
from automate_kernel.kernel import Kernel
from automate_kernel.outbox import Backoff, Outcome, RowsOutboxStore
from automate_kernel.worker.periodic import try_for
from automate_kernel.workflows.execution import StepStatus
from automate_sqlalchemy import SqlAlchemyStorage

NARROW = 3
"""How many items of the kind "narrow" may run at once."""
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
WAITING = {
    "name": "waiting",
    "trigger": {"type": "manual"},
    "steps": [
        {"id": "nap", "sleep": "20ms"},
        {
            "id": "paid",
            "needs": [],
            "wait_for": {"event": "paid", "match": {"n": "{{ event.payload.n }}"}},
        },
        {
            "id": "sub",
            "needs": ["paid"],
            "workflow": "crash",
            "for_each": [1, 2],
            "concurrency": 2,
            "input": {"n": "{{ item }}"},
        },
        {
            "id": "last",
            "needs": ["nap", "sub"],
            "action": "work.do",
            "input": {"value": "{{ event.payload.n }}"},
        },
    ],
    "output": "{{ steps.sub.output }}",
}
DEADLY = {
    "name": "deadly",
    "trigger": {"type": "manual"},
    "steps": [
        {"id": n, "action": "work.may_kill", "input": {"kills": "{{ event.payload.kills }}"}}
        for n in ("first", "second")
    ],
}

BOOKING = {
    "name": "booking",
    "trigger": {"type": "event", "event": "booking.asked"},
    "steps": [
        {"id": "first", "action": "work.book"},
        {
            "id": "each", "action": "work.book", "needs": [], "for_each": [1, 2, 3],
            "concurrency": 3,
        },
        {"id": "last", "action": "work.book", "needs": ["first", "each"]},
    ],
}  # fmt: skip
"""A workflow whose steps write to the host's own table, in the transaction that saves them."""

ROUNDS = (21, 2, 3)
"""The rounds of the executions of a chain: of the first more than are kept."""
LOOPING = {
    "name": "looping",
    "trigger": {"type": "manual"},
    "steps": [
        {
            "id": "rounds",
            "while": "{{ index < event.payload.rounds[0] }}",
            "every": "{{ event.payload.pause }}",
            "steps": [{"id": "book", "action": "work.book"}],
            "output": "{{ index + 1 }}",
        },
        {"id": "more", "action": "work.book", "until": "{{ index == 1 }}", "every": "1ms"},
        {
            "id": "next",
            "if": "{{ event.payload.rounds | length > 1 }}",
            "continue_as_new": {"rounds": "{{ event.payload.rounds[1:] }}", "pause": "1ms"},
        },
    ],
    "output": "{{ steps.rounds.output }}",
}
CHAIN = {
    "name": "chain",
    "trigger": {"type": "manual"},
    "steps": [
        {"id": "sub", "workflow": "looping", "input": {"rounds": [*ROUNDS], "pause": 0}},
    ],
    "output": "{{ steps.sub.output }}",
}
"""A parent that waits for a chain, each of whose executions loops."""

ASKING = {
    "name": "asking",
    "trigger": {"type": "manual"},
    "steps": [
        {
            "id": "ok",
            "approval": {
                "title": "Go on?",
                "notify": {"action": "work.tell", "input": {"title": "{{ approval.title }}"}},
            },
        },
        {"id": "last", "action": "work.do", "input": {"value": "{{ event.payload.n }}"}},
    ],
    "output": "{{ steps.ok.output.by }}",
}


def sessions_of(pid: int) -> str:
    """What PostgreSQL calls the sessions of a process that `worker_process` has forked."""
    return f"worker-{pid}"


class Ledger:
    """Lines that are there once `write` has returned, in the order in which they were written."""

    def __init__(self, file: str | Path) -> None:
        self.file = Path(file)
        self._descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, *words: Any) -> None:
        os.write(self._descriptor, (" ".join(map(str, words)) + "\n").encode())

    def lines(self) -> list[list[str]]:
        return [line.split() for line in self.file.read_text().splitlines()]

    def words(self, first: str) -> list[list[str]]:
        return [line[1:] for line in self.lines() if line[0] == first]

    def empty(self) -> None:
        os.truncate(self.file, 0)

    def switch(self, name: str) -> Path:
        """A file that is a switch for all processes: on while it exists."""
        return self.file.with_suffix(f".{name}")


class NotedStore(RowsOutboxStore):
    """Writes down what it was told is recorded."""

    ledger: Ledger

    def acknowledge(
        self, worker_id: str, outcomes: Sequence[Outcome], *, transaction: Any = None
    ) -> set[str]:
        lost = super().acknowledge(worker_id, outcomes, transaction=transaction)
        # What is part of another's transaction may yet be rolled back.
        if transaction is None:
            for one in outcomes:
                word = "lost" if one.item_id in lost else "recorded"
                self.ledger.write(word, one.item_id, one.token, one.status.value)
        return lost


def open_engine(url: str) -> sa.Engine:
    engine = sa.create_engine(url)
    if engine.dialect.name == "sqlite":

        @sa.event.listens_for(engine, "connect")
        def patient(connection: sqlite3.Connection, _: object) -> None:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA busy_timeout = 20000")

    return engine


def open_kernel(
    url: str, ledger: Ledger, lease_seconds: float, most_seconds: float = 0.06
) -> Kernel:
    """Its handlers take up to *most_seconds*, or what an item's payload says."""
    storage = SqlAlchemyStorage(open_engine(url))
    # What a dead worker held comes back soon, for the test to be quick.
    outbox = NotedStore(storage, lease_seconds=lease_seconds, backoff=Backoff(0.05, 0.2))
    outbox.ledger = ledger
    kernel = Kernel(storage, outbox=outbox, discover=False, secrets={})
    kernel.add_workflow(WORKFLOW)
    kernel.add_workflow(WAITING)
    kernel.add_workflow(DEADLY)
    kernel.add_workflow(BOOKING)
    kernel.add_workflow(ASKING)
    kernel.add_workflow(LOOPING)
    kernel.add_workflow(CHAIN)
    _add_steps(kernel, ledger, most_seconds)
    _add_handlers(kernel, ledger, most_seconds)
    return kernel


def _add_steps(kernel: Kernel, ledger: Ledger, most_seconds: float) -> None:
    @kernel.action("work.may_kill")
    def may_kill(kills: bool) -> None:
        if kills:
            ledger.write("kills", current_call().execution_id)  # type: ignore[union-attr]
            os.kill(os.getpid(), signal.SIGKILL)
        _take_time(ledger, most_seconds)

    @kernel.action("work.do")
    def work(value: int) -> int:
        call = current_call()
        assert call is not None
        key = call.idempotency_key
        ledger.write("call", key, call.attempt)
        # For the ledger alone, so that a server that is away is no failure of the step.
        look = partial(kernel.executions.get, call.execution_id or "")
        execution = try_for(60.0, look, "looking", until=lambda: False)
        position = int((key or "").rpartition(":")[2])
        run = execution and execution.step(call.step_id or "", position)
        if run is not None and run.status is StepStatus.COMPLETED:
            ledger.write("again", key, os.getpid())
        _take_time(ledger, most_seconds, {"stop": f"value-{value}"})
        return value * 10

    @kernel.action("work.tell")
    def tell(title: str) -> None:
        call = current_call()
        assert call is not None
        ledger.write("told", call.execution_id)

    @kernel.action("work.book", transactional=True)
    def book() -> None:
        call = current_call()
        assert call is not None
        ledger.write("booking", call.idempotency_key)
        sql = f"INSERT INTO booked VALUES ('{call.idempotency_key}')"
        call.transaction.exec_driver_sql(sql)
        _take_time(ledger, min(0.01, most_seconds))

    def note(sender: Any, execution: Any, step: Any) -> None:
        ledger.write("saved", f"{execution.id}:{step.step_id}:{step.position}")

    signals.step_completed.connect(note, sender=kernel, weak=False)


def _add_handlers(kernel: Kernel, ledger: Ledger, most_seconds: float) -> None:
    def begin(item: Any) -> None:
        # The monotonic clock is one for all processes of a machine, whatever their calendars say.
        ledger.write(item.kind, item.id, item.attempt_count, os.getpid(), time.monotonic())

    def end(item: Any) -> None:
        ledger.write("end", item.id, item.attempt_count, os.getpid(), time.monotonic())

    @kernel.handler("job")
    def job(item: Any) -> None:
        begin(item)
        _take_time(ledger, most_seconds, item.payload)
        end(item)

    @kernel.handler("other")
    def other(item: Any) -> None:
        job(item)

    @kernel.handler("narrow", concurrency=NARROW)
    def narrow(item: Any) -> None:
        job(item)

    @kernel.handler("effect", transactional=True)
    def effect(item: Any, transaction: sa.Connection) -> None:
        transaction.exec_driver_sql(
            f"INSERT INTO effects VALUES ('{item.id}', '{item.lease_token}')"
        )
        _take_time(ledger, min(0.002, most_seconds), item.payload)

    @kernel.handler("poison")
    def poison(item: Any) -> None:
        begin(item)
        os.kill(os.getpid(), signal.SIGKILL)

    @kernel.handler("flaky", backoff=Backoff(0.3, 2.0))
    def flaky(item: Any) -> None:
        begin(item)
        if ledger.switch("broken").exists() or item.payload == item.attempt_count:
            raise ConnectionError("the other side is down")
        end(item)


def _take_time(ledger: Ledger, most: float, payload: Any = None) -> None:
    asked = payload.get("seconds") if isinstance(payload, dict) else None
    time.sleep(random.random() * most if asked is None else asked)
    for name in ("hold", payload.get("stop") if isinstance(payload, dict) else None):
        if name is not None and (switch := ledger.switch(name)).exists():
            ledger.write("holding", os.getpid(), name)
            while switch.exists():
                time.sleep(0.005)
