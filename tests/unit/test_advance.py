"""
What an execution does next: every rule of the model, and random workflows on top.

`World` drives `advance` as a worker does, but holds the calls in its hands: a test says which of
them ends next, and with what, and when the worker dies.
"""

from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

import pytest
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.templates import EnvironmentResolver, TemplateContext, TemplateEngine
from automate_kernel.workflows.decide.agenda import Waits
from automate_kernel.workflows.decide.activation import Activation
from automate_kernel.workflows.decide.advance import advance
from automate_kernel.workflows.decide.turn import CallOutcome, StepCall, Turn
from automate_kernel.workflows.execution import (
    Event,
    Execution,
    ExecutionStatus,
    StepRun,
    StepStatus,
)
from automate_kernel.workflows.definition.model import Workflow
from automate_kernel.workflows.decide.program import WorkflowProgram
from example_counts import examples
from hypothesis import given, settings
from hypothesis import strategies as st

ENGINE = TemplateEngine()
NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
ENVIRONMENT = EnvironmentResolver(())
TRIGGER = {"type": "manual"}
COMPLETED, FAILED, SKIPPED = StepStatus.COMPLETED, StepStatus.FAILED, StepStatus.SKIPPED
Key = tuple[str, int]


def context(event: Any, execution: Any, steps: Any, extra: Any) -> TemplateContext:
    return TemplateContext(event, execution, steps, ENVIRONMENT, extra)


def step(step_id: str, **options: Any) -> dict[str, Any]:
    return {"id": step_id, "action": options.pop("action", f"do.{step_id}"), **options}


def workflow(*steps: dict[str, Any], **options: Any) -> Workflow:
    return Workflow.model_validate(
        {"name": "w", "trigger": TRIGGER, "steps": list(steps), **options}
    )


def fails(code: ErrorCodes = ErrorCodes.NOT_FOUND, **options: Any) -> AutomateError:
    return AutomateError(code, "it broke", **options)


class World:
    """An execution, the rows that were saved of it, and the calls that nobody has ended yet."""

    def __init__(self, definition: Workflow, payload: Any = None, timeout: float | None = None):
        self.program = WorkflowProgram(definition, ENGINE, context)
        self.workflow = definition
        self.timeout = timeout
        self.row = Execution(
            id="e1", name="w", definition_id="d1", event=Event(id="v1", name="w", payload=payload)
        )
        self.rows: dict[Key, StepRun] = {}
        self.due: dict[Key, float] = {}
        self.now = 0.0
        self.made: list[StepCall] = []
        self.log: list[tuple[str, int, int]] = []
        self.calls: dict[Key, StepCall] = {}
        self.turn: Turn | None = None
        self.crashes = 0
        self.wake()

    # -- what a worker does --------------------------------------------------------------------

    def wake(self) -> Turn:
        """Begin from what was saved, as a worker that has claimed the execution does."""
        self.calls = {}
        execution = copy.deepcopy(self.row)
        execution.steps = [copy.deepcopy(run) for run in self.rows.values()]
        self.execution = execution
        waits = {
            key: self.due[key] - self.now
            for key, run in self.rows.items()
            if run.status is StepStatus.RETRY
        }
        left = None if self.timeout is None else self.timeout - self.now
        activation = Activation(
            execution=execution, waits=waits, left=left, crashes=self.crashes, now=NOW
        )
        self.flow = advance(self.program, activation)
        self.since = self.now
        return self._take(next(self.flow))

    def send(self, *outcomes: CallOutcome) -> Turn:
        elapsed, self.since = self.now - self.since, self.now
        return self._take(self.flow.send((outcomes, elapsed)))

    def _take(self, turn: Turn) -> Turn:
        self.turn = turn
        for run in turn.saves:
            key = (run.step_id, run.position)
            saved = self.rows.get(key)
            assert saved is None or not saved.status.finished, f"{key} was final already"
            self.rows[key] = copy.deepcopy(run)
            if run.status is StepStatus.RETRY:
                self.due[key] = self.now + turn.delays[key]
            if run.status.finished:
                self.crashes = 0
        self.row.error_code, self.row.error = self.execution.error_code, self.execution.error
        if turn.end is not None:
            assert not self.calls
            self.row.status, self.row.output = turn.end, turn.output
        for call in turn.calls:
            self._begin(call)
        assert turn.last or self.calls, "nothing in flight, and yet not the last turn"
        return turn

    def _begin(self, call: StepCall) -> None:
        key = (call.run.step_id, call.run.position)
        assert key not in self.calls, f"{key} is called twice at once"
        assert call.run.status is StepStatus.RUNNING
        for need in self.workflow.needs_of(call.step.id):
            assert self.rows[need, -1].status.finished, f"{key} begins before {need} has ended"
        self.calls[key] = call
        self.log.append((*key, call.run.attempts))
        running = sum(step_id == call.step.id for step_id, _ in self.calls)
        assert running <= call.step.concurrency

    def finish(self, step_id: str, result: Any = None, position: int = -1) -> Turn:
        """End one call with an output, or with an error."""
        call = self.calls.pop((step_id, position))
        if isinstance(result, AutomateError):
            return self.send(CallOutcome(call, error=result))
        return self.send(CallOutcome(call, result))

    def crash(self) -> Turn:
        """The worker dies, and another begins from what was saved."""
        self.crashes += 1
        return self.wake()

    def later(self, seconds: float) -> Turn:
        """Time passes until the execution is woken again."""
        self.now += seconds
        return self.wake()

    def note(self, step_id: str) -> None:
        """A call takes so long that its row is written while it runs."""
        self.rows[step_id, -1] = copy.deepcopy(self.calls[step_id, -1].run)

    # -- looking ---------------------------------------------------------------------------------

    @property
    def in_flight(self) -> list[str]:
        return [f"{key[0]}" if key[1] < 0 else f"{key[0]}[{key[1]}]" for key in self.calls]

    def status(self, step_id: str, position: int = -1) -> StepStatus | None:
        run = self.rows.get((step_id, position))
        return run and run.status

    def statuses(self) -> dict[str, str]:
        return {key: run.status.value for (key, position), run in self.rows.items() if position < 0}

    def input(self, step_id: str, position: int = -1) -> Any:
        return self.calls[step_id, position].input


