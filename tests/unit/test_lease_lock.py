"""The lock that secrets backends with check-and-set share."""

from __future__ import annotations

import threading

import pytest
from automate_kernel.base.errors import SecretUnavailableError
from automate_kernel.secrets import LeaseLock, LockState


class Entry:
    """An entry in memory. *failing* is the store's next failure."""

    def __init__(self) -> None:
        self.state = LockState(0, "")
        self.failing: Exception | None = None
        self._lock = threading.Lock()
        self.written = threading.Event()

    def read(self) -> LockState:
        return self.state

    def write(self, holder: str, version: int) -> int | None:
        if self.failing is not None:
            raise self.failing
        with self._lock:
            if version != self.state.version:
                return None
            self.state = LockState(version + 1, holder)
            self.written.set()
            return version + 1


class Time:
    """A clock that sleeping moves on."""

    def __init__(self) -> None:
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def lock(entry: Entry, time: Time) -> LeaseLock:
    return LeaseLock(entry, "token", clock=time.clock, sleep=time.sleep)


def test_the_lock_of_a_process_that_died_is_taken_when_its_lease_has_run_out():
    entry, time = Entry(), Time()
    entry.write("one that died", 0)
    with lock(entry, time).held():
        assert 20 <= time.now < 21
        assert entry.state.holder not in ("", "one that died")
    assert entry.state.holder == ""


def test_a_holder_that_lives_is_waited_for_and_then_left_alone():
    entry, time = Entry(), Time()
    entry.write("one that lives", 0)

    def sleep(seconds: float) -> None:
        time.sleep(seconds)
        entry.write("one that lives", entry.state.version)

    waiting = LeaseLock(entry, "token", clock=time.clock, sleep=sleep)
    with pytest.raises(SecretUnavailableError, match="'token' is locked"), waiting.held():
        raise AssertionError("it was taken from a holder that lives")
    assert 60 <= time.now < 61


def test_a_holder_writes_its_entry_anew():
    entry = Entry()
    with LeaseLock(entry, "token", lease_seconds=0.04).held():
        entry.written.clear()
        assert entry.written.wait(10)
    assert entry.state.holder == ""


def test_a_lock_that_was_lost_is_not_freed_for_others():
    """It belongs to whoever has taken it."""
    entry, time = Entry(), Time()
    with lock(entry, time).held():
        entry.write("another", entry.state.version)
    assert entry.state.holder == "another"


def test_a_store_that_is_away_at_the_end_fails_no_work():
    entry, time = Entry(), Time()
    with lock(entry, time).held():
        entry.failing = SecretUnavailableError("away")
    assert entry.state.holder != ""
