"""A quick handler runs in place, and one that is slow holds up nothing but a slot."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
import sqlalchemy as sa
from waiting import PATIENCE, Gate, until
from automate_kernel.outbox import ItemStatus, NewItem, OutboxItem, RowsOutboxStore
from automate_kernel.storage import MemoryStorage
from automate_kernel.worker import plain_pool
from automate_kernel.worker.handler import Handler, cancelling, should_stop
from automate_kernel.worker.plain_pool import InPlacePool, Pace
from automate_kernel.worker.worker import Worker
from automate_sqlalchemy import SqlAlchemyStorage

IN_PLACE = {"automate-quick", "automate-fetcher"}
SLOT = "automate-slot"


class Running:
    """A worker on a thread."""

    def __init__(self, store: RowsOutboxStore, *handlers: Handler, **options: Any) -> None:
        self.store = store
        self.worker = Worker(store, handlers, **{"poll_seconds": 0.05, **options})
        self._thread = threading.Thread(target=self.worker.run, daemon=True)
        self._thread.start()

    def do(self, *new: NewItem) -> None:
        """Have all these done."""
        ids = self.store.enqueue_many(new)
        until(lambda: all(status(self.store, one) is ItemStatus.COMPLETED for one in ids))

    def stop(self) -> Worker:
        self.worker.stop()
        return self.joined()

    def joined(self) -> Worker:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the worker did not stop"
        return self.worker


class Noting:
    """A handler of *kind* that notes its threads; what it does for a payload is in *doing*."""

    def __init__(self, kind: str = "quick", **doing: Callable[[], Any]) -> None:
        self.kind, self.doing = kind, doing
        self.threads: list[str] = []

    def __call__(self, one: OutboxItem) -> Any:
        self.threads.append(threading.current_thread().name)
        return self.doing[str(one.payload)]() if one.payload else None

    @property
    def handler(self) -> Handler:
        return Handler(self.kind, self)

    def new(self, count: int, payload: str = "") -> list[NewItem]:
        return [NewItem(self.kind, payload) for _ in range(count)]

    def settle(self, run: Running) -> None:
        """Have items done until this runs in place."""

        def settled() -> bool:
            run.do(*self.new(20))
            return self.threads[-1] in IN_PLACE

        until(settled)


def status(store: RowsOutboxStore, item_id: str) -> ItemStatus:
    found = store.get(item_id)
    assert found is not None
    return found.status


def begun(store: RowsOutboxStore, ids: Sequence[str]) -> list[str]:
    return [one for one in ids if status(store, one) is not ItemStatus.PENDING]


@pytest.fixture
def store() -> RowsOutboxStore:
    return RowsOutboxStore(MemoryStorage())


@pytest.fixture
def overrun(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """What a call that is slow calls: without it none is, however long the machine stands still."""
    note, seconds = Pace.note_on_thread, plain_pool._OVERRUN_SECONDS
    monkeypatch.setattr(Pace, "note_on_thread", lambda pace, _: note(pace, 0.00001))
    monkeypatch.setattr(InPlacePool, "_measure", lambda *_: None)
    monkeypatch.setattr(plain_pool, "_OVERRUN_SECONDS", PATIENCE)
    return lambda: monkeypatch.setattr(plain_pool, "_OVERRUN_SECONDS", seconds)


# -- where a kind runs -----------------------------------------------------------------------------


def test_a_quick_kind_begins_on_threads_and_goes_on_in_place(store: RowsOutboxStore) -> None:
    """Nobody has to say that it is quick."""
    quick = Noting()
    run = Running(store, quick.handler)
    quick.settle(run)
    run.do(*quick.new(500))
    run.stop()
    assert quick.threads[0].startswith(SLOT)
    assert "automate-quick" in quick.threads


def test_a_few_quick_items_run_where_they_were_claimed(store: RowsOutboxStore) -> None:
    """A single one of them wakes no other thread."""
    quick = Noting()
    run = Running(store, quick.handler)

    def at_once() -> bool:
        run.do(*quick.new(1))
        return quick.threads[-1] == "automate-fetcher"

    until(at_once)
    run.stop()


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError


@pytest.mark.usefixtures("overrun")
@pytest.mark.parametrize(
    "error", [SystemExit(3), asyncio.CancelledError(), GeneratorExit(), Unprintable()], ids=repr
)
def test_whatever_is_raised_in_place_the_worker_goes_on(
    store: RowsOutboxStore, error: BaseException
) -> None:
    """The item fails, and no other."""
    where: list[str] = []

    def fail() -> None:
        where.append(threading.current_thread().name)
        raise error

    quick = Noting(bad=fail)
    run = Running(store, quick.handler)
    quick.settle(run)
    bad, *good = store.enqueue_many([NewItem(quick.kind, "bad", max_attempts=1), *quick.new(30)])
    until(lambda: all(status(store, one) is ItemStatus.COMPLETED for one in good))
    until(lambda: status(store, bad) is ItemStatus.FAILED)
    run.do(*quick.new(30))
    run.stop()
    assert set(where) <= IN_PLACE
    found = store.get(bad)
    assert found is not None
    assert type(error).__name__ in (found.last_error or "")


def test_a_handler_that_waits_stays_on_threads(store: RowsOutboxStore) -> None:
    """Ten of them wait at once."""
    slow = Noting("slow", wait=lambda: time.sleep(0.002))
    run = Running(store, slow.handler)
    run.do(*slow.new(60, "wait"))
    run.stop()
    assert all(name.startswith(SLOT) for name in slow.threads)


def test_a_transactional_handler_stays_on_threads(sqlite_engine: sa.Engine) -> None:
    """However quick it is, a commit is part of it."""
    threads: list[str] = []

    def handle(one: OutboxItem, transaction: Any) -> None:
        threads.append(threading.current_thread().name)

    run = Running(
        RowsOutboxStore(SqlAlchemyStorage(sqlite_engine)),
        Handler("k", handle, transactional=True),
        slots=1,
    )
    run.do(*[NewItem("k")] * 20)
    run.stop()
    assert all(name.startswith(SLOT) for name in threads)


def test_a_handler_that_becomes_slow_goes_to_the_threads(store: RowsOutboxStore) -> None:
    """Also one that never overruns, and only takes too long for its place."""
    quick = Noting(wait=lambda: time.sleep(0.003))
    run = Running(store, quick.handler)
    quick.settle(run)

    def on_threads() -> bool:
        run.do(*quick.new(10, "wait"))
        return quick.threads[-1].startswith(SLOT)

    until(on_threads)
    quick.settle(run)
    run.stop()


def test_a_kind_that_was_slow_must_prove_itself_for_longer() -> None:
    """One that is mostly quick is not tried in place again and again."""
    pace, trials = Pace(), []
    for _ in range(8):
        calls = 1
        while not pace.note_on_thread(0.00001):
            calls += 1
        assert not pace.note_on_thread(0.00001)
        trials.append(calls)
        assert pace.slow_down()
        assert not pace.slow_down()
    assert trials[:4] == [5, 20, 80, 320]
    assert trials[-1] == 1000


def test_one_slow_call_begins_the_trial_again() -> None:
    """Quick calls count only in a row."""
    pace = Pace()
    for _ in range(3):
        assert not any(pace.note_on_thread(0.00001) for _ in range(4))
        assert not pace.note_on_thread(0.5)
    assert not pace.quick


def test_a_pause_of_the_machine_makes_nothing_slow() -> None:
    """One call out of many that took some milliseconds says little."""
    pace = Pace()
    while not pace.note_on_thread(0.00002):
        pass
    assert not pace.note_in_place(0.005, 1)
    assert not pace.note_in_place(0.00002, 200)
    assert pace.note_in_place(0.002, 200)


# -- overruns --------------------------------------------------------------------------------------


def test_an_overrun_lets_the_rest_go_on(
    store: RowsOutboxStore, overrun: Callable[[], None]
) -> None:
    """The rest of its batch is done on threads while the slow call is still running."""
    go, slow_began = Gate(), Gate()

    def slow() -> None:
        overrun()
        slow_began.set()
        go.pass_()

    quick = Noting(slow=slow)
    run = Running(store, quick.handler)
    quick.settle(run)
    until(lambda: run.worker.in_flight == 0)
    before = len(quick.threads)
    ids = store.enqueue_many([*quick.new(40), *quick.new(1, "slow"), *quick.new(200)])
    slow_began.pass_()
    until(lambda: sum(status(store, one) is ItemStatus.COMPLETED for one in ids) == 240)
    assert status(store, ids[40]) is ItemStatus.RUNNING
    after = quick.threads[before + 40 :]
    assert after[0] in IN_PLACE
    assert after[1].startswith(SLOT)
    go.set()
    until(lambda: status(store, ids[40]) is ItemStatus.COMPLETED)
    worker = run.stop()
    assert worker.in_flight == worker.stats.failed == 0
    assert len(quick.threads) - before == 241, "each was called once"


def test_a_slow_call_where_items_are_claimed_does_not_end_the_claiming(
    store: RowsOutboxStore, overrun: Callable[[], None]
) -> None:
    """Another thread claims meanwhile, and a stop is not held up either."""
    go, slow_began = Gate(), Gate()

    def slow() -> None:
        overrun()
        slow_began.set()
        go.pass_()

    quick, other = Noting(slow=slow), Noting("other")
    run = Running(store, quick.handler, other.handler, grace_seconds=0.05)

    def at_once() -> bool:
        run.do(*quick.new(1))
        return quick.threads[-1] == "automate-fetcher"

    until(at_once)
    stuck = store.enqueue_many(quick.new(1, "slow"))
    slow_began.pass_()
    run.do(*quick.new(30), *other.new(30))
    run.stop()
    assert begun(store, stuck) == [], "it was handed back"
    go.set()


@pytest.mark.parametrize("where", ["fetcher", "quick"])
def test_a_machine_without_more_threads_goes_on_after_the_call(
    store: RowsOutboxStore,
    monkeypatch: pytest.MonkeyPatch,
    overrun: Callable[[], None],
    where: str,
) -> None:
    """What can't be taken over waits for the call; nothing waits for ever."""
    go, slow_began, refused = Gate(), Gate(), Gate()
    start = threading.Thread.start
    full: list[bool] = []

    def refusing(thread: threading.Thread) -> None:
        if full and thread.name in IN_PLACE:
            refused.set()
            raise RuntimeError("can't start new thread")
        start(thread)

    def slow() -> None:
        full.append(True)
        overrun()
        slow_began.set()
        go.pass_()

    quick = Noting(slow=slow)
    run = Running(store, quick.handler)

    def settled() -> bool:
        run.do(*quick.new(1 if where == "fetcher" else 200))
        return quick.threads[-1] == f"automate-{where}"

    until(settled)
    monkeypatch.setattr(threading.Thread, "start", refusing)
    batch = [*quick.new(1, "slow"), *quick.new(0 if where == "fetcher" else 200)]
    ids = store.enqueue_many(batch)
    slow_began.pass_()
    refused.pass_()
    go.set()
    until(lambda: all(status(store, one) is ItemStatus.COMPLETED for one in ids))
    run.do(*quick.new(30))
    run.stop()


