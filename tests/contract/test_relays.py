"""Relays: each event goes out once for each, in order, whatever way it came in and whoever dies."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from waiting import until
from workers import working

from automate_kernel import Connector, Kernel, PollResult, TriggerSpec, poll
from automate_kernel.base.errors import AutomateError, ConfigError, ErrorCodes
from automate_kernel.monitoring.diagnosis import relay_findings
from automate_kernel.monitoring.prometheus import Exporter
from automate_kernel.outbox import ItemStatus
from automate_kernel.relays import CloudEvent, Relay
from automate_kernel.storage import Storage
from automate_kernel.triggers.polls import PolledEvent
from automate_kernel.triggers.webhooks import GitHubSignature
from automate_kernel.workflows.store.events import event_item
from automate_testing.clock import FakeClock
from automate_testing.memory_relay import MemoryRelay, MemoryTopic

pytestmark = pytest.mark.any_storage

STEPS = {"trigger": {"type": "event", "event": "order.*"}, "steps": [{"id": "a", "action": "x.y"}]}


class Hub(Connector):
    """A service with a webhook and a poll."""

    key = "hub"

    @classmethod
    def triggers(cls) -> list[TriggerSpec]:
        return [TriggerSpec("order", signature=GitHubSignature("HOOK"), event_name="order.hooked")]

    @poll("order", every="1s")
    def orders(self, cursor: Any) -> PollResult:
        return PollResult([PolledEvent("1", {"n": 1})], cursor)


class World:
    """Kernels on one storage, and what their relay sent."""

    def __init__(self, storage: Storage) -> None:
        self.storage, self.topic = storage, MemoryTopic()
        self.calls = 0

    def kernel(self, relay: Any = None, **options: Any) -> Kernel:
        about = {"to": MemoryRelay(self.topic), "events": ["order.*", "hub.*"]}
        kernel = Kernel(
            self.storage, discover=False, secrets={"HOOK": "a-webhook-secret"}, plugins=[Hub],
            relays={"orders": relay or about}, **options,
        )  # fmt: skip
        kernel.action("x.y")(self.call)
        return kernel

    def call(self) -> None:
        self.calls += 1

    @property
    def sent(self) -> list[Any]:
        return [event.data["n"] for event in self.topic.events]


@pytest.fixture
def world(storage: Storage) -> World:
    return World(storage)


@pytest.fixture
def timed(clocked_storage: Storage) -> World:
    """A world whose time only the test lets pass."""
    return World(clocked_storage)


def hook(kernel: Kernel) -> None:
    body = b'{"n": 1}'
    headers = GitHubSignature("HOOK").sign(body, "a-webhook-secret")
    kernel.receive_webhook("hub", "order", {**headers, "X-GitHub-Delivery": "1"}, body)


def polled(kernel: Kernel) -> None:
    trigger = {"type": "event", "event": "hub.order"}
    kernel.add_workflow({**STEPS, "name": "polls", "trigger": trigger})


def many(kernel: Kernel) -> None:
    kernel.outbox.enqueue_many([event_item("order.new", {"n": 1}), event_item("other", {"n": 2})])


def rolled_back(kernel: Kernel) -> None:
    kernel.emit("order.new", {"n": 1})
    with pytest.raises(ZeroDivisionError), kernel.outbox.transaction() as transaction:
        kernel.emit("order.new", {"n": 2}, transaction=transaction)
        raise ZeroDivisionError


def again(kernel: Kernel) -> None:
    for _ in range(2):
        kernel.emit("order.new", {"n": 1}, idempotency_key="1")


WAYS: dict[str, Callable[[Kernel], object]] = {
    "emit": lambda kernel: kernel.emit("order.new", {"n": 1}),
    "aemit": lambda kernel: asyncio.run(kernel.aemit("order.new", {"n": 1})),
    "many": many,
    "webhook": hook,
    "poll": polled,
    "enqueue": lambda kernel: kernel.outbox.enqueue(
        "automate.event", {"name": "order.new", "payload": {"n": 1}}
    ),
    "tenant": lambda kernel: kernel.emit("order.new", {"n": 1}, tenant_id="acme"),
    "a key": again,
    "a rollback": rolled_back,
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("listens", [True, False], ids=["a workflow listens", "none does"])
def test_an_event_goes_out_whatever_way_it_came_in(
    world: World, way: Callable[[Kernel], object], listens: bool
) -> None:
    """Once, beside what it starts; an event that no pattern fits goes nowhere."""
    with world.kernel() as kernel:
        if listens:
            kernel.add_workflow({"name": "w", **STEPS})
        way(kernel)
        kernel.run_until_idle()
        assert world.sent == [1]
        kernel.run_until_idle()
        assert world.sent == [1]


def test_a_worker_sends_what_it_begins_together(world: World) -> None:
    """Hundreds of events in one claim, from a process that knows of no relay."""
    with Kernel(world.storage, discover=False) as host, world.kernel() as kernel:
        kernel.add_workflow({"name": "w", **STEPS})
        ids = host.outbox.enqueue_many([event_item("order.new", {"n": n}) for n in range(200)])
        with working(kernel):
            until(lambda: len(world.topic.events) == 200 and world.calls == 200)
    assert {event.id for event in world.topic.events} == set(ids)
    assert world.topic.repeats == 0


def test_events_of_one_key_go_out_in_their_order(world: World) -> None:
    """However many are under way, through an outage too."""
    with world.kernel() as kernel:
        for n in range(40):
            kernel.emit("order.new", {"n": n}, ordering_key=f"o{n % 4}", tenant_id="acme")
        world.topic.available = False
        with working(kernel):
            until(lambda: kernel.relays.routes["orders"].failures >= 3)
            world.topic.available = True
            until(lambda: len(world.topic.events) == 40)
    for key in range(4):
        mine = [n for n in world.sent if n % 4 == key]
        assert mine == sorted(mine)
        keys = {e.partition_key for e in world.topic.events if e.data["n"] % 4 == key}
        assert keys == {f"o{key}"}


def test_an_outage_spends_no_attempt(timed: World, clock: FakeClock) -> None:
    """The reason stands at the item, and it goes out by itself later."""
    timed.topic.available = False
    with timed.kernel() as kernel:
        for n in range(5):
            kernel.emit("order.new", {"n": n})
        for _ in range(20):
            kernel.run_until_idle()
            clock.advance(60)
        (item, *_) = kernel.outbox.find(kind="automate.relay:orders")
        assert (item.status, item.attempt_count) == (ItemStatus.PENDING, 0)
        assert item.last_error == "UNAVAILABLE: the broker can't be reached"
        timed.topic.available = True
        kernel.relays.routes["orders"].again_at = 0.0
        clock.advance(60)
        kernel.run_until_idle()
        assert sorted(timed.sent) == [0, 1, 2, 3, 4]


def test_an_event_that_is_never_taken_ends_with_its_reason(world: World) -> None:
    """It holds up no other, and goes out once it is requeued and fits."""
    world.topic.largest = 1_000
    with world.kernel() as kernel:
        kernel.emit("order.new", {"n": 1, "x": "y" * 2_000}, ordering_key="k")
        kernel.emit("order.new", {"n": 2}, ordering_key="k")
        kernel.run_until_idle()
        (item,) = kernel.outbox.find(status=ItemStatus.FAILED)
        assert item.last_error == "PayloadError: the broker takes messages of at most 1,000 bytes"
        assert world.sent == [2]
        world.topic.largest = 10_000
        kernel.outbox.requeue(item.id)
        kernel.run_until_idle()
        assert world.sent == [2, 1]


def test_an_event_of_the_largest_size_goes_out(world: World) -> None:
    """What the outbox takes as an event it takes as the item of a relay."""
    world.topic.largest = 3_000_000
    with world.kernel() as kernel:
        kernel.emit("order.new", {"n": 1, "x": "y" * 999_900}, labels={"a": "b" * 200})
        kernel.run_until_idle()
        assert world.sent == [1]


def test_an_event_whose_condition_fails_goes_out_once(world: World) -> None:
    """The item fails for the workflow, and starts the rest once it is put back."""
    with world.kernel() as kernel:
        broken = {**STEPS, "trigger": {**STEPS["trigger"], "if": "{{ event.payload.no.such }}"}}  # type: ignore[dict-item]
        kernel.add_workflow({"name": "w", **broken})
        event = kernel.emit("order.new", {"n": 1})
        kernel.run_until_idle()
        assert world.sent == [1]
        assert kernel.outbox.get(event).status is ItemStatus.FAILED  # type: ignore[union-attr]
        kernel.outbox.requeue(event)
        kernel.run_until_idle()
        assert (world.sent, world.topic.repeats) == ([1], 0)


def test_a_delayed_event_goes_out_when_it_is_due_and_a_cancelled_never(
    timed: World, clock: FakeClock
) -> None:
    """For others it has not happened before."""
    with timed.kernel() as kernel:
        kernel.emit("order.new", {"n": 1}, delay=60)
        cancelled = kernel.emit("order.new", {"n": 2}, delay=60)
        kernel.outbox.cancel([cancelled])
        kernel.run_until_idle()
        assert timed.sent == []
        clock.advance(61)
        kernel.run_until_idle()
        assert timed.sent == [1]


def test_what_is_sent_has_all_of_the_event(world: World) -> None:
    """Its id, name, source, time, tenant, key, labels and trace; no secret."""
    trace = {"traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01"}
    with world.kernel() as kernel:
        kernel.secrets.get("HOOK")
        event = kernel.emit(
            "order.new", {"n": 1, "token": "a-webhook-secret"}, source="the shop",
            tenant_id="acme", ordering_key="7", labels={"order": 7}, headers=trace,
        )  # fmt: skip
        kernel.run_until_idle()
        assert not kernel.outbox.find(status=ItemStatus.FAILED)
    (sent,) = world.topic.events
    assert (sent.id, sent.type, sent.source) == (event, "order.new", "the%20shop")
    assert (sent.tenant_id, sent.partition_key, sent.labels) == ("acme", "7", {"order": "7"})
    assert (sent.time is not None, sent.trace) == (True, trace)
    assert sent.data["n"] == 1
    assert "a-webhook-secret" not in json.dumps(sent.to_json())


def test_the_lag_is_a_metric_and_doctor_says_what_keeps_a_relay(
    timed: World, clock: FakeClock
) -> None:
    """Both from the database, whichever process asks."""
    with timed.kernel() as kernel:
        assert [each.state for each in relay_findings(kernel)] == ["ok"]
        assert 'automate_relay_lag_seconds{relay="orders"} 0' in Exporter(kernel).render()
        timed.topic.available = False
        kernel.emit("order.new", {"n": 1})
        kernel.run_until_idle()
        clock.advance(400)
        assert 'automate_relay_lag_seconds{relay="orders"} 400' in Exporter(kernel).render()
        texts = [each.text for each in relay_findings(kernel)]
        assert texts == [
            "orders: the broker can't be reached",
            "orders: the oldest event has waited for 400 s",
        ]


class Bug(Relay):
    """A relay whose code fails for some events."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    async def send(self, event: CloudEvent) -> None:
        if event.data["n"] == 1:
            raise ZeroDivisionError
        if event.data["n"] == 2:
            raise AutomateError(ErrorCodes.UNAVAILABLE, "for this event alone")
        self.sent.append(event.data["n"])


