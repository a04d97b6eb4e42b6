"""The kit runs workflows without waiting: time is skipped, and calls are noted."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import pytest

from automate_kernel import AutomateError, ConfigError, ErrorCodes, Kernel, WorkflowContext
from automate_kernel.storage import MemoryStorage
from automate_testing import FakeClock, WorkflowTest
from automate_kernel.workflows.execution import ExecutionStatus

BUSY = AutomateError(ErrorCodes.UNAVAILABLE, "busy")
PATIENT: dict[str, Any] = {
    "name": "patient",
    "trigger": {"type": "event", "event": "go"},
    "steps": [
        {
            "id": "call",
            "action": "bank.charge",
            "input": {"amount": "{{ event.payload.amount }}"},
            "retry": {"attempts": 4, "delay": "2d", "max_delay": "30d", "jitter": False},
        },
        {"id": "tell", "action": "chat.say", "input": {"text": "{{ steps.call.output }}"}},
    ],
    "output": "{{ steps.call.output }}",
}


def make(storage: Any = None) -> Kernel:
    kernel = Kernel(storage, discover=False)

    @kernel.action("bank.charge")
    def charge(amount: int) -> str:
        raise AssertionError("called for real")

    @kernel.action("chat.say")
    def say(text: str) -> None:
        raise AssertionError("called for real")

    kernel.add_workflow(PATIENT)
    return kernel


def test_retries_that_take_days_take_none() -> None:
    """The times of the steps are days apart, and the test is over at once."""
    began = time.monotonic()
    with WorkflowTest(make()) as test:
        bank = test.replace("bank.charge", [BUSY, BUSY, BUSY, "charged"])
        chat = test.replace("chat.say")
        execution = test.run("patient", {"amount": 7})
        assert (execution.status, execution.output) == (ExecutionStatus.COMPLETED, "charged")
        assert bank.calls == [{"amount": 7}] * 4
        assert chat.calls == [{"text": "charged"}]
        assert [call.call.operation for call in test.calls] == ["bank.charge"] * 4 + ["chat.say"]
    assert execution.duration_seconds is not None
    assert execution.duration_seconds >= (2 + 4 + 8) * 86_400
    assert time.monotonic() - began < 30


def test_it_puts_back_what_it_replaced() -> None:
    """At the end of the block the real action is called again."""
    kernel = make()
    with WorkflowTest(kernel) as test:
        test.replace("chat.say", "fake")
        assert kernel.invoke("chat.say", {"text": "a"}) == "fake"
    with pytest.raises(AutomateError, match="called for real"):
        kernel.invoke("chat.say", {"text": "a"})


def test_only_what_is_allowed_is_called() -> None:
    """Everything else fails, without a call and without another attempt."""
    kernel = make()
    with WorkflowTest(kernel) as test:
        test.allow_only()
        execution = test.run("patient", {"amount": 7})
        assert "doesn't replace 'bank.charge'" in str(execution.error)
        run = execution.step("call")
        assert run is not None
        assert run.attempts == 1
        with pytest.raises(AutomateError, match="did you mean 'chat.say'"):
            test.allow_only("chat.sya")
    with pytest.raises(AutomateError, match="called for real"):
        kernel.invoke("chat.say", {"text": "a"})


def test_time_passes_piece_by_piece() -> None:
    """What is due within it happens, and nothing after it."""
    with WorkflowTest(make()) as test:
        bank = test.replace("bank.charge", BUSY)
        (execution,) = test.emit("go", {"amount": 1})
        assert len(bank.calls) == 1
        test.pass_time("1d")
        assert len(bank.calls) == 1
        test.pass_time(timedelta(days=1.1))
        assert len(bank.calls) == 2
        test.pass_time(86_400)
        assert len(bank.calls) == 2
        assert test.finish(execution).status is ExecutionStatus.FAILED
        assert len(bank.calls) == 4


def test_a_storage_with_a_clock_of_its_own() -> None:
    """Its clock is moved, and no other."""
    clock = FakeClock()
    began = clock()
    with WorkflowTest(make(MemoryStorage(clock)), clock=clock) as test:
        test.replace("bank.charge", [BUSY, "charged"])
        test.replace("chat.say")
        assert test.run("patient", {"amount": 7}).status is ExecutionStatus.COMPLETED
    assert timedelta(days=2) <= clock() - began < timedelta(days=2, seconds=1)


def test_a_storage_whose_time_nobody_moves_is_refused(sqlite_engine: Any) -> None:
    """The remedy stands in the error."""
    from automate_sqlalchemy import SqlAlchemyStorage

    with pytest.raises(ConfigError, match="can't be skipped.*MemoryStorage"):
        WorkflowTest(make(SqlAlchemyStorage(sqlite_engine)))
    clock = FakeClock()
    storage = SqlAlchemyStorage(sqlite_engine, clock=clock)
    with WorkflowTest(make(storage), clock=clock) as test:
        test.replace("bank.charge", [BUSY, "charged"])
        test.replace("chat.say")
        assert test.run("patient", {"amount": 7}).output == "charged"


def test_timeouts_of_workflows_end_in_skipped_time() -> None:
    """A workflow's timeout counts the time that it waits."""
    kernel = make()
    kernel.add_workflow({**PATIENT, "name": "hasty", "timeout": "3d"})
    with WorkflowTest(kernel) as test:
        bank = test.replace("bank.charge", BUSY)
        execution = test.run("hasty", {"amount": 1})
    assert (execution.status, execution.error_code) == ("FAILED", "DEADLINE_EXCEEDED")
    assert len(bank.calls) == 2