# -- order ---------------------------------------------------------------------------------------


def test_a_step_without_needs_waits_for_the_one_before() -> None:
    """Steps without needs run one after the other, in the order of the list."""
    world = World(workflow(step("a"), step("b"), step("c")))
    seen = []
    while world.calls:
        assert len(world.calls) == 1
        seen += world.in_flight
        world.finish(seen[-1])
    assert seen == ["a", "b", "c"]
    assert world.row.status is ExecutionStatus.COMPLETED


def test_needs_and_no_needs() -> None:
    """Steps with empty needs begin at once; one that names two waits for both."""
    world = World(
        workflow(step("a"), step("b", needs=[]), step("c", needs=["a", "b"]), step("d", needs=[]))
    )
    assert world.in_flight == ["a", "b", "d"]
    world.finish("b")
    assert world.in_flight == ["a", "d"]
    world.finish("a")
    assert world.in_flight == ["d", "c"]


def test_a_step_runs_after_one_that_was_skipped() -> None:
    """Without needs a step starts once the one before has ended, even skipped."""
    world = World(workflow(step("a", **{"if": "{{ false }}"}), step("b")))
    assert world.in_flight == ["b"]
    assert world.status("a") is SKIPPED


def test_outputs_reach_later_steps() -> None:
    """A step's input sees the output of the steps that have ended, and the event."""
    world = World(
        workflow(
            step("a"), step("b", input={"n": "{{ steps.a.output.n + event.payload.n }}"}),
            output={"total": "{{ steps.b.output }}"},
        ),
        payload={"n": 2},
    )  # fmt: skip
    world.finish("a", {"n": 40})
    assert world.input("b") == {"n": 42}
    world.finish("b", 43)
    assert world.row.output == {"total": 43}


# -- skipping ------------------------------------------------------------------------------------


def test_skipping_spreads_through_explicit_needs() -> None:
    """Who names a skipped step in needs is skipped with it, unless it has an if of its own."""
    world = World(
        workflow(
            step("a", **{"if": "{{ event.payload.go }}"}),
            step("b", needs=["a"]),
            step("c", needs=["b"]),
            step("d", needs=["a"], **{"if": "{{ steps.a.status == 'SKIPPED' }}"}),
            step("e", needs=["a"], **{"if": "{{ steps.a.status == 'COMPLETED' }}"}),
        ),
        payload={"go": False},
    )
    assert world.in_flight == ["d"]
    world.finish("d")
    assert world.statuses() == {
        "a": "SKIPPED", "b": "SKIPPED", "c": "SKIPPED", "d": "COMPLETED", "e": "SKIPPED",
    }  # fmt: skip
    assert world.row.status is ExecutionStatus.COMPLETED


