"""Workflows in code on every storage: their record, their waits, their children, their end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from clocked_world import ClockedWorld

from automate_kernel import (
    AutomateError,
    ErrorCodes,
    Event,
    Kernel,
    StepFailedError,
    SyncWorkflowContext,
    WorkflowContext,
)
from automate_kernel.storage import Storage
from automate_kernel.storage.tables import WAIT
from automate_testing.clock import FakeClock
from automate_kernel.workflows.execution import ExecutionStatus, StepStatus

pytestmark = pytest.mark.any_storage

DAY = 86_400.0
Function = Callable[..., Any]


class World(ClockedWorld):
    """Processes with the same code on one storage, whose clock only the test moves."""

    def __init__(self, storage: Storage, clock: FakeClock) -> None:
        self.storage, self.clock = storage, clock
        self.called: list[Any] = []
        self.broken: list[Any] = []

    def note(self, what: Any) -> Any:
        self.called.append(what)
        if what in self.broken:
            raise AutomateError(ErrorCodes.INVALID_ARGUMENT, f"{what} is broken")
        return what

    def deploy(self, *functions: Function) -> Kernel:
        """Let a new process take over, with these workflows."""
        self.kernel = Kernel(self.storage, discover=False, secrets={}, lease_seconds=30.0)
        for function in functions:
            self.kernel.workflow(function)
        return self.kernel

    def steps(self, execution_id: str) -> dict[str, str]:
        return {run.step_id: run.status.value for run in self.see(execution_id).steps}

    def waits(self) -> list[dict[str, Any]]:
        with self.storage.begin() as rows:
            return rows.select(WAIT)


@pytest.fixture
def world(clocked_storage: Storage, clock: FakeClock) -> World:
    return World(clocked_storage, clock)


def test_a_workflow_goes_on_in_another_process_after_each_wait(world: World) -> None:
    """Its values come back as they were, and nothing that ended is called again."""

    async def flow(ctx: WorkflowContext, order: int) -> dict[str, Any]:
        first, second = await ctx.gather(
            ctx.step(world.note, 1.0, name="one"), ctx.step(world.note, "zwei ü", name="two")
        )
        began = ctx.now()
        chance = ctx.random()
        await ctx.sleep("3d")
        paid = await ctx.wait_for("order.paid", match={"order": order}, timeout="2d")
        last = await ctx.step(world.note, {"n": None}, name="last")
        days = (ctx.now() - began).total_seconds() / DAY
        return {
            "found": [first, second, last], "paid": paid.payload["amount"], "chance": chance,
            "days": days,
        }  # fmt: skip

    world.deploy(flow)
    one = world.start("flow", 7)
    assert world.steps(one) == {
        "one": "COMPLETED", "two": "COMPLETED", "now": "COMPLETED", "sleep": "WAITING",
    }  # fmt: skip
    world.deploy(flow)
    # What passed between the claim and the call counts too, on a busy machine even seconds.
    world.later(3 * DAY + 3600)
    assert world.steps(one)["wait_for"] == "WAITING"
    kernel = world.deploy(flow)
    kernel.emit("order.paid", {"order": 8, "amount": 1})
    kernel.emit("order.paid", {"order": 7, "amount": 2})
    kernel.run_until_idle()
    found = world.see(one)
    assert found.status is ExecutionStatus.COMPLETED, found.error
    assert found.output["found"] == [1.0, "zwei ü", {"n": None}]
    assert isinstance(found.output["found"][0], float)
    assert found.output["paid"] == 2 and 3 <= found.output["days"] < 3.1
    # Of a gather none comes first.
    assert world.called[2:] == [{"n": None}]
    assert set(world.called[:2]) == {1.0, "zwei ü"}
    assert len(world.called) == 3
    assert [run.place and run.place.split(" ", 1)[1] for run in found.steps] == [
        "(call 1.1)", "(call 1.2)", "(call 2, value)", "(call 3, sleep)", "(call 4, event)",
        "(call 5)", "(call 6, value)",
    ]  # fmt: skip
    assert world.waits() == []


def test_what_an_object_gives_comes_in_the_same_order_again(world: World) -> None:
    """A database may have an order of its own for keys."""

    def prices() -> dict[str, int]:
        return {"zz": 1, "a": 2, "mmm": 3}

    async def flow(ctx: WorkflowContext, stock: dict[str, int]) -> None:
        for sku in [*await ctx.step(prices), *stock]:
            await ctx.step(world.note, sku, name="note")
            await ctx.sleep("1h")

    world.deploy(flow)
    started = world.kernel.run("flow", {"yy": 1, "b": 2}, patience=0)
    for _ in range(5):
        world.deploy(flow)
        world.later(3601)
    assert world.see(started.id).status is ExecutionStatus.COMPLETED
    assert sorted(world.called) == ["a", "b", "mmm", "yy", "zz"]


def test_an_event_that_came_a_moment_earlier_counts(world: World) -> None:
    """The source names it, so it is kept from the execution's start."""

    async def flow(ctx: WorkflowContext, order: int) -> str:
        await ctx.sleep(60)
        event = await ctx.wait_for("order.paid", match={"order": order, "kind": "full"})
        other = await ctx.wait_for("order.paid", match={"order": order, "kind": "full"})
        return f"{event.payload['n']} {other.payload['n']}"

    kernel = world.deploy(flow)
    one = world.start("flow", 7)
    for n in (1, 2):
        kernel.emit("order.paid", {"order": 7, "kind": "full", "n": n})
    kernel.emit("order.paid", {"order": 7, "kind": "part", "n": 3})
    kernel.run_until_idle()
    world.later(61)
    assert world.see(one).output in ("1 2", "2 1")


