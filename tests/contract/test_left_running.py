"""What a dead worker, or one that gave its call back, leaves behind: nobody runs it, and it says so."""

from __future__ import annotations

from typing import Any

import pytest
from clocked_world import ClockedWorld

from automate_kernel import Kernel, WorkflowContext
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.storage import Storage
from automate_testing.clock import FakeClock
from automate_kernel.workflows.drive.flow import Flow, needs_saving
from automate_kernel.workflows.decide.waits import ADVANCE
from automate_kernel.workflows.decide.turn import CallOutcome, StepCall, Turn

pytestmark = pytest.mark.any_storage

LEASE_SECONDS = 30.0
LOST = (1, "FAILED", "LEASE_EXPIRED")
WAITS: dict[str, dict[str, Any]] = {
    "time": {"sleep": "1h"},
    "signal": {"wait_for": {"signal": "go"}},
    "approval": {"approval": {"title": "Go on?"}},
    "child": {"workflow": "child"},
}


def save(runner: Any, flow: Flow, turn: Turn) -> None:
    """Save a turn as whoever holds the execution does, which still holds it."""
    saved = runner.save([(flow, turn)], until=lambda: False)
    assert isinstance(saved[flow.item.id], Turn)


class World(ClockedWorld):
    """Processes on one storage, whose clock only the test moves."""

    def __init__(self, storage: Storage, clock: FakeClock) -> None:
        self.storage, self.clock = storage, clock
        self.called: list[str] = []
        self.kernel = self.process()

    def process(self) -> Kernel:
        return Kernel(self.storage, discover=False, secrets={}, lease_seconds=LEASE_SECONDS)

    def note(self, what: str = "it") -> str:
        self.called.append(what)
        return what

    def add(self, **definition: Any) -> None:
        self.kernel.add_workflow({"name": "one", "trigger": {"type": "manual"}, **definition})

    def add_either(self, steps: list[dict[str, Any]]) -> None:
        """Add a definition with *steps*, or the code that does without."""
        if steps:
            self.add(steps=steps)
        else:
            self.kernel.workflow(coded, name="one")

    def begin_call(self) -> tuple[Flow, StepCall]:
        """Have a worker take the execution, and begin its first call, which people see."""
        runner = self.kernel._runner
        (item,) = self.kernel.outbox.claim_batch("dying", kinds=[ADVANCE])
        flow = runner.open([item])[item.id]
        assert isinstance(flow, Flow)
        turn = runner.turn(flow)
        if needs_saving(turn):
            save(runner, flow, turn)
        call = turn.calls[0]
        runner.begin(flow, call)
        save(runner, flow, Turn(saves=[call.run]))
        return flow, call

    def begin_next(self, flow: Flow, outcome: CallOutcome) -> None:
        """Have the worker take the *outcome* of its call in, and begin the next one."""
        runner = self.kernel._runner
        turn = runner.turn(flow, [outcome])
        save(runner, flow, turn)
        (call,) = turn.calls
        runner.begin(flow, call)
        save(runner, flow, Turn(saves=[call.run]))

    def start_and_die(self) -> str:
        """Start an execution whose worker dies in its first call."""
        one = self.kernel.start("one")
        flow, call = self.begin_call()
        assert self.steps(one)[call.run.key] == "RUNNING"
        flow.close()
        return one

    def steps(self, execution_id: str) -> dict[tuple[str, int], str]:
        return {run.key: str(run.status) for run in self.see(execution_id).steps}

    def attempts(self, execution_id: str, step_id: str) -> list[tuple[int, str, str | None]]:
        found = self.kernel.executions.attempts(execution_id)
        return [
            (one.attempt, one.status, one.error_code) for one in found if one.step_id == step_id
        ]


@pytest.fixture
def world(clocked_storage: Storage, clock: FakeClock) -> World:
    made = World(clocked_storage, clock)
    made.kernel.action("note")(made.note)
    return made


@pytest.mark.parametrize("waits_for", list(WAITS))
def test_a_step_under_finally_waits_for_those_of_a_cancellation(
    world: World, waits_for: str
) -> None:
    """It is PENDING while they wait, for whatever that is, and is called once more after them."""
    world.add(name="child", steps=[{"id": "nap", "sleep": "1h"}])
    world.add(
        steps=[{"id": "a", "if": False, "action": "note"}],
        on_cancel=[{"id": "stopped", **WAITS[waits_for]}],
        **{"finally": [{"id": "last", "action": "note", "input": {"what": "last"}}]},
    )
    one = world.start_and_die()
    assert world.kernel.executions.cancel(one)
    world.later(LEASE_SECONDS + 1)
    world.later(60)
    assert (str(world.see(one).status), world.steps(one)) == ("CANCELLING", {
        ("a", -1): "SKIPPED", ("last", -1): "PENDING", ("stopped", -1): "WAITING",
    })  # fmt: skip
    assert (world.attempts(one, "last"), world.called) == ([LOST], [])
    if waits_for == "signal":
        world.kernel.signal(one, "go")
    elif waits_for == "approval":
        world.kernel.approvals.approve(one, "stopped", by="ann")
    world.later(3601)
    assert (str(world.see(one).status), world.called) == ("CANCELLED", ["last"])
    assert world.steps(one)["last", -1] == "COMPLETED"
    assert world.attempts(one, "last") == [LOST, (2, "COMPLETED", None)]