def test_the_output_of_a_skipped_step_is_null() -> None:
    """What was skipped has null as its output, for later steps and for the workflow's output."""
    world = World(
        workflow(
            step("a", **{"if": "{{ false }}"}),
            step("b", input={"was": "{{ steps.a.output }}"}),
            output="{{ steps.a.output }}",
        )
    )
    assert world.input("b") == {"was": None}
    world.finish("b")
    assert (world.row.status, world.row.output) == (ExecutionStatus.COMPLETED, None)


def test_a_condition_is_decided_when_its_turn_comes() -> None:
    """An if sees what the steps before have given."""
    world = World(workflow(step("a"), step("b", **{"if": "{{ steps.a.output > 1 }}"}), step("c")))
    world.finish("a", 1)
    assert (world.status("b"), world.in_flight) == (SKIPPED, ["c"])


def test_a_condition_is_not_asked_again_for_a_step_that_has_begun() -> None:
    """After a crash the step goes on, whatever its if would say by now."""
    definition = workflow(
        step("a", needs=[]),
        step("b", needs=[], **{"if": "{{ steps.a is not defined }}"}),
    )
    world = World(definition)
    world.finish("a", 1)
    world.crash()
    assert world.in_flight == ["b"]


def test_a_condition_that_can_not_be_rendered_fails_its_step() -> None:
    """A broken if is a failure of the step, and not of the worker."""
    world = World(workflow(step("a", **{"if": "{{ event.payload.missing.more }}"})), payload={})
    assert world.status("a") is FAILED
    assert world.row.status is ExecutionStatus.FAILED
    assert world.row.error_code == "INVALID_ARGUMENT"


# -- failing -------------------------------------------------------------------------------------


def test_a_failed_step_fails_the_workflow() -> None:
    """Nothing more begins, and the error names the step."""
    world = World(workflow(step("a"), step("b")))
    turn = world.finish("a", fails())
    assert turn.end is ExecutionStatus.FAILED
    assert world.statuses() == {"a": "FAILED"}
    assert (world.row.error_code, world.row.error) == ("NOT_FOUND", "step 'a' failed: it broke")


def test_what_runs_beside_a_failure_is_waited_for_and_saved() -> None:
    """A call in flight ends on its own, its result is kept, and it is not tried again."""
    world = World(
        workflow(step("a"), step("b", needs=[]), step("c", needs=[], retry={"attempts": 5}))
    )
    world.finish("a", fails())
    assert world.row.status is ExecutionStatus.PENDING
    world.finish("b", "kept")
    turn = world.finish("c", fails(ErrorCodes.UNAVAILABLE))
    assert turn.end is ExecutionStatus.FAILED
    assert world.rows["b", -1].output == "kept"
    assert world.statuses() == {"a": "FAILED", "b": "COMPLETED", "c": "FAILED"}


def test_continue_goes_on_with_null() -> None:
    """With on_failure: continue the step is FAILED, its output null, and the workflow goes on."""
    world = World(
        workflow(
            step("a", on_failure="continue"),
            step(
                "b",
                needs=["a"],
                input={"was": "{{ steps.a.output }}", "why": "{{ steps.a.error }}"},
            ),
        )
    )
    world.finish("a", fails())
    assert world.input("b") == {"was": None, "why": "it broke"}
    world.finish("b")
    assert world.row.status is ExecutionStatus.COMPLETED
    assert world.statuses() == {"a": "FAILED", "b": "COMPLETED"}


def test_retries_wait_and_end() -> None:
    """A failure that may pass is tried as often as the policy says, with its delays."""
    retry = {"attempts": 3, "backoff": "linear", "delay": 10, "jitter": False}
    world = World(workflow(step("a", retry=retry)))
    turn = world.finish("a", fails(ErrorCodes.UNAVAILABLE))
    assert (turn.wait, world.status("a")) == (10.0, StepStatus.RETRY)
    assert world.later(4).wait == 6.0
    world.later(6)
    assert world.calls["a", -1].run.attempts == 2
    assert world.finish("a", fails(ErrorCodes.UNAVAILABLE)).wait == 20.0
    world.later(20)
    assert world.finish("a", fails(ErrorCodes.UNAVAILABLE)).end is ExecutionStatus.FAILED
    assert world.rows["a", -1].attempts == 3


def test_a_permanent_failure_is_not_tried_again() -> None:
    """A code that can't pass spends no attempts, and neither does an error that says so."""
    for error in (
        fails(ErrorCodes.INVALID_ARGUMENT),
        fails(ErrorCodes.UNAVAILABLE, retryable=False),
    ):
        world = World(workflow(step("a", retry={"attempts": 5})))
        assert world.finish("a", error).end is ExecutionStatus.FAILED


