"""
Executions that wait, on every storage: no order of events loses a signal, and no crash does.

Tests stand in the moments that matter by wrapping the call that follows.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from threading import Semaphore
from typing import Any

import pytest
from clocked_world import ClockedWorld
from lock_waits import until_held_up
from workers import handle
from waiting import until

from automate_kernel import Kernel, WorkflowContext
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.outbox import ItemStatus, OutboxItem, Outcome
from automate_kernel.outbox.item import new_id
from automate_kernel.storage import MemoryStorage, Storage
from automate_kernel.storage.errors import LockedError
from automate_kernel.storage.query import Where
from automate_kernel.storage.rows import Rows
from automate_kernel.storage.tables import AWAITED, EXECUTION, SIGNAL, STEP, WAIT
from automate_testing.clock import FakeClock
from automate_kernel.workflows import load_workflow
from automate_kernel.workflows.decide import continuations
from automate_kernel.workflows.store import signal_store
from automate_kernel.workflows.decide.children import CANCEL
from automate_kernel.workflows.decide.waits import ADVANCE, EVENT
from automate_kernel.workflows.decide.waits import SIGNAL as SIGNAL_KIND
from automate_kernel.workflows.execution import Event, Execution, ExecutionStatus, StepStatus

pytestmark = pytest.mark.any_storage

COMPLETED, FAILED, CANCELLED = (
    ExecutionStatus.COMPLETED, ExecutionStatus.FAILED, ExecutionStatus.CANCELLED,
)  # fmt: skip
RUNNING = ExecutionStatus.RUNNING
PAID = {"event": "order.paid", "match": {"order": "{{ event.payload.order }}"}}
PATIENCE = 20.0


class World(ClockedWorld):
    """A kernel on a storage, whose clock only the test moves."""

    def __init__(self, storage: Storage, clock: FakeClock) -> None:
        self.clock = clock
        self.kernel = Kernel(storage, discover=False, secrets={}, lease_seconds=30.0)
        self.called: list[Any] = []

        @self.kernel.action
        def note(what: Any = None) -> Any:
            self.called.append(what)
            return what

        @self.kernel.action
        def fail() -> None:
            raise AutomateError(ErrorCodes.NOT_FOUND, "there is no stock")

    def claim(self, kind: str = ADVANCE) -> OutboxItem:
        """Claim the one item of *kind* that is due."""
        (item,) = self.kernel.outbox.claim_batch("dying", kinds=[kind])
        return item

    def children(self, parent_id: str) -> list[Execution]:
        found = self.kernel.executions.find(limit=1000)
        return [one for one in found if one.parent_id == parent_id]


@pytest.fixture
def world(clocked_storage: Storage, clock: FakeClock) -> World:
    return World(clocked_storage, clock)


@pytest.fixture
def paying(world: World) -> World:
    """A world with a workflow that waits for an order to be paid."""
    world.add(
        "paying",
        {"id": "paid", "wait_for": PAID},
        {"id": "ship", "action": "note", "input": {"what": "{{ steps.paid.output.payload }}"}},
        output="{{ steps.ship.output }}",
    )
    return world


# -- sleeping --------------------------------------------------------------------------------------


def test_a_sleep_ends_when_its_time_has_come(world: World) -> None:
    """It holds nothing, and ends by the clock of the database."""
    world.add("late", {"id": "nap", "sleep": "3d"}, {"id": "go", "action": "note"})
    one = world.start("late")
    item = world.kernel.outbox.get(world.see(one).item_id or "")
    assert item is not None
    assert (item.status, item.waiting_for) == (ItemStatus.PENDING, "time")
    world.later(3 * 86_400 - 60)
    assert world.step(one, "nap") is StepStatus.WAITING
    world.later(61)
    assert world.status(one) is COMPLETED
    assert world.see(one).step("nap").output is None  # type: ignore[union-attr]
    assert not world.rows(WAIT)


@pytest.mark.parametrize(
    ("until", "waits"),
    [("2026-01-01T01:00:00+00:00", True), ("2026-01-01T02:00:00+02:00", False),
     ("2025-01-01T00:00:00Z", False)],
)  # fmt: skip
def test_a_sleep_until_a_time(world: World, until: str, waits: bool) -> None:
    """A time in the past ends at once."""
    world.add("until", {"id": "nap", "sleep": {"until": "{{ event.payload }}"}})
    one = world.start("until", until)
    assert (world.status(one) is RUNNING) == waits
    world.later(3600)
    assert world.status(one) is COMPLETED


@pytest.mark.parametrize("until", ["2026-01-01T01:00:00", "soon", 5, None])
def test_a_time_without_an_offset_fails_the_step(world: World, until: Any) -> None:
    """The error says what is missing."""
    world.add("until", {"id": "nap", "sleep": {"until": "{{ event.payload }}"}})
    one = world.see(world.start("until", until))
    assert (one.status, one.error_code) == (FAILED, "INVALID_ARGUMENT")
    assert "steps.nap.sleep" in (one.error or "")


@pytest.mark.parametrize("given", [90, "1m30s", 89.5])
def test_a_sleep_may_be_a_template(world: World, given: Any) -> None:
    """It gives seconds, or the text of a duration."""
    world.add("napping", {"id": "nap", "sleep": "{{ event.payload }}"})
    one = world.start("napping", given)
    world.later(89)
    assert world.status(one) is RUNNING
    world.later(1)
    assert world.status(one) is COMPLETED


def test_the_workflows_time_ends_a_sleep(world: World) -> None:
    """The workflow's own timeout bounds waits."""
    world.add("bounded", {"id": "nap", "sleep": "3d"}, timeout="1h")
    one = world.start("bounded")
    world.later(3601)
    assert (world.status(one), world.step(one, "nap")) == (FAILED, StepStatus.CANCELLED)


# -- events ----------------------------------------------------------------------------------------


def test_an_event_answers_the_execution_that_it_matches(paying: World) -> None:
    """It is the step's output; others go on waiting."""
    one, other = paying.start("paying", {"order": 1}), paying.start("paying", {"order": 2})
    event_id = paying.kernel.emit("order.paid", {"order": 2, "total": 9})
    paying.run()
    assert [paying.status(each) for each in (one, other)] == [RUNNING, COMPLETED]
    output = paying.see(other).step("paid").output  # type: ignore[union-attr]
    assert (output["id"], output["name"]) == (event_id, "order.paid")
    assert paying.see(other).output == {"order": 2, "total": 9}
    assert [row["execution_id"] for row in paying.rows(WAIT)] == [one]


def test_an_event_that_came_earlier_is_not_lost(paying: World) -> None:
    """From the moment in which an execution begins, its events are kept."""
    one = paying.kernel.start("paying", {"order": 1})
    paying.kernel.emit("order.paid", {"order": 1})
    paying.kernel.run_until_idle(kinds=["automate.event", SIGNAL_KIND])
    assert len(paying.rows(SIGNAL)) == 1
    paying.run()
    assert paying.status(one) is COMPLETED


def test_an_event_before_the_execution_answers_nothing(paying: World) -> None:
    """It belongs to another time."""
    paying.start("paying", {"order": 1})
    paying.kernel.emit("order.paid", {"order": 2})
    paying.run()
    paying.later(1)
    one = paying.start("paying", {"order": 2})
    assert paying.status(one) is RUNNING


def test_an_event_answers_one_step_of_an_execution(world: World) -> None:
    """A second wait takes the next one."""
    world.add("twice", {"id": "a", "wait_for": PAID}, {"id": "b", "wait_for": PAID})
    one = world.start("twice", {"order": 1})
    world.kernel.emit("order.paid", {"order": 1, "n": 1})
    world.run()
    assert (world.step(one, "a"), world.step(one, "b")) == ("COMPLETED", "WAITING")
    world.kernel.emit("order.paid", {"order": 1, "n": 2})
    world.run()
    outputs = [run.output["payload"]["n"] for run in world.see(one).steps]
    assert (world.status(one), outputs) == (COMPLETED, [1, 2])


def test_two_events_that_came_earlier_answer_two_steps(world: World) -> None:
    """In the order in which they came."""
    world.add("twice", {"id": "a", "wait_for": PAID}, {"id": "b", "wait_for": PAID})
    one = world.kernel.start("twice", {"order": 1})
    for n in (1, 2):
        world.kernel.emit("order.paid", {"order": 1, "n": n})
        world.clock.advance(1)
    world.run()
    outputs = [run.output["payload"]["n"] for run in world.see(one).steps]
    assert (world.status(one), outputs) == (COMPLETED, [1, 2])


def test_an_event_that_is_handled_twice_comes_once(world: World) -> None:
    """Its item was requeued, say: an execution sees one event."""
    world.add("twice", {"id": "a", "wait_for": PAID}, {"id": "b", "wait_for": PAID})
    one = world.start("twice", {"order": 1})
    event_id = world.kernel.emit("order.paid", {"order": 1})
    world.run()
    (signal,) = world.kernel.outbox.find(kind=SIGNAL_KIND)
    with world.kernel.storage.begin() as rows:
        rows.update("automate_outbox", [], {"status": "FAILED"})
        rows.update("automate_execution", [], {"status": "RUNNING"})
    world.kernel.outbox.requeue([event_id, signal.id])
    world.run()
    assert (len(world.rows(SIGNAL)), world.step(one, "b")) == (1, StepStatus.WAITING)