def test_a_signal_and_a_timeout(world: World) -> None:
    def flow(ctx: SyncWorkflowContext) -> list[Any]:
        found: list[Any] = [ctx.wait_for(signal="go", timeout=60).payload]
        found.append(ctx.wait_for(signal="go", timeout=60, on_timeout="continue"))
        try:
            ctx.wait_for("never", timeout=60)
        except StepFailedError as error:
            found.append(error.code.value)
        return found

    kernel = world.deploy(flow)
    one = world.start("flow")
    kernel.signal(one, "go", {"n": 1})
    kernel.run_until_idle()
    assert world.steps(one) == {"wait_for": "COMPLETED", "wait_for#2": "WAITING"}
    world.later(61)
    world.later(61)
    assert world.see(one).output == [{"n": 1}, None, "DEADLINE_EXCEEDED"]


def test_another_workflow_gives_its_result_or_its_error(world: World) -> None:
    async def ship(ctx: WorkflowContext, order: int) -> tuple[int, str]:
        return order, await ctx.step(world.note, f"ship {order}", name="note")

    async def flow(ctx: WorkflowContext) -> list[Any]:
        both = await ctx.gather(ctx.child(ship, 1), ctx.child("ship", 2))
        started = await ctx.start(ship, 3)
        try:
            await ctx.child(ship, 4, name="bad")
        except StepFailedError as error:
            return [list(both[0]), both[1], len(started), error.message]
        return []

    world.deploy(flow, ship)
    world.broken.append("ship 4")
    one = world.start("flow")
    found = world.see(one)
    assert found.output == [
        [1, "ship 1"], [2, "ship 2"], 36,
        "sub-workflow 'ship' failed: step 'note' failed: ship 4 is broken",
    ], found.error  # fmt: skip
    assert sorted(world.called) == ["ship 1", "ship 2", "ship 3", "ship 4"]
    assert world.steps(one) == {
        "ship": "COMPLETED", "ship#2": "COMPLETED", "ship#3": "COMPLETED", "bad": "FAILED",
    }  # fmt: skip


def test_a_workflow_in_a_file_and_one_in_code_start_each_other(world: World) -> None:
    async def in_code(ctx: WorkflowContext, n: int) -> Any:
        return n if n <= 0 else [n, await ctx.child("in-file", {"n": n - 1})]

    kernel = world.deploy(in_code)
    kernel.add_workflow(
        {
            "name": "in-file", "trigger": {"type": "manual"},
            "steps": [{"id": "c", "workflow": "in_code", "input": "{{ {'x': 1} }}"}],
            "output": "{{ steps.c.output }}",
        }
    )  # fmt: skip
    one = world.start("in_code", 1)
    # The payload of the inner one is an object, which is no number.
    assert "payload of workflow 'in_code'" in str(world.see(one).error)