def test_only_the_named_codes_are_tried_again() -> None:
    """With retry.on the codes decide alone."""
    retry = {"attempts": 5, "delay": 1, "jitter": False, "on": ["NOT_FOUND"]}
    world = World(workflow(step("a", retry=retry)))
    assert world.finish("a", fails(ErrorCodes.NOT_FOUND)).wait == 1.0
    world.later(1)
    assert world.finish("a", fails(ErrorCodes.UNAVAILABLE)).end is ExecutionStatus.FAILED


def test_retry_after_is_honoured() -> None:
    """What the other side asks for counts if it is longer than the policy's own delay."""
    retry = {"attempts": 5, "delay": 10, "jitter": False}
    for asked, waits in ((60.0, 60.0), (1.0, 10.0), (float("nan"), 10.0), (-5.0, 10.0)):
        world = World(workflow(step("a", retry=retry)))
        assert world.finish("a", fails(ErrorCodes.UNAVAILABLE, retry_after=asked)).wait == waits
    world = World(workflow(step("a", retry=retry)))
    waits = world.finish("a", fails(ErrorCodes.UNAVAILABLE, retry_after=float("inf"))).wait
    assert waits is not None
    assert 86_400 < waits < 1e10


def test_a_retry_beside_other_work_is_made_when_it_is_due() -> None:
    """While another call runs, the turn says when to come back for the retry."""
    world = World(
        workflow(step("a", retry={"attempts": 2, "delay": 5, "jitter": False}), step("b", needs=[]))
    )
    turn = world.finish("a", fails(ErrorCodes.UNAVAILABLE))
    assert (turn.next_retry, turn.last, world.in_flight) == (5.0, False, ["b"])
    world.now += 5
    world.send()
    assert world.in_flight == ["b", "a"]


def test_the_earliest_of_several_retries_counts() -> None:
    """An execution comes back for the retry that is due first, after a crash as well."""
    steps = [
        step(name, needs=[], retry={"attempts": 2, "delay": delay, "jitter": False})
        for name, delay in (("a", 30), ("b", 10), ("c", 20))
    ]
    world = World(workflow(*steps))
    for name in ("b", "c"):
        world.finish(name, fails(ErrorCodes.UNAVAILABLE))
    assert world.finish("a", fails(ErrorCodes.UNAVAILABLE)).wait == 10.0
    assert world.later(4).wait == 6.0
    world.later(6)
    assert world.in_flight == ["b"]
    turn = world.crash()
    assert (turn.next_retry, world.in_flight) == (10.0, ["b"])
    assert world.finish("b", "done").wait == 10.0


def test_a_broken_input_fails_the_step_alone() -> None:
    """An input that can't be rendered is that step's failure, which continue may pass over."""
    broken = {"x": "{{ event.payload.missing.more }}"}
    world = World(workflow(step("a", input=broken, on_failure="continue"), step("b")), payload={})
    assert (world.status("a"), world.in_flight) == (FAILED, ["b"])
    world = World(workflow(step("a", input=broken), step("b")), payload={})
    assert world.row.status is ExecutionStatus.FAILED


# -- the workflow's own timeout, and its output ---------------------------------------------------


def test_the_workflows_time_ends_while_it_waits() -> None:
    """A wait never goes past the workflow's timeout, and then the workflow has failed."""
    retry = {"attempts": 5, "delay": 60, "jitter": False}
    world = World(workflow(step("a", retry=retry), step("b")), timeout=40)
    world.now = 10
    assert world.finish("a", fails(ErrorCodes.UNAVAILABLE)).wait == 30.0
    world.later(30)
    assert world.row.status is ExecutionStatus.FAILED
    assert world.row.error_code == "DEADLINE_EXCEEDED"
    assert world.status("a") is StepStatus.CANCELLED


def test_the_workflows_time_ends_between_two_steps() -> None:
    """A step that took too long lets the next one not begin."""
    world = World(workflow(step("a"), step("b")), timeout=40)
    world.now = 41
    assert world.finish("a", "done").end is ExecutionStatus.FAILED
    assert world.statuses() == {"a": "COMPLETED"}


def test_the_last_step_may_end_late() -> None:
    """A workflow whose steps have all ended is not failed for the time that it took."""
    world = World(workflow(step("a")), timeout=40)
    world.now = 41
    assert world.finish("a", "done").end is ExecutionStatus.COMPLETED


