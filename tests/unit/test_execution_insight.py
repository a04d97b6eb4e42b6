"""What can be told of an execution: times in signals, where an error was, what a step was given."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import pytest
from automate_kernel import signals
from automate_kernel.base.errors import AutomateError, ErrorCodes, TemplateError, WorkflowError
from automate_kernel.kernel import Kernel
from automate_kernel.storage import MemoryStorage
from automate_testing.clock import FakeClock
from automate_kernel.workflows.decide.activation import Activation
from automate_kernel.workflows.decide.advance import advance
from automate_kernel.workflows.decide.turn import CallOutcome
from automate_kernel.workflows.execution import Event, Execution, ExecutionStatus, StepStatus
from automate_kernel.workflows.decide.program import step_input
from automate_kernel.workflows.definition.model import Workflow
from defined import see


@pytest.fixture
def kernel(clock: FakeClock) -> Iterator[Kernel]:
    secrets = {"TOKEN": "tok-7788-abcd"}
    with Kernel(MemoryStorage(clock), discover=False, secrets=secrets) as kernel:
        yield kernel


def run(kernel: Kernel, *steps: dict[str, Any], payload: Any = None, **options: Any) -> Execution:
    kernel.add_workflow({"name": "w", "trigger": {"type": "manual"}, "steps": steps, **options})
    return kernel.run("w", payload)


def again(kernel: Kernel, execution: Execution) -> Execution:
    kernel.run_until_idle()
    found = see(kernel, execution.id)
    return found


def test_signals_tell_when(kernel: Kernel) -> None:
    """A receiver sees when a step began and ended, and how long the execution took."""
    seen: dict[str, Any] = {}

    def note(name: str) -> Any:
        def receive(sender: Any, execution: Execution, step: Any = None, **_: Any) -> None:
            seen[name] = (
                (step.started_at, step.completed_at) if step else execution.duration_seconds
            )

        return receive

    receivers = {
        name: note(name) for name in ("step_started", "step_completed", "workflow_completed")
    }
    kernel.action("do.it")(lambda: None)
    for name, receiver in receivers.items():
        getattr(signals, name).connect(receiver)
    execution = run(kernel, {"id": "a", "action": "do.it"})
    assert execution.created_at is not None
    started, ended = seen["step_started"]
    assert (started is not None, ended) == (True, None)
    assert seen["step_completed"][0] == started <= seen["step_completed"][1]
    assert (started - execution.created_at).total_seconds() < 60
    assert seen["workflow_completed"] is not None


# -- where it went wrong ---------------------------------------------------------------------------


def test_a_failed_step_tells_where(kernel: Kernel) -> None:
    """The trace begins in the host's code, and shows no value."""

    def deeper(text: str) -> None:
        raise ValueError(f"no such thing: {text}")

    @kernel.action("do.it")
    def act(text: str) -> None:
        deeper(text)

    execution = run(
        kernel, {"id": "a", "action": "do.it", "input": {"text": "Bearer $secret:TOKEN"}}
    )
    (step,) = execution.steps
    assert step.status is StepStatus.FAILED
    first, *_ = (step.trace or "").splitlines()
    assert first.endswith("in act")
    assert "in deeper" in (step.trace or "")
    assert "automate_kernel" not in (step.trace or "")
    assert "tok-7788" not in f"{step.trace}{step.error}"


def test_a_retry_that_works_leaves_no_trace(kernel: Kernel) -> None:
    """A step that is done has no error and no trace of one."""
    attempts = []

    @kernel.action("do.it")
    def act() -> None:
        attempts.append(1)
        if len(attempts) == 1:
            raise ConnectionError("not now")

    retry = {"attempts": 2, "delay": 0, "jitter": False}
    (step,) = run(kernel, {"id": "a", "action": "do.it", "retry": retry}).steps
    assert (step.status, step.attempts, step.error, step.trace) == (
        StepStatus.COMPLETED, 2, None, None,
    )  # fmt: skip


def test_what_the_kernel_refuses_has_no_trace(kernel: Kernel) -> None:
    """An input that doesn't fit is told in words: our own frames help nobody."""
    kernel.action("do.it")(_typed)
    (step,) = run(kernel, {"id": "a", "action": "do.it", "input": {"n": "x"}}).steps
    assert step.error_code == "INVALID_ARGUMENT"
    assert step.trace is None


def _typed(n: int) -> int:
    return n


# -- what a step was given -------------------------------------------------------------------------


def test_the_input_of_a_step_is_put_together_again(kernel: Kernel) -> None:
    """As its templates gave it, for an element too, with a secret as its name."""
    kernel.action("do.it")(lambda **given: given.get("n", 0) + 1)
    execution = run(
        kernel,
        {"id": "a", "action": "do.it", "input": {"n": "{{ event.payload }}"}},
        {
            "id": "b",
            "action": "do.it",
            "for_each": "{{ [10, 20] }}",
            "input": {"n": "{{ item + steps.a.output }}", "key": "Bearer $secret:TOKEN"},
        },
        payload=1,
    )
    program = kernel.workflows.program(execution.definition_id)
    assert step_input(program, execution, "a") == {"n": 1}
    assert step_input(program, execution, "b", 1) == {"n": 22, "key": "Bearer [secret TOKEN]"}
    with pytest.raises(AutomateError) as caught:
        step_input(program, execution, "b", 2)
    assert caught.value.code is ErrorCodes.NOT_FOUND
    with pytest.raises(WorkflowError):
        step_input(program, execution, "c")


