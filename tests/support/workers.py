"""A worker in a thread of the test, and parts of its work, made by the test itself."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from waiting import PATIENCE

from automate_kernel import Kernel
from automate_kernel.outbox import OutboxItem
from automate_kernel.worker import Worker


@contextmanager
def working(kernel: Kernel, **options: Any) -> Iterator[Worker]:
    """Have a worker of *kernel* run while the block does."""
    with running(
        kernel.worker(**{"poll_seconds": 0.02, "grace_seconds": 5.0, **options})
    ) as worker:
        yield worker


@contextmanager
def running(worker: Worker) -> Iterator[Worker]:
    """Have this worker run while the block does."""
    thread = threading.Thread(target=worker.run, daemon=True)
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join(PATIENCE)
        assert not thread.is_alive(), "the worker did not stop"


def fire_due(kernel: Kernel) -> int:
    """Look once at the schedules, as a worker does each second; return how many fired."""
    return kernel._ticker.tick()


def poll_due(kernel: Kernel) -> int:
    """Look once at the polls, as a worker does each second; return how many are called now."""
    return kernel._poller.tick()


def call_due_polls(kernel: Kernel) -> int:
    """Call the polls that are due, here; return how many."""
    return kernel._poller.run_due()


def handle(kernel: Kernel, item: OutboxItem) -> Any:
    """Have a claimed item handled here, as a worker's thread would; return the handler's result."""
    return kernel._handlers[item.kind].function(item)
