"""Definitions of steps that wait: all ways to write one, and the words for what is wrong."""

from __future__ import annotations

import copy
import json
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from automate_kernel import Kernel
from automate_kernel.base.errors import WorkflowError
from automate_kernel.monitoring.diagnosis import workflow_problems
from automate_kernel.workflows import (
    ManualTrigger,
    SleepUntil,
    Step,
    WaitFor,
    Workflow,
    dumps,
    loads,
    workflow_json_schema,
)
from automate_kernel.workflows.definition.graph import to_mermaid, to_svg, to_text
from automate_kernel.workflows.definition.waits import read_instant
from automate_kernel.workflows.decide.waits import event_key, kept_signal_items, values_at
from automate_kernel.workflows.execution import Event
from hypothesis import given
from hypothesis import strategies as st

HEAD = "name: w\ntrigger: {type: manual}\n"
YAML = (
    HEAD
    + """\
steps:
  - {id: nap, sleep: 3d}
  - {id: late, sleep: {until: "2030-01-31T09:00:00+01:00"}}
  - {id: some, sleep: "{{ event.payload.hours * 3600 }}"}
  - id: paid
    wait_for:
      event: order.paid
      match: {order.id: "{{ event.payload.id }}", total: 5}
      if: "{{ signal.payload.total > 0 }}"
      timeout: 2d
      on_timeout: continue
  - {id: go, wait_for: {signal: go}}
  - {id: sub, workflow: other, input: {n: 1}, retry: {attempts: 2}, timeout: 1h}
  - {id: apart, workflow: other, wait: false}
"""
)
PYTHON = Workflow(
    name="w",
    trigger=ManualTrigger(),
    steps=[
        Step(id="nap", sleep="3d"),
        Step(id="late", sleep=SleepUntil(until="2030-01-31T09:00:00+01:00")),
        Step(id="some", sleep="{{ event.payload.hours * 3600 }}"),
        Step(
            id="paid",
            wait_for=WaitFor(
                event="order.paid",
                match={"order.id": "{{ event.payload.id }}", "total": 5},
                if_="{{ signal.payload.total > 0 }}",
                timeout="2d",  # type: ignore[arg-type]
                on_timeout="continue",
            ),
        ),
        Step(id="go", wait_for=WaitFor(signal="go")),
        Step(id="sub", workflow="other", input={"n": 1}, retry={"attempts": 2}, timeout="1h"),  # type: ignore[arg-type]
        Step(id="apart", workflow="other", wait=False),
    ],
)


def test_yaml_json_and_python_are_the_same() -> None:
    """One hash, and each is written as it was read."""
    workflow = loads(YAML)
    assert workflow.hash() == PYTHON.hash() == loads(dumps(workflow)).hash()
    assert loads(dumps(workflow, "json"), "json").hash() == workflow.hash()
    assert Workflow.from_dict(json.loads(json.dumps(workflow.to_dict()))) == workflow
    assert copy.deepcopy(workflow) == workflow
    assert workflow.awaited == {("order.paid", "order.id")}


def test_a_definition_without_waits_is_written_as_before() -> None:
    """Its hash is that of earlier versions: executions are pinned to it."""
    workflow = loads(HEAD + "steps: [{id: a, action: http.post}]")
    assert workflow.to_dict()["steps"] == [{"id": "a", "action": "http.post"}]


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ("{id: a}", "steps.a.action: is missing"),
        ("{id: a, action: x.y, sleep: 3d}", "one thing, not action and sleep"),
        (
            "{id: a, wait: 2d}",
            "steps.a.wait: must be true or false, not text (to let time pass write sleep: 2d)",
        ),
        ("{id: a, wait: 30}", "to let time pass write sleep: 30"),
        ("{id: a, delay: 2d}", "here it is called 'sleep'"),
        ("{id: a, workflow: other, payload: {n: 1}}", "here it is called 'input'"),
        ("{id: a, sleep: soon}", "steps.a.sleep: 'soon' is not a duration"),
        ("{id: a, sleep: {until: 2030-01-31T09:00:00}}", "has no offset from UTC"),
        ("{id: a, sleep: {until: tomorrow}}", "is not a time in ISO 8601"),
        ("{id: a, sleep: {for: 3d}}", "neither a duration nor {until: …}"),
        ("{id: a, sleep: 3d, retry: {attempts: 2}}", "retry means nothing with sleep"),
        ("{id: a, wait_for: {event: x}, timeout: 3d}", "write timeout inside wait_for"),
        ("{id: a, wait_for: {event: x}, input: {b: 1}}", "input means nothing with wait_for"),
        ("{id: a, wait_for: {event: order.*}}", "not for a pattern"),
        ("{id: a, wait_for: {event: x, signal: y}}", "an event or for a signal"),
        ("{id: a, wait_for: {timeout: 3d}}", "an event or for a signal"),
        ("{id: a, wait_for: {event: x, on_timeout: fail}}", "nothing without timeout"),
        ("{id: a, wait_for: {event: x, timeout: 0}}", "more than 0"),
        ("{id: a, wait_for: {event: x, wenn: 1}}", "the fields are event, signal, match"),
        ("{id: a, wait_for: {event: x, match: {b: '{{ steps.c.output }}'}}}", "step 'c'"),
        ("{id: a, wait_for: {event: x, match: {b: '{{ item }}'}}}", "with for_each only"),
        ("{id: a, action: x.y, wait: false}", "nothing without workflow"),
    ],
)
def test_what_is_wrong_is_said(step: str, words: str) -> None:
    """With the field, and what to write."""
    with pytest.raises(WorkflowError) as caught:
        loads(HEAD + f"steps: [{step}]")
    assert words in str(caught.value)
    assert "<string>:3" in str(caught.value)


