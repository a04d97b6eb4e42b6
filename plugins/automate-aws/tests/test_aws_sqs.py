"""The connector ``sqs`` on moto: sending, and messages as events, each once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import automate_aws
import pytest
from automate_aws import SqsConnector
from automate_aws.clients import AwsClients
from aws_support import SECRET_KEY, Aws

from automate_kernel import AutomateError, Connector, ConnectorContext, Kernel
from automate_kernel.storage import MemoryStorage
from automate_testing import ConnectorContract, FakeClock, PollContract


def connector_of(aws: Aws, **config: Any) -> SqsConnector:
    given = {**aws.config, "secret_access_key": SECRET_KEY, "wait_seconds": 0, **config}
    return SqsConnector(given, ctx=ConnectorContext(key="sqs"))


class TestSqsConnector(ConnectorContract):
    plugin_class = SqsConnector
    supports_webhooks = False
    example_inputs: ClassVar[Any] = {
        "send_message": {"queue": "q", "body": "x"},
        "send_batch": {"queue": "q", "messages": [{"body": "x"}]},
    }
    bad_configs = (
        {"queues": {"q": "no url"}}, {"queues": {}, "listen": ["q"]}, {"queues": {}, "region": 7},
    )  # fmt: skip

    @pytest.fixture
    def connector(self, aws: Aws) -> Connector:
        return connector_of(aws, queues={"q": aws.queue()})


class TestMessages(PollContract):
    poll = "message"

    @pytest.fixture
    def connector(self, aws: Aws) -> Connector:
        return connector_of(aws, queues={"q": aws.queue()}, listen=["q"])

    def happen(self, connector: Connector) -> None:
        connector.call_action("send_message", {"queue": "q", "body": {"n": 1}})

    def test_the_same_cursor_gives_the_same_events(self, connector: SqsConnector) -> None:
        """Once the visibility timeout is over; a queue gives another receipt each time."""
        self.happen(connector)
        first = self._call(connector, None)
        for receipt in first.cursor["q"]:
            connector._clients.call(
                "sqs", "change_message_visibility", QueueUrl=connector._url("q"),
                ReceiptHandle=receipt, VisibilityTimeout=0,
            )  # fmt: skip
        second = self._call(connector, None)
        assert [event.id for event in first.events] == [event.id for event in second.events] != []


def left_in(aws: Aws, url: str) -> tuple[int, int]:
    """The messages that can be received, and those that were and aren't deleted."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    found = aws.clients.call("sqs", "get_queue_attributes", QueueUrl=url, AttributeNames=names)
    return tuple(int(found["Attributes"][name]) for name in names)  # type: ignore[return-value]


def received(aws: Aws, url: str) -> list[dict[str, Any]]:
    answer = aws.clients.call(
        "sqs", "receive_message", QueueUrl=url, MaxNumberOfMessages=10, AttributeNames=["All"],
        MessageAttributeNames=["All"],
    )  # fmt: skip
    return answer.get("Messages") or []


# -- sending ---------------------------------------------------------------------------------


def test_sends_text_and_json_with_attributes(aws: Aws):
    url = aws.queue()
    with aws.kernel(sqs={"queues": {"q": url}}) as kernel:
        kernel.invoke("sqs.send_message", {"queue": "q", "body": "héllo", "attributes": {"a": "b"}})
        kernel.invoke(
            "sqs.send_message", {"queue": "q", "body": {"n": 1}}, idempotency_key="step-1"
        )
    found = {each["Body"]: each.get("MessageAttributes", {}) for each in received(aws, url)}
    assert found["héllo"]["a"]["StringValue"] == "b"
    # A standard queue can't drop what is sent twice: its receiver can.
    assert found['{"n": 1}']["idempotency-key"]["StringValue"] == "step-1#0"


def test_a_step_that_is_repeated_sends_to_a_fifo_queue_once(aws: Aws):
    url = aws.queue("orders.fifo")
    with aws.kernel(sqs={"queues": {"q": url}}) as kernel:
        given = {"queue": "q", "body": "x", "group": "g"}
        for key in ("step-1", "step-1", "step-2"):
            kernel.invoke("sqs.send_message", given, idempotency_key=key)
        batch = {"queue": "q", "messages": [{"body": n, "group": "g"} for n in range(3)]}
        for _ in range(2):
            kernel.invoke("sqs.send_batch", batch, idempotency_key="step-3")
        with pytest.raises(AutomateError, match="needs a group"):
            kernel.invoke("sqs.send_message", {"queue": "q", "body": "x"})
    assert sum(left_in(aws, url)) == 5


