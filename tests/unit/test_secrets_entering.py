"""A secret that the kernel knows is in nothing that it accepts, whichever way it comes in."""

from __future__ import annotations

import asyncio
import json
import traceback
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr

from automate_kernel import Call, Kernel, signals
from automate_kernel.plugins.connectors import Connector, TriggerSpec, action
from automate_kernel.base.errors import AutomateError, ErrorCodes, PayloadError
from automate_kernel.outbox import NewItem
from automate_kernel.storage.tables import TABLES
from automate_kernel.workflows import Workflow
from defined import define

SECRET = "sk_live_9d41b7c2e0aa4f"


class Shop(Connector):
    """Proves every delivery, and echoes what it was sent."""

    key = "shop"

    @classmethod
    def triggers(cls) -> list[TriggerSpec]:
        return [TriggerSpec("order")]

    def verify_webhook(self, headers: Any, raw_body: bytes) -> bool:
        return True

    def parse_webhook(self, trigger: str, headers: Any, raw_body: bytes) -> Any:
        return {"token": SECRET, "body": json.loads(raw_body)}


def note(event: str = "order.created") -> Workflow:
    return Workflow.from_dict(
        {
            "name": "note",
            "trigger": {"type": "event", "event": event},
            "steps": [{"id": "say", "action": "app.say"}],
        }
    )


@pytest.fixture
def kernel():
    with Kernel(
        secrets={"KEY": SECRET}, plugins=[Shop], workflows=[note()], discover=False
    ) as kernel:
        kernel.action("app.say")(lambda: "said")
        kernel.secrets.get("KEY")
        yield kernel


def stored(kernel: Kernel) -> str:
    """Everything in every table."""
    with kernel.storage.begin() as rows:
        return json.dumps({name: rows.select(name) for name in TABLES}, default=str)


PAYLOAD = {"at": [f"Bearer {SECRET}"], SECRET: 1, "kept": [1, 2.5, True, None, "text"]}

WAYS = {
    "emit": lambda k: k.emit("order.created", PAYLOAD),
    "emit headers": lambda k: k.emit("order.created", headers={"auth": SECRET}),
    "aemit": lambda k: asyncio.run(k.aemit("order.created", PAYLOAD)),
    "start": lambda k: k.start("note", PAYLOAD),
    "run": lambda k: k.run("note", PAYLOAD),
    "enqueue": lambda k: k.outbox.enqueue("mail", PAYLOAD),
    "aenqueue": lambda k: asyncio.run(k.outbox.aenqueue("mail", PAYLOAD)),
    "enqueue_many": lambda k: k.outbox.enqueue_many([NewItem("mail", PAYLOAD)]),
    "enqueue text": lambda k: k.outbox.enqueue("mail", f"the key is {SECRET}"),
    "webhook": lambda k: k.receive_webhook("shop", "order", {}, json.dumps(PAYLOAD).encode()),
    "pause": lambda k: k.outbox.pause("mail", f"no {SECRET}"),
    "pause of a workflow": lambda k: k.executions.pauses.pause("note", f"no {SECRET}"),
    "signal": lambda k: k.signal(k.start("note"), "go", PAYLOAD),
    "labels": lambda k: k.emit("order.created", labels={"key": SECRET}),
}


@pytest.mark.parametrize("way", WAYS)
def test_no_way_in_stores_a_secret(kernel: Kernel, way: str) -> None:
    """The mark stands where it stood, and all else is kept."""
    WAYS[way](kernel)
    kernel.run_until_idle()
    text = stored(kernel)
    assert SECRET not in text
    assert "[secret]" in text


def test_an_execution_and_its_signals_have_no_secret_of_the_event(kernel: Kernel) -> None:
    """What receivers of `event_received` and `workflow_started` see is what is stored."""
    seen: list[Any] = []

    def received(sender: Any, event: Any) -> None:
        seen.append(event.payload)

    def started(sender: Any, execution: Any) -> None:
        seen.append(execution.event.payload)

    with (
        signals.event_received.connected_to(received),
        signals.workflow_started.connected_to(started),
    ):
        kernel.emit("order.created", PAYLOAD)
        kernel.run_until_idle()
    clean = {"at": ["Bearer [secret]"], "[secret]": 1, "kept": [1, 2.5, True, None, "text"]}
    assert seen == [clean, clean]


def test_a_worker_that_knows_more_than_the_sender_takes_it_out() -> None:
    """A process that only emits has read no secret; the one that runs the workflow has."""
    with Kernel(secrets={"KEY": SECRET}, discover=False) as kernel:
        kernel.action("app.say")(lambda: "said")
        kernel.add_workflow(note("x"))
        kernel.emit("x", {"k": SECRET})
        kernel.secrets.get("KEY")
        kernel.run_until_idle()
        (execution,) = kernel.executions.find()
        assert execution.event.payload == {"k": "[secret]"}


