"""Executions that wait beside their calls: the engine hears of signals, and of nothing too often."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from waiting import PATIENCE, Gate, until
from workers import working
from automate_kernel import Kernel
from automate_kernel.storage.tables import WAIT
from automate_kernel.workflows.execution import ExecutionStatus, StepStatus
from defined import see


def status(kernel: Kernel, execution_id: str, step_id: str) -> StepStatus | None:
    run = see(kernel, execution_id).step(step_id)
    return run and run.status


def add(kernel: Kernel, name: str, *steps: dict[str, Any], **more: Any) -> None:
    more.setdefault("trigger", {"type": "manual"})
    kernel.add_workflow({"name": name, "steps": list(steps), **more})


@pytest.mark.parametrize("inline", [True, False])
def test_a_signal_is_noticed_while_another_branch_works(kernel: Kernel, inline: bool) -> None:
    """Not only when the call beside the wait has ended."""
    release, noted = threading.Event(), threading.Event()

    @kernel.action
    def block() -> None:
        assert release.wait(PATIENCE)

    @kernel.action
    def note() -> None:
        noted.set()

    add(
        kernel,
        "both",
        {"id": "go", "wait_for": {"signal": "go"}},
        {"id": "note", "action": "note"},
        {"id": "block", "action": "block", "needs": []},
    )
    one = kernel.start("both")
    if inline:
        thread = threading.Thread(target=kernel.run_until_idle, daemon=True)
        thread.start()
    with working(kernel, kinds=["automate.signal"] if inline else ()):
        until(lambda: status(kernel, one, "go") is StepStatus.WAITING)
        kernel.signal(one, "go")
        try:
            assert noted.wait(PATIENCE)
            assert status(kernel, one, "block") is not StepStatus.COMPLETED
        finally:
            release.set()
        until(lambda: see(kernel, one).status is ExecutionStatus.COMPLETED)
    if inline:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_a_sleep_ends_while_another_branch_works(kernel: Kernel) -> None:
    """The engine's timers wake it, as they do for retries."""
    release, noted = threading.Event(), threading.Event()

    @kernel.action
    async def block() -> None:
        import asyncio

        while not release.is_set():
            await asyncio.sleep(0.01)

    @kernel.action
    def note() -> None:
        noted.set()

    add(
        kernel,
        "both",
        {"id": "nap", "sleep": "50ms"},
        {"id": "note", "action": "note"},
        {"id": "block", "action": "block", "needs": []},
    )
    with working(kernel):
        one = kernel.start("both")
        assert noted.wait(PATIENCE)
        release.set()
        until(lambda: see(kernel, one).status is ExecutionStatus.COMPLETED)


@pytest.mark.parametrize("until", ["2030-01-31T09:00:00", "tomorrow", 1_900_000_000, None])
def test_a_time_that_is_none_says_how_one_is_written(kernel: Kernel, until: Any) -> None:
    step = {"id": "nap", "sleep": {"until": "{{ event.payload }}"}}
    kernel.add_workflow({"name": "n", "trigger": {"type": "manual"}, "steps": [step]})
    error = str(kernel.run("n", until).error)
    assert "steps.nap.sleep: " in error and '(for example until: "2030-01-31T09:00' in error


@pytest.mark.parametrize("signal", [False, True])
@pytest.mark.parametrize(
    ("wanted", "other", "same"),
    [
        (True, 1, True),
        (1, True, 1.0),
        (0, False, 0.0),
        ([True], [1], [True]),
        ({"n": 1}, {"n": True}, {"n": 1.0}),
    ],
)
def test_true_is_not_one(kernel: Kernel, wanted: Any, other: Any, same: Any, signal: bool) -> None:
    """Python takes one for the other: a wait took the answer that was not meant."""
    waited = {"signal" if signal else "event": "e", "match": {"id": 7, "ok": wanted}}
    output = "{{ steps.wait.output.payload }}"
    add(kernel, "w", {"id": "wait", "wait_for": waited}, output=output)
    execution_id = kernel.start("w")
    kernel.run_until_idle()
    for value in (other, same):
        payload = {"id": 7, "ok": value}
        if signal:
            kernel.signal(execution_id, "e", payload)
        else:
            kernel.emit("e", payload)
        kernel.run_until_idle()
    execution = see(kernel, execution_id)
    assert execution.status is ExecutionStatus.COMPLETED
    assert json.dumps(execution.output["ok"]) == json.dumps(same)


def test_many_executions_wait_for_one_event(kernel: Kernel) -> None:
    """More than one transaction wakes: each goes on once, and nothing is left."""
    add(kernel, "waiting", {"id": "a", "wait_for": {"event": "bell", "timeout": "1d"}})
    with working(kernel) as worker:
        several = [kernel.start("waiting") for _ in range(450)]
        until(lambda: not worker.in_flight and all(
            one.status is ExecutionStatus.RUNNING
            for one in kernel.executions.find(workflow="waiting", limit=1000)
        ))  # fmt: skip
        until(lambda: _count(kernel) == len(several))
        kernel.emit("bell")
        until(lambda: _count(kernel) == 0)
        until(lambda: len(kernel.executions.find(status="COMPLETED", limit=1000)) == len(several))
        until(lambda: not worker.in_flight)


def _count(kernel: Kernel) -> int:
    with kernel.storage.begin() as rows:
        return sum(row["n"] for row in rows.count(WAIT))


