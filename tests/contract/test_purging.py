"""A purge of executions passes what has to stay, on every storage."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from automate_kernel import Kernel
from automate_kernel.storage import Storage
from automate_testing.clock import FakeClock
from automate_kernel.workflows.execution import Execution, ExecutionStatus

pytestmark = pytest.mark.any_storage


@pytest.fixture
def kernel(clocked_storage: Storage) -> Iterator[Kernel]:
    with Kernel(clocked_storage, discover=False, secrets={}) as kernel:
        kernel.action("do.it")(lambda: None)
        steps = [{"id": "a", "action": "do.it"}]
        kernel.add_workflow({"name": "other", "trigger": {"type": "manual"}, "steps": steps})
        kernel.add_workflow({"name": "child", "trigger": {"type": "manual"}, "steps": steps})
        sub = {"id": "sub", "workflow": "child", "for_each": [1, 2, 3, 4], "concurrency": 4}
        kernel.add_workflow({"name": "parent", "trigger": {"type": "manual"}, "steps": [sub]})
        yield kernel


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5])
def test_results_that_a_paused_parent_needs_hold_up_nothing(
    kernel: Kernel, clock: FakeClock, limit: int
) -> None:
    """They are the oldest, as many as a purge takes at once, or more; what is younger goes."""
    parent = kernel.start("parent")
    kernel.run_until_idle(kinds=["automate.advance"])
    others = [kernel.start("other") for _ in range(3)]
    kernel.executions.pause(parent)
    kernel.run_until_idle()
    clock.advance(60)
    others += [kernel.start("other") for _ in range(3)]
    kernel.run_until_idle()
    clock.advance(60)

    purged = []
    while gone := kernel.executions.purge(older_than_seconds=30, limit=limit):
        purged.append(gone)
    assert sum(purged) == len(others)
    assert max(purged) <= limit
    left = kernel.executions.find()
    assert sorted(each.name for each in left) == ["child"] * 4 + ["parent"]

    kernel.executions.unpause(parent)
    kernel.run_until_idle()
    assert done(kernel.executions.get(parent))


def done(execution: Execution | None) -> bool:
    return execution is not None and execution.status is ExecutionStatus.COMPLETED