def test_an_input_that_can_not_be_rendered_says_why(kernel: Kernel) -> None:
    """As it did when the step failed by it."""
    kernel.action("do.it")(lambda: None)
    execution = run(kernel, {"id": "a", "action": "do.it", "input": {"n": "{{ event.payload.x }}"}})
    with pytest.raises(TemplateError):
        step_input(kernel.workflows.program(execution.definition_id), execution, "a")


# -- going on from a step --------------------------------------------------------------------------


def test_an_execution_goes_on_from_a_chosen_step(kernel: Kernel) -> None:
    """That step and what follows from it are done again, and nothing else is."""
    made: list[str] = []

    @kernel.action("note.it")
    def note(name: str) -> None:
        made.append(name)

    steps = [
        {"id": name, "action": "note.it", "input": {"name": name}, "needs": needs}
        for name, needs in {"a": [], "b": ["a"], "c": [], "d": ["b"]}.items()
    ]
    execution = run(kernel, *steps)
    assert sorted(made) == ["a", "b", "c", "d"]
    made.clear()
    assert not kernel.executions.resume(execution.id)
    assert kernel.executions.resume(execution.id, step_id="b")
    waiting = see(kernel, execution.id)
    assert (waiting.status, waiting.completed_at) == (ExecutionStatus.PENDING, None)
    assert again(kernel, execution).status is ExecutionStatus.COMPLETED
    assert made == ["b", "d"]


def test_going_on_from_a_step_that_there_is_not_changes_nothing(kernel: Kernel) -> None:
    """The execution stays as it ended."""
    kernel.action("do.it")(lambda: 7)
    execution = run(kernel, {"id": "a", "action": "do.it"}, output="{{ steps.a.output }}")
    with pytest.raises(WorkflowError, match="no step 'b' to go on from"):
        kernel.executions.resume(execution.id, step_id="b")
    assert again(kernel, execution).output == 7
    assert not kernel.executions.resume("01890000-0000-7000-8000-000000000000", step_id="a")


def test_followers() -> None:
    """A step and all that wait for it, directly or not, in order; recovery steps are none."""
    workflow = Workflow.model_validate(
        {
            "name": "w",
            "trigger": {"type": "manual"},
            "steps": [
                {"id": "d", "action": "x.y", "needs": ["b", "c"]},
                {"id": "a", "action": "x.y", "needs": []},
                {"id": "b", "action": "x.y", "needs": ["a"]},
                {"id": "c", "action": "x.y", "needs": []},
            ],
            "on_failure": [{"id": "undo", "action": "x.y"}],
        }
    )
    assert workflow.followers("a") == ("a", "b", "d")
    assert workflow.followers("d") == ("d",)
    with pytest.raises(WorkflowError, match="undo"):
        workflow.followers("undo")


# -- many elements ---------------------------------------------------------------------------------


def cost(kernel: Kernel, elements: int, concurrency: int) -> int:
    """How many calls of Python functions it takes to drive a for_each over a for_each."""
    steps = [
        {
            "id": "a",
            "action": "x.y",
            "for_each": "{{ event.payload }}",
            "input": {"v": "{{ item }}"},
        },
        {"id": "b", "action": "x.y", "for_each": "{{ steps.a.output }}"},
    ]
    workflow = Workflow.model_validate(
        {
            "name": "w",
            "trigger": {"type": "manual"},
            "steps": [{**step, "concurrency": concurrency} for step in steps],
        }
    )
    kernel.workflows._current.clear()
    kernel.add_workflow(workflow)
    program = kernel.workflows.program(workflow.hash())
    execution = Execution(
        id="e", name="w", definition_id="d",
        event=Event(id="v", name="w", payload=list(range(elements))),
    )  # fmt: skip
    calls = 0

    def count(frame: Any, what: str, argument: Any) -> None:
        nonlocal calls
        calls += what == "call"

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        flow = advance(
            program, Activation(execution=execution, waits={}, now=datetime.now(timezone.utc))
        )
        turn = next(flow)
        in_flight = list(turn.calls)
        while not turn.last:
            call = in_flight.pop()
            turn = flow.send(([CallOutcome(call, call.run.position)], 0.0))
            in_flight += turn.calls
    finally:
        sys.setprofile(before)
    assert turn.end is ExecutionStatus.COMPLETED
    return calls


@pytest.mark.parametrize("concurrency", [1, 50])
def test_work_grows_with_the_elements_and_not_with_their_square(
    kernel: Kernel, concurrency: int
) -> None:
    """Four times the elements take about four times the work."""
    small = cost(kernel, 100, concurrency)
    assert cost(kernel, 400, concurrency) < 5 * small