def test_recovery_has_no_time_limit() -> None:
    """The steps under on_failure run, and wait for their retries, after the timeout too."""
    recovery = step("undo", retry={"attempts": 2, "delay": 5, "jitter": False})
    world = World(workflow(step("a"), step("b"), on_failure=[recovery]), timeout=40)
    world.now = 50
    world.finish("a")
    assert world.in_flight == ["undo"]
    assert world.finish("undo", fails(ErrorCodes.UNAVAILABLE)).wait == 5.0
    world.later(5)
    world.finish("undo")
    assert world.row.status is ExecutionStatus.FAILED


@pytest.mark.parametrize("output", ["{{ steps.a.output.missing }}", "{{ steps.a.output.nul }}"])
def test_an_output_that_can_not_be_given_fails_the_workflow(output: str) -> None:
    """It fails as any workflow does: with its error, and with its recovery steps."""
    world = World(workflow(step("a"), output=output, on_failure=[step("undo")]))
    world.finish("a", {"nul": "\x00"})
    assert world.in_flight == ["undo"]
    world.finish("undo")
    assert (world.row.status, world.row.output) == (ExecutionStatus.FAILED, None)
    assert world.row.error_code == "INVALID_ARGUMENT"


# -- recovery ------------------------------------------------------------------------------------


def test_recovery_steps_run_and_see_the_error() -> None:
    """When the workflow fails its on_failure steps run in order, with error among the names."""
    seen = {"code": "{{ error.code }}", "message": "{{ error.message }}"}
    world = World(workflow(step("a"), on_failure=[step("undo", input=seen), step("tell")]))
    world.finish("a", fails())
    assert world.in_flight == ["undo"]
    assert world.input("undo") == {"code": "NOT_FOUND", "message": "step 'a' failed: it broke"}
    world.finish("undo")
    assert world.in_flight == ["tell"]
    world.finish("tell")
    assert world.row.status is ExecutionStatus.FAILED


def test_recovery_does_not_run_after_success() -> None:
    """Steps under on_failure are for failures alone."""
    world = World(workflow(step("a"), on_failure=[step("undo")]))
    world.finish("a")
    assert world.row.status is ExecutionStatus.COMPLETED
    assert "undo" not in world.statuses()


def test_recovery_waits_for_what_still_runs() -> None:
    """Nothing is undone while something else is still being done."""
    world = World(workflow(step("a"), step("b", needs=[]), on_failure=[step("undo")]))
    world.finish("a", fails())
    assert world.in_flight == ["b"]
    world.finish("b")
    assert world.in_flight == ["undo"]


def test_recovery_after_an_input_that_can_not_be_rendered() -> None:
    """A failure without any call is recovered from too."""
    broken = step("a", input={"x": "{{ event.payload.missing.more }}"})
    world = World(workflow(broken, on_failure=[step("undo")]), payload={})
    assert world.in_flight == ["undo"]


def test_a_failing_recovery_changes_nothing() -> None:
    """The workflow's error stays the first one, and the next recovery step runs all the same."""
    world = World(workflow(step("a"), on_failure=[step("undo"), step("tell")]))
    world.finish("a", fails())
    world.finish("undo", fails(ErrorCodes.INTERNAL))
    assert world.in_flight == ["tell"]
    world.finish("tell")
    assert (world.row.status, world.row.error_code) == (ExecutionStatus.FAILED, "NOT_FOUND")


def test_recovery_goes_on_after_a_crash() -> None:
    """A worker that takes over a failing execution recovers it, and begins nothing else."""
    world = World(workflow(step("a"), step("b"), on_failure=[step("undo"), step("tell")]))
    world.finish("a", fails())
    world.finish("undo")
    world.crash()
    assert world.in_flight == ["tell"]
    world.finish("tell")
    assert world.row.status is ExecutionStatus.FAILED


def test_what_waits_is_cancelled_when_the_workflow_fails() -> None:
    """A retry that is waited for is not made any more."""
    retry = {"attempts": 5, "delay": 60, "jitter": False}
    world = World(workflow(step("a", retry=retry), step("b", needs=[])))
    world.finish("a", fails(ErrorCodes.UNAVAILABLE))
    assert world.finish("b", fails()).end is ExecutionStatus.FAILED
    assert world.statuses() == {"a": "CANCELLED", "b": "FAILED"}


# -- for_each --------------------------------------------------------------------------------------


def each(step_id: str = "a", **options: Any) -> dict[str, Any]:
    return step(step_id, for_each="{{ event.payload }}", **options)


