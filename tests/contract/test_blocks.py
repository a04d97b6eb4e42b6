"""Blocks run, fail, go on and are copied on every storage."""

from __future__ import annotations

from typing import Any

from automate_kernel import Kernel
from automate_kernel.errors import AutomateError, ErrorCodes
from automate_kernel.workflows.execution import ExecutionStatus

COMPLETED, FAILED = ExecutionStatus.COMPLETED, ExecutionStatus.FAILED
WORKFLOW = {
    "name": "orders",
    "trigger": {"type": "manual"},
    "steps": [
        {
            "id": "orders",
            "for_each": "{{ event.payload }}",
            "concurrency": 3,
            "steps": [
                {
                    "id": "lines",
                    "for_each": "{{ item }}",
                    "steps": [
                        {"id": "take", "action": "note", "input": {"what": "take {{ item }}"}},
                        {"id": "nap", "sleep": "1ms"},
                        {
                            "id": "kind",
                            "switch": "{{ outer.index }}",
                            "cases": {
                                "0": [
                                    {"id": "a", "action": "note", "input": {"what": "a{{ item }}"}}
                                ]
                            },
                            "default": [
                                {"id": "b", "action": "note", "input": {"what": "b{{ item }}"}}
                            ],
                        },
                    ],
                }
            ],
        },
        {"id": "end", "action": "note", "input": {"what": "end"}},
    ],
    "output": "{{ steps.orders.output }}",
}


def test_a_nested_block_fails_goes_on_and_is_copied(storage: Any) -> None:
    kernel = Kernel(storage, discover=False, secrets={})
    done: list[str] = []
    broken = {"b3"}

    @kernel.action
    def note(what: str) -> str:
        if what in broken:
            raise AutomateError(ErrorCodes.FAILED_PRECONDITION, what)
        done.append(what)
        return what

    kernel.add_workflow(WORKFLOW)
    execution = kernel.run("orders", [[1, 2], [3], [4]])
    assert execution.status is FAILED
    assert "step 'orders[1].lines' failed: element 0" in str(execution.error)
    broken.clear()
    assert kernel.executions.resume(execution.id)
    kernel.run_until_idle(patience=10)
    resumed = kernel.executions.get(execution.id)
    assert resumed is not None and resumed.status is COMPLETED, resumed
    assert resumed.output == [["a1", "a2"], ["b3"], ["b4"]]
    wanted = [f"take {n}" for n in range(1, 5)] + ["a1", "a2", "b3", "b4", "end"]
    assert sorted(done) == sorted(wanted)
    del done[:]
    copied = kernel.executions.fork(execution.id, "end")
    kernel.run_until_idle(patience=10)
    copy = kernel.executions.get(copied)
    assert copy is not None and copy.output == resumed.output
    assert done == ["end"]
    assert kernel.executions.resume(execution.id, step_id="orders")
    kernel.run_until_idle(patience=10)
    assert sorted(done) == sorted(["end", *wanted])