@pytest.mark.parametrize(
    ("waited", "payload", "fits"),
    [
        ({"match": {"order": 5}}, {"order": 5}, True),
        ({"match": {"order": 5}}, {"order": 5.0}, True),
        ({"match": {"order": 5}}, {"order": "5"}, False),
        ({"match": {"order": None}}, {"order": None}, True),
        ({"match": {"order": None}}, {}, False),
        ({"match": {"order.id": 5}}, {"order": {"id": 5}}, True),
        ({"match": {"order.id": 5}}, {"order": 5}, False),
        ({"match": {"a": 1, "b": [2]}}, {"a": 1, "b": [2]}, True),
        ({"match": {"a": 1, "b": 2}}, {"a": 1, "b": 3}, False),
        ({}, None, True),
        ({"if": "{{ signal.payload.total > 10 }}"}, {"total": 11}, True),
        ({"if": "{{ signal.payload.total > 10 }}"}, {"total": 9}, False),
    ],
)
def test_what_an_event_must_have(world: World, waited: Any, payload: Any, fits: bool) -> None:
    """Fields that match, with dots into objects, and a condition."""
    world.add("picky", {"id": "a", "wait_for": {"event": "order.paid", **waited}})
    one = world.start("picky")
    world.kernel.emit("order.unpaid", payload)
    world.run()
    assert world.status(one) is RUNNING
    world.kernel.emit("order.paid", payload)
    world.run()
    assert world.status(one) is (COMPLETED if fits else RUNNING)


def test_a_condition_that_can_not_be_decided_fails_the_step(world: World) -> None:
    """The error says which."""
    world.add("odd", {"id": "a", "wait_for": {"event": "x", "if": "{{ signal.payload.n > 1 }}"}})
    one = world.start("odd")
    world.kernel.emit("x", {"n": "text"})
    world.run()
    assert (world.status(one), world.step(one, "a")) == (FAILED, StepStatus.FAILED)


def test_a_tenant_hears_of_its_own_events_alone(paying: World) -> None:
    """One of no tenant hears of none of theirs either."""
    ids = {t: paying.start("paying", {"order": 1}, tenant_id=t) for t in ("a", "b", None)}
    paying.kernel.emit("order.paid", {"order": 1}, tenant_id="a")
    paying.run()
    assert {t for t, each in ids.items() if paying.status(each) is COMPLETED} == {"a"}


def test_events_that_come_together_answer_their_own_waits(paying: World) -> None:
    """One with another name has the same field, and one with this name lacks it."""
    first, second = (paying.start("paying", {"order": number}) for number in (1, 2))
    with paying.kernel.storage.begin() as rows:
        for name, payload in (("order.paid", {"order": 1}), ("order.sent", {"order": 2})):
            paying.kernel.emit(name, payload, transaction=rows.native)
    paying.run()
    assert (paying.status(first), paying.status(second)) == (COMPLETED, RUNNING)
    paid = {"order": 2}
    events = [
        Event(id=new_id(), name="order.sent", payload={**paid, "by": "ship"}),
        Event(id=new_id(), name="order.paid", payload={"note": 2}),
        Event(id=new_id(), name="order.paid", payload=paid),
    ]
    with paying.kernel.storage.begin() as rows:
        paying.kernel.executions.signals.pass_on(rows, [(event, 0, rows.now()) for event in events])
    paying.run()
    assert (paying.status(second), paying.called) == (COMPLETED, [{"order": 1}, {"order": 2}])


def test_an_event_counts_for_those_that_were_there(paying: World) -> None:
    """Not for one that began later and waits for the same, though both are read together."""
    first = paying.start("paying", {"order": 1})
    paying.kernel.executions.pause(first)
    paying.later(1)
    paying.kernel.emit("order.paid", {"order": 1})
    paying.run()
    assert paying.kernel.outbox.claim_batch("x", kinds=[ADVANCE]) == [], "no signal ends a pause"
    paying.later(1)
    second = paying.start("paying", {"order": 1})
    loaded = paying.kernel.executions.checkpoints.load_all([first, second])
    assert [len(one.arrived) for one in (loaded[first], loaded[second])] == [1, 0]


@pytest.fixture
def chain(world: World) -> World:
    """A world with a workflow that takes one event, and continues itself as new."""
    world.add("chain", {"id": "paid", "wait_for": PAID},
              {"id": "note", "action": "note", "input": {"what": "{{ event.payload.n }}"}},
              {"id": "next", "continue_as_new":
                  {"order": "{{ event.payload.order }}", "n": "{{ event.payload.n + 1 }}"}}
              )  # fmt: skip
    return world


def test_a_chain_misses_no_event(chain: World) -> None:
    """Those that came while an execution before was busy, in one moment or in several."""
    one = chain.start("chain", {"order": 1, "n": 0})
    chain.kernel.executions.pause(one)
    for seconds in (0, 0, 1, 0, 1):
        chain.later(seconds)
        chain.kernel.emit("order.paid", {"order": 1})
        chain.run()
    chain.kernel.emit("order.paid", {"order": 2})
    chain.kernel.executions.unpause(one)
    chain.run()
    assert chain.called == [0, 1, 2, 3, 4]
    chain.later(1)
    chain.kernel.emit("order.paid", {"order": 1})
    chain.run()
    assert chain.called == [0, 1, 2, 3, 4, 5]


def test_events_before_a_chain_answer_none_of_it(chain: World) -> None:
    """They count from the beginning of its first execution."""
    chain.start("chain", {"order": 2, "n": 9})
    chain.kernel.emit("order.paid", {"order": 1})
    chain.run()
    chain.later(1)
    chain.start("chain", {"order": 1, "n": 0})
    for _ in range(2):
        chain.kernel.emit("order.paid", {"order": 1})
        chain.run()
    assert chain.called == [0, 1]


FIVE_ORDERS: list[dict[str, Any]] = [
    {"id": "paid", "wait_for": PAID},
    {"id": "note", "action": "note", "input": {"what": "{{ event.payload.order }}"}},
    {"id": "next", "continue_as_new": {"order": "{{ (event.payload.order + 1) % 5 }}"}},
]


