"""Workers that die while they begin what was asked for: an event, a signal, a cancellation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from clocked_world import ClockedWorld

from automate_kernel import Kernel
from automate_kernel.outbox.item import ACCEPTED_MAX_ATTEMPTS, EXPIRED, ItemStatus
from automate_kernel.storage import Storage
from automate_testing.clock import FakeClock
from automate_kernel.workflows.decide.children import CANCEL
from automate_kernel.workflows.decide.waits import ADVANCE, EVENT, SIGNAL
from automate_kernel.workflows.execution import ExecutionStatus

pytestmark = pytest.mark.any_storage

# Longer than the longest pause after a death.
_LATER = 1000.0
_ASKED = {"id": "ask", "wait_for": {"signal": "go"}}
_WHOLE = {"id": "sub", "workflow": "waits"}


class World(ClockedWorld):
    """One process after another on one storage; the test moves the clock, and lets them die."""

    def __init__(self, storage: Storage, clock: FakeClock) -> None:
        self.clock = clock
        self.kernel = Kernel(storage, discover=False, secrets={}, lease_seconds=30.0)
        self.add("begins", {"type": "event", "event": "asked"}, {"id": "one", "action": "look"})
        self.add("waits", {"type": "manual"}, _ASKED)
        self.add("parent", {"type": "manual"}, _WHOLE)
        self.kernel.action("look")(lambda: "seen")

    def add(self, name: str, trigger: dict[str, Any], step: dict[str, Any]) -> None:
        self.kernel.add_workflow({"name": name, "trigger": trigger, "steps": [step]})

    def die(self, kind: str) -> str:
        """Let a worker die right after it has begun an item of *kind*, alone; return its id."""
        outbox = self.kernel.outbox
        # What has just become due may be found by the next claim only.
        claimed = outbox.claim_ahead("dies", 1, kinds=[kind])
        (item,) = claimed or outbox.claim_ahead("dies", 1, kinds=[kind])
        assert outbox.begin([item.id], "dies") == set()
        self.clock.advance(outbox.lease_seconds + 1)
        assert len(outbox.reap()) == 1
        self.clock.advance(_LATER)
        return item.id

    def statuses(self) -> dict[str, ExecutionStatus]:
        return {one.name: one.status for one in self.kernel.executions.find()}


@pytest.fixture
def world(clocked_storage: Storage, clock: FakeClock) -> World:
    return World(clocked_storage, clock)


def emit(world: World) -> None:
    world.kernel.emit("asked")


def signal(world: World) -> None:
    execution_id = world.kernel.start("waits")
    world.kernel.run_until_idle()
    world.kernel.signal(execution_id, "go")


def cancel(world: World) -> None:
    execution_id = world.kernel.start("parent")
    world.kernel.run_until_idle()
    assert world.kernel.executions.cancel(execution_id)


@pytest.mark.parametrize(
    ("kind", "ask", "done"),
    [
        (EVENT, emit, {"begins": ExecutionStatus.COMPLETED}),
        (SIGNAL, signal, {"waits": ExecutionStatus.COMPLETED}),
        (
            CANCEL, cancel,
            {"parent": ExecutionStatus.CANCELLED, "waits": ExecutionStatus.CANCELLED},
        ),
    ],
)  # fmt: skip
def test_what_was_asked_for_outlives_a_storm_of_deaths(
    world: World, kind: str, ask: Callable[[World], None], done: dict[str, ExecutionStatus]
) -> None:
    """More deaths than an execution bears, each right after the begin: it is done all the same."""
    ask(world)
    for _ in range(20):
        world.die(kind)
    world.kernel.run_until_idle()
    assert world.statuses() == done


def test_an_event_that_kills_each_of_its_workers_ends_where_operators_look(world: World) -> None:
    """It is FAILED with the deaths, and what has failed can be begun again once it is mended."""
    world.kernel.emit("asked")
    for _ in range(ACCEPTED_MAX_ATTEMPTS - 1):
        world.die(EVENT)
    (waiting,) = world.kernel.outbox.find(kind=EVENT)
    assert waiting.status is ItemStatus.RETRY
    item_id = world.die(EVENT)
    (failed,) = world.kernel.outbox.find(status="FAILED")
    assert (failed.id, failed.last_error_code) == (item_id, EXPIRED)
    assert world.kernel.outbox.error_groups()[0].count == 1
    assert world.kernel.outbox.requeue([item_id]) == 1
    world.kernel.run_until_idle()
    assert world.statuses() == {"begins": ExecutionStatus.COMPLETED}


def test_a_wake_up_is_given_up_after_ten_deaths_over_the_same_step(world: World) -> None:
    """A step may kill its worker: what runs application code is bounded as before."""
    world.kernel.start("waits")
    for _ in range(9):
        world.die(ADVANCE)
    assert world.statuses() == {"waits": ExecutionStatus.PENDING}
    world.die(ADVANCE)
    assert world.statuses() == {"waits": ExecutionStatus.FAILED}
