"""
`Rows` in memory, for tests, scripts and the first hour with the library.

Nothing outlives the process. One lock is held for a whole transaction, so this is as correct as a
database and as slow as one writer; an undo log makes a rollback.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import Any, TypeVar

from automate_kernel.storage.checkpoint import checkpoint_in_steps
from automate_kernel.storage.codec import JsonText, decode_json, json_text
from automate_kernel.storage.dialects import utc_now
from automate_kernel.storage.rows import Checkpoint, Clock, Now, Plus, Portion, Row, Wakeup, Where
from automate_kernel.storage.tables import TABLES, Column

T = TypeVar("T")

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "lt": lambda left, right: left < right,
    "le": lambda left, right: left <= right,
    "gt": lambda left, right: left > right,
    "ge": lambda left, right: left >= right,
    "in": lambda left, right: left in right,
}


class MemoryStorage:
    """
    A database that is a few dictionaries.

    For several steps in one transaction open `begin` yourself and pass its rows as *transaction*.
    Anything else that is passed there, such as the session of the application under test, belongs
    to another database: rows are then written at once, and a rollback of the session doesn't take
    them back. To test that too, give the kernel a storage on the application's database.
    """

    supports_skip_locked = False

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or utc_now
        self._tables: dict[str, dict[Any, Row]] = {name: {} for name in TABLES}
        self._lock = threading.RLock()
        self._bell = _Bell()

    def __repr__(self) -> str:
        return f"<MemoryStorage of {sum(map(len, self._tables.values()))} rows>"

    @contextmanager
    def _own(self) -> Iterator[_MemoryRows]:
        with self._lock:
            rows = _MemoryRows(self._tables, self._clock)
            try:
                yield rows
            except BaseException:
                rows.undo()
                raise
        if rows.rang:
            self._bell.ring()

    @contextmanager
    def begin(self, transaction: Any = None, *, atomic: bool = True) -> Iterator[_MemoryRows]:
        """Open rows in the transaction given, or in one of their own."""
        if isinstance(transaction, _MemoryRows):
            yield transaction
        else:
            with self._own() as rows:
                yield rows

    async def arun_in(self, transaction: Any, work: Callable[[Any], T]) -> T:
        """Run *work* with Rows; nothing here waits, so there is nothing to await."""
        with self.begin(transaction) as rows:
            return work(rows)

    def wakeup(self, channel: str) -> Wakeup | None:
        """Return a `Wakeup` that wakes when a transaction with new items commits."""
        return _BellWakeup(self._bell)

    def create_tables(self) -> None:
        """Do nothing: they are here from the start."""

    def describe(self) -> str:
        """Say that nothing outlives the process."""
        return "memory (lost when the process ends)"

    def close(self) -> None:
        """Do nothing."""


class _Bell:
    """A count of the commits that notify, and a condition to wait for the next."""

    def __init__(self) -> None:
        self.rung = threading.Condition()
        self.count = 0

    def ring(self) -> None:
        with self.rung:
            self.count += 1
            self.rung.notify_all()


class _BellWakeup:
    def __init__(self, bell: _Bell) -> None:
        self._bell = bell
        self._heard = bell.count

    def wait(self, timeout: float) -> bool:
        with self._bell.rung:
            rang = self._bell.rung.wait_for(lambda: self._bell.count != self._heard, timeout)
            self._heard = self._bell.count
            return rang

    def wake(self) -> None:
        self._bell.ring()

    def close(self) -> None:
        pass


class _MemoryRows:
    """One transaction on the dictionaries."""

    def __init__(self, tables: dict[str, dict[Any, Row]], clock: Clock) -> None:
        self._tables = tables
        self._clock = clock
        self._undo: list[tuple[dict[Any, Row], Any, Row | None]] = []
        self.native = self
        self.rang = False

    def undo(self) -> None:
        for table, key, before in reversed(self._undo):
            if before is None:
                table.pop(key, None)
            else:
                table[key] = before
        self._undo.clear()

    def insert(
        self,
        table: str,
        rows: Sequence[Mapping[str, Any]],
        *,
        notify: str = "",
        fresh: bool = False,
    ) -> int:
        spec, stored, added = TABLES[table], self._tables[table], 0
        for row in rows:
            new = {column.name: self._kept(column, row.get(column.name)) for column in spec.columns}
            if new[spec.key] in stored or self._clashes(table, new):
                continue
            self._put(table, new)
            added += 1
        self.rang = self.rang or bool(notify and added)
        return added

    def _clashes(self, table: str, new: Row) -> bool:
        for columns in TABLES[table].unique:
            values = [new[column] for column in columns]
            if None in values:  # as in SQL, a null equals nothing
                continue
            if any([row[c] for c in columns] == values for row in self._tables[table].values()):
                return True
        return False

    def _put(self, table: str, row: Row) -> None:
        stored, key = self._tables[table], row[TABLES[table].key]
        self._undo.append((stored, key, stored.get(key)))
        stored[key] = row

    def _kept(self, column: Column, value: Any) -> Any:
        """Return *value* as a database would give it back."""
        if column.type == "json" and value is not None:
            return decode_json(str(value if isinstance(value, JsonText) else json_text(value)))
        return self._value(value)

    def _value(self, value: Any) -> Any:
        if isinstance(value, Now):
            return self._clock() + timedelta(seconds=value.offset)
        if isinstance(value, datetime):
            return value.astimezone(timezone.utc)
        return copy.deepcopy(value)

    def _matches(self, row: Row, where: Sequence[Where]) -> bool:
        return all(self._holds(row[one.column], one) for one in where)

    def _holds(self, left: Any, where: Where) -> bool:
        right = self._value(where.value)
        if where.operator == "eq":
            return bool(left == right)
        if where.operator == "ne":
            return bool(left != right) and (right is None or left is not None)
        return left is not None and _COMPARE[where.operator](left, right)

    def _find(
        self, table: str, where: Sequence[Where], order_by: Sequence[str], limit: int | None
    ) -> list[Row]:
        found = [row for row in self._tables[table].values() if self._matches(row, where)]
        return _in_order(found, order_by)[:limit]

    def select(
        self,
        table: str,
        where: Sequence[Where] = (),
        *,
        order_by: Sequence[str] = (),
        limit: int | None = None,
        offset: int = 0,
        lock: bool = False,
        skip_locked: bool = False,
        columns: Sequence[str] = (),
    ) -> list[Row]:
        most = None if limit is None else limit + offset
        return _copied(self._find(table, where, order_by, most)[offset:], columns)

    def take(
        self,
        table: str,
        where: Sequence[Where],
        *,
        order_by: Sequence[str],
        limit: int,
        changes: Mapping[str, Any],
        skip_locked: bool = True,
        columns: Sequence[str] = (),
        parts: Sequence[Portion] = (),
    ) -> list[Row]:
        found: list[Row] = []
        for part in parts or (Portion((), limit),):
            most = min(part.limit, limit - len(found))
            found += self._find(table, [*where, *part.where], order_by, most)
        taken = _in_order([self._change(table, row, changes) for row in found], order_by)
        return _copied(taken, columns)

    def _change(self, table: str, row: Row, changes: Mapping[str, Any]) -> Row:
        new = dict(row)
        for name, value in changes.items():
            added = isinstance(value, Plus)
            column = TABLES[table].column(name)
            new[name] = row[name] + value.amount if added else self._kept(column, value)
        self._put(table, new)
        return new

    def update(self, table: str, where: Sequence[Where], changes: Mapping[str, Any]) -> int:
        found = self._find(table, where, (), None)
        for row in found:
            self._change(table, row, changes)
        return len(found)

    def delete(self, table: str, where: Sequence[Where]) -> int:
        return len(self.remove(table, where))

    def remove(self, table: str, where: Sequence[Where]) -> list[Any]:
        stored, key = self._tables[table], TABLES[table].key
        found = self._find(table, where, (), None)
        for row in found:
            self._undo.append((stored, row[key], row))
            del stored[row[key]]
        return [row[key] for row in found]

    def checkpoint(self, group: Sequence[Checkpoint], lease_seconds: float) -> set[str]:
        return checkpoint_in_steps(self, group, lease_seconds)

    def now(self) -> datetime:
        return self._clock()

    def distinct(self, table: str, column: str, where: Sequence[Where] = ()) -> list[Any]:
        found = self._find(table, [*where, Where(column, "ne", None)], (), None)
        return sorted({row[column] for row in found})

    def count(self, table: str, by: Sequence[str] = (), where: Sequence[Where] = ()) -> list[Row]:
        counts: dict[tuple[Any, ...], int] = {} if by else {(): 0}
        for row in self._find(table, where, (), None):
            group = tuple(row[name] for name in by)
            counts[group] = counts.get(group, 0) + 1
        return [dict(zip((*by, "n"), (*group, n), strict=True)) for group, n in counts.items()]


def _copied(rows: list[Row], columns: Sequence[str]) -> list[Row]:
    return [{name: copy.deepcopy(row[name]) for name in (columns or row)} for row in rows]


def _in_order(rows: list[Row], order_by: Sequence[str]) -> list[Row]:
    # Sorting by the last column first keeps the order of the earlier ones.
    for name in reversed(order_by):
        rows.sort(key=lambda row: row[name.lstrip("-")], reverse=name[0] == "-")
    return rows