def test_schedules_fire_when_time_passes() -> None:
    """A pass of time fires the newest missed time of a schedule."""
    clock = FakeClock()
    kernel = make(MemoryStorage(clock))
    kernel.add_workflow(
        {
            "name": "nightly",
            "trigger": {"type": "schedule", "every": "1d"},
            "steps": [{"id": "a", "action": "chat.say", "input": {"text": "hi"}}],
        }
    )
    with WorkflowTest(kernel, clock=clock) as test:
        chat = test.replace("chat.say")
        test.pass_time("1h")
        test.pass_time("3d")
        assert len(chat.calls) == 1
        test.pass_time("1d")
        assert len(chat.calls) == 2


def test_what_never_ends_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a test that hangs."""
    monkeypatch.setattr("automate_testing.workflows.kit._MOST_SKIPS", 50)
    kernel = Kernel(discover=False)

    @kernel.handler("tick")
    def tick(item: Any) -> None:
        kernel.outbox.enqueue("tick", delay=1.0)

    kernel.outbox.enqueue("tick")
    with pytest.raises(AutomateError, match="still goes on"), WorkflowTest(kernel) as test:
        test.pass_time("365d")


def test_memory_skips_time() -> None:
    """The storage's clock goes on from there."""
    storage = MemoryStorage()
    with storage.begin() as rows:
        before = rows.now()
    storage.skip(3600)
    storage.skip(3600)
    with storage.begin() as rows:
        passed = rows.now() - before
    assert timedelta(hours=2) <= passed < timedelta(hours=2, minutes=5)


def test_a_misspelt_action_fails_at_once() -> None:
    """No other worker is there that could know it: nothing is handed over and waited for."""
    kernel = make()
    steps = [{"id": "tell", "action": "chat.sai"}]
    trigger = {"type": "event", "event": "talk"}
    kernel.add_workflow({"name": "misspelt", "trigger": trigger, "steps": steps})
    with WorkflowTest(kernel) as test:
        for allowed in (False, True):
            if allowed:
                test.allow_only()
            execution = test.run("misspelt")
            (emitted,) = test.emit("talk")
            for one in (execution, emitted):
                assert one.status is ExecutionStatus.FAILED
                assert "did you mean 'chat.say'" in (one.error or "")
    kernel.start("misspelt")
    kernel.run_until_idle()
    assert kernel.outbox.handed_over()  # elsewhere others may know it


def test_functions_and_ids_are_taken_as_elsewhere() -> None:
    kernel = make()

    @kernel.workflow
    async def waiting(ctx: WorkflowContext, days: int) -> int:
        await ctx.sleep(f"{days}d")
        return days

    with WorkflowTest(kernel) as test:
        assert test.run(waiting, 3).output == 3
        assert test.finish(test.start(waiting, 2).id).output == 2