def test_a_chain_that_takes_events_of_many_keys_takes_each_once(
    chain: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has so many itself, and the others in rows, until their time is over."""
    monkeypatch.setattr(continuations, "_MOST_KEYS", 2)
    chain.add("orders", *FIVE_ORDERS)
    chain.start("orders", {"order": 0})
    for number in range(12):
        chain.later(1)
        chain.kernel.emit("order.paid", {"order": number % 5})
        chain.run()
    assert chain.called == [number % 5 for number in range(12)]
    (last,) = chain.kernel.executions.find(status="RUNNING")
    assert last.events_taken is not None
    assert len(last.events_taken) == 3
    assert 3 <= taken_in_rows(chain) <= 5
    chain.later(7200)
    for number in (2, 3):
        chain.kernel.emit("order.paid", {"order": number})
        chain.run()
    assert chain.called[12:] == [2, 3]
    assert taken_in_rows(chain) == 0


def test_a_chain_takes_no_event_again_of_the_moment_from_which_they_count(
    chain: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has taken is known as long as the event is."""
    monkeypatch.setattr(continuations, "_MOST_KEYS", 2)
    chain.add("orders", *FIVE_ORDERS)
    chain.start("orders", {"order": 0})
    for number in range(5):
        chain.later(1)
        chain.kernel.emit("order.paid", {"order": number})
        chain.run()
    # The third event came so long ago that the next execution can just take it.
    chain.later(signal_store._KEPT_SECONDS - 2)
    for number in range(2):
        chain.kernel.emit("order.paid", {"order": number})
        chain.run()
    assert chain.called == [0, 1, 2, 3, 4, 0, 1]
    assert taken_in_rows(chain) == 3


def taken_in_rows(chain: World) -> int:
    with chain.kernel.storage.begin() as rows:
        return len(rows.select(SIGNAL, [Where("execution_id", "ne", None)]))


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("apart", [0, 1])
def test_an_event_waits_for_a_chain_that_takes_events_of_many_keys_first(
    chain: World, monkeypatch: pytest.MonkeyPatch, order: int, apart: int
) -> None:
    """Each was lost that came before the last one of a key which was forgotten."""
    monkeypatch.setattr(continuations, "_MOST_KEYS", 2)
    note = {"id": "note", "action": "note", "input": {"what": "{{ event.payload.order }}"}}
    stop = {"id": "stop", "wait_for": {"event": "all.off", "match": {"order": 1}}}
    if_on, if_off = "{{ event.payload.order < 9 }}", "{{ event.payload.order == 9 }}"
    chain.add("orders", note,
              {"id": "paid", "wait_for": PAID, "if": if_on},
              {"id": "next", "continue_as_new": {"order": "{{ event.payload.order + 1 }}"},
               "needs": ["paid"], "if": if_on},
              {**stop, "if": if_off, "needs": ["note"]},
              )  # fmt: skip
    one = chain.start("orders", {"order": 0})
    other = chain.start("orders", {"order": 5})
    chain.kernel.executions.pause(other)
    chain.kernel.emit("all.off", {"order": 1})
    for number in [*range(9)][::order]:
        chain.later(apart)
        chain.kernel.emit("order.paid", {"order": number})
    chain.run()
    chain.kernel.executions.signals.purge()
    chain.kernel.executions.unpause(other)
    chain.run()
    assert chain.called == [0, 5, *range(1, 10), *range(6, 10)]
    done = chain.kernel.executions.find(status="COMPLETED", limit=50)
    assert {each.chain_id or each.id for each in done if not each.successor_id} == {one, other}
    chain.later(1)
    chain.kernel.purge(older_than_seconds=0)
    assert taken_in_rows(chain) == 0


def test_what_a_chain_may_still_take_is_kept(chain: World) -> None:
    """Though no execution that goes on is as old."""
    one = chain.start("chain", {"order": 1, "n": 0})
    chain.kernel.executions.pause(one)
    for _ in range(2):
        chain.kernel.emit("order.paid", {"order": 1})
        chain.run()
    chain.later(7200)
    chain.kernel.executions.unpause(one)
    handle(chain.kernel, chain.claim())
    assert chain.called == [0]
    assert chain.kernel.executions.signals.purge() == 0
    chain.run()
    assert chain.called == [0, 1]


def test_a_chain_keeps_no_events_for_ever(chain: World) -> None:
    """Of what came before the execution before, an hour; a week if that has not waited for it."""
    chain.add("once", {"id": "paid", "wait_for": PAID, "if": "{{ event.payload.n == 2 }}"},
              {"id": "nap", "sleep": "8d"},
              {"id": "next", "if": "{{ event.payload.n < 2 }}", "continue_as_new":
                  {"order": 1, "n": "{{ event.payload.n + 1 }}"}}
              )  # fmt: skip
    chain.start("once", {"order": 1, "n": 0})
    chain.kernel.emit("order.paid", {"order": 1})
    chain.run()
    chain.later(8 * 86_400 + 1)
    assert chain.kernel.executions.signals.purge() == 0
    chain.later(8 * 86_400 + 1)
    (last,) = chain.kernel.executions.find(status="RUNNING")
    assert chain.step(last.id, "paid") is StepStatus.WAITING
    assert chain.kernel.executions.signals.purge() == 1
    chain.kernel.emit("order.paid", {"order": 1})
    chain.run()
    assert chain.step(last.id, "paid") is StepStatus.COMPLETED


@pytest.mark.parametrize("output", [{"source": "signal"}, {"id": [1], "name": "x"}, {"id": "1"}])
def test_an_action_that_returns_what_looks_like_an_event(world: World, output: Any) -> None:
    """It has taken none: what it gives is data."""
    world.add("looks", {"id": "a", "action": "note", "input": {"what": output}},
              {"id": "next", "if": "{{ event.payload < 2 }}",
               "continue_as_new": "{{ event.payload + 1 }}"})  # fmt: skip
    world.start("looks", 0)
    assert world.called == [output] * 3


def test_events_that_nobody_waits_for_are_not_kept(paying: World) -> None:
    """Nor is anything enqueued for them."""
    paying.start("paying", {"order": 1})
    paying.kernel.emit("order.created", {"order": 1})
    paying.kernel.emit("order.paid", {"no": "order"})
    paying.run()
    assert not paying.rows(SIGNAL)
    assert not paying.kernel.outbox.find(kind=SIGNAL_KIND)


def test_a_start_that_is_rolled_back_is_forgotten(paying: World) -> None:
    """The next one registers its events again."""
    with pytest.raises(ZeroDivisionError), paying.kernel.storage.begin() as rows:
        paying.kernel.start("paying", {"order": 1}, transaction=rows.native)
        raise ZeroDivisionError
    assert not paying.rows(AWAITED)
    one = paying.kernel.start("paying", {"order": 1})
    paying.kernel.emit("order.paid", {"order": 1})
    paying.run()
    assert paying.status(one) is COMPLETED


# -- timeouts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_timeout", ["fail", "continue"])
def test_a_wait_times_out(world: World, on_timeout: str) -> None:
    """It fails, or goes on with null."""
    wait = {**PAID, "timeout": "2d", "on_timeout": on_timeout}
    world.add("hurried", {"id": "paid", "wait_for": wait}, {"id": "next", "action": "note"})
    one = world.start("hurried", {"order": 1})
    world.later(2 * 86_400 + 1)
    run = world.see(one).step("paid")
    assert run is not None
    assert (run.status == "COMPLETED") == (on_timeout == "continue")
    assert (run.output, run.error_code) == (
        None, None if on_timeout == "continue" else "DEADLINE_EXCEEDED",
    )  # fmt: skip
    assert world.status(one) is (COMPLETED if on_timeout == "continue" else FAILED)
    assert not world.rows(WAIT)


@pytest.mark.parametrize("sent", ["event", "signal"])
@pytest.mark.parametrize("tenant", [None, "acme"])
def test_what_was_sent_in_time_counts_however_late_it_is_brought(
    world: World, sent: str, tenant: str | None
) -> None:
    """After a time without workers, whatever a worker looks at first."""
    waits = {"event": PAID, "signal": {"signal": "paid"}}[sent]
    world.add("hurried", {"id": "paid", "wait_for": {**waits, "timeout": "1h"}})
    one = world.start("hurried", {"order": 1}, tenant_id=tenant)
    world.clock.advance(3599)
    if sent == "event":
        world.kernel.emit("order.paid", {"order": 1}, tenant_id=tenant)
    else:
        world.kernel.signal(one, "paid", {"order": 1})
    world.clock.advance(3600)
    world.kernel.run_until_idle(kinds=[ADVANCE])
    # A signal is seen where it was sent; an event, once it is brought.
    assert world.status(one) is (RUNNING if sent == "event" else COMPLETED)
    # Of an event that is halfway the signal is kept, whoever wakes those that wait.
    world.kernel.run_until_idle(kinds=[EVENT])
    world.clock.advance(11)
    if sent == "event":
        world.kernel.run_until_idle(kinds=[ADVANCE])
    else:
        world.run()
    assert world.status(one) is COMPLETED


def test_what_was_sent_in_time_counts_for_workflows_in_code(world: World) -> None:
    """Also beside a call that goes on while the time ends."""

    @world.kernel.workflow(name="coded")
    async def coded(ctx: WorkflowContext, order: int) -> Any:
        return (await ctx.wait_for("order.paid", match={"order": order}, timeout="1h")).payload

    one = world.start("coded", 1)
    world.kernel.emit("order.paid", {"order": 1})
    world.clock.advance(3600)
    world.kernel.run_until_idle(kinds=[ADVANCE])
    assert world.status(one) is RUNNING
    world.run()
    assert world.see(one).output == {"order": 1}


@pytest.mark.every_storage
@pytest.mark.parametrize("brought", [True, False])
def test_the_time_of_a_wait_beside_a_call_ends_as_that_of_another(
    world: World, monkeypatch: pytest.MonkeyPatch, brought: bool
) -> None:
    """Its execution is in memory then: the database tells whether something is on its way."""
    looks = Semaphore(0)
    signals, arrived = world.kernel.executions.signals, world.kernel.executions.signals.arrived

    def look(*given: Any, **how: Any) -> Any:
        found = arrived(*given, **how)
        looks.release()
        return found

    @world.kernel.action
    def outlast() -> StepStatus | None:
        if brought:
            world.kernel.emit("order.paid", {"order": 1})
        items = world.kernel.outbox.claim_batch("other", kinds=[EVENT])
        world.clock.advance(3601)
        if brought:
            monkeypatch.setattr(signals, "arrived", look)
            for _ in range(3):
                assert looks.acquire(timeout=PATIENCE)
        else:  # whose only look after its time may be made by now
            until(lambda: world.step(one, "paid") is StepStatus.COMPLETED, PATIENCE)
        status = world.step(one, "paid")
        # From here on it may end at any moment.
        for item in items:
            handle(world.kernel, item)
        return status

    world.add(
        "beside",
        {"id": "paid", "wait_for": {**PAID, "timeout": "1h", "on_timeout": "continue"}},
        {"id": "call", "action": "outlast", "needs": []},
    )
    one = world.kernel.start("beside", {"order": 1})
    world.run()
    paid, call = (world.see(one).step(each) for each in ("paid", "call"))
    assert paid is not None and call is not None
    assert (paid.status, paid.output is not None) == (StepStatus.COMPLETED, brought)
    assert call.output == ("WAITING" if brought else "COMPLETED")


@pytest.mark.parametrize("way", ["leased", "retried"])
def test_what_a_worker_is_bringing_holds_the_end_up(world: World, way: str) -> None:
    """It is leased to one that has not saved it yet, or to be tried again soon."""
    world.add("hurried", {"id": "paid", "wait_for": {**PAID, "timeout": "1h"}})
    one = world.start("hurried", {"order": 1})
    world.kernel.emit("order.paid", {"order": 1})
    world.clock.advance(3600)
    item = world.claim(EVENT)
    if way == "retried":
        again = Outcome(item.id, ItemStatus.RETRY, 20.0, "UNAVAILABLE", "", item.lease_token)
        world.kernel.outbox.acknowledge("dying", [again])
    world.kernel.run_until_idle(kinds=[ADVANCE])
    assert world.status(one) is RUNNING
    # Where the lease runs out it is taken back, and tried again.
    world.later(31)
    assert world.status(one) is (RUNNING if way == "leased" else COMPLETED)
    world.later(31)
    assert world.status(one) is COMPLETED


def test_what_was_sent_later_or_to_others_holds_no_end_up(world: World) -> None:
    """Nor does what is to be sent later."""
    world.add("hurried", {"id": "paid", "wait_for": {**PAID, "timeout": "1h"}})
    one = world.start("hurried", {"order": 1})
    world.kernel.emit("order.paid", {"order": 1}, tenant_id="acme")
    world.clock.advance(3601)
    world.kernel.emit("order.paid", {"order": 1})
    world.kernel.run_until_idle(kinds=[ADVANCE])
    assert world.status(one) is FAILED


def test_what_nobody_brings_holds_the_end_up_for_a_while(world: World) -> None:
    """For a lease and five minutes, each wait by itself."""

    def look(seconds: float) -> None:
        world.clock.advance(seconds)
        world.kernel.run_until_idle(kinds=[ADVANCE])

    world.add("hurried", {"id": "paid", "wait_for": {**PAID, "timeout": "1h"}})
    one = world.start("hurried", {"order": 1})
    world.kernel.emit("order.paid", {"order": 3})
    look(1800)
    two = world.kernel.start("hurried", {"order": 2})
    for seconds, status in ((1800, RUNNING), (329, RUNNING), (10, FAILED)):
        look(seconds)
        assert world.status(one) is status
    world.kernel.emit("order.paid", {"order": 2})
    look(1800)
    assert world.status(two) is RUNNING
    world.later(1)
    assert world.status(two) is COMPLETED


def test_many_that_nobody_brings_hide_none_that_is_brought(world: World) -> None:
    """Each is seen, however many are older, and whosever they are."""
    world.add("hurried", {"id": "paid", "wait_for": {"event": "paid", "timeout": "1h"}})
    one = world.start("hurried", tenant_id="acme")
    for number in range(150):
        world.kernel.emit("other", {"n": number}, tenant_id="acme" if number % 2 else None)
    world.kernel.emit("paid", 5, tenant_id="acme")
    world.clock.advance(3600)
    world.kernel.run_until_idle(kinds=[ADVANCE])
    assert world.status(one) is RUNNING
    world.later(1)
    assert world.status(one) is COMPLETED


def test_an_event_that_overtakes_the_one_before_it_is_not_lost(world: World) -> None:
    """What was sent since the event that begins an execution counts, whoever is quicker."""
    world.add("ordered", {"id": "paid", "wait_for": PAID}, trigger={
        "type": "event", "event": "order.created",
    })  # fmt: skip
    world.kernel.start("ordered", {"order": 0})
    world.run()
    world.kernel.emit("order.created", {"order": 1})
    world.clock.advance(1)
    world.kernel.emit("order.paid", {"order": 1})
    created, paid = world.kernel.outbox.claim_batch("other", kinds=[EVENT])
    for item in (paid, created):
        world.clock.advance(1)
        handle(world.kernel, item)
    world.run()
    found = world.kernel.executions.find(status=COMPLETED)
    assert [one.event.payload for one in found] == [{"order": 1}]


def test_an_event_with_a_delay_is_sent_when_that_is_over(world: World) -> None:
    """What came in the meantime came before the execution that it begins."""
    trigger = {"type": "event", "event": "order.created"}
    world.add("ordered", {"id": "paid", "wait_for": PAID}, trigger=trigger)
    first = world.start("ordered", {"order": 0})
    world.kernel.emit("order.created", {"order": 1}, delay=3600)
    world.kernel.emit("order.paid", {"order": 1})
    world.later(10)
    world.later(3600)
    (one,) = (each for each in world.kernel.executions.find() if each.id != first)
    assert one.status is RUNNING
    world.kernel.emit("order.paid", {"order": 1})
    world.run()
    assert world.status(one.id) is COMPLETED


def test_of_a_backlog_only_what_was_sent_later_answers(world: World) -> None:
    """Two events of one name, of which each begins an execution, and is brought late."""
    trigger = {"type": "event", "event": "order.paid"}
    world.add("again", {"id": "next", "wait_for": {"event": "order.paid"}}, trigger=trigger,
              output="{{ steps.next.output.payload }}")  # fmt: skip
    for number in range(3):
        world.kernel.emit("order.paid", number)
        world.clock.advance(1)
    world.later(60)
    found = {one.event.payload: one.output for one in world.kernel.executions.find()}
    assert found == {0: 1, 1: 2, 2: None}


@pytest.mark.parametrize("waits", ["{{ true }}", "{{ event.type == 'manual' }}"])
def test_the_event_that_begins_a_chain_answers_none_of_its_waits(world: World, waits: str) -> None:
    """Those who come after wait for the next ones too; also if the first continues at once."""
    world.add(
        "chain",
        {"id": "next", "wait_for": {"event": "order.paid"}, "if": waits},
        {"id": "note", "action": "note", "if": waits,
         "input": {"what": "{{ steps.next.output.payload }}"}},
        {"id": "again", "continue_as_new": {"n": 1}},
        trigger=[{"type": "event", "event": "order.paid", "if": "{{ event.payload == 0 }}"},
                 {"type": "manual"}],
    )  # fmt: skip
    for number in range(4):
        world.kernel.emit("order.paid", number)
        world.later(1)
    assert world.called == [1, 2, 3]


def test_a_delayed_event_holds_up_what_ends_after_its_delay(world: World) -> None:
    """Also in the moment in which it is due, and nobody has put it in the line yet."""
    world.add("hurried", {"id": "paid", "wait_for": {**PAID, "timeout": "1h"}})
    late = world.start("hurried", {"order": 2})
    world.kernel.emit("order.paid", {"order": 2}, delay=3599)
    world.clock.advance(3600)
    world.kernel.run_until_idle(kinds=[ADVANCE])
    assert world.status(late) is RUNNING
    world.later(1)
    assert world.status(late) is COMPLETED
    third = world.start("hurried", {"order": 3})
    world.kernel.emit("order.paid", {"order": 4}, delay=3601)
    world.clock.advance(3600)
    world.kernel.run_until_idle(kinds=[ADVANCE])
    assert world.status(third) is FAILED


@pytest.mark.parametrize("form", ["steps", "code"])
def test_the_event_that_begins_an_execution_answers_none_of_its_waits(
    world: World, form: str
) -> None:
    """A step waits for the next one of that name."""
    if form == "steps":
        trigger = {"type": "event", "event": "order.paid"}
        wait = {"event": "order.paid"}
        world.add("again", {"id": "next", "wait_for": wait}, trigger=trigger,
                  output="{{ steps.next.output.payload }}")  # fmt: skip
    else:

        @world.kernel.workflow(name="again", on="order.paid")
        async def again(ctx: WorkflowContext, order: Any) -> Any:
            return (await ctx.wait_for("order.paid")).payload

    world.kernel.emit("order.paid", 1)
    world.run()
    (one,) = world.kernel.executions.find()
    assert one.status is RUNNING
    world.clock.advance(1)
    world.kernel.emit("order.paid", 2)
    world.run()
    assert world.see(one.id).output == 2
    assert len(world.kernel.executions.find(status=RUNNING)) == 1


def test_a_new_worker_after_an_outage_fails_no_wait_whose_event_came(world: World) -> None:
    """Many waits, with and without an event, are all as if a worker had been there."""
    world.add("hurried", {"id": "paid", "wait_for": {**PAID, "timeout": "1h"}})
    ids = [world.kernel.start("hurried", {"order": order}) for order in range(40)]
    world.run()
    for order in range(0, 40, 2):
        world.kernel.emit("order.paid", {"order": order})
    world.clock.advance(7200)
    kernel = Kernel(world.kernel.storage, discover=False, secrets={}, lease_seconds=30.0)
    kernel.add_workflow(world.kernel.workflows.get("hurried"))
    kernel.run_until_idle()
    world.clock.advance(11)
    kernel.run_until_idle()
    expected = [COMPLETED if order % 2 == 0 else FAILED for order in range(40)]
    assert [world.status(one) for one in ids] == expected


def test_a_wait_that_waited_once_times_out_by_its_first_moment(world: World) -> None:
    """An event that does not fit lengthens nothing."""
    wait = {"event": "x", "if": "{{ signal.payload == 2 }}", "timeout": "1h"}
    world.add("hurried", {"id": "a", "wait_for": wait})
    one = world.start("hurried")
    world.clock.advance(3000)
    world.kernel.emit("x", 1)
    world.run()
    assert world.status(one) is RUNNING
    world.later(601)
    assert world.status(one) is FAILED


# -- signals ---------------------------------------------------------------------------------------


def test_a_signal_reaches_one_execution(world: World) -> None:
    """Also if it comes before the step begins."""
    world.add("listening", {"id": "nap", "sleep": "1h"}, {"id": "go", "wait_for": {"signal": "go"}})
    one, other = world.start("listening"), world.start("listening")
    world.kernel.signal(one, "go", {"by": "ann"})
    world.later(3601)
    assert [world.status(each) for each in (one, other)] == [COMPLETED, RUNNING]
    output = world.see(one).step("go").output  # type: ignore[union-attr]
    assert (output["name"], output["payload"], output["source"]) == ("go", {"by": "ann"}, "signal")


def test_a_signal_is_sent_with_its_transaction(world: World) -> None:
    """Rolled back it was never there; with one key it comes once."""
    world.add("listening", {"id": "go", "wait_for": {"signal": "go"}})
    one = world.start("listening")
    with pytest.raises(ZeroDivisionError), world.kernel.storage.begin() as rows:
        world.kernel.signal(one, "go", transaction=rows.native)
        raise ZeroDivisionError
    world.run()
    assert world.status(one) is RUNNING
    ids = {world.kernel.signal(one, "go", idempotency_key="k") for _ in range(2)}
    world.run()
    assert (len(ids), world.status(one)) == (1, COMPLETED)


def test_a_signal_from_asynchronous_code(world: World) -> None:
    """The same, awaited."""
    world.add("listening", {"id": "go", "wait_for": {"signal": "go"}})
    one = world.start("listening")
    asyncio.run(world.kernel.asignal(one, "go", {"n": 1}))
    world.run()
    assert world.status(one) is COMPLETED


def test_a_signal_of_one_key_goes_to_one_execution(world: World) -> None:
    """Another execution's signal with the same key is another one."""
    world.add("listening", {"id": "go", "wait_for": {"signal": "go"}})
    several = [world.start("listening") for _ in range(2)]
    for one in several:
        world.kernel.signal(one, "go", idempotency_key="k")
    world.run()
    assert {world.status(one) for one in several} == {COMPLETED}


def test_a_signal_needs_an_execution_that_goes_on(world: World) -> None:
    """Another tenant's is not there."""
    world.add("listening", {"id": "go", "wait_for": {"signal": "go"}})
    one = world.start("listening", tenant_id="a")
    for wrong in (("nothing", None), (one, "b")):
        with pytest.raises(AutomateError, match="there is no execution"):
            world.kernel.signal(wrong[0], "go", tenant_id=wrong[1])
    world.kernel.signal(one, "go", tenant_id="a")
    world.run()
    with pytest.raises(AutomateError, match="has ended") as caught:
        world.kernel.signal(one, "go")
    assert caught.value.code is ErrorCodes.FAILED_PRECONDITION


# -- every order -----------------------------------------------------------------------------------


def wrap(
    target: Any, name: str, before: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Do *before*, once, before the next call of a method."""
    real, done = getattr(target, name), []

    def wrapped(*args: Any, **options: Any) -> Any:
        if not done:
            done.append(1)
            before()
        return real(*args, **options)

    monkeypatch.setattr(target, name, wrapped)


@pytest.mark.parametrize("moment", ["save", "_defer_waiting", "after"])
def test_no_moment_loses_a_signal(
    paying: World, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the wait is saved, between that and the parking, and after it."""
    kernel = paying.kernel

    def send() -> None:
        kernel.emit("order.paid", {"order": 1})
        kernel.run_until_idle(kinds=["automate.event", SIGNAL_KIND])

    if moment != "after":
        wrap(kernel.executions.checkpoints, moment, send, monkeypatch)
    one = paying.start("paying", {"order": 1})
    if moment == "after":
        send()
        paying.run()
    assert paying.status(one) is COMPLETED
    assert len(paying.called) == 1


@pytest.mark.every_storage
def test_a_signal_while_the_item_is_being_parked(
    paying: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one who wakes waits for the one who defers, and then finds the item."""
    kernel, threads = paying.kernel, list[threading.Thread]()
    kernel.emit("order.paid", {"order": 1})
    real = kernel.executions.signals.unseen

    def deliver() -> None:
        try:
            list(kernel._runner.deliver([signal]))
        except LockedError:  # for longer than it waits: a worker tries it again
            deliver()

    def unseen(rows: Rows, *arguments: Any) -> set[str]:
        found = real(rows, *arguments)
        if not threads:
            threads.append(threading.Thread(target=deliver))
            threads[0].start()
            until_held_up(threads[0], rows)
        return found

    one = kernel.start("paying", {"order": 1})
    kernel.run_until_idle(kinds=["automate.event"])
    signal = paying.claim(SIGNAL_KIND)
    monkeypatch.setattr(kernel.executions.signals, "unseen", unseen)
    kernel.run_until_idle(kinds=[ADVANCE])
    threads[0].join(PATIENCE)
    assert not threads[0].is_alive()
    paying.run()
    assert paying.status(one) is COMPLETED


def test_a_wait_is_over_though_its_execution_may_not_end_yet(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paused in the moment in which its last step is answered: nothing waits any longer."""
    world.add("last", {"id": "paid", "wait_for": {"event": "go"}})
    one, store = world.start("last"), world.kernel.executions
    world.kernel.emit("go")
    world.kernel.run_until_idle(kinds=["automate.event", SIGNAL_KIND])
    wrap(store.checkpoints, "save", lambda: store.pause(one), monkeypatch)
    world.run()
    assert (world.status(one), world.step(one, "paid")) == ("PAUSED", "COMPLETED")
    assert (world.rows(WAIT), store.waits(one)) == ([], [])
    store.unpause(one)
    world.run()
    assert world.status(one) is COMPLETED


def test_a_failure_in_a_pause_cancels_the_sub_workflow(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step that waited for it has ended: nobody would end it later."""
    world.add("child", {"id": "paid", "wait_for": {"event": "never"}})
    world.add(
        "parent", {"id": "sub", "workflow": "child", "needs": []},
        {"id": "go", "wait_for": {"event": "go"}, "needs": []},
        {"id": "bad", "action": "fail", "needs": ["go"]},
    )  # fmt: skip
    one, store = world.start("parent"), world.kernel.executions
    (child,) = world.children(one)
    real = store.checkpoints.save

    def save(group: Any, **options: Any) -> Any:
        if any(each.turn.end is not None for each in group):
            store.pause(one)
        return real(group, **options)

    world.kernel.emit("go")
    with monkeypatch.context() as patch:
        patch.setattr(store.checkpoints, "save", save)
        world.run()
    assert world.status(one) == "PAUSED"
    assert world.status(child.id) is CANCELLED
    store.unpause(one)
    world.run()
    assert world.status(one) is FAILED
    assert world.rows(WAIT) == []


def test_a_step_that_fails_as_it_begins_has_begun_no_wait(world: World) -> None:
    """Its first elements would wait, the last can't: nobody is asked, nothing starts or stays."""
    world.add("child", {"id": "go", "action": "note"})
    asking = {"title": "{{ item.k }}?", "notify": {"action": "note", "input": {"what": "mail"}}}
    kinds: list[dict[str, Any]] = [
        {"wait_for": {"event": "go", "match": {"k": "{{ item.k }}"}}},
        {"approval": asking},
        {"workflow": "child", "input": "{{ item.k }}"},
    ]
    for number, kind in enumerate(kinds):
        step = {"id": "each", "for_each": [{"k": 1}, {"k": 2}, {}], "concurrency": 3}
        world.add(f"plain{number}", {**step, **kind})
        world.add(f"block{number}", {**step, "steps": [{"id": "a", **kind}]})
        for name in ("plain", "block"):
            one = world.start(f"{name}{number}")
            assert world.status(one) is FAILED
            assert world.children(one) == []
    assert world.rows(WAIT) == []
    assert world.called == []


def test_a_signal_that_does_not_fit_wakes_once(world: World) -> None:
    """What was looked at is not looked at again: the execution waits, and spins not."""
    world.add("picky", {"id": "a", "wait_for": {"event": "x", "if": "{{ signal.payload == 2 }}"}})
    one = world.start("picky")
    world.kernel.emit("x", 1)
    stats = world.kernel.run_until_idle()
    assert stats.completed == 3  # the event, the signal, and the wake-up
    assert world.kernel.run_until_idle().completed == 0
    world.kernel.emit("x", 2)
    world.run()
    assert world.status(one) is COMPLETED


class _Death(BaseException):
    """The end of a process."""


@pytest.mark.parametrize("moment", ["save", "_defer_waiting", "_signals.unseen", "_signals.begin"])
@pytest.mark.parametrize("signal_first", [True, False])
def test_a_worker_that_dies_loses_nothing(
    paying: World, moment: str, signal_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever its process ends: another goes on once the lease is over."""
    kernel = paying.kernel

    def die(*_: Any, **__: Any) -> None:
        raise _Death

    one = kernel.start("paying", {"order": 1})
    item = paying.claim()
    if signal_first:
        kernel.emit("order.paid", {"order": 1})
        kernel.run_until_idle(kinds=["automate.event", SIGNAL_KIND])
    with monkeypatch.context() as patch:
        target: Any = kernel.executions.checkpoints
        for name in moment.split(".")[:-1]:
            target = getattr(target, name)
        patch.setattr(target, moment.split(".")[-1], die)
        with pytest.raises(_Death):
            handle(kernel, item)
    paying.clock.advance(60)
    paying.run()
    paying.later(60)
    if not signal_first:
        assert paying.step(one, "paid") is StepStatus.WAITING
        kernel.emit("order.paid", {"order": 1})
        paying.run()
    assert paying.status(one) is COMPLETED
    assert len(paying.called) == 1


@pytest.mark.parametrize("moment", ["_waiting_for", "_wake_parked"])
def test_who_wakes_may_die_too(paying: World, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its item comes again, and the signal is kept once."""
    kernel = paying.kernel
    one = paying.start("paying", {"order": 1})
    kernel.emit("order.paid", {"order": 1})
    kernel.run_until_idle(kinds=["automate.event"])
    signal = paying.claim(SIGNAL_KIND)

    def die(*_: Any, **__: Any) -> None:
        raise _Death

    with monkeypatch.context() as patch:
        patch.setattr(kernel.executions.signals, moment, die)
        with pytest.raises(_Death):
            handle(kernel, signal)
    assert (len(paying.rows(SIGNAL)), paying.status(one)) == (1, RUNNING)
    paying.clock.advance(60)
    paying.run()
    paying.later(60)
    assert (len(paying.rows(SIGNAL)), paying.status(one)) == (1, COMPLETED)


def test_a_checkpoint_whose_reply_is_lost_is_made_again(
    paying: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second time finds all of it done."""
    kernel = paying.kernel
    one = kernel.start("paying", {"order": 1})
    item = paying.claim()
    real, times = kernel.executions.checkpoints.save, []

    def twice(group: Any) -> Any:
        times.append(1)
        if len(times) == 1:
            real(group)
        return real(group)

    monkeypatch.setattr(kernel.executions.checkpoints, "save", twice)
    handle(kernel, item)
    monkeypatch.undo()
    assert (len(paying.rows(WAIT)), paying.step(one, "paid")) == (1, StepStatus.WAITING)
    kernel.emit("order.paid", {"order": 1})
    paying.run()
    assert paying.status(one) is COMPLETED


# -- steering --------------------------------------------------------------------------------------


def test_a_waiting_execution_is_cancelled(paying: World) -> None:
    """Its wait goes with it, and a later event does nothing."""
    one = paying.start("paying", {"order": 1})
    assert paying.kernel.executions.cancel(one)
    assert (paying.step(one, "paid"), paying.rows(WAIT)) == (StepStatus.CANCELLED, [])
    paying.kernel.emit("order.paid", {"order": 1})
    paying.run()
    assert (paying.status(one), paying.called) == (CANCELLED, [])


def test_a_wait_begins_anew_when_its_execution_is_resumed(world: World) -> None:
    """Its timeout too; what came since the execution began still counts."""
    world.add("hurried", {"id": "paid", "wait_for": {**PAID, "timeout": "1h"}})
    one = world.start("hurried", {"order": 1})
    world.later(3601)
    assert world.status(one) is FAILED
    assert world.kernel.executions.resume(one)
    world.run()
    assert world.step(one, "paid") is StepStatus.WAITING
    world.later(3000)
    world.kernel.emit("order.paid", {"order": 1})
    world.run()
    assert world.status(one) is COMPLETED


def test_waits_for_each_element(world: World) -> None:
    """As many as the concurrency allows wait at once."""
    wait = {"event": "part.done", "match": {"part": "{{ item }}"}}
    world.add("parts", {"id": "a", "wait_for": wait, "for_each": [1, 2, 3], "concurrency": 2})
    one = world.start("parts")
    assert [world.step(one, "a", n) for n in range(3)] == ["WAITING", "WAITING", None]
    for part in (3, 2, 1):
        world.kernel.emit("part.done", {"part": part})
        world.run()
    assert world.status(one) is COMPLETED


def test_a_paused_execution_waits_on(paying: World) -> None:
    """What comes meanwhile is there when it goes on."""
    one = paying.start("paying", {"order": 1})
    assert paying.kernel.executions.pause(one)
    paying.run()
    paying.kernel.emit("order.paid", {"order": 1})
    paying.run()
    assert (paying.status(one), paying.step(one, "paid")) == ("PAUSED", "WAITING")
    assert paying.kernel.executions.unpause(one)
    paying.run()
    assert paying.status(one) is COMPLETED


def test_a_cancelled_execution_cleans_up_and_may_wait_there(world: World) -> None:
    """Its own wait is over; one under on_cancel is waited for, across wake-ups."""
    clean = [{"id": "nap", "sleep": "1h"}, {"id": "tell", "action": "note"}]
    world.add("clean", {"id": "paid", "wait_for": PAID}, on_cancel=clean)
    one = world.start("clean", {"order": 1})
    assert world.kernel.executions.cancel(one)
    world.run()
    assert (world.step(one, "paid"), world.step(one, "nap")) == ("CANCELLED", "WAITING")
    assert not world.rows(WAIT)
    world.later(3601)
    assert (world.status(one), world.step(one, "tell")) == (CANCELLED, "COMPLETED")


def test_a_sub_workflow_cleans_up_when_its_parent_is_cancelled(world: World) -> None:
    """It is asked once, and not ended while it cleans up."""
    clean = [{"id": "nap", "sleep": "1h"}]
    world.add("child", {"id": "go", "wait_for": {"signal": "go"}}, on_cancel=clean)
    world.add("parent", {"id": "sub", "workflow": "child"})
    one = world.start("parent")
    (child,) = world.children(one)
    world.kernel.executions.cancel(one)
    world.run()
    assert [world.status(each) for each in (one, child.id)] == ["CANCELLED", "CANCELLING"]
    world.later(3601)
    assert world.status(child.id) is CANCELLED


def test_a_sub_workflow_cancelled_by_two_cleans_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator cancels it right before its parent does: that is not the word to end it now."""
    world.add("child", {"id": "go", "wait_for": {"signal": "go"}},
              on_cancel=[{"id": "tell", "action": "note", "input": {"what": "told"}}])  # fmt: skip
    world.add("parent", {"id": "sub", "workflow": "child"})
    one = world.start("parent")
    (child,) = world.children(one)
    executions = world.kernel.executions
    executions.cancel(one)
    cancel = executions._cancel

    def late(its: Any, **options: Any) -> bool:
        monkeypatch.undo()
        assert executions.cancel(child.id)
        return cancel(its, **options)

    monkeypatch.setattr(executions, "_cancel", late)
    world.run()
    assert (world.status(child.id), world.called) == (CANCELLED, ["told"])


# -- retention -------------------------------------------------------------------------------------


def test_signals_are_kept_as_long_as_somebody_may_wait_for_them(paying: World) -> None:
    """Not longer than the oldest execution that goes on, and an hour at least."""
    paying.add("sleeper", {"id": "nap", "sleep": "300d"})
    first = paying.start("paying", {"order": 2})
    paying.kernel.emit("order.paid", {"order": 1})
    paying.run()
    paying.later(10)
    second = paying.start("sleeper")
    purge = paying.kernel.executions.signals.purge
    paying.clock.advance(7200)
    assert purge() == 0
    paying.kernel.executions.cancel(first)
    assert purge() == 1
    paying.kernel.emit("order.paid", {"order": 1})
    paying.run()
    paying.kernel.executions.cancel(second)
    assert purge() == 0


# -- sub-workflows ---------------------------------------------------------------------------------


@pytest.fixture
def nested(world: World) -> World:
    """A world with a workflow that waits for a signal, and one that starts it."""
    world.add("child", {"id": "go", "wait_for": {"signal": "go"}},
              {"id": "note", "action": "note", "input": {"what": "{{ event.payload.n }}"}},
              output="{{ event.payload.n * 2 }}")  # fmt: skip
    call = {"id": "sub", "workflow": "child", "input": {"n": "{{ event.payload.n }}"}}
    world.add("parent", call, output="{{ steps.sub.output }}")
    world.add("grandparent", {**call, "workflow": "parent"}, output="{{ steps.sub.output }}")
    return world


def test_a_sub_workflow_gives_its_output(nested: World) -> None:
    """Through two levels; each knows who started it."""
    one = nested.start("grandparent", {"n": 3}, labels={"order": "7"})
    (parent,) = nested.children(one)
    (child,) = nested.children(parent.id)
    assert (child.event.source, child.labels) == (parent.id, {"order": "7"})
    nested.kernel.signal(child.id, "go")
    nested.run()
    assert (nested.status(one), nested.see(one).output) == (COMPLETED, 6)
    assert not nested.rows(WAIT)


def test_a_sub_workflow_that_nobody_waits_for(nested: World) -> None:
    """The step ends at once, and the execution is nobody's."""
    nested.add("starter", {"id": "sub", "workflow": "child", "wait": False, "input": {"n": 1}})
    one = nested.start("starter")
    (started,) = nested.see(one).steps
    child = nested.see(started.output["execution_id"])
    assert (nested.status(one), child.status, child.parent_id) == (COMPLETED, RUNNING, None)
    assert nested.kernel.executions.cancel(one) is False


def test_a_tenants_sub_workflow_is_the_tenants(nested: World) -> None:
    """So are the items that tell of its end, and that cancel it."""
    nested.add("starter", {"id": "sub", "workflow": "child", "wait": False, "input": {"n": 1}})
    nested.add("broken", {"id": "sub", "workflow": "child", "input": {"n": 1}},
               {"id": "nap", "sleep": "1h", "needs": []}, {"id": "bad", "action": "fail",
                                                          "needs": ["nap"]})  # fmt: skip
    nested.start("starter", tenant_id="t1")
    ended, given_up, broken = (
        nested.start(name, {"n": 1}, tenant_id="t1") for name in ("parent", "parent", "broken")
    )
    found = nested.kernel.executions.find(limit=100)
    assert {one.name for one in found} == {"starter", "parent", "broken", "child"}
    assert {(one.event.tenant_id, one.tenant_id) for one in found} == {("t1", "t1")}
    (child,) = nested.children(ended)
    nested.kernel.signal(child.id, "go")
    nested.kernel.run_until_idle(kinds=[SIGNAL_KIND])
    nested.kernel.run_until_idle(kinds=[ADVANCE])
    assert nested.claim(SIGNAL_KIND).tenant_id == "t1"
    nested.clock.advance(3601)
    nested.kernel.executions.cancel(given_up)
    nested.kernel.run_until_idle(kinds=[ADVANCE])
    assert nested.status(broken) is FAILED
    cancelling = nested.kernel.outbox.claim_batch("x", kinds=[CANCEL])
    assert [item.tenant_id for item in cancelling] == ["t1", "t1"]


def test_one_that_nobody_waits_for_may_start_itself_without_an_end(world: World) -> None:
    """No row of executions that wait for each other grows by that."""
    world.add("again", {"id": "sub", "workflow": "again", "wait": False,
                        "if": "{{ event.payload.n < 60 }}",
                        "input": {"n": "{{ event.payload.n + 1 }}"}})  # fmt: skip
    world.start("again", {"n": 0})
    assert [row["status"] for row in world.rows(EXECUTION)] == ["COMPLETED"] * 61


@pytest.mark.parametrize("depth", ["999", "deep", "\u0663", "-1"])
def test_a_header_of_an_event_is_no_depth(nested: World, depth: str) -> None:
    """Strangers may write what they like there; of a sub-workflow's own event it is one."""
    for type_ in ("event", "manual"):
        about = {"id": new_id(), "name": "parent", "type": type_, "headers": {"depth": depth}}
        nested.start("parent", event=Event.from_json({**about, "payload": {"n": 1}}))
    assert len(nested.kernel.executions.find(workflow="child")) == (1 if depth == "999" else 2)


@pytest.mark.parametrize("cancelled", [True, False])
def test_a_failure_comes_up(world: World, cancelled: bool) -> None:
    """The step fails with the code of the sub-workflow."""
    world.add("child", {"id": "nap", "sleep": "1h"}, {"id": "a", "action": "fail"})
    world.add("parent", {"id": "sub", "workflow": "child"})
    one = world.start("parent")
    (child,) = world.children(one)
    if cancelled:
        world.kernel.executions.cancel(child.id)
    world.later(3601)
    seen = world.see(one)
    assert (seen.status, seen.error_code) == (FAILED, "CANCELLED" if cancelled else "NOT_FOUND")
    expected = "sub-workflow 'child' was cancelled" if cancelled else "there is no stock"
    assert expected in (seen.error or "")


def test_an_execution_that_is_given_up_tells_its_parent(nested: World) -> None:
    """Its item failed for good: no worker has ended it."""
    one = nested.start("parent", {"n": 1})
    (child,) = nested.children(one)
    nested.kernel.outbox.cancel([child.item_id or ""])
    nested.run()
    assert (nested.status(child.id), nested.status(one)) == (CANCELLED, FAILED)


def test_a_cancellation_goes_down(nested: World) -> None:
    """Whole trees are cancelled, each execution in a transaction of its own."""
    one = nested.start("grandparent", {"n": 1})
    nested.kernel.executions.cancel(one)
    nested.run()
    assert [row["status"] for row in nested.rows(EXECUTION)] == ["CANCELLED"] * 3
    assert not nested.rows(WAIT)


def test_a_failure_beside_a_sub_workflow_cancels_it(nested: World) -> None:
    """What nobody waits for any more is not gone on with."""
    nested.add("broken", {"id": "sub", "workflow": "child", "input": {"n": 1}},
               {"id": "nap", "sleep": "1h", "needs": []}, {"id": "bad", "action": "fail",
                                                          "needs": ["nap"]})  # fmt: skip
    one = nested.start("broken")
    (child,) = nested.children(one)
    nested.later(3601)
    assert (nested.status(one), nested.status(child.id)) == (FAILED, CANCELLED)


def test_sub_workflows_for_each_element(nested: World) -> None:
    """One that waits counts as running; outputs keep the order of the list."""
    nested.add(
        "many",
        {"id": "sub", "workflow": "child", "for_each": [1, 2, 3], "concurrency": 2,
         "input": {"n": "{{ item }}"}},
        output="{{ steps.sub.output }}",
    )  # fmt: skip
    one = nested.start("many")
    assert len(nested.children(one)) == 2
    while live := [each for each in nested.children(one) if not each.status.finished]:
        nested.kernel.signal(live[0].id, "go")
        nested.run()
    assert (nested.status(one), nested.see(one).output) == (COMPLETED, [2, 4, 6])


def test_a_failed_element_cancels_the_others(nested: World) -> None:
    """They are not waited for."""
    nested.add("many", {"id": "sub", "workflow": "child", "for_each": [1, 2, 3], "concurrency": 3,
                        "input": {"n": "{{ item }}"}})  # fmt: skip
    one = nested.start("many")
    nested.kernel.executions.cancel(nested.children(one)[0].id)
    nested.run()
    assert nested.status(one) is FAILED
    assert {each.status for each in nested.children(one)} == {CANCELLED}


def test_a_retry_starts_another(world: World) -> None:
    """And a timeout cancels the one that took too long."""
    world.add("child", {"id": "nap", "sleep": "1d"})
    retry = {"attempts": 2, "delay": "1m", "jitter": False}
    world.add("parent", {"id": "sub", "workflow": "child", "timeout": "1h", "retry": retry})
    one = world.start("parent")
    world.later(3601)
    assert world.step(one, "sub") is StepStatus.RETRY
    world.later(61)
    assert sorted(each.status for each in world.children(one)) == ["CANCELLED", "RUNNING"]
    world.later(3601)
    assert (world.status(one), world.see(one).error_code) == (FAILED, "DEADLINE_EXCEEDED")
    assert {each.status for each in world.children(one)} == {CANCELLED}


@pytest.fixture
def breaking(world: World) -> World:
    """A world with a workflow that pays before it breaks, until `broken` is empty."""
    world.broken = [True]  # type: ignore[attr-defined]

    @world.kernel.action("shop.break")
    def breaks(what: Any = None) -> Any:
        if world.broken:  # type: ignore[attr-defined]
            raise AutomateError(ErrorCodes.NOT_FOUND, "it is broken")
        return what

    world.add("child", {"id": "pay", "action": "note", "input": {"what": "{{ event.payload.n }}"}},
              {"id": "go", "action": "shop.break", "input": {"what": "{{ event.payload.n }}"}},
              output="{{ steps.go.output }}")  # fmt: skip
    call = {"id": "sub", "workflow": "child", "input": {"n": "{{ event.payload.n }}"}}
    world.add("parent", call, output="{{ steps.sub.output }}")
    return world


def test_a_step_that_starts_no_sub_workflow_any_more_runs_as_it_is_now(breaking: World) -> None:
    one = breaking.start("parent", {"n": 3})
    corrected = {"name": "parent", "trigger": {"type": "manual"}, "steps": [
        {"id": "sub", "action": "note", "input": {"what": "instead"}}]}  # fmt: skip
    breaking.kernel.executions.resume(one, definition=load_workflow(corrected))
    breaking.run()
    assert (breaking.status(one), breaking.called) == (COMPLETED, [3, "instead"])


def test_a_sub_workflow_that_is_gone_begins_anew(breaking: World) -> None:
    """It may have been purged before its parent is resumed, or between that and its turn."""
    breaking.add("first", {"id": "nap", "sleep": "1h"})
    first, second = breaking.start("parent", {"n": 3}), breaking.start("parent", {"n": 4})
    breaking.broken.clear()  # type: ignore[attr-defined]
    with breaking.kernel.storage.begin() as rows:
        rows.delete(EXECUTION, [Where("id", "eq", breaking.children(first)[0].id)])
    breaking.kernel.executions.resume(first)
    breaking.kernel.executions.resume(second)
    with breaking.kernel.storage.begin() as rows:
        rows.delete(EXECUTION, [Where("id", "eq", breaking.children(second)[0].id)])
        rows.delete(STEP, [Where("execution_id", "ne", second), Where("step_id", "eq", "pay")])
        rows.delete(STEP, [Where("execution_id", "ne", second), Where("step_id", "eq", "go")])
    breaking.run()
    assert {breaking.status(first), breaking.status(second)} == {COMPLETED}
    assert sorted(breaking.called) == [3, 3, 4, 4]


@pytest.mark.parametrize("ended", [True, False])
def test_a_sub_workflow_that_was_resumed_by_itself_is_taken_over(
    breaking: World, ended: bool
) -> None:
    """Its parent, resumed after it, waits for it, or takes its output."""
    one = breaking.start("parent", {"n": 3})
    (child,) = breaking.children(one)
    breaking.clock.advance(5)
    breaking.broken.clear()  # type: ignore[attr-defined]
    breaking.kernel.executions.resume(child.id)
    if ended:
        breaking.run()
    breaking.kernel.executions.resume(one)
    breaking.run()
    assert (breaking.status(one), breaking.see(one).output) == (COMPLETED, 3)
    assert breaking.called == [3] and len(breaking.children(one)) == 1


def test_one_that_took_too_long_goes_on_with_all_its_time(world: World) -> None:
    world.add("child", {"id": "pay", "action": "note", "input": {"what": 1}},
              {"id": "go", "wait_for": {"signal": "go"}})  # fmt: skip
    world.add("parent", {"id": "sub", "workflow": "child", "timeout": "1h"})
    one = world.start("parent")
    world.later(3601)
    assert world.see(one).error_code == "DEADLINE_EXCEEDED"
    world.kernel.executions.resume(one)
    world.later(3599)
    (child,) = world.children(one)
    world.kernel.signal(child.id, "go")
    world.run()
    assert (world.status(one), world.called) == (COMPLETED, [1])


def test_the_last_of_a_chain_goes_on(breaking: World) -> None:
    """It has failed, and not the one that the step has started."""
    breaking.add("chain", {"id": "pay", "action": "note", "input": {"what": "{{ event.payload.n }}"}},
                 {"id": "go", "if": "{{ event.payload.n == 2 }}", "action": "shop.break"},
                 {"id": "on", "if": "{{ event.payload.n == 1 }}", "continue_as_new": {"n": 2}},
                 output="{{ event.payload.n }}")  # fmt: skip
    breaking.add("starts", {"id": "sub", "workflow": "chain", "input": {"n": 1}},
                 output="{{ steps.sub.output }}")  # fmt: skip
    one = breaking.start("starts")
    assert breaking.status(one) is FAILED and breaking.called == [1, 2]
    breaking.broken.clear()  # type: ignore[attr-defined]
    breaking.kernel.executions.resume(one)
    breaking.run()
    assert (breaking.status(one), breaking.see(one).output) == (COMPLETED, 2)
    assert breaking.called == [1, 2]


def die_at(world: World, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    """Have a worker claim the next item, and die at this *moment* of its checkpoint."""
    item = world.claim()

    def die(*_: Any, **__: Any) -> None:
        raise _Death

    with monkeypatch.context() as patch:
        patch.setattr(world.kernel.executions.checkpoints, moment, die)
        with pytest.raises(_Death):
            handle(world.kernel, item)


@pytest.mark.parametrize("moment", ["_write", "_write_beside", "_defer_waiting"])
def test_a_resumed_parent_whose_worker_dies_resumes_one_child(
    breaking: World, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    one = breaking.start("parent", {"n": 3})
    breaking.broken.clear()  # type: ignore[attr-defined]
    breaking.kernel.executions.resume(one)
    die_at(breaking, monkeypatch, moment)
    for _ in range(3):
        breaking.later(60)
    assert (breaking.status(one), breaking.see(one).output) == (COMPLETED, 3)
    assert breaking.called == [3] and len(breaking.children(one)) == 1


@pytest.mark.parametrize("changed", [False, True])
def test_a_sub_workflow_of_code_goes_on(breaking: World, changed: bool) -> None:
    """Unless the code makes another call in its place by now."""
    kernel, mended = breaking.kernel, list[int]()

    @kernel.workflow
    async def inner(ctx: WorkflowContext) -> str:
        await ctx.call("note", what="inner")
        await ctx.call("shop.break")
        return "done"

    @kernel.workflow
    async def outer(ctx: WorkflowContext) -> str:
        if mended:
            return await ctx.call("note", what="instead")
        return await ctx.child(inner, name="sub")

    one = breaking.start("outer")
    assert breaking.status(one) is FAILED
    breaking.broken.clear()  # type: ignore[attr-defined]
    mended += [1] * changed
    kernel.executions.resume(one)
    breaking.run()
    assert (breaking.status(one), breaking.see(one).error) == (COMPLETED, None)
    assert breaking.called == ["inner", "instead"][: 1 + changed]
    assert [run.status for run in breaking.see(one).steps] == ["COMPLETED"]


def test_a_recursion_without_an_end_fails(world: World) -> None:
    """At a depth that nobody means."""
    world.add("endless", {"id": "sub", "workflow": "endless"})
    one = world.start("endless")
    assert world.status(one) is FAILED
    assert "wait for each other" in (world.see(one).error or "")
    assert len(world.rows(EXECUTION)) == 51


def test_a_sub_workflow_keeps_its_own_limit(world: World) -> None:
    """Of a workflow with `concurrency` as many go on at once, whoever starts them."""
    world.add("child", {"id": "nap", "sleep": "1m"}, concurrency={"limit": 1})
    world.add("parent", {"id": "sub", "workflow": "child", "for_each": [1, 2], "concurrency": 2})
    one = world.start("parent")
    assert sorted(each.status for each in world.children(one)) == ["PENDING", "RUNNING"]
    world.later(61)
    assert sorted(each.status for each in world.children(one)) == ["COMPLETED", "RUNNING"]
    world.later(61)
    assert world.status(one) is COMPLETED


def test_an_unknown_workflow_fails_the_step(world: World) -> None:
    """Where no other worker may know it: another tenant's is unknown too."""
    world.add("parent", {"id": "sub", "workflow": "chidl"})
    one = world.see(world.start("parent"))
    elsewhere = not isinstance(world.kernel.storage, MemoryStorage)
    expected = (ExecutionStatus.RUNNING, None) if elsewhere else (FAILED, "NOT_FOUND")
    assert (one.status, one.error_code) == expected
    handed_over = [each.handover for each in world.kernel.outbox.handed_over()]
    assert [note is not None and note.code for note in handed_over] == (
        ["UNKNOWN_WORKFLOW"] if elsewhere else []
    )


def test_a_result_is_kept_for_the_parent(nested: World) -> None:
    """A sub-workflow is not purged before its parent has taken its output."""
    one = nested.start("parent", {"n": 4})
    (child,) = nested.children(one)
    nested.kernel.signal(child.id, "go")
    kinds = [ADVANCE, SIGNAL_KIND]
    item = nested.claim(SIGNAL_KIND)
    handle(nested.kernel, item)
    handle(nested.kernel, nested.claim())
    assert nested.status(child.id) is COMPLETED
    nested.clock.advance(10)
    assert nested.kernel.executions.purge(older_than_seconds=5) == 0
    nested.kernel.run_until_idle(kinds=kinds)
    assert nested.see(one).output == 8
    assert nested.kernel.executions.purge(older_than_seconds=5) == 1


def test_a_parent_whose_worker_dies_starts_one_child(
    nested: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the checkpoint there is none; after it, the same one."""
    for moment in ("_write", "_write_beside", "_defer_waiting"):
        one = nested.kernel.start("parent", {"n": 1})
        die_at(nested, monkeypatch, moment)
        nested.clock.advance(60)
        nested.run()
        nested.later(60)
        (child,) = nested.children(one)
        nested.kernel.signal(child.id, "go")
        nested.run()
        assert nested.status(one) is COMPLETED
    assert len(nested.called) == 3


def test_many_children_are_cancelled_in_several_goes(nested: World) -> None:
    """No item holds a worker for long."""
    nested.add("many", {"id": "sub", "workflow": "child", "for_each": "{{ range(60) | list }}",
                        "concurrency": 100, "input": {"n": 1}})  # fmt: skip
    one = nested.start("many")
    nested.kernel.executions.cancel(one)
    item = nested.claim(CANCEL)
    handle(nested.kernel, item)
    live = [each for each in nested.children(one) if not each.status.finished]
    assert len(live) == 10


def test_of_a_list_all_go_on_that_did_not_complete(breaking: World) -> None:
    """One has failed, and the others were cancelled for that."""
    breaking.add("slow", {"id": "pay", "action": "note", "input": {"what": "{{ event.payload }}"}},
                 {"id": "nap", "sleep": "{{ event.payload }}h"},
                 {"id": "go", "action": "shop.break", "input": {"what": "{{ event.payload }}"}},
                 output="{{ steps.go.output }}")  # fmt: skip
    each = {"id": "sub", "workflow": "slow", "for_each": [0, 1, 2, 3], "concurrency": 3,
            "input": "{{ item }}"}  # fmt: skip
    breaking.add("many", each, output="{{ steps.sub.output }}")
    breaking.add("block", {"id": "box", "steps": [each]}, output="{{ steps.box.output }}")
    for workflow in ("many", "block"):
        breaking.called.clear()
        breaking.broken.append(True)  # type: ignore[attr-defined]
        one = breaking.start(workflow)
        assert breaking.status(one) is FAILED and sorted(breaking.called) == [0, 1, 2]
        assert {child.status for child in breaking.children(one)} == {FAILED, CANCELLED}
        breaking.broken.clear()  # type: ignore[attr-defined]
        breaking.kernel.executions.resume(one)
        for _ in range(3):
            breaking.later(3 * 3600)
        assert (breaking.status(one), breaking.see(one).output) == (COMPLETED, [0, 1, 2, 3])
        assert sorted(breaking.called) == [0, 1, 2, 3] and len(breaking.children(one)) == 4


@pytest.mark.parametrize("tenant", [None, "shop"])
def test_a_start_does_not_wait_behind_the_wakes_of_another_workflow(
    world: World, tenant: str | None
) -> None:
    """Of all that has been woken and is due, five claims at most come before a new start."""
    world.add("crowd", {"id": "go", "wait_for": {"event": "go"}})
    world.add("timers", {"id": "nap", "sleep": "1m"})
    world.add("other", {"id": "last", "action": "note"})
    kernel = world.kernel
    for name in ["crowd"] * 30 + ["timers"] * 30:
        kernel.start(name, tenant_id=tenant)
    kernel.run_until_idle()
    world.clock.advance(61)
    kernel.emit("go", tenant_id=tenant)
    for kind in (EVENT, SIGNAL_KIND):
        handle(kernel, world.claim(kind))
    claim = partial(kernel.outbox.claim_batch, "worker", 5, kinds=[ADVANCE])
    assert len(claim()) == 5
    started = kernel.start("other", tenant_id=tenant)
    claimed = [item for _ in range(5) for item in claim()]
    assert len(claimed) == 25
    assert started in [item.payload["execution_id"] for item in claimed]