def test_an_event_that_a_broker_chokes_on_keeps_no_other(world: World) -> None:
    """Neither a bug of the relay nor an answer for one event stops the rest."""
    bug = Bug()
    with world.kernel(bug) as kernel:
        for n in range(6):
            kernel.emit("order.new", {"n": n})
        kernel.run_until_idle()
        assert sorted(bug.sent) == [0, 3, 4, 5]
        states = {item.payload["data"]["n"]: item for item in kernel.outbox.find(limit=50)
                  if item.kind == "automate.relay:orders"}  # fmt: skip
        assert states[1].status is ItemStatus.RETRY
        assert (states[2].status, states[2].attempt_count) == (ItemStatus.PENDING, 0)


class Slow(Relay):
    """A relay that hangs until it is let go."""

    def __init__(self) -> None:
        self.begun, self.loops = threading.Event(), set[Any]()

    async def send(self, event: CloudEvent) -> None:
        self.loops.add(asyncio.get_running_loop())
        self.begun.set()
        await asyncio.sleep(3_600)

    async def close(self) -> None:
        self.loops.add(asyncio.get_running_loop())


def test_a_worker_that_stops_leaves_what_it_sends_to_the_next(world: World) -> None:
    """No attempt is spent, and a relay is used from one loop alone."""
    slow = Slow()
    with world.kernel(slow) as kernel:
        kernel.emit("order.new", {"n": 1})
        with working(kernel, grace_seconds=0.1):
            assert slow.begun.wait(20)
        (item,) = kernel.outbox.find(kind="automate.relay:orders")
        assert (item.status, item.attempt_count) == (ItemStatus.PENDING, 0)
    assert len(slow.loops) == 1
    with world.kernel() as kernel:
        kernel.run_until_idle()
    assert world.sent == [1]


