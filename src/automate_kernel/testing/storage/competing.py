"""Several transactions at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from automate_kernel.storage import Plus, Storage, Where
from automate_kernel.storage.tables import LANE, STEP
from automate_kernel.testing.storage.hooks import StorageHooks, new_id, positions, step

__all__ = ["CompetingContract"]

THREADS = 4
PATIENCE_SECONDS = 30.0


class CompetingContract(StorageHooks):
    """Several transactions at once."""

    def race(self, run: Callable[[int], Any]) -> list[Any]:
        """Call *run* in all threads at once, with the thread's number."""
        start = threading.Barrier(THREADS)

        def work(number: int) -> Any:
            start.wait(PATIENCE_SECONDS)
            return run(number)

        with ThreadPoolExecutor(THREADS) as pool:
            return list(pool.map(work, range(THREADS)))

    @pytest.mark.parametrize("skip_locked", [True, False])
    def test_take_gives_each_row_once(self, storage: Storage, skip_locked: bool) -> None:
        """Of transactions that take at once, each row goes to one, and none is left over."""
        self.add(storage, *map(step, range(60)))

        def run(number: int) -> list[int]:
            mine: list[int] = []
            # Without locks a round may come back empty although there is more: try on.
            for _ in range(60):
                with storage.begin() as rows:
                    taken = rows.take(
                        STEP,
                        [Where("status", "eq", "PENDING")],
                        order_by=("id",),
                        limit=3,
                        changes={"status": f"TAKEN-{number}", "attempts": Plus(1)},
                        skip_locked=skip_locked,
                    )
                    mine += positions(taken)
            return mine

        taken = [position for mine in self.race(run) for position in mine]
        assert sorted(taken) == list(range(60))
        assert {row["attempts"] for row in self.all(storage)} == {1}

    def test_reading_before_writing(self, storage: Storage) -> None:
        """Transactions that read, and then write, wait for each other and don't fail."""
        self.add(storage, step(1))

        def run(number: int) -> None:
            for turn in range(10):
                with storage.begin() as rows:
                    (row,) = rows.select(STEP, [Where("id", "eq", new_id(1))], lock=True)
                    changes = {"attempts": row["attempts"] + 1}
                    rows.update(STEP, [Where("id", "eq", new_id(1))], changes)
                    rows.insert(STEP, [step(100 * number + turn + 2)])

        self.race(run)
        assert self.all(storage)[0]["attempts"] == THREADS * 10

    def test_one_key_is_inserted_once(self, storage: Storage) -> None:
        """Of transactions that insert one key at once, one succeeds and the others know."""

        def run(number: int) -> int:
            added = 0
            for key in range(20):
                with storage.begin() as rows:
                    lane = {"ordering_key": f"key-{key}", "item_id": new_id(number)}
                    added += rows.insert(LANE, [{**lane, "lease_token": new_id(number)}])
            return added

        assert sum(self.race(run)) == 20
