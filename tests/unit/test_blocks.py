"""Blocks, on a kernel: what authors are told, what operators can mend, and what outlives a crash."""

from __future__ import annotations

import copy
from datetime import datetime, timezone
from typing import Any

import pytest
from defined import see
from automate_kernel import Kernel
from automate_kernel.base.errors import AutomateError, ErrorCodes, WorkflowError
from automate_kernel.templates import EnvironmentResolver, TemplateContext, TemplateEngine
from automate_kernel.workflows import loads
from automate_kernel.workflows.definition.difference import differences_between
from automate_kernel.workflows.definition.graph import to_mermaid, to_svg, to_text
from automate_kernel.workflows.definition.model import Workflow
from automate_kernel.workflows.decide.activation import Activation
from automate_kernel.workflows.decide.advance import advance
from automate_kernel.workflows.decide.turn import CallOutcome, Turn
from automate_kernel.workflows.decide.program import WorkflowProgram, step_input
from automate_kernel.workflows.execution import Event, Execution, ExecutionStatus, StepStatus

ENGINE, ENVIRONMENT = TemplateEngine(), EnvironmentResolver(())
COMPLETED, FAILED = ExecutionStatus.COMPLETED, ExecutionStatus.FAILED


def context(event: Any, execution: Any, steps: Any, extra: Any) -> TemplateContext:
    return TemplateContext(event, execution, steps, ENVIRONMENT, extra)


class Shop:
    """A kernel whose action notes what it does, and fails as long as it is told to."""

    def __init__(self) -> None:
        self.kernel = Kernel(discover=False, secrets={})
        self.done: list[str] = []
        self.broken: set[str] = set()
        self.kernel.action("note")(self.note)

    def note(self, what: str) -> str:
        if what in self.broken:
            raise AutomateError(ErrorCodes.FAILED_PRECONDITION, f"{what} is broken")
        self.done.append(what)
        return f"{what} done"

    def add(self, *steps: dict[str, Any], **more: Any) -> Workflow:
        definition = {"name": "w", "trigger": {"type": "manual"}, "steps": [*steps], **more}
        (workflow,) = self.kernel.add_workflow(definition)
        return workflow

    def see(self, execution_id: str) -> Execution:
        return see(self.kernel, execution_id)


@pytest.fixture
def shop() -> Shop:
    return Shop()


def note(step_id: str, what: str, **more: Any) -> dict[str, Any]:
    return {"id": step_id, "action": "note", "input": {"what": what}, **more}


LINES = {
    "id": "lines",
    "for_each": "{{ event.payload }}",
    "steps": [note("take", "take {{ item }}"), note("charge", "charge {{ item }}")],
}


# -- definitions -----------------------------------------------------------------------------------


def problems(steps: str) -> list[str]:
    with pytest.raises(WorkflowError) as caught:
        loads("name: w\ntrigger: {type: manual}\nsteps:\n" + steps, source="w")
    return [line.strip() for line in str(caught.value).splitlines()[1:]]


@pytest.mark.parametrize(
    ("steps", "problem"),
    [
        (
            "  - {id: a, steps: [{id: b, action: x.y}], retry: {attempts: 2}}",
            "w:4: steps.a: retry means nothing with steps (give retry to the steps inside)",
        ),
        (
            "  - {id: a, steps: [{id: a, action: x.y}]}",
            "w:4: steps.a.steps.a.id: another step is called 'a' (its id differs in the lists"
            " around)",
        ),
        (
            "  - {id: a, switch: x, cases: {p: [{id: b, action: x.y}], q: [{id: b, action: x.y}]}}",
            "w:4: steps.a.cases.q.b.id: another step is called 'b' (its id differs in all cases)",
        ),
        (
            "  - {id: a, steps: [{id: b, action: x.y, compensate: {action: x.z}}]}",
            "w:4: steps.a.steps.b.compensate: a step inside a block is not undone by itself (give"
            " it to the block, or make the block a workflow of its own)",
        ),
        (
            "  - {id: a, switch: [{if: true, steps: [{id: b, action: x.y}]}]}",
            "w:4: steps.a.switch: a switch is a template that gives a value (for example",
        ),
        ("  - {id: a, switch: x}", "w:4: steps.a: a switch has cases (add them: cases: {express:"),
        (
            "  - {id: a, action: x.y, output: 1}",
            "w:4: steps.a: output means nothing without steps or switch (take it out)",
        ),
        (
            "  - {id: a, steps: [{id: b, action: x.y, neds: []}]}",
            "w:4: steps.a.steps.b.neds: there is no such field (did you mean 'needs'?)",
        ),
        (
            "  - {id: a, steps: [{id: b, action: x.y}]}\n"
            '  - {id: c, action: x.y, input: {v: "{{ steps.b.output }}"}}',
            "w:5: steps.c.input.v: names the step 'b', which does not exist (it is inside 'a': name"
            " that, whose output others see)",
        ),
        (
            '  - {id: a, steps: [{id: b, action: x.y, input: {v: "{{ steps.a.output }}"}}]}',
            "w:4: steps.a.steps.b.input.v: names the step 'a', which may not have finished (this"
            " is inside 'a', which ends later)",
        ),
        (
            '  - {id: a, for_each: [1], steps: [{id: b, action: x.y, input: "{{ outer.item }}"}]}',
            "w:4: steps.a.steps.b.input: 'outer' is known where one for_each or loop is inside another only"
            " (use item)",
        ),
    ],
)
def test_a_wrong_block_is_explained(steps: str, problem: str) -> None:
    (found,) = problems(steps)
    assert found.startswith(problem)


