"""A worker does each item once, tells the truth about it, and lets nothing go missing."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa
from waiting import PATIENCE, Gate, until
from automate_kernel.base import runtime
from automate_kernel.base.errors import AutomateError, ErrorCodes, StorageError
from automate_kernel.outbox import (
    Backoff,
    ItemStatus,
    NewItem,
    OutboxItem,
    Outcome,
    RowsOutboxStore,
)
from automate_kernel.worker import pools, run_until_stopped
from automate_kernel.worker.in_flight import InFlight, Task
from automate_kernel.worker.periodic import PeriodicTask
from automate_kernel.worker.worker import Flag, Worker
from automate_kernel.outbox.item import OutcomeRecorded
from automate_kernel.outbox.limits import Limit
from automate_kernel.worker.handler import Handler, Snooze, should_stop
from automate_kernel.worker.heartbeat import Heartbeat, Liveness
from automate_kernel.worker.inline import run_inline
from automate_kernel.storage import MemoryStorage, memory
from automate_kernel.storage.query import Where
from automate_kernel.storage.tables import OUTBOX
from automate_testing.clock import FakeClock
from automate_kernel.worker import threads as worker_threads
from automate_sqlalchemy import SqlAlchemyStorage

LEASE = 30.0
AT_ONCE = Backoff(0.0, 0.0)


class Down:
    """A storage whose database can be taken away."""

    def __init__(self, storage: Any) -> None:
        self._storage = storage
        self.is_down = False
        self.failed = Gate()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    @contextlib.contextmanager
    def begin(self, transaction: Any = None, *, atomic: bool = True) -> Iterator[Any]:
        if self.is_down:
            self.failed.set()
            raise StorageError("the database is down", retryable=False)
        with self._storage.begin(transaction, atomic=atomic) as rows:
            yield rows


@pytest.fixture
def store(clock: FakeClock) -> RowsOutboxStore:
    return RowsOutboxStore(MemoryStorage(clock), lease_seconds=LEASE)


class Running:
    """A worker on a thread."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self._thread = threading.Thread(target=worker.run, daemon=True)
        self._thread.start()

    def stopped(self, **options: Any) -> Worker:
        self.worker.stop(**options)
        return self.joined()

    def joined(self) -> Worker:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the worker did not stop"
        return self.worker


def running(store: RowsOutboxStore, *handlers: Handler, **options: Any) -> Running:
    options.setdefault("poll_seconds", 0.05)
    return Running(Worker(store, handlers, **options))


def item(store: RowsOutboxStore, item_id: str) -> OutboxItem:
    found = store.get(item_id)
    assert found is not None
    return found


def ended(store: RowsOutboxStore, ids: Sequence[str]) -> bool:
    return all(item(store, one).status is ItemStatus.COMPLETED for one in ids)


def work_off(
    store: RowsOutboxStore, ids: Sequence[str], *handlers: Handler, **options: Any
) -> Worker:
    """Run a worker until these items are COMPLETED."""
    run = running(store, *handlers, **options)
    until(lambda: ended(store, ids))
    return run.stopped()


# -- kinds of handlers -----------------------------------------------------------------------------


def test_plain_and_async_handlers(store: RowsOutboxStore) -> None:
    """Each handler runs where it belongs, once per item."""
    where: dict[str, set[str]] = {"plain": set(), "async": set()}
    calls: list[str] = []

    def note(one: OutboxItem) -> None:
        calls.append(one.id)
        where[one.kind].add(threading.current_thread().name.rstrip("0123456789"))

    async def anote(one: OutboxItem) -> None:
        await asyncio.sleep(0)
        note(one)

    handlers = [Handler("plain", note), Handler("async", anote)]
    ids = [store.enqueue(kind) for kind in where for _ in range(30)]
    worker = work_off(store, ids, *handlers)
    assert sorted(calls) == sorted(ids)
    assert where["plain"] <= {"automate-slot-"}
    assert where["async"] == {"automate-loop"}
    assert (worker.stats.completed, worker.stats.total, worker.in_flight) == (60, 60, 0)


def test_transactional_handlers(sqlite_engine: sa.Engine) -> None:
    """A handler's writes and its item's completion commit together, or neither does."""
    with sqlite_engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE done (item TEXT)")
    store = RowsOutboxStore(SqlAlchemyStorage(sqlite_engine))

    def handle(one: OutboxItem, transaction: sa.Connection) -> None:
        transaction.exec_driver_sql("INSERT INTO done VALUES (?)", (one.id,))
        if one.attempt_count == 1:
            raise ValueError

    ids = [store.enqueue("k") for _ in range(3)]
    handler = Handler("k", handle, transactional=True, backoff=AT_ONCE)
    worker = work_off(store, ids, handler, slots=1)
    with sqlite_engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT item FROM done").scalars().all()
    assert sorted(rows) == sorted(ids)
    assert (worker.stats.completed, worker.stats.retried) == (3, 3)


