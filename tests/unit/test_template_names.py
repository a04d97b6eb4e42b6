"""Names that no template knows are found when a workflow is loaded, with line and remedy."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from automate_kernel import Kernel, Step, Workflow
from automate_kernel.base.errors import AutomateError, WorkflowError
from automate_kernel.workflows import EventTrigger, ManualTrigger
from automate_kernel.workflows.definition.loader import loads
from automate_kernel.workflows.definition.template_names import NAMES, names_read
from automate_kernel.workflows.decide.program import TemplateView
from automate_kernel.workflows.execution import Event, Execution
from defined import define

HEAD = "name: w\ntrigger: {type: manual}\n"


def problems(text: str) -> list[str]:
    """Each problem of a definition, as it is told."""
    with pytest.raises(WorkflowError) as caught:
        loads(HEAD + text, source="w")
    return [line.strip() for line in caught.value.message.splitlines()[1:]]


def step(template: str, **more: Any) -> list[str]:
    """The problems of one step with *template* as its input."""
    with pytest.raises(WorkflowError) as caught:
        define(
            Kernel(discover=False), {"id": "one", "action": "x.y", "input": {"v": template}, **more}
        )
    return [line.strip() for line in caught.value.message.splitlines()[1:]]


def test_unknown_names_are_found_everywhere() -> None:
    """In ifs of triggers and steps, in for_each, input and output: each with its line."""
    found = problems(
        """\
steps:
  - id: a
    action: x.y
    if: evnt.payload.total > 1
    for_each: "{{ evnt.payload.lines }}"
    input: {text: "{{ evnt.payload.id }} {{ item }}"}
on_failure:
  - {id: r, action: x.y, input: {t: "{{ eror.message }}"}}
output: "{{ exection.id }}"
"""
    )
    assert found == [
        "w:6: steps.a.if: templates know no 'evnt' (did you mean 'event'?)",
        "w:7: steps.a.for_each: templates know no 'evnt' (did you mean 'event'?)",
        "w:8: steps.a.input.text: templates know no 'evnt' (did you mean 'event'?)",
        "w:10: on_failure.r.input.t: templates know no 'eror' (did you mean 'error'?)",
        "w:11: output: templates know no 'exection' (did you mean 'execution'?)",
    ]


def test_unknown_names_in_a_triggers_if() -> None:
    """The event is named `event` there too."""
    with pytest.raises(WorkflowError, match=r"w:2: trigger.if: templates know no 'evnt'"):
        loads(
            "name: w\ntrigger: {type: event, event: a, if: evnt.payload}\n"
            "steps: [{id: a, action: x}]",
            source="w",
        )


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{{ event.pyload.id }}", "event has no 'pyload' (did you mean 'payload'?)"),
        ("{{ event['pyload'] }}", "event has no 'pyload' (did you mean 'payload'?)"),
        ("{{ execution.uid }}", "execution has no 'uid' (did you mean 'id'?)"),
        ("{{ payload.total }}", "templates know no 'payload' (write event.payload)"),
        ("{{ one.output }}", "templates know no 'one' (write steps.one.output)"),
        (
            "{% if xyzzy %}{% endif %}",
            "templates know no 'xyzzy' (the names are event, execution, steps, secrets, env)",
        ),
        ("{{ [1] | map('upper', evnt) }}", "templates know no 'evnt' (did you mean 'event'?)"),
        ("{{ event.payload.a == null }}", "templates know no 'null' (write none)"),
        (
            "{{ len(event.payload) }}",
            "templates know no 'len' (write event.payload.lines | length)",
        ),
        ("{{ trigger.id }}", "templates know no 'trigger' (write event.payload)"),
        (
            "{{ event.payload.order-id }}",
            "event.payload.order-id is a subtraction (write event.payload['order-id'])",
        ),
        (
            "{{ event.type == 'cron' }}",
            "event.type is never 'cron' (it is one of event, webhook, manual, schedule)",
        ),
    ],
)
def test_each_problem_has_a_remedy(template: str, problem: str) -> None:
    """It names what was probably meant."""
    assert step(template) == [f"workflow:None: steps.one.input.v: {problem}".replace(":None", "")]


def test_unknown_fields_of_steps_are_found() -> None:
    """A step has an output, a status and an error."""
    found = problems(
        """\
