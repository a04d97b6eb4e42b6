"""Changes, and the transactions they are made in."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from automate_kernel.errors import StorageError
from automate_kernel.storage import Now, Part, Plus, Rows, Storage, Where
from automate_kernel.storage.tables import PAUSE, STEP
from automate_kernel.testing.storage.hooks import T0, StorageHooks, new_id, positions, step
from automate_kernel.testing.values import KEPT, same

__all__ = ["WritingContract"]


class WritingContract(StorageHooks):
    """Changes, and the transactions they are made in."""

    def test_existing_keys_are_skipped(self, storage: Storage) -> None:
        """A row whose primary or unique key exists is not added, and that is no error."""
        self.add(storage, step(1))
        with storage.begin() as rows:
            same_unique = {**step(3), "step_id": "step-1", "position": 1}
            new = [step(1, status="NEW"), step(2), same_unique, step(2, status="NEW")]
            assert rows.insert(STEP, new) == 1
            assert rows.insert(STEP, []) == 0
        assert [(row["position"], row["status"]) for row in self.all(storage)] == [
            (1, "PENDING"),
            (2, "PENDING"),
        ]

    def test_what_is_no_duplicate_is_an_error(self, storage: Storage) -> None:
        """A row that the database refuses for another reason is never skipped in silence."""
        if not self.supports_refusals:
            pytest.skip("it refuses nothing")
        for new in ([step(1, status=None)], [step(1), step(2, status=None), step(3)]):
            with pytest.raises(StorageError), storage.begin() as rows:
                rows.insert(STEP, new)
            assert self.all(storage) == []

    def test_values_keep_their_types(self, storage: Storage) -> None:
        """JSON comes back as it was, however it goes in and whichever row of many holds it."""
        values = list(KEPT.values())
        self.add(storage, *(step(n, output=value) for n, value in enumerate(values)))
        assert all(map(same, [row["output"] for row in self.all(storage)], values))
        with storage.begin() as rows:
            for n, value in enumerate(reversed(values)):
                rows.update(STEP, [Where("position", "eq", n)], {"output": value})
        assert all(map(same, [row["output"] for row in self.all(storage)], reversed(values)))

    def test_keys_are_compared_exactly(self, storage: Storage) -> None:
        """Case and accents tell texts apart."""
        kinds = ["key", "KEY", "kéy"]
        with storage.begin() as rows:
            new = [{"kind": kind, "reason": None, "created_at": T0} for kind in kinds]
            assert rows.insert(PAUSE, new) == 3
            assert len(rows.select(PAUSE, [Where("kind", "in", ["KEY"])])) == 1

    def test_removed_rows_are_told(self, storage: Storage) -> None:
        """Rows that are removed come back by their keys, and the others stay."""
        self.add(storage, *(step(number) for number in range(1, 5)))
        with storage.begin() as rows:
            ids = [row["id"] for row in rows.select(STEP, order_by=("position",))]
            gone = rows.remove(STEP, [Where("position", "le", 2)])
            assert sorted(gone) == sorted(ids[:2])
            assert rows.remove(STEP, [Where("position", "le", 2)]) == []
            assert rows.remove(STEP, [Where("position", "in", [])]) == []
        assert [row["id"] for row in self.all(storage)] == ids[2:]

    def test_many_rows_at_once(self, storage: Storage) -> None:
        """More rows than a statement has room for parameters."""
        with storage.begin() as rows:
            assert rows.insert(STEP, [step(number) for number in range(4000)]) == 4000
            assert rows.insert(STEP, [step(number) for number in range(3990, 4010)]) == 10

    def test_update_and_delete(self, storage: Storage) -> None:
        """Values are set and counted up, and the rows that were hit are counted."""
        self.add(storage, *map(step, range(3)))
        with storage.begin() as rows:
            changes = {"attempts": Plus(2), "output": [1], "error": None, "started_at": T0}
            assert rows.update(STEP, [Where("position", "ge", 1)], changes) == 2
            assert rows.update(STEP, [Where("position", "ge", 1)], {"attempts": Plus(-1)}) == 2
            # What changes nothing has hit its row all the same.
            assert rows.update(STEP, [Where("position", "eq", 1)], {"output": [1]}) == 1
            assert rows.delete(STEP, [Where("position", "eq", 0)]) == 1
            assert rows.delete(STEP, [Where("position", "eq", 0)]) == 0
        found = [(row["attempts"], row["output"], row["started_at"]) for row in self.all(storage)]
        assert found == [(1, [1], T0)] * 2

    def test_take(self, storage: Storage) -> None:
        """The first rows in order are changed, and come back as they are now."""
        self.add(storage, *(step(n, attempts=n % 2) for n in range(6)))
        with storage.begin() as rows:
            taken = rows.take(
                STEP,
                [Where("status", "eq", "PENDING")],
                order_by=("-attempts", "id"),
                limit=4,
                changes={"status": "RUNNING", "attempts": Plus(1), "started_at": Now()},
            )
            assert positions(taken) == [1, 3, 5, 0]
            assert [row["attempts"] for row in taken] == [2, 2, 2, 1]
            assert {row["status"] for row in taken} == {"RUNNING"}
            assert rows.select(STEP, [Where("id", "eq", new_id(0))]) == [taken[3]]
        left = [row for row in self.all(storage) if row["status"] == "PENDING"]
        assert positions(left) == [2, 4]

    def test_take_in_parts(self, storage: Storage) -> None:
        """Each part gives at most what it may, one after the other until there is enough."""
        self.add(storage, *(step(n, attempts=n // 4) for n in range(12)))
        parts = [
            Part([Where("attempts", "eq", 2)], 3),
            Part([Where("attempts", "eq", 7)], 3),
            Part([Where("attempts", "eq", 0), Where("position", "ne", 0)], 3),
            Part([Where("attempts", "eq", 1)], 3),
        ]
        wanted: dict[str, Any] = {
            "order_by": ("position",),
            "changes": {"status": "RUNNING"},
            "parts": parts,
        }
        waiting = [Where("status", "eq", "PENDING")]
        with storage.begin() as rows:
            taken = rows.take(STEP, waiting, limit=7, columns=("position", "status"), **wanted)
            assert positions(taken) == [1, 2, 3, 4, 8, 9, 10]
            assert set(taken[0]) == {"position", "status"}
            assert positions(rows.take(STEP, waiting, limit=20, **wanted)) == [5, 6, 7, 11]
        left = [row for row in self.all(storage) if row["status"] == "PENDING"]
        assert positions(left) == [0]

    @pytest.mark.parametrize("fresh", [False, True], ids=["insert", "fresh"])
    @pytest.mark.parametrize("count", [2, 120])
    def test_many_values_come_back(self, storage: Storage, count: int, fresh: bool) -> None:
        """Whatever many rows hold arrives, by whichever way the database takes them quickest."""
        texts = ["", "a\tb\nc\r\\d\\N\\.", 'say "hi", {x}', "ž 🐎 \x01", "NULL", "\\N", "%s ? $1"]
        new = [
            step(
                n,
                error=None if n % 8 == 7 else texts[n % 8 % len(texts)],
                output={"text": texts[n % len(texts)], "n": [n, None, 0.5]},
                started_at=Now(n) if n % 2 else T0,
                completed_at=Now(),
                attempts=n,
            )
            for n in range(count)
        ]
        with storage.begin() as rows:
            assert rows.insert(STEP, new, fresh=fresh) == count
            now = rows.now()
        for n, row in enumerate(self.all(storage)):
            assert (row["attempts"], row["output"]) == (n, new[n]["output"])
            assert row["error"] == new[n]["error"]
            due = now + timedelta(seconds=n) if n % 2 else T0
            assert abs((row["started_at"] - due).total_seconds()) < 30
            assert abs((row["completed_at"] - now).total_seconds()) < 30

    def test_own_transaction_rolls_back(self, storage: Storage) -> None:
        """Whatever ends the block early undoes all of it."""
        self.add(storage, step(1), step(2))
        for error in (ZeroDivisionError, KeyboardInterrupt):
            with pytest.raises(error), storage.begin() as rows:
                rows.insert(STEP, [step(3)])
                rows.update(STEP, [Where("position", "eq", 1)], {"status": "RUNNING"})
                rows.delete(STEP, [Where("position", "eq", 2)])
                rows.insert(STEP, [step(2, status="NEW")])
                raise error
        rows_left = [(row["position"], row["status"]) for row in self.all(storage)]
        assert rows_left == [(1, "PENDING"), (2, "PENDING")]

    def test_host_commits(self, storage: Storage) -> None:
        """In a host's transaction several blocks are committed together, by the host."""
        with self.host_transaction(storage) as transaction:
            for number in (1, 2):
                with storage.begin(transaction) as rows:
                    rows.insert(STEP, [step(number)])
        assert positions(self.all(storage)) == [1, 2]

    def test_host_rolls_back(self, storage: Storage) -> None:
        """Nothing that is done in a host's transaction, duplicates too, commits any of it."""
        self.add(storage, step(1))
        with pytest.raises(ZeroDivisionError), self.host_transaction(storage) as transaction:
            with storage.begin(transaction) as rows:
                rows.insert(STEP, [step(2)])
            with storage.begin(transaction) as rows:
                # A savepoint against duplicates may, once released, commit all that came before.
                assert rows.insert(STEP, [step(1), step(3)]) == 1
                rows.select(STEP, lock=True)
                rows.take(STEP, [], order_by=("id",), limit=1, changes={"status": "RUNNING"})
            raise ZeroDivisionError
        assert [(row["position"], row["status"]) for row in self.all(storage)] == [(1, "PENDING")]

    def test_error_inside_a_hosts_transaction_is_the_hosts(self, storage: Storage) -> None:
        """An exception passes through, and the host may still commit what it did before."""
        with self.host_transaction(storage) as transaction:
            with pytest.raises(ZeroDivisionError), storage.begin(transaction) as rows:
                rows.insert(STEP, [step(1)])
                raise ZeroDivisionError
            with storage.begin(transaction) as rows:
                rows.insert(STEP, [step(2)])
        assert 2 in positions(self.all(storage))

    def test_asynchronous_begin(self, storage: Storage) -> None:
        """`abegin` runs work in a transaction of its own, and gives its result or its error."""

        def work(rows: Rows) -> int:
            return rows.insert(STEP, [step(1)])

        def fail(rows: Rows) -> None:
            rows.insert(STEP, [step(2)])
            raise ZeroDivisionError

        assert asyncio.run(storage.abegin(None, work)) == 1
        with pytest.raises(ZeroDivisionError):
            asyncio.run(storage.abegin(None, fail))
        assert positions(self.all(storage)) == [1]
