"""Loops, on a kernel: rounds and their pauses, what operators can do, and what is kept of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from defined import see
from automate_kernel import Kernel, signals
from automate_kernel.base.errors import AutomateError, ErrorCodes, WorkflowError
from automate_kernel.storage.query import Where
from automate_kernel.storage.tables import STEP
from automate_kernel.templates import EnvironmentResolver, TemplateContext, TemplateEngine
from automate_testing import WorkflowTest
from automate_kernel.workflows import loads
from automate_kernel.workflows.definition.difference import differences_between
from automate_kernel.workflows.definition.graph import to_mermaid, to_text
from automate_kernel.workflows.definition.model import Step, Workflow
from automate_kernel.workflows.decide.advance import KEPT_ROUNDS
from automate_kernel.workflows.decide.program import WorkflowProgram, step_input
from automate_kernel.workflows.execution import Execution, ExecutionStatus, StepStatus

COMPLETED, FAILED = ExecutionStatus.COMPLETED, ExecutionStatus.FAILED


def define(*steps: dict[str, Any], **more: Any) -> Workflow:
    definition = {"name": "w", "trigger": {"type": "manual"}, "steps": [*steps], **more}
    return Workflow.model_validate(definition)


class Works:
    """A kernel with a job that is done after some looks, and actions that note what they do."""

    def __init__(self) -> None:
        self.kernel = Kernel(discover=False, secrets={})
        self.looks = 0
        self.done_after = 3
        self.broken: set[int] = set()
        self.done: list[Any] = []
        self.kernel.action("job.status")(self.status)
        self.kernel.action("note")(self.note)

    def status(self) -> dict[str, Any]:
        self.looks += 1
        if self.looks in self.broken:
            self.broken.discard(self.looks)
            raise AutomateError(ErrorCodes.FAILED_PRECONDITION, f"look {self.looks} failed")
        return {"done": self.looks >= self.done_after, "look": self.looks}

    def note(self, what: Any) -> Any:
        self.done.append(what)
        return what

    def add(self, *steps: dict[str, Any], **more: Any) -> Workflow:
        (workflow,) = self.kernel.add_workflow(define(*steps, **more))
        return workflow

    def see(self, execution_id: str) -> Execution:
        return see(self.kernel, execution_id)

    def rows(self, execution_id: str) -> list[tuple[str, int]]:
        with self.kernel.storage.begin(atomic=False) as rows:
            found = rows.select(STEP, [Where("execution_id", "eq", execution_id)])
        return sorted((row["step_id"], row["position"]) for row in found)


@pytest.fixture
def works() -> Works:
    return Works()


@pytest.fixture
def test(works: Works) -> Iterator[WorkflowTest]:
    with WorkflowTest(works.kernel) as test:
        yield test


POLL = {"id": "poll", "action": "job.status", "until": "{{ output.done }}", "every": "30s"}
OUTPUT = "{{ steps.poll.output }}"


# -- rounds ----------------------------------------------------------------------------------------


def test_a_step_is_repeated_until_its_output_is_right(works: Works, test: WorkflowTest) -> None:
    """Between two rounds the execution is deferred, as one item that waits for its time."""
    works.add(POLL, output=OUTPUT)
    execution = test.start("w")
    for looks in (1, 2):
        assert works.looks == looks
        seen = works.see(execution.id)
        pausing = seen.step("poll")
        assert pausing is not None and pausing.status is StepStatus.WAITING
        assert pausing.next_attempt_at is not None
        test.pass_time("29s")
        assert works.looks == looks
        test.pass_time("1s")
    seen = works.see(execution.id)
    assert seen.status is COMPLETED and seen.output == {"done": True, "look": 3}
    assert works.rows(execution.id) == [("poll", -1), ("poll", 0), ("poll", 1), ("poll", 2)]


def test_a_block_sees_the_round_and_the_output_of_the_one_before(works: Works) -> None:
    works.add(
        {
            "id": "sum",
            "until": "{{ steps.add.output >= 10 or index > 8 }}",
            "steps": [
                {
                    "id": "add",
                    "action": "note",
                    "input": {"what": "{{ (last or {'n': 0}).n + index + 1 }}"},
                }
            ],
            "output": {"n": "{{ steps.add.output }}", "rounds": "{{ index + 1 }}"},
        },
        output="{{ steps.sum.output }}",
    )
    assert works.kernel.run("w").output == {"n": 10, "rounds": 4}
    assert works.done == [1, 3, 6, 10]


def test_while_decides_before_each_round_and_may_let_none_begin(works: Works) -> None:
    note = {"id": "each", "action": "note", "input": {"what": "{{ index }}"}}
    works.add({**note, "while": "{{ index < event.payload }}"}, output="{{ steps.each.output }}")
    assert works.kernel.run("w", 3).output == 2
    none = works.kernel.run("w", 0)
    assert none.status is COMPLETED and none.output is None
    assert works.done == [0, 1, 2]


def test_loops_and_lists_nest_and_see_each_other(works: Works) -> None:
    inner = {
        "id": "inner",
        "while": "{{ index < 2 }}",
        "action": "note",
        "input": {"what": "{{ outer.item }}/{{ index }}/{{ outer.outer.index }}"},
    }
    each = {"id": "each", "for_each": ["a", "b"], "steps": [inner]}
    works.add({"id": "outer", "until": "{{ index == 1 }}", "steps": [each]})
    assert works.kernel.run("w").status is COMPLETED
    assert works.done == [f"{x}/{n}/{r}" for r in (0, 1) for x in "ab" for n in (0, 1)]


def test_a_pause_may_grow(works: Works, test: WorkflowTest) -> None:
    works.add({**POLL, "every": "{{ 10 * 2 ** index }}"})
    test.start("w")
    test.pass_time("20s")
    assert works.looks == 2
    test.pass_time("39s")
    assert works.looks == 2
    test.pass_time("1s")
    assert works.looks == 3


def test_a_pause_that_is_none_fails_the_step(works: Works) -> None:
    works.add({**POLL, "every": "{{ 'soon' }}"})
    assert "steps.poll.every: 'soon' is not a duration" in str(works.kernel.run("w").error)


def test_too_many_rounds_fail_the_step_unless_that_is_allowed(works: Works) -> None:
    works.done_after = 99
    poll = {**POLL, "every": 0, "max_rounds": 4}
    works.add(poll)
    execution = works.kernel.run("w")
    words = "step 'poll' failed: the loop has not ended after 4 rounds"
    assert str(execution.error).startswith(words)
    assert execution.error_code == "RESOURCE_EXHAUSTED" and works.looks == 4
    works.add({**poll, "on_max_rounds": "continue"}, output=OUTPUT, name="allowed")
    assert works.kernel.run("allowed").output == {"done": False, "look": 8}


def test_a_condition_that_cannot_be_decided_fails_its_round(works: Works) -> None:
    """A resume on a corrected definition decides again, about the same round."""
    works.done_after = 1
    block = {"id": "b", "until": "{{ output.nothing }}",
             "steps": [{"id": "look", "action": "job.status"}]}  # fmt: skip
    works.add(block)
    execution = works.kernel.run("w")
    assert execution.status is FAILED and "step 'b' failed: round 0" in str(execution.error)
    mended = define({**block, "until": "{{ output.done }}"})
    assert works.kernel.executions.resume(execution.id, definition=mended)
    works.kernel.run_until_idle()
    assert works.see(execution.id).status is COMPLETED and works.looks == 1


def test_a_failed_attempt_is_tried_again_in_its_round(works: Works, test: WorkflowTest) -> None:
    works.broken = {2}
    retry = {"attempts": 2, "delay": "5s", "jitter": False, "on": ["FAILED_PRECONDITION"]}
    works.add({**POLL, "retry": retry}, output=OUTPUT)
    execution = test.finish(test.start("w"))
    assert execution.output == {"done": True, "look": 3}
    assert [run.attempts for run in execution.runs_of("poll")] == [0, 1, 2]


def test_each_round_takes_an_event_of_its_own(works: Works, test: WorkflowTest) -> None:
    """Also one whose round is long past, and after the execution was loaded anew."""
    wait = {"signal": "item"}
    works.add(
        {
            "id": "items",
            "until": "{{ steps.one.output.payload == 'end' }}",
            "steps": [
                {"id": "one", "wait_for": wait},
                {"id": "do", "action": "note", "input": {"what": "{{ steps.one.output.payload }}"}},
            ],
        }
    )
    execution = test.start("w")
    sent = [*range(3 * KEPT_ROUNDS), "end"]
    for what in sent:
        works.kernel.signal(execution.id, "item", what)
        test.pass_time(0)
    assert works.see(execution.id).status is COMPLETED
    assert works.done == sent


def test_each_round_may_start_a_workflow(works: Works) -> None:
    child = {"id": "it", "action": "note", "input": {"what": "{{ event.payload.n }}"}}
    trigger = {"type": "manual"}
    works.kernel.add_workflow(
        {"name": "c", "trigger": trigger, "steps": [child], "output": "{{ steps.it.output }}"}
    )
    works.add(
        {"id": "sub", "workflow": "c", "input": {"n": "{{ index }}"}, "until": "{{ output == 2 }}"},
        output="{{ steps.sub.output }}",
    )
    assert works.kernel.run("w").output == 2
    assert works.done == [0, 1, 2]


# -- operators -------------------------------------------------------------------------------------


def test_a_resumed_loop_goes_on_with_the_round_that_failed(works: Works) -> None:
    works.broken = {2}
    block = {"id": "b", "until": "{{ output.done }}",
             "steps": [{"id": "look", "action": "job.status"}]}  # fmt: skip
    works.add(block, output="{{ steps.b.output }}")
    execution = works.kernel.run("w")
    assert execution.error == ("step 'b' failed: round 1: step 'b[1].look' failed: look 2 failed")
    assert works.kernel.executions.resume(execution.id)
    works.kernel.run_until_idle()
    assert works.see(execution.id).output == {"done": True, "look": 3}
    assert works.kernel.executions.resume(execution.id, step_id="b")
    works.kernel.run_until_idle()
    assert works.see(execution.id).output == {"done": True, "look": 4}
    assert ("b", 1) not in works.rows(execution.id)


def test_a_loop_that_ran_out_goes_on_with_a_higher_bound(works: Works) -> None:
    poll = {**POLL, "every": 0, "max_rounds": 2}
    works.add(poll)
    execution = works.kernel.run("w")
    assert execution.status is FAILED
    mended = define({**poll, "max_rounds": 5})
    assert works.kernel.executions.resume(execution.id, definition=mended)
    works.kernel.run_until_idle()
    assert works.see(execution.id).status is COMPLETED and works.looks == 3


def test_a_definition_that_loops_no_longer_does_not_fit(works: Works) -> None:
    works.broken = {2}
    works.add({**POLL, "every": 0})
    execution = works.kernel.run("w")
    plain = define({"id": "poll", "action": "job.status"})
    with pytest.raises(AutomateError, match="has completed in rounds, and has no while"):
        works.kernel.executions.resume(execution.id, definition=plain)


def test_steps_inside_rounds_are_not_those_inside_elements(works: Works) -> None:
    works.broken = {2}
    looks = [{"id": "one", "action": "job.status"}, {"id": "two", "action": "job.status"}]
    works.add({"id": "b", "until": "{{ index == 3 }}", "steps": looks})
    execution = works.kernel.run("w")
    other = define({"id": "b", "for_each": [1], "steps": looks})
    with pytest.raises(AutomateError, match="step 'b' has completed in rounds"):
        works.kernel.executions.resume(execution.id, definition=other)


def test_a_fork_takes_a_loop_that_ended_with_it(works: Works) -> None:
    works.add({**POLL, "every": 0}, {"id": "end", "action": "note", "input": {"what": OUTPUT}})
    execution = works.kernel.run("w")
    copied = works.kernel.executions.fork(execution.id, "end")
    works.kernel.run_until_idle()
    assert works.see(copied).status is COMPLETED
    assert works.looks == 3 and works.done == [{"done": True, "look": 3}] * 2


def test_a_pausing_loop_is_cancelled_paused_and_runs_out_of_time(
    works: Works, test: WorkflowTest
) -> None:
    works.done_after = 99
    works.add(POLL, timeout="1h")
    cancelled, paused, late = test.start("w"), test.start("w"), test.start("w")
    assert works.kernel.executions.cancel(cancelled.id)
    assert works.kernel.executions.pause(paused.id)
    before = works.looks
    test.pass_time("30s")
    assert works.looks == before + 1
    assert works.kernel.executions.unpause(paused.id)
    test.pass_time("1s")
    assert works.looks == before + 2
    assert works.see(cancelled.id).status is ExecutionStatus.CANCELLED
    step = works.see(cancelled.id).step("poll")
    assert step is not None and step.status is StepStatus.CANCELLED
    works.done_after = 10_000
    test.pass_time("1h")
    assert works.see(late.id).error == "the workflow took too long"


def test_a_loop_is_undone_as_a_whole(works: Works) -> None:
    """With its last output; and not, if it did not come to its end."""
    undo = {"action": "note", "input": {"what": "{{ output.look }}"}}
    boom = {"id": "boom", "action": "job.status"}
    works.broken = {4}
    works.add({**POLL, "every": 0, "compensate": undo}, boom)
    assert works.kernel.run("w").status is FAILED
    assert works.done == [3]
    works.looks, works.broken = 0, {2}
    assert works.kernel.run("w").status is FAILED
    assert works.done == [3]


def test_a_round_is_tried_again_by_hand(works: Works) -> None:
    works.broken = {2}
    works.add({**POLL, "every": 0}, output=OUTPUT)
    execution = works.kernel.run("w")
    assert works.kernel.executions.retry_step(execution.id, "poll")
    works.kernel.run_until_idle()
    assert works.see(execution.id).output == {"done": True, "look": 3}


def test_a_loop_cleans_up(works: Works) -> None:
    """Under on_failure and finally too, with the error."""
    tell = {"id": "tell", "action": "note", "while": "{{ index < 2 }}",
            "input": {"what": "{{ index }}: {{ error.code }}"}}  # fmt: skip
    works.broken = {1}
    works.add({"id": "boom", "action": "job.status"}, on_failure=[tell])
    assert works.kernel.run("w").status is FAILED
    assert works.done == ["0: FAILED_PRECONDITION", "1: FAILED_PRECONDITION"]


# -- size ------------------------------------------------------------------------------------------


def test_a_long_loop_keeps_its_last_rounds_alone(works: Works) -> None:
    rounds = 2000
    works.add(
        {
            "id": "b",
            "while": "{{ index < " + str(rounds) + " }}",
            "max_rounds": rounds,
            "steps": [
                {"id": "n", "action": "note", "input": {"what": "{{ index }}"}},
                {"id": "list", "for_each": [1, 2], "action": "note", "input": {"what": 0}},
            ],
        }
    )
    execution = works.kernel.run("w")
    assert execution.status is COMPLETED
    assert len(works.done) == 3 * rounds
    kept = works.rows(execution.id)
    its = sorted({position for step_id, position in kept if step_id == "b"})
    assert its[0] == -1 and KEPT_ROUNDS <= len(its) - 1 <= 2 * KEPT_ROUNDS
    assert its[-1] == rounds - 1
    assert len(kept) == 1 + 5 * (len(its) - 1)


def test_each_round_is_announced(works: Works) -> None:
    """With the execution as it was, though its old rounds are forgotten meanwhile."""
    seen: list[tuple[str, int, str]] = []

    def note(sender: Any, *, execution: Execution, step: Any, **_: Any) -> None:
        assert step.key in {run.key for run in execution.steps}
        seen.append((step.step_id, step.position, str(step.status)))

    works.add({"id": "n", "while": "{{ index < 60 }}", "action": "note", "input": {"what": 1}})
    with signals.step_completed.connected_to(note):
        works.kernel.start("w")
        works.kernel.run_until_idle()
    assert seen == [("n", number, "COMPLETED") for number in (*range(60), -1)]


def test_a_loop_without_calls_leaves_the_worker_to_others(works: Works) -> None:
    works.add(
        {
            "id": "b",
            "until": "{{ index == 999 }}",
            "steps": [{"id": "n", "if": False, "action": "note", "input": {"what": 0}}],
        }
    )
    execution = works.kernel.run("w")
    assert execution.status is COMPLETED and not works.done
    assert len(works.rows(execution.id)) <= 4 * KEPT_ROUNDS + 1


# -- definitions -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "problem"),
    [
        ("while: a, until: b", "a loop has while or until, not both (take one of them out)"),
        ("every: 3s", "every means nothing without while or until"),
        ("max_rounds: 3", "max_rounds means nothing without while or until"),
        ("until: a, max_rounds: 0", "must be at least 1"),
        ("until: a, on_max_rounds: stop", "must be one of fail, continue"),
        ("until: a, every: soon", "'soon' is not a duration"),
        ("until: a, for_each: [1]", "for_each and a loop stand in one step"),
        ('until: "{{ steps.s.output.done }}"', "a step can't see its own output"),
        ('until: a, input: "{{ item }}"', "'item' is known in a step with for_each only"),
        ('input: "{{ last }}"', "'last' is known in a step with while or until only"),
        ('if: "{{ last }}", until: a', "decided once for all rounds (write while, which"),
        ('if: "{{ item }}", for_each: [1]', "decided once for all elements (leave them out"),
        ('while: "{{ output }}"', "'output' is known under compensate and in until only"),
        ("until: otput", "templates know no 'otput' (did you mean 'output'?)"),
    ],
)
def test_a_wrong_loop_is_explained(step: str, problem: str) -> None:
    text = f"name: w\ntrigger: {{type: manual}}\nsteps: [{{id: s, action: x.y, {step}}}]"
    with pytest.raises(WorkflowError) as caught:
        loads(text, source="w")
    assert problem in str(caught.value)


def test_what_is_written_is_read_back_in_each_format() -> None:
    step = Step.model_validate({**POLL, "max_rounds": 20, "on_max_rounds": "continue"})
    workflow = Workflow(name="w", trigger={"type": "manual"}, steps=[step])  # type: ignore[arg-type]
    data = workflow.to_dict()["steps"][0]
    assert data["every"] == "30s" and data["until"] == "{{ output.done }}"
    assert Workflow.from_dict(workflow.to_dict()) == workflow
    other = Step(id="s", action="x.y", while_="{{ index < 3 }}")
    assert other.model_dump(by_alias=True, exclude_defaults=True)["while"] == "{{ index < 3 }}"


def test_pictures_differences_and_inputs_show_loops(works: Works) -> None:
    block = {"id": "b", "until": "{{ output.done }}", "every": "30s",
             "steps": [{"id": "look", "action": "job.status"},
                       {"id": "n", "action": "note", "input": {"what": "{{ index }}"}}],
             "output": "{{ steps.look.output }}"}  # fmt: skip
    before = works.add(block)
    assert "until; every 30s; ≤ 1000 rounds" in to_text(before)
    assert '[["b<br/>' in to_mermaid(before)
    execution = works.kernel.start("w")
    works.kernel.run_until_idle()
    seen = works.see(execution)
    assert step_input(program_of(before), seen, "b[0].n") == {"what": 0}
    after = define({**block, "every": "1m"})
    (change,) = differences_between(before, after)
    assert str(change) == "~ steps.b.every: 30s → 1m"


def program_of(workflow: Workflow) -> WorkflowProgram:
    def context(event: Any, execution: Any, steps: Any, extra: Any) -> TemplateContext:
        return TemplateContext(event, execution, steps, EnvironmentResolver(()), extra)

    return WorkflowProgram(workflow, TemplateEngine(), context)


def test_a_dry_run_shows_the_first_round(works: Works) -> None:
    works.add(
        {
            "id": "b",
            "until": "{{ steps.n.output == 3 }}",
            "steps": [{"id": "n", "action": "note", "input": {"what": "{{ index }} {{ last }}"}}],
        },
        {**POLL, "needs": []},
    )
    dry = works.kernel.dry_run("w")
    assert not dry.problems
    inner = dry.step("b[0].n")
    assert inner is not None and inner.calls[0].input == {"what": "0 None"}
