"""A clock that only a test moves."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta, timezone

__all__ = ["FakeClock"]


class FakeClock:
    """
    A clock that stands still until a test moves it; a `Storage` takes it as its *clock*.

    The time is aware and in UTC. It may be read and moved from several threads.
    """

    def __init__(self, start: datetime | None = None) -> None:
        self._now = start or datetime(2026, 1, 1, tzinfo=timezone.utc)
        self._lock = threading.Lock()

    def __call__(self) -> datetime:
        """Return the time that it shows."""
        with self._lock:
            return self._now

    def __repr__(self) -> str:
        return f"<FakeClock at {self().isoformat()}>"

    def advance(self, seconds: float | timedelta) -> datetime:
        """Move on by *seconds* and return the new time."""
        by = seconds if isinstance(seconds, timedelta) else timedelta(seconds=seconds)
        with self._lock:
            self._now += by
            return self._now
