"""What is left of a failure once it is over, who holds an item, and many behind one gate."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from clocked_world import ClockedWorld

from automate_kernel import Kernel
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.storage import Storage
from automate_kernel.storage.query import Where
from automate_kernel.storage.rows import Row
from automate_kernel.storage.tables import EXECUTION, STEP
from automate_testing.clock import FakeClock
from automate_kernel.workflows.decide.waits import ADVANCE
from automate_kernel.workflows.execution import ExecutionStatus

pytestmark = pytest.mark.any_storage

LEASE, HOUR = 30.0, 3600.0
LEFT_BY_AN_ERROR = ("error_code", "error", "error_group", "trace")


class World(ClockedWorld):
    """A kernel whose one action fails as often as the test says."""

    def __init__(self, storage: Storage, clock: FakeClock) -> None:
        self.clock = clock
        self.kernel = Kernel(storage, discover=False, secrets={}, lease_seconds=LEASE)
        self.failures = 0

        @self.kernel.action
        def call(what: Any = None) -> Any:
            if self.failures:
                self.failures -= 1
                raise AutomateError(ErrorCodes.UNAVAILABLE, "the other side is down")
            return what

    def row(self, table: str, **its: Any) -> Row:
        with self.kernel.storage.begin() as rows:
            (row,) = rows.select(table, [Where(name, "eq", its[name]) for name in its])
        return row


@pytest.fixture
def world(clocked_storage: Storage, clock: FakeClock) -> World:
    return World(clocked_storage, clock)


def test_a_step_keeps_its_beginning_and_loses_its_error(world: World) -> None:
    """It began with its first attempt; the third goes well, and its errors are past."""
    retry = {"attempts": 3, "delay": "1h", "max_delay": "5h", "jitter": False}
    world.add("flaky", {"id": "call", "action": "call", "retry": retry})
    world.failures, began = 2, world.clock()
    one = world.start("flaky")
    for attempt in (1, 2):
        row = world.row(STEP, execution_id=one)
        assert (row["status"], row["attempts"]) == ("RETRY", attempt)
        assert row["error"] == "the other side is down" and row["error_group"]
        world.later(5 * HOUR)
    row = world.row(STEP, execution_id=one)
    assert (row["status"], row["attempts"]) == ("COMPLETED", 3)
    assert [row[name] for name in LEFT_BY_AN_ERROR] == [None] * 4
    second = timedelta(seconds=1)
    assert abs(row["started_at"] - began) < second
    assert abs(row["attempted_at"] - (began + timedelta(hours=10))) < second
    assert abs(row["completed_at"] - world.clock()) < second


def test_an_execution_that_is_resumed_and_ends_well_has_no_error(world: World) -> None:
    """Neither while it goes on nor once it has ended; nor has its step."""
    world.add(
        "resumed", {"id": "call", "action": "call"}, {"id": "go", "wait_for": {"signal": "go"}}
    )
    world.failures = 1
    one = world.start("resumed")
    failed = world.row(EXECUTION, id=one)
    assert failed["status"] == "FAILED" and "the other side is down" in failed["error"]
    assert world.kernel.executions.resume(one)
    world.kernel.run_until_idle()
    for status in ("RUNNING", "COMPLETED"):
        row = world.row(EXECUTION, id=one)
        assert row["status"] == status
        assert [row[name] for name in LEFT_BY_AN_ERROR[:3]] == [None] * 3
        step = world.row(STEP, execution_id=one, step_id="call")
        assert [step[name] for name in LEFT_BY_AN_ERROR] == [None] * 4
        world.kernel.signal(one, "go") if status == "RUNNING" else None
        world.kernel.run_until_idle()


def test_a_lease_is_renewed_for_the_claim_that_has_it_alone(world: World) -> None:
    """Not for an earlier claim of the same worker, in the same process."""
    world.add("plain", {"id": "call", "action": "call"})
    world.kernel.start("plain")
    (first,) = world.kernel.outbox.claim_batch("worker", kinds=[ADVANCE])
    checkpoints = world.kernel.executions.checkpoints
    assert checkpoints.holds(first)
    world.clock.advance(LEASE + 1)
    world.kernel.outbox.reap()
    world.clock.advance(HOUR)
    (again,) = world.kernel.outbox.claim_batch("worker", kinds=[ADVANCE])
    assert again.id == first.id
    assert not checkpoints.holds(first)
    assert checkpoints.holds(again)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("how", ["rate_limit", "concurrency"])
def test_three_children_of_one_checkpoint_go_through_one_gate(world: World, how: str) -> None:
    """Each comes to its turn, though they lock the same."""
    limits: dict[str, Any] = {
        "rate_limit": {"limit": 1, "per": "1h"},
        "concurrency": {"limit": 1, "when_full": "cancel_older"},
    }
    world.add("child", {"id": "call", "action": "call"}, **{how: limits[how]})
    each = {"id": "each", "workflow": "child", "for_each": [1, 2, 3], "concurrency": 3}
    world.add("parent", each)
    one = world.start("parent")
    for _ in range(3):
        world.later(HOUR + 1)
    assert world.see(one).status is ExecutionStatus.COMPLETED
    children = world.kernel.executions.find(workflow="child")
    assert [child.status for child in children] == [ExecutionStatus.COMPLETED] * 3