def test_a_step_under_finally_that_a_worker_gave_back(world: World) -> None:
    """Its call was cancelled with the execution: that is no attempt, and it is called later."""
    world.add(
        steps=[{"id": "a", "if": False, "action": "note"}],
        on_cancel=[{"id": "stopped", "sleep": "1h"}],
        **{"finally": [{"id": "last", "action": "note", "input": {"what": "last"}}]},
    )
    one = world.kernel.start("one")
    flow, call = world.begin_call()
    world.kernel.executions.cancel(one)
    runner = world.kernel._runner
    turn = runner.turn(flow, [CallOutcome(call, begun=False)])
    flow.pause(turn)
    save(runner, flow, turn)
    flow.close()
    assert world.steps(one)["last", -1] == "PENDING"
    world.later(1)
    assert world.steps(one) == {
        ("a", -1): "SKIPPED", ("last", -1): "PENDING", ("stopped", -1): "WAITING",
    }  # fmt: skip
    world.later(3601)
    assert (str(world.see(one).status), world.called) == ("CANCELLED", ["last"])
    assert world.attempts(one, "last") == [(1, "COMPLETED", None)]


async def coded(ctx: WorkflowContext) -> Any:
    """Call what the definitions call."""
    return await ctx.call("note", what="it")


GO: dict[str, Any] = {"id": "go", "action": "note", "input": {"what": "it"}}
WAY = {"id": "way", "switch": "x", "cases": {"x": [GO]}}
# The step is undone once the next one fails, whose time is none.
UNDONE = {"id": "go", "steps": [{"id": "nap", "sleep": 0}], "compensate": {"action": "note"}}
LEFT: dict[str, tuple[list[dict[str, Any]], str]] = {
    "step": ([{**GO, "if": True}], "go"),
    "element": ([{**GO, "for_each": [7]}], "go"),
    "round": ([{**GO, "while": "{{ index < 1 }}"}], "go"),
    "inside": ([{"id": "box", "for_each": [7], "steps": [WAY]}], "box[0].way.go"),
    "undo": ([UNDONE, {"id": "bad", "sleep": "{{ event.payload }}"}], "go.compensate"),
    "code": ([], "note"),
}


@pytest.mark.parametrize("how", ["execution", "workflow"])
@pytest.mark.parametrize("kind", list(LEFT))
def test_a_step_of_what_is_paused(world: World, kind: str, how: str) -> None:
    """It is PENDING until that goes on; blocks and loops around it are as they were."""
    steps, left = LEFT[kind]
    world.add_either(steps)
    one = world.start_and_die()
    before = world.steps(one)
    (key,) = (key for key in before if key[0] == left and before[key] == "RUNNING" and
              (kind != "round" or key[1] == 0))  # fmt: skip
    if how == "workflow":
        world.kernel.workflows.pause("one")
    else:
        assert world.kernel.executions.pause(one)
    world.later(LEASE_SECONDS + 1)
    world.later(60)
    assert world.steps(one) == {**before, key: "PENDING"}
    if how == "workflow":
        world.kernel.workflows.resume("one")
    else:
        assert world.kernel.executions.unpause(one)
    world.later(1)
    ended = world.see(one)
    assert str(ended.status) == ("FAILED" if kind == "undo" else "COMPLETED"), ended.error
    assert world.called == ["it"]
    assert world.attempts(one, left) == [LOST, (2, "COMPLETED", None)]


@pytest.mark.parametrize("kind", ["step", "element", "code"])
def test_a_step_that_waits_for_another_worker(world: World, kind: str) -> None:
    """The one that takes it up doesn't know its action, and hands it over."""
    steps, left = LEFT[kind]
    world.add_either(steps)
    one = world.start_and_die()
    other = world.process()
    other.workflow(coded, name="one")
    for seconds in (LEASE_SECONDS + 1, 60):
        world.clock.advance(seconds)
        other.run_until_idle()
    item = other.outbox.get(world.see(one).item_id or "")
    assert item is not None and item.last_error_code == "UNKNOWN_ACTION"
    assert list(world.steps(one).values()) == ["PENDING"]
    world.later(600)
    assert (str(world.see(one).status), world.called) == ("COMPLETED", ["it"])
    assert world.attempts(one, left) == [LOST, (2, "COMPLETED", None)]


def test_an_element_whose_turn_comes_later(world: World) -> None:
    """It is PENDING while another one runs in its place, and the attempt that was lost counts."""
    retry = {"attempts": 3, "delay": "10s", "max_delay": "10s", "jitter": False}
    world.add(steps=[{**GO, "for_each": ["a", "b"], "concurrency": 1, "retry": retry}])
    one = world.kernel.start("one")
    flow, call = world.begin_call()
    down = AutomateError(ErrorCodes.UNAVAILABLE, "it is down")
    world.begin_next(flow, CallOutcome(call, error=down))
    flow.close()
    assert world.steps(one) == {("go", 0): "RETRY", ("go", 1): "RUNNING"}
    world.clock.advance(LEASE_SECONDS + 1)
    world.kernel.outbox.reap()
    world.clock.advance(60)
    flow, call = world.begin_call()
    assert world.steps(one) == {("go", 0): "RUNNING", ("go", 1): "PENDING"}
    world.begin_next(flow, CallOutcome(call, "a"))
    assert world.steps(one) == {("go", 0): "COMPLETED", ("go", 1): "RUNNING"}
    (run,) = (run for run in world.see(one).steps if run.position == 1)
    assert run.attempts == 2
    flow.close()
    for _ in range(3):
        world.later(60)
    assert (str(world.see(one).status), world.called) == ("COMPLETED", ["it"])
    numbers = [one.attempt for one in world.kernel.executions.attempts(one) if one.position == 1]
    assert numbers == [1, 2, 3]