def test_a_batch_keeps_its_order_and_is_bounded(aws: Aws, monkeypatch: pytest.MonkeyPatch):
    url = aws.queue("orders.fifo")
    with aws.kernel(sqs={"queues": {"q": url}}) as kernel:
        messages = [{"body": {"n": n}, "group": "g"} for n in range(10)]
        sent = kernel.invoke("sqs.send_batch", {"queue": "q", "messages": messages})
        assert len({each["message_id"] for each in sent["messages"]}) == 10
        assert [json.loads(each["Body"])["n"] for each in received(aws, url)] == list(range(10))
        monkeypatch.setattr(AwsClients, "call", None)
        for given in ([*messages, *messages], [{"body": "x" * 600_000, "group": "g"}] * 2, []):
            with pytest.raises(AutomateError) as caught:
                kernel.invoke("sqs.send_batch", {"queue": "q", "messages": given})
            assert caught.value.code == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("fifo", "fault", "took", "retryable"),
    [
        (False, False, 1, False), (True, False, 1, True), (False, False, 0, True),
        (True, True, 0, False),
    ],
    ids=["standard", "fifo", "none", "fault"],
)  # fmt: skip
def test_a_batch_of_which_some_were_refused_is_not_sent_again_whole(
    aws: Aws, monkeypatch: pytest.MonkeyPatch, fifo: bool, fault: bool, took: int, retryable: bool
):
    """Unless the queue drops what it has: else what it took would be there twice."""
    failed = {"Code": "Odd" if fault else "InternalError", "SenderFault": fault, "Message": "m"}
    sent = [{"Id": str(n), "MessageId": f"m{n}"} for n in range(took)]
    refused = [{"Id": str(n), **failed} for n in range(took, 2)]
    answer = {"Successful": sent, "Failed": refused}
    monkeypatch.setattr(AwsClients, "call", lambda *_, **__: answer)
    url = f"{aws.url}/1/q{'.fifo' if fifo else ''}"
    connector = connector_of(aws, queues={"q": url})
    messages = [{"body": "a", "group": "g"}, {"body": "b", "group": "g"}]
    with pytest.raises(AutomateError, match=f"took {took} of 2") as caught:
        connector.call_action("send_batch", {"queue": "q", "messages": messages})
    assert caught.value.retryable is retryable


def test_only_queues_of_the_config_are_used(aws: Aws):
    with aws.kernel(sqs={"queues": {"q": aws.queue()}}) as kernel:
        with pytest.raises(AutomateError, match="the config has q"):
            kernel.invoke("sqs.send_message", {"queue": f"{aws.url}/1/other", "body": "x"})


# -- arrival ---------------------------------------------------------------------------------


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def listening(aws: Aws, clock: FakeClock, url: str, **config: Any) -> tuple[Kernel, list[Any]]:
    """A kernel with a workflow that keeps what came."""
    given = {"queues": {"orders": url}, "listen": ["orders"], "wait_seconds": 0, **config}
    kernel, came = aws.kernel(storage=MemoryStorage(clock), sqs=given), []

    @kernel.action("test.keep")
    def keep(message: Any) -> None:
        came.append(message)

    keeping = {"id": "keep", "action": "test.keep", "input": {"message": "{{ event.payload }}"}}
    trigger = {"type": "event", "event": "sqs.message"}
    kernel.add_workflow({"name": "keep", "trigger": trigger, "steps": [keeping]})
    return kernel, came


def run(kernel: Kernel) -> None:
    """Poll until there is nothing more, as a worker does."""
    for _ in range(6):
        kernel.run_until_idle()


def test_each_message_is_one_event_and_then_gone(aws: Aws, clock: FakeClock):
    url = aws.queue()
    kernel, came = listening(aws, clock, url)
    bodies = [{"n": n} for n in range(25)] + ["text", [1]]
    for body in bodies:
        kernel.invoke("sqs.send_message", {"queue": "orders", "body": body})
    run(kernel)
    assert sorted(str(each["body"]) for each in came) == sorted(map(str, bodies))
    assert all(each["queue"] == "orders" and each["sent_at_ms"] for each in came)
    assert left_in(aws, url) == (0, 0)
    kernel.close()


