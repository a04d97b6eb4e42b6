"""
What waits mean to `advance`: random workflows of calls, sleeps, waits and sub-workflows.

The driver keeps rows, waits and children as the database does. It sends events when it likes, lets
the worker die, and lets time pass.
"""

from __future__ import annotations

import copy
import random
from collections import Counter
from datetime import datetime, timedelta, timezone
from typing import Any

from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.templates import EnvironmentResolver, TemplateContext, TemplateEngine
from automate_kernel.workflows.definition.model import Workflow
from automate_kernel.workflows.decide.activation import Activation
from automate_kernel.workflows.decide.advance import advance
from automate_kernel.workflows.decide.turn import CallOutcome, StepCall, Turn
from automate_kernel.workflows.decide.children import Child, end_event
from automate_kernel.workflows.decide.program import WorkflowProgram
from automate_kernel.workflows.decide.waits import Arrived, OpenWait, Wait
from automate_kernel.workflows.execution import (
    Event,
    Execution,
    ExecutionStatus,
    StepRun,
    StepStatus,
)
from example_counts import examples
from hypothesis import given, settings
from hypothesis import strategies as st

ENGINE, ENVIRONMENT = TemplateEngine(), EnvironmentResolver(())
START = datetime(2026, 1, 1, tzinfo=timezone.utc)
Key = tuple[str, int]
EVENTS = ("red", "blue")


def context(event: Any, execution: Any, steps: Any, extra: Any) -> TemplateContext:
    return TemplateContext(event, execution, steps, ENVIRONMENT, extra)


CHILD = Workflow.model_validate(
    {"name": "child", "trigger": {"type": "manual"}, "steps": [{"id": "a", "action": "a"}]}
)


class World:
    """An execution as the database keeps it, and the calls that nobody has ended yet."""

    def __init__(self, definition: Workflow) -> None:
        self.definition = definition
        self.program = WorkflowProgram(definition, ENGINE, context)
        self.row = Execution(id="e", name="w", definition_id="d", event=Event(id="v", name="w"))
        self.rows: dict[Key, StepRun] = {}
        self.due: dict[Key, float] = {}
        self.waits: dict[Key, Wait] = {}
        self.children: dict[str, Child] = {}
        self.ended: dict[str, Event] = {}
        self.abandoned: list[str] = []
        self.sent: list[Event] = []
        self.now = 0.0
        self.wake()

    def wake(self) -> None:
        """Begin from what was saved, as a worker does that has claimed the execution."""
        self.calls: dict[Key, StepCall] = {}
        self.execution = copy.deepcopy(self.row)
        self.execution.steps = [copy.deepcopy(run) for run in self.rows.values()]
        left = {
            key: self.due[key] - self.now
            for key, run in self.rows.items()
            if run.status in ("RETRY", "WAITING") and key in self.due
        }
        self.inbox: dict[Key, Any] = {}
        self.seen = 0
        for key in self.waits:
            self.look(key, self.sent)
        activation = Activation(
            execution=self.execution, waits=left, arrived=self.inbox,
            now=START + timedelta(seconds=self.now), find_child=lambda name, event: (CHILD, None),
        )  # fmt: skip
        self.flow = advance(self.program, activation)
        self.since = self.now
        self.take(next(self.flow))

    def look(self, key: Key, events: list[Event]) -> None:
        wait = self.waits[key]
        if wait.about == "workflow":
            child = wait.details["execution_id"]
            events = [self.ended[child]] if child in self.ended else []
        else:
            events = [one for one in events if one.name == wait.details["event"]]
        over = self.due.get(key, self.now + 1) <= self.now
        if events or over:
            asked = OpenWait(wait.key or "", wait.about, wait.details)
            self.inbox[key] = Arrived(asked, events, over=over)

    def send(self, *outcomes: CallOutcome) -> None:
        elapsed, self.since = self.now - self.since, self.now
        self.take(self.flow.send((outcomes, elapsed)))

    def emit(self, name: str) -> None:
        """An event comes: the flow hears of it if it is there, else when it is woken."""
        self.sent.append(Event(id=f"{name}{len(self.sent)}", name=name))
        self.hear()

    def end_child(self, child: str, result: ErrorCodes | None) -> None:
        row = {"workflow": "child", "status": "FAILED" if result else "COMPLETED"}
        row |= {"output": 7, "error_code": result and str(result), "error": "it broke"}
        self.ended[child] = end_event(row, child)
        self.hear()

    def hear(self) -> None:
        if not self.calls:
            return self.wake()
        for key in self.waits:
            self.look(key, self.sent)
        return self.send()

    def take(self, turn: Turn) -> None:
        self.turn = turn
        assert {(one.run.step_id, one.run.position) for one in turn.waits} <= {
            run.key for run in turn.saves if run.status is StepStatus.WAITING
        }, "a wait begins whose run is not saved"
        for key in turn.answered:
            self.waits.pop(key, None)
        for wait in turn.waits:
            if wait.key is not None:
                assert wait.run.key not in self.waits, "it waits twice"
                self.waits[wait.run.key] = wait
        for child in turn.children:
            assert child.id not in self.children, "a sub-workflow is started twice"
            self.children[child.id] = child
        self.abandoned += turn.abandoned
        for run in turn.saves:
            saved = self.rows.get(run.key)
            assert saved is None or not saved.status.finished, f"{run.key} was final already"
            self.rows[run.key] = copy.deepcopy(run)
            self.due.pop(run.key, None)
            if run.key in turn.delays:
                self.due[run.key] = self.now + turn.delays[run.key]
        self.row.error_code, self.row.error = self.execution.error_code, self.execution.error
        if turn.end is not None:
            self.row.status = turn.end
        for call in turn.calls:
            self.calls[call.run.key] = call
        for one in self.definition.steps:
            running = sum(key[0] == one.id for key in [*self.calls, *self._waiting()])
            assert running <= one.concurrency, "more at once than it may"
        if turn.last:
            assert not self.calls

    def _waiting(self) -> list[Key]:
        return [key for key, run in self.rows.items() if run.status is StepStatus.WAITING]


