"""A value of the database that is read now and then, and remembered in between."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Remembered(Generic[T]):
    """
    The value that was read last, for at most so many *seconds*; *clock* returns seconds.

    Threads may share it: two that read at the same time both keep what is new.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._clock = seconds, clock
        # With the time until which it holds.
        self._known: tuple[T, float] | None = None

    def get(self, read: Callable[[], T], *, early: bool = False) -> T:
        """Return the value, read anew if its time is over; *early* if half of its time is."""
        now, known = self._clock(), self._known
        if known is None or now >= known[1] - early * self._seconds / 2:
            known = self._known = read(), now + self._seconds
        return known[0]

    def forget(self) -> None:
        """Read it anew the next time: it has just been changed."""
        self._known = None
