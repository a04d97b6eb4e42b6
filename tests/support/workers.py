"""A worker in a thread of the test."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from waiting import PATIENCE

from automate_kernel import Kernel
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
