"""Calls of plain functions with a time limit: bounded when abandoned, and never overlapping."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from waiting import Gate, until
from machines import give
from automate_kernel import Kernel
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.monitoring.prometheus import Exporter
from automate_kernel.operations import timed_calls
from automate_kernel.operations.timed_calls import TimedCalls
from automate_kernel.workflows.execution import ExecutionStatus
from defined import define


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.set()


@pytest.fixture(params=["run", "arun"])
def run(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """A timed call, from plain and from asynchronous code."""

    def run(calls: TimedCalls, *arguments: Any, **options: Any) -> Any:
        if request.param == "run":
            return calls.run(*arguments, **options)
        return asyncio.run(calls.arun(*arguments, **options))

    return run


def code(error: pytest.ExceptionInfo[AutomateError]) -> ErrorCodes:
    return error.value.code


def test_results_and_errors_come_back(run: Callable[..., Any]) -> None:
    """A call in time is a call."""

    def broken() -> None:
        raise LookupError("no")

    assert run(TimedCalls(), lambda: 7, 5.0) == 7
    with pytest.raises(LookupError):
        run(TimedCalls(), broken, 5.0)


def test_abandoned_calls_have_a_bound(run: Callable[..., Any], gate: Gate) -> None:
    """Beyond it calls fail at once and may be tried again; what ends makes room."""
    calls = TimedCalls(most_abandoned=2)
    for _ in range(2):
        with pytest.raises(AutomateError) as late:
            run(calls, gate.pass_, 0.01)
        assert code(late) is ErrorCodes.DEADLINE_EXCEEDED
    assert calls.abandoned == 2
    with pytest.raises(AutomateError) as refused:
        run(calls, lambda: 7, 5.0)
    assert code(refused) is ErrorCodes.RESOURCE_EXHAUSTED
    assert refused.value.retryable
    assert refused.value.hint
    gate.set()
    until(lambda: calls.abandoned == 0)
    assert run(calls, lambda: 7, 5.0) == 7


def test_an_attempt_waits_for_the_one_before(run: Callable[..., Any], gate: Gate) -> None:
    """An earlier attempt that still runs is not overlapped, and other calls are not held up."""
    calls, begun = TimedCalls(), []
    with pytest.raises(AutomateError):
        run(calls, gate.pass_, 0.01, key=("a", None, "1"))
    with pytest.raises(AutomateError, match="earlier attempt still runs") as late:
        run(calls, lambda: begun.append(1), 0.01, key=("a", None, "1"))
    assert (code(late), begun) == (ErrorCodes.DEADLINE_EXCEEDED, [])
    assert run(calls, lambda: 7, 5.0, key=("a", "tenant", "1")) == 7
    threading.Timer(0.05, gate.set).start()
    assert run(calls, lambda: 8, 5.0, key=("a", None, "1")) == 8


def test_a_cancelled_call_is_abandoned_too(gate: Gate) -> None:
    """Its thread can't be stopped either."""
    calls = TimedCalls()

    async def cancel() -> None:
        task = asyncio.create_task(calls.arun(gate.pass_, 60.0))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert calls.abandoned == 1


def test_attempts_of_a_step_do_not_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that is tried again begins once its earlier attempt has ended."""
    kernel, now = Kernel(discover=False), [0.0]
    # Only the first attempt is late, and never the next one, however busy the machine is.
    give(monkeypatch, timed_calls, monotonic=lambda: now[0])
    running, most, calls = [0], [0], [0]
    lock = threading.Lock()

    def abandoned() -> bool:
        now[0] += 1.0
        return kernel.operations.timed_calls.abandoned > 0

    @kernel.action("slow.once")
    def slow_once() -> int:
        with lock:
            calls[0] += 1
            mine = calls[0]
            running[0] += 1
            most[0] = max(most[0], running[0])
        if mine == 1:
            until(abandoned)
            threading.Event().wait(0.1)  # in which the next attempt would begin
        with lock:
            running[0] -= 1
        return mine

    define(
        kernel,
        {
            "id": "only",
            "action": "slow.once",
            "timeout": 0.2,
            "retry": {"attempts": 100, "delay": "1ms", "jitter": False},
        },
        name="retried",
        output="{{ steps.only.output }}",
    )
    execution = kernel.run("retried")
    assert execution.status is ExecutionStatus.COMPLETED, execution.error
    assert (execution.output, most[0]) == (2, 1)
    kernel.close()


def test_abandoned_calls_are_in_the_metrics(gate: Gate) -> None:
    """An operator sees them before they become too many."""
    kernel = Kernel(discover=False)
    with pytest.raises(AutomateError):
        kernel.operations.timed_calls.run(gate.pass_, 0.01)
    assert "\nautomate_abandoned_calls 1\n" in Exporter(kernel).render()
    kernel.close()
