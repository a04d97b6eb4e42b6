"""Signals tell what has happened, after it has, and change nothing."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from automate_kernel import signals
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.kernel import Kernel
from automate_kernel.workflows.execution import ExecutionStatus
from blinker import Namespace

SOMETHING = Namespace().signal("something")


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with Kernel(discover=False, secrets={}) as kernel:

        @kernel.action("do.it")
        def do(n: int = 0) -> int:
            if n < 0:
                raise AutomateError(ErrorCodes.NOT_FOUND, "no such number")
            return n

        yield kernel


class Listening(ExitStack):
    """Notes every signal of a kernel."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__()
        self.heard: list[tuple[str, dict[str, Any]]] = []
        for signal in signals.ALL_SIGNALS:

            def note(sender: Any, name: str = signal.name, **arguments: Any) -> None:
                self.heard.append((name, arguments))

            self.enter_context(signal.connected_to(note, sender=kernel))

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.heard]


def run(kernel: Kernel, *numbers: int, **options: Any) -> None:
    steps = [{"id": f"s{at}", "action": "do.it", "input": {"n": n}} for at, n in enumerate(numbers)]
    trigger = {"type": "event", "event": "go"}
    kernel.add_workflow({"name": "w", "trigger": trigger, "steps": steps, **options})
    kernel.emit("go")
    kernel.run_until_idle()


def test_all_signals_of_a_workflow_that_completes(kernel: Kernel) -> None:
    """They come in order, each once, with the event, execution and step that they are about."""
    with Listening(kernel) as listening:
        run(kernel, 1, 2)
    assert listening.names == [
        "event_received",
        "workflow_started", "step_started", "step_completed", "step_started", "step_completed",
        "workflow_completed",
    ]  # fmt: skip
    by_name = dict(listening.heard)
    assert by_name["event_received"]["event"].name == "go"
    assert by_name["step_completed"]["step"].output == 2
    assert by_name["workflow_completed"]["execution"].status is ExecutionStatus.COMPLETED


def test_all_signals_of_a_workflow_that_fails(kernel: Kernel) -> None:
    """Failures come with their error, and a workflow fails once, after its recovery."""
    recovery = {"id": "undo", "action": "do.it"}
    with Listening(kernel) as listening:
        run(kernel, -1, 2, on_failure=[recovery])
    assert listening.names[2:] == [
        "step_started", "step_failed", "step_started", "step_completed", "workflow_failed",
    ]  # fmt: skip
    by_name = dict(listening.heard)
    assert by_name["step_failed"]["error"].code is ErrorCodes.NOT_FOUND
    assert by_name["workflow_failed"]["error"].message == "step 's0' failed: no such number"


def test_a_signal_comes_after_the_commit(kernel: Kernel) -> None:
    """A receiver that looks sees what the signal says."""
    seen = []

    def look(sender: Kernel, execution: Any, step: Any) -> None:
        stored = sender.executions.get(execution.id)
        assert stored is not None
        run = stored.step(step.step_id)
        seen.append(run and run.status == step.status)

    with signals.step_completed.connected_to(look, sender=kernel):
        run(kernel, 1, 2)
    assert seen == [True, True]


def test_a_failing_receiver_changes_nothing(
    kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, the next receiver is called, and the workflow completes."""
    heard = []

    def fail(sender: Any, **_: Any) -> None:
        raise ValueError("no good")

    def note(sender: Any, **_: Any) -> None:
        heard.append(1)

    with ExitStack() as stack:
        for signal in signals.ALL_SIGNALS:
            stack.enter_context(signal.connected_to(fail, sender=kernel))
            stack.enter_context(signal.connected_to(note, sender=kernel))
        run(kernel, 1)
    (execution,) = kernel.executions.find()
    assert execution.status is ExecutionStatus.COMPLETED
    assert len(heard) == 5
    assert "receiver" in caplog.text


def test_a_receiver_of_another_kernel_hears_nothing(kernel: Kernel) -> None:
    """The sender is the kernel, so two of them in one process are kept apart."""
    with Kernel(discover=False, secrets={}) as other, Listening(other) as listening:
        run(kernel, 1)
    assert listening.heard == []


def test_emit_returns_the_errors_and_goes_on() -> None:
    """All receivers are called, and the errors of those that failed come back."""
    heard = []

    def fail(sender: Any, n: int) -> None:
        raise ValueError(n)

    def note(sender: Any, n: int) -> None:
        heard.append((sender, n))

    with SOMETHING.connected_to(fail), SOMETHING.connected_to(note):
        (error,) = signals.emit(SOMETHING, "me", n=3)
    assert isinstance(error, ValueError)
    assert heard == [("me", 3)]
    assert signals.emit(SOMETHING, "me", n=3) == []


def test_async_receivers(caplog: pytest.LogCaptureFixture) -> None:
    """They are run to their end: here without a loop, and as a task where one runs."""
    heard = []

    async def note(sender: Any, fails: bool = False) -> None:
        await asyncio.sleep(0)
        heard.append(threading.current_thread().name)
        if fails:
            raise ValueError("no good")

    async def inside() -> None:
        signals.emit(SOMETHING, "me")
        assert len(heard) == 1
        await asyncio.gather(*signals._running)
        assert len(heard) == 2

    with SOMETHING.connected_to(note), caplog.at_level(logging.ERROR):
        assert signals.emit(SOMETHING, "me") == []
        assert len(heard) == 1
        asyncio.run(inside())
        assert signals.emit(SOMETHING, "me", fails=True) == []
    assert "async receiver" in caplog.text