def test_blocks_have_a_depth_and_paths_a_length() -> None:
    step: dict[str, Any] = {"id": "s", "action": "x.y"}
    for n in range(5):
        step = {"id": f"b{n}", "steps": [step]}
    ok = {"name": "w", "trigger": {"type": "manual"}, "steps": [step]}
    assert [inner.id for _, inner in Workflow.model_validate(ok).walk()][-1] == "b4.b3.b2.b1.b0.s"
    with pytest.raises(ValueError, match="more than 5 blocks stand in each other"):
        Workflow.model_validate({**ok, "steps": [{"id": "b5", "steps": [step]}]})
    long = {"id": "x" * 100, "steps": [{"id": "y" * 100, "action": "x.y"}]}
    with pytest.raises(ValueError, match="longer than 200 characters"):
        Workflow.model_validate({**ok, "steps": [long]})


def test_names_inside_blocks_are_checked_where_they_are() -> None:
    workflow = loads(
        """
        name: w
        trigger: {type: manual}
        steps:
          - {id: first, action: x.y}
          - id: lines
            for_each: "{{ event.payload }}"
            steps:
              - id: parts
                for_each: "{{ item.parts }}"
                steps: [{id: p, action: x.y, input: {v: "{{ outer.item }} {{ steps.first }}"}}]
                output: "{{ steps.p.output }} {{ outer.index }}"
              - {id: send, switch: "{{ item.kind }}", cases: {a: [{id: q, action: x.y}]}}
            output: "{{ steps.parts.output }} {{ steps.send.output }}"
        output: "{{ steps.lines.output }}"
        """
    )
    assert Workflow.from_dict(workflow.to_dict()) == workflow


def test_pictures_and_differences_show_what_is_inside() -> None:
    old = Workflow.model_validate(
        {"name": "w", "trigger": {"type": "manual"}, "steps": [LINES, _switch()]}
    )
    text = to_text(old)
    assert "· charge  [note]  after take" in text
    assert "red:" in text and "default:" in text
    assert "steps take, charge" in to_mermaid(old) and "switch red" in to_svg(old)
    data = copy.deepcopy(old.to_dict())
    data["steps"][0]["steps"][1]["input"] = {"what": "bill"}
    data["steps"][0]["steps"].insert(0, note("check", "check"))
    data["steps"][1]["cases"]["red"][0]["id"] = "other"
    changes = [str(each) for each in differences_between(old, Workflow.from_dict(data))]
    assert changes[0] == "~ steps.lines.steps.charge.input.what: charge {{ item }} → bill" or (
        changes[0].startswith("+ steps.lines.steps.check")
    )
    assert any(each.startswith("+ steps.lines.steps.check") for each in changes)
    assert any(each.startswith("- steps.choose.cases.red.fly") for each in changes)


def _switch() -> dict[str, Any]:
    return {
        "id": "choose",
        "switch": "{{ event.payload[0] }}",
        "cases": {"red": [note("fly", "fly")], "3": [note("walk", "walk")]},
        "default": [note("swim", "swim")],
    }


# -- runs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "done"), [("red", "fly"), (3, "walk"), (True, "swim")])
def test_a_switch_runs_the_case_of_its_value(shop: Shop, value: Any, done: str) -> None:
    shop.add(_switch(), output="{{ steps.choose.output }}")
    execution = shop.kernel.run("w", [value])
    assert (execution.status, shop.done) == (COMPLETED, [done])
    assert execution.output == f"{done} done"