steps:
  - {id: a, action: x.y}
  - {id: b, action: x.y, input: {v: "{{ steps.a.outptu.id }} {{ steps['a'].stat }}"}}
"""
    )
    assert [line.partition(": ")[2] for line in found] == [
        "steps.b.input.v: steps.a has no 'outptu' (did you mean 'output'?)",
        "steps.b.input.v: steps.a has no 'stat' (did you mean 'status'?)",
    ]


def test_a_step_with_a_dash_is_no_subtraction() -> None:
    """One problem, which says how it is written."""
    found = problems(
        """\
steps:
  - {id: my, action: x.y}
  - {id: my-own-step, action: x.y}
  - {id: b, action: x.y, input: {v: "{{ steps.my-own-step.output }} {{ steps.my.output }}"}}
"""
    )
    assert [line.partition(": ")[2] for line in found] == [
        "steps.b.input.v: steps.my-own-step is a subtraction (write steps['my-own-step'])"
    ]


def test_a_status_that_there_is_not_is_found() -> None:
    """A condition on it would never hold, or always."""
    found = problems(
        """\
steps:
  - {id: a, action: x.y, on_failure: continue}
  - {id: b, action: x.y, if: "{{ steps.a.status == 'failed' }}"}
  - {id: c, action: x.y, if: "steps.a.status not in ['FAILED', 'SKIPED']"}
  - {id: d, action: x.y, if: "{{ 'FAILED' != steps.a.status or steps.a.output == 'failed' }}"}
on_failure:
  - {id: e, action: x.y, if: "error.code == 'TIMEOUT'"}
"""
    )
    assert [line.partition(": ")[2] for line in found] == [
        "steps.b.if: steps.a.status is never 'failed' (did you mean 'FAILED'?)",
        "steps.c.if: steps.a.status is never 'SKIPED' (did you mean 'SKIPPED'?)",
        "on_failure.e.if: error.code is never 'TIMEOUT' (it is one of INTERNAL, INVALID_ARGUMENT,"
        " NOT_FOUND, ALREADY_EXISTS, PERMISSION_DENIED, UNAUTHENTICATED, FAILED_PRECONDITION,"
        " RESOURCE_EXHAUSTED, UNAVAILABLE, DEADLINE_EXCEEDED, ABORTED, CANCELLED, UNIMPLEMENTED,"
        " DATA_LOSS)",
    ]


@pytest.mark.parametrize(
    ("field", "remedy"),
    [
        ("until: steps.a.output.done", "write output: here it is that of the round"),
        ("while: steps.a.output.more", "write last: here it is that of the round before"),
        ("input: {v: '{{ steps.a.output }}'}", "name an earlier step"),
    ],
)
def test_its_own_output_has_another_name(field: str, remedy: str) -> None:
    """In the fields that see it."""
    (found,) = problems(f"steps:\n  - id: a\n    action: x.y\n    {field}\n")
    assert found.endswith(f"a step can't see its own output ({remedy})")


@pytest.mark.parametrize(
    "template",
    [
        "{{ maybe | default('x') }}",
        "{{ event.payload.a-1 }} {{ event.payload.a - event.payload.b }} not event.payload.a-b",
        "{{ event.payload.type == 'cron' }} {{ event.type | upper == 'CRON' }}",
        "{{ maybe is defined }}",
        "{% if maybe is defined %}{{ maybe.id }}{% endif %}",
        "{{ event.pyload | d(1) }}",
        "{% for x in event.payload %}{{ loop.index }}{{ x }}{% endfor %}",
        "{% set a, b = 1, 2 %}{{ a + b }}",
        "{% with t = 1 %}{{ t }}{% endwith %}",
        "{% macro m(x) %}{{ x }}{{ varargs }}{% endmacro %}{{ m(1) }}",
        "{% set ns = namespace(n=0) %}{% set ns.n = 1 %}{{ ns.n }}{{ range(3) }}",
        "{% set t %}text{% endset %}{{ t }}",
        "{{ event.items() }}{{ event.get('pyload') }}{{ event.payload.pyload }}",
        "{{ secrets.ANY }}",
        "{{ true and none }}",
        "plain text with evnt and {braces}",
    ],
)
def test_what_works_is_not_refused(template: str) -> None:
    """Local names, questions and defaults, methods, and the payload's own fields."""
    kernel = Kernel(discover=False)
    define(kernel, {"id": "one", "action": "x.y", "input": {"v": template}})