def test_for_each_calls_once_per_element() -> None:
    """The action is called per item, one after the other, and the output is the list of outputs."""
    item = {"item": "{{ item }}", "index": "{{ index }}"}
    world = World(
        workflow(each(input=item), step("b", input={"all": "{{ steps.a.output }}"})),
        payload=["x", "y"],
    )
    assert world.in_flight == ["a[0]"]
    assert world.input("a", 0) == {"item": "x", "index": 0}
    world.finish("a", "X", 0)
    assert world.input("a", 1) == {"item": "y", "index": 1}
    world.finish("a", "Y", 1)
    assert world.input("b") == {"all": ["X", "Y"]}


def test_for_each_runs_as_many_at_once_as_it_may() -> None:
    """concurrency bounds the calls in flight, and outputs keep the order of the elements."""
    world = World(
        workflow(each(concurrency=2), output="{{ steps.a.output }}"), payload=[1, 2, 3, 4]
    )
    assert world.in_flight == ["a[0]", "a[1]"]
    world.finish("a", 20, 1)
    assert world.in_flight == ["a[0]", "a[2]"]
    for position in (2, 3, 0):
        world.finish("a", (position + 1) * 10, position)
    assert world.row.output == [10, 20, 30, 40]


def test_for_each_over_nothing_is_completed() -> None:
    """An empty list is no failure, and its output is an empty list."""
    world = World(workflow(each(), output="{{ steps.a.output }}"), payload=[])
    assert (world.status("a"), world.row.output) == (COMPLETED, [])


def test_for_each_over_something_else_fails() -> None:
    """What is no list is the step's failure."""
    world = World(workflow(each()), payload={"a": 1})
    assert world.row.status is ExecutionStatus.FAILED
    assert "not a list" in (world.row.error or "")


def test_for_each_fails_with_its_first_failed_element() -> None:
    """No further element begins, those in flight end, and the error names the element."""
    world = World(workflow(each(concurrency=2)), payload=[1, 2, 3])
    world.finish("a", fails(), 1)
    assert world.in_flight == ["a[0]"]
    world.finish("a", "kept", 0)
    assert (world.status("a"), world.status("a", 0), world.status("a", 2)) == (
        FAILED,
        COMPLETED,
        None,
    )
    assert world.row.error == "step 'a' failed: element 1: it broke"


def test_of_several_failed_elements_the_first_of_the_list_is_reported() -> None:
    """Whichever failed first: the same input gives the same error each time."""
    world = World(workflow(each(concurrency=2)), payload=[1, 2])
    world.finish("a", fails(), 1)
    world.finish("a", fails(), 0)
    assert world.row.error == "step 'a' failed: element 0: it broke"


@pytest.mark.parametrize("first", [0, 1])
def test_for_each_that_failed_leaves_no_retry_behind(first: int) -> None:
    """An element that waits for its retry is cancelled when another fails, and the workflow goes on."""
    retry = {"attempts": 5, "delay": 60, "jitter": False, "on": ["UNAVAILABLE"]}
    world = World(
        workflow(each(concurrency=2, retry=retry, on_failure="continue"), step("b")), payload=[1, 2]
    )
    results = [fails(ErrorCodes.UNAVAILABLE), fails()]
    for position in (first, 1 - first):
        world.finish("a", results[position], position)
    assert (world.status("a"), world.status("a", 0)) == (FAILED, StepStatus.CANCELLED)
    assert world.in_flight == ["b"]
    assert world.finish("b").end is ExecutionStatus.COMPLETED


def test_for_each_whose_element_has_a_broken_input() -> None:
    """An input that can't be rendered fails its element, and those in flight still end."""
    world = World(
        workflow(
            each(concurrency=2, input={"x": "{{ item.x }}"}, on_failure="continue",
                 retry={"attempts": 3, "delay": 60, "jitter": False}),
            step("b"),
        ),
        payload=[{"x": 1}, {}, {"x": 3}],
    )  # fmt: skip
    assert world.in_flight == ["a[0]"]
    world.finish("a", fails(ErrorCodes.UNAVAILABLE), 0)
    assert (world.status("a"), world.status("a", 0)) == (FAILED, StepStatus.CANCELLED)
    assert world.in_flight == ["b"]
    assert world.finish("b").end is ExecutionStatus.COMPLETED


def test_for_each_retries_each_element_on_its_own() -> None:
    """Attempts are counted per element, while the others go on."""
    retry = {"attempts": 2, "delay": 5, "jitter": False}
    world = World(workflow(each(concurrency=2, retry=retry)), payload=[1, 2, 3])
    turn = world.finish("a", fails(ErrorCodes.UNAVAILABLE), 0)
    assert world.in_flight == ["a[1]", "a[2]"]
    assert turn.next_retry == 5.0
    world.finish("a", 2, 1)
    assert world.finish("a", 3, 2).wait == 5.0
    world.later(5)
    world.finish("a", 1, 0)
    assert world.row.status is ExecutionStatus.COMPLETED


