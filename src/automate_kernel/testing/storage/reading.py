"""Values, conditions, order, and the clock."""

from __future__ import annotations

from datetime import timedelta, timezone

import pytest

from automate_kernel.storage import Now, Plus, Storage, Where, sql
from automate_kernel.storage import sql as statement
from automate_kernel.storage.tables import PAUSE, STEP
from automate_kernel.testing.clock import FakeClock
from automate_kernel.testing.storage.hooks import T0, StorageHooks, new_id, positions, step

__all__ = ["ClockContract", "ReadingContract"]

SLACK_SECONDS = 30.0


class ReadingContract(StorageHooks):
    """Values, conditions and order."""

    def test_values_come_back_as_plain_python(self, storage: Storage) -> None:
        """Every type of column gives back what was put in, to the microsecond."""
        zone = timezone(timedelta(hours=-5))
        output = {"text": "žluť % ? $1 \\u0000 🐎", "list": [1, None, 0.5, True], "": {}}
        self.add(
            storage, step(1, output=output, error="x" * 100_000, started_at=T0.astimezone(zone))
        )
        (row,) = self.all(storage)
        assert (row["id"], row["step_id"], row["position"]) == (new_id(1), "step-1", 1)
        assert (row["output"], row["error"]) == (output, "x" * 100_000)
        assert (row["started_at"], row["started_at"].utcoffset()) == (T0, timedelta(0))
        assert row["completed_at"] is row["error_code"] is None

    @pytest.mark.parametrize(
        ("where", "expected"),
        [
            (Where("position", "eq", 2), [2]),
            (Where("position", "ne", 2), [1, 3, 4]),
            (Where("position", "lt", 2), [1]),
            (Where("position", "le", 2), [1, 2]),
            (Where("position", "gt", 2), [3, 4]),
            (Where("position", "ge", 2), [2, 3, 4]),
            (Where("position", "in", [1, 4, 9]), [1, 4]),
            (Where("position", "in", []), []),
            (Where("position", "in", list(range(3, 2000))), [3, 4]),
            (Where("id", "in", (new_id(3), new_id(1))), [1, 3]),
            (Where("status", "in", ["PENDING"]), [1, 2, 3, 4]),
            (Where("started_at", "in", [T0]), [2]),
            (Where("error_code", "eq", None), [1, 3]),
            (Where("error_code", "ne", None), [2, 4]),
            (Where("error_code", "ne", "B"), [4]),
            (Where("error_code", "eq", "b"), []),
            (Where("started_at", "le", T0), [2]),
            (Where("started_at", "gt", T0), [4]),
        ],
        ids=str,
    )
    def test_conditions(self, storage: Storage, where: Where, expected: list[int]) -> None:
        """A condition means the same to select, count, update and delete."""
        two = {"error_code": "B", "started_at": T0}
        four = {"error_code": "D", "started_at": T0 + timedelta(microseconds=1)}
        self.add(storage, *(step(n, error_code=None) for n in (1, 3)))
        self.add(storage, step(2, **two), step(4, **four))
        with storage.begin() as rows:
            assert positions(rows.select(STEP, [where], order_by=("id",))) == expected
            assert sum(row["n"] for row in rows.count(STEP, (), [where])) == len(expected)
            assert rows.update(STEP, [where], {"attempts": Plus(1)}) == len(expected)
            assert rows.delete(STEP, [where]) == len(expected)
            assert positions(rows.select(STEP, order_by=("id",))) == sorted(
                {1, 2, 3, 4} - set(expected)
            )

    def test_conditions_are_anded(self, storage: Storage) -> None:
        """All conditions must hold."""
        self.add(storage, *map(step, range(6)))
        with storage.begin() as rows:
            where = [Where("position", "ge", 2), Where("position", "lt", 4)]
            assert positions(rows.select(STEP, where, order_by=("id",))) == [2, 3]

    def test_order_limit_and_columns(self, storage: Storage) -> None:
        """Rows come in the order asked for, as many and as wide as asked for."""
        self.add(storage, *(step(n, attempts=n % 2) for n in range(5)))
        with storage.begin() as rows:
            mixed = rows.select(STEP, order_by=("-attempts", "position"), limit=4)
            assert positions(mixed) == [1, 3, 0, 2]
            narrow = rows.select(STEP, order_by=("-id",), limit=1, columns=("position", "id"))
            assert narrow == [{"position": 4, "id": new_id(4)}]

    def test_count_by_columns(self, storage: Storage) -> None:
        """Rows are counted per value, or all together."""
        self.add(storage, *(step(n, attempts=n % 2) for n in range(5)))
        with storage.begin() as rows:
            by = {row["attempts"]: row["n"] for row in rows.count(STEP, ("attempts",))}
            assert by == {0: 3, 1: 2}
            assert rows.count(STEP) == [{"n": 5}]
            assert rows.count(PAUSE) == [{"n": 0}]

    def test_distinct_values(self, storage: Storage) -> None:
        """Each value once, in order, and no nulls."""
        codes = ["B", None, "a", "B", "C", None, "a"]
        self.add(storage, *(step(n, error_code=code) for n, code in enumerate(codes, 1)))
        with storage.begin() as rows:
            found = rows.distinct(STEP, "error_code")
            assert sorted(found) == ["B", "C", "a"]
            assert len(found) == 3
            later = [Where("position", "gt", 3), Where("error_code", "in", ["a", "C"])]
            assert sorted(rows.distinct(STEP, "error_code", later)) == ["C", "a"]
            assert rows.distinct(STEP, "error_code", [Where("position", "in", [])]) == []
            assert rows.distinct(PAUSE, "kind") == []


