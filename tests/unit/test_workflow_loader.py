"""Reading workflows: what is written comes back, and every mistake is told with its place."""

from __future__ import annotations

import time
import contextlib
import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from automate_kernel.templates import TemplateEngine
from example_counts import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from automate_kernel.base.errors import TemplateError, WorkflowError
from automate_kernel.workflows.definition.loader import dumps, load_workflow, load_workflows, loads
from automate_kernel.workflows.definition.model import Step, Workflow
from automate_kernel.workflows.definition import document
from automate_kernel.workflows.definition.document import read_json, read_yaml

EXAMPLES = Path(__file__).parents[2] / "examples" / "workflows"
HEAD = "name: w\ntrigger: {type: manual}\n"


def problems(text: str, format: Any = "yaml", **options: Any) -> list[str]:
    """Each problem of a definition, as it is told."""
    with pytest.raises(WorkflowError) as caught:
        loads(textwrap.dedent(text), format, source="w", **options)
    return [line.strip() for line in caught.value.message.splitlines()[1:]]


# What is written comes back --------------------------------------------------------------------

NAMES = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_-]{0,8}", fullmatch=True)
# Texts that YAML readers like to take for something else, beside any other.
TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12),
    st.sampled_from(
        ["no", "On", "null", "~", "0123", "1e3", "0x1f", "12:30", "2024-01-01", "<<", "=", ".5",
         "1_000", "+1", "'", '"', "\x85", "a\r\nb", "\u2028", "\ufeff", "{{ event.payload }}", "a: b", "- a", "# a", "\t", " a ", "a\n"]
    ),
)  # fmt: skip
JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(10**20), 10**20),
        st.floats(allow_nan=False, allow_infinity=False),
        TEXTS,
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
DURATIONS = st.integers(1, 10**9).map(lambda milliseconds: milliseconds / 1000)
RETRIES = st.fixed_dictionaries(
    {},
    optional={
        "attempts": st.integers(1, 9),
        "backoff": st.sampled_from(["fixed", "linear", "exponential"]),
        "delay": st.integers(0, 300),
        "jitter": st.booleans(),
        "on": st.lists(st.sampled_from(["UNAVAILABLE", "INTERNAL"]), min_size=1),
    },
)
TRIGGERS = st.one_of(
    st.just({"type": "manual"}),
    st.fixed_dictionaries(
        {"type": st.just("event"), "event": NAMES},
        optional={"if": st.booleans() | st.just("{{ event.payload.a > 1 }}")},
    ),
    st.builds(lambda key: {"type": "webhook", "connector": key, "trigger": "*"}, NAMES),
    st.builds(
        lambda every, payload: {"type": "schedule", "every": every + 1, "payload": payload},
        DURATIONS,
        JSON,
    ),
    st.just({"type": "schedule", "cron": "0 9 * * MON-FRI", "timezone": "Europe/Berlin"}),
)


@st.composite
def definitions(draw: st.DrawFn) -> dict[str, Any]:
    """A valid definition."""
    ids = draw(st.lists(NAMES, min_size=1, max_size=5, unique=True))
    steps = []
    for position, step_id in enumerate(ids):
        optional = {
            "input": st.dictionaries(TEXTS, JSON, max_size=3),
            "needs": st.lists(st.sampled_from(ids[:position] or ["-"]), unique=True)
            if position
            else st.just([]),
            "if": st.booleans(),
            "retry": RETRIES,
            "timeout": DURATIONS,
            "on_failure": st.sampled_from(["fail", "continue"]),
            "for_each": st.lists(JSON, max_size=2),
        }
        required = {"id": st.just(step_id), "action": st.just("http.get")}
        steps.append(draw(st.fixed_dictionaries(required, optional=optional)))
    return {
        "name": draw(NAMES),
        "trigger": draw(TRIGGERS | st.lists(TRIGGERS, min_size=1, max_size=3)),
        "steps": steps,
        "env": draw(st.lists(NAMES, max_size=2)),
    }


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=examples(60))
@given(definitions())
def test_a_workflow_survives_every_form(definition: dict[str, Any]) -> None:
    """Mapping, YAML, JSON and the stored object all give the same workflow and hash."""
    made = Workflow.model_validate(definition)
    for again in (
        loads(dumps(made)),
        loads(dumps(made, "json"), "json"),
        loads(json.dumps(definition), "json"),
        Workflow.from_dict(json.loads(json.dumps(made.to_dict()))),
    ):
        assert again == made
        assert again.hash() == made.hash()
    assert dumps(loads(dumps(made))) == dumps(made)