def test_for_each_is_skipped_as_a_whole() -> None:
    """An if on a step with for_each decides once, for all elements."""
    world = World(
        workflow(each(**{"if": "{{ false }}"}), output="{{ steps.a.output }}"), payload=[1]
    )
    assert (world.status("a"), world.row.output) == (SKIPPED, None)


def test_many_elements_take_time_in_proportion() -> None:
    """Two thousand elements are no burden: their runs are not searched for each other."""
    world = World(workflow(each(concurrency=50)), payload=list(range(2000)))
    while world.calls:
        (_, position), call = next(iter(world.calls.items()))
        world.finish("a", position, position)
    assert world.row.status is ExecutionStatus.COMPLETED


# -- crashes ---------------------------------------------------------------------------------------


def test_a_crash_repeats_what_was_in_flight_and_nothing_else() -> None:
    """Steps that were RUNNING are called again, with one attempt more; saved ones are not."""
    world = World(workflow(step("a"), step("b"), step("c", needs=["a"])))
    world.finish("a", 1)
    assert world.in_flight == ["b", "c"]
    world.crash()
    assert world.in_flight == ["b", "c"]
    assert world.log == [("a", -1, 1), ("b", -1, 1), ("c", -1, 1), ("b", -1, 2), ("c", -1, 2)]


def test_a_crash_in_the_middle_of_for_each() -> None:
    """The elements that were saved stay, and the rest is made."""
    world = World(workflow(each(concurrency=2), output="{{ steps.a.output }}"), payload=[1, 2, 3])
    world.finish("a", "two", 1)
    world.crash()
    assert world.in_flight == ["a[0]", "a[2]"]
    world.finish("a", "three", 2)
    world.finish("a", "one", 0)
    assert world.row.output == ["one", "two", "three"]


def test_a_crash_spends_an_attempt() -> None:
    """A step whose attempts are spent by crashes fails for good at its next failure."""
    world = World(workflow(step("a", retry={"attempts": 2})))
    world.crash()
    assert world.finish("a", fails(ErrorCodes.UNAVAILABLE)).end is ExecutionStatus.FAILED


def test_a_crash_after_the_failure_leaves_nothing_running() -> None:
    """What a dead worker was at when the workflow failed is not made again, but CANCELLED."""
    world = World(workflow(step("a"), step("b", needs=[]), on_failure=[step("undo")]))
    world.note("b")
    world.finish("a", fails())
    world.crash()
    assert (world.status("b"), world.in_flight) == (StepStatus.CANCELLED, ["undo"])


def test_a_crash_before_the_end_is_saved() -> None:
    """An execution of which everything but the end was saved ends, without a call."""
    world = World(workflow(step("a"), output="{{ steps.a.output }}"))
    world.finish("a", 7)
    world.row.status, world.row.output = ExecutionStatus.RUNNING, None
    world.crash()
    assert (world.row.status, world.row.output, world.calls) == (ExecutionStatus.COMPLETED, 7, {})


# -- random workflows ------------------------------------------------------------------------------


@st.composite
def random_workflows(draw: st.DrawFn) -> tuple[Workflow, dict[Key, list[Any]]]:
    """A workflow, and for each of its calls the results of its attempts, in turn."""
    ids = [f"s{n}" for n in range(draw(st.integers(1, 6)))]
    # A failure that stops the workflow races with what runs beside it; without one, the order in
    # which calls end must not matter.
    racing = draw(st.booleans())
    steps = [draw(random_step(ids[:n], ids[n], racing)) for n in range(len(ids))]
    recovery = [step(f"r{n}", retry=RETRY) for n in range(draw(st.integers(0, 2)))]
    definition = workflow(*steps, on_failure=recovery)
    results = {}
    for one in (*definition.steps, *definition.on_failure):
        count = len(one.for_each) if isinstance(one.for_each, list) else 1
        for position in range(count) if one.for_each is not None else (-1,):
            results[one.id, position] = draw(st.lists(RESULT, max_size=3)) + [None]
    return definition, results


RETRY = {"attempts": 2, "delay": 1, "jitter": False}
RESULT = st.sampled_from([None, ErrorCodes.UNAVAILABLE, ErrorCodes.NOT_FOUND])


