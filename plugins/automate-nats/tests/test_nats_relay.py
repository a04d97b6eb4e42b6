"""Relay and subscription on a real nats-server: subjects, streams, what can't be sent or taken."""

from __future__ import annotations

from typing import Any

import nats
import pytest
from nats.js.api import DiscardPolicy, StreamConfig
from nats_support import NatsServer, messages
from waiting import until
from workers import working

from automate_kernel import Kernel
from automate_kernel.base.errors import AutomateError, ConfigError, ErrorCodes
from automate_kernel.outbox import ItemStatus
from automate_kernel.monitoring.diagnosis import relay_findings
from automate_nats import NatsRelay, NatsSubscription
from automate_testing.contracts.relay import event, run, sent


async def made(server: NatsServer, **about: Any) -> None:
    """Make a stream as an operator does."""
    client = await nats.connect(server.url)
    await client.jetstream().add_stream(StreamConfig(**about))
    await client.close()


SUBJECTS = {
    ("shop.{type}", "order.paid", None): "shop.order.paid",
    ("shop.{tenant}.{type}", "order.paid", "a.b c"): "shop.a%2Eb%20c.order.paid",
    ("shop.{tenant}.{type}", "order.paid", None): "shop.-.order.paid",
    ("shop", "order.paid", None): "shop",
    ("x.{type}.new", "a.b", None): "x.a.b.new",
    ("e.{type}", "a.*.>", None): "e.a.%2A.%3E",
    ("e.{type}", "a..b.", None): "e.a%2E%2Eb%2E",
}


@pytest.mark.parametrize(("given", "subject"), SUBJECTS.items(), ids=[str(key) for key in SUBJECTS])
def test_a_subject_has_the_name_and_the_tenant(
    server: NatsServer, given: tuple[str, str, str | None], subject: str
) -> None:
    """A name with wildcards, blanks or empty parts publishes on no other subject."""
    pattern, name, tenant = given
    relay = NatsRelay(server.url, subject=pattern, stream="S")
    run(sent(relay, event(1, type=name, tenant_id=tenant)))
    assert [found for found, _ in run(messages(server.url, "S"))] == [subject]


@pytest.mark.parametrize(
    "subject", ["a.*", "a.>", "a b", "", "a..b", "{kind}", ".a", "a.{type", "a-{type}"]
)
def test_a_wrong_subject_is_refused(subject: str) -> None:
    """Before anything connects."""
    with pytest.raises(ConfigError):
        NatsRelay(subject=subject)


def test_a_stream_of_the_operators_counts(server: NatsServer) -> None:
    """With the same name and other bounds, or with another name and the same subjects."""
    run(made(server, name="THEIRS", subjects=["events.>"]))
    run(sent(NatsRelay(server.url), event(1)))
    assert len(run(messages(server.url, "THEIRS"))) == 1


def test_what_a_stream_never_takes_ends_and_a_full_one_waits(server: NatsServer) -> None:
    """Each by its own code; neither is lost."""
    run(made(
        server, name="AUTOMATE_EVENTS", subjects=["events.>"], max_msgs=1, max_msg_size=3_000,
        discard=DiscardPolicy.NEW,
    ))  # fmt: skip
    with pytest.raises(AutomateError) as caught:
        run(sent(NatsRelay(server.url), event("x" * 4_000)))
    assert caught.value.code is ErrorCodes.INVALID_ARGUMENT
    with pytest.raises(AutomateError) as caught:
        run(sent(NatsRelay(server.url), event(1), event(2)))
    assert caught.value.code is ErrorCodes.RESOURCE_EXHAUSTED


def test_an_event_beyond_the_servers_size_ends_with_its_reason(server: NatsServer) -> None:
    """In a kernel too; the next event goes out."""
    with Kernel(discover=False, relays={"out": NatsRelay(server.url)}) as kernel:
        kernel.emit("order.new", {"n": 1, "x": "y" * 999_900}, labels={"a": "b" * 200})
        kernel.emit("order.new", {"n": 2})
        kernel.run_until_idle()
        (failed,) = kernel.outbox.find(status=ItemStatus.FAILED) or [None]
        found = run(messages(server.url, "AUTOMATE_EVENTS"))
        # 1 MiB has room for the largest payload and what stands around it, on this server.
        assert len(found) == (2 if failed is None else 1)


def test_a_repeat_is_known_after_a_restart_of_the_server(server: NatsServer) -> None:
    """The ids are on its disk."""
    one = event(1)
    run(sent(NatsRelay(server.url), one))
    server.kill()
    server.start()
    run(sent(NatsRelay(server.url), one))
    assert len(run(messages(server.url, "AUTOMATE_EVENTS"))) == 1


def test_a_relay_that_is_named_comes_from_the_plugin(server: NatsServer) -> None:
    """By its key, with its options; an option that isn't there is refused by name."""
    about = {"to": "nats", "servers": server.url, "subject": "shop.{type}", "stream": "SHOP"}
    with Kernel(relays={"out": {**about, "events": "order.*"}}) as kernel:
        kernel.emit("order.new", {"n": 1}, tenant_id="acme", ordering_key="7")
        kernel.emit("stock.low", {"n": 2})
        kernel.run_until_idle()
        assert kernel.operations.portal.run(kernel.relays.problems()) == {"out": []}
    assert [subject for subject, _ in run(messages(server.url, "SHOP"))] == ["shop.order.new"]
    with pytest.raises(ConfigError, match="subjekt"):
        Kernel(relays={"out": {**about, "subjekt": "x"}})


