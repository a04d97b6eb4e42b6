"""
Sub-workflows of a parent that goes on: which of them go on from their own record, and which begin anew.

In YAML and in code alike. A child pays before it goes; what goes on does not pay again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from clocked_world import ClockedWorld

from automate_kernel import Kernel, WorkflowContext
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.storage import Storage
from automate_testing.clock import FakeClock
from automate_kernel.workflows import RetryPolicy, load_workflow
from automate_kernel.workflows.decide.waits import ADVANCE, SIGNAL
from automate_kernel.workflows.execution import Execution

pytestmark = pytest.mark.any_storage

YAML, CODE = "yaml", "code"
LANGUAGES = [YAML, CODE]
CALL = {"id": "sub", "workflow": "child", "input": {"n": "{{ event.payload.n }}"}}


class World(ClockedWorld):
    """Processes on one storage, each with what was deployed with it; the test moves the clock."""

    def __init__(self, storage: Storage, clock: FakeClock) -> None:
        self.storage, self.clock = storage, clock
        self.called: list[str] = []
        self.broken: set[str] = set()
        self.deploy()

    def deploy(self) -> None:
        """Let a new process take over, without workflows so far."""
        self.kernel = Kernel(self.storage, discover=False, secrets={}, lease_seconds=30.0)
        self.kernel.action("do")(self.do)
        self.executions = self.kernel.executions

    def do(self, what: str) -> str:
        self.called.append(what)
        if what in self.broken:
            raise AutomateError(ErrorCodes.NOT_FOUND, f"{what} is broken")
        return what

    def add(self, name: str, *steps: dict[str, Any], **more: Any) -> None:
        self.kernel.add_workflow(definition(name, *steps, **more))

    def add_child(
        self, language: str, name: str = "child", mark: str = "", version: int = 1
    ) -> None:
        """Add a workflow that pays, and then goes; *mark* and *version* make it another one."""
        if language == YAML:
            pay, go = (
                do(word, f"{word} {{{{ event.payload.n }}}}{mark}") for word in ("pay", "go")
            )
            self.add(name, pay, go, output="{{ steps.go.output }}")
            return

        async def child(ctx: WorkflowContext, given: dict[str, Any]) -> str:
            await ctx.call("do", what=f"pay {given['n']}{mark}")
            return str(await ctx.call("do", what=f"go {given['n']}{mark}"))

        self.kernel.workflow(name=name, version=version)(child)

    def add_slow_child(self, form: str, time: str) -> None:
        """Add a child that pays and then sleeps for a *time*."""
        if form == YAML:
            self.add("child", do("pay", "pay"), {"id": "nap", "sleep": time}, output="slept")
            return

        async def slow(ctx: WorkflowContext, given: Any) -> str:
            await ctx.call("do", what="pay")
            await ctx.sleep(time)
            return "slept"

        self.kernel.workflow(name="child")(slow)

    def add_parent(self, language: str, name: str = "parent", child: str = "child") -> None:
        """Add a workflow that does something, and starts *child*, whose output it gives."""
        if language == YAML:
            self.add(name, do("first", name), {**CALL, "workflow": child},
                     output="{{ steps.sub.output }}")  # fmt: skip
            return

        async def parent(ctx: WorkflowContext, given: dict[str, Any]) -> Any:
            await ctx.call("do", what=name)
            return await ctx.child(child, {"n": given["n"]}, name="sub")

        self.kernel.workflow(name=name)(parent)

    def start(self, name: str = "parent", n: Any = 1) -> str:
        execution_id = self.kernel.start(name, {"n": n})
        self.kernel.run_until_idle()
        return execution_id

    def fail(self, name: str = "parent", n: Any = 1) -> str:
        """Start an execution that fails, and mend what has broken it."""
        execution_id = self.start(name, n)
        assert self.status(execution_id) == "FAILED"
        self.broken.clear()
        self.called.clear()
        return execution_id

    def resume(self, execution_id: str, **options: Any) -> None:
        assert self.executions.resume(execution_id, **options)
        self.kernel.run_until_idle()

    def status(self, execution_id: str) -> str:
        return str(self.see(execution_id).status)

    def children(self, parent_id: str) -> list[str]:
        """Return the statuses of the sub-workflows of an execution, in their order."""
        found = [one for one in self.executions.find(limit=1000) if one.parent_id == parent_id]
        return sorted(str(one.status) for one in found)

    def child(self, parent_id: str) -> Execution:
        (found,) = (one for one in self.executions.find() if one.parent_id == parent_id)
        return found

    def ends(self, execution_id: str, output: Any, called: list[str]) -> None:
        """It has completed with that *output*, and these calls were made since it had failed."""
        found = self.see(execution_id)
        assert (str(found.status), found.output) == ("COMPLETED", output), found.error
        assert sorted(self.called) == sorted(called)


def definition(name: str, *steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "trigger": {"type": "manual"}, "steps": list(steps), **more}


def do(step_id: str, what: str, **more: Any) -> dict[str, Any]:
    return {"id": step_id, "action": "do", "input": {"what": what}, **more}


@pytest.fixture
def world(clocked_storage: Storage, clock: FakeClock) -> World:
    return World(clocked_storage, clock)


both = pytest.mark.parametrize(
    ("parent", "child"), [(YAML, YAML), (YAML, CODE), (CODE, YAML), (CODE, CODE)]
)


# -- what goes on ----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["resume", "retry_step"])
@both
def test_it_goes_on_at_all_levels(world: World, parent: str, child: str, how: str) -> None:
    """Neither its own steps that have completed are done again, nor those of who waits for it."""
    world.add_child(child)
    world.add_parent(parent)
    world.add_parent(child, "root", "parent")
    world.broken.add("go 1")
    one = world.start("root")
    assert world.executions.resume(one)
    world.kernel.run_until_idle()
    assert world.status(one) == "FAILED"  # once more, since nothing was mended
    world.broken.clear()
    world.called.clear()
    if how == "resume":
        world.resume(one)
    else:
        assert world.executions.retry_step(one, "sub")
        world.kernel.run_until_idle()
    world.ends(one, "go 1", ["go 1"])
    assert len(world.executions.find()) == 3


@both
def test_one_that_an_operator_has_cancelled_goes_on(world: World, parent: str, child: str) -> None:
    """Its parent's step has failed with that."""
    world.add_slow_child(child, "1h")
    world.add_parent(parent)
    one = world.start()
    assert world.executions.cancel(world.child(one).id)
    world.kernel.run_until_idle()
    assert (world.status(one), world.see(one).error_code) == ("FAILED", "CANCELLED")
    world.called.clear()
    world.resume(one)
    world.later(3601)
    world.ends(one, "slept", [])
    assert world.children(one) == ["COMPLETED"]


