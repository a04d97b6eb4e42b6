"""What workers tell of themselves: histograms, rates, and that it costs the work nothing."""

from __future__ import annotations

import random
import threading
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from workers import running
from waiting import PATIENCE, Gate, until
from automate_kernel import Kernel
from automate_kernel.outbox import Activity, NewItem, RowsOutboxStore, WorkerInfo, percentile
from automate_kernel.worker import Handler, Worker
from automate_kernel.outbox.statistics import (
    bucket_of,
    FIRST,
    LAST,
    Times,
    total_by_kind,
    upper_bound,
)
from automate_kernel.worker.reporter import ActivityLog, Reporter
from automate_cli.observing import Observer
from automate_kernel.monitoring.overview import Increments, ThrottledStats
from automate_kernel.worker.in_flight import Task
from automate_kernel.worker.heartbeat import Liveness
from automate_kernel.outbox.queries import OutboxStats
from automate_kernel.outbox.item import Outcome, OutboxItem
from automate_kernel.storage import MemoryStorage
from automate_testing.clock import FakeClock

EPOCH = datetime(2026, 1, 1, tzinfo=timezone.utc)


def times(*values: float) -> Times:
    found = Times()
    for value in values:
        found.add(value)
    return found


# -- histograms ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [1e-5, 0.000_3, 0.001, 0.0173, 0.5, 1.0, 42.0, 3600.0])
def test_a_bucket_holds_what_is_within_its_bounds(seconds: float) -> None:
    """Longer than the bucket before, and at most its own bound."""
    bucket = bucket_of(seconds)
    assert seconds <= upper_bound(bucket) * 1.000_001
    assert bucket == FIRST or seconds > upper_bound(bucket - 1) * 0.999_999


def test_what_is_beyond_the_scale_is_at_its_ends() -> None:
    """Zero, negative and endless durations are counted too."""
    assert [bucket_of(each) for each in (0.0, -1.0, 1e-9)] == [FIRST] * 3
    assert [bucket_of(each) for each in (1e9, float("inf"))] == [LAST] * 2


@pytest.mark.parametrize("share", [0.5, 0.95, 0.99])
def test_percentiles_are_right_to_an_eighth(share: float) -> None:
    """Of durations that are spread over decades."""
    values = sorted(random.Random(7).lognormvariate(-3, 1.5) for _ in range(5000))
    exact = values[int(share * len(values)) - 1]
    assert percentile(times(*values).buckets, share) == pytest.approx(exact, rel=0.125)


def test_percentile_of_nothing_and_of_one() -> None:
    """None where nothing was counted; the one where one was."""
    assert percentile({}, 0.5) is None
    assert percentile({3: 0}, 0.5) is None
    assert percentile(times(2.0).buckets, 0.5) == pytest.approx(2.0, rel=0.13)
    assert percentile(times(2.0).buckets, 5.0) == pytest.approx(2.0, rel=0.26)


def test_activities_add_up_and_can_be_taken_apart() -> None:
    """Adding what came since gives what is now."""
    one = Activity(EPOCH, "k", 3, 1, 0, 2, 1.5, 9.0, {0: 3}, {10: 4})
    later = Activity(
        EPOCH + timedelta(minutes=1), "k", 5, 2, 1, 2, 2.5, 10.0, {0: 4, 3: 2}, {10: 9}
    )
    assert one + (later - one) == later
    assert (later - later).run_buckets == {}
    assert total_by_kind([later, one, Activity(EPOCH, "a", 1)])["k"].completed == 8


# -- gathering ---------------------------------------------------------------------------------------


def group_of(store: RowsOutboxStore, count: int, seconds: float) -> list[Any]:
    store.enqueue_many([NewItem("k")] * count)
    group = []
    for item in store.claim_batch("worker", count):
        task = Task(item, 5.0)
        task.started_at, task.ended_at = 6.0, 6.0 + seconds
        group.append((task, Outcome(item.id)))
    return group