def test_a_cancelled_parent_takes_its_children_along(world: World) -> None:
    async def ship(ctx: WorkflowContext) -> None:
        await ctx.sleep("1d")

    async def flow(ctx: WorkflowContext) -> None:
        await ctx.child(ship)

    kernel = world.deploy(flow, ship)
    one = world.start("flow")
    assert kernel.executions.cancel(one)
    kernel.run_until_idle()
    found = kernel.executions.find()
    assert {each.status for each in found} == {ExecutionStatus.CANCELLED}
    assert len(found) == 2 and world.waits() == []


def test_the_end_of_the_time_ends_waits_and_children(world: World) -> None:
    async def ship(ctx: WorkflowContext) -> None:
        await ctx.sleep("30d")

    async def flow(ctx: WorkflowContext) -> None:
        with ctx.compensate(world.note, "undone", name="undo"):
            await ctx.gather(ctx.child(ship), ctx.wait_for("never"), ctx.sleep("9d"))

    kernel = world.deploy(ship)
    kernel.workflow(timeout="5d")(flow)
    one = world.start("flow")
    world.later(5 * DAY + 1)
    found = world.see(one)
    assert (found.status, found.error) == (ExecutionStatus.FAILED, "the workflow took too long")
    assert world.steps(one) == {
        "ship": "CANCELLED", "wait_for": "CANCELLED", "sleep": "CANCELLED", "undo": "COMPLETED",
    }  # fmt: skip
    assert world.called == ["undone"] and world.waits() == []
    assert {each.status for each in kernel.executions.find(workflow="ship")} == {
        ExecutionStatus.CANCELLED
    }


def test_a_failed_workflow_is_resumed_where_it_failed(world: World) -> None:
    async def flow(ctx: WorkflowContext) -> list[Any]:
        first = await ctx.step(world.note, "a", name="a")
        await ctx.sleep(60)
        return [first, await ctx.step(world.note, "b", name="b")]

    kernel = world.deploy(flow)
    world.broken.append("b")
    one = world.start("flow")
    world.later(61)
    assert world.see(one).status is ExecutionStatus.FAILED
    world.broken.clear()
    assert kernel.executions.resume(one)
    kernel.run_until_idle()
    assert world.see(one).output == ["a", "b"]
    assert world.called == ["a", "b", "b"]
    assert kernel.executions.resume(one, step_id="sleep")
    kernel.run_until_idle()
    run = world.see(one).step("sleep")
    assert run is not None and run.status is StepStatus.WAITING
    world.later(61)
    assert world.see(one).output == ["a", "b"]
    assert world.called == ["a", "b", "b", "b"]


def test_an_event_is_an_argument_of_a_step(world: World) -> None:
    def describe(event: Event) -> str:
        return f"{event.name} {event.payload['n']}"

    async def flow(ctx: WorkflowContext) -> str:
        return await ctx.step(describe, await ctx.wait_for("came"))

    kernel = world.deploy(flow)
    one = world.start("flow")
    kernel.emit("came", {"n": 1})
    kernel.run_until_idle()
    assert world.see(one).output == "came 1", world.see(one).error


def test_a_tenants_workflow_hears_its_tenants_events_alone(world: World) -> None:
    async def flow(ctx: WorkflowContext) -> list[Any]:
        return [ctx.tenant_id, (await ctx.wait_for("came")).payload]

    kernel = world.deploy(flow)
    one = world.start("flow", tenant_id="acme")
    kernel.emit("came", "nobody's")
    kernel.emit("came", "another's", tenant_id="other")
    kernel.run_until_idle()
    assert world.see(one).status is ExecutionStatus.RUNNING
    kernel.emit("came", "ours", tenant_id="acme")
    kernel.run_until_idle()
    assert world.see(one).output == ["acme", "ours"]