class ClockContract(StorageHooks):
    """Whose time it is."""

    def test_now_moves_by_its_offset(self, storage: Storage) -> None:
        """`Now` is the time, moved by seconds, as a value and in a condition."""
        with storage.begin() as rows:
            rows.insert(STEP, [step(1, started_at=Now()), step(2, started_at=Now(90.5))])
            rows.insert(STEP, [step(3, started_at=Now(-3600))])
            now = rows.now()
            past = rows.select(STEP, [Where("started_at", "lt", Now(-60))])
            near = rows.select(STEP, [Where("started_at", "lt", Now(60))], order_by=("id",))
            at = {row["position"]: row["started_at"] for row in rows.select(STEP)}
        assert now.utcoffset() == timedelta(0)
        assert (positions(past), positions(near)) == ([3], [1, 3])
        assert abs((now - at[1]).total_seconds()) < SLACK_SECONDS
        assert (at[2] - at[1]).total_seconds() == pytest.approx(90.5, abs=SLACK_SECONDS)
        assert (at[1] - at[3]).total_seconds() == pytest.approx(3600, abs=SLACK_SECONDS)

    def test_the_database_tells_the_time(
        self, storage: Storage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A worker whose clock is wrong writes and compares the right times."""
        if not self.supports_server_clock:
            pytest.skip("the database has no clock")
        for module in (sql, statement):
            monkeypatch.setattr(module, "utc_now", lambda: T0 - timedelta(days=36_500))
        with storage.begin() as rows:
            rows.insert(STEP, [step(1, started_at=Now(5))])
            (row,) = rows.select(STEP, [Where("started_at", "gt", Now(-60))])
            assert row["started_at"] > T0
            assert rows.now() > T0

    def test_injected_clock(self, storage: Storage) -> None:
        """With a clock of the test's own, `Now` is what it shows."""
        clock = FakeClock(T0)
        frozen = self.with_clock(storage, clock)
        with frozen.begin() as rows:
            rows.insert(STEP, [step(1, started_at=Now(0.25))])
            assert (rows.now(), rows.select(STEP, [Where("started_at", "le", Now())])) == (T0, [])
            clock.advance(0.25)
            (row,) = rows.select(STEP, [Where("started_at", "le", Now())])
        assert row["started_at"] == T0 + timedelta(seconds=0.25)
