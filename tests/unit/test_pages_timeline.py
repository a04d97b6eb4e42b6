"""The timeline of an execution: idle time is folded, and attempts, waits and retries are apart."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta, timezone
from html import unescape
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from automate_kernel import Kernel
from automate_kernel.storage import MemoryStorage, Where
from automate_kernel.storage.rows import queries
from automate_kernel.storage.tables import STEP
from automate_kernel.workflows.definition.model import Workflow
from automate_kernel.workflows.execution import (
    Event,
    Execution,
    ExecutionStatus,
    StepRun,
    StepStatus,
)
from automate_pages.formats import shown_tree
from automate_pages.timeline import ExecutionTimeline, StepRuns, TimelineAxis, read_steps

BEGAN = datetime(2026, 1, 1, tzinfo=timezone.utc)


def at(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("end", "busy", "folds"),
    [
        (10, [], 0),
        (10, [(0, 10)], 0),
        (3600, [(0, 2), (3598, 3600)], 1),
        (86_400 * 9, [(5, 6), (90, 91), (86_400 * 8, 86_400 * 8 + 1)], 4),
        (1.5, [(0, 0.1), (1.4, 1.5)], 1),
        (100, [(0, 60), (70, 100)], 0),  # a pause beside much work
        (60, [(60, 60)], 0),  # nothing else would be left
    ],
)
def test_time_without_work_is_folded(
    end: float, busy: list[tuple[float, float]], folds: int
) -> None:
    spans = [(at(a), at(b)) for a, b in busy]
    assert len(TimelineAxis(BEGAN, at(end), spans).folds) == folds
    assert TimelineAxis(BEGAN, at(end), spans, whole=True).folds == []


@given(
    st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)), max_size=30),
    st.lists(st.floats(0, 1e6), max_size=30),
)
def test_what_came_later_is_never_drawn_before(
    spans: list[tuple[float, float]], moments: list[float]
) -> None:
    busy = [(at(min(each)), at(max(each))) for each in spans]
    axis = TimelineAxis(BEGAN, at(1e6), busy)
    places = [axis.place(at(each)) for each in sorted(moments)]
    assert places == sorted(places)
    assert all(-1e-6 <= each <= 100 + 1e-6 for each in places)


def drawn(steps: list[dict[str, Any]], *, seconds: float = 3, rounds: int = 6) -> Any:
    """Return the timeline of an execution of *steps*, worked on every few *seconds*."""
    storage = MemoryStorage()
    kernel = Kernel(storage)
    calls: list[int] = []

    @kernel.action
    def flaky(x: int = 0) -> int:
        """Fail once."""
        calls.append(x)
        if len(calls) == 1:
            raise ConnectionError("away")
        return x

    kernel.add_workflow({"name": "w", "trigger": {"type": "manual"}, "steps": steps})
    begun = kernel.start("w")
    for _ in range(rounds):
        kernel.run_until_idle()
        storage.skip(seconds)
    execution = kernel.executions.get(begun)
    assert execution is not None
    with storage.begin(atomic=False) as rows:
        runs = read_steps(rows, begun)
        now = rows.now()
    failed = kernel.executions.failed_attempts(begun)
    workflow = kernel.executions.definition(execution.definition_id)
    timeline = ExecutionTimeline(kernel, execution, workflow, runs, now, failed=failed)
    kernel.close()
    return timeline


@pytest.mark.parametrize(
    ("step", "kinds"),
    [
        ({"id": "a", "action": "flaky", "retry": {"attempts": 3}}, ["attempt", "retry", "attempt"]),
        ({"id": "a", "action": "flaky"}, ["attempt"]),
        ({"id": "a", "sleep": "5s"}, ["wait"]),
        ({"id": "a", "sleep": "5h"}, ["wait"]),
        ({"id": "a", "wait_for": {"signal": "go"}}, ["wait"]),
        ({"id": "a", "steps": [{"id": "b", "sleep": "1s"}]}, ["block"]),
    ],
)
def test_attempts_waits_and_retries_are_apart(step: dict[str, Any], kinds: list[str]) -> None:
    track = next(each for each in drawn([step]).tracks if each.step_id == "a")
    assert [bar.kind for bar in track.bars if bar.kind != "queue"] == kinds


@pytest.mark.parametrize("defined", [True, False])
def test_a_step_is_ready_once_the_step_before_has_ended(defined: bool) -> None:
    """Its end is saved a moment after the next has begun, which needn't have waited."""

    def ended(step_id: str, began: float, end: float) -> StepRun:
        return StepRun(
            execution_id="e", step_id=step_id, status=StepStatus.COMPLETED,
            started_at=at(began), completed_at=at(end),
        )  # fmt: skip

    runs = [
        ended("a", 2, 3.01),
        ended("b", 3, 4),
        ended("c", 6, 7),
    ]
    kernel = Kernel(MemoryStorage())
    steps = [{"id": each, "sleep": "1s"} for each in "abc"]
    workflow = Workflow.model_validate({"name": "w", "trigger": {"type": "manual"}, "steps": steps})
    execution = Execution(
        id="e", name="w", definition_id="d", event=Event(id="e", name="w"),
        status=ExecutionStatus.COMPLETED, created_at=BEGAN, completed_at=at(7),
    )  # fmt: skip
    timeline = ExecutionTimeline(
        kernel, execution, workflow if defined else None, StepRuns(runs), at(7), whole=True
    )
    queued = {
        track.step_id: [bar.text for bar in track.bars if bar.kind == "queue"]
        for track in timeline.tracks
    }
    ready = "ready, and not begun"
    assert queued == {"a": [f"{ready}, 2 s"], "b": [], "c": [f"{ready}, 2 s"]}
    kernel.close()