def test_workflows_in_python_are_checked() -> None:
    """Those that are built as objects too."""
    workflow = Workflow(
        name="w",
        trigger=[ManualTrigger(), EventTrigger(event="a", if_="evnt.payload")],
        steps=[Step(id="a", action="x.y", input={"v": "{{ steps.b.output }}"})],
    )
    with pytest.raises(WorkflowError) as caught:
        Kernel(discover=False).add_workflow(workflow)
    assert "trigger[1].if: templates know no 'evnt'" in caught.value.message
    assert "steps.a.input.v: names the step 'b', which does not exist" in caught.value.message


def test_a_stored_definition_goes_on() -> None:
    """An execution that began with a wrong name in a template is not held up before that step."""
    kernel = Kernel(discover=False)
    kernel.action("ok")(lambda: {"a": 1})
    stored = Workflow(
        name="w",
        trigger=ManualTrigger(),
        steps=[Step(id="a", action="ok"), Step(id="b", action="ok", input={"v": "{{ evnt }}"})],
    )
    event = Event(id="01890000-0000-7000-8000-00000000000e", name="w", type="manual")
    with kernel.storage.begin() as rows:
        execution_id = kernel.executions.starts.start(rows, stored, event)
    kernel.run_until_idle()
    execution = kernel.executions.get(execution_id)
    assert execution is not None
    assert [str(run.status) for run in execution.steps] == ["COMPLETED", "FAILED"]


def test_the_table_has_what_templates_see() -> None:
    """The fields of events and executions are those that a rendering gives."""
    event = Event(id="e", name="n")
    workflow = Workflow(name="w", trigger=ManualTrigger(), steps=[Step(id="a", action="x")])
    execution = Execution(id="x", name="w", definition_id="d", event=event)
    view = TemplateView(workflow, execution, {})
    assert NAMES["event"].fields == set(view.event) == {f.name for f in dataclasses.fields(Event)}
    assert NAMES["execution"].fields == set(view.about)


def test_names_are_read_as_paths() -> None:
    """A path is as long as its fields are literal."""
    read = names_read("{{ steps.a.output.rows[0].id ~ steps['b'].status }}{{ steps[x] }}")
    assert read.paths == (
        ("steps", "a", "output", "rows"),
        ("steps", "b", "status"),
        ("steps",),
        ("x",),
    )
    assert read.steps == ["a", "b"]
    assert read.any_step
    assert names_read("no template {x}").paths == ()
    assert names_read("a.b", bare=True).paths == (("a", "b"),)
    assert names_read("{{ broken").paths == ()


def test_the_check_is_an_error_of_the_workflow() -> None:
    """It is an `AutomateError` like any other, with its problems for programs."""
    with pytest.raises(AutomateError) as caught:
        loads(HEAD + 'steps: [{id: a, action: x, input: {v: "{{ evnt }}"}}]', source="w.yaml")
    (problem,) = caught.value.details["problems"]
    assert (problem["line"], problem["field"]) == (3, "steps.a.input.v")
