"""The differences between two definitions are told by step and field."""

from __future__ import annotations

import copy
from typing import Any

from example_counts import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from automate_kernel.workflows import Workflow
from automate_kernel.workflows.definition.difference import differences_between

BASE: dict[str, Any] = {
    "name": "w",
    "trigger": {"type": "event", "event": "a"},
    "steps": [
        {"id": "one", "action": "x.a", "input": {"t": "1", "deep": {"list": [1, 2]}}},
        {"id": "two", "action": "x.b"},
        {"id": "three", "action": "x.c", "needs": ["one"]},
    ],
    "on_failure": [{"id": "undo", "action": "x.u"}],
}


def told(**changes: Any) -> list[str]:
    """The differences of BASE with *changes*."""
    old, new = Workflow.from_dict(BASE), Workflow.from_dict({**copy.deepcopy(BASE), **changes})
    return [str(change) for change in differences_between(old, new)]


def step(number: int, **changes: Any) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = copy.deepcopy(BASE["steps"])
    steps[number] |= changes
    return steps


def test_fields_of_the_workflow_and_of_steps() -> None:
    """Each by its place, added, removed or changed."""
    assert told(title="New", timeout="1h") == ["+ title: New", "+ timeout: 1h"]
    assert told(trigger={"type": "event", "event": "b"}) == ["~ trigger.event: a → b"]
    assert told(trigger={"type": "manual"}) == ["~ trigger: event a → manual"]
    assert told(trigger=[{"type": "manual"}, {"type": "event", "event": "a"}]) == [
        "+ trigger: manual"
    ]
    assert told(steps=step(0, input={"t": "2", "deep": {"list": [1, 3]}})) == [
        "~ steps.one.input.t: 1 → 2",
        "~ steps.one.input.deep.list[1]: 2 → 3",
    ]
    assert told(steps=step(1, retry={"attempts": 3}, **{"if": "true"})) == [
        "+ steps.two.if: true",
        '+ steps.two.retry: {"attempts": 3}',
    ]
    assert told(steps=step(1, input={"a": None})) == ['+ steps.two.input: {"a": null}']
    assert told(on_failure=[]) == ['- on_failure.undo: {"action": "x.u"}']
    assert told(output=[]) == ["+ output: []"]
    assert told(output=[{"id": 1}], env=["A"]) == ['+ output: [{"id": 1}]', '+ env: ["A"]']
    assert told() == []


def test_steps_that_wait_for_others() -> None:
    """A step that is put in changes the step after it, though nobody wrote that down."""
    steps = copy.deepcopy(BASE["steps"])
    steps.insert(1, {"id": "new", "action": "x.n"})
    assert told(steps=steps) == [
        '+ steps.new: {"action": "x.n"}',
        '~ steps.two.needs: ["one"] → ["new"]',
    ]
    assert told(steps=step(1, needs=["one"])) == [
        "~ steps.two.needs: ['one'] (the step before) → ['one'] (named)"
    ]
    assert told(steps=step(1, needs=[])) == ['~ steps.two.needs: ["one"] → []']


def test_another_order() -> None:
    """Steps that only stand elsewhere are neither added nor removed."""
    steps = copy.deepcopy(BASE["steps"])
    steps[1]["needs"] = ["one"]
    old = Workflow.from_dict({**BASE, "steps": steps})
    new = Workflow.from_dict({**BASE, "steps": [steps[0], steps[2], steps[1]]})
    assert [str(change) for change in differences_between(old, new)] == [
        "~ steps: the order is now one three two"
    ]


NAMES = st.sampled_from("abcd")
WORKFLOWS = st.lists(NAMES, min_size=1, max_size=4, unique=True).flatmap(
    lambda ids: st.tuples(
        *(
            st.fixed_dictionaries(
                {"id": st.just(step_id), "action": st.sampled_from(["x.a", "x.b"])},
                optional={
                    "input": st.dictionaries(
                        NAMES, st.sampled_from([None, 0, 1, True, 1.0, [True], [1]]), max_size=2
                    ),
                    "needs": st.sampled_from([[], ids[:place]]),
                    "on_failure": st.sampled_from(["continue"]),
                },
            )
            for place, step_id in enumerate(ids)
        )
    ).map(
        lambda steps: Workflow.from_dict(
            {"name": "w", "trigger": {"type": "manual"}, "steps": list(steps)}
        )
    )
)


@settings(max_examples=examples(100, 40))
@given(WORKFLOWS, WORKFLOWS)
def test_there_is_a_difference_exactly_if_the_hashes_differ(one: Workflow, other: Workflow) -> None:
    """But for needs that say what holds anyway, and change nothing."""
    assert differences_between(one, Workflow.from_dict(one.to_dict())) == []
    changes = differences_between(one, other)
    if one.hash() == other.hash():
        assert changes == []
    elif not changes:
        same = [Workflow.from_dict(each.to_dict()).graph() for each in (one, other)]
        assert same[0] == same[1]
