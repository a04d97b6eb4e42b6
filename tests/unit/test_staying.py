"""Executions with many steps stay with their worker for a while, so that they are not read anew."""

from __future__ import annotations

import pytest
from waiting import until
from workers import working
from automate_kernel import Kernel, SyncWorkflowContext
from automate_kernel.outbox import ItemStatus

from automate_kernel.workflows.drive import engine as engine_module
from automate_kernel.workflows.execution import ExecutionStatus, StepStatus
from defined import see

MANY = 250
EACH = {
    "id": "each", "for_each": "{{ event.payload }}", "concurrency": 50, "action": "double",
    "input": {"number": "{{ item }}"},
}  # fmt: skip
GO = {"id": "go", "wait_for": {"signal": "go"}}


@pytest.fixture
def kernel() -> Kernel:
    kernel = Kernel(discover=False, secrets={})

    @kernel.action
    def double(number: int) -> int:
        return 2 * number

    steps = [EACH, GO, {"id": "late", "action": "double", "input": {"number": 21}}]
    trigger = {"type": "manual"}
    kernel.add_workflow({"name": "many", "trigger": trigger, "steps": steps})

    @kernel.workflow(name="many_in_code")
    def many_in_code(ctx: SyncWorkflowContext, numbers: list[int]) -> int:
        for number in numbers:
            ctx.step(double, number)
        ctx.wait_for(signal="go")
        return int(ctx.step(double, 21))

    return kernel


@pytest.fixture
def staying(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "_STAY_SECONDS", 3600.0)


def held(kernel: Kernel, execution_id: str) -> bool:
    item = kernel.outbox.get(see(kernel, execution_id).item_id)
    assert item is not None
    return item.status is ItemStatus.RUNNING


def waits(kernel: Kernel, execution_id: str) -> bool:
    """True once it waits for its signal, and that is in the database."""
    return any(run.status is StepStatus.WAITING for run in see(kernel, execution_id).steps)


@pytest.mark.usefixtures("staying")
@pytest.mark.parametrize("name", ["many", "many_in_code"])
def test_a_signal_finds_a_long_execution_where_it_stays(kernel: Kernel, name: str) -> None:
    """Its worker goes on with it as it has it in memory, and no other one takes it meanwhile."""
    one = kernel.start(name, list(range(MANY)))
    with working(kernel):
        until(lambda: waits(kernel, one))
        assert held(kernel, one)
        kernel.signal(one, "go")
        until(lambda: see(kernel, one).status.finished)
    execution = see(kernel, one)
    assert execution.status is ExecutionStatus.COMPLETED, execution.error
    assert execution.steps[-1].output == 42
    item = kernel.outbox.get(execution.item_id)
    assert item is not None
    assert item.attempt_count == 1


def test_it_is_put_back_when_nothing_comes(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may wait for days. What comes then wakes it as ever."""
    monkeypatch.setattr(engine_module, "_STAY_SECONDS", 0.05)
    one = kernel.start("many", list(range(MANY)))
    with working(kernel):
        until(lambda: waits(kernel, one))
        until(lambda: not held(kernel, one))
        kernel.signal(one, "go")
        until(lambda: see(kernel, one).status is ExecutionStatus.COMPLETED)


@pytest.mark.usefixtures("staying")
def test_a_worker_that_stops_puts_it_back(kernel: Kernel) -> None:
    """At once, and not when its lease runs out: another worker goes on."""
    one = kernel.start("many", list(range(MANY)))
    with working(kernel):
        until(lambda: waits(kernel, one))
        assert held(kernel, one)
    assert not held(kernel, one)
    kernel.signal(one, "go")
    kernel.run_until_idle()
    assert see(kernel, one).status is ExecutionStatus.COMPLETED


@pytest.mark.usefixtures("staying")
def test_an_operator_reaches_it(kernel: Kernel) -> None:
    """It is cancelled, or paused, as if it had been put back."""
    ids = [kernel.start("many", list(range(MANY))) for _ in range(2)]
    with working(kernel, heartbeat_seconds=0.05):
        until(lambda: all(waits(kernel, each) for each in ids))
        assert kernel.executions.cancel(ids[0])
        assert kernel.executions.pause(ids[1])
        until(lambda: not any(held(kernel, each) for each in ids))
        assert see(kernel, ids[0]).status is ExecutionStatus.CANCELLED
        assert kernel.executions.unpause(ids[1])
        kernel.signal(ids[1], "go")
        until(lambda: see(kernel, ids[1]).status is ExecutionStatus.COMPLETED)


def test_a_short_execution_is_put_back_at_once(kernel: Kernel) -> None:
    """To read it again costs next to nothing, and its place is for others."""
    one = kernel.start("many", list(range(10)))
    with working(kernel):
        until(lambda: waits(kernel, one))
        until(lambda: not held(kernel, one))
