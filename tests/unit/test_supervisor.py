"""The supervisor of worker processes: how it stops them."""

from __future__ import annotations

import pytest

from automate_kernel.worker import supervisor
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
