"""A worker calls the receivers of signals beside the executions, in order, with copies."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from machines import no_more_threads
from workers import working
from waiting import PATIENCE, Gate, until
from automate_kernel import signals
from automate_kernel.kernel import Kernel
from automate_kernel.storage import MemoryStorage
from automate_testing.clock import FakeClock
from automate_kernel.workflows.drive.signal_sender import SignalSender, ExecutionCopies
from automate_kernel.workflows.execution import (
    Event,
    Execution,
    ExecutionStatus,
    StepRun,
    StepStatus,
)
from blinker import Namespace

SOMETHING = Namespace().signal("something")


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with Kernel(discover=False) as kernel:

        @kernel.action("do.it")
        def do(n: int) -> int:
            if n < 0:
                raise ValueError("no such number")
            return n

        steps = [
            {"id": f"s{at}", "action": "do.it", "input": {"n": "{{ event.payload }}"}}
            for at in range(3)
        ]
        kernel.add_workflow({"name": "w", "trigger": {"type": "manual"}, "steps": steps})
        yield kernel


def status(kernel: Kernel, execution_id: str) -> ExecutionStatus:
    execution = kernel.executions.get(execution_id)
    assert execution is not None
    return execution.status


def test_a_slow_receiver_holds_up_no_execution(kernel: Kernel) -> None:
    """While it takes its time, executions go on to their ends."""
    gate, entered = Gate(), Gate()

    def slow(sender: Any, **_: Any) -> None:
        entered.set()
        gate.pass_()

    with signals.workflow_started.connected_to(slow, sender=kernel), working(kernel):
        ids = [kernel.start("w", n) for n in range(20)]
        entered.pass_()
        until(lambda: all(status(kernel, one) is ExecutionStatus.COMPLETED for one in ids))
        gate.set()


def test_signals_come_in_order_with_what_was_then(kernel: Kernel) -> None:
    """A receiver that reads an execution late sees the one that its signal is about."""
    heard: list[tuple[str, Execution, Any]] = []
    with ExitStack() as stack:
        for signal in signals.ALL_SIGNALS[1:]:

            def note(sender: Any, name: str = signal.name, **arguments: Any) -> None:
                heard.append((name, arguments["execution"], arguments.get("step")))
                time.sleep(0.001)

            stack.enter_context(signal.connected_to(note, sender=kernel))
        with working(kernel):
            kernel.start("w", 1)
            until(lambda: heard and heard[-1][0] == "workflow_completed")
    assert [name for name, _, _ in heard] == [
        "workflow_started", *["step_started", "step_completed"] * 3, "workflow_completed",
    ]  # fmt: skip
    for number, (name, execution, step) in enumerate(heard):
        done = [run for run in execution.steps if run.status is StepStatus.COMPLETED]
        assert len(done) == number // 2
        if step is not None:
            assert step in execution.steps
            assert (step.status is StepStatus.COMPLETED) is (name == "step_completed")
            assert (step.completed_at is not None) is (name == "step_completed")
    # The last step is saved together with the end.
    ended = [one.status is ExecutionStatus.COMPLETED for _, one, _ in heard]
    assert ended == [False] * 6 + [True] * 2


def test_all_signals_are_sent_before_a_worker_has_stopped(kernel: Kernel) -> None:
    """What happened before the stop is announced, though receivers are slow."""
    heard: list[str] = []

    def slow(sender: Any, execution: Execution, **_: Any) -> None:
        time.sleep(0.02)
        heard.append(execution.id)

    with signals.workflow_completed.connected_to(slow, sender=kernel):
        with working(kernel):
            ids = [kernel.start("w", n) for n in range(20)]
            until(lambda: all(status(kernel, one) is ExecutionStatus.COMPLETED for one in ids))
        assert sorted(heard) == sorted(ids)


def test_a_failing_receiver_changes_no_outcome(kernel: Kernel) -> None:
    """Whatever it raises, executions end and the signals after it are sent."""
    heard: list[str] = []

    def bad(sender: Any, **_: Any) -> None:
        raise SystemExit(3)

    def good(sender: Any, execution: Execution, error: Any) -> None:
        heard.append(str(error))

    with (
        signals.step_started.connected_to(bad, sender=kernel),
        signals.workflow_failed.connected_to(good, sender=kernel),
        working(kernel),
    ):
        execution_id = kernel.start("w", -1)
        until(lambda: heard)
        assert status(kernel, execution_id) is ExecutionStatus.FAILED
    assert "no such number" in heard[0]


def test_nothing_is_lost_when_receivers_are_too_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """With too many signals waiting, who sends one waits too."""
    monkeypatch.setattr("automate_kernel.workflows.drive.signal_sender._MOST_WAITING", 2)
    gate, heard, signal_sender = Gate(), [], SignalSender()

    def slow(sender: Any, number: int) -> None:
        gate.pass_()
        heard.append(number)

    def send_all() -> None:
        for number in range(10):
            signal_sender.send(SOMETHING, None, number=number)

    with SOMETHING.connected_to(slow):
        sending = threading.Thread(target=send_all, daemon=True)
        sending.start()
        until(signal_sender._waiting.full)
        assert sending.is_alive()
        gate.set()
        sending.join(PATIENCE)
        signal_sender.stop(PATIENCE)
    assert heard == list(range(10))


@pytest.mark.parametrize("later", [[], [2]], ids=["at the end", "with the next one"])
def test_signals_wait_until_the_machine_has_a_thread_for_them(later: list[int]) -> None:
    """None is lost, and nothing waits for ever once there are many."""
    signal_sender, heard = SignalSender(), list[int]()

    def note(sender: Any, number: int) -> None:
        heard.append(number)

    with SOMETHING.connected_to(note):
        with no_more_threads(signals.THREAD):
            signal_sender.send(SOMETHING, None, number=1)
        for number in later:
            signal_sender.send(SOMETHING, None, number=number)
        signal_sender.stop(PATIENCE)
    assert heard == [1, *later]


def test_signals_of_large_executions_do_not_fill_the_memory() -> None:
    """Each has a list of all steps: fewer of them wait than of small ones."""
    done = StepStatus.COMPLETED
    steps = [
        StepRun(execution_id="e", step_id="each", position=position, status=done)
        for position in range(20_000)
    ]
    event = Event(id="1", name="w", type="manual")
    execution = Execution(id="e", name="w", definition_id="d", event=event, steps=steps)
    snapshots, signal_sender, gate = ExecutionCopies(execution), SignalSender(), Gate()
    sent = [0]

    def hang(sender: Any, execution: Execution) -> None:
        gate.pass_()

    def send_all() -> None:
        for _ in range(400):
            signal_sender.send(SOMETHING, None, execution=snapshots.take())
            sent[0] += 1

    with SOMETHING.connected_to(hang):
        sending = threading.Thread(target=send_all, daemon=True)
        sending.start()
        until(lambda: signal_sender._waiting.full() or not sending.is_alive())
        held = sent[0] * len(steps)
        gate.set()
        sending.join(PATIENCE)
        signal_sender.stop(PATIENCE)
    assert held < 2_000_000
    assert sent == [400]


def test_a_receiver_that_hangs_does_not_hold_up_a_stop(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """After its time the rest is dropped, and somebody hears of it."""
    monkeypatch.setattr("automate_kernel.workflows.drive.signal_sender._MOST_WAITING", 2)
    gate, entered, signal_sender = Gate(), Gate(), SignalSender()

    def hangs(sender: Any) -> None:
        entered.set()
        gate.pass_()

    with SOMETHING.connected_to(hangs):
        for _ in range(3):
            signal_sender.send(SOMETHING, None)
            entered.pass_()
        signal_sender.stop(0.05)
        signal_sender.send(SOMETHING, None)
    gate.set()
    assert "a receiver takes too long" in caplog.text
    assert "is not sent" in caplog.text


def test_a_slow_receiver_holds_up_no_schedule() -> None:
    """A start that a schedule skips is announced beside what a worker does every second."""
    clock = FakeClock()
    kernel = Kernel(MemoryStorage(clock), discover=False, secrets={})
    gate, entered = Gate(), Gate()
    for name, overlap in (("stuck", "skip"), ("other", "allow")):
        kernel.add_workflow(
            {
                "name": name,
                "trigger": {"type": "schedule", "every": "10m", "overlap": overlap},
                "steps": [{"id": "wait", "wait_for": {"signal": "go"}}],
            }
        )

    def slow(sender: Any, **_: Any) -> None:
        entered.set()
        gate.pass_()

    def begun() -> int:
        return len(kernel.executions.find(workflow="other"))

    kernel.run_until_idle()  # sees the schedules for the first time
    with signals.workflow_skipped.connected_to(slow, sender=kernel), working(kernel):
        for n in (1, 2, 3):
            clock.advance(600)
            until(lambda n=n: begun() == n)
        entered.pass_()
        gate.set()
    kernel.close()