def test_a_worker_without_the_relay_leaves_events_to_those_that_have_it(world: World) -> None:
    """As while a relay is rolled out, whoever began last."""
    with world.kernel() as new, Kernel(world.storage, discover=False) as old:
        for kernel in (new, old):
            kernel.add_workflow({"name": "w", **STEPS})
        old.action("x.y")(world.call)
        with working(new), working(old):
            until(lambda: old._leader_election.leaves_events)
            assert not new._leader_election.leaves_events
            for n in range(20):
                old.emit("order.new", {"n": n})
            until(lambda: len(world.topic.events) == 20 and world.calls == 20)


def test_a_long_key_keeps_its_order_too(world: World) -> None:
    """The longest key of an event, for a tenant with the longest name."""
    with world.kernel() as kernel:
        for n in range(3):
            kernel.emit("order.new", {"n": n}, ordering_key="k" * 90, tenant_id="t" * 100)
        kernel.run_until_idle()
        assert world.sent == [0, 1, 2]


def arriving(n: int, **about: Any) -> CloudEvent:
    """Return an event of another system."""
    return CloudEvent(
        **{"id": f"id {n}", "source": "/them", "type": "order.new", "data": {"n": n}, **about}
    )


def test_an_event_of_another_system_comes_in_once_and_does_not_go_round(world: World) -> None:
    """By its source and id, in one call and in others, also once its item is gone."""
    with world.kernel() as kernel:
        kernel.add_workflow({"name": "w", **STEPS})
        first, same = kernel.receive_events(arriving(1), arriving(1))
        assert (first.duplicate, same.duplicate, same.item_id) == (False, True, first.item_id)
        kernel.run_until_idle()
        kernel.purge(older_than_seconds=0)
        (again,) = kernel.receive_events(arriving(1))
        other, theirs = kernel.receive_events(
            arriving(1, source="/others"), arriving(1, tenant_id="acme")
        )
        assert (again.duplicate, other.duplicate, theirs.duplicate) == (True, False, False)
        kernel.run_until_idle()
        assert (world.calls, world.sent) == (3, [])


