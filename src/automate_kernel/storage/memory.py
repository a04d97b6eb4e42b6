"""
A database in memory, for tests, scripts and the first hour with the library.

Nothing outlives the process. It is SQLite's, which every Python brings along.
"""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, TypeVar

from automate_kernel.base import runtime
from automate_kernel.base.errors import StorageError
from automate_kernel.base.forks import ForkGuard, new_lock, new_rlock
from automate_kernel.storage.dialects import DIALECTS, Clock
from automate_kernel.storage.errors import storage_error, unsendable
from automate_kernel.storage.migration import create_statements
from automate_kernel.storage.rows import Rows, Wakeup
from automate_kernel.storage.tables import TABLES

T = TypeVar("T")

# There is one connection, so that nobody is waited for; and old ones have no RETURNING.
_DIALECT = replace(DIALECTS["sqlite"], first="", returning=sqlite3.sqlite_version_info >= (3, 35))


# As long as a connection to a SQLite file of ours waits for its lock.
_PATIENCE_SECONDS = 30.0

# Within it too nobody may be in SQLite while the process is forked.
_copying = ForkGuard()
_copied = new_lock()


@lru_cache(maxsize=1)
def _tables() -> sqlite3.Connection:
    """Return a database with our tables; to copy it takes a tenth of the time of making them."""
    made = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    for table in TABLES.values():
        for sql in create_statements(_DIALECT, table):
            made.execute(sql)
    return made


def _close(connection: sqlite3.Connection) -> None:
    with suppress(StorageError), _copying.entered():
        connection.close()


class MemoryStorage:
    """
    A database that ends with the process. One lock is held for a whole transaction.

    For several steps in one transaction open `begin` yourself and pass its rows as *transaction*.
    Anything else that is passed there, such as the session of the application under test, belongs
    to another database: rows are then written at once, and a rollback of the session doesn't take
    them back. To test that too, give the kernel a storage on the application's database.
    """

    supports_skip_locked = False

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock
        self._skipped = timedelta()
        self._lock, self._guard = new_rlock(), ForkGuard()
        self._bells: dict[_Bell, None] = {}
        self._rows: type[MemoryRows] = MemoryRows
        self.kernels: set[object] = set()
        """One object for each open kernel on it: beside a single one there is no other worker."""
        with _copying.entered(), _copied:
            self._connection = sqlite3.connect(
                ":memory:", isolation_level=None, check_same_thread=False
            )
            _tables().backup(self._connection)
        weakref.finalize(self, _close, self._connection)

    def __repr__(self) -> str:
        return "<MemoryStorage>"

    def skip(self, seconds: float) -> None:
        """
        Move the clock of this storage on, for all that is due then: for tests.

        Do it while no worker runs, whose leases would end.
        """
        self._skipped += timedelta(seconds=seconds)

    @contextmanager
    def begin(
        self, transaction: Any = None, *, atomic: bool = True, bounded: bool = True
    ) -> Iterator[MemoryRows]:
        """Open rows in the transaction given, or in one of their own."""
        if isinstance(transaction, MemoryRows):
            yield transaction
            return
        clock = self._shifted if self._skipped else self._clock
        rows = self._rows(self._connection, clock)
        with self._guard.entered():
            if not self._lock.acquire(timeout=_PATIENCE_SECONDS):
                # A transactional step, say, that waits for a call of its own on another thread.
                error = sqlite3.OperationalError("database is locked")
                raise storage_error(error, "memory", migrate="", retryable=True)
            try:
                # Within another of this thread's it is a part of that one.
                self._connection.execute("SAVEPOINT begun")
                try:
                    yield rows
                except BaseException:
                    self._connection.execute("ROLLBACK TO begun")
                    raise
                finally:
                    self._connection.execute("RELEASE begun")
            finally:
                self._lock.release()
        if rows.rang:
            self._ring()

    def _ring(self) -> None:
        for bell in list(self._bells):
            bell.wake()

    def joins(self, transaction: Any) -> bool:
        """Return True for rows that are open."""
        return isinstance(transaction, MemoryRows)

    def _shifted(self) -> datetime:
        return (self._clock or runtime.utc_now)() + self._skipped

    async def arun_in(self, transaction: Any, work: Callable[[Any], T]) -> T:
        """Run *work* with Rows; nothing here waits, so there is nothing to await."""
        with self.begin(transaction) as rows:
            return work(rows)

    def wakeup(self) -> Wakeup | None:
        """Return a `Wakeup` that wakes when a transaction with new items commits."""
        return _Bell(self._bells)

    def create_tables(self) -> None:
        """Do nothing: they are here from the start."""

    def describe(self) -> str:
        """Say that nothing outlives the process."""
        return "memory (lost when the process ends)"

    def close(self) -> None:
        """Do nothing."""


class _Bell:
    """A `Wakeup`, one of all those that a commit with new items rings."""

    def __init__(self, bells: dict[_Bell, None]) -> None:
        self._rung = runtime.Event()
        self._bells = bells
        bells[self] = None

    def expect(self) -> bool:
        return True

    def ignore(self) -> None:
        pass

    def wait(self, timeout: float) -> bool:
        rang = self._rung.wait(timeout)
        self._rung.clear()
        return rang

    def wake(self) -> None:
        self._rung.set()

    def close(self) -> None:
        self._bells.pop(self, None)


class MemoryRows(Rows):
    """Our tables inside one transaction in memory."""

    def __init__(self, connection: sqlite3.Connection, clock: Clock | None) -> None:
        super().__init__(_DIALECT, "?", clock)
        self.native = self
        self.rang = False
        self._connection = connection

    def run(self, sql: str, parameters: Sequence[Any], *, fetch: bool) -> Any:
        """Run one statement."""
        try:
            cursor = self._connection.execute(sql, parameters)
        except sqlite3.Error as error:
            raise storage_error(error, "memory", migrate="", retryable=False) from error
        except (UnicodeError, OverflowError) as error:
            raise unsendable(error, "memory") or error from None
        return cursor.fetchall() if fetch else cursor.rowcount

    def notify(self) -> None:
        """Wake the workers once the transaction is committed."""
        self.rang = True