def test_the_schema_for_editors_has_the_fields() -> None:
    """With the docstrings as descriptions."""
    schema = workflow_json_schema()
    step = schema["$defs"]["Step"]
    assert step["required"] == ["id"]
    assert "event or a signal" in step["properties"]["wait_for"]["description"]
    assert "for ever" in schema["$defs"]["WaitFor"]["properties"]["timeout"]["description"]


def test_pictures_say_what_a_step_waits_for() -> None:
    """In a terminal, in Mermaid and as SVG."""
    workflow = loads(YAML)
    outline = to_text(workflow, {"paid": "WAITING"})
    assert "○ paid  [wait for order.paid" in outline
    assert "[workflow other" in outline
    assert "waiting" in to_mermaid(workflow, {"paid": "WAITING"})
    assert "paid (waiting)" in to_svg(workflow, {"paid": "WAITING"})


def test_an_unknown_sub_workflow_is_found_beforehand() -> None:
    """With the name that was meant."""
    kernel = Kernel(discover=False, secrets={})
    steps = [{"id": "a", "workflow": "chidl"}, {"id": "b", "workflow": "child"}]
    child = {"name": "child", "trigger": {"type": "manual"}, "steps": [{"id": "a", "sleep": 1}]}
    kernel.add_workflow(child)
    (parent,) = kernel.add_workflow({**child, "name": "parent", "steps": steps})
    (problem,) = workflow_problems(kernel, parent)
    assert "steps.a.workflow" in problem
    assert "did you mean 'child'" in problem


# -- keys --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2030-01-31T09:00:00Z", datetime(2030, 1, 31, 9, tzinfo=timezone.utc)),
        (
            "2030-01-31T09:00:00+01:00",
            datetime(2030, 1, 31, 9, tzinfo=timezone(timedelta(hours=1))),
        ),
    ],
)
def test_instants(text: str, instant: datetime) -> None:
    """On every Python."""
    assert read_instant(text) == instant


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@given(JSON, JSON)
def test_different_values_have_different_keys(one: Any, other: Any) -> None:
    """And a tenant's is nobody else's."""
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (event_key(None, "x", "f", one) == event_key(None, "x", "f", other)) == same
    assert event_key("a", "x", "f", one) != event_key(None, "x", "f", one)
    assert event_key(None, "x", "f", 5) == event_key(None, "x", "f", 5.0)


@given(JSON)
def test_an_event_is_brought_to_the_keys_of_its_fields(value: Any) -> None:
    """One item for each field that it has, the same whenever it is made."""
    event = Event(id="1", name="x", payload={"a": {"b": value}})
    awaited = [("x", "a.b"), ("x", ""), ("x", "a.c"), ("y", "a.b")]
    items = [list(kept_signal_items(event, awaited)) for _ in range(2)]
    keys = [item.payload["key"] for item in items[0]]
    assert keys == [event_key(None, "x", "", None), event_key(None, "x", "a.b", value)]
    assert [item.id for item in items[0]] == [item.id for item in items[1]]
    assert values_at({"a": {"b": value}}, "a.b") == [value]
