"""A worker that doesn't know the workflow which a step starts hands the execution over."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from waiting import PATIENCE, until
from workers import working

from defined import item_of, see
from automate_kernel import Kernel, WorkflowContext
from automate_kernel.outbox import OutboxItem
from automate_kernel.storage import MemoryStorage
from automate_kernel.workflows.execution import Execution, ExecutionStatus, StepStatus
from automate_testing import FakeClock

LATER = 600.0
CHILD = {
    "name": "child",
    "trigger": {"type": "manual"},
    "steps": [{"id": "a", "action": "note"}],
    "output": "{{ event.payload }}",
}


class World:
    """An old kernel that knows no workflow called child, and a new one that does."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.storage = MemoryStorage(self.clock)
        self.old, self.new = self.kernel(), self.kernel()
        self.new.add_workflow(CHILD)

    def kernel(self) -> Kernel:
        kernel = Kernel(self.storage, discover=False, secrets={})
        for name in ("note", "mend"):
            kernel.action(name)(lambda: "done")

        @kernel.action
        def broken() -> None:
            raise ValueError("broken")

        return kernel

    def define(self, *steps: dict[str, Any], **more: Any) -> None:
        for kernel in (self.old, self.new):
            parent = {"name": "parent", "trigger": {"type": "manual"}, "steps": steps, **more}
            kernel.add_workflow(parent)

    def see(self, execution_id: str) -> Execution:
        return see(self.new, execution_id)

    def item(self, execution_id: str) -> OutboxItem:
        return item_of(self.new, execution_id)

    def handed_over(self, execution_id: str) -> bool:
        note = self.item(execution_id).handover
        return note is not None and note.code == "UNKNOWN_WORKFLOW"


@pytest.fixture
def world() -> World:
    return World()


START = {"id": "sub", "workflow": "child", "input": {"n": 1}}
BROKEN = {"id": "b", "action": "broken", "needs": []}
TABLE: dict[str, tuple[list[dict[str, Any]], dict[str, Any], str]] = {
    "step": ([{"id": "a", "action": "note"}, START], {}, "COMPLETED"),
    "not waited for": ([START | {"wait": False}], {}, "COMPLETED"),
    "tried again": ([START | {"retry": {"attempts": 3}}], {}, "COMPLETED"),
    "goes on without": ([START | {"on_failure": "continue"}], {}, "COMPLETED"),
    "each": ([START | {"for_each": [1, 2, 3], "concurrency": 2}], {}, "COMPLETED"),
    "loop": ([START | {"while": "{{ index < 2 }}", "max_rounds": 5}], {}, "COMPLETED"),
    "block": ([{"id": "all", "steps": [{"id": "x", "action": "note"}, START]}], {}, "COMPLETED"),
    "block each": (
        [{"id": "all", "for_each": [1, 2], "steps": [{"id": "x", "action": "note"}, START]}],
        {},
        "COMPLETED",
    ),
    "switch": (
        [{"id": "s", "switch": "{{ 'go' }}", "cases": {"go": [START]}}],
        {},
        "COMPLETED",
    ),
    "on failure": ([BROKEN], {"on_failure": [START]}, "FAILED"),
    "finally": ([{"id": "a", "action": "note"}], {"finally": [START]}, "COMPLETED"),
    "beside a failure": (
        [START | {"needs": []}, BROKEN, {"id": "c", "action": "note", "needs": ["sub", "b"]}],
        {"on_failure": [{"id": "f", "action": "mend"}]},
        "FAILED",
    ),
}


