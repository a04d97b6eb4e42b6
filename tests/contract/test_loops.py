"""Loops and chains of executions run, fail, go on, end and are purged on every storage."""

from __future__ import annotations

from typing import Any

import pytest
from automate_kernel import Kernel
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.storage.query import Where
from automate_kernel.storage.tables import STEP
from automate_kernel.workflows.execution import ExecutionStatus

pytestmark = pytest.mark.any_storage

COMPLETED, FAILED = ExecutionStatus.COMPLETED, ExecutionStatus.FAILED
ROUNDS = 45
WORKFLOW = {
    "name": "batches",
    "trigger": {"type": "manual"},
    "steps": [
        {
            "id": "rounds",
            "until": "{{ index == " + str(ROUNDS - 1) + " }}",
            "steps": [
                {"id": "each", "for_each": [1, 2], "concurrency": 2, "action": "note",
                 "input": {"what": "{{ outer.index }}.{{ item }}"}},
                {"id": "more", "until": "{{ output == 1 }}", "every": "1ms", "action": "count",
                 "input": {"what": "{{ index }}"}, "if": "{{ index % 20 == 0 }}"},
            ],
            "output": "{{ index }}",
        },
        {
            "id": "next",
            "if": "{{ event.payload.left > 0 }}",
            "continue_as_new": {"left": "{{ event.payload.left - 1 }}"},
        },
    ],
    "output": "{{ event.payload.left }}",
}  # fmt: skip
PARENT = {
    "name": "parent",
    "trigger": {"type": "manual"},
    "steps": [{"id": "sub", "workflow": "batches", "input": {"left": 2}}],
    "output": "{{ steps.sub.output }}",
}


def test_a_chain_of_loops_fails_goes_on_and_ends(storage: Any) -> None:
    kernel = Kernel(storage, discover=False, secrets={})
    done: list[str] = []
    broken = {"33.2"}

    @kernel.action
    def note(what: str) -> str:
        if what in broken:
            raise AutomateError(ErrorCodes.FAILED_PRECONDITION, what)
        done.append(what)
        return what

    @kernel.action
    def count(what: int) -> int:
        done.append(f"count {what}")
        return what

    kernel.add_workflow(WORKFLOW)
    kernel.add_workflow(PARENT)
    first = kernel.start("batches", {"left": 0})
    kernel.run_until_idle(patience=10)
    failed = kernel.executions.get(first)
    assert failed is not None and failed.status is FAILED
    assert "round 33: step 'rounds[33].each' failed: element 1" in str(failed.error)
    broken.clear()
    assert kernel.executions.resume(first)
    kernel.run_until_idle(patience=10)
    resumed = kernel.executions.get(first)
    assert resumed is not None and resumed.status is COMPLETED, resumed
    counts = ["count 0", "count 1"] * 3
    wanted = [f"{n}.{item}" for n in range(ROUNDS) for item in (1, 2)]
    assert sorted(done) == sorted([*wanted, *counts])
    kept = {run.position for run in resumed.runs_of("rounds")}
    assert ROUNDS - 1 in kept and 0 not in kept and len(kept) <= 21
    del done[:]
    parent = kernel.start("parent")
    kernel.run_until_idle(patience=10)
    ended = kernel.executions.get(parent)
    assert ended is not None and ended.output == 0, ended
    assert len(done) == 3 * len([*wanted, *counts])
    children = kernel.executions.find(workflow="batches")
    chain = [one for one in children if one.parent_id == parent]
    (head,) = (one.id for one in chain if one.chain_id is None)
    assert [one.chain_id for one in chain if one.id != head] == [head, head]
    while kernel.executions.purge(older_than_seconds=0):
        pass
    with storage.begin(atomic=False) as rows:
        assert rows.select(STEP, [Where("position", "ge", -1)], columns=("id",)) == []


def test_a_chain_takes_each_signal_once(storage: Any) -> None:
    kernel = Kernel(storage, discover=False, secrets={})
    done: list[int] = []

    @kernel.action
    def note(what: int) -> None:
        done.append(what)

    what = {"what": "{{ steps.take.output.payload }}"}
    steps = [
        {"id": "take", "wait_for": {"signal": "go"}},
        {"id": "note", "action": "note", "input": what},
        {"id": "next", "continue_as_new": {}},
    ]
    kernel.add_workflow({"name": "cart", "trigger": {"type": "manual"}, "steps": steps})
    first = kernel.start("cart")
    for numbers in (range(3), range(3, 4), range(4, 7)):
        for number in numbers:
            kernel.signal(first, "go", number)
        kernel.run_until_idle(patience=10)
    assert sorted(done) == list(range(7))
    (live,) = kernel.executions.find(status="RUNNING")
    assert kernel.executions.cancel(first)
    ended = kernel.executions.get(live.id)
    assert ended is not None and ended.status is ExecutionStatus.CANCELLED