@pytest.mark.parametrize("child", LANGUAGES)
def test_one_beside_a_failed_one_goes_on(world: World, child: str) -> None:
    """It was cancelled for that; and one that had completed is not touched."""
    world.add_child(child)
    world.add("slow", do("pay", "pay slow"), {"id": "nap", "sleep": "1h"}, output="slept")
    world.add(
        "parent", {**CALL, "id": "done", "input": {"n": 7}}, {**CALL, "needs": ["done"]},
        {"id": "slow", "workflow": "slow", "needs": ["done"]},
        output=["{{ steps.done.output }}", "{{ steps.sub.output }}", "{{ steps.slow.output }}"],
    )  # fmt: skip
    world.broken.add("go 1")
    one = world.fail()
    assert world.children(one) == ["CANCELLED", "COMPLETED", "FAILED"]
    world.resume(one)
    world.later(3601)
    world.ends(one, ["go 7", "go 1", "slept"], ["go 1"])
    assert world.children(one) == ["COMPLETED"] * 3


def test_one_that_is_not_cancelled_yet_begins_anew(world: World) -> None:
    """Who resumes is quicker than the worker that cancels it: that one ends all the same."""
    world.add_child(YAML)
    world.add("slow", do("pay", "pay slow"), {"id": "nap", "sleep": "1h"}, output="slept")
    world.add("parent", CALL, {"id": "slow", "workflow": "slow", "needs": []})
    world.broken.add("go 1")
    one = world.kernel.start("parent", {"n": 1})
    world.kernel.run_until_idle(kinds=[ADVANCE, SIGNAL])
    assert world.children(one) == ["FAILED", "RUNNING"]
    world.broken.clear()
    world.called.clear()
    world.resume(one)
    world.later(3601)
    world.ends(one, None, ["go 1", "pay slow"])
    assert world.children(one) == ["CANCELLED", "COMPLETED", "COMPLETED"]