@pytest.mark.usefixtures("overrun")
def test_a_slow_kind_beside_a_quick_one_holds_nothing_up(store: RowsOutboxStore) -> None:
    """Even with one slot, which the slow one has taken."""
    go = Gate()
    quick, slow = Noting(), Noting("slow", wait=go.pass_)
    run = Running(store, quick.handler, slow.handler, slots=1)
    quick.settle(run)
    waiting = store.enqueue_many(slow.new(5, "wait"))
    until(lambda: slow.threads)
    run.do(*quick.new(300))
    go.set()
    until(lambda: all(status(store, one) is ItemStatus.COMPLETED for one in waiting))
    run.stop()
    assert {name.startswith(SLOT) for name in slow.threads} == {True}


def test_the_other_kinds_of_a_batch_stay_in_place(
    store: RowsOutboxStore, overrun: Callable[[], None]
) -> None:
    """What overran takes the only slot, and quick ones behind it need none."""
    go, slow_began = Gate(), Gate()

    def slow() -> None:
        overrun()
        slow_began.set()
        go.pass_()

    quick, mixed = Noting(), Noting("mixed", slow=slow)
    run = Running(store, quick.handler, mixed.handler, slots=1)
    quick.settle(run)
    mixed.settle(run)
    until(lambda: run.worker.in_flight == 0)
    stuck, *others = store.enqueue_many([*mixed.new(1, "slow"), *quick.new(100)])
    slow_began.pass_()
    until(lambda: all(status(store, one) is ItemStatus.COMPLETED for one in others))
    assert status(store, stuck) is ItemStatus.RUNNING
    go.set()
    until(lambda: status(store, stuck) is ItemStatus.COMPLETED)
    run.stop()


