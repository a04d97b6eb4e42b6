"""Runs in the calling thread."""

from __future__ import annotations

import threading

import pytest

from automate_kernel import Kernel


def test_a_machine_without_threads_runs_parallel_steps_one_after_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither the renewal of leases nor steps beside each other need a thread."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    made: list[tuple[int, threading.Thread]] = []
    with Kernel(discover=False) as kernel:

        @kernel.action("note")
        def note(n: int) -> None:
            made.append((n, threading.current_thread()))

        steps = [
            {"id": f"s{n}", "action": "note", "input": {"n": n}, "needs": []} for n in range(3)
        ]
        kernel.add_workflow({"name": "w", "trigger": {"type": "manual"}, "steps": steps})
        monkeypatch.setattr(threading.Thread, "start", refuse)
        assert kernel.run("w").status == "COMPLETED"
        monkeypatch.undo()
    assert sorted(n for n, _ in made) == [0, 1, 2]
    assert {thread for _, thread in made} == {threading.current_thread()}