def test_a_transactional_handler_that_lost_its_lease(sqlite_engine: sa.Engine) -> None:
    """What it wrote is rolled back, and the item stays its new holder's."""
    with sqlite_engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE done (item TEXT)")
    store = RowsOutboxStore(SqlAlchemyStorage(sqlite_engine))
    item_id = store.enqueue("k")

    def handle(one: OutboxItem, transaction: sa.Connection) -> None:
        transaction.exec_driver_sql("INSERT INTO done VALUES (?)", (one.id,))
        transaction.exec_driver_sql("UPDATE automate_outbox SET lease_token = 'taken over'")

    stats = run_inline(store, [Handler("k", handle, transactional=True)])
    assert (stats.completed, stats.lost) == (0, 1)
    with sqlite_engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM done").scalar() == 0
    assert item(store, item_id).status is ItemStatus.RUNNING


def test_finished_work_is_committed_in_groups(store: RowsOutboxStore) -> None:
    """What ends while a commit is going on is committed together by the next one."""
    first, begun, groups = Gate(), Gate(), []
    acknowledge = store.acknowledge

    def slow(worker_id: str, outcomes: Sequence[Outcome], **options: Any) -> set[str]:
        groups.append(len(outcomes))
        if len(groups) == 1:
            begun.set()
            first.pass_()
        return acknowledge(worker_id, outcomes, **options)

    store.acknowledge = slow  # type: ignore[method-assign]
    calls = []
    one = store.enqueue("k")
    run = running(store, Handler("k", calls.append))
    begun.pass_()
    put, ended_meanwhile = run.worker._acknowledger.put, list[None]()

    def counted(ended: list[Any]) -> None:
        results = len(ended)
        put(ended)
        ended_meanwhile.extend([None] * results)

    run.worker._acknowledger.put = counted  # type: ignore[method-assign]
    more = [store.enqueue("k") for _ in range(6)]
    until(lambda: len(ended_meanwhile) == 6)
    first.set()
    until(lambda: ended(store, [one, *more]))
    run.stopped()
    assert groups == [1, 6]


def test_a_full_pool_is_not_kept_waiting_by_an_idle_one(store: RowsOutboxStore) -> None:
    """As soon as a thread is free the next item is claimed, whatever other pools have room."""

    async def never(one: OutboxItem) -> None:
        raise AssertionError

    ids = [store.enqueue("k") for _ in range(20)]
    handlers = Handler("k", lambda one: None), Handler("async", never)
    # A poll for each of them would take ten minutes.
    work_off(store, ids, *handlers, slots=1, poll_seconds=30.0)


def test_a_busy_pools_claims_find_work_for_an_idle_one(store: RowsOutboxStore) -> None:
    """Nothing is asked a second time for the others, and what is new there waits for one batch."""
    claims: list[list[str]] = []
    claim = store.claim_ahead
    seen: list[str] = []

    def noted(worker_id: str, limit: int = 10, **options: Any) -> list[OutboxItem]:
        items = claim(worker_id, limit, **options)
        claims.append([one.kind for one in items])
        return items

    store.claim_ahead = noted  # type: ignore[method-assign]
    started, lock = Gate(), threading.Lock()

    def quick(one: OutboxItem) -> None:
        with lock:  # nobody goes on before it is there
            seen.append(one.kind)
            if len(seen) == 100:
                late.append(store.enqueue("late"))

    def slow(one: OutboxItem) -> None:
        started.set()

    late: list[str] = []
    ids = store.enqueue_many(NewItem("quick") for _ in range(600))
    handlers = Handler("quick", quick), Handler("late", slow)
    run = running(store, *handlers, batch=20, poll_seconds=600.0)
    started.pass_()
    until(lambda: ended(store, [*ids, *late]))
    run.stopped()
    full = [kinds for kinds in claims if kinds]
    [place] = [number for number, kinds in enumerate(full) if "late" in kinds]
    # What ran at that moment and what was claimed ahead of it, and then the next claim.
    assert place <= 100 // 20 + 3
    # Nothing came of a few when the pools were full, when "late" was done, and at the end.
    assert len(claims) - len(full) < len(full) / 2


