"""Waiting for what other threads and processes do: as long as a test may take, and no longer."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
PATIENCE = 20.0


class Gate(threading.Event):
    """An event that fails the test instead of waiting for ever."""

    def pass_(self) -> None:
        assert self.wait(PATIENCE), "it did not happen"


def until(
    condition: Callable[[], T],
    seconds: float = PATIENCE,
    *,
    process: subprocess.Popen[Any] | None = None,
    why: Callable[[], str] = lambda: "it did not happen",
) -> T:
    """
    Look again and again, as long as *process* lives, and return what there is in the end.

    So often that it takes *seconds*, whatever the clock is set to; then the test fails by *why*.
    """
    tick, looked = threading.Event(), 0
    while not (found := condition()):
        looked += 1
        alive = process is None or process.poll() is None
        assert alive and looked < seconds * 100, why()
        tick.wait(0.01)
    return found


def listening(port: int) -> bool:
    """Return True if somebody takes connections at this port of the machine."""
    try:
        socket.create_connection(("127.0.0.1", port), 60).close()
    except OSError:
        return False
    return True


def ready(url: str) -> bool:
    """Return True if *url* answers with 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def at_once(*calls: Callable[[], object]) -> None:
    """Make all of these calls side by side, each on a thread, and raise what one of them raised."""
    with ThreadPoolExecutor(len(calls)) as pool:
        made = [pool.submit(each) for each in calls]
    for each in made:
        each.result()


def within(seconds: float, call: Callable[[], T]) -> T:
    """Return what *call* returns in less than *seconds*, of three times: a machine may pause."""
    for _ in range(3):
        began = time.monotonic()
        result = call()
        took = time.monotonic() - began
        if took < seconds:
            return result
    raise AssertionError(f"it took {took:.1f} seconds")