def test_the_elements_that_failed_come_first() -> None:
    many = "{{ [1, 2, 3, 4, 5] }}"
    step = {"id": "each", "for_each": many, "action": "flaky", "input": {"x": "{{ item }}"}}
    labels = [track.label for track in drawn([step]).tracks]
    assert labels[:2] == ["each", "[0]"]


def test_a_failed_element_is_shown_however_many_others_go_on() -> None:
    """Then those that run, and of the others the slowest; the list of a failure before the rest."""
    kernel = Kernel(MemoryStorage())
    kernel.action("slow")(lambda: 1)
    step = {"for_each": "{{ event.payload }}", "action": "slow"}
    many = [{**step, "id": f"each-{n:02}", "needs": []} for n in range(22)]
    kernel.add_workflow({"name": "w", "trigger": {"type": "manual"}, "steps": many})
    begun = kernel.start("w", list(range(40)))
    kernel.run_until_idle()
    failing = [Where("step_id", "eq", "each-21"), Where("position", "ge", 0)]
    with kernel.storage.begin() as rows:
        rows.update(STEP, failing, {"status": "WAITING"})
        rows.update(STEP, [*failing, Where("position", "in", [38, 39])], {"status": "FAILED"})
        rows.update(STEP, [*failing, Where("position", "eq", 37)], {"status": "RUNNING"})
        seen = queries.count
        found = read_steps(rows, begun)
        assert queries.count - seen < 60
    assert [each.position for each in found.chosen["each-21"]] == [38, 39, 37, *range(17)]
    kernel.close()


def test_an_execution_without_steps_has_a_timeline() -> None:
    kernel = Kernel(MemoryStorage())
    execution = Execution(
        id="x", name="w", definition_id="d", event=Event(id="e", name="w"),
        status=ExecutionStatus.PENDING, created_at=BEGAN,
    )  # fmt: skip
    assert ExecutionTimeline(kernel, execution, None, StepRuns(), at(5)).took == "5 s"
    kernel.close()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=80,
)


@given(JSON)
def test_the_text_of_a_tree_is_its_json(value: Any) -> None:
    kernel = Kernel(MemoryStorage())
    text = unescape(re.sub("<[^>]*>", "", str(shown_tree(kernel, {"value": value}))))
    assert json.loads(text) == {"value": value}
    kernel.close()


@pytest.mark.parametrize(
    "value", [{"a": ["x" * 50] * 5_000}, {"a": "<b>" * 50_000}, [[[]]] * 9_000]
)
def test_a_large_value_is_cut(value: Any) -> None:
    kernel = Kernel(MemoryStorage())
    shown = str(shown_tree(kernel, value))
    assert "…" in shown
    assert len(shown) < 200_000
    assert shown.count("<details") == shown.count("</details>")
    assert "<b>" not in shown
    kernel.close()