def test_events_that_come_twice_at_once_start_one_execution_each(world: World) -> None:
    """From several threads, as when a broker delivers again what it believes lost."""
    with world.kernel() as kernel:
        kernel.add_workflow({"name": "w", **STEPS})
        threads = [
            threading.Thread(target=lambda n=n: kernel.receive_events(arriving(n % 5)))
            for n in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        kernel.run_until_idle()
        assert world.calls == 5


def test_an_event_that_can_not_be_stored_takes_none_of_its_neighbours(world: World) -> None:
    """Nothing is written, and nothing is remembered: it may come again, mended."""
    with world.kernel() as kernel:
        for wrong in (
            arriving(2, type="a\x00b"), arriving(2, data={"a": float("nan")}),
            arriving(2, data="x" * 1_100_000), arriving(2, tenant_id="t" * 300),
            arriving(2, labels={"a b": "c"}),
        ):  # fmt: skip
            with pytest.raises(AutomateError) as caught:
                kernel.receive_events(arriving(1), wrong)
            assert caught.value.code is ErrorCodes.INVALID_ARGUMENT
        assert kernel.outbox.find(limit=10) == []
        assert [each.duplicate for each in kernel.receive_events(arriving(1), arriving(2))] == [
            False
        ] * 2


def test_what_came_in_keeps_its_time_key_labels_and_trace(world: World) -> None:
    """A key that is none of ours still keeps the order."""
    with world.kernel() as kernel:
        (receipt,) = kernel.receive_events(
            arriving(1, time="2026-12-03T08:00:00Z", partition_key=" " * 300, labels={"a": "b"},
                     trace={"traceparent": "00-1"}, source="/a?b#c%20d")
        )  # fmt: skip
        item = kernel.outbox.get(receipt.item_id or "")
        assert item is not None
        assert item.payload["occurred_at"] == "2026-12-03T08:00:00Z"
        assert (item.labels, item.headers["traceparent"]) == ({"a": "b"}, "00-1")
        assert item.ordering_key is not None and len(item.ordering_key) == 64
        (late,) = kernel.receive_events(arriving(2, time="tomorrow"))
        item = kernel.outbox.get(late.item_id or "")
        assert item is not None and item.payload["occurred_at"] != "tomorrow"


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"a b": MemoryRelay()}, "can't have this name"),
        ({"a": {"events": ["x"]}}, "doesn't say where its events go"),
        ({"a": {"to": "nats-jet"}}, "nats-jet"),
        ({"a": {"to": MemoryRelay(), "events": []}}, "list of patterns"),
        ({"a": {"to": MemoryRelay(), "event": "x"}}, "takes no event"),
        ({"a": object()}, "doesn't say where its events go"),
        ([MemoryRelay()], "relays"),
    ],
)
def test_a_wrong_setting_is_refused(given: Any, text: str) -> None:
    """With a remedy, before anything runs."""
    with pytest.raises((ConfigError, AutomateError), match=text):
        Kernel(discover=False, relays=given)
