"""A lock among processes, for secrets backends whose store can compare and set."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

from automate_kernel.base import runtime
from automate_kernel.base.errors import SecretUnavailableError
from automate_kernel.secrets.logs import get_logger

logger: logging.Logger = get_logger(__name__)


_FREE = ""
_WAIT_SECONDS = 60.0


class LockState(NamedTuple):
    """The state of a lock's entry: the version that a write must name, and the holder."""

    version: int
    """0 if there is no entry yet. Each write changes it."""
    holder: str
    """Empty if the lock is free."""


class LockEntry(Protocol):
    """The place in a store where a lock is kept."""

    def read(self) -> LockState:
        """Return the entry's state."""

    def write(self, holder: str, version: int) -> int | None:
        """Store *holder* if the entry still has *version*; return its new version, else None."""


class LeaseLock:
    """
    A lock that one process holds at a time, in an entry of a store.

    The holder writes its entry again, from a thread, every quarter of *lease_seconds*. An entry
    that nobody has written for that long belongs to a process that died, and is taken. Each process
    measures that with its own clock, so clocks need not agree. Whoever waits longer than a
    minute gets a `SecretUnavailableError`.

    A holder that can't reach the store for *lease_seconds* may lose the lock: it helps against
    doing work twice, and a write that must not be lost names the version that it replaces.
    """

    def __init__(
        self,
        entry: LockEntry,
        name: str,
        *,
        lease_seconds: float = 20.0,
        clock: Callable[[], float] = runtime.clock,
        sleep: Callable[[float], None] = runtime.pause,
    ) -> None:
        self._entry, self._name = entry, name
        self._lease = lease_seconds
        self._clock, self._sleep = clock, sleep

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock for the block."""
        holder = runtime.urandom(12).hex()
        version = self._acquire(holder)
        renewal = _Renewal(self._entry, holder, version, self._lease / 4)
        renewal.start()
        try:
            yield
        finally:
            self._release(renewal.stop())

    def _acquire(self, holder: str) -> int:
        begin = changed = self._clock()
        seen: LockState | None = None
        while True:
            found = self._entry.read()
            now = self._clock()
            if found != seen:
                seen, changed = found, now
            if found.holder == _FREE or now - changed >= self._lease:
                version = self._entry.write(holder, found.version)
                if version is not None:
                    return version
            if now - begin >= _WAIT_SECONDS:
                raise SecretUnavailableError(f"secret {self._name!r} is locked by another process")
            self._sleep(runtime.numbers.uniform(0.01, 0.1))

    def _release(self, version: int | None) -> None:
        try:
            if version is not None:
                self._entry.write(_FREE, version)
        except Exception as error:
            # The work is done. Others take the lock when its lease has run out.
            logger.warning("the lock of %r was not freed: %s", self._name, type(error).__name__)


class _Renewal(runtime.Thread):
    """Writes the entry again and again while the lock is held."""

    def __init__(self, entry: LockEntry, holder: str, version: int, seconds: float) -> None:
        super().__init__(name="automate-lease-lock", daemon=True)
        self._entry, self._holder, self._seconds = entry, holder, seconds
        self._version: int | None = version
        self._stopping = runtime.Event()

    def run(self) -> None:
        while self._version is not None and not self._stopping.wait(self._seconds):
            try:
                self._version = self._entry.write(self._holder, self._version)
            except Exception as error:
                logger.warning("a lock was not renewed: %s", type(error).__name__)

    def stop(self) -> int | None:
        """End, and return the version of the entry; None if another process has taken it."""
        self._stopping.set()
        self.join()
        return self._version
