"""Blocks run, fail, go on and are copied on every storage."""

from __future__ import annotations

from typing import Any

import pytest
from automate_kernel import Kernel
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.workflows.execution import ExecutionStatus
from defined import define

pytestmark = pytest.mark.any_storage

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


def test_a_list_of_an_objects_keys_stays_as_it_began(clocked_storage: Any, clock: Any) -> None:
    """
    No element is done twice, and none left out, where the database has an order of its own.

    After each element the execution is read again, by a process that has seen nothing.
    """
    keys, nap = ["zz", "a", "ü", "mmm"], {"id": "nap", "sleep": "1h"}
    done: list[str] = []

    def note(what: str) -> None:
        done.append(what)

    def begin() -> Kernel:
        kernel = Kernel(clocked_storage, discover=False, secrets={})
        kernel.action(note)
        kernel.action("give")(lambda: {"inside": [dict.fromkeys(keys, 1)]})
        for name, of in (("output", "steps.give.output.inside[0]"), ("event", "event.payload")):
            each = {"id": "each", "action": "note", "input": {"what": "{{ item }}"}}
            block = {"id": "all", "for_each": "{{ %s | list }}" % of, "steps": [each, nap]}
            give = {"id": "give", "action": "give"}
            define(kernel, give, block, name=name)
        return kernel

    for name in ("output", "event"):
        begin().run(name, dict.fromkeys(keys, 1), patience=0)
        for _ in keys:
            clock.advance(3601)
            begin().run_until_idle()
        assert sorted(done) == sorted(keys), name
        del done[:]
