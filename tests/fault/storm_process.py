"""A worker of the storms on SQLite and MariaDB: it notes each call in a file."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from automate_kernel import Call, Kernel
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_sqlalchemy import SqlAlchemyStorage

EVENT = "order.placed"
ELEMENTS = 4
_RETRY = {"attempts": 100, "backoff": "fixed", "delay": "20ms", "jitter": False}
WORKFLOWS: list[dict[str, Any]] = [
    {
        "name": "orders",
        "trigger": {"type": "event", "event": EVENT},
        "steps": [
            {"id": "take", "action": "shop.note"},
            {"id": "each", "action": "shop.note", "needs": ["take"],
             "for_each": list(range(ELEMENTS)), "input": {"position": "{{ item }}"}},
            {"id": "flaky", "action": "shop.flaky", "needs": ["take"], "retry": _RETRY},
            {"id": "book", "action": "shop.book", "needs": ["take"],
             "input": {"n": "{{ event.payload.n }}"}},
            {"id": "nap", "needs": ["take"], "sleep": "20ms"},
            {"id": "parcel", "workflow": "parcel", "needs": ["book"]},
            {"id": "ship", "action": "shop.note", "needs": ["each", "flaky", "nap", "parcel"]},
        ],
    },
    {
        "name": "parcel",
        "trigger": {"type": "manual"},
        "steps": [{"id": "pack", "action": "shop.note"}],
    },
]  # fmt: skip


def opened(url: str, calls: Path) -> Kernel:
    """Return a kernel whose actions note their calls in the file *calls*."""
    storage = SqlAlchemyStorage(sa.create_engine(url))
    kernel = Kernel(storage, discover=False, secrets={}, lease_seconds=2.0)

    def noted(call: Call, position: int = -1) -> None:
        line = f"{time.time()} {call.execution_id} {call.step_id} {position}\n"
        with calls.open("a") as file:
            file.write(line)
        time.sleep(random.uniform(0, 0.03))

    @kernel.action("shop.note")
    def note(call: Call, position: int = -1) -> int:
        noted(call, position)
        return 1

    @kernel.action("shop.flaky")
    def flaky(call: Call) -> int:
        noted(call)
        if random.random() < 0.5:
            raise AutomateError(ErrorCodes.UNAVAILABLE, "later")
        return 1

    @kernel.action("shop.book", transactional=True)
    def book(n: int, call: Call) -> int:
        noted(call)
        call.transaction.execute(sa.text("INSERT INTO booked (n) VALUES (:n)"), {"n": n})
        return n

    for workflow in WORKFLOWS:
        kernel.add_workflow(workflow)
    return kernel


if __name__ == "__main__":
    kernel = opened(sys.argv[1], Path(sys.argv[2]))
    worker = kernel.worker(worker_id=f"worker-{os.getpid()}", slots=8, poll_seconds=0.1)
    signal.signal(signal.SIGTERM, lambda *_: worker.stop())
    worker.run()