# -- one after the other -----------------------------------------------------------------------------


def world_of(*steps: dict[str, Any], **more: Any) -> World:
    return World(
        Workflow.model_validate(
            {"name": "w", "trigger": {"type": "manual"}, "steps": list(steps), **more}
        )
    )


def test_nothing_but_a_signal_wakes_a_wait_without_an_end() -> None:
    """It is deferred for a hundred years."""
    world = world_of({"id": "a", "wait_for": {"event": "red"}})
    assert world.turn.wait is not None
    assert world.turn.wait > 99 * 365 * 86_400


def test_the_nearest_of_several_times_counts() -> None:
    """Sleeps, timeouts, and the workflow's own."""
    world = world_of(
        {"id": "a", "sleep": 60},
        {"id": "b", "wait_for": {"event": "red", "timeout": 20}, "needs": []},
    )
    assert world.turn.wait == 20


def test_a_wait_that_fails_is_not_tried_again() -> None:
    """There is nothing to try; the workflow's own recovery runs."""
    world = world_of(
        {"id": "a", "wait_for": {"event": "red", "timeout": 20}},
        on_failure=[{"id": "undo", "action": "undo"}],
    )
    world.now += 20
    world.wake()
    assert world.rows["a", -1].status is StepStatus.FAILED
    assert list(world.calls) == [("undo", -1)]


def test_the_clock_alone_ends_no_wait_for_an_event() -> None:
    """Who looks into the database tells that it is over; until then it asks every half second."""
    world = world_of(
        {"id": "a", "wait_for": {"event": "red", "timeout": 20}},
        {"id": "b", "action": "do.it", "needs": []},
    )
    world.now += 20
    world.send()
    assert world.turn.next_retry == 0.5
    assert world.rows["a", -1].status is StepStatus.WAITING
    world.hear()
    assert world.rows["a", -1].status is StepStatus.FAILED


def test_a_crash_begins_a_wait_once() -> None:
    """What was saved goes on; a time goes on too."""
    world = world_of({"id": "a", "sleep": 60})
    world.now += 50
    world.wake()
    assert (world.turn.wait, world.turn.saves) == (10, [])


