"""What a worker costs that has nothing to do: statements and wake-ups, counted."""

from __future__ import annotations

import signal
import threading
from typing import Any

import pytest
import sqlalchemy as sa
from machines import give
from automate_kernel import Kernel
from automate_kernel.outbox import ItemStatus, SkipLockedClaimOutboxStore
from automate_kernel.outbox.queries import Due
from automate_kernel.storage import MemoryStorage, Wakeup
from automate_kernel.worker import Handler, PeriodicTask, Worker, periodic
from automate_kernel.worker.periodic import PeriodicRunner
from automate_kernel.worker.worker import Flag
from automate_sqlalchemy import SqlAlchemyStorage
from automate_testing.clock import FakeClock
from waiting import PATIENCE, until
from defined import define

LOOKS = 20


class Silence(Wakeup):
    """A wakeup that nobody rings, each of whose waits is over at once; the last stops *worker*."""

    worker: Worker

    def __init__(self) -> None:
        self.waits: list[float] = []

    def expect(self) -> bool:
        return True

    def ignore(self) -> None:
        pass

    def wait(self, timeout: float) -> bool:
        self.waits.append(timeout)
        if len(self.waits) == LOOKS:
            self.worker.stop()
        return False

    def wake(self) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.mark.parametrize("database", ["sqlite", "postgresql", "mariadb"])
def test_a_look_at_nothing_is_few_statements(
    database: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One look every `poll_seconds`, and no claim unless something is due."""
    engine: sa.Engine = request.getfixturevalue(f"{database}_engine")
    seen: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if threading.current_thread().name == "automate-fetcher":
            seen.append(statement)

    store, silence = SkipLockedClaimOutboxStore(SqlAlchemyStorage(engine)), Silence()
    store.enqueue("k", delay=3600.0)
    monkeypatch.setattr(store, "wakeup", lambda: silence)
    silence.worker = Worker(store, [Handler("k", print)], poll_seconds=1.0)
    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        silence.worker.run()
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)
    assert silence.waits == [1.0] * LOOKS
    assert sum("UPDATE" in each for each in seen) <= 4, "the claims of its first look"
    looks = [each for each in seen if "UPDATE" not in each]
    # One for what is due; pauses and limits once in a while.
    assert sum("EXISTS" in each for each in looks) <= LOOKS + 2
    assert len(looks) <= 3 * LOOKS + 15


def test_a_run_with_nothing_due_sends_one_statement(sqlite_engine: sa.Engine) -> None:
    """It asks once for due items, ended leases and keys to free."""
    kernel = Kernel(SqlAlchemyStorage(sqlite_engine), discover=False, secrets={})
    kernel.handler("k")(print)
    kernel.outbox.enqueue("k", delay=3600.0)
    kernel.run_until_idle()
    seen: list[str] = []

    def note(_: Any, __: Any, statement: str, *rest: Any) -> None:
        if not statement.startswith(("BEGIN", "PRAGMA")):
            seen.append(statement)

    sa.event.listen(sqlite_engine, "before_cursor_execute", note)
    try:
        kernel.run_until_idle()
    finally:
        sa.event.remove(sqlite_engine, "before_cursor_execute", note)
    assert len(seen) == 1, seen


def test_a_run_recovers_what_a_dead_worker_held() -> None:
    """Nothing is due and a lease has ended: the look says so, and the item runs here."""
    clock = FakeClock()
    kernel = Kernel(MemoryStorage(clock), discover=False, secrets={})
    kernel.handler("k")(lambda item: None)
    item_id = kernel.outbox.enqueue("k", max_attempts=3)
    assert kernel.outbox.claim_batch("dies")
    assert kernel.outbox.look() == Due(None, recoverable=False)
    clock.advance(3600.0)
    assert kernel.outbox.look() == Due(None, recoverable=True)
    kernel.run_until_idle(patience=0.0)
    item = kernel.outbox.get(item_id)
    assert item is not None
    assert item.status is ItemStatus.RETRY


def test_the_engine_rests_after_its_executions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its threads that look at intervals do so while there is something to look at."""
    rests: set[str] = set()
    wait = threading.Event.wait

    def noted(event: threading.Event, timeout: float | None = None) -> bool:
        if timeout is None:
            rests.add(threading.current_thread().name)
        return wait(event, timeout)

    monkeypatch.setattr(threading.Event, "wait", noted)
    kernel = Kernel(MemoryStorage(), discover=False, secrets={})
    kernel.action("shop.note")(lambda: None)
    define(
        kernel,
        {"id": "a", "action": "shop.note"},
        {"id": "b", "needs": [], "wait_for": {"signal": "go"}},
        {"id": "c", "needs": [], "action": "shop.note", "retry": {"attempts": 2}},
    )
    worker = kernel.worker()
    running = threading.Thread(target=worker.run)
    running.start()
    for _ in range(2):  # it rests, works again, and rests
        execution_id = kernel.start("w")
        kernel.signal(execution_id, "go")
        until(lambda: all(one.status.finished for one in kernel.executions.find()))
        rests.clear()
        until(lambda: "automate-engine-watch" in rests)
        until(lambda: "automate-signals" not in [each.name for each in threading.enumerate()])
    worker.stop()
    running.join(PATIENCE)
    kernel.close()


def test_tasks_of_one_period_are_one_wake_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute of six tasks, by a clock that only their waits move."""
    now, waits, ran = [1000.0], 0, 0
    give(monkeypatch, periodic, monotonic=lambda: now[0])

    class Stopping(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            nonlocal waits
            waits += 1
            now[0] += timeout or 0.0
            return now[0] > 1060.0

    def run() -> None:
        nonlocal ran
        ran += 1
        now[0] += 0.001

    tasks = [PeriodicTask(f"task {number}", 1.0, run) for number in range(6)]
    PeriodicRunner(tasks, Stopping()).run()
    assert 57 <= waits <= 62
    assert 6 * 56 <= ran <= 6 * 61


def test_a_flag_is_waited_for_without_looking_at_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal that comes right before the wait begins ends it all the same."""
    flag = Flag()

    class Interrupted(list[Any]):
        def append(self, one: Any) -> None:
            super().append(one)
            signal.raise_signal(signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, lambda *_: flag.set())
    try:
        for timeout in (None, PATIENCE):
            flag._waiting = Interrupted()
            assert flag.wait(timeout)
            flag.clear()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert flag._waiting == []
    flag._waiting = []
    assert not flag.wait(0.01)
    waiting = [threading.Thread(target=flag.wait) for _ in range(5)]
    for each in waiting:
        each.start()
    until(lambda: len(flag._waiting) == 5)
    flag.set()
    for each in waiting:
        each.join(PATIENCE)
        assert not each.is_alive()