def test_plain_yaml_texts_stay_what_they_look_like() -> None:
    """Only true, null and JSON's numbers are not text: no Norway, no dates, no octal numbers."""
    text = "[no, 12:30, 2024-01-01, 0123, 1_000, 0x1f, yes, true, null, ~, 1, 1.5, 1e3, '1', .5]"
    (document,) = read_yaml(text)
    assert document.value == [
        "no", "12:30", "2024-01-01", "0123", "1_000", "0x1f", "yes",
        True, None, None, 1, 1.5, 1000.0, "1", ".5",
    ]  # fmt: skip
    assert read_yaml("{200: ok, no: x, 2024-01-01: y}")[0].value == {
        "200": "ok",
        "no": "x",
        "2024-01-01": "y",
    }


def test_the_examples_load() -> None:
    """The examples that ship are right, and come back from a folder in order."""
    loaded = load_workflows(EXAMPLES)
    assert [each.name for each in loaded] == ["daily-report", "order-notify", "push-build"]


# Every mistake with its place ------------------------------------------------------------------


def test_all_problems_are_told_at_once_with_lines_fields_and_remedies() -> None:
    """One reading of a definition is enough to repair all of it."""
    found = problems(
        """\
        name: order-notify
        trigger: {type: evnt, event: order.created}
        steps:
          - id: calculate
            action: orders.total
            with: {lines: []}
            timeout: 30 sec
          - id: notify
            action: slack post
            retrys: 3
            retry: 5
            needs: [calculat]
          - id: notify
            action: x.y
            on_failure: continu
            retry: {attempts: "3", on: [UNAVAILBLE]}
          - just text
        version: v1
        timout: 3
        """
    )
    expected = [
        "w:2: trigger: there is no trigger type 'evnt' (did you mean 'event'?)",
        "w:6: steps.calculate.with: there is no such field (here it is called 'input')",
        "w:7: steps.calculate.timeout: '30 sec' is not a duration: did you mean '30s'?",
        "w:9: steps.notify.action: is not the name of an action (write connector.action",
        "w:10: steps.notify.retrys: there is no such field (did you mean 'retry'?)",
        "w:11: steps.notify.retry: must be a mapping, not a number (for example retry: {attempts:",
        "w:12: steps.notify.needs[0]: there is no step 'calculat' (did you mean 'calculate'?)",
        "w:13: steps.notify.id: another step is called 'notify' (give each an id of its own; the ot",
        "w:15: steps.notify.on_failure: must be one of fail, continue (did you mean 'continue'?)",
        "w:16: steps.notify.retry.attempts: must be a whole number, not text",
        "w:16: steps.notify.retry.on[0]: must be one of INTERNAL",
        "w:17: steps[3]: must be a mapping, not text (a step has an id and an action)",
        "w:18: version: must be a whole number, not text",
        "w:19: timout: there is no such field (did you mean 'timeout'?)",
    ]
    assert len(found) == len(expected)
    for line, start in zip(found, expected):
        assert line.startswith(start)