def test_a_switch_without_a_case_is_skipped_and_what_needs_it(shop: Shop) -> None:
    step = _switch()
    del step["default"]
    shop.add(step, note("after", "after", needs=["choose"]), note("last", "last", needs=[]))
    execution = shop.kernel.run("w", ["grey"])
    assert execution.status is COMPLETED
    statuses = [getattr(execution.step(each), "status", None) for each in ("choose", "after")]
    assert statuses == [StepStatus.SKIPPED, StepStatus.SKIPPED]
    assert shop.done == ["last"]


def test_a_switch_refuses_a_list(shop: Shop) -> None:
    shop.add({**_switch(), "switch": "{{ event.payload }}"})
    execution = shop.kernel.run("w", [])
    assert execution.status is FAILED
    assert "steps.choose.switch gave a list" in str(execution.error)


def test_a_resumed_block_does_only_what_it_has_not_done(shop: Shop) -> None:
    shop.add({**LINES, "concurrency": 3}, note("end", "end"))
    shop.broken = {"charge b"}
    execution = shop.kernel.run("w", ["a", "b", "c"])
    assert execution.status is FAILED
    assert execution.error == (
        "step 'lines' failed: element 1: step 'lines[1].charge' failed: charge b is broken"
    )
    before, shop.broken = list(shop.done), set()
    assert shop.kernel.executions.resume(execution.id)
    shop.kernel.run_until_idle()
    again = shop.done[len(before) :]
    assert shop.see(execution.id).status is COMPLETED
    assert sorted(shop.done) == sorted([*(f"{do} {x}" for do in ("take", "charge") for x in "abc"),
                                        "end"])  # fmt: skip
    assert "charge b" in again and "take b" not in again


def test_a_resume_from_a_block_runs_all_of_it_again(shop: Shop) -> None:
    shop.add(note("first", "first"), LINES)
    execution = shop.kernel.run("w", ["a"])
    assert shop.kernel.executions.resume(execution.id, step_id="lines")
    shop.kernel.run_until_idle()
    assert shop.done == ["first", "take a", "charge a", "take a", "charge a"]
    with pytest.raises(WorkflowError, match="inside the block 'lines' .name the block"):
        shop.kernel.executions.resume(execution.id, step_id="lines[0].take")


def test_a_failed_element_is_tried_again_by_hand(shop: Shop) -> None:
    shop.add({**LINES, "on_failure": "continue"}, note("end", "end"))
    shop.broken = {"charge a"}
    execution = shop.kernel.run("w", ["a"])
    assert execution.status is COMPLETED
    shop.broken = set()
    with pytest.raises(WorkflowError, match="inside the block"):
        shop.kernel.executions.retry_step(execution.id, "lines[0].charge")
    assert shop.kernel.executions.retry_step(execution.id, "lines", 0)
    shop.kernel.run_until_idle()
    assert shop.done == ["take a", "end", "charge a", "end"]


def test_a_fork_copies_blocks_that_ended_with_all_inside(shop: Shop) -> None:
    shop.add(LINES, note("mid", "mid"), {**LINES, "id": "more"}, note("end", "end"))
    execution = shop.kernel.run("w", ["a"])
    del shop.done[:]
    copy_id = shop.kernel.executions.fork(execution.id, "more")
    shop.kernel.run_until_idle()
    assert shop.done == ["take a", "charge a", "end"]
    paths = {run.step_id for run in shop.see(copy_id).steps}
    assert {"lines", "lines[0].take", "more[0].take"} <= paths


def test_a_corrected_definition_must_keep_what_has_completed_inside(shop: Shop) -> None:
    workflow = shop.add(LINES)
    shop.broken = {"charge a"}
    execution = shop.kernel.run("w", ["a"])
    data = copy.deepcopy(workflow.to_dict())
    data["steps"][0]["steps"][0]["id"] = "grab"
    with pytest.raises(AutomateError, match=r"'lines\[0\].take' has completed"):
        shop.kernel.executions.resume(execution.id, definition=Workflow.from_dict(data))
    once = copy.deepcopy(workflow.to_dict())
    del once["steps"][0]["for_each"]
    once["steps"][0]["steps"][0]["input"] = once["steps"][0]["steps"][1]["input"] = {"what": "x"}
    with pytest.raises(AutomateError, match="has completed"):
        shop.kernel.executions.resume(execution.id, definition=Workflow.from_dict(once))
    right = copy.deepcopy(workflow.to_dict())
    right["steps"][0]["steps"][1]["input"] = {"what": "bill {{ item }}"}
    assert shop.kernel.executions.resume(execution.id, definition=Workflow.from_dict(right))
    shop.kernel.run_until_idle()
    assert shop.done == ["take a", "bill a"]


