"""Numbers that many threads count."""

from __future__ import annotations

from collections import Counter

from automate_kernel.base.forks import new_lock


class Tally:
    """The numbers of what happened in this process, by words such as a name and an outcome."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, ...]] = Counter()
        self._lock = new_lock()

    def add(self, *words: str) -> None:
        """Count one more."""
        with self._lock:
            self._counts[words] += 1

    def counts(self) -> dict[tuple[str, ...], int]:
        """Return the numbers that are not 0."""
        with self._lock:
            return dict(self._counts)
