"""The supervisor of worker processes: how it stops them."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from typing import Any

import pytest
from waiting import PATIENCE, Gate

from automate_kernel.worker import supervisor
from automate_kernel.worker.process import handling_signals
from automate_kernel.worker.supervisor import Supervisor


class Process:
    """A process that takes its time to end."""

    def __init__(self) -> None:
        self.got: list[str] = []

    def is_alive(self) -> bool:
        return True

    def terminate(self) -> None:
        self.got.append("terminate")

    def kill(self) -> None:
        self.got.append("kill")


def test_a_key_that_is_held_down_kills_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The third signal killed processes while they handed back: an attempt and a lease were lost."""
    now = 1_000.0
    monkeypatch.setattr(supervisor.time, "monotonic", lambda: now)
    workers, process = Supervisor(1, print), Process()
    workers._slots[0].process = process
    for _ in range(5):
        workers.stop()
        now += 0.03
    assert process.got == ["terminate"] * 5
    now += 5
    workers.stop()
    assert process.got[-1] == "kill"


class Obedient(Process):
    """A process that ends when it is told to."""

    exitcode, pid = 0, 7

    def __init__(self) -> None:
        super().__init__()
        self.sentinel, self._end = multiprocessing.Pipe(duplex=False)

    def is_alive(self) -> bool:
        return not self.got

    def terminate(self) -> None:
        super().terminate()
        self._end.close()

    def join(self) -> None:
        """It has ended."""


def test_a_machine_without_room_for_a_process_gets_it_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that died can't be started again just then: the supervisor ended, and all others with it."""
    died, tries = Obedient(), list[int]()
    died.exitcode = -9
    died.terminate()

    class Next(Obedient):
        def start(self) -> None:
            tries.append(1)
            if len(tries) == 1:
                raise BlockingIOError("no more processes")
            self.terminate()

    workers = Supervisor(1, print, again_seconds=0.0)
    workers._slots[0].process = died
    workers._slots[0].crashes = 5_000  # as after a night without memory
    monkeypatch.setattr(workers._context, "Process", lambda **_: Next())
    assert workers.run() == 0
    assert len(tries) == 2


def test_a_signal_that_another_thread_gets_stops_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of who stopped the process for a while: SIGTERM was not heard, for ever."""
    workers, process, wait = Supervisor(1, print), Obedient(), supervisor.wait
    waits, ended, in_vain = Gate(), threading.Event(), list[bool]()
    workers._slots[0].process = process

    def waiting(*arguments: Any) -> Any:
        waits.set()
        return wait(*arguments)

    def get_signal() -> None:
        waits.pass_()
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        if not ended.wait(PATIENCE):
            in_vain.append(True)
            workers.stop()

    monkeypatch.setattr(supervisor, "wait", waiting)
    thread = threading.Thread(target=get_signal)
    with handling_signals(workers.stop):
        thread.start()
        assert workers.run() == 0
    ended.set()
    thread.join(PATIENCE)
    assert process.got == ["terminate"]
    assert in_vain == []