def test_large_groups_are_counted_exactly_and_timed_in_part() -> None:
    """The times of some stand for those of all."""
    log = ActivityLog()
    log.add(group_of(RowsOutboxStore(MemoryStorage()), 400, 0.25), ())
    (row,) = log.unsaved(EPOCH)
    assert row.completed == 400
    assert sum(row.run.buckets.values()) == pytest.approx(400, rel=0.05)
    assert row.run.seconds == pytest.approx(100, rel=0.05)
    assert row.wait.seconds / sum(row.wait.buckets.values()) == pytest.approx(1.0, abs=0.5)


def test_what_could_not_be_written_is_written_later() -> None:
    """A database that is away for some minutes loses no count."""
    log, store = ActivityLog(), RowsOutboxStore(MemoryStorage())
    log.add(group_of(store, 2, 0.1), ())
    assert [(row.at, row.completed) for row in log.unsaved(EPOCH)] == [(EPOCH, 2)]
    later = EPOCH + timedelta(minutes=1)
    log.add(group_of(store, 3, 0.1), ())
    assert [(row.at, row.completed) for row in log.unsaved(later)] == [(EPOCH, 2), (later, 3)]
    log.saved()
    assert log.idle
    assert log.unsaved(later) == []


# -- workers -----------------------------------------------------------------------------------------


class FailingStore(RowsOutboxStore):
    """A store whose tables for reports are missing."""

    asked = 0

    def report(self, worker: WorkerInfo, activity: ActivityLog) -> None:
        self.asked += 1
        raise LookupError("no such table")

    def remove_worker(self, worker_id: str) -> None:
        raise LookupError("no such table")


def run_some(store: RowsOutboxStore, look: Any = lambda worker: None) -> Worker:
    """Run a worker until three items are done, *look* at it, and stop it."""
    store.enqueue_many([NewItem("k")] * 3)
    worker = Worker(store, [Handler("k", lambda item: None)], slots=2, report_seconds=0.02)
    with running(worker):
        until(lambda: worker.stats.completed == 3)
        look(worker)
    return worker


def test_a_worker_is_listed_while_it_runs() -> None:
    """From its start to its graceful end, with what it does."""
    store, seen = RowsOutboxStore(MemoryStorage()), []

    def look(worker: Worker) -> None:
        until(lambda: sum(one.completed for one in store.activity()) == 3)
        seen.extend(store.workers())

    worker = run_some(store, look)
    (info,) = seen
    assert (info.id, info.kinds, info.slots) == (worker.worker_id, ("k",), 2)
    assert info.pid > 0 and info.host and not info.lost and not info.stopping
    assert store.workers() == []


def test_a_worker_says_at_once_that_it_stops() -> None:
    """Who waits for its end sees that it is coming, however long its next report would take."""
    store, begun, done = RowsOutboxStore(MemoryStorage()), Gate(), Gate()

    def handle(item: OutboxItem) -> None:
        begun.set()
        done.pass_()

    worker = Worker(store, [Handler("k", handle)], report_seconds=3600)
    store.enqueue("k")
    thread = threading.Thread(target=worker.run, daemon=True)
    thread.start()
    begun.pass_()  # what has not begun is handed back, and the worker is gone
    until(lambda: [one.stopping for one in store.workers()] == [False])
    worker.stop()
    until(lambda: [one.stopping for one in store.workers()] == [True])
    done.set()
    thread.join(PATIENCE)
    assert store.workers() == []


def test_a_report_that_comes_late_lists_no_worker_that_has_ended() -> None:
    """A stop waits for it for seconds alone, and a locked database may keep it for longer."""
    begun, left = Gate(), Gate()

    class Late(RowsOutboxStore):
        def report(self, worker: WorkerInfo, activity: ActivityLog) -> None:
            begun.set()
            left.pass_()
            super().report(worker, activity)

        def remove_worker(self, worker_id: str) -> None:
            super().remove_worker(worker_id)
            left.set()

    store = Late(MemoryStorage())
    about = WorkerInfo("w", "host", 1, None, None)
    reporter = Reporter(store, lambda: about, ActivityLog(), Liveness())
    thread = threading.Thread(target=reporter.report, daemon=True)
    thread.start()
    begun.pass_()
    reporter.end()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert store.workers() == []


def test_what_a_worker_did_last_is_not_lost() -> None:
    """At its end it tells the rest, however long its next report would have been."""
    store = RowsOutboxStore(MemoryStorage())
    worker = Worker(store, [Handler("k", lambda item: None)], report_seconds=3600)
    store.enqueue("k")
    with running(worker):
        until(lambda: worker.stats.completed == 1)
    assert [one.completed for one in store.activity()] == [1]