def test_a_block_is_undone_as_a_whole(shop: Shop) -> None:
    undo = {"action": "note", "input": {"what": "undo {{ item }} {{ output }}"}}
    shop.add({**LINES, "compensate": undo}, note("last", "last"))
    shop.broken = {"last"}
    execution = shop.kernel.run("w", ["a", "b"])
    assert execution.status is FAILED
    assert shop.done[-2:] == ["undo b charge b done", "undo a charge a done"]
    shop.broken = set()
    assert shop.kernel.executions.resume(execution.id)
    shop.kernel.run_until_idle()
    assert shop.see(execution.id).status is COMPLETED
    assert shop.done[-5:] == ["take a", "charge a", "take b", "charge b", "last"]


def test_waits_inside_blocks_are_answered_and_cancelled(shop: Shop) -> None:
    shop.add(
        {
            "id": "lines",
            "for_each": "{{ event.payload }}",
            "concurrency": 5,
            "steps": [
                note("before", "before {{ item }}"),
                {"id": "go", "wait_for": {"signal": "go", "if": "{{ signal.payload == item }}"}},
                note("after", "after {{ steps.go.output.payload }}"),
            ],
        }
    )
    one, two = (shop.kernel.start("w", ["a", "b"]) for _ in range(2))
    shop.kernel.run_until_idle()
    assert {run.status for run in shop.see(one).runs_of("lines[1].go")} == {StepStatus.WAITING}
    shop.kernel.signal(one, "go", "b")
    shop.kernel.run_until_idle()
    assert shop.done[-1] == "after b"
    shop.kernel.signal(one, "go", "a")
    shop.kernel.executions.cancel(two)
    shop.kernel.run_until_idle()
    assert shop.see(one).status is COMPLETED
    assert shop.see(two).status is ExecutionStatus.CANCELLED
    assert shop.done.count("after a") == 1
    assert not shop.kernel.executions.waits(two)


def test_people_are_asked_inside_a_block(shop: Shop) -> None:
    """The notice sees the element, and the steps before it in the block."""
    asked: list[str] = []

    @shop.kernel.action("tell")
    def tell(text: str) -> None:
        asked.append(text)

    notify = {
        "action": "tell",
        "input": {"text": "{{ item }}: {{ approval.title }} {{ steps.take.output }}"},
    }
    shop.add(
        {
            "id": "lines",
            "for_each": "{{ event.payload }}",
            "steps": [
                note("take", "take {{ item }}"),
                {
                    "id": "ok",
                    "approval": {"title": "Ship {{ item }}?", "by": "ann", "notify": notify},
                },
                note("ship", "ship {{ item }}"),
            ],
        }
    )
    one = shop.kernel.start("w", ["a"])
    shop.kernel.run_until_idle()
    assert asked == ["a: Ship a? take a done"]
    shop.kernel.approvals.approve(one, "lines[0].ok", by="ann")
    shop.kernel.run_until_idle()
    assert shop.see(one).status is COMPLETED and shop.done[-1] == "ship a"


def test_a_cancelled_block_lets_its_calls_end_and_begins_nothing(shop: Shop) -> None:
    """The element that was called is saved; those that had not begun are not."""
    one = ""

    @shop.kernel.action("stop")
    def stop() -> None:
        shop.kernel.executions.cancel(one)

    shop.add(
        {
            "id": "lines",
            "for_each": [1, 2],
            "steps": [{"id": "stop", "action": "stop"}, note("after", "after")],
        },
        on_cancel=[note("tell", "tell")],
    )
    one = shop.kernel.start("w")
    shop.kernel.run_until_idle()
    execution = shop.see(one)
    assert (execution.status, shop.done) == (ExecutionStatus.CANCELLED, ["tell"])
    assert all(run.status.finished for run in execution.steps)
    assert shop.kernel.executions.resume(one, step_id="lines")


def test_blocks_clean_up(shop: Shop) -> None:
    shop.add(
        note("a", "a"),
        **{"finally": [{"id": "close", "for_each": [1, 2], "steps": [note("c", "close {{ item }}")]}]},
        on_failure=[{"id": "tell", "steps": [note("t", "tell {{ error.message }}")]}],
    )  # fmt: skip
    shop.broken = {"a", "close 2"}
    execution = shop.kernel.run("w", [])
    assert execution.status is FAILED
    assert shop.done == ["tell step 'a' failed: a is broken", "close 1"]
    shop.broken = {"a"}
    assert shop.kernel.executions.retry_step(execution.id, "close", 1)
    shop.kernel.run_until_idle()
    assert shop.done[-1] == "close 2"


