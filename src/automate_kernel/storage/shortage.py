"""A shortage of connections: a server that takes no more, and what a process does meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

from automate_kernel.base import runtime
from automate_kernel.base.errors import StorageError
from automate_kernel.base.forks import new_lock

# So long a process keeps few connections after it has seen that none was left. If it sees that
# again soon, it does so for twice as long: what it gave up had made the place.
_SHORTEST_SECONDS, _LONGEST_SECONDS = 30.0, 600.0
_WARNING_SECONDS = 60.0


class TooManyConnectionsError(StorageError):
    """A database server takes no more connections."""


class Shortage:
    """
    Says whether the server of one database has had no place for more connections a moment ago.

    While it *lasts*, a process keeps few connections: whoever has too many gives others their
    turn. *clock* is monotonic.
    """

    def __init__(self, clock: Callable[[], float] = runtime.clock) -> None:
        self._clock = clock
        self._until, self._seconds = float("-inf"), _SHORTEST_SECONDS
        self._workers: WeakValueDictionary[int, Any] = WeakValueDictionary()

    def add_worker(self, worker: Any) -> None:
        """Note a worker of this process that uses the database."""
        self._workers[id(worker)] = worker

    @property
    def lasts(self) -> bool:
        """True while connections that nobody uses are to be given back."""
        return self._clock() < self._until

    @property
    def kept(self) -> int:
        """The number of unused connections to keep: one while leases have to be renewed."""
        workers = [reference() for reference in self._workers.valuerefs()]
        return int(any(worker is not None and worker.in_flight for worker in workers))

    def note(self) -> None:
        """Note that the server is full."""
        now, until = self._clock(), self._until
        if now >= until:
            again = now - until < self._seconds
            self._seconds = min(_LONGEST_SECONDS, 2 * self._seconds) if again else _SHORTEST_SECONDS
        # Processes that saw it together must not all take connections again at the same moment.
        self._until = max(until, now + self._seconds * runtime.numbers.uniform(1.0, 1.5))


_shortages: dict[str, Shortage] = {}
_lock = new_lock()
_warned_at = float("-inf")


def shortage_of(place: str) -> Shortage:
    """Return this process's only `Shortage` of the database *place*, as errors name it."""
    return _shortages.setdefault(place, Shortage())


def warn_of(log: logging.Logger, error: BaseException, text: str, *arguments: object) -> None:
    """
    Log a warning of *text*, whose last ``%s`` is *error*: a line without a traceback.

    Of a server that takes no more connections all loops of a process warn together, once a minute.
    """
    if not isinstance(error, TooManyConnectionsError):
        log.warning(text, *arguments, error)
        return
    log.debug(text, *arguments, error)
    if _may_warn():
        again = "idle connections are given back for a while, and all that failed is tried again"
        log.warning("%s; %s. Remedy: %s", error.message, again, error.hint)


def without_words(error: Exception) -> Exception:
    """Return *error* for a log: of all but a shortage its kind alone, and no words of a driver."""
    if isinstance(error, TooManyConnectionsError):
        return error
    return StorageError(type(error.__cause__ or error).__name__)


def _may_warn() -> bool:
    global _warned_at  # noqa: PLW0603  (the process is one)
    with _lock:
        now = runtime.monotonic()
        due = now - _warned_at >= _WARNING_SECONDS
        if due:
            _warned_at = now
    return due
