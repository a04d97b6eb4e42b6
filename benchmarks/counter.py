"""Counts in shared memory: what handlers did, seen by the harness without asking anybody."""

from __future__ import annotations

import mmap
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

SLOTS = 8
_COUNT, _FIRST, _LAST, _BEGUN, _MOST, _READY = range(6)
_CELLS = 6
_GO = SLOTS * _CELLS


class Counter:
    """The cells of all workers, and the gate that they start at."""

    def __init__(self, path: str | Path, *, create: bool = False) -> None:
        self.path = str(path)
        if create:
            Path(path).write_bytes(bytes(8 * (_GO + 1)))
        self._file = open(path, "r+b")  # noqa: SIM115  (lives as long as the process)
        self.cells = memoryview(mmap.mmap(self._file.fileno(), 0)).cast("Q")

    def reset(self) -> None:
        """Start from nothing, with the gate shut."""
        for cell in range(len(self.cells)):
            self.cells[cell] = 0

    def _all(self, which: int) -> list[int]:
        return [self.cells[slot * _CELLS + which] for slot in range(SLOTS)]

    @property
    def count(self) -> int:
        """How many handlers have ended."""
        return sum(self._all(_COUNT))

    @property
    def most_at_once(self) -> int:
        """How many handlers one worker had in flight, at most; only those that wait count."""
        return max(self._all(_MOST))

    @property
    def first(self) -> int:
        """When the first handler was called, by the machine's monotonic clock; 0: not yet."""
        return min((at for at in self._all(_FIRST) if at), default=0)

    @property
    def last(self) -> int:
        """When the last handler was called."""
        return max(self._all(_LAST))

    @property
    def ready(self) -> int:
        """How many workers stand at the gate."""
        return sum(self._all(_READY))

    def open_gate(self) -> None:
        """Let the workers go."""
        self.cells[_GO] = 1


_lock = threading.Lock()
_all_cells = memoryview(bytearray(8 * (_GO + 1))).cast("Q")
_cells = _all_cells[:_CELLS]


def use(path: str, slot: int) -> None:
    """Have `tick` and `begin` of this process count in *slot* of the file at *path*."""
    global _all_cells, _cells  # noqa: PLW0603  (one worker per process)
    _all_cells = Counter(path).cells
    _cells = _all_cells[slot * _CELLS : (slot + 1) * _CELLS]


def tick() -> None:
    """Count one handled item: all that a handler does."""
    now = time.monotonic_ns()
    with _lock:
        if not _cells[_FIRST]:
            _cells[_FIRST] = now
        _cells[_LAST] = now
        _cells[_COUNT] += 1


def begin() -> None:
    """Count a handler that begins and will wait."""
    with _lock:
        _cells[_BEGUN] += 1
        # Here, and not by who looks at it now and then: it may be over before the next look.
        _cells[_MOST] = max(_cells[_MOST], _cells[_BEGUN] - _cells[_COUNT])


def waiting(seconds: float) -> Callable[[Any], Awaitable[None]]:
    """A handler that begins, does nothing for *seconds*, and is counted."""
    import asyncio  # not at the top: it weighs, and most workers are without

    async def wait(item: Any) -> None:
        begin()
        await asyncio.sleep(seconds)
        tick()

    return wait


def wait_for_gate() -> None:
    """Say that this worker is prepared, and wait until all may begin."""
    _cells[_READY] = 1
    while not _all_cells[_GO]:
        time.sleep(0.0005)
