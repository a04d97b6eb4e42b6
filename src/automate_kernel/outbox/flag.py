"""An event that a signal handler may set."""

from __future__ import annotations

import threading
import time

__all__ = ["Flag"]


class Flag(threading.Event):
    """
    A `threading.Event` that can be set while the same thread is in the middle of using it.

    A signal handler runs between two steps of the main thread. If that one just holds the lock of
    an ordinary event, the handler waits for it for ever.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition(threading.RLock())
        self._is_set = False

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._is_set

    def set(self) -> None:
        """Set it, and wake who waits."""
        self._is_set = True
        with self._condition:
            self._condition.notify_all()

    def clear(self) -> None:
        """Take it back."""
        self._is_set = False

    def wait(self, timeout: float | None = None) -> bool:
        """Block until it is set, for at most *timeout* seconds; whether it is."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._is_set:
            # In parts: a signal that comes right before the wait begins is seen after one.
            left = 0.5 if deadline is None else min(0.5, deadline - time.monotonic())
            if left <= 0:
                break
            with self._condition:
                if not self._is_set:
                    self._condition.wait(left)
        return self._is_set