@pytest.mark.parametrize("how", ["resume", "retry_step"])
@pytest.mark.parametrize("child", LANGUAGES)
def test_of_a_list_each_goes_on_that_has_not_completed(world: World, child: str, how: str) -> None:
    """The element that is retried by hand too, and those that were cancelled for it."""
    world.add_child(child)
    world.add("parent", {**CALL, "for_each": "{{ event.payload.n }}", "concurrency": 1,
                         "input": {"n": "{{ item }}"}}, output="{{ steps.sub.output }}")  # fmt: skip
    world.broken.add("go 2")
    one = world.fail(n=[1, 2, 3])
    if how == "resume":
        world.resume(one)
    else:
        assert world.executions.retry_step(one, "sub", 1)
        world.kernel.run_until_idle()
    world.ends(one, ["go 1", "go 2", "go 3"], ["go 2", "pay 3", "go 3"])
    assert world.children(one) == ["COMPLETED"] * 3


def test_of_a_gather_each_goes_on_that_has_failed(world: World) -> None:
    """Also one that a coroutine among its members has begun."""
    world.add_child(YAML)

    async def parent(ctx: WorkflowContext, given: dict[str, Any]) -> list[Any]:
        async def member(n: int) -> Any:
            await ctx.call("do", what=f"member {n}")
            return await ctx.child("child", {"n": n})

        plain = [ctx.child("child", {"n": n}) for n in (1, 2)]
        return list(await ctx.gather(*plain, member(3), member(4)))

    world.kernel.workflow(parent)
    world.broken |= {"go 2", "go 3"}
    one = world.fail()
    world.resume(one)
    world.ends(one, ["go 1", "go 2", "go 3", "go 4"], ["go 2", "go 3"])
    assert world.children(one) == ["COMPLETED"] * 4


AROUND: dict[str, dict[str, Any]] = {
    "list": {"id": "box", "for_each": [1, 2]},
    "case": {"id": "box", "for_each": [1, 2]},
    "rounds": {"id": "box", "while": "{{ index < 2 }}"},
}


@pytest.mark.parametrize("around", [*AROUND, "step"])
@pytest.mark.parametrize("child", LANGUAGES)
def test_inside_of_what_repeats_it_goes_on(world: World, child: str, around: str) -> None:
    """With the element or round that failed; what has completed inside is not done again."""
    world.add_child(child)
    before = "before {{ index }}"
    inside = [do("before", before), {**CALL, "input": {"n": "{{ index }}"}}]
    if around == "case":
        inside = [{"id": "way", "switch": "x", "cases": {"x": inside}}]
    step = {**AROUND.get(around, {}), "steps": inside}
    if around == "step":
        step = {**inside[1], "while": "{{ index < 2 }}"}
    world.add("parent", step)
    world.broken.add("go 1")
    one = world.fail()
    world.resume(one)
    world.ends(one, None, ["go 1"])
    assert world.children(one) == ["COMPLETED"] * 2


@both
def test_of_several_attempts_the_last_goes_on(world: World, parent: str, child: str) -> None:
    """Each was an execution of its own; those before stay as they ended."""
    world.add_child(child)
    retry: dict[str, Any] = {"attempts": 2, "delay": "1s", "jitter": False, "on": ["NOT_FOUND"]}
    if parent == YAML:
        world.add("parent", {**CALL, "retry": retry}, output="{{ steps.sub.output }}")
    else:

        async def coded(ctx: WorkflowContext, given: dict[str, Any]) -> Any:
            return await ctx.child("child", given, retry=RetryPolicy(**retry))

        world.kernel.workflow(name="parent")(coded)
    world.broken.add("go 1")
    one = world.start()
    world.later(2)
    assert world.children(one) == ["FAILED", "FAILED"]
    world.broken.clear()
    world.called.clear()
    world.resume(one)
    world.ends(one, "go 1", ["go 1"])
    assert world.children(one) == ["COMPLETED", "FAILED"]


