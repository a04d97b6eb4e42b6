"""The watermark by itself: what is on its way, for how long it is waited for, and whose clock."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from automate_kernel import Kernel
from automate_kernel.outbox import ItemStatus, Outcome
from automate_kernel.storage import MemoryStorage
from automate_testing.clock import FakeClock
from automate_kernel.workflows.decide.waits import EVENT
from automate_kernel.workflows.store.watermark import Watermarks


class World:
    """An outbox with events, and its watermarks; a lease takes 30 seconds."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.kernel = Kernel(
            MemoryStorage(clock=self.clock), discover=False, secrets={}, lease_seconds=30.0
        )
        self.marks = Watermarks(self.kernel.outbox)
        self.began = self.clock()

    def at(self, seconds: float) -> datetime:
        return self.began + timedelta(seconds=seconds)

    def passed(self, end: float, wait: str = "wait", tenant: str | None = None) -> bool:
        with self.kernel.storage.begin(atomic=False) as rows:
            return self.marks.has_passed(rows, wait, tenant, self.at(end), rows.now())

    def bring(self) -> None:
        """Bring the oldest event."""
        (item,) = self.kernel.outbox.claim_batch("worker", 1, kinds=[EVENT])
        self.kernel.outbox.acknowledge("worker", [Outcome(item.id, token=item.lease_token)])


@pytest.fixture
def world() -> World:
    return World()


def test_a_delayed_event_is_on_its_way_once_it_is_due(world: World) -> None:
    """Before anybody has put it in the line; for what ends before its delay it is not."""
    world.kernel.emit("x", delay=10)
    world.clock.advance(11)
    assert not world.passed(11)
    assert world.passed(9)


def test_an_event_that_is_put_off_was_sent_before(world: World) -> None:
    """While it waits, once that is over, and in the worker's hands again."""
    world.kernel.emit("x")
    (item,) = world.kernel.outbox.claim_batch("worker", 1, kinds=[EVENT])
    put_off = Outcome(
        item.id, ItemStatus.PENDING, 2.0, error_code="ABORTED", token=item.lease_token
    )
    world.kernel.outbox.acknowledge("worker", [put_off])
    world.clock.advance(1)
    assert not world.passed(0.5)
    world.clock.advance(2)
    assert not world.passed(1)
    (item,) = world.kernel.outbox.claim_batch("worker", 1, kinds=[EVENT])
    assert item.attempt_count == 1
    world.clock.advance(1)
    assert not world.passed(1.5)
    world.kernel.outbox.acknowledge("worker", [Outcome(item.id, token=item.lease_token)])
    world.clock.advance(1)
    assert world.passed(1.5)


def test_an_end_waits_on_while_the_oldest_is_brought(world: World) -> None:
    """A lease and five minutes count from the last one on."""
    for _ in range(3):
        world.kernel.emit("x")
        world.clock.advance(1)
    assert not world.passed(3)
    world.clock.advance(320)
    world.bring()
    assert not world.passed(3)
    world.clock.advance(320)
    assert not world.passed(3)
    world.clock.advance(11)
    assert world.passed(3)


def test_each_end_is_held_up_by_itself(world: World) -> None:
    """One that comes later waits its own time for what nobody brings."""
    world.kernel.emit("x")
    world.clock.advance(1)
    assert not world.passed(1, "early")
    world.clock.advance(330)
    assert world.passed(1, "early")
    assert not world.passed(331, "late")
    world.clock.advance(330)
    assert world.passed(331, "late")


def test_tenants_have_marks_of_their_own(world: World) -> None:
    world.kernel.emit("x", tenant_id="acme")
    world.clock.advance(1)
    assert world.passed(1)
    assert not world.passed(1, tenant="acme")


def test_a_clock_that_is_set_back_is_no_reason_to_trust_an_older_look(world: World) -> None:
    """What that look has not seen may have been sent since."""
    world.clock.advance(3600)
    assert world.passed(3600)
    world.clock.advance(-1800)
    world.kernel.emit("x")
    world.clock.advance(1)
    assert not world.passed(1801)