def test_programs_get_the_problems_as_data() -> None:
    """An editor or an API reads the error's details."""
    with pytest.raises(WorkflowError) as caught:
        loads(HEAD + "steps: [{id: a}]", source="w.yaml")
    assert caught.value.details["problems"] == [
        {
            "source": "w.yaml",
            "line": 3,
            "field": "steps.a.action",
            "message": "is missing",
            "hint": "add it: action: http.post",
        }
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "w: is empty (it needs a name, a trigger and steps)"),
        ("- a", "w:1: a workflow must be a mapping"),
        ("a: [", "w:1: is not YAML"),
        ("a: b\n\tc: d", "(indent with spaces, not tabs)"),
        ("a: b: c", "(put quotes around text with a colon in it"),
        ("a: {{ x }} y", 'put quotes around a template: "{{ … }}"'),
        ("a: {{ x }}", 'w:1: a: looks like a template without quotes (put quotes around'),
        ("name: x\nname: y", "w:2: name: is given twice (it is on line 1 already: keep one"),
        ("a: !!python/object:os.system x", "tag !!python/object:os.system, which means nothing"),
        ("a: &a [*a]", "w:1: a[0]: an alias can't stand inside what it repeats"),
        ("<<: {a: b}", "merge keys (<<) are not supported"),
        ("a: \x01", "holds a character that YAML doesn't allow"),
        ("a: *nothing", "w:1: is not YAML: found undefined alias"),
        ("[" * 5000, "is nested too deeply"),
        ("a" * 300_000, "is larger than 256 KiB"),
        ("steps: {a: {action: x}}", "w:1: steps: must be a list, not a mapping (write each step"),
        ("trigger: manual", "trigger: must be a mapping, not text (for example trigger: {type:"),
        ("debounce: 5s", "must be a mapping, not text (for example debounce: {for: 10s})"),
        ("steps: [{id: a, wait_for: x}]", "(for example wait_for: {event: order.paid})"),
        ("steps: [{id: a, switch: '{{ 1 }}', cases: []}]", "(for example cases: {express: [{id:"),
        ("steps: [{id: a, workflow: w, wait: no}]", "(write true or false, without quotes)"),
        ("steps: [{id: a, action: b.c, retry: {attempts: 1.5}}]", "number, not one with a fract"),
        ("trigger: {cron: '0 9 * * *'}", "trigger: its type is missing (add type: schedule)"),
        ("trigger: {type: schedule, cron: '0 25 * * *'}", "trigger.cron: cron '0 25 * * *' has a"),
        ("trigger: {type: schedule, cron: '@daily'}", "(write '0 0 * * *'"),
        ("trigger: {type: schedule, every: 0.5}", "trigger.every: must be at least 1 s"),
        ("trigger: {type: schedule}", "trigger: it has no cron and no every (give one of them"),
        ("trigger: {type: event, event: ''}", "trigger.event: must not be empty"),
        ("steps: []", "steps: must not be empty"),
    ],
)  # fmt: skip
def test_each_mistake_has_its_own_remedy(text: str, told: str) -> None:
    """What people get wrong most is answered with what to do."""
    assert told in "\n".join(problems(text))


def test_aliases_can_be_used_but_not_to_blow_up() -> None:
    """An anchor saves repeating; a nest of them that would grow to millions is refused."""
    fine = "steps: [{id: a, action: x, retry: &r {attempts: 2}}, {id: b, action: x, retry: *r}]"
    assert [step.retry.attempts for step in loads(HEAD + fine).steps] == [2, 2]
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
    )
    assert "its aliases repeat too much" in problems(bomb)[0]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"name": "x",\n "steps": [1,]}', "w:2: is not JSON"),
        ('{"name": "x",\n "name": "y"}', "w:2: name: is given twice (it is on line 1 already"),
        ('{"a": NaN}', "there is no such field"),
        ("", "w:1: is not JSON: Expecting value"),
        ("[" * 100_000, "is nested too deeply"),
        ('{"name":\n"w", "trigger":\n{"type": "manual"},\n"steps": [\n{"id": "a"}]}',
         "w:5: steps.a.action: is missing"),
    ],
)  # fmt: skip
def test_json_mistakes_have_lines_too(text: str, told: str) -> None:
    """JSON is told as precisely as YAML."""
    assert told in "\n".join(problems(text, "json"))


@given(JSON.map(lambda value: {"a": value, "b": [value]}), st.sampled_from([None, 1]))
def test_json_lines_are_those_of_the_text(value: Any, indent: int | None) -> None:
    """Each value's line is the line on which it begins, whatever its texts hold."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    document = read_json(text)
    assert document.value == value
    assert not document.problems
    if indent is None:
        assert set(document.lines.values()) == {1}
    else:
        rows = text.split("\n")
        for path, line in document.lines.items():
            if path and isinstance(path[-1], str):
                assert rows[line - 1].strip().startswith(json.dumps(path[-1], ensure_ascii=False))
        assert document.lines[("b", 0)] == document.lines[("b",)] + 1


# Templates -------------------------------------------------------------------------------------


def test_templates_that_name_wrong_steps_are_found() -> None:
    """Unknown steps, steps that may not have finished, and names that mean nothing there."""
    found = problems(
        HEAD
        + """\
steps:
  - {id: a, action: x.y, input: {v: "{{ steps.b.output | mine }}"}}
  - {id: b, action: x.y, if: "steps.a.status == 'SKIPPED' and error", needs: []}
  - id: c
    action: x.y
    input: {text: "{{ steps.c.output }} {{ steps['q'].output }} {{ item }}"}
on_failure:
  - {id: r, action: x.y, input: {t: "{{ error.message }} {{ steps.a.status }}"}}