def test_more_than_an_idle_pool_has_room_for_is_handed_back(store: RowsOutboxStore) -> None:
    """A burst for a small pool, found by a large one's claim, does not wait here on leases."""
    go = Gate()
    begun: list[str] = []

    async def quick(one: OutboxItem) -> None:
        if one.payload == "burst":
            ids.extend(store.enqueue_many(NewItem("slow") for _ in range(60)))

    def slow(one: OutboxItem) -> None:
        begun.append(one.id)
        go.pass_()

    ids = store.enqueue_many(NewItem("quick", "burst" if n == 50 else "") for n in range(400))
    handlers = Handler("quick", quick), Handler("slow", slow)
    run = running(store, *handlers, batch=40, slots=2, poll_seconds=600.0)
    until(lambda: ended(store, ids[:400]) and len(begun) == 2)
    waiting = [one for one in ids[400:] if item(store, one).status is ItemStatus.PENDING]
    go.set()
    until(lambda: ended(store, ids))
    run.stopped()
    assert len(waiting) >= 50
    assert len(begun) == 60
    assert {item(store, one).attempt_count for one in ids} == {1}


@pytest.fixture
def frozen_again() -> Iterator[None]:
    """The tests themselves out of the collector's sight again: it looks at the rest in less time."""
    yield
    gc.collect()
    gc.freeze()


@pytest.mark.usefixtures("frozen_again")
def test_what_is_loaded_is_out_of_the_collectors_sight(store: RowsOutboxStore) -> None:
    """In a process that does nothing but work, and only while it does."""
    frozen: list[int] = []

    def handle(one: OutboxItem) -> None:
        frozen.append(gc.get_freeze_count())
        worker.stop()

    store.enqueue("k")
    worker = Worker(store, [Handler("k", handle)])
    gc.unfreeze()  # the tests themselves are frozen
    assert not run_until_stopped(worker)
    assert frozen[0] > 10_000  # Python 3.12 begins with a few hundred
    assert gc.get_freeze_count() == 0


@pytest.mark.usefixtures("frozen_again")
def test_what_a_host_froze_stays_frozen(store: RowsOutboxStore) -> None:
    """It did so before it forked, say; a worker that ends doesn't undo it."""
    gc.freeze()
    try:
        before = gc.get_freeze_count()
        store.enqueue("k")
        worker = Worker(store, [Handler("k", lambda one: worker.stop())])
        assert not run_until_stopped(worker)
        assert gc.get_freeze_count() >= before
    finally:
        gc.unfreeze()


