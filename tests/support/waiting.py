"""Waiting for what other threads and processes do: as long as a test may take, and no longer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")
PATIENCE = 20.0


class Gate(threading.Event):
    """An event that fails the test instead of waiting for ever."""

    def pass_(self) -> None:
        assert self.wait(PATIENCE), "it did not happen"


def until(condition: Callable[[], Any], seconds: float = PATIENCE) -> None:
    """Look again and again: so often that it takes *seconds*, whatever the clock is set to."""
    tick, looked = threading.Event(), 0
    while not condition():
        looked += 1
        assert looked < seconds * 100, "it did not happen"
        tick.wait(0.01)


def within(seconds: float, call: Callable[[], T]) -> T:
    """Return what *call* returns in less than *seconds*, of three times: a machine may pause."""
    for _ in range(3):
        began = time.monotonic()
        result = call()
        took = time.monotonic() - began
        if took < seconds:
            return result
    raise AssertionError(f"it took {took:.1f} seconds")
