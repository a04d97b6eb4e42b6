"""A database in memory whose transactions are points of a simulation, with a trail of changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from automate_kernel.base.errors import StorageError
from automate_kernel.storage.dialects import Clock
from automate_kernel.storage.memory import MemoryRows, MemoryStorage
from automate_kernel.storage.tables import EXECUTION, OUTBOX, SIGNAL, STEP
from automate_testing.simulation.fibers import Process
from automate_testing.simulation.stand_ins import RLock, scheduler


class TrailEntry(NamedTuple):
    """A change of a row's state; *old* or *new* is empty where there was no row."""

    what: str
    id: str
    name: str
    old: str
    new: str


# What each row is shown by, and its state.
_WATCHED = {
    "execution": (EXECUTION, "workflow", "status"),
    "step": (STEP, "execution_id || '/' || {}.step_id || '/' || {}.position", "status"),
    "item": (OUTBOX, "kind", "status"),
    "signal": (SIGNAL, "key", "'kept'"),
}
_TRAIL = "CREATE TEMP TABLE trail (n INTEGER PRIMARY KEY, what, id, name, old, new)"
_INTO = "INSERT INTO trail (what, id, name, old, new) VALUES"


def _triggers() -> Iterator[str]:
    for what, (table, name, state) in _WATCHED.items():

        def of(row: str, text: str) -> str:
            return text.replace("{}", row) if text.startswith("'") else f"{row}.{text}"

        def shown(row: str, text: str = name) -> str:
            return f"{row}." + text.replace("{}", row)

        yield (
            f"CREATE TEMP TRIGGER {what}_came AFTER INSERT ON main.{table} BEGIN {_INTO} "
            f"('{what}', new.id, {shown('new')}, '', {of('new', state)}); END"
        )
        yield (
            f"CREATE TEMP TRIGGER {what}_went AFTER DELETE ON main.{table} BEGIN {_INTO} "
            f"('{what}', old.id, {shown('old')}, {of('old', state)}, ''); END"
        )
        if not state.startswith("'"):
            yield (
                f"CREATE TEMP TRIGGER {what}_moved AFTER UPDATE OF {state} ON main.{table} "
                f"WHEN old.{state} IS NOT new.{state} BEGIN {_INTO} "
                f"('{what}', new.id, {shown('new')}, old.{state}, new.{state}); END"
            )


class SimulatedStorage(MemoryStorage):
    """
    `MemoryStorage` whose statements and commits are points at which another fiber may go on.

    *clock* is the database's. `on_change` is called for each change before it is committed.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self._rows = _Rows
        self.on_change: Callable[[TrailEntry], None] | None = None
        self.deaf_until = 0.0
        """Until then no commit wakes a worker: notices are lost."""
        self._connection.execute(_TRAIL)
        for sql in _triggers():
            self._connection.execute(sql)

    def __repr__(self) -> str:
        return "<SimulatedStorage>"

    @contextmanager
    def begin(
        self, transaction: Any = None, *, atomic: bool = True, bounded: bool = True
    ) -> Iterator[MemoryRows]:
        """Open rows, as `MemoryStorage.begin` does."""
        if self.joins(transaction):
            yield transaction
            return
        lock: Any = self._lock
        inner = isinstance(lock, RLock) and lock.owner is scheduler().current
        if not inner:
            scheduler().point("begin")
        with super().begin(atomic=atomic, bounded=bounded) as rows:
            yield rows
            if not inner:
                scheduler().point("commit")
                self._note_changes()
        if not inner:
            scheduler().point("committed")

    def _ring(self) -> None:
        if scheduler().now >= self.deaf_until:
            super()._ring()

    def _note_changes(self) -> None:
        found = self._connection.execute(
            "SELECT what, id, name, old, new FROM trail ORDER BY n"
        ).fetchall()
        if not found:
            return
        self._connection.execute("DELETE FROM trail")
        for row in found:
            if self.on_change is not None:
                self.on_change(TrailEntry(*map(str, row)))

    def held_by(self, process: Process) -> bool:
        """Return True while a transaction of *process* is open."""
        owner = getattr(self._lock, "owner", None)
        return owner is not None and owner.process is process

    def abort(self, process: Process) -> None:
        """Roll back what *process*, which has died, had begun."""
        if self.held_by(process):
            lock: Any = self._lock
            self._connection.execute("ROLLBACK")
            lock.set_free()

    def read(self, sql: str, *parameters: Any) -> list[Any]:
        """Return the rows of a query, at once: an invariant's own look."""
        return self._connection.execute(sql, parameters).fetchall()


class _Rows(MemoryRows):
    def run(self, sql: str, parameters: Sequence[Any], *, fetch: bool) -> Any:
        scheduler().point("statement")
        return super().run(sql, parameters, fetch=fetch)


def connection_lost() -> StorageError:
    """Return the error of a database that is away, or of a reply that was lost."""
    return StorageError("memory: the connection is lost", retryable=True)