output: "{{ steps.r.output }}"
"""
    )
    assert [line.split(" (")[0] for line in found] == [
        "w:4: steps.a.input.v: names the step 'b', which may not have finished",
        "w:5: steps.b.if: names the step 'a', which may not have finished",
        "w:5: steps.b.if: 'error' is known where a workflow cleans up only",
        "w:8: steps.c.input.text: a step can't see its own output",
        "w:8: steps.c.input.text: names the step 'q', which does not exist",
        "w:8: steps.c.input.text: 'item' is known in a step with for_each only",
        "w:11: output: names the step 'r', which may not have finished",
    ]
    assert "(add 'b' to needs)" in found[0]


def test_templates_that_are_right_pass() -> None:
    """Loops' own variables, ancestors, and `item` under for_each are no mistakes."""
    loads(
        HEAD
        + """\
steps:
  - {id: a, action: x, input: {t: "{% for item in event.payload %}{{ item }}{% endfor %}"}}
  - {id: b, action: x, for_each: "{{ steps.a.output }}", input: {t: "{{ item }} {{ index }}"}}
  - {id: c, action: x, if: "steps.a.output and steps['b'].status == 'COMPLETED'"}
output: "{{ steps.c.output | whatever('x') }}"
"""
    )


def test_the_check_sees_each_text_and_its_errors_get_lines() -> None:
    """A template engine's refusal is told with the line of the very text."""
    seen = []

    def check(text: str, field: str) -> None:
        seen.append((field, text))
        if "}}" not in text and "{{" in text:
            raise TemplateError("is not closed", hint="add }}")

    steps = (
        'steps:\n  - id: a\n    action: x\n    input:\n      t:\n        - ok\n        - "{{ x"\n'
    )
    assert problems(HEAD + steps, check=check) == [
        "w:9: steps.a.input.t[1]: is not closed (add }})"
    ]
    assert seen == [("steps.a.input.t[0]", "ok"), ("steps.a.input.t[1]", "{{ x")]


# Files -----------------------------------------------------------------------------------------

GOOD = HEAD + "steps: [{id: a, action: x.y}]\n"


def test_a_folder_is_read_whole_and_told_whole(tmp_path: Path) -> None:
    """All kinds of files are read, in order, and the problems of all are in one error."""
    (tmp_path / "b.json").write_text(json.dumps({**loads(GOOD).to_dict(), "name": "b"}))
    (tmp_path / "a.yaml").write_text(GOOD + "---\n" + GOOD.replace("name: w", "name: v"))
    (tmp_path / "_draft.yaml").write_text("nothing")
    (tmp_path / "notes.txt").write_text("nothing")
    (tmp_path / "c.py").write_text(
        "from automate_kernel.workflows import ManualTrigger, Step, Workflow\n"
        "workflow = Workflow(name='c', trigger=ManualTrigger(), steps=[Step(id='a', action='x')])\n"
    )
    assert [each.name for each in load_workflows(tmp_path)] == ["w", "v", "b", "c"]
    (tmp_path / "a.yaml").write_text("name: [")
    (tmp_path / "d.py").write_text("\n\n1 / 0\n")
    (tmp_path / "e.py").write_text("")
    (tmp_path / "f.yaml").write_bytes(b"\xff")
    with pytest.raises(WorkflowError) as caught:
        load_workflows(tmp_path)
    text = str(caught.value)
    assert "a.yaml:1: is not YAML" in text
    assert "d.py:3: ZeroDivisionError while the file was executed" in text
    assert "e.py" in text
    assert "assign a Workflow to the name 'workflow'" in text
    assert "f.yaml is not UTF-8" in text


def test_a_name_can_be_taken_once(tmp_path: Path) -> None:
    """Two workflows of one name would start each other's executions."""
    (tmp_path / "a.yaml").write_text(GOOD)
    (tmp_path / "b.yaml").write_text(GOOD)
    with pytest.raises(WorkflowError, match=r"b\.yaml: name: another .* 'w' \(it is in .*a\.yaml"):
        load_workflows(tmp_path)


