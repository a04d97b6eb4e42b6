"""A server that takes no more connections: what a process makes of it, and what it logs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from automate_kernel import StorageError
from automate_kernel.storage import shortage as shortages
from automate_kernel.storage.errors import storage_error
from automate_kernel.storage.listen import ListenWakeup
from automate_kernel.storage.notify import Notifier
from automate_kernel.storage.shortage import Shortage, TooManyConnectionsError, shortage_of, warn_of
from automate_kernel.worker import PeriodicTask
from automate_kernel.worker.periodic import PeriodicRunner, keep_trying


class Refusal(Exception):
    """A driver's error."""

    def __init__(self, text: str, state: str | None = None) -> None:
        super().__init__(text)
        self.sqlstate = state


@pytest.fixture(autouse=True)
def unwarned(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test has warned within the last minute."""
    monkeypatch.setattr(shortages, "_warned_at", float("-inf"))
    yield


def error_of(error: Exception, place: str = "here") -> StorageError:
    return storage_error(error, place, migrate="migrate", retryable=False)


@pytest.mark.parametrize(
    "error",
    [
        Refusal("connection failed: FATAL:  sorry, too many clients already"),
        Refusal("FATAL:  remaining connection slots are reserved for roles with SUPERUSER"),
        Refusal('FATAL:  too many connections for role "app"'),
        Refusal("zu viele Verbindungen", "53300"),
        Refusal("FATAL:  no more connections allowed (max_client_conn)"),
        Refusal("server login failed: FATAL too many connections for role", "08P01"),
        Exception(1040, "Too many connections"),
        Exception(1203, "User app already has more than 'max_user_connections'"),
        Exception(1226, "User 'app' has exceeded the 'max_user_connections' resource"),
    ],
)  # fmt: skip
def test_a_full_server_is_recognised(error: Exception) -> None:
    """Whoever says so; the same call may succeed later, and the remedy is named."""
    place = f"place {error}"
    found = error_of(error, place)
    assert isinstance(found, TooManyConnectionsError)
    assert found.retryable
    assert "max_connections" in str(found.hint)
    assert shortage_of(place).lasts


@pytest.mark.parametrize(
    "error",
    [
        Refusal("new row violates check: too many connections", "23514"),
        Exception(1226, "User 'app' has exceeded the 'max_questions' resource"),
        Exception(1064, "near 'too many connections'"),
        Refusal("server closed the connection unexpectedly"),
    ],
)
def test_other_errors_are_none(error: Exception) -> None:
    """Though they may quote such words."""
    place = f"other {error}"
    assert not isinstance(error_of(error, place), TooManyConnectionsError)
    assert not shortage_of(place).lasts


def test_it_lasts_longer_each_time_that_it_comes_back() -> None:
    """Else all would take their connections again, be refused, and give them back, for ever."""
    now = [1000.0]
    shortage = Shortage(lambda: now[0])

    def lasted() -> float:
        shortage.note()
        began = now[0]
        while shortage.lasts:
            now[0] += 1
        return now[0] - began

    first, second, third = lasted(), lasted(), lasted()
    assert 30 <= first <= 46 < 60 <= second <= 91 < 120 <= third
    now[0] += 100_000
    assert lasted() <= 46


def test_who_works_keeps_one() -> None:
    """Its leases have to be renewed; who has nothing to do gives others their turn."""

    class Worker(SimpleNamespace):
        __hash__ = None  # type: ignore[assignment]

    worker = Worker(in_flight=0)
    shortage = Shortage()
    shortage.add_worker(worker)
    assert shortage.kept == 0
    worker.in_flight = 3
    assert shortage.kept == 1
    del worker
    assert shortage.kept == 0


def test_all_loops_of_a_process_warn_once(caplog: pytest.LogCaptureFixture) -> None:
    """In a line with the setting and the remedy, and without a traceback."""
    full, ends = error_of(Refusal("sorry, too many clients already")), threading.Event()
    runs: list[str] = []

    def fail(name: str) -> None:
        runs.append(name)
        if len(runs) > 20:
            ends.set()
        raise full

    tasks = [PeriodicTask(name, 0.001, lambda name=name: fail(name)) for name in "ab"]
    with caplog.at_level(logging.INFO):
        PeriodicRunner(tasks, ends).run()
        keep_trying(lambda: fail("c"), ends, "claiming")
        warn_of(logging.getLogger("automate"), full, "worker %s could not report: %s", "w")
    assert set(runs) == {"a", "b", "c"}
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.exc_info is None
    assert record.exc_text is None
    assert "max_connections" in record.getMessage()
    assert "worker.processes" in record.getMessage()


def test_a_task_that_finds_no_place_tries_less_often() -> None:
    """Up to some seconds, and at once as before when it has found a place."""
    pauses: list[float] = []

    class Stopping:
        """An event whose waits are over at once."""

        def wait(self, seconds: float) -> bool:
            pauses.append(seconds)
            return len(pauses) > 12

        def is_set(self) -> bool:
            return False

    def task() -> None:
        raise error_of(Refusal("sorry, too many clients already"))

    runner = PeriodicRunner([PeriodicTask("a", 1.0, task, at_once=True)], Stopping())  # type: ignore[arg-type]
    due = [runner._run(PeriodicTask("a", 1.0, task)) for _ in range(9)]  # noqa: SLF001
    assert due[0] <= 2.0
    assert all(4.0 <= each <= 8.0 for each in due[3:])
    assert len(set(due)) == len(due), "not all workers at the same moment"
    assert runner._run(PeriodicTask("a", 1.0, lambda: None)) == 1.0  # noqa: SLF001
    assert runner._run(PeriodicTask("a", 1.0, task)) <= 2.0  # noqa: SLF001


def test_a_task_whose_database_is_away_logs_a_line_for_all_its_tries(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A traceback of ours says nothing of that; an error of the task's own still has one."""
    away: list[Exception] = [StorageError("the server is down") for _ in range(5)]
    ends = threading.Event()

    def task() -> None:
        if not away:
            ends.set()
            raise ValueError("a bug")
        raise away.pop()

    PeriodicRunner([PeriodicTask("a", 0.001, task)], ends).run()
    first, second = (record for record in caplog.records if record.levelno >= logging.WARNING)
    assert "the server is down" in first.getMessage()
    assert first.exc_text is None
    assert second.levelname == "ERROR"
    assert "a bug" not in second.getMessage()
    assert "ValueError" in str(second.exc_text)


class Driver:
    """A connection of psycopg, as far as LISTEN needs it."""

    def __init__(self) -> None:
        self.closed = False
        self.said: list[str] = []

    def execute(self, sql: str) -> None:
        self.said.append(sql)

    def close(self) -> None:
        self.closed = True

    def fileno(self) -> int:
        raise AssertionError("it is given back before it is waited for")


@pytest.mark.parametrize("busy", [False, True])
def test_a_worker_listens_to_no_notices_meanwhile(busy: bool) -> None:
    """It polls: the connection does nothing else."""
    made: list[Driver] = []
    saves = [False]

    def connect() -> Any:
        made.append(Driver())
        return made[-1]

    wakeup = ListenWakeup(connect, lambda: saves[0])
    assert wakeup.expect() is False
    saves[0] = True
    if busy:
        wakeup.ignore()
    else:
        wakeup.wake()
        assert wakeup.wait(0)
    assert made[0].closed
    assert wakeup.expect() is True
    wakeup.ignore()
    assert len(made) == 1
    saves[0] = False
    assert wakeup.expect() is False
    assert len(made) == 2
    wakeup.close()


def test_nobody_is_notified_meanwhile() -> None:
    """Workers find what is new without it."""
    asked = threading.Event()

    def connect() -> Any:
        asked.set()
        raise AssertionError

    saves = [True]
    notifier = Notifier(connect, lambda: None, lambda: saves[0])
    notifier.ring()
    notifier.close()
    assert not asked.is_set()
    saves[0] = False
    notifier.ring()
    assert asked.wait(20)
    notifier.close()
