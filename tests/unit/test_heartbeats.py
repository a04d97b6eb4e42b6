"""Heartbeats: a call that is silent for too long has failed, and is tried again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from waiting import PATIENCE, until
from workers import working
from machines import give
from automate_kernel import Call, Kernel
from automate_kernel.base.errors import WorkflowError
from automate_kernel.operations import reports
from automate_kernel.workflows.code import SyncWorkflowContext, WorkflowContext
from automate_kernel.workflows.definition.loader import loads
from automate_kernel.workflows.execution import ExecutionStatus, StepRun, StepStatus
from defined import define

KINDS = ("def", "async def")
SILENT = "it reported no progress for 0.05 seconds, its heartbeat"
Passing = Callable[[float], None]


@pytest.fixture
def silent_for(monkeypatch: pytest.MonkeyPatch) -> Passing:
    """How calls are silent: only so, since a call that a busy machine holds up has said enough."""
    now = [0.0]

    def silent_for(seconds: float) -> None:
        now[0] += seconds

    give(monkeypatch, reports, monotonic=lambda: now[0])
    return silent_for


@pytest.fixture
def end() -> Iterator[threading.Event]:
    """The end of what hangs; it is set after the test, so that no thread is left."""
    end = threading.Event()
    yield end
    end.set()


def add(kernel: Kernel, **step: Any) -> None:
    step = {"id": "a", "action": "work", **step}
    kernel.add_workflow({"name": "flow", "trigger": {"type": "manual"}, "steps": [step]})


def ended(kernel: Kernel, *, by_worker: bool) -> StepRun:
    """Run the workflow to its end, here or by a worker; return its step."""
    if by_worker:
        with working(kernel):
            one = kernel.start("flow")
            until(lambda: kernel.executions.get(one).status.finished)  # type: ignore[union-attr]
    else:
        one = kernel.run("flow").id
    found = kernel.executions.get(one)
    assert found is not None
    (run,) = found.steps
    return run


def hanging(kernel: Kernel, kind: str, end: threading.Event, silent_for: Passing) -> list[Call]:
    """Make an action that reports once, then hangs in its first attempt; return its calls."""
    calls: list[Call] = []
    if kind == "def":

        @kernel.action("work")
        def work(call: Call) -> Any:
            calls.append(call)
            if call.attempt == 1:
                call.progress(7)
                # More than once, since who listens may begin to when the call is under way.
                until(lambda: end.is_set() or silent_for(1.0))
            return call.last_progress

    else:

        @kernel.action("work")
        async def work_later(call: Call) -> Any:
            calls.append(call)
            if call.attempt == 1:
                call.progress(7)
                silent_for(1.0)
                await asyncio.sleep(PATIENCE)
            return call.last_progress

    return calls


@pytest.mark.parametrize("by_worker", [False, True], ids=["here", "worker"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_silent_call_is_tried_again(
    kernel: Kernel, end: threading.Event, silent_for: Passing, kind: str, by_worker: bool
) -> None:
    """And goes on from the last progress; the first call is told that nobody waits for it."""
    calls = hanging(kernel, kind, end, silent_for)
    if kind == "def":
        # Nothing stops a thread: the next attempt begins once the first one has ended.
        threading.Thread(target=lambda: _end_once_abandoned(calls, end), daemon=True).start()
    # The next attempt waits for the end of the first one, for as long as it may be silent.
    add(kernel, heartbeat="50ms", retry={"attempts": 100, "delay": 0})
    run = ended(kernel, by_worker=by_worker)
    assert (run.status, run.output) == (StepStatus.COMPLETED, 7)
    assert calls[0].cancelled
    first = kernel.executions.failed_attempts(run.execution_id)[0]
    assert (first.error_code, first.error.partition(" (")[0]) == ("DEADLINE_EXCEEDED", SILENT)


def _end_once_abandoned(calls: list[Call], end: threading.Event) -> None:
    until(lambda: calls and calls[0].cancelled)
    end.set()


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_that_reports_may_take_longer(
    kernel: Kernel, silent_for: Passing, kind: str
) -> None:
    count = 8
    if kind == "def":

        @kernel.action("work")
        def work(call: Call) -> int:
            for number in range(count):
                threading.Event().wait(0.01)
                silent_for(0.25)
                call.progress(number)
            return call.attempt

    else:

        @kernel.action("work")
        async def work_later(call: Call) -> int:
            for number in range(count):
                await asyncio.sleep(0.01)
                silent_for(0.25)
                call.progress(number)
            return call.attempt

    add(kernel, heartbeat="300ms")
    run = ended(kernel, by_worker=False)
    assert (run.status, run.output) == (StepStatus.COMPLETED, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_its_timeout_counts_beside_it(kernel: Kernel, end: threading.Event, kind: str) -> None:
    """A call that reports all the time is ended by its timeout."""
    if kind == "def":

        @kernel.action("work")
        def work(call: Call) -> None:
            while not end.wait(0.005):
                call.progress(1)

    else:

        @kernel.action("work")
        async def work_later(call: Call) -> None:
            while not end.is_set():
                await asyncio.sleep(0.005)
                call.progress(1)

    add(kernel, heartbeat="10s", timeout="80ms")
    run = ended(kernel, by_worker=False)
    assert (run.status, run.error) == (StepStatus.FAILED, "it took longer than 0.08 seconds")


def test_a_silent_call_is_no_workflow_that_took_too_long(
    kernel: Kernel, end: threading.Event, silent_for: Passing
) -> None:
    hanging(kernel, "async def", end, silent_for)
    step = {"id": "a", "action": "work", "heartbeat": "50ms"}
    define(kernel, step, name="flow", timeout="1h")
    run = ended(kernel, by_worker=False)
    assert run.error is not None
    assert run.error.startswith(SILENT)


def test_a_transactional_call_is_judged_when_it_ends(kernel: Kernel, silent_for: Passing) -> None:
    """Nobody may leave its transaction behind; it is rolled back."""

    @kernel.action("work", transactional=True)
    def work(call: Call) -> int:
        silent_for(0.06 if call.attempt == 1 else 0.0)
        return call.attempt

    add(kernel, heartbeat="50ms", retry={"attempts": 2, "delay": 0})
    run = ended(kernel, by_worker=False)
    assert (run.status, run.output, run.attempts) == (StepStatus.COMPLETED, 2, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_workflow_in_code_gives_a_step_a_heartbeat(
    kernel: Kernel, silent_for: Passing, kind: str
) -> None:
    async def check(call: Call) -> int:
        if call.attempt == 1:
            silent_for(1.0)
            await asyncio.sleep(PATIENCE)
        return call.attempt

    if kind == "def":

        @kernel.workflow
        def flow(ctx: SyncWorkflowContext, payload: Any) -> int:
            return ctx.step(check, heartbeat="50ms", retry=2)

    else:

        @kernel.workflow(name="flow")
        async def flow_later(ctx: WorkflowContext, payload: Any) -> int:
            return await ctx.step(check, heartbeat="50ms", retry=2)

    execution = kernel.run("flow")
    assert (execution.status, execution.output) == (ExecutionStatus.COMPLETED, 2)


def test_only_calls_have_a_heartbeat() -> None:
    text = (
        "name: flow\ntrigger: {type: manual}\nsteps:\n  - {id: a, sleep: 1s, heartbeat: 1s}\n"
        "  - {id: b, action: work, heartbeat: soon}\n"
    )
    with pytest.raises(WorkflowError) as refused:
        loads(text)
    assert "heartbeat means nothing without action" in str(refused.value)
    assert "'soon' is not a duration" in str(refused.value)
