"""Pictures of workflows."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest
from example_counts import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from automate_kernel.workflows.definition.graph import (
    changed_steps,
    lay_out,
    to_mermaid,
    to_svg,
    to_text,
)
from automate_kernel.workflows.definition.loader import loads
from automate_kernel.workflows.definition.model import Workflow

DIAMOND = loads("""
name: order-notify
trigger: {type: event, event: order.created}
steps:
  - {id: fetch, action: http.get, timeout: 30s}
  - {id: total, action: orders.total, needs: [fetch]}
  - {id: stock, action: stock.reserve, needs: [fetch], for_each: "{{ event.payload.lines }}"}
  - {id: end, action: slack.post, needs: [total, stock], if: "{{ true }}", retry: {attempts: 5}}
on_failure:
  - {id: alert, action: http.post}
""")


@st.composite
def workflows(draw: st.DrawFn) -> Workflow:
    """Any graph of up to ten steps."""
    ids = [f"step{n}" for n in range(draw(st.integers(1, 10)))]
    steps = []
    for position, step_id in enumerate(ids):
        earlier = ids[:position]
        needs = draw(st.lists(st.sampled_from(earlier), unique=True, max_size=3)) if earlier else []
        steps.append({"id": step_id, "action": "x.y", "needs": needs})
    return Workflow.model_validate({"name": "w", "trigger": {"type": "manual"}, "steps": steps})


def test_a_terminal_shows_an_outline() -> None:
    """Each step is a line, indented below what it needs, with its status and its options."""
    drawn = to_text(DIAMOND, {"fetch": "COMPLETED", "total": "FAILED"})
    assert (
        drawn
        == """\
order-notify (event order.created)
  ✓ fetch  [http.get; ≤ 30s]
    ✕ total  [orders.total]  after fetch
    stock  [stock.reserve; for each]  after fetch
      end  [slack.post; if; 5 attempts]  after total, stock

on failure:
  alert  [http.post]
"""
    )


@settings(max_examples=examples(100), deadline=None)
@given(workflows())
def test_any_graph_has_an_outline(workflow: Workflow) -> None:
    """Every step has one line, below those that it needs and indented deeper than they are."""
    lines = to_text(workflow).splitlines()[1:]
    place = {line.split()[0]: number for number, line in enumerate(lines)}
    indent = {line.split()[0]: len(line) - len(line.lstrip()) for line in lines}
    assert sorted(place) == sorted(step.id for step in workflow.steps)
    for step_id, needs in workflow.graph().items():
        assert all(place[need] < place[step_id] for need in needs)
        assert indent[step_id] == 2 + max((indent[need] for need in needs), default=0)


@settings(max_examples=examples(100), deadline=None)
@given(workflows())
def test_spots_do_not_overlap(workflow: Workflow) -> None:
    """Boxes stand side by side, each layer below what it needs."""
    needs = workflow.graph()
    layers, width = lay_out(needs, dict.fromkeys(needs, 11.0), gap=2, thin=1)
    depth = {s.step_id: n for n, row in enumerate(layers) for s in row if not s.passage}
    assert sorted(depth) == sorted(needs)
    assert all(depth[need] < depth[key] for key in needs for need in needs[key])
    for row in layers:
        for left, right in pairwise(row):
            assert right.x - left.x >= (left.width + right.width) / 2 + 2 - 1e-6
        assert all(-1e-6 <= s.x - s.width / 2 <= s.x + s.width / 2 <= width for s in row)


def test_mermaid_survives_ids_and_texts_that_it_reads_itself() -> None:
    """A step called "end" and quotes in a name break nothing."""
    drawn = to_mermaid(DIAMOND, {"fetch": "COMPLETED"})
    assert drawn.startswith("flowchart TD\n")
    assert 's0["✓ fetch<br/>http.get<br/>≤ 30s"]:::completed' in drawn
    assert 's2[["stock<br/>stock.reserve<br/>for each"]]' in drawn
    assert "s1 --> s3" in drawn
    assert "start --> s0" in drawn
    assert 'subgraph on_failure["on failure"]' in drawn
    assert "classDef completed" in drawn
    assert not re.search(r"^\s*end[\[(]", drawn, re.MULTILINE)
    nasty = loads('{"name":"w","trigger":{"type":"event","event":"a\\"]<b>"},"steps":'
                  '[{"id":"a","action":"x"}]}', "json")  # fmt: skip
    assert "a#34;#93;#60;b#62;" in to_mermaid(nasty)


@settings(max_examples=examples(100), deadline=None)
@given(workflows())
def test_svg_is_well_formed_and_speaks(workflow: Workflow) -> None:
    """The picture is XML with a title, a text for screen readers and a box for each step."""
    root = ET.fromstring(to_svg(workflow, {"step0": "RUNNING"}))
    ns = {"s": "http://www.w3.org/2000/svg"}
    assert root.get("role") == "img"
    named = [root.findtext("s:title", namespaces=ns), root.findtext("s:desc", namespaces=ns)]
    assert named[0] == "w"
    assert named[1] is not None
    assert "step0 (running) first." in named[1]
    assert len(root.findall(".//s:rect[@class='box']", ns)) == len(workflow.steps)
    arrows = root.findall(".//s:path[@class='tip']", ns)
    assert len(arrows) == sum(len(workflow.needs_of(step.id)) for step in workflow.steps)


def test_svg_without_style_for_a_strict_policy() -> None:
    """Nothing in it needs 'unsafe-inline': a style sheet of the page says how it looks."""
    drawn = to_svg(DIAMOND, {"fetch": "FAILED"}, styled=False)
    assert "style" not in drawn
    assert 'class="automate-graph"' in drawn
    assert '<g class="FAILED">' in drawn


def test_svg_stands_alone() -> None:
    """No script, no link, both colour schemes, and texts can't break out."""
    nasty = Workflow.model_validate(
        {
            "name": "<script>alert(1)</script>&",
            "trigger": {"type": "manual"},
            "steps": [{"id": "a", "action": "x", "name": '"><img src=x>'}],
        }
    )
    drawn = to_svg(nasty, {"a": "FAILED"})
    assert "<script" not in drawn
    assert "<img" not in drawn
    assert "href" not in drawn
    assert "prefers-color-scheme: dark" in drawn
    assert to_svg(nasty) != drawn
    root = ET.fromstring(drawn)
    assert root.attrib["id"] in root.attrib["aria-labelledby"]