def test_what_waits_behind_an_overrun_is_given_to_other_workers(
    store: RowsOutboxStore, overrun: Callable[[], None]
) -> None:
    """A batch that would take long now does not sit here on leases."""
    go = Gate()

    def slow() -> None:
        overrun()
        go.pass_()

    quick = Noting(slow=slow)
    run = Running(store, quick.handler, slots=2)
    quick.settle(run)
    until(lambda: run.worker.in_flight == 0)
    ids = store.enqueue_many(quick.new(150, "slow"))
    until(lambda: 0 < len(begun(store, ids)) <= 2 + 1)
    go.set()
    until(lambda: all(status(store, one) is ItemStatus.COMPLETED for one in ids))
    run.stop()
    attempts = {found.attempt_count for one in ids if (found := store.get(one)) is not None}
    assert attempts == {1}


def test_what_waits_behind_calls_that_take_longer_than_before_is_given_back(
    store: RowsOutboxStore,
) -> None:
    """Another worker does it, though what was claimed ahead of it is stuck."""
    go = Gate()
    nap = Noting("nap", doze=lambda: time.sleep(0.001), stick=go.pass_)
    run = Running(store, nap.handler, slots=2)
    run.do(*nap.new(300, "doze"))
    ids = store.enqueue_many([*nap.new(2, "stick"), *nap.new(100, "doze")])
    until(lambda: begun(store, ids) == ids[:2])
    other = Running(store, nap.handler, slots=2)
    until(lambda: all(status(store, one) is ItemStatus.COMPLETED for one in ids[2:]))
    assert [status(store, one) for one in ids[:2]] == [ItemStatus.RUNNING] * 2
    go.set()
    until(lambda: all(status(store, one) is ItemStatus.COMPLETED for one in ids))
    other.stop()
    assert run.stop().in_flight == 0
    attempts = {found.attempt_count for one in ids if (found := store.get(one)) is not None}
    assert attempts == {1}