# -- random workflows --------------------------------------------------------------------------------


@st.composite
def random_step(draw: st.DrawFn, step_id: str, before: list[str]) -> dict[str, Any]:
    step: dict[str, Any] = {"id": step_id}
    kind = draw(st.sampled_from(["action", "sleep", "wait_for", "workflow", "apart"]))
    if kind == "action":
        step["action"] = "do.it"
    elif kind == "sleep":
        step["sleep"] = draw(st.sampled_from([0, 1, 30]))
    elif kind == "wait_for":
        timeout = draw(st.sampled_from([{}, {"timeout": 20}]))
        late = draw(st.sampled_from([{}, {"on_timeout": "continue"}])) if timeout else {}
        step["wait_for"] = {"event": draw(st.sampled_from(EVENTS)), **timeout, **late}
    else:
        step["workflow"] = "child"
        step |= {"wait": False} if kind == "apart" else {}
        if kind == "workflow":
            step |= draw(st.sampled_from([{}, {"timeout": 40}]))
            step |= draw(st.sampled_from([{}, {"retry": {"attempts": 2, "delay": 1}}]))
    if before and draw(st.booleans()):
        step["needs"] = draw(st.lists(st.sampled_from(before), unique=True))
    if draw(st.booleans()):
        step["for_each"] = list(range(draw(st.integers(0, 4))))
        step["concurrency"] = draw(st.integers(1, 3))
    if draw(st.booleans()):
        step["on_failure"] = "continue"
    return step


@st.composite
def random_workflows(draw: st.DrawFn) -> Workflow:
    ids = [f"s{n}" for n in range(draw(st.integers(1, 5)))]
    steps = [draw(random_step(step_id, ids[:n])) for n, step_id in enumerate(ids)]
    return Workflow.model_validate({"name": "w", "trigger": {"type": "manual"}, "steps": steps})


def drive(world: World, choose: random.Random) -> None:
    """Let something happen: a crash, an event, the end of a call or a child, or of a time."""
    turns = 0
    while world.row.status is ExecutionStatus.PENDING:
        turns += 1
        assert turns < 2000, "it goes on for ever"
        happens = choose.random()
        running = sorted(set(world.children) - set(world.ended))
        waited = [each for each in running if world.children[each].waited]
        if happens < 0.1:
            world.wake()
        elif happens < 0.4:
            world.emit(choose.choice(EVENTS))
        elif happens < 0.6 and waited:
            world.end_child(choose.choice(waited), choose.choice([None, ErrorCodes.UNAVAILABLE]))
        elif world.calls:
            call = world.calls.pop(choose.choice(sorted(world.calls)))
            failed = AutomateError(ErrorCodes.NOT_FOUND, "it broke") if happens > 0.95 else None
            world.send(CallOutcome(call, error=failed))
        else:
            assert world.turn.wait is not None
            if world.turn.wait < 1000:
                world.now += world.turn.wait
            world.wake()


@settings(max_examples=examples(300, 60))
@given(random_workflows(), st.integers(0, 2**32))
def test_any_workflow_that_waits_ends_and_keeps_the_rules(definition: Workflow, seed: int) -> None:
    """
    Whatever comes when, and wherever workers die, it ends, and no wait is left.

    An event answers one step. A sub-workflow that was waited for has ended, or was abandoned.
    """
    world = World(definition)
    drive(world, random.Random(seed))
    assert all(run.status.finished for run in world.rows.values())
    assert not world.waits
    outputs = [run.output for run in world.rows.values()]
    taken = Counter(one["id"] for one in outputs if isinstance(one, dict) and "name" in one)
    assert all(count == 1 for count in taken.values())
    assert taken.keys() <= {one.id for one in world.sent}
    assert len(world.abandoned) == len(set(world.abandoned))
    for child in world.children.values():
        assert not child.waited or child.id in world.ended or child.id in world.abandoned
    if world.row.status is ExecutionStatus.COMPLETED:
        assert {step.id for step in definition.steps} == {key for key, n in world.rows if n < 0}