def test_an_end_wakes_a_worker_that_is_about_to_wait(
    store: RowsOutboxStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a limit keeps back begins then, and not at the next poll."""
    go, noted, waits, second = Gate(), Gate(), Gate(), Gate()
    wait, ids = memory._Bell.wait, store.enqueue_many([NewItem("k")] * 2)

    class Late(Worker):
        """Its acknowledger is held up just as it has seen whether the fetcher waits."""

        @property
        def _looks_when_freed(self) -> bool:
            looks = super()._looks_when_freed
            if threading.current_thread().name == "automate-acknowledger":
                noted.set()
                until(lambda: waits.is_set() or second.is_set())
            return looks

    def look_ahead() -> float:
        go.set()
        noted.pass_()
        return 0.0

    def wait_for_bell(bell: Any, timeout: float) -> bool:
        waits.set()
        return wait(bell, timeout)

    def handle(one: OutboxItem) -> None:
        if one.id == ids[1]:
            second.set()
        go.pass_()

    monkeypatch.setattr(store, "next_due_seconds", look_ahead)
    monkeypatch.setattr(memory._Bell, "wait", wait_for_bell)
    limit = Limit("k", concurrency=1, declared=True)
    run = Running(Late(store, [Handler("k", handle, limit=limit)], poll_seconds=600.0))
    until(lambda: ended(store, ids))
    run.stopped()


def test_a_new_item_wakes_an_idle_worker(store: RowsOutboxStore) -> None:
    """A notice ends the wait, and so does a stop."""
    run = running(store, Handler("k", lambda one: None), poll_seconds=600.0)
    ids = [store.enqueue("k")]
    until(lambda: ended(store, ids))
    run.stopped()


# -- failures --------------------------------------------------------------------------------------


def failing(error: Callable[[OutboxItem], BaseException]) -> Callable[[OutboxItem], None]:
    def handle(one: OutboxItem) -> None:
        if one.payload != "good":
            raise error(one)

    return handle


def test_a_poison_item_reaches_failed(store: RowsOutboxStore) -> None:
    """It is tried as often as it may be, and then given up with its error."""
    item_id = store.enqueue("k", max_attempts=3)
    handler = Handler("k", failing(lambda one: ValueError("no good")), backoff=AT_ONCE)
    stats = run_inline(store, [handler])
    found = item(store, item_id)
    assert (found.status, found.attempt_count) == (ItemStatus.FAILED, 3)
    assert (found.last_error_code, found.last_error) == ("ERROR", "ValueError: no good")
    assert (stats.retried, stats.failed) == (2, 1)


def test_a_permanent_error_fails_at_once(store: RowsOutboxStore) -> None:
    """An error whose code says that trying again is no use spends no attempts."""
    item_id = store.enqueue("k", max_attempts=3)
    error = AutomateError(ErrorCodes.NOT_FOUND, "no such channel")
    stats = run_inline(store, [Handler("k", failing(lambda one: error))])
    found = item(store, item_id)
    assert (found.status, found.attempt_count) == (ItemStatus.FAILED, 1)
    assert (found.last_error_code, stats.failed) == ("NOT_FOUND", 1)


def test_retry_after_is_honoured(store: RowsOutboxStore, clock: FakeClock) -> None:
    """The next attempt is when the other side asked for it."""
    item_id = store.enqueue("k")
    error = AutomateError(ErrorCodes.RESOURCE_EXHAUSTED, "slow down", retry_after=77)
    run_inline(store, [Handler("k", failing(lambda one: error))])
    found = item(store, item_id)
    assert found.status is ItemStatus.RETRY
    assert (found.next_attempt_at - clock()).total_seconds() == 77


@pytest.mark.parametrize("seconds", [float("inf"), float("nan"), 1e300, -1.0])
def test_an_absurd_delay_holds_up_nobody(store: RowsOutboxStore, seconds: float) -> None:
    """Delays that no database can add to its time don't fail the commit of all others."""
    error = AutomateError(ErrorCodes.UNAVAILABLE, "later", retry_after=seconds)
    ids = [store.enqueue("k", "good") for _ in range(3)]
    retried, snoozed = store.enqueue("k", max_attempts=2), store.enqueue("snooze", max_attempts=2)
    handlers = [
        Handler("k", failing(lambda one: error)),
        Handler("snooze", lambda one: Snooze(max(0.0, seconds) or 60.0)),
    ]
    run = running(store, *handlers)
    until(lambda: ended(store, ids))
    until(lambda: item(store, retried).status in (ItemStatus.RETRY, ItemStatus.FAILED))
    until(lambda: item(store, snoozed).status is not ItemStatus.RUNNING)
    run.stopped()


def test_a_snooze_spends_no_attempt(store: RowsOutboxStore, clock: FakeClock) -> None:
    """An item that is put off comes again, and counts as not begun."""
    item_id = store.enqueue("k")
    answers = [Snooze(5), Snooze(5), None]
    for _ in range(3):
        run_inline(store, [Handler("k", lambda one: answers.pop(0))])
        clock.advance(5)
    found = item(store, item_id)
    assert (found.status, found.attempt_count) == (ItemStatus.COMPLETED, 1)


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError


@pytest.mark.parametrize("style", ["plain", "async"])
@pytest.mark.parametrize(
    "error", [SystemExit(3), asyncio.CancelledError(), GeneratorExit(), Unprintable()], ids=repr
)
def test_whatever_a_handler_raises_the_worker_goes_on(
    store: RowsOutboxStore, style: str, error: BaseException
) -> None:
    """SystemExit, a stray cancellation, an error without a text: the item fails, and no other."""

    async def ahandle(one: OutboxItem) -> None:
        failing(lambda _: error)(one)

    handle = ahandle if style == "async" else failing(lambda one: error)
    handler = Handler("k", handle, backoff=AT_ONCE)
    bad = store.enqueue("k", max_attempts=2)
    run = running(store, handler, slots=1)
    until(lambda: item(store, bad).status is ItemStatus.FAILED)
    good = [store.enqueue("k", "good") for _ in range(3)]
    until(lambda: ended(store, good))
    worker = run.stopped()
    assert type(error).__name__ in (item(store, bad).last_error or "")
    assert (worker.stats.completed, worker.stats.failed, worker.stats.retried) == (3, 1, 1)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_inline_run_survives_the_same(store: RowsOutboxStore, asynchronous: bool) -> None:
    """run_inline too takes SystemExit and cancellation for failures of the item."""

    async def ahandle(one: OutboxItem) -> None:
        failing(lambda _: asyncio.CancelledError() if one.payload == 1 else SystemExit(3))(one)

    def handle(one: OutboxItem) -> None:
        asyncio.run(ahandle(one))

    for payload in (1, 2):
        store.enqueue("k", payload, max_attempts=1)
    stats = run_inline(store, [Handler("k", ahandle if asynchronous else handle)])
    assert stats.failed == 2


def test_ctrl_c_is_not_the_items_failure(store: RowsOutboxStore) -> None:
    """KeyboardInterrupt on the main thread ends the run, and hands back what is not finished."""
    begun, go = Gate(), Gate()

    def handle(one: OutboxItem) -> None:
        begun.set()
        go.pass_()

    claim = store.claim_ahead

    def interrupted(*args: Any, **options: Any) -> list[OutboxItem]:
        if store.get(item_id).attempt_count:
            begun.pass_()
            raise KeyboardInterrupt
        return claim(*args, **options)

    store.claim_ahead = interrupted  # type: ignore[method-assign]
    item_id = store.enqueue("k")
    worker = Worker(store, [Handler("k", handle)], poll_seconds=0.01)
    with pytest.raises(KeyboardInterrupt):
        worker.run()
    found = item(store, item_id)
    assert (found.status, found.attempt_count) == (ItemStatus.PENDING, 0)
    go.set()


def test_a_failing_periodic_task_runs_again(store: RowsOutboxStore) -> None:
    """A periodic task's error is logged, and the work and the task go on."""
    runs, again = [], Gate()

    def task() -> None:
        runs.append(1)
        if len(runs) > 2:
            again.set()
        raise ValueError

    run = running(
        store, Handler("k", lambda one: None), periodic_tasks=[PeriodicTask("c", 0.001, task)]
    )
    again.pass_()
    ids = [store.enqueue("k")]
    until(lambda: ended(store, ids))
    run.stopped()


# -- leases ----------------------------------------------------------------------------------------


def steal(store: RowsOutboxStore, clock: FakeClock) -> OutboxItem:
    """Let all leases end, and claim as another worker does."""
    other = RowsOutboxStore(store.storage, lease_seconds=LEASE)
    with store.storage.begin():  # so that no heartbeat comes in between
        clock.advance(LEASE + 1)
        other.reap()
        clock.advance(86_400)
        (stolen,) = other.claim_batch("another")
    return stolen


def test_a_lost_lease_cancels_async_work(
    store: RowsOutboxStore, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The heartbeat notices, the handler is cancelled, and nothing is recorded."""
    begun, cancelled = Gate(), Gate()

    async def handle(one: OutboxItem) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    store.enqueue("k")
    run = running(store, Handler("k", handle), heartbeat_seconds=0.01)
    begun.pass_()
    stolen = steal(store, clock)
    cancelled.pass_()
    until(lambda: run.worker.in_flight == 0)
    worker = run.stopped()
    assert (worker.stats.completed, worker.stats.lost) == (0, 1)
    assert item(store, stolen.id).lease_owner == "another"
    assert "lost while it ran" in caplog.text


def test_a_lost_lease_is_told_once(
    store: RowsOutboxStore, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A handler that goes on after its lease was lost is cancelled once; others keep theirs."""
    lost, kept = (store.enqueue("k") for _ in "12")
    tasks = {one.id: Task(one) for one in store.claim_batch("worker")}
    stopped: list[str] = []
    for item_id, task in tasks.items():
        task.cancel = partial(stopped.append, item_id)
    held = InFlight()
    held.add(list(tasks.values()))
    heartbeat = Heartbeat(store, "worker", held, Liveness(), threading.Event())
    with store.storage.begin() as rows:
        rows.update(OUTBOX, [Where("id", "eq", lost)], {"lease_token": "another's"})
    clock.advance(LEASE / 2)
    for _ in range(3):
        heartbeat.beat()
    assert stopped == [lost]
    assert [tasks[item_id].lost for item_id in (lost, kept)] == [True, False]
    assert caplog.text.count("lost while it ran") == 1
    renewed = item(store, kept).lease_expires_at
    assert renewed is not None
    assert renewed == clock() + timedelta(seconds=LEASE)


def test_a_lease_that_ended_with_its_item_is_not_lost(
    store: RowsOutboxStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Between the end of a handler and the next heartbeat its item is finished, and that is all."""
    (item_id,) = (store.enqueue("k"),)
    (one,) = store.claim_batch("worker")
    task, held = Task(one), InFlight()
    held.add([task])
    store.mark_success(item_id, "worker")
    task.ended = True
    Heartbeat(store, "worker", held, Liveness(), threading.Event()).beat()
    assert not task.lost
    assert "lost" not in caplog.text


def test_a_lost_lease_drops_the_result(store: RowsOutboxStore, clock: FakeClock) -> None:
    """A thread can't be cancelled, but what its handler gives is not recorded."""
    begun, go = Gate(), Gate()

    def handle(one: OutboxItem) -> None:
        begun.set()
        go.pass_()

    store.enqueue("k")
    run = running(store, Handler("k", handle))
    begun.pass_()
    stolen = steal(store, clock)
    go.set()
    until(lambda: run.worker.stats.lost == 1)
    worker = run.stopped()
    assert worker.stats.completed == 0
    found = item(store, stolen.id)
    assert (found.status, found.lease_token) == (ItemStatus.RUNNING, stolen.lease_token)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_nothing_begins_whose_lease_ran_out(
    store: RowsOutboxStore,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
    asynchronous: bool,
) -> None:
    """A process that was frozen does not begin what it had claimed: others have it by now."""
    frozen_seconds, real = [0.0], time.monotonic
    monkeypatch.setattr(runtime, "monotonic", lambda: real() + frozen_seconds[0])
    calls, early, taken = list[str](), set[str](), list[str]()
    lock, ran_out = threading.Lock(), Task.ran_out

    def begins(task: Task, lease_seconds: float) -> bool:
        with lock:
            over = ran_out(task, lease_seconds)
            # What begins before the process is frozen may come to its handler afterwards.
            if not (taken or over):
                early.add(task.item.id)
            return over

    def handle(one: OutboxItem) -> None:
        with lock:
            calls.append(one.id)
            if len(calls) != 20:
                return
            # So that nothing comes in between: what it hands back, it may claim anew.
            with store.storage.begin():
                frozen_seconds[0] = LEASE + 1
                clock.advance(LEASE + 1)
                store.reap()
                clock.advance(86_400)
                taken.extend(each.id for each in store.claim_batch("another", 100))

    async def ahandle(one: OutboxItem) -> None:
        handle(one)

    for _ in range(60):
        store.enqueue("k")
    monkeypatch.setattr(Task, "ran_out", begins)
    run = running(store, Handler("k", ahandle if asynchronous else handle), slots=30)
    until(lambda: taken and run.worker.in_flight == 0)
    worker = run.stopped()
    assert worker.stats.lost > 1, "nothing was claimed ahead: this shows little"
    assert set(taken) & set(calls) <= early
    assert {item(store, one).lease_owner for one in taken} == {"another"}


def test_long_work_keeps_its_lease(store: RowsOutboxStore, clock: FakeClock) -> None:
    """The heartbeat renews what runs, for as long as it runs."""
    begun, go = Gate(), Gate()

    def handle(one: OutboxItem) -> None:
        begun.set()
        go.pass_()

    item_id = store.enqueue("k")
    run = running(store, Handler("k", handle), heartbeat_seconds=0.005)
    begun.pass_()
    for _ in range(3):
        # The lease of before would not have run out by then either.
        renewed = clock.advance(LEASE - 1) + timedelta(seconds=LEASE)
        until(lambda at=renewed: item(store, item_id).lease_expires_at == at)
        assert len(store.reap()) == 0
    go.set()
    until(lambda: ended(store, [item_id]))
    assert run.stopped().stats.lost == 0


def test_an_item_that_comes_back_at_once_is_held_by_its_new_run(store: RowsOutboxStore) -> None:
    """
    The end of a run that put its item back does not take the item from the run that has it now.

    An execution that pauses does this: its item is due again before the handler has returned.
    """
    again, finish = Gate(), Gate()
    tokens = []

    def handle(one: OutboxItem) -> OutcomeRecorded | None:
        tokens.append(one.lease_token)
        if len(tokens) == 1:
            store.snooze(one.id, one.lease_owner or "", 0.0)
            again.pass_()
            return OutcomeRecorded()
        again.set()
        finish.pass_()
        return None

    item_id = store.enqueue("k")
    run = running(store, Handler("k", handle), slots=2, heartbeat_seconds=0.005)
    until(lambda: run.worker.stats.completed == 1)
    assert run.worker.in_flight == 1
    assert store.extend([item_id], run.worker.worker_id) == set()
    finish.set()
    until(lambda: ended(store, [item_id]))
    assert run.stopped().stats.lost == 0


# -- stopping --------------------------------------------------------------------------------------


def test_a_stop_waits_for_what_runs(store: RowsOutboxStore) -> None:
    """What has begun is finished and recorded, and nothing more is claimed."""
    begun, go = Gate(), Gate()

    def handle(one: OutboxItem) -> None:
        begun.set()
        go.pass_()
        assert should_stop()

    first = store.enqueue("k")
    run = running(store, Handler("k", handle))
    begun.pass_()
    run.worker.stop()
    later = store.enqueue("k")
    go.set()
    worker = run.joined()
    assert item(store, first).status is ItemStatus.COMPLETED
    assert item(store, later).status is ItemStatus.PENDING
    assert (worker.stats.completed, worker.in_flight) == (1, 0)


def test_a_stop_waits_for_async_work_too(store: RowsOutboxStore) -> None:
    """Handlers on the event loop are drained, and can see that the worker stops."""
    begun, go = Gate(), Gate()
    saw = []

    async def handle(one: OutboxItem) -> None:
        begun.set()
        while not go.is_set():
            await asyncio.sleep(0.001)
        saw.append(should_stop())

    item_id = store.enqueue("k")
    run = running(store, Handler("k", handle))
    begun.pass_()
    run.worker.stop()
    go.set()
    run.joined()
    assert (item(store, item_id).status, saw) == (ItemStatus.COMPLETED, [True])


def test_what_was_claimed_ahead_is_handed_back(
    store: RowsOutboxStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Items that no slot had begun are another worker's at once, and have spent no attempt."""
    # Not before the stop, because they wait for long.
    monkeypatch.setattr(worker_threads, "LATE_SECONDS", PATIENCE)
    go = Gate()
    calls = []

    def handle(one: OutboxItem) -> None:
        calls.append(one.id)
        go.pass_()

    ids = [store.enqueue("k") for _ in range(30)]
    run = running(store, Handler("k", handle), slots=10)
    until(lambda: len(calls) == 10 and run.worker.in_flight > 10)
    run.worker.stop()
    go.set()
    run.joined()
    assert sorted(calls) == ids[:10]
    assert ended(store, ids[:10])
    for item_id in ids[10:]:
        found = item(store, item_id)
        assert (found.status, found.attempt_count) == (ItemStatus.PENDING, 0)
        assert (found.lease_owner, found.lease_expires_at) == (None, None)


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("how", ["abandon", "grace"])
def test_unfinished_work_is_handed_back(
    store: RowsOutboxStore, asynchronous: bool, how: str
) -> None:
    """Told to abandon, or when the time is up, the worker gives back what it holds and returns."""
    begun, go, cancelled = Gate(), Gate(), Gate()

    def handle(one: OutboxItem) -> None:
        begun.set()
        go.wait(PATIENCE)

    async def ahandle(one: OutboxItem) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    item_id = store.enqueue("k")
    grace = 60.0 if how == "abandon" else 0.05
    handler = Handler("k", ahandle if asynchronous else handle)
    run = running(store, handler, grace_seconds=grace)
    begun.pass_()
    worker = run.stopped(abandon=how == "abandon")
    found = item(store, item_id)
    assert (found.status, found.attempt_count) == (ItemStatus.PENDING, 0)
    assert worker.stats.completed == 0
    if asynchronous:
        cancelled.pass_()
    go.set()
    assert [one.id for one in store.claim_batch("another")] == [item_id]


def test_a_second_stop_abandons(store: RowsOutboxStore) -> None:
    """stop may be called again, before, during and after, and from anywhere."""
    begun, go = Gate(), Gate()

    def handle(one: OutboxItem) -> None:
        begun.set()
        go.wait(PATIENCE)

    store.enqueue("k")
    run = running(store, Handler("k", handle))
    begun.pass_()
    run.worker.stop()
    run.worker.stop()
    run.stopped(abandon=True)
    run.worker.stop()
    go.set()
    early = Worker(store, [Handler("k", handle)])
    early.stop()
    assert early.run().total == 0


def test_a_blocked_event_loop_does_not_block_the_stop(
    store: RowsOutboxStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An async handler that never gives way is left behind, and its item handed back."""
    monkeypatch.setattr(pools, "_STOP_SECONDS", 0.05)
    begun, go = Gate(), Gate()

    async def handle(one: OutboxItem) -> None:
        begun.set()
        go.wait(PATIENCE)

    item_id = store.enqueue("k")
    run = running(store, Handler("k", handle), grace_seconds=0.05)
    begun.pass_()
    run.stopped()
    assert item(store, item_id).status is ItemStatus.PENDING
    assert "blocks the event loop" in caplog.text
    go.set()


def test_a_stop_without_grace_waits_until_what_has_ended_is_recorded(
    store: RowsOutboxStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the process ends before the commit, and work that is done is done again."""
    recording, ended = Gate(), Gate()
    early: list[bool] = []
    acknowledge = store.acknowledge

    def slowly(worker_id: str, outcomes: Sequence[Outcome]) -> set[str]:
        recording.set()
        early.append(ended.wait(0.5))
        return acknowledge(worker_id, outcomes)

    monkeypatch.setattr(store, "acknowledge", slowly)
    item_id = store.enqueue("k")
    run = running(store, Handler("k", lambda one: None), grace_seconds=0.0)
    recording.pass_()
    run.stopped()
    ended.set()
    assert early == [False]
    assert item(store, item_id).status is ItemStatus.COMPLETED
    assert run.worker.in_flight == 0


def test_stopping_in_a_signal_handler(store: RowsOutboxStore) -> None:
    """A worker on the main thread is stopped by a signal."""
    worker = Worker(store, [Handler("k", lambda one: None)], poll_seconds=600.0)
    before = signal.signal(signal.SIGALRM, lambda *_: worker.stop())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        worker.run()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_flag_may_be_set_in_the_middle_of_being_used() -> None:
    """A signal handler that sets it never waits for the code that it interrupted."""
    flag, rounds = Flag(), 0
    before = signal.signal(signal.SIGALRM, lambda *_: flag.set())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0003)
        while rounds < 5_000:
            flag.wait(0.00001)
            flag.clear()
            rounds += 1
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        assert flag.wait(PATIENCE)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_flag_has_a_repr() -> None:
    """A debugger or a log that shows one works, as for any `threading.Event`."""
    flag = Flag()
    assert "unset" in repr(flag)
    flag.set()
    assert "unset" not in repr(flag)


# -- a database that fails ---------------------------------------------------------------------------


def test_a_database_that_fails_for_a_while_loses_nothing(clock: FakeClock) -> None:
    """Results that can't be recorded are kept until they can, and no handler runs twice for it."""
    storage = Down(MemoryStorage(clock))
    store = RowsOutboxStore(storage, lease_seconds=LEASE)
    begun, go = Gate(), Gate()
    calls = []

    def handle(one: OutboxItem) -> None:
        calls.append(one.id)
        begun.set()
        go.pass_()

    ids = [store.enqueue("k") for _ in range(5)]
    run = running(store, Handler("k", handle))
    begun.pass_()
    until(lambda: len(calls) == 5)
    storage.is_down = True
    go.set()
    storage.failed.pass_()
    until(lambda: all(task.ended for task in run.worker._in_flight.tasks.values()))
    storage.is_down = False
    until(lambda: ended(store, ids))
    ids += [store.enqueue("k")]
    until(lambda: ended(store, ids))
    worker = run.stopped()
    assert sorted(calls) == ids
    assert (worker.stats.completed, worker.stats.total) == (6, 6)


def test_a_database_failure_in_a_handler_is_never_final(clock: FakeClock) -> None:
    """An item whose handler met the failing database is tried again, whatever the error says."""
    storage = Down(MemoryStorage(clock))
    store = RowsOutboxStore(storage, lease_seconds=LEASE)

    def handle(one: OutboxItem) -> None:
        storage.is_down = one.attempt_count == 1
        try:
            store.stats()
        finally:
            storage.is_down = False

    item_id = store.enqueue("k")
    run_inline(store, [Handler("k", handle, backoff=AT_ONCE)])
    assert item(store, item_id).status is ItemStatus.COMPLETED


def test_a_stop_while_the_database_is_down(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """It ends all the same, says what it could not record, and claims no success for it."""
    storage = Down(MemoryStorage(clock))
    store = RowsOutboxStore(storage, lease_seconds=LEASE)
    begun, go = Gate(), Gate()

    def handle(one: OutboxItem) -> None:
        begun.set()
        go.pass_()

    item_id = store.enqueue("k")
    run = running(store, Handler("k", handle), grace_seconds=0.2)
    begun.pass_()
    storage.is_down = True
    go.set()
    until(lambda: run.worker._acknowledger.waiting == 0)
    worker = run.stopped()
    assert worker.stats.completed == 0
    # A thread that is busy then is not waited for, and comes to it a moment later.
    until(lambda: "could not be recorded" in caplog.text)
    storage.is_down = False
    assert item(store, item_id).status is ItemStatus.RUNNING
    clock.advance(LEASE + 1)
    assert len(store.reap().retried) == 1


def test_the_log_tells_the_end_of_an_item(
    store: RowsOutboxStore, caplog: pytest.LogCaptureFixture
) -> None:
    """A failure that will be tried again is a warning, and one that is final an error."""
    store.enqueue("k", max_attempts=2)
    run_inline(store, [Handler("k", failing(lambda one: ValueError("x")), backoff=AT_ONCE)])
    levels = [record.levelno for record in caplog.records if "failed at attempt" in record.message]
    assert levels == [logging.WARNING, logging.ERROR]