def test_a_secret_that_is_learned_on_the_way_goes_no_further() -> None:
    """It was accepted when no process knew it: outputs, labels and questions don't repeat it."""
    with Kernel(secrets={"KEY": SECRET}, discover=False) as kernel:

        @kernel.action("app.look")
        def look(token: str, call: Call) -> None:
            kernel.secrets.get("KEY")
            call.label(token=token)

        asked = {"title": "with {{ event.payload.token }}?", "by": ["ann"], "timeout": "1d"}
        steps = [
            {"id": "look", "action": "app.look", "input": {"token": "{{ event.payload.token }}"}},
            {"id": "ask", "approval": asked},
        ]
        output = "{{ event.payload.token }}"
        define(kernel, *steps, output=output)
        one = kernel.start("w", {"token": SECRET})
        kernel.run_until_idle()
        (waiting,) = kernel.executions.waits(one)
        assert "[secret]" in str(waiting.details)
        kernel.approvals.approve(one, "ask", by="ann")
        kernel.run_until_idle()
        execution = kernel.executions.get(one)
        assert execution is not None
        assert (execution.output, execution.labels) == ("[secret]", {"token": "[secret]"})
        with kernel.storage.begin() as rows:
            assert SECRET not in str(rows.select("automate_label"))


def test_two_kernels_on_one_outbox_both_take_theirs_out() -> None:
    """Whichever was made first."""
    with Kernel(secrets={"A": "first-secret-01"}, discover=False) as one:
        two = Kernel(secrets={"B": "second-secret-02"}, outbox=one.outbox, discover=False)
        one.secrets.get("A"), two.secrets.get("B")
        item = one.outbox.get(one.outbox.enqueue("x", ["first-secret-01", "second-secret-02"]))
        assert item is not None
        assert item.payload == ["[secret]", "[secret]"]


def test_the_error_that_an_operator_or_handler_gives_is_redacted(kernel: Kernel) -> None:
    """`mark_failed` and its like take text from anywhere."""
    kernel.outbox.enqueue("mail")
    (item,) = kernel.outbox.claim_batch("me")
    kernel.outbox.mark_failed(item.id, "me", "FAILED", f"401 for {SECRET}")
    found = kernel.outbox.get(item.id)
    assert found is not None
    assert found.last_error == "401 for [secret]"


def test_what_cannot_be_stored_is_refused_the_same_with_and_without_secrets() -> None:
    """The redactor turns no strange type into text that would then be accepted."""
    for secrets in ({}, {"KEY": SECRET}):
        with Kernel(secrets=secrets, discover=False) as kernel:
            for key in secrets:
                kernel.secrets.get(key)
            for payload in ({"s": {SECRET}}, {"o": object()}, {"n": float("nan"), "k": SECRET}):
                with pytest.raises(PayloadError):
                    kernel.outbox.enqueue("mail", payload)


@pytest.mark.parametrize("value", ["2024", "order", "admin", "42"])
def test_a_common_value_ruins_nothing_that_comes_in(value: str) -> None:
    """Not names of events, not numbers, not words."""
    with Kernel(secrets={"KEY": value}, discover=False) as kernel:
        kernel.secrets.get("KEY")
        payload = {"n": 2024, "m": 20241, value: value, "t": f"{value} and more"}
        item = kernel.outbox.get(kernel.emit("order.created", payload))
        assert item is not None
        assert item.payload["payload"] == payload
        assert item.payload["name"] == "order.created"


def test_an_output_that_holds_itself_is_refused(kernel: Kernel) -> None:
    """It ends, and nothing is stored."""

    @kernel.action("app.loop")
    def loop() -> Any:
        found: list[Any] = [SECRET]
        found.append(found)
        return found

    with pytest.raises(AutomateError) as caught:
        kernel.invoke("app.loop")
    assert SECRET not in str(caught.value)


def test_a_literal_secret_in_a_config_is_redacted() -> None:
    """By its model, its name, or its looks; honest words beside it are not."""

    class Options(BaseModel):
        signer: SecretStr
        headers: dict[str, SecretStr] = {}
        region: str = ""

    class Echo(Connector):
        key = "echo"

        @classmethod
        def config_schema(cls) -> type[BaseModel]:
            return Options

        @action
        def say(self, text: str) -> str:
            return text

    config = {
        "signer": "hunter2-hunter2",
        "headers": {"X-Api-Key": "k3y-of-api", "Accept": "application/json"},
        "region": "eu-central-1",
    }
    with Kernel(plugins=[Echo], config={"echo": config}, secrets={}, discover=False) as kernel:
        text = "hunter2-hunter2 k3y-of-api application/json eu-central-1"
        said = kernel.invoke("echo.say", {"text": text})
        assert said == "[secret] [secret] application/json eu-central-1"


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_error_quotes_no_secret_of_its_input(
    caplog: pytest.LogCaptureFixture, asynchronous: bool
) -> None:
    """It was stored with the execution, and logged, while the REST API took it out."""
    kernel = Kernel(discover=False)

    @kernel.action("shop.login")
    def login(password: str) -> None:
        """Log in."""
        problems = [{"field": "password", "problem": f"{password} is too short"}]
        error = AutomateError(ErrorCodes.INVALID_ARGUMENT, f"boom {password}")
        error.details["problems"] = problems
        raise error

    def call() -> None:
        given = {"password": "hunter2-33"}
        if asynchronous:
            asyncio.run(kernel.ainvoke("shop.login", given))
        else:
            kernel.invoke("shop.login", given)

    with pytest.raises(AutomateError, match=r"boom \[secret\]") as caught:
        call()
    shown = "".join(traceback.format_exception(caught.value)) + str(caught.value.details)
    step = {"id": "login", "action": "shop.login", "input": {"password": "hunter2-33"}}
    kernel.add_workflow({"name": "visit", "trigger": {"type": "manual"}, "steps": [step]})
    execution = kernel.run("visit")
    assert "boom [secret]" in str(execution.error)
    assert "hunter2" not in f"{shown} {execution.error} {caplog.text}"