def test_a_person_is_asked_told_and_answers(world: World) -> None:
    """The one who is told gets the link; the workflow gets the answer, over a new process."""
    told: list[Any] = []

    async def flow(ctx: WorkflowContext) -> list[Any]:
        answer = await ctx.approve(
            "Refund order 7?", by=["ann", "role:managers"], timeout="2d",
            form=[{"name": "amount", "type": "number", "required": True}],
            notify={"action": "tell", "input": {"to": "{{ approval.to }}", "link": "{{ approval.link }}"}},
        )  # fmt: skip
        late = await ctx.approve("Sure?", timeout="1h", on_timeout="reject", on_reject="continue")
        try:
            await ctx.approve("Really?", name="really")
        except StepFailedError as error:
            return [answer.approved, answer.by, answer.form, late.timed_out, error.message]
        return []

    def deploy() -> Kernel:
        kernel = Kernel(
            world.storage, discover=False, secrets={}, signing_keys=["k" * 40],
            public_url="https://shop.example",
        )  # fmt: skip
        kernel.workflow(flow)

        @kernel.action
        def tell(to: str, link: str) -> None:
            told.append((to, link))

        world.kernel = kernel
        return kernel

    kernel = deploy()
    one = world.start("flow")
    assert [to for to, _ in told] == ["ann", "role:managers"]
    assert all(link.startswith("https://shop.example/") for _, link in told)
    kernel = deploy()
    with pytest.raises(AutomateError, match="may decide|may not|not among"):
        kernel.approvals.approve(one, "approve", by="bob", form={"amount": 1})
    kernel.approvals.approve(one, "approve", by="bob", roles=["managers"], form={"amount": 5})
    kernel.run_until_idle()
    world.later(3601)
    assert world.steps(one) == {
        "approve": "COMPLETED", "approve#2": "COMPLETED", "really": "WAITING",
    }, world.see(one).error  # fmt: skip
    kernel.approvals.reject(one, "really", by="cy", comment="no")
    kernel.run_until_idle()
    found = world.see(one)
    assert found.output == [True, "bob", {"amount": 5}, True, "rejected by cy: no"], found.error


class KilledError(BaseException):
    """The process is killed: nothing of it does anything any more."""


def dying(kernel: Kernel, saves: int, *, late: bool) -> None:
    """Let *kernel* die at its checkpoint number *saves*, before it or (*late*) right after."""
    save, left = kernel.executions.checkpoints.save, [saves]

    def checkpoint(group: Any) -> Any:
        left[0] -= 1
        if left[0] < 0 or (left[0] == 0 and not late):
            raise KilledError
        saved = save(group)
        if left[0] == 0:
            raise KilledError
        return saved

    kernel.executions.checkpoints.save = checkpoint  # type: ignore[method-assign]


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("saves", range(1, 9))
def test_a_process_that_dies_at_any_checkpoint_loses_nothing(
    world: World, saves: int, late: bool
) -> None:
    """Another goes on once the lease has ended; saved steps are not called again."""

    async def part(ctx: WorkflowContext, n: int) -> int:
        first = await ctx.step(world.note, n, name="first")
        return int(await ctx.step(world.note, first + 10, name="second"))

    async def flow(ctx: WorkflowContext) -> list[Any]:
        began = ctx.now()
        one = await ctx.step(world.note, "a", name="a")
        try:
            with ctx.compensate(world.note, "undo", name="undo"):
                await ctx.step(world.note, "bad", name="bad")
        except StepFailedError:
            pass
        parts = await ctx.gather(part(ctx, 1), part(ctx, 2), ctx.step(world.note, 3, name="three"))
        return [one, list(parts), ctx.patched("later"), ctx.now() >= began]

    world.broken.append("bad")
    kernel = world.deploy(flow)
    dying(kernel, saves, late=late)
    one = world.kernel.start("flow")
    with contextlib.suppress(KilledError):
        kernel.run_until_idle()
    known = {run.step_id: run for run in world.see(one).steps if run.status.finished}
    before = list(world.called)
    world.deploy(flow)
    world.clock.advance(31)
    world.kernel.run_until_idle()
    found = world.see(one)
    assert found.status is ExecutionStatus.COMPLETED, (found.status, found.error)
    assert found.output == ["a", [11, 12, 3], True, True]
    after = world.called[len(before) :]
    names = {"a": "a", "bad": "bad", "undo": "undo", "three": 3, "first@3.1": 1, "first@3.2": 2}
    for step_id, run in known.items():
        again = found.step(step_id)
        assert again is not None and again.completed_at == run.completed_at, step_id
        assert names.get(step_id, step_id) not in after, step_id
