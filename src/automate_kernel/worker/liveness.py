"""Liveness of a worker: signs of life of its threads."""

from __future__ import annotations

import time
from collections.abc import Callable

# Longer than the longest pause between two tries while the database is down: a worker that waits
# for its database is well, and starting it again would help nobody.
_STUCK_SECONDS = 60.0
_FAILING_SECONDS = 10.0


class Liveness:
    """
    The time at which each of a worker's threads last moved.

    *clock* is monotonic. The threads only store numbers here, which needs no lock.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._moved: dict[str, float] = {}
        self._claiming_since: float | None = None
        self.began: bool = False
        """True once a claim has succeeded, whether or not there was something."""
        self.stopping = False

    def move(self, thread: str) -> None:
        """Note that *thread* begins something that should not take long."""
        self._moved[thread] = self._clock()

    def rest(self, thread: str) -> None:
        """Note that *thread* waits, for however long, until there is something for it to do."""
        self._moved.pop(thread, None)

    def claiming(self) -> None:
        """Note that the fetcher tries to claim."""
        self._moved["fetcher"] = now = self._clock()
        if self._claiming_since is None:
            self._claiming_since = now

    def claimed(self) -> None:
        """Note that a claim succeeded, whether or not there was something."""
        self._claiming_since = None
        self.began = True

    def stuck(self, longest: float = _STUCK_SECONDS) -> list[str]:
        """Return the threads that did not move for *longest* seconds: they need a new process."""
        now = self._clock()
        return sorted(name for name, moved in list(self._moved.items()) if now - moved > longest)

    def failing(self, longest: float = _FAILING_SECONDS) -> bool:
        """Return True if no claim has succeeded for *longest* seconds, though it is tried."""
        since = self._claiming_since
        return since is not None and self._clock() - since > longest