@st.composite
def random_step(draw: st.DrawFn, before: list[str], step_id: str, racing: bool) -> dict[str, Any]:
    options: dict[str, Any] = {}
    needs = draw(
        st.none() | st.lists(st.sampled_from(before), unique=True) if before else st.none()
    )
    if needs is not None:
        options["needs"] = needs
    known = needs if needs is not None else before[-1:]
    conditions = ["{{ true }}", "{{ false }}"]
    conditions += [f"{{{{ steps.{one}.status == 'COMPLETED' }}}}" for one in known]
    options["if"] = draw(st.none() | st.sampled_from(conditions))
    if draw(st.booleans()):
        options["for_each"] = list(range(draw(st.integers(0, 4))))
        options["concurrency"] = draw(st.integers(1, 3))
    if draw(st.booleans()):
        options["retry"] = {**RETRY, "attempts": draw(st.integers(1, 3))}
    if not racing or draw(st.booleans()):
        options["on_failure"] = "continue"
    return step(step_id, **{key: value for key, value in options.items() if value is not None})


def run_to_the_end(
    definition: Workflow,
    results: dict[Key, list[Any]],
    choose: random.Random,
    crashes: int,
) -> World:
    """Drive an execution; *choose* says what ends next, and when the worker dies."""
    world = World(definition)
    given: Counter[Key] = Counter()
    turns = 0
    while world.row.status is ExecutionStatus.PENDING:
        turns += 1
        assert turns < 1000, "it goes on for ever"
        if crashes and choose.random() < 0.2:
            crashes -= 1
            world.crash()
        elif not world.calls:
            assert world.turn is not None
            assert world.turn.wait is not None
            assert world.turn.wait > 0 or choose.random() < 0.9
            world.later(world.turn.wait)
        elif world.turn and world.turn.next_retry is not None and choose.random() < 0.3:
            world.now += world.turn.next_retry
            world.send()
        else:
            count = choose.randint(1, min(2, len(world.calls)))
            keys = choose.sample(sorted(world.calls), count)
            world.send(*[outcome(world, key, results[key], given) for key in keys])
    return world


def outcome(world: World, key: Key, results: Sequence[Any], given: Counter[Key]) -> CallOutcome:
    result = results[min(given[key], len(results) - 1)]
    given[key] += 1
    call = world.calls.pop(key)
    return CallOutcome(call, error=fails(result)) if result else CallOutcome(call, "output")


@settings(max_examples=examples(200), deadline=None)
@given(random_workflows(), st.randoms(use_true_random=False), st.integers(0, 4))
def test_any_workflow_ends_and_keeps_the_rules(
    drawn: tuple[Workflow, dict[Key, list[Any]]], choose: random.Random, crashes: int
) -> None:
    """
    Whatever the order in which calls end and wherever workers die, it ends, and nothing is left.

    `World` checks each call on the way: after its needs, once at a time, within its concurrency,
    never again once its result is saved.
    """
    definition, results = drawn
    world = run_to_the_end(definition, results, choose, crashes)
    assert all(run.status.finished for run in world.rows.values())
    ended = world.row.status
    assert (ended is ExecutionStatus.FAILED) == (world.row.error_code is not None)
    if ended is ExecutionStatus.COMPLETED:
        assert {step.id for step in definition.steps} == set(world.statuses())
    if ended is ExecutionStatus.FAILED:
        assert {step.id for step in definition.on_failure} <= set(world.statuses())
    if not crashes:
        for one in (*definition.steps, *definition.on_failure):
            made = Counter((key, position) for key, position, _ in world.log if key == one.id)
            assert all(count <= one.retry.attempts for count in made.values())


@settings(max_examples=examples(150), deadline=None)
@given(random_workflows(), st.randoms(use_true_random=False))
def test_the_order_of_completion_changes_no_status(
    drawn: tuple[Workflow, dict[Key, list[Any]]], choose: random.Random
) -> None:
    """Where no failure stops the workflow, all orders of completion give the same statuses."""
    definition, results = drawn
    if any(step.on_failure == "fail" for step in definition.steps):
        return
    ways = [run_to_the_end(definition, results, choose, 0) for _ in range(3)]
    assert ways[0].row.status is ExecutionStatus.COMPLETED
    assert ways[0].statuses() == ways[1].statuses() == ways[2].statuses()


def test_what_waits_no_longer_is_not_due_twice_once_it_waits_again() -> None:
    """In the same moment: a step would be begun for each."""
    waits = Waits({})
    waits.add(("a", 0), 0.0)
    waits.drop(("a", 0))
    waits.add(("a", 0), 0.0)
    assert waits.take_due() == [("a", 0)]