def test_the_input_of_a_step_inside_is_shown(shop: Shop) -> None:
    workflow = shop.add(LINES)
    execution = shop.kernel.run("w", ["a", "b"])
    program = WorkflowProgram(workflow, shop.kernel.templates, context)
    assert step_input(program, execution, "lines[1].charge") == {"what": "charge b"}
    for path in ("lines[7].charge", "lines.charge"):
        with pytest.raises(AutomateError) as caught:
            step_input(program, execution, path)
        assert caught.value.code is ErrorCodes.NOT_FOUND


def test_a_dry_run_looks_inside(shop: Shop) -> None:
    shop.add(LINES, _switch(), note("late", "{{ steps.lines.output }}"))
    dry = shop.kernel.dry_run("w", ["red", "b"])
    assert [(one.id, str(one.outcome)) for one in dry.steps] == [
        ("lines", "called"), ("lines[0].take", "called"), ("lines[0].charge", "called"),
        ("choose", "called"), ("choose.fly", "called"), ("late", "called"),
    ]  # fmt: skip
    charge = dry.step("lines[0].charge")
    assert charge is not None and charge.calls[0].input == {"what": "charge red"}
    shop.add(note("first", "x"), {**LINES, "for_each": "{{ steps.first.output }}"}, name="v")
    unknown = shop.kernel.dry_run("v").step("lines[0].take")
    assert unknown is not None and unknown.depends_on == ["item"]


# -- crashes ---------------------------------------------------------------------------------------


def _program(*steps: dict[str, Any]) -> WorkflowProgram:
    definition = {"name": "w", "trigger": {"type": "manual"}, "steps": [*steps]}
    return WorkflowProgram(Workflow.model_validate(definition), ENGINE, context)


def _flow(program: WorkflowProgram, saved: Any = ()) -> Any:
    """Return the turns of an execution of which some runs are saved."""
    event = Event(id="v", name="w", payload=["red"])
    execution = Execution(id="e", name="w", definition_id="d", event=event, steps=list(saved))
    now = datetime.now(timezone.utc)
    return advance(program, Activation(execution=execution, waits={}, now=now))


def _after_a_crash(program: WorkflowProgram, step_id: str, **ended: Any) -> tuple[Turn, Any]:
    """Return the first turn after a crash, before which one call had ended, and what it saved."""
    flow = _flow(program)
    (call,) = (each for each in next(flow).calls if each.run.step_id == step_id)
    saved = copy.deepcopy(flow.send(([CallOutcome(call, **ended)], 0.0)).saves)
    return next(_flow(program, saved)), saved


def test_what_failed_inside_before_a_crash_fails_the_block_after_it() -> None:
    """Saved while the call beside it went on, which the crash has cut off."""
    block = {"id": "b", "steps": [note("x", "x"), note("y", "y", needs=[]),
                                  note("z", "z", needs=["y"])]}  # fmt: skip
    error = AutomateError(ErrorCodes.INTERNAL, "no")
    turn, saved = _after_a_crash(_program(block), "b.y", error=error)
    assert {run.key for run in saved} == {("b", -1), ("b.y", -1)}
    assert turn.end is FAILED and not turn.calls


@pytest.mark.parametrize(
    "block",
    [
        {"if": "{{ steps.a is not defined }}", "steps": [note("x", "x"), note("y", "y")]},
        {"switch": "{{ steps.a is not defined }}", "default": [note("q", "q")],
         "cases": {"true": [note("x", "x"), note("y", "y")]}},
    ],
    ids=["condition", "switch"],
)  # fmt: skip
def test_what_was_decided_holds_after_a_crash(block: dict[str, Any]) -> None:
    """It was decided before the step beside it ended."""
    program = _program(note("a", "a"), {"id": "b", "needs": [], **block})
    turn, _ = _after_a_crash(program, "a", output=1)
    assert [call.run.step_id for call in turn.calls] == ["b.x"]


def test_a_flat_workflow_saves_no_more_than_before() -> None:
    """A block's own row comes with the rows of its steps: it costs no turn of its own."""
    flow = _flow(_program({"id": "b", "steps": [note("x", "x")]}))
    turn = next(flow)
    assert not turn.saves and len(turn.calls) == 1
    turn = flow.send(([CallOutcome(turn.calls[0], output=1)], 0.0))
    assert {run.key for run in turn.saves} == {("b", -1), ("b.x", -1)} and turn.end is COMPLETED