def test_a_message_is_deleted_only_after_its_event_is_saved(
    aws: Aws, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
):
    url = aws.queue()
    kernel, came = listening(aws, clock, url)
    kernel.invoke("sqs.send_message", {"queue": "orders", "body": "x"})
    call, deleted = AwsClients.call, []

    def away(self: Any, service: str, operation: str, /, **parameters: Any) -> Any:
        if operation == "delete_message_batch":
            deleted.append(len(kernel.outbox.find(kind="automate.event")))
            if len(deleted) < 3:
                raise AutomateError("UNAVAILABLE", "the network is away")
        return call(self, service, operation, **parameters)

    monkeypatch.setattr(AwsClients, "call", away)
    run(kernel)
    assert [each["body"] for each in came] == ["x"] and deleted[0] == 1
    assert left_in(aws, url) == (0, 1)  # hidden, and not deleted
    for _ in range(3):
        clock.advance(3600)
        run(kernel)
    assert left_in(aws, url) == (0, 0) and len(came) == 1 and len(deleted) == 3
    kernel.close()


def test_a_message_that_comes_again_starts_nothing_and_is_deleted(aws: Aws, clock: FakeClock):
    url = aws.queue()
    kernel, came = listening(aws, clock, url)
    kernel.invoke("sqs.send_message", {"queue": "orders", "body": "x"})
    # A worker receives it, and dies before it has saved anything.
    connector = kernel.connector("sqs")
    lost = connector.message(None)
    release = {"QueueUrl": url, "VisibilityTimeout": 0}
    (receipt,) = lost.cursor["orders"]
    aws.clients.call("sqs", "change_message_visibility", ReceiptHandle=receipt, **release)
    run(kernel)
    assert len(came) == 1 and left_in(aws, url) == (0, 0)
    kernel.close()


def test_a_receipt_that_is_too_old_does_not_stop_the_poll(aws: Aws, clock: FakeClock):
    url = aws.queue()
    connector = connector_of(aws, queues={"orders": url}, listen=["orders"])
    result = connector.message({"orders": ["no-receipt-of-this-queue"], "gone": ["x"]})
    assert result.cursor == {} and not result.more


def test_a_message_that_no_event_can_hold_stays_in_its_queue(
    aws: Aws, clock: FakeClock, caplog: pytest.LogCaptureFixture
):
    """And stops no other: the queue's own redrive policy puts it aside."""
    url = aws.queue(MaximumMessageSize="1048576")
    kernel, came = listening(aws, clock, url)
    for body in ("x" * 999_990, '{"a": "\\u0000"}', '{"n": 1e999}', "good"):
        aws.clients.call("sqs", "send_message", QueueUrl=url, MessageBody=body)
    run(kernel)
    # What JSON can't be kept comes as text.
    assert {str(each["body"]) for each in came} == {'{"a": "\\u0000"}', '{"n": 1e999}', "good"}
    assert left_in(aws, url) == (0, 1) and "stays there" in caplog.text
    kernel.close()


def test_several_queues_take_turns_within_the_bounds_of_a_poll(aws: Aws):
    urls = {name: aws.queue(name) for name in ("busy", "quiet")}
    connector = connector_of(aws, queues=urls, listen=["busy", "quiet"])
    for _ in range(12):
        batch = {"queue": "busy", "messages": [{"body": "b"}] * 10}
        connector.call_action("send_batch", batch)
    connector.call_action("send_message", {"queue": "quiet", "body": "q"})
    result = connector.message(None)
    queues = [event.payload["queue"] for event in result.events]
    assert len(result.events) <= 100 and "quiet" in queues and "busy" in queues and result.more
    assert len(json.dumps(result.cursor)) < 65_536


def test_the_example_runs(aws: Aws, clock: FakeClock):
    urls = {"orders": aws.queue("orders"), "kept": aws.queue("kept")}
    kernel = aws.kernel(
        storage=MemoryStorage(clock), s3={"buckets": [aws.bucket()]},
        sqs={"queues": urls, "listen": ["orders"], "wait_seconds": 0},
    )  # fmt: skip
    kernel.add_workflow(Path(automate_aws.__file__).parent / "example.yaml")
    kernel.invoke("sqs.send_message", {"queue": "orders", "body": {"tea": 2}})
    run(kernel)
    (told,) = received(aws, urls["kept"])
    key = json.loads(told["Body"])["key"]
    read = kernel.invoke("s3.get_object", {"key": key, "encoding": "json"})
    assert read["content"] == {"tea": 2}
    kernel.close()