def test_a_server_that_is_away_keeps_no_event(server: NatsServer) -> None:
    """It waits without spending an attempt, and goes out once the server is back."""
    server.kill()
    with Kernel(relays={"out": NatsRelay(server.url)}, discover=False) as kernel:
        kernel.emit("order.new", {"n": 1})
        kernel.run_until_idle()
        (item,) = kernel.outbox.find(kind="automate.relay:out")
        assert (item.status, item.attempt_count) == (ItemStatus.PENDING, 0)
        assert "can't be reached" in (item.last_error or "")
        server.start()
        kernel.run_until_idle(patience=30)
    assert len(run(messages(server.url, "AUTOMATE_EVENTS"))) == 1


async def published(server: NatsServer, *given: tuple[str, bytes, dict[str, str]]) -> None:
    client = await nats.connect(server.url)
    for subject, data, headers in given:
        await client.jetstream().publish(subject, data, headers=headers)
    await client.close()


def shop(server: NatsServer, storage: Any = None, **options: Any) -> Kernel:
    """Return a kernel with a subscription to the stream SHOP, and a workflow for its events."""
    about = {"from": NatsSubscription(server.url, stream="SHOP", ack_seconds=2.0, **options)}
    kernel = Kernel(storage, discover=False, subscriptions={"shop": about})
    kernel.action("x.y")(lambda: None)
    trigger = {"type": "event", "event": "shop.*"}
    kernel.add_workflow({"name": "w", "trigger": trigger, "steps": [{"id": "a", "action": "x.y"}]})
    return kernel


def test_messages_of_a_stream_start_workflows_once(server: NatsServer) -> None:
    """CloudEvents in both modes, and with a name for them other messages; the rest is dropped."""
    run(made(server, name="SHOP", subjects=["shop.>"]))
    cloud = event({"n": 1}, type="shop.cloud")
    text = cloud.to_text().encode()
    binary = {"ce-specversion": "1.0", "ce-id": "b", "ce-source": "/s", "ce-type": "shop.binary"}
    run(published(
        server, ("shop.a", text, {}), ("shop.a", text, {}), ("shop.b", b'{"n": 2}', binary),
        ("shop.c", b'{"n": 3}', {}), ("shop.c", b'{"n": 3}', {}), ("shop.d", b"words", {}),
        ("shop.e", b"\xff\xfe", {}), ("shop.f", b'{"specversion": "9"}', {}),
    ))  # fmt: skip
    with shop(server, event="{subject}") as kernel, working(kernel):
        until(lambda: len(kernel.executions.find(workflow="w", status="COMPLETED")) == 5)
        until(lambda: run(waiting(server)) == 0)
        found = [one.event for one in kernel.executions.find(workflow="w")]
    names = ["shop.binary", "shop.c", "shop.c", "shop.cloud", "shop.d"]
    assert sorted(each.name for each in found) == names
    assert next(each for each in found if each.name == "shop.d").payload == "words"


async def waiting(server: NatsServer) -> int:
    """Return the number of messages that are not acknowledged."""
    client = await nats.connect(server.url)
    about = await client.jetstream().consumer_info("SHOP", "automate")
    await client.close()
    return (about.num_pending or 0) + (about.num_ack_pending or 0)


def test_without_a_stream_doctor_says_so_and_it_begins_later(server: NatsServer) -> None:
    """Whoever sends makes the stream."""
    with shop(server) as kernel, working(kernel):
        texts = [each.text for each in relay_findings(kernel)]
        assert [text.partition(" (")[0] for text in texts] == ["shop: there is no stream SHOP"]
        run(sent(NatsRelay(server.url, stream="SHOP", subject="x.{type}"), event(1, type="shop.x")))
        until(lambda: len(kernel.executions.find(workflow="w", status="COMPLETED")) == 1)
        assert [each.state for each in relay_findings(kernel)] == ["ok"]


def test_events_of_a_tenants_subscription_are_that_tenants(server: NatsServer) -> None:
    """An event that names another tenant is dropped."""
    run(made(server, name="SHOP", subjects=["shop.>"]))
    for n, tenant in enumerate((None, "acme", "other")):
        text = event(n, type="shop.x", tenant_id=tenant).to_text().encode()
        run(published(server, ("shop.a", text, {})))
    about = {"from": "nats", "servers": server.url, "stream": "SHOP", "tenant_id": "acme"}
    with Kernel(subscriptions={"shop": about}) as kernel, working(kernel):
        until(lambda: len(kernel.outbox.find(kind="automate.event")) == 2)
        found = kernel.outbox.find(kind="automate.event")
    assert {item.tenant_id for item in found} == {"acme"}
    assert sorted(item.payload["payload"] for item in found) == [0, 1]


@pytest.mark.parametrize("options", [{"since": "now"}, {"ack_seconds": 0}, {"streem": "S"}])
def test_a_wrong_option_of_a_subscription_is_refused(options: dict[str, Any]) -> None:
    """Before anything connects."""
    with pytest.raises(ConfigError):
        Kernel(subscriptions={"shop": {"from": "nats", **options}})