def test_python_mistakes_have_lines(tmp_path: Path) -> None:
    """A wrong field in a Python file, `sys.exit` and bad syntax all name file and line."""
    file = tmp_path / "w.py"
    file.write_text(
        "from automate_kernel.workflows.definition.model import Step\n\nStep(id='a b', action='x')"
    )
    with pytest.raises(WorkflowError, match=r"w\.py:3: Step\(id\): must start with a letter"):
        load_workflow(file)
    file.write_text("import sys\nsys.exit('gone')")
    with pytest.raises(WorkflowError, match=r"w\.py:2: SystemExit .*gone"):
        load_workflow(file)
    file.write_text("x = = 1")
    with pytest.raises(WorkflowError, match=r"w\.py:1: is not Python"):
        load_workflow(file)
    file.write_text("workflow = 3")
    with pytest.raises(WorkflowError, match="int is not a Workflow"):
        load_workflow(file)


def test_a_missing_file_is_answered_with_the_nearest(tmp_path: Path) -> None:
    """Wrong paths, folders, other kinds of files and texts in place of paths have remedies."""
    (tmp_path / "orders.yaml").write_text(GOOD + "---\n" + GOOD)
    for source, told in (
        (tmp_path / "order.yaml", "did you mean 'orders.yaml'"),
        (tmp_path / "orders.yaml", "use load_workflows to read many"),
        (tmp_path, "use load_workflows to read all in it"),
        (Path(__file__).with_suffix(".toml"), "there is no file"),
        (GOOD, "use loads"),
    ):
        with pytest.raises(WorkflowError, match=told):
            load_workflow(source)


def test_a_mapping_is_told_without_lines() -> None:
    """A definition from elsewhere has fields, if no lines."""
    with pytest.raises(WorkflowError, match=r"workflow: steps\.a\.action: is missing"):
        load_workflow({"name": "w", "trigger": {"type": "manual"}, "steps": [{"id": "a"}]})
    assert load_workflow(loads(GOOD).to_dict()).steps == (Step(id="a", action="x.y"),)


def test_no_problem_shows_what_a_field_held() -> None:
    """A secret that was put into the wrong place isn't told to the log."""
    text = "steps: [{id: a, action: x, input: hunter2, retry: hunter2, hunter: [hunter2]}]"
    assert "hunter2" not in "\n".join(problems(HEAD + text))


def test_the_model_is_light_to_import() -> None:
    """A host that only emits events pays for no YAML, no templates and no cron."""
    code = (
        "import sys, automate_kernel.workflows.definition.loader; "
        "print([m for m in ('yaml', 'jinja2', 'cronsim', 'jsonschema') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_problem_of_a_template_names_its_place_once(tmp_path: Path) -> None:
    """The place stands in front of the problem, and not in it as well."""
    text = (
        "name: w\ntrigger: {type: manual}\nsteps:\n"
        "  - {id: a, action: f, input: {n: '{{ 1 | nofilter }}'}}\n"
    )
    from automate_kernel import Kernel

    (tmp_path / "w.yaml").write_text(text)
    with pytest.raises(WorkflowError) as caught:
        Kernel(discover=False, workflows=[tmp_path / "w.yaml"])
    assert str(caught.value).count("steps.a.input.n") == 1
    assert "there is no filter 'nofilter'" in str(caught.value)


def test_a_name_that_is_no_text_is_told_so() -> None:
    """A mapping made in Python may have one; it was told that a step has an id."""
    case = {True: [{"id": "b", "action": "note"}]}
    steps = [{"id": "a", "switch": "{{ true }}", "cases": case}]
    with pytest.raises(WorkflowError, match="each name must be text") as caught:
        load_workflow({"name": "w", "trigger": {"type": "manual"}, "steps": steps})
    assert "put it in quotes" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "place", "given"),
    [
        ("trigger: {type: webhook, connector: chat%s}\nsteps: [{id: a, action: x}]\n",
         "trigger.trigger", ", trigger: push"),
        ("trigger: {type: manual}\nsteps: [{id: a, approval: {title: t, form: [{type: integer%s}]}}]\n",
         "steps.a.approval.form[0].name", ", name: amount"),
    ],
)  # fmt: skip
def test_the_remedy_of_an_inner_field_is_its_own(text: str, place: str, given: str) -> None:
    """It was that of the workflow's field of this name, with which nothing was mended."""
    (told,) = problems("name: w\n" + text % "")
    assert told.partition(": ")[2] == f"{place}: is missing (add it{given.replace(',', ':')})"
    loads("name: w\n" + text % given, "yaml")


# --- what a hostile file costs -----------------------------------------------------------------

_ONE_STEP = "name: a\ntrigger: {type: event, event: x}\nsteps:\n  - id: a\n    action: b.c\n"


def _refused(text: str, format: Any = "yaml") -> WorkflowError:
    with pytest.raises(WorkflowError) as caught:
        loads(text, format)
    return caught.value


