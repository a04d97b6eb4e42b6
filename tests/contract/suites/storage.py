"""The test of a `Storage` and its `Rows`: what an adapter for one more framework must do."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from automate_kernel.base import runtime
from automate_kernel.base.errors import AutomateError, ErrorCodes, StorageError
from automate_kernel.storage import Now, Plus, Portion, Row, Rows, Storage, Where
from automate_kernel.storage.tables import DEBOUNCE, DELIVERY, ORDERING_LOCK, PAUSE, STEP
from automate_testing.clock import FakeClock
from automate_testing.contracts.values import KEPT, same

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
        "failures": 0,
        "output": None,
        "error": None,
        "started_at": None,
        **values,
    }


def positions(rows: Sequence[Row]) -> list[int]:
    """Which rows these are."""
    return [row["position"] for row in rows]


SLACK_SECONDS = 30.0


THREADS = 4
PATIENCE_SECONDS = 30.0


class StorageContract:
    """
    Tests of what every `Storage` must do.

    ::

        class TestMyStorage(StorageContract):
            @pytest.fixture
            def storage(self):
                return MyStorage(connect())
    """

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

    # Values, conditions and order.

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

    def test_a_list_may_be_of_any_length(self, storage: Storage) -> None:
        """Two lists in one statement, each with more values than a statement takes parameters."""
        ids = [new_id(number) for number in range(40_000)]
        numbers = list(range(2, 40_000))
        where = [Where("id", "in", ids), Where("position", "in", numbers)]
        names = [Where("step_id", "in", [f"step-{number}" for number in range(40_000)])]
        with storage.begin() as rows:
            rows.insert(STEP, [step(1), step(2), step(39_999), step(40_001)])
            found = rows.select(STEP, where, order_by=("id",), lock=True)
            assert positions(found) == [2, 39_999]
            assert positions(rows.select(STEP, names, order_by=("id",))) == [1, 2, 39_999]
            assert rows.count(STEP, where=where) == [{"n": 2}]
            assert rows.update(STEP, where, {"attempts": 1}) == 2
            assert len(rows.remove(STEP, where)) == 2
            assert rows.delete(STEP, names) == 1
            keys = [f"key-{number:05}" for number in range(20_000)]
            many = [{"id": key, "execution_id": new_id(1), "created_at": Now()} for key in keys]
            rows.ensure(DEBOUNCE, many)
            rows.ensure(DEBOUNCE, many)
            assert rows.count(DEBOUNCE) == [{"n": 20_000}]

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

    def test_the_least_of_each(self, storage: Storage) -> None:
        """Per value, null too, in each column among the rows that its conditions choose."""
        codes = ["B", None, "A", "B", None, "C"]
        times = (Now(60.0 * -n) for n in range(6))
        self.add(storage, *(
            step(n, error_code=code, started_at=at, completed_at=Now(-90.0))
            for n, (code, at) in enumerate(zip(codes, times, strict=True))
        ))  # fmt: skip
        nothing = ("started_at", [Where("error_code", "in", [])])
        of = [
            ("started_at", [Where("error_code", "eq", None)]), nothing,
            ("completed_at", [Where("position", "in", [0, 2])]),
            ("started_at", [Where("position", "eq", 4)]),
        ]  # fmt: skip
        with storage.begin() as rows:
            at = {row["position"]: row for row in rows.select(STEP)}
            assert rows.least(STEP, by="error_code", of=of) == {
                None: at[4]["started_at"], "B": at[0]["completed_at"], "A": at[2]["completed_at"],
            }  # fmt: skip
            assert rows.least(STEP, by="error_code", of=[nothing]) == {}

    def test_what_is_found_at_one_look(self, storage: Storage) -> None:
        """In several tables, with a condition on the time, and the least time of some rows."""
        at = [Now(-60.0), Now(-30.0), Now(60.0)]
        self.add(storage, *(step(n, started_at=each) for n, each in enumerate(at)))
        past = [Where("started_at", "lt", Now())]
        later = [Where("started_at", "gt", Now(3600.0))]
        with storage.begin() as rows:
            began = {row["position"]: row["started_at"] for row in rows.select(STEP)}
            assert rows.found((STEP, past), (STEP, later), (PAUSE, [])) == [True, False, False]
            first = ("started_at", [Where("position", "in", [1, 2])])
            *found, least, now = rows.found((STEP, past), first=(STEP, *first))
            assert (found, least) == ([True], began[1])
            assert abs((now - rows.now()).total_seconds()) < 60
            nothing = (STEP, "started_at", [Where("position", "eq", 99)])
            assert rows.found((STEP, later), first=nothing)[:2] == [False, None]

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

    # Whose time it is.

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
        monkeypatch.setattr(runtime, "utc_now", lambda: T0 - timedelta(days=36_500))
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

    # Changes, and the transactions they are made in.

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
            Portion([Where("attempts", "eq", 2)], 3),
            Portion([Where("attempts", "eq", 7)], 3),
            Portion([Where("attempts", "eq", 0), Where("position", "ne", 0)], 3),
            Portion([Where("attempts", "eq", 1)], 3),
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

    def test_it_knows_whose_transaction_it_is(self, storage: Storage) -> None:
        """Only one of our own may be repeated after a deadlock."""
        assert not storage.joins(None)
        with self.host_transaction(storage) as transaction:
            assert storage.joins(transaction)

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

    @pytest.mark.parametrize(
        ("column", "operator", "value"),
        [
            ("step_id", "eq", 5), ("step_id", "in", ["a", 5]), ("step_id", "eq", ["a"]), ("started_at", "lt", "today"),
        ],
    )  # fmt: skip
    def test_a_condition_has_a_value_of_its_columns_type(
        self, storage: Storage, column: str, operator: Any, value: Any
    ) -> None:
        """SQLite compared a number with text, and with PostgreSQL it seemed to be away."""
        with storage.begin() as rows:
            with pytest.raises(AutomateError, match=column) as caught:
                rows.select(STEP, [Where(column, operator, value)])
            assert caught.value.code is ErrorCodes.INVALID_ARGUMENT

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
        """`arun_in` runs work in a transaction of its own, and gives its result or its error."""

        def work(rows: Rows) -> int:
            return rows.insert(STEP, [step(1)])

        def fail(rows: Rows) -> None:
            rows.insert(STEP, [step(2)])
            raise ZeroDivisionError

        assert asyncio.run(storage.arun_in(None, work)) == 1
        with pytest.raises(ZeroDivisionError):
            asyncio.run(storage.arun_in(None, fail))
        assert positions(self.all(storage)) == [1]

    # Several transactions at once.

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
                    added += rows.insert(ORDERING_LOCK, [{**lane, "lease_token": new_id(number)}])
            return added

        assert sum(self.race(run)) == 20

    # The storage itself.

    def test_tables_may_be_there_already(self, storage: Storage) -> None:
        """Creating the tables a second time keeps them and what they hold."""
        self.add(storage, step(1))
        storage.create_tables()
        assert positions(self.all(storage)) == [1]
        assert self.all(storage, DELIVERY) == []

    def test_description(self, storage: Storage) -> None:
        """It says where it is, in words for people."""
        assert storage.describe()

    def test_a_wake_after_the_end(self, storage: Storage) -> None:
        """It does nothing: a thread that still ends meets no error."""
        wakeup = storage.wakeup()
        if wakeup is not None:
            wakeup.close()
            wakeup.wake()

    def test_wakeup(self, storage: Storage) -> None:
        """A commit that notifies wakes who waits; a rollback doesn't."""
        wakeup = storage.wakeup()
        if wakeup is None:
            pytest.skip("polling is all there is")
        try:
            wakeup.expect()
            assert wakeup.expect(), "it is asked for already"
            assert not wakeup.wait(0)
            with pytest.raises(ZeroDivisionError), storage.begin() as rows:
                rows.insert(STEP, [step(1)], notify=True)
                raise ZeroDivisionError
            assert not wakeup.wait(0.02)
            with storage.begin() as rows:
                rows.insert(STEP, [step(1), step(2)], notify=True)
            assert wakeup.wait(PATIENCE_SECONDS)
            assert not wakeup.wait(0)
            wakeup.wake()
            assert wakeup.wait(PATIENCE_SECONDS)
        finally:
            wakeup.close()