@both
def test_one_that_the_parents_time_has_ended_goes_on(world: World, parent: str, child: str) -> None:
    """It was cancelled with its parent, which has all its time again."""
    world.add_slow_child(child, "90m")
    if parent == YAML:
        world.add("parent", {**CALL, "input": {}}, timeout="1h", output="{{ steps.sub.output }}")
    else:

        async def coded(ctx: WorkflowContext, given: Any) -> Any:
            return await ctx.child("child", {})

        world.kernel.workflow(name="parent", timeout="1h")(coded)
    one = world.start()
    world.later(3601)
    assert (world.status(one), world.children(one)) == ("FAILED", ["CANCELLED"])
    world.called.clear()
    world.resume(one)
    assert (world.children(one), world.called) == (["RUNNING"], [])


@pytest.mark.parametrize("child", LANGUAGES)
def test_one_whose_failure_was_no_matter_goes_on_with_the_others(world: World, child: str) -> None:
    """Of a definition `resume` runs such a step again too, and `retry_step` of another one not."""
    world.add_child(child)
    for name in ("parent", "other"):
        world.add(name, {**CALL, "on_failure": "continue"}, do("last", "last"))
    for name in ("parent", "other"):
        world.broken |= {"go 1", "last"}
        one = world.fail(name)
        if name == "parent":
            world.resume(one)
            world.ends(one, None, ["go 1", "last"])
        else:
            assert world.executions.retry_step(one, "last")
            world.kernel.run_until_idle()
            world.ends(one, None, ["last"])
            assert world.children(one) == ["FAILED"]


@both
def test_one_that_goes_on_is_cancelled_with_its_parent(
    world: World, parent: str, child: str
) -> None:
    """As one that has begun with it; and one that was not reached yet stays as it had ended."""
    if child == YAML:
        world.add("child", do("go", "go"), {"id": "nap", "sleep": "1h"})
    else:

        async def slow(ctx: WorkflowContext, given: Any) -> None:
            await ctx.call("do", what="go")
            await ctx.sleep("1h")

        world.kernel.workflow(name="child")(slow)
    world.add_parent(parent)
    for reached in (True, False):
        world.broken.add("go")
        one = world.fail()
        assert world.executions.resume(one)
        if reached:
            world.kernel.run_until_idle()
            assert world.children(one) == ["RUNNING"]
        assert world.executions.cancel(one)
        world.kernel.run_until_idle()
        assert world.status(one) == "CANCELLED"
        assert world.children(one) == ["CANCELLED" if reached else "FAILED"]


@pytest.mark.parametrize("parent", LANGUAGES)
def test_one_that_goes_on_waits_for_its_place(world: World, parent: str) -> None:
    """As a resumed execution does: as many go on at once as may."""
    world.add("child", do("pay", "pay {{ event.payload.n }}"), do("go", "go {{ event.payload.n }}"),
              {"id": "nap", "sleep": "1h"}, concurrency={"limit": 1}, output="slept")  # fmt: skip
    world.add_parent(parent)
    world.broken.add("go 1")
    one = world.fail()
    other = world.start(n=2)
    assert world.children(other) == ["RUNNING"]
    world.called.clear()
    world.resume(one)
    assert (world.children(one), world.called) == (["PENDING"], [])
    world.later(3601)
    assert (world.status(other), world.children(one)) == ("COMPLETED", ["RUNNING"])
    world.later(3601)
    world.ends(one, "slept", ["go 1"])


# -- what begins anew ------------------------------------------------------------------------------


