"""Workflows that wait, as tests and dry runs see them."""

from __future__ import annotations

from typing import Any

import pytest

from automate_kernel import Kernel, WorkflowError
from automate_testing import WorkflowTest

STEPS: list[dict[str, Any]] = [
    {"id": "nap", "sleep": "3d"},
    {
        "id": "paid",
        "wait_for": {
            "event": "order.paid",
            "match": {"order": "{{ event.payload.order }}"},
            "if": "signal.payload.total > 1",
            "timeout": "2d",
        },
    },
    {
        "id": "tell",
        "action": "chat.say",
        "input": {"text": "{{ steps.paid.output.payload.total }} paid"},
    },
]


def make(steps: list[dict[str, Any]]) -> Kernel:
    kernel = Kernel(discover=False)

    @kernel.action("chat.say")
    def say(text: str) -> None:
        raise AssertionError("called for real")

    trigger = {"type": "event", "event": "order.created"}
    kernel.add_workflow({"name": "w", "trigger": trigger, "steps": steps})
    return kernel


def statuses(execution: Any) -> list[str]:
    return [str(run.status) for run in execution.steps]


def test_sleeps_and_events() -> None:
    """A sleep of days takes none, and an event comes when the test says so."""
    with WorkflowTest(make(STEPS)) as test:
        chat = test.replace("chat.say")
        (execution,) = test.emit("order.created", {"order": 7})
        assert statuses(execution) == ["WAITING"]
        test.pass_time("3d")
        assert statuses(test.execution(execution.id)) == ["COMPLETED", "WAITING"]
        test.emit("order.paid", {"order": 8, "total": 5})
        test.emit("order.paid", {"order": 7, "total": 5})
        assert test.execution(execution.id).status == "COMPLETED"
        assert chat.calls == [{"text": "5 paid"}]


def test_timeouts_of_waits() -> None:
    """Without the event the time goes on to its timeout."""
    with WorkflowTest(make(STEPS)) as test:
        test.replace("chat.say")
        (execution,) = test.emit("order.created", {"order": 7})
        assert test.finish(execution).status == "FAILED"


def test_a_dry_run_shows_waits() -> None:
    """With what they wait for, and the event as an output that may be given."""
    dry = make(STEPS).dry_run("w", {"order": 7})
    assert [str(step.outcome) for step in dry.steps] == ["waits", "waits", "called"]
    assert dry.steps[0].waits_for == {"sleep": "3d"}
    assert dry.steps[1].waits_for["wait_for"]["match"] == {"order": 7}
    assert dry.steps[2].depends_on == ["steps.paid.output"]
    outputs = {"paid": {"payload": {"total": 3}}}
    given = make(STEPS).dry_run("w", {"order": 7}, outputs=outputs)
    assert given.steps[2].calls[0].input == {"text": "3 paid"}


def test_the_signal_is_known_in_its_condition_only() -> None:
    """Elsewhere the step's output is what came."""
    wrong = [{**STEPS[1], "wait_for": {"event": "a", "if": "signl.payload", "timeout": "1d"}}]
    with pytest.raises(WorkflowError, match="did you mean 'signal'"):
        make(wrong)
    with pytest.raises(WorkflowError, match="'signal' is known in the if of wait_for only"):
        make([{**STEPS[2], "input": {"text": "{{ signal.payload }}"}}])