def test_a_worker_works_though_it_cant_report(caplog: pytest.LogCaptureFixture) -> None:
    """It says so once, not every few seconds."""
    store = FailingStore(MemoryStorage())
    run_some(store, lambda worker: until(lambda: store.asked > 3))
    told = [
        r for r in caplog.records if r.levelname == "WARNING" and "could not report" in r.message
    ]
    assert len(told) == 1


def test_a_kernels_worker_counts_what_it_takes_back() -> None:
    """Items of a worker that is gone show as lost."""
    clock = FakeClock()
    kernel = Kernel(MemoryStorage(clock), discover=False, lease_seconds=30)
    kernel.outbox.enqueue("k")
    assert len(kernel.outbox.claim_batch("dead")) == 1
    clock.advance(31)
    worker = kernel.worker()
    (reaper,) = [task for task in worker.periodic_tasks if task.name == "reaper"]
    reaper.run()
    assert len(kernel.outbox.running()) == 1  # a database that was away may be the reason
    clock.advance(1)
    reaper.run()
    kernel.outbox.report(WorkerInfo("w", "h", 1, None, None), worker.activity)
    assert [(one.kind, one.lost) for one in kernel.outbox.activity()] == [("k", 1)]


# -- overview ----------------------------------------------------------------------------------------


class Clock:
    """Both clocks in step: the database's and the process's."""

    def __init__(self) -> None:
        self.database = FakeClock()
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds

    def advance(self, seconds: float) -> None:
        self.seconds += seconds
        self.database.advance(seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> RowsOutboxStore:
    return RowsOutboxStore(MemoryStorage(clock.database))


def work(store: RowsOutboxStore, log: ActivityLog, count: int) -> None:
    group = group_of(store, count, 0.02)
    log.add(group, ())
    store.acknowledge("worker", [outcome for _, outcome in group])
    store.report(WorkerInfo("worker", "host", 1, None, None, ("k",), 10, 2), log)


def test_rates_are_of_the_last_half_minute(store: RowsOutboxStore, clock: Clock) -> None:
    """A change of pace shows within seconds, and what was before the first look never does."""
    log, observer = ActivityLog(), Observer(store, clock=clock)
    work(store, log, 600)
    observer.look()
    for _ in range(12):  # a minute at 10 a second
        clock.advance(5)
        work(store, log, 50)
        found = observer.look()
    assert found.rate == pytest.approx(10, rel=0.05)
    assert found.kinds[0].recent.run_percentile(0.5) == pytest.approx(0.02, rel=0.15)
    for _ in range(6):
        clock.advance(5)
        found = observer.look()
    assert found.rate == 0
    assert found.kinds[0].waiting == 0
    assert [worker.id for worker in found.workers] == ["worker"]


def test_the_first_look_tells_of_the_last_minute(store: RowsOutboxStore, clock: Clock) -> None:
    """One look is enough for a rate."""
    log = ActivityLog()
    work(store, log, 600)
    clock.advance(20)
    found = Observer(store, clock=clock).look()
    assert 600 / 120 <= found.rate <= 600 / 60
    assert found.kinds[0].name == "k"


def test_increments_are_told_once(store: RowsOutboxStore, clock: Clock) -> None:
    """However long one looked away."""
    log, increments = ActivityLog(), Increments(store, clock)
    work(store, log, 5)
    assert increments.look() == []
    work(store, log, 7)
    clock.advance(60)
    work(store, log, 3)
    clock.advance(600)
    assert sum(one.completed for one in increments.look()) == 10
    assert increments.look() == []


def test_slow_counts_are_made_seldom(store: RowsOutboxStore, clock: Clock) -> None:
    """A table that takes a second to count is counted every ten."""
    counted = []

    class Slow(RowsOutboxStore):
        def stats(self) -> OutboxStats:
            counted.append(clock.seconds)
            clock.advance(1)
            return super().stats()

    counts = ThrottledStats(Slow(store.storage), clock)
    for _ in range(25):
        counts.look()
        clock.advance(1)
    assert len(counted) == 3
