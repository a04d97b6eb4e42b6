"""The threads of a worker that make plain calls: of handlers, and of the steps of executions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from automate_kernel.base import runtime

T = TypeVar("T")
R = TypeVar("R")

LATE_SECONDS = 1.0
"""An entry that has waited for longer is handed back: calls take longer than those before."""


class Threads(Generic[T, R]):
    """
    Up to *most* threads, started as they are needed, with one queue of calls in front.

    *perform* makes a call. *done* is given its result, once its thread counts as free.
    """

    # Not concurrent.futures: a Future per call costs more than a short handler.

    def __init__(
        self, most: int, name: str, perform: Callable[[T], R], done: Callable[[T, R], None]
    ) -> None:
        self._most, self._name, self._perform, self._done = most, name, perform, done
        self._queue: runtime.SimpleQueue[T | None] = runtime.SimpleQueue()
        self._threads: list[runtime.Thread] = []
        self._lock, self._starting = runtime.Lock(), runtime.Lock()
        self.busy: int = 0
        """The calls that run, and those that wait for a thread."""

    @property
    def waiting(self) -> bool:
        """True if a call waits for a thread."""
        return not self._queue.empty()

    def put(self, calls: Sequence[T]) -> None:
        """Make *calls* on the next free threads."""
        with self._lock:
            self.busy += len(calls)
        # First, so that the threads there are take them even if no more can be started.
        for call in calls:
            self._queue.put(call)
        with self._starting:
            while len(self._threads) < min(self._most, self.busy):
                name = f"{self._name}-{len(self._threads)}"
                thread = runtime.Thread(target=self._serve, name=name, daemon=True)
                thread.start()
                self._threads.append(thread)

    def _serve(self) -> None:
        while (call := self._queue.get()) is not None:
            result = self._perform(call)
            with self._lock:
                self.busy -= 1
            self._done(call, result)

    def withdraw(self, choose: Callable[[Sequence[T]], Sequence[T]]) -> Sequence[T]:
        """Take out those of the waiting calls that *choose* returns; the others wait on."""
        if self.busy <= self._most:
            return ()
        entries = self._emptied()
        taken = choose([call for call in entries if call is not None])
        ids = {id(call) for call in taken}
        for call in entries:
            if call is None or id(call) not in ids:
                self._queue.put(call)
        with self._lock:
            self.busy -= len(taken)
        return taken

    def _emptied(self) -> list[T | None]:
        entries: list[T | None] = []
        try:
            while True:
                entries.append(self._queue.get_nowait())
        except runtime.Empty:
            return entries

    def stop(self) -> None:
        """End the threads once they are through with what they run."""
        for _ in self._threads:
            self._queue.put(None)


def late_since() -> float:
    """Return the monotonic time: what has waited since then is late."""
    return runtime.monotonic() - LATE_SECONDS