def test_an_unknown_status_is_refused() -> None:
    """A status that does not exist is a mistake of the caller."""
    with pytest.raises(ValueError, match="DONE"):
        to_text(DIAMOND, {"fetch": "DONE"})


def steps_of(*steps: dict[str, Any], **more: Any) -> Workflow:
    given = [{"action": "do.it", **each} for each in steps]
    return Workflow.model_validate(
        {"name": "w", "trigger": {"type": "manual"}, "steps": given, **more}
    )


@pytest.mark.parametrize(
    ("before", "after", "changes"),
    [
        (steps_of({"id": "a"}), steps_of({"id": "a"}), {}),
        (steps_of({"id": "a"}), steps_of({"id": "b"}), {"a": "REMOVED", "b": "ADDED"}),
        # The last waits for another step now, though its own text is the same.
        (steps_of({"id": "a"}, {"id": "c"}), steps_of({"id": "a"}, {"id": "b"}, {"id": "c"}),
         {"b": "ADDED", "c": "CHANGED"}),
        # What is gone waited for what is gone too, and the rest turns round.
        (steps_of({"id": "a"}, {"id": "x"}, {"id": "y"}, {"id": "b"}),
         steps_of({"id": "b"}, {"id": "a"}),
         {"a": "CHANGED", "b": "CHANGED", "x": "REMOVED", "y": "REMOVED"}),
        (steps_of({"id": "a"}, **{"finally": [{"id": "f", "action": "do.it"}]}),
         steps_of({"id": "a"}), {"f": "REMOVED"}),
        (steps_of({"id": "a", "action": None, "steps": [{"id": "in", "action": "do.it"}]}),
         steps_of({"id": "a", "action": None, "steps": [{"id": "in", "action": "do.other"}]}),
         {"a": "CHANGED"}),
    ],
    ids=["same", "other", "put-between", "turned-round", "clean-up", "inside"],
)  # fmt: skip
def test_a_picture_marks_what_has_changed(
    before: Workflow, after: Workflow, changes: dict[str, str]
) -> None:
    """By a class, a sign and words; both ways, and what is gone is still drawn."""
    assert {name: each.value for name, each in changed_steps(before, after).items()} == changes
    for former, now in ((before, after), (after, before)):
        drawn = to_svg(now, former=former)
        ET.fromstring(drawn)
        for name, each in changed_steps(former, now).items():
            assert f'<g class="{each.value}"><title>{name}: {each.value.lower()}' in drawn
            assert f"{name} ({each.value.lower()})" in drawn