@pytest.mark.parametrize(
    "unit", ["a", "a.", "a.a-", "{{ a.", "{{ 1 }}", "password", "a://:", "{{ a | default(1) }}"]
)
def test_loading_takes_time_with_the_length_of_a_text(unit):
    """Not with its square: eight times the length takes eight times as long, not 64 times."""

    def seconds(length: int) -> float:
        text = json.dumps(unit * (length // len(unit)))
        begun = time.thread_time()
        with contextlib.suppress(WorkflowError):
            loads(f"{_ONE_STEP}    input: {{text: {text}}}\n")
        return time.thread_time() - begun

    seconds(1000)
    assert seconds(32_000) < 0.3 or seconds(64_000) < 3 * seconds(32_000)


def test_aliases_can_not_multiply_a_text():
    """A file of nine kilobytes would be five megabytes of text."""
    text = "x: &x '" + "a." * 1500 + "'\ny: [" + ", ".join(["*x"] * 1600) + "]\n"
    assert "its aliases repeat too much" in str(_refused(text))


def test_the_message_of_thousands_of_problems_is_short():
    """It shows the first hundred, and says that there are more."""
    fields = ", ".join(f"f{number}: 1" for number in range(15_000))
    for text in (
        _ONE_STEP + "    input:\n" + "      f: 1\n" * 20_000,
        _ONE_STEP.replace("    action: b.c", f"    action: b.c\n    retry: {{{fields}}}"),
        _ONE_STEP + "  - {}\n" * 20_000,
        _ONE_STEP + "".join(f"  - {{id: s{n}, action: b.c, needs: [z{n}]}}\n" for n in range(4000)),
    ):
        error = _refused(text)
        assert str(error).count("\n") == 101
        assert len(error.details["problems"]) == 100
        assert "there are more" in str(error)
        assert len(str(error)) < 60_000


def test_a_problem_with_a_long_name_is_short():
    """Names are the author's, of any length."""
    assert len(str(_refused(f"{_ONE_STEP}    {'n' * 200_000}: 1\n"))) < 3000


@pytest.mark.parametrize("number", ["1" * 5000, "-" + "9" * 400, "1e999", "1" * 400 + ".5"])
def test_a_number_that_is_too_large_is_a_problem_with_a_line(number):
    """In YAML and in JSON; a template that has such a number says so too."""
    error = _refused(f"{_ONE_STEP}    input:\n      n: {number}\n")
    assert "<string>:7: " in str(error)
    assert "number that is too large" in str(error)
    error = _refused('{"name": "' + number + '",\n\n"steps": [' + number + "]}", "json")
    assert "<string>:3: has a number that is too large" in str(error)


def test_a_number_of_too_many_digits_in_a_template_is_a_problem_with_a_line():
    """Jinja's own reader raises Python's error for it."""
    engine = TemplateEngine()
    text = f'{_ONE_STEP}    input:\n      n: "{{{{ {"1" * 5000} }}}}"\n'
    with pytest.raises(WorkflowError, match="<string>:7: .*a number of over 4,300 digits"):
        loads(text, check=engine.compile)


def test_a_template_in_a_key_is_looked_at_as_in_a_value() -> None:
    """Keys of an input are rendered, too: a step that is not there would show at the run alone."""
    step = {"id": "a", "action": "x.y", "input": {"rows": [{"{{ steps.gone.output }}": 1}]}}
    definition = {"name": "w", "trigger": {"type": "manual"}, "steps": [step]}
    with pytest.raises(WorkflowError, match="names the step 'gone', which does not exist"):
        loads(json.dumps(definition), "json")


def test_brackets_that_stay_open_cost_little() -> None:
    """PyYAML looks at each open bracket for each token, so they are bounded before they are many."""
    looked_at: list[int] = []

    class Counted(dict[int, Any]):
        def __iter__(self) -> Iterator[int]:
            looked_at.append(len(self))
            return super().__iter__()

    loader = document._yaml()[0]("[" * 10_000)
    loader.possible_simple_keys = Counted()
    with pytest.raises(RecursionError):
        loader.get_single_node()
    assert sum(looked_at) < 50 * 51 * 3
    (allowed,) = read_yaml("[" * 50 + "]" * 50)
    assert not allowed.problems
    (refused,) = read_yaml("[" * 51 + "]" * 51)
    assert [each.message for each in refused.problems] == ["is nested too deeply"]