def test_what_waits_costs_nothing(kernel: Kernel) -> None:
    """It is not held, and no worker looks for it."""
    add(kernel, "waiting", {"id": "a", "wait_for": {"event": "bell"}})
    add(kernel, "sleeping", {"id": "a", "sleep": "1d"})
    with working(kernel) as worker:
        for name in ("waiting", "sleeping") * 5:
            kernel.start(name)
        until(lambda: len(kernel.executions.find(status="RUNNING", limit=20)) == 10)
        until(lambda: worker.in_flight == 0)
        looked: list[str] = []
        real = kernel.executions.signals.arrived
        kernel.executions.signals.arrived = (  # type: ignore[method-assign]
            lambda *given: looked.append("look") or real(*given)  # type: ignore[func-returns-value]
        )
        threading.Event().wait(1.2)
        assert not looked
        completed = worker.stats.completed
    assert worker.stats.completed == completed


def test_children_of_one_worker_end_with_their_parent(kernel: Kernel) -> None:
    """A cancellation reaches a sub-workflow that this very worker drives."""
    begun = threading.Event()

    @kernel.action
    async def long() -> None:
        import asyncio

        begun.set()
        await asyncio.sleep(3600)

    add(kernel, "child", {"id": "a", "action": "long"})
    add(kernel, "parent", {"id": "sub", "workflow": "child"})
    with working(kernel) as worker:
        one = kernel.start("parent")
        assert begun.wait(PATIENCE)
        kernel.executions.cancel(one)
        until(lambda: worker.in_flight == 0)
        until(lambda: len(kernel.executions.find(status="CANCELLED")) == 2)


def test_a_wait_sends_the_signals_of_a_step(kernel: Kernel) -> None:
    """`step_started` when it begins, and `step_completed` when it is answered."""
    from automate_kernel.signals import step_completed, step_started

    sent: list[tuple[str, str]] = []

    def started(_: Any, *, step: Any, **__: Any) -> None:
        sent.append(("started", step.id))

    def completed(_: Any, *, step: Any, **__: Any) -> None:
        sent.append(("completed", step.id))

    add(kernel, "listening", {"id": "go", "wait_for": {"signal": "go"}})
    with step_started.connected_to(started), step_completed.connected_to(completed):
        one = kernel.start("listening")
        kernel.run_until_idle()
        assert sent == [("started", "go")]
        kernel.signal(one, "go")
        kernel.run_until_idle()
    assert sent == [("started", "go"), ("completed", "go")]


def test_run_waits_as_long_as_it_may(kernel: Kernel) -> None:
    """A short sleep is waited for; what waits without an end is left."""
    add(kernel, "short", {"id": "nap", "sleep": "20ms"})
    add(kernel, "long", {"id": "nap", "sleep": "1d"})
    add(kernel, "endless", {"id": "go", "wait_for": {"signal": "go"}})
    assert kernel.run("short").status is ExecutionStatus.COMPLETED
    assert kernel.run("long", patience=5).status is ExecutionStatus.RUNNING
    assert kernel.run("endless").status is ExecutionStatus.RUNNING


@pytest.mark.parametrize("below", [False, True])
def test_run_waits_for_the_worker_that_goes_on_with_it(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, below: bool
) -> None:
    """What had to wait is whoever's that looks first: the caller has its end all the same."""
    began, go, looks = Gate(), Gate(), list[Any]()
    real = kernel._run_due

    @kernel.action
    def work() -> None:
        began.set()
        go.pass_()

    def look(*arguments: Any) -> Any:
        began.pass_()  # a worker was first
        looks.append(real(*arguments))
        if len(looks) == 2:
            go.set()
        return looks[-1]

    nap, rest = {"id": "nap", "sleep": "1ms"}, {"id": "work", "action": "work"}
    if below:
        add(kernel, "sub", rest)
        rest = {"id": "rest", "workflow": "sub"}
    add(kernel, "shared", nap, rest)
    monkeypatch.setattr(kernel, "_run_due", look)
    with working(kernel):
        try:
            found = kernel.run("shared")
        finally:
            go.set()
    assert found.status is ExecutionStatus.COMPLETED


def test_a_sub_workflow_that_is_not_saved_yet_is_not_missed(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look before the checkpoint that starts it finds nothing, and says nothing."""
    release, looked, real = threading.Event(), threading.Event(), kernel.executions.checkpoints.save
    signals = kernel.executions.signals
    arrived = signals.arrived

    def look(rows: Any, waiting: Any, **how: Any) -> Any:
        looked.set()
        return arrived(rows, waiting, **how)

    def checkpoint(group: Any, **options: Any) -> Any:
        if any(save.turn.children for save in group):
            looked.clear()
            assert looked.wait(PATIENCE)
        return real(group, **options)

    @kernel.action
    def block() -> None:
        assert release.wait(PATIENCE)

    add(kernel, "child", {"id": "nap", "sleep": "10ms"})
    add(
        kernel,
        "parent",
        {"id": "block", "action": "block"},
        {"id": "sub", "workflow": "child", "needs": []},
    )
    monkeypatch.setattr(signals, "arrived", look)
    monkeypatch.setattr(kernel.executions.checkpoints, "save", checkpoint)
    with working(kernel):
        one = kernel.start("parent")
        until(lambda: status(kernel, one, "sub") is StepStatus.COMPLETED)
        release.set()
        until(lambda: see(kernel, one).status is ExecutionStatus.COMPLETED)