@both
def test_with_step_id_it_begins_anew(world: World, parent: str, child: str) -> None:
    """From the step itself, and from one that it follows from; also of a parent that succeeded."""
    world.add_child(child)
    world.add_parent(parent)
    first = "first" if parent == YAML else "do"
    for step_id, again in (("sub", []), (first, ["parent"])):
        world.broken.add("go 1")
        one = world.fail()
        world.resume(one, step_id=step_id)
        world.ends(one, "go 1", [*again, "pay 1", "go 1"])
        assert world.children(one) == ["COMPLETED", "FAILED"]
        world.called.clear()
        world.resume(one, step_id=step_id)
        world.ends(one, "go 1", [*again, "pay 1", "go 1"])


def test_with_the_step_id_of_another_one_it_goes_on(world: World) -> None:
    """That runs again; the one that failed beside it does not follow from it."""
    world.add_child(YAML)
    world.add("parent", do("other", "other"), {**CALL, "needs": []})
    world.broken.add("go 1")
    one = world.fail()
    world.resume(one, step_id="other")
    world.ends(one, None, ["other", "go 1"])
    assert world.children(one) == ["COMPLETED"]


@both
def test_of_a_cancelled_parent_it_begins_anew(world: World, parent: str, child: str) -> None:
    """Such a parent goes on from a step that is named."""
    world.add("slow", {"id": "nap", "sleep": "1h"})
    world.add_child(child)
    world.add_parent(parent, "parent", "slow")
    one = world.start()
    world.executions.cancel(one)
    world.kernel.run_until_idle()
    assert world.executions.resume(one) is False
    world.resume(one, step_id="sub")
    assert world.children(one) == ["CANCELLED", "RUNNING"]


@pytest.mark.parametrize("child", LANGUAGES)
def test_with_another_input_it_begins_anew(world: World, child: str) -> None:
    """In code as in a definition; of a list the element alone whose input is another one."""
    world.add_child(child)
    each = {**CALL, "for_each": [1, 2, 3], "concurrency": 3, "input": {"n": "{{ item }}"}}
    world.add("parent", each, output="{{ steps.sub.output }}")
    world.broken |= {"go 2", "go 3"}
    one = world.fail()
    ended = world.children(one)
    changed = {**each, "input": {"n": "{{ 20 if item == 2 else item }}"}}
    world.resume(one, definition=load_workflow(
        definition("parent", changed, output="{{ steps.sub.output }}")))  # fmt: skip
    assert world.see(one).output[1] == "go 20" and "pay 20" in world.called
    assert "pay 2" not in world.called and len(world.children(one)) == len(ended) + 1


@pytest.mark.parametrize("child", LANGUAGES)
def test_code_that_gives_another_input_begins_it_anew(world: World, child: str) -> None:
    inputs = [{"n": 1}]

    async def parent(ctx: WorkflowContext, given: Any) -> Any:
        return await ctx.child("child", inputs[0])

    world.add_child(child)
    world.kernel.workflow(parent)
    world.broken.add("go 1")
    one = world.fail()
    inputs[0] = {"n": 2}
    world.resume(one)
    world.ends(one, "go 2", ["pay 2", "go 2"])
    assert world.children(one) == ["COMPLETED", "FAILED"]


@both
def test_of_another_definition_it_begins_anew(world: World, parent: str, child: str) -> None:
    """Of code that is another version: the same version goes on with whatever code there is."""
    for again in (True, False):
        world.deploy()
        world.add_child(child)
        world.add_parent(parent)
        world.broken.add("go 1")
        one = world.fail()
        world.deploy()
        if child == CODE or not again:
            world.add_child(child)
        if again:
            world.add_child(child, mark="!", version=2)
        world.add_parent(parent)
        world.resume(one)
        if again:
            world.ends(one, "go 1!", ["pay 1!", "go 1!"])
        else:
            world.ends(one, "go 1", ["go 1"])
        world.called.clear()