# -- stopping and cancelling -----------------------------------------------------------------------


@pytest.mark.usefixtures("overrun")
def test_a_stop_hands_back_what_has_not_begun(store: RowsOutboxStore) -> None:
    """Of a batch in place it ends after the call that runs."""
    saw: list[bool] = []

    def stop() -> None:
        run.worker.stop()
        saw.append(should_stop())

    quick = Noting(stop=stop)
    run = Running(store, quick.handler)
    quick.settle(run)
    until(lambda: run.worker.in_flight == 0)
    ids = store.enqueue_many([*quick.new(30), *quick.new(1, "stop"), *quick.new(100)])
    worker = run.joined()
    assert saw == [True]
    assert begun(store, ids) == ids[:31]
    assert worker.in_flight == 0
    assert {store.get(one).attempt_count for one in ids[31:]} == {0}  # type: ignore[union-attr]


def test_a_stop_ends_the_watch_that_is_about_to_rest(
    store: RowsOutboxStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that has stopped leaves no thread."""
    monkeypatch.setattr(plain_pool, "_LOOKS_AT_NOTHING", 0)
    quick = Noting()
    run = Running(store, quick.handler)

    class Busy(threading.Event):
        def clear(self) -> None:
            run.stop()
            super().clear()

    quick.settle(run)
    pool, busy = run.worker._plain.in_place, Busy()
    watcher, resting = pool._watcher, pool._busy
    assert watcher is not None
    busy.set()
    pool._busy = busy
    resting.set()
    watcher.join(PATIENCE)
    assert not watcher.is_alive()


def test_a_cancelled_call_in_place_sees_it(store: RowsOutboxStore) -> None:
    """Even if it overran, and others of its batch are not cancelled with it."""
    began = Gate()

    def wait() -> None:
        began.set()
        until(cancelling)

    quick = Noting(wait=wait)
    run = Running(store, quick.handler)
    quick.settle(run)
    until(lambda: run.worker.in_flight == 0)
    first, *others = store.enqueue_many([*quick.new(1, "wait"), *quick.new(50)])
    began.pass_()
    assert store.cancel([first]) == 1
    until(lambda: status(store, first) is ItemStatus.COMPLETED)
    until(lambda: all(status(store, one) is ItemStatus.COMPLETED for one in others))
    run.stop()


@pytest.mark.usefixtures("overrun")
def test_the_first_claims_of_a_quick_kind_are_small(
    store: RowsOutboxStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flood that proves quick first is not claimed ahead of a kind that proves quick next."""
    claims: list[int] = []
    claim_ahead = store.claim_ahead

    def noted(*arguments: Any, **options: Any) -> list[OutboxItem]:
        items = claim_ahead(*arguments, **options)
        if len(items) > 10:
            claims.append(len(items))
        return items

    monkeypatch.setattr(store, "claim_ahead", noted)
    flood = Noting("flood")
    ids = store.enqueue_many(flood.new(2000))
    run = Running(store, flood.handler, slots=2)
    until(lambda: all(status(store, one) is ItemStatus.COMPLETED for one in ids))
    run.stop()
    assert "automate-quick" in flood.threads
    assert max(claims) == 200, "it never got up to speed"
    growing = [10, *claims[: claims.index(200) + 1]]
    assert all(after <= 2 * before for before, after in pairwise(growing))