@pytest.mark.parametrize("case", list(TABLE))
def test_a_step_whose_workflow_is_not_known_is_handed_over(world: World, case: str) -> None:
    """Wherever it stands: nothing fails and no attempt is spent, and the next worker goes on."""
    steps, more, end = TABLE[case]
    world.define(*steps, **more)
    one = world.new.start("parent")
    for _ in range(3):
        world.old.run_until_idle()
        world.clock.advance(LATER)
    assert world.handed_over(one) or case == "beside a failure"
    before = world.see(one)
    assert not before.status.finished or case == "beside a failure"
    assert not any(run.step_id.endswith("sub") and run.attempts for run in before.steps)
    assert world.item(one).attempt_count == 0 or before.status.finished
    world.new.run_until_idle()
    execution = world.see(one)
    assert execution.status.value == end, execution.error
    started = [run for run in execution.steps if run.step_id.endswith("sub")]
    statuses = {StepStatus.COMPLETED}
    if case == "beside a failure":
        statuses |= {StepStatus.CANCELLED, StepStatus.FAILED}
    assert {run.status for run in started} <= statuses
    assert all(run.attempts <= 1 for run in started)
    assert world.item(one).handover is None


def test_it_says_what_is_lacking(world: World) -> None:
    """In the item's error, where doctor and the pages find it, with the names that are known."""
    world.define(START)
    one = world.new.start("parent")
    world.old.run_until_idle()
    item = world.item(one)
    assert item.last_error_code == "UNKNOWN_WORKFLOW"
    assert item.handover is not None
    assert "doesn't know the workflow 'child': there is no workflow 'child'" in item.handover.reason
    assert item.handover.needed == "a worker that knows it"


def test_what_runs_beside_it_ends_first_and_is_saved(world: World) -> None:
    """A worker hands it over once its calls have ended, and nobody makes them again."""
    begun, go = threading.Event(), threading.Event()

    @world.old.action
    def slow() -> str:
        begun.set()
        assert go.wait(PATIENCE)
        return "kept"

    world.new.action(slow)
    later = START | {"needs": ["a"]}
    world.define(
        {"id": "slow", "action": "slow", "needs": []},
        {"id": "a", "action": "note", "needs": []},
        later,
    )
    one = world.new.start("parent")
    with working(world.old):
        assert begun.wait(PATIENCE)
        assert not world.handed_over(one)
        go.set()
        until(lambda: world.handed_over(one))
    runs = {run.step_id: run.status for run in world.see(one).steps}
    assert runs == {"slow": StepStatus.COMPLETED, "a": StepStatus.COMPLETED}
    world.clock.advance(LATER)
    world.new.run_until_idle()
    assert world.see(one).status is ExecutionStatus.COMPLETED
    assert world.see(one).steps[0].attempts == 1


def test_a_workflow_in_code_is_handed_over_too(world: World) -> None:
    """Its function sees no error, and its record has nothing of the call."""
    seen: list[str] = []

    async def parent(ctx: WorkflowContext) -> Any:
        """Start the child."""
        await ctx.sleep(1)
        try:
            return await ctx.child("child", {"n": 1})
        except Exception as error:
            seen.append(str(error))
            raise

    for kernel in (world.old, world.new):
        kernel.workflow(parent)
    one = world.new.start("parent")
    world.old.run_until_idle()
    world.clock.advance(2)
    world.old.run_until_idle()
    assert world.handed_over(one)
    assert [run.step_id for run in world.see(one).steps] == ["sleep"]
    world.clock.advance(LATER)
    world.new.run_until_idle()
    execution = world.see(one)
    assert execution.status is ExecutionStatus.COMPLETED, execution.error
    assert seen == []


@pytest.mark.parametrize("how", ["run", "memory"])
def test_where_no_other_worker_can_be_it_fails(how: str) -> None:
    """Whoever waits for it here learns at once what is wrong, and what there is."""
    kernel = Kernel(MemoryStorage(FakeClock()), discover=False, secrets={})
    kernel.add_workflow({"name": "parent", "trigger": {"type": "manual"}, "steps": [START]})
    if how == "run":
        second = Kernel(kernel.storage, discover=False, secrets={})  # another one might know it
        execution = kernel.run("parent")
        second.close()
    else:
        one = kernel.start("parent")
        kernel.run_until_idle()
        found = kernel.executions.get(one)
        assert found is not None
        execution = found
    assert execution.status is ExecutionStatus.FAILED
    assert "there is no workflow 'child'" in (execution.error or "")
    assert "doesn't know" not in (execution.error or "")