@both
def test_each_level_is_decided_by_itself(world: World, parent: str, child: str) -> None:
    """The grandchild of another definition begins anew, and its parent goes on from its record."""
    world.add_child(child)
    world.add_parent(parent)
    world.add_parent(YAML, "root", "parent")
    world.broken.add("go 1")
    one = world.fail("root")
    world.deploy()
    world.add_child(child, mark="!", version=2)
    world.add_parent(parent)
    world.add_parent(YAML, "root", "parent")
    world.resume(one)
    world.ends(one, "go 1!", ["pay 1!", "go 1!"])
    assert world.children(one) == ["COMPLETED"]
    assert world.children(world.child(one).id) == ["COMPLETED", "FAILED"]


@pytest.mark.parametrize("how", ["failed", "cancelled"])
@pytest.mark.parametrize("child", LANGUAGES)
def test_one_that_has_undone_its_work(world: World, child: str, how: str) -> None:
    """
    In code it begins anew: what of it was undone is not known. A definition does that again.

    Whether it has failed, or was cancelled since one beside it has.
    """
    if child == YAML:
        undone = do("pay", "pay", compensate={"action": "do", "input": {"what": "pay back"}})
        world.add("child", do("look", "look"), {**undone, "needs": []}, do("go", "go"),
                  {"id": "nap", "sleep": "1m"}, output="paid")  # fmt: skip
    else:

        async def coded(ctx: WorkflowContext, given: Any) -> str:
            await ctx.call("do", what="look")
            await ctx.call("do", what="pay")
            with ctx.compensate(world.do, "pay back"):
                await ctx.call("do", what="go")
                await ctx.sleep("1m")
            return "paid"

        world.kernel.workflow(name="child")(coded)
    late = {"id": "late", "sleep": "10s", "needs": []}
    world.add("parent", {**CALL, "input": {}}, late, do("beside", "beside", needs=["late"]),
              output="{{ steps.sub.output }}")  # fmt: skip
    world.broken.add("go" if how == "failed" else "beside")
    one = world.start()
    world.later(11)
    assert world.status(one) == "FAILED" and "pay back" in world.called
    world.broken.clear()
    world.called.clear()
    world.resume(one)
    world.later(11)
    world.later(61)
    beside = ["beside"]
    if child == YAML:
        world.ends(one, "paid", ["pay", "go", *beside])
        assert world.children(one) == ["COMPLETED"]
    else:
        world.ends(one, "paid", ["look", "pay", "go", *beside])
        assert world.children(one) == ["CANCELLED" if how == "cancelled" else "COMPLETED",
                                       "COMPLETED" if how == "cancelled" else "FAILED"]  # fmt: skip


@pytest.mark.parametrize("parent", LANGUAGES)
def test_one_with_steps_after_its_failure_begins_anew(world: World, parent: str) -> None:
    """In code somebody would have to name the step to go on from."""

    async def coded(ctx: WorkflowContext, given: Any) -> Any:
        await ctx.call("do", what="pay")
        try:
            return await ctx.call("do", what="go")
        finally:
            await ctx.call("do", what="close")

    world.kernel.workflow(name="child")(coded)
    world.add_parent(parent)
    world.broken.add("go")
    one = world.fail()
    world.resume(one)
    world.ends(one, "go", ["pay", "go", "close"])
    assert world.children(one) == ["COMPLETED", "FAILED"]


@pytest.mark.parametrize("parent", LANGUAGES)
def test_one_whose_step_was_undone_begins_anew(world: World, parent: str) -> None:
    """It had completed, and its parent has undone it: so it is done again, as another execution."""
    world.add_child(YAML)
    if parent == YAML:
        undone = {**CALL, "compensate": {"action": "do", "input": {"what": "pay back"}}}
        world.add("parent", undone, do("last", "last"))
    else:

        async def coded(ctx: WorkflowContext, given: dict[str, Any]) -> None:
            await ctx.child("child", given, name="sub")
            with ctx.compensate(world.do, "pay back"):
                await ctx.call("do", what="last")

        world.kernel.workflow(name="parent")(coded)
    world.broken.add("last")
    one = world.fail()
    world.resume(one, **({} if parent == YAML else {"step_id": "sub"}))
    world.ends(one, None, ["pay 1", "go 1", "last"])
    assert world.children(one) == ["COMPLETED"] * 2


