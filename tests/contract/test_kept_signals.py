"""Signals to executions and chains, on every storage: none is lost, and none is taken twice."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from clocked_world import ClockedWorld
from lock_waits import until_held_up

from workers import handle
from automate_kernel import Kernel, WorkflowContext
from automate_kernel.base.errors import AutomateError, ErrorCodes, LeaseLostError
from automate_kernel.outbox import ItemStatus, Outcome, OutboxItem
from automate_kernel.outbox.item import new_id
from automate_kernel.storage import Storage
from automate_kernel.storage.query import Where
from automate_kernel.storage.tables import SIGNAL, WAIT
from automate_testing.clock import FakeClock
from automate_kernel.workflows.decide.children import CANCEL
from automate_kernel.workflows.decide.waits import SENT
from automate_kernel.workflows.decide.waits import SIGNAL as SIGNAL_KIND
from automate_kernel.workflows.execution import Event, Execution, ExecutionStatus

pytestmark = pytest.mark.any_storage

LEASE = 30.0
HOUR, DAY = 3600.0, 86_400.0


class World(ClockedWorld):
    """A kernel with chains that take signals, whose clock only the test moves."""

    def __init__(self, storage: Storage, clock: FakeClock) -> None:
        self.clock = clock
        self.kernel = Kernel(storage, discover=False, secrets={}, lease_seconds=LEASE)
        self.taken: list[Any] = []
        self.broken = False

        @self.kernel.action
        def note(what: Any = None) -> Any:
            if self.broken:
                raise AutomateError(ErrorCodes.NOT_FOUND, "it is broken")
            self.taken.append(what)
            return what

        self.add(
            "chain",
            {"id": "go", "wait_for": {"signal": "go"}},
            {"id": "note", "action": "note", "input": {"what": "{{ steps.go.output.payload }}"}},
            {"id": "next", "continue_as_new": {}},
        )
        self.add(
            "pair",
            {"id": "one", "wait_for": {"signal": "go"}},
            {"id": "first", "action": "note", "input": {"what": "{{ steps.one.output.payload }}"}},
            {"id": "two", "wait_for": {"signal": "go"}},
            {"id": "last", "action": "note", "input": {"what": "{{ steps.two.output.payload }}"}},
        )

    def signal(self, execution_id: str, name: str, payload: Any, **options: Any) -> str:
        sent = self.kernel.signal(execution_id, name, payload, **options)
        self.kernel.run_until_idle()
        return sent

    def live(self, name: str) -> str:
        """The execution of a workflow that goes on."""
        (one,) = (each for each in self.kernel.executions.find(workflow=name)
                  if not each.status.finished)  # fmt: skip
        return one.id

    def purge_all(self, age: float = 0.0) -> None:
        """All that any worker or operator ever purges."""
        self.kernel.executions.signals.purge()
        self.kernel.executions.purge_start_locks()
        self.kernel.outbox.purge_reports()
        self.kernel.purge(older_than_seconds=age)


@pytest.fixture
def world(clocked_storage: Storage, clock: FakeClock) -> World:
    return World(clocked_storage, clock)


def test_a_signal_that_no_link_has_taken_waits_for_the_one_that_does(world: World) -> None:
    """However many links come before that, and however long they take."""
    world.add(
        "links",
        {"id": "step", "wait_for": {"signal": "step"}, "if": "{{ event.payload.left > 0 }}"},
        {"id": "late", "wait_for": {"signal": "late"}, "if": "{{ event.payload.left == 0 }}",
         "needs": []},
        {"id": "tell", "action": "note", "input": {"what": "{{ steps.late.output.payload }}"},
         "if": "{{ event.payload.left == 0 }}"},
        {"id": "next", "continue_as_new": {"left": "{{ event.payload.left - 1 }}"},
         "if": "{{ event.payload.left > 0 }}", "needs": ["step"]},
    )  # fmt: skip
    first = world.start("links", {"left": 3})
    world.signal(first, "late", "here")
    for _ in range(3):
        world.later(2 * HOUR)
        world.signal(first, "step", None)
        world.purge_all()
    assert world.taken == ["here"]


@pytest.mark.parametrize("dies", [True, False])
def test_a_chain_takes_a_signal_once_though_its_worker_dies_as_it_brings_it(
    world: World, dies: bool
) -> None:
    """Or is frozen for longer than its lease, and then goes on."""
    first = world.start("chain")
    world.kernel.signal(first, "go", 1)
    (item,) = world.kernel.outbox.claim_batch("dying", kinds=[SIGNAL_KIND])
    deliver, finish = world.kernel._runner.handle_signal, world.kernel.outbox.acknowledge

    def die(*_: Any, **__: Any) -> Any:
        raise SystemExit

    if dies:
        world.kernel.outbox.acknowledge = die  # type: ignore[method-assign]
        with pytest.raises(SystemExit):
            deliver(item)
        world.kernel.outbox.acknowledge = finish  # type: ignore[method-assign]
    for _ in range(3):
        # Others take over, and the chain goes on by what was brought.
        world.later(LEASE + 1)
        world.kernel.outbox.reap()
        world.later(LEASE + 1)
    if not dies:
        with pytest.raises(LeaseLostError):
            deliver(item)
        world.kernel.run_until_idle()
    assert world.taken == [1]
    assert len(world.kernel.executions.find(workflow="chain")) == 2


@pytest.mark.parametrize("retention", [0.0, None])
@pytest.mark.parametrize("workflow", ["pair", "chain"])
def test_a_key_of_a_signal_counts_as_long_as_its_execution_goes_on(
    world: World, workflow: str, retention: float | None
) -> None:
    """Not only as long as the item that has brought it is kept; of a chain, until that ends."""
    world.kernel.outbox.retention_seconds = retention
    first = world.start(workflow)
    sent = world.signal(first, "go", 1, idempotency_key="order-7")
    world.later(2 * HOUR)
    world.purge_all()
    assert world.signal(first, "go", 1, idempotency_key="order-7") == sent
    assert world.taken == [1]
    world.signal(first, "go", 2, idempotency_key="order-8")
    assert world.taken == [1, 2]


def test_what_is_kept_of_signals_goes_with_the_execution_and_the_chain(world: World) -> None:
    """Also what was taken, and what never was; not with a link while the chain goes on."""
    pair, chain = world.start("pair"), world.start("chain")
    for number in range(3):
        if number < 2:
            world.signal(pair, "go", number, idempotency_key=f"k{number}")
        world.signal(chain, "go", number, idempotency_key=f"k{number}")
    world.signal(chain, "never", "left")
    world.purge_all()
    assert {row["execution_id"] for row in world.rows(SIGNAL)} == {chain}
    assert len(world.rows(SIGNAL)) == 4
    world.kernel.executions.cancel(chain)
    world.purge_all()
    assert world.rows(SIGNAL) == []


def send_late(world: World, execution: Execution) -> None:
    """Send as whoever looked for the execution a while ago, and commits only now."""
    event = Event(id=new_id(), name="go", payload=1, source=SENT)
    with world.kernel.storage.begin() as rows:
        world.kernel.executions.signals.send(rows, execution, event, idempotency_key="once")


def executions(world: World) -> list[Execution]:
    return world.kernel.executions.find(limit=10)


@pytest.mark.parametrize("links", [0, 2])
@pytest.mark.parametrize("kept", [False, True])
def test_a_signal_that_is_committed_after_the_purge_goes_too(
    world: World, links: int, kept: bool
) -> None:
    """It was for an execution that nobody has any more; no purge looked for it."""
    first = world.start("chain")
    for number in range(links):
        world.later(1)
        world.signal(first, "go", number)
    last = world.live("chain")
    (execution,) = [each for each in executions(world) if each.id == last]
    world.kernel.executions.cancel(last)
    world.later(1)
    if kept:  # those of the chain that were continued, which take no signals
        failed = [ExecutionStatus.CANCELLED]
        assert world.kernel.executions.purge(older_than_seconds=0, statuses=failed) == 1
    else:
        world.purge_all()
    assert len(executions(world)) == links * kept
    send_late(world, execution)
    world.kernel.run_until_idle()
    assert world.rows(SIGNAL) == []


def test_a_late_signal_to_what_goes_on_or_is_kept_stays(world: World) -> None:
    """To the chain whose first is purged, and to an execution that may be resumed."""
    world.broken = True
    failed, first = world.start("pair"), world.start("chain")
    world.signal(failed, "go", 1)
    world.broken = False
    (before,) = [each for each in executions(world) if each.id == failed]
    send_late(world, before)
    world.signal(first, "go", 2)
    world.later(1)
    done = [ExecutionStatus.COMPLETED]
    assert world.kernel.executions.purge(older_than_seconds=0, statuses=done) == 1
    (chain,) = [each for each in executions(world) if each.id != failed]
    send_late(world, chain)
    world.kernel.run_until_idle()
    assert world.taken == [2, 1]
    world.kernel.executions.resume(failed)
    world.kernel.run_until_idle()
    assert len(world.taken) == 4


@pytest.mark.every_storage
def test_a_signal_that_comes_during_the_purge_goes_too(world: World) -> None:
    """Whoever brings it waits for the purge, which has not seen it."""
    storage = world.kernel.storage
    sent = world.start("pair")
    world.kernel.executions.cancel(sent)
    (execution,) = executions(world)
    with storage.begin(atomic=False) as rows:
        if not rows.dialect.skip_locked:
            pytest.skip("transactions that write come one after the other")
    thread = threading.Thread(target=world.kernel.run_until_idle, daemon=True)
    purge = world.kernel.executions._retention._purge_page
    with storage.begin() as rows:
        (gone,), _, _ = purge(rows, [Where("id", "eq", sent)], 10)
        assert gone["id"] == sent
        join(send_late, world, execution)
        thread.start()
        until_held_up(thread, rows)
    thread.join(60)
    world.kernel.run_until_idle()
    assert world.rows(SIGNAL) == []


def join(work: Callable[..., object], *given: Any) -> None:
    """Do it on another thread, with a connection of its own."""
    thread = threading.Thread(target=work, args=given, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()


def test_a_signal_to_a_failed_execution_is_there_once_it_is_resumed(world: World) -> None:
    """It had come before, and the step that takes it begins only now."""
    world.add(
        "later",
        {"id": "first", "action": "note"},
        {"id": "nap", "sleep": "1m"},
        {"id": "second", "action": "note"},
        {"id": "go", "wait_for": {"signal": "go"}},
    )
    one = world.start("later")
    world.signal(one, "go", 1)
    world.broken = True
    world.later(61)
    assert world.see(one).status is ExecutionStatus.FAILED
    world.broken = False
    world.later(5 * HOUR)
    world.purge_all(age=10 * HOUR)
    assert world.kernel.executions.resume(one)
    world.kernel.run_until_idle()
    assert world.see(one).status is ExecutionStatus.COMPLETED


def test_a_key_of_a_start_counts_as_long_as_its_chain_goes_on(world: World) -> None:
    """The first of it may be purged by then: a second start with the key begins no other chain."""
    first = world.start("chain", idempotency_key="once")
    world.signal(first, "go", 1)
    world.purge_all()
    assert world.kernel.executions.get(first) is None
    assert world.start("chain", idempotency_key="once") == first
    assert len(world.kernel.executions.find(workflow="chain")) == 1
    world.signal(first, "go", 2)
    assert world.taken == [1, 2]


def test_a_backfill_begins_no_chain_again_whose_first_execution_is_purged(world: World) -> None:
    """Its id would be that of the chain which goes on."""
    hourly = {"type": "schedule", "cron": "0 * * * *"}
    wait = {"id": "go", "wait_for": {"signal": "go"}}
    world.add("hourly", wait, {"id": "next", "continue_as_new": {}}, trigger=hourly)
    end = world.clock()
    begin = end - timedelta(hours=1)
    assert world.kernel.schedules.backfill("hourly", begin, end) == 2
    world.kernel.run_until_idle()
    firsts = [one.id for one in world.kernel.executions.find(workflow="hourly")]
    for first in firsts:
        world.signal(first, "go", 1)
    world.purge_all()
    assert not world.kernel.executions.get(firsts[0])
    assert world.kernel.schedules.backfill("hourly", begin, end) == 0
    world.kernel.run_until_idle()
    assert len(world.kernel.executions.find(workflow="hourly")) == 2


def _claimed(world: World, kind: str) -> OutboxItem:
    (item,) = world.kernel.outbox.claim_batch("dying", kinds=[kind])
    return item


def test_a_late_cancellation_spares_a_child_that_is_waited_for_again(world: World) -> None:
    """Its worker died after it had cancelled it, and its parent was resumed meanwhile."""
    world.add("child", {"id": "go", "wait_for": {"signal": "go"}})
    world.add(
        "parent",
        {"id": "sub", "workflow": "child", "needs": []},
        {"id": "nap", "sleep": "1m", "needs": []},
        {"id": "fails", "action": "note", "needs": ["nap"]},
    )
    parent = world.start("parent")
    child = world.live("child")
    world.broken = True
    world.clock.advance(61)
    world.kernel.run_until_idle(kinds=["automate.advance"])
    assert world.see(parent).status is ExecutionStatus.FAILED
    item = _claimed(world, CANCEL)
    handle(world.kernel, item)
    assert world.see(child).status is ExecutionStatus.CANCELLED
    world.broken = False
    assert world.kernel.executions.resume(parent)
    world.kernel.run_until_idle(kinds=["automate.advance"])
    assert world.live("child") == child and len(world.rows(WAIT)) == 2
    world.clock.advance(LEASE + 1)
    world.kernel.outbox.reap()
    world.later(LEASE + 1)
    assert world.live("child") == child
    world.signal(child, "go", 1)
    assert world.see(parent).status is ExecutionStatus.COMPLETED


def test_a_cancellation_of_all_children_spares_what_is_waited_for_again(world: World) -> None:
    """The item of the parent was given up, and was put back before its children were cancelled."""
    world.add("child", {"id": "go", "wait_for": {"signal": "go"}})
    world.add("parent", {"id": "sub", "workflow": "child"})
    parent = world.start("parent")
    child, item_id = world.live("child"), world.see(parent).item_id or ""
    world.kernel.outbox.reschedule([item_id])
    (item,) = world.kernel.outbox.claim_batch("me", 1)
    given_up = Outcome(item.id, ItemStatus.FAILED, token=item.lease_token)
    assert world.kernel.outbox.acknowledge("me", [given_up]) == set()
    assert world.see(parent).status is ExecutionStatus.FAILED
    cancellation = _claimed(world, CANCEL)
    assert cancellation.payload == {"parent_id": parent}
    assert world.kernel.outbox.requeue([item_id]) == 1
    world.kernel.run_until_idle(kinds=["automate.advance"])
    assert world.live("child") == child
    handle(world.kernel, cancellation)
    assert world.live("child") == child
    world.signal(child, "go", 1)
    assert world.see(parent).status is ExecutionStatus.COMPLETED


@pytest.mark.parametrize("purged", [False, True])
def test_a_failed_event_that_is_put_back_starts_the_rest_alone(
    clocked_storage: Storage, clock: FakeClock, purged: bool
) -> None:
    """Also if what it has started ended and is purged, and if a chain has taken it long ago."""

    def open_world(condition: str) -> World:
        world = World(clocked_storage, clock)
        paid = {"type": "event", "event": "paid"}
        for name, more in (("starts", {}), ("picky", {"if": condition})):
            note = {"id": "note", "action": "note", "input": {"what": name}}
            world.add(name, note, trigger={**paid, **more})
        world.add(
            "takes",
            {"id": "take", "wait_for": {"event": "paid"}},
            {"id": "note", "action": "note", "input": {"what": "takes"}},
            {"id": "next", "continue_as_new": {}},
        )
        return world

    world = open_world("{{ event.payload.missing > 1 }}")
    world.start("takes")
    event = world.kernel.emit("paid", {"order": 1})
    for _ in range(3):
        world.later(HOUR)
    item = world.kernel.outbox.get(event)
    assert item is not None and item.status == "FAILED"
    assert sorted(world.taken) == ["starts", "takes"]
    if purged:
        world.kernel.executions.signals.purge()
        world.kernel.executions.purge(older_than_seconds=0)
    mended = open_world("{{ event.payload.order == 1 }}")
    assert mended.kernel.outbox.requeue([event]) == 1
    mended.kernel.run_until_idle()
    assert mended.taken == ["picky"]


@pytest.mark.parametrize("waits", ["10", "100", "1000"])
@pytest.mark.parametrize("coded", [False, True])
def test_events_that_came_while_no_worker_ran_wait_for_the_link_that_takes_them(
    world: World, waits: str, coded: bool
) -> None:
    """Links that wait for none of them begin and end before it, and purges come in between."""
    if coded:

        @world.kernel.workflow(name="links")
        async def links(ctx: WorkflowContext, given: dict[str, int]) -> None:
            if given["link"] % len(waits) == 0:
                paid = await ctx.wait_for("paid")
                await ctx.call("note", what=paid.payload)
            ctx.continue_as_new({"link": given["link"] + 1})
    else:
        condition = f"{{{{ event.payload.link % {len(waits)} == 0 }}}}"
        note = {"what": "{{ steps.take.output.payload }}"}
        world.add(
            "links",
            {"id": "take", "wait_for": {"event": "paid"}, "if": condition},
            {"id": "note", "action": "note", "input": note, "if": condition},
            {"id": "next", "continue_as_new": {"link": "{{ event.payload.link + 1 }}"}},
        )
    world.start("links", {"link": 0})
    for number in range(4):
        world.kernel.emit("paid", number)
        world.clock.advance(1)
    world.kernel.run_until_idle(kinds=["automate.event"])
    world.clock.advance(13 * HOUR)
    world.kernel.executions.signals.purge()
    world.kernel.run_until_idle()
    assert world.taken == [0, 1, 2, 3]
    # A week is enough: else a chain that takes none for years would keep them all.
    world.later(9 * DAY)
    for _ in range(2):
        world.kernel.emit("paid", "last")
        world.kernel.run_until_idle()
        world.later(2 * HOUR)
    world.kernel.executions.signals.purge()
    assert len(world.rows(SIGNAL)) <= 2
