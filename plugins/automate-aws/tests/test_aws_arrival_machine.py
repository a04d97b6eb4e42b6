"""Messages arrive while workers die, receipts grow old and AWS fails: none is lost, none twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from automate_aws import SqsConnector
from automate_aws.clients import AwsClients
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from automate_kernel import AutomateError, ConnectorContext


class Queue:
    """A queue in memory: a message that was received is hidden until it is shown again."""

    def __init__(self) -> None:
        self.messages: dict[str, str | None] = {}  # its receipt while it is hidden
        self.deleted: set[str] = set()
        self.receipts = 0
        self.failing: set[str] = set()

    def call(self, service: str, operation: str, /, **given: Any) -> dict[str, Any]:
        if operation in self.failing:
            raise AutomateError("UNAVAILABLE", "the network is away")
        answer: Callable[..., dict[str, Any]] = getattr(self, operation)
        return answer(**given)

    def receive_message(self, *, MaxNumberOfMessages: int, **_: Any) -> dict[str, Any]:
        ready = [each for each, receipt in self.messages.items() if receipt is None]
        found = []
        for each in ready[:MaxNumberOfMessages]:
            self.receipts += 1
            self.messages[each] = f"r{self.receipts}"
            found.append({"MessageId": each, "ReceiptHandle": self.messages[each], "Body": each})
        return {"Messages": found}

    def delete_message_batch(self, *, Entries: list[dict[str, str]], **_: Any) -> dict[str, Any]:
        by_receipt = {receipt: each for each, receipt in self.messages.items() if receipt}
        failed = []
        for entry in Entries:
            each = by_receipt.get(entry["ReceiptHandle"])
            if each is None:
                failed.append({"Id": entry["Id"], "SenderFault": True})
            elif "one entry" in self.failing:
                failed.append({"Id": entry["Id"], "SenderFault": False})
            else:
                del self.messages[each]
                self.deleted.add(each)
        return {"Failed": failed}


class Arrival(RuleBasedStateMachine):
    """The kernel's side is what its promise says: events, their ids and the cursor, or nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.queue, self.sent = Queue(), 0
        self.cursor: Any = None
        self.saved: list[str] = []
        url = "https://sqs.eu-central-1.amazonaws.com/123456789012/q"
        config = {"region": "eu-central-1", "queues": {"q": url}, "listen": ["q"]}
        self.connector = SqsConnector(config, ctx=ConnectorContext(key="sqs"))
        self.connector._clients = _Clients(self.queue)

    @rule(count=st.integers(1, 30))
    def send(self, count: int) -> None:
        for _ in range(count):
            self.sent += 1
            self.queue.messages[f"m{self.sent}"] = None

    @rule(dies=st.booleans())
    def poll(self, dies: bool) -> None:
        try:
            result = self.connector.message(self.cursor)
        except AutomateError:
            return
        if not dies:
            self.cursor = result.cursor
            self.saved += [e.id for e in result.events if e.id not in self.saved]

    @rule()
    def hidden_messages_come_again(self) -> None:
        self.queue.messages = dict.fromkeys(self.queue.messages)

    @rule(what=st.sampled_from(["receive_message", "delete_message_batch", "one entry"]))
    def fail(self, what: str) -> None:
        self.queue.failing.add(what)

    @rule()
    def mend(self) -> None:
        self.queue.failing.clear()

    @rule()
    def start_over(self) -> None:
        self.cursor = None

    @invariant()
    def nothing_is_deleted_before_it_is_saved(self) -> None:
        assert self.queue.deleted <= set(self.saved)

    def teardown(self) -> None:
        self.mend()
        for _ in range(3):
            self.hidden_messages_come_again()
            for _ in range(10):
                self.poll(dies=False)
        assert sorted(self.saved) == sorted(self.queue.deleted)
        assert len(self.saved) == self.sent and self.queue.messages == {}


class _Clients(AwsClients):
    def __init__(self, queue: Queue) -> None:
        self.call = queue.call  # type: ignore[method-assign]


TestArrival = Arrival.TestCase
TestArrival.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