CHANGES: dict[str, dict[str, Any]] = {
    "another workflow": {"workflow": "other"},
    "another step": {"id": "moved"},
    "no wait": {"wait": False},
}


@pytest.mark.parametrize("change", list(CHANGES))
def test_of_a_step_that_is_another_one_it_begins_anew(world: World, change: str) -> None:
    """The corrected definition of the parent has another one in its place."""
    world.add_child(YAML)
    world.add_child(YAML, "other", mark="!")
    world.add("parent", CALL)
    world.broken.add("go 1")
    one = world.fail()
    corrected = definition("parent", {**CALL, **CHANGES[change]})
    world.resume(one, definition=load_workflow(corrected))
    mark = "!" * (change == "another workflow")
    world.ends(one, None, [f"pay 1{mark}", f"go 1{mark}"])
    assert "FAILED" in world.children(one)


@pytest.mark.parametrize("how", ["resume", "retry_step"])
@pytest.mark.parametrize("child", LANGUAGES)
def test_under_finally_it_begins_anew(world: World, child: str, how: str) -> None:
    """What cleans up runs once more at the new end, whatever it had come to."""
    world.add_child(child)
    world.add("parent", do("own", "own"), **{"finally": [CALL]})
    world.broken.add("go 1")
    one = world.fail()
    if how == "resume":
        world.resume(one)
    else:
        assert world.executions.retry_step(one, "sub")
        world.kernel.run_until_idle()
    world.ends(one, None, ["pay 1", "go 1"])
    assert world.children(one) == ["COMPLETED", "FAILED"]


@both
def test_of_a_copy_it_begins_anew(world: World, parent: str, child: str) -> None:
    """That of the original stays the original's."""
    world.add_child(child)
    world.add_parent(parent)
    world.broken.add("go 1")
    one = world.fail()
    copy = world.executions.fork(one, "sub")
    world.kernel.run_until_idle()
    world.ends(copy, "go 1", ["pay 1", "go 1"])
    assert (world.children(one), world.children(copy)) == (["FAILED"], ["COMPLETED"])
    world.called.clear()
    world.resume(one)
    world.ends(one, "go 1", ["go 1"])


@pytest.mark.parametrize("parent", LANGUAGES)
def test_one_that_nobody_waits_for_is_left_alone(world: World, parent: str) -> None:
    """Its step has completed: it is neither started again nor resumed, whatever became of it."""
    world.add_child(YAML)
    if parent == YAML:
        world.add("parent", {**CALL, "wait": False}, do("last", "last"))
    else:

        async def coded(ctx: WorkflowContext, given: dict[str, Any]) -> None:
            await ctx.start("child", given)
            await ctx.call("do", what="last")

        world.kernel.workflow(name="parent")(coded)
    world.broken |= {"go 1", "last"}
    one = world.fail()
    world.resume(one)
    world.ends(one, None, ["last"])
    assert [str(each.status) for each in world.executions.find(workflow="child")] == ["FAILED"]


# -- the definitions that they begin with ----------------------------------------------------------


@both
def test_a_parent_keeps_its_definition_and_its_child_has_that_of_the_moment(
    world: World, parent: str, child: str
) -> None:
    def deploy(mark: str, version: int) -> None:
        world.deploy()
        if child == CODE and version == 2:
            world.add_child(child)
        world.add_child(child, mark=mark, version=version)
        if parent == YAML:
            world.add("parent", {"id": "nap", "sleep": "1h"}, CALL,
                      output=f"{{{{ steps.sub.output }}}} {mark}")  # fmt: skip
            return
        for each in range(1, version + 1):
            world.kernel.workflow(name="parent", version=each)(coded(mark if each == 2 else ""))

    def coded(mark: str) -> Callable[..., Any]:
        async def function(ctx: WorkflowContext, given: dict[str, Any]) -> str:
            await ctx.sleep("1h")
            return f"{await ctx.child('child', given)} {mark}"

        return function

    deploy("", 1)
    one = world.start()
    deploy("!", 2)
    world.later(3601)
    assert str(world.see(one).output).strip() == "go 1!"
