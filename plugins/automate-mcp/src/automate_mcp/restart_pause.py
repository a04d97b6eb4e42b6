"""The pause before a server that failed is started again."""

from __future__ import annotations

import time
from collections.abc import Callable

_FIRST_SECONDS = 0.25
_MOST_SECONDS = 60.0


class RestartPause:
    """Pauses that double from a quarter of a second to a minute, until something has worked."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures = 0
        self._not_before = 0.0

    def failed(self) -> None:
        """Count a failure: the pause begins now."""
        pause = min(_MOST_SECONDS, _FIRST_SECONDS * 2.0 ** min(self._failures, 20))
        self._failures += 1
        self._not_before = self._clock() + pause

    def worked(self) -> None:
        """Forget what failed."""
        self._failures, self._not_before = 0, 0.0

    @property
    def remaining(self) -> float:
        """The seconds of the pause that are left."""
        return max(0.0, self._not_before - self._clock())
