"""A worker in a thread of the test, and waiting for what it does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from automate_kernel import Kernel
from automate_kernel.worker import Worker

PATIENCE = 20.0


@contextmanager
def working(kernel: Kernel, **options: Any) -> Iterator[Worker]:
    """Have a worker run while the block does."""
    worker = kernel.worker(**{"poll_seconds": 0.02, "grace_seconds": 5.0, **options})
    thread = threading.Thread(target=worker.run, daemon=True)
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join(PATIENCE)
        assert not thread.is_alive(), "the worker did not stop"


def until(condition: Callable[[], Any], seconds: float = PATIENCE) -> None:
    """Look again and again, for as long as a test may take."""
    tick, looked = threading.Event(), 0
    while not condition():
        looked += 1
        assert looked < seconds * 100, "it did not happen"
        tick.wait(0.01)
