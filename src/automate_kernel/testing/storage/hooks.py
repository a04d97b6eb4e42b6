"""What a subclass of the contract supplies, and what its groups share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

import pytest

from automate_kernel.storage import Row, Storage
from automate_kernel.storage.tables import STEP
from automate_kernel.testing.clock import FakeClock

__all__ = ["T0", "StorageHooks", "new_id", "positions", "step"]

T0 = datetime(2026, 3, 29, 1, 30, 0, 123456, tzinfo=timezone.utc)


def new_id(number: int) -> str:
    """An id that sorts by its number."""
    return f"01890000-0000-7000-8000-{number:012x}"


def step(number: int, **values: Any) -> Row:
    """A row of the step table, which has a column of every type."""
    return {
        "id": new_id(number),
        "execution_id": new_id(1),
        "step_id": f"step-{number}",
        "position": number,
        "status": "PENDING",
        "attempts": 0,
        "output": None,
        "error": None,
        "started_at": None,
        **values,
    }


def positions(rows: Sequence[Row]) -> list[int]:
    """Which rows these are."""
    return [row["position"] for row in rows]


class StorageHooks:
    """What a subclass supplies."""

    supports_server_clock = True
    """Whether the database has a clock of its own. SQLite and memory have not."""

    supports_refusals = True
    """Whether the database refuses what its columns can't hold. Memory holds anything."""

    @pytest.fixture
    def storage(self) -> Storage:
        """A storage without an injected clock, whose tables exist and are empty."""
        raise NotImplementedError(f"{type(self).__name__} needs a fixture 'storage'")

    @contextmanager
    def host_transaction(self, storage: Storage) -> Iterator[Any]:
        """A transaction of the host's own making, as it is passed to the kernel."""
        with storage.begin() as rows:
            yield rows.native

    def with_clock(self, storage: Storage, clock: FakeClock) -> Storage:
        """A storage on the same data that reads *clock*."""
        pytest.skip(f"{type(self).__name__} takes no clock")

    def add(self, storage: Storage, *rows: Row, table: str = STEP) -> None:
        """Insert and commit."""
        with storage.begin() as opened:
            opened.insert(table, rows)

    def all(self, storage: Storage, table: str = STEP) -> list[Row]:
        """What is committed, in the order of ids."""
        with storage.begin() as rows:
            return rows.select(table, order_by=("id",))
