"""The kernel as a host sees it: events in, actions called, executions ended, secrets kept."""

from __future__ import annotations

import asyncio
import inspect
import gc
import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from workers import working
from automate_kernel import signals
from automate_kernel.plugins.connectors import Connector, TriggerSpec, action
from automate_kernel.operations.context import current_call
from automate_kernel.base.errors import (
    AutomateError,
    ErrorCodes,
    PayloadError,
    PluginError,
    StorageError,
    WebhookRejectedError,
)
from automate_kernel.kernel import Kernel
from automate_kernel.outbox import ItemStatus
from automate_kernel.plugins.hooks import hookimpl
from automate_kernel.storage import MemoryStorage
from automate_testing.clock import FakeClock
from automate_kernel.triggers.webhooks import GitHubSignature
from automate_kernel.workflows.execution import Event, ExecutionStatus, StepStatus
from automate_kernel.workflows.decide.waits import EVENT
from automate_sqlalchemy import SqlAlchemyStorage
from sqlalchemy.orm import Session
from defined import define

EVENT_ID = "01890000-0000-7000-8000-00000000000e"
ORDER = {
    "name": "order-notify",
    "trigger": {"type": "event", "event": "order.created", "if": "{{ event.payload.total > 100 }}"},
    "steps": [
        {"id": "sum", "action": "orders.sum", "input": {"lines": "{{ event.payload.lines }}"}},
        {"id": "tell", "action": "chat.post", "input": {"text": "{{ steps.sum.output }} EUR"}},
    ],
    "output": "{{ steps.tell.output }}",
}


def kernel_on(storage: Any = None, **options: Any) -> Kernel:
    return Kernel(storage, discover=False, **{"secrets": {}, **options})


@pytest.fixture
def posted() -> list[str]:
    return []


@pytest.fixture
def kernel(posted: list[str]) -> Iterator[Kernel]:
    with kernel_on() as kernel:
        add_actions(kernel, posted)
        kernel.add_workflow(ORDER)
        yield kernel


def add_actions(kernel: Kernel, posted: list[str]) -> None:
    @kernel.action("orders.sum")
    def add_up(lines: list[int]) -> int:
        return sum(lines)

    @kernel.action("chat.post")
    async def post(text: str) -> dict[str, int]:
        posted.append(text)
        return {"ts": len(posted)}


# -- entering --------------------------------------------------------------------------------------


def test_an_event_runs_through_a_workflow(kernel: Kernel, posted: list[str]) -> None:
    """What is emitted starts the workflows that listen, and they run to their end."""
    event_id = kernel.emit("order.created", {"total": 120, "lines": [40, 80]}, tenant_id="t1")
    stats = kernel.run_until_idle()
    (execution,) = kernel.executions.find()
    assert posted == ["120 EUR"]
    assert (execution.status, execution.output) == (ExecutionStatus.COMPLETED, {"ts": 1})
    assert (execution.event.id, execution.tenant_id) == (event_id, "t1")
    assert [run.status for run in execution.steps] == [StepStatus.COMPLETED] * 2
    assert (stats.completed, stats.total) == (2, 2)


def test_an_event_that_nobody_listens_to(kernel: Kernel) -> None:
    """It is finished, whether for its name or for the workflow's condition."""
    kernel.emit("order.created", {"total": 3})
    kernel.emit("order.gone", {"total": 300})
    kernel.run_until_idle()
    assert kernel.executions.find() == []
    assert {item.status for item in kernel.outbox.find()} == {ItemStatus.COMPLETED}


def test_a_broken_condition_holds_up_no_other_workflow(kernel: Kernel) -> None:
    """
    The other workflows start, and the event is FAILED for people to see.

    Put back to wait, it starts what it has not started, and nothing twice.
    """
    other = {**ORDER, "name": "other", "trigger": {"type": "event", "event": "order.*"}}
    kernel.add_workflow(other)
    event_id = kernel.emit("order.created", {"lines": []})
    kernel.run_until_idle()
    assert [one.name for one in kernel.executions.find()] == ["other"]
    item = kernel.outbox.get(event_id)
    assert item is not None
    assert (item.status, item.last_error_code) == (ItemStatus.FAILED, "INVALID_ARGUMENT")
    assert "'order-notify'" in (item.last_error or "")
    kernel.outbox.requeue([event_id])
    kernel.run_until_idle()
    assert len(kernel.executions.find()) == 1


def test_emit_belongs_to_the_hosts_transaction(sqlite_engine: sa.Engine) -> None:
    """The event exists exactly if the host's transaction commits."""
    kernel = kernel_on(SqlAlchemyStorage(sqlite_engine))
    with Session(sqlite_engine) as session:
        kernel.emit("a", transaction=session)
        session.rollback()
    assert kernel.outbox.find() == []
    with Session(sqlite_engine) as session, session.begin():
        event_id = kernel.emit("a", {"n": 1}, transaction=session, idempotency_key="k")
        assert kernel.emit("a", transaction=session, idempotency_key="k") == event_id
        with pytest.raises(PayloadError):
            kernel.emit("a", float("nan"), transaction=session)
    assert [item.id for item in kernel.outbox.find(kind=EVENT)] == [event_id]
    with sqlite_engine.begin() as connection:
        kernel.emit("b", transaction=connection)
    assert len(kernel.outbox.find()) == 2


@pytest.mark.parametrize("commits", [True, False])
def test_aemit_belongs_to_an_async_session(sqlite_engine: sa.Engine, commits: bool) -> None:
    """With an AsyncSession it is the same, and so is it without a transaction."""
    from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

    kernel = kernel_on(SqlAlchemyStorage(sqlite_engine))

    async def host() -> None:
        engine = create_async_engine(sqlite_engine.url.set(drivername="sqlite+aiosqlite"))
        async with AsyncSession(engine) as session:
            await kernel.aemit("a", {"n": 1}, transaction=session, source="web", priority=3)
            await (session.commit() if commits else session.rollback())
        await engine.dispose()

    asyncio.run(host())
    found = kernel.outbox.find()
    assert [(one.payload["source"], one.priority) for one in found] == [("web", 3)] * commits
    asyncio.run(kernel.aemit("b"))
    assert len(kernel.outbox.find()) == len(found) + 1


def test_what_is_no_event_is_refused(kernel: Kernel) -> None:
    """A name is needed, and a payload that can be stored."""
    with pytest.raises(PayloadError, match="order.created"):
        kernel.emit("")
    for payload in ({1, 2}, "\x00", {"a": float("inf")}):
        with pytest.raises(PayloadError):
            kernel.emit("a", payload)
    assert kernel.outbox.find() == []


def test_start_and_run(kernel: Kernel, posted: list[str]) -> None:
    """A workflow is started by its name, whatever its triggers; run waits for its end."""
    execution = kernel.run("order-notify", {"lines": [1, 2]})
    assert (execution.status, posted) == (ExecutionStatus.COMPLETED, ["3 EUR"])
    with pytest.raises(AutomateError, match="order-notify") as caught:
        kernel.start("order-notfiy")
    assert caught.value.code is ErrorCodes.NOT_FOUND
    event = Event(id=execution.id, name="order-notify", type="manual", payload={"lines": []})
    first = kernel.start("order-notify", event=event)
    assert kernel.start("order-notify", event=event) == first


def test_start_in_a_transaction(sqlite_engine: sa.Engine) -> None:
    """The execution exists exactly if the host's transaction commits."""
    kernel = kernel_on(SqlAlchemyStorage(sqlite_engine), workflows=[])
    kernel.add_workflow(ORDER)
    with Session(sqlite_engine) as session:
        kernel.start("order-notify", transaction=session)
        session.rollback()
    assert kernel.executions.find() == []
    with Session(sqlite_engine) as session, session.begin():
        execution_id = kernel.start("order-notify", {"lines": []}, transaction=session)
    assert kernel.executions.get(execution_id) is not None


# -- working ---------------------------------------------------------------------------------------


def test_run_until_idle_runs_what_follows(clock: FakeClock) -> None:
    """Handlers may enqueue more; what is not due yet stays."""
    kernel = kernel_on(MemoryStorage(clock))
    seen = []

    @kernel.handler("k")
    def handle(item: Any) -> None:
        seen.append(item.payload)
        if item.payload < 3:
            kernel.outbox.enqueue("k", item.payload + 1)

    kernel.outbox.enqueue("k", 1)
    later = kernel.outbox.enqueue("k", 9, delay=60)
    assert kernel.run_until_idle().completed == 3
    assert seen == [1, 2, 3]
    clock.advance(60)
    kernel.run_until_idle()
    assert seen == [1, 2, 3, 9]
    found = kernel.outbox.get(later)
    assert found is not None
    assert found.status is ItemStatus.COMPLETED


def test_run_until_idle_waits_for_what_is_due_soon() -> None:
    """With patience a short retry is made in the same call."""
    kernel = kernel_on()
    attempts = []

    @kernel.action("flaky.do")
    def flaky() -> str:
        attempts.append(1)
        if len(attempts) == 1:
            raise AutomateError(ErrorCodes.UNAVAILABLE, "try later")
        return "done"

    retry = {"attempts": 2, "delay": 0.02, "jitter": False}
    define(kernel, {"id": "a", "action": "flaky.do", "retry": retry})
    execution = kernel.run("w", patience=10)
    assert execution.status is ExecutionStatus.COMPLETED
    assert execution.steps[0].attempts == 2


def test_a_worker_runs_events_and_executions(kernel: Kernel, posted: list[str]) -> None:
    """A worker of the kernel does all of it, schedules and recovery included."""
    ended, completed = threading.Event(), list[None]()

    def note(sender: Any, **_: Any) -> None:
        # Not by what was posted: the last one may be posted as the one before it completes.
        completed.append(None)
        if len(completed) == 5:
            ended.set()

    with (
        signals.workflow_completed.connected_to(note, sender=kernel),
        working(kernel, retention_seconds=60, slots=4, poll_seconds=1.0) as worker,
    ):
        for n in range(5):
            kernel.emit("order.created", {"total": 101, "lines": [n]})
        assert ended.wait(20)
    assert sorted(posted) == [f"{n} EUR" for n in range(5)]
    assert (worker.stats.completed, worker.stats.failed, worker.stats.lost) == (10, 0, 0)


def test_a_second_handler_or_action_is_refused(kernel: Kernel) -> None:
    """One name means one thing."""
    with pytest.raises(AutomateError, match=EVENT):
        kernel.handler(EVENT)(lambda item: None)
    with pytest.raises(AutomateError, match="chat.post"):
        kernel.action("chat.post")(lambda: None)


class Watcher:
    def __init__(self) -> None:
        self.failed: list[tuple[str, str]] = []

    @hookimpl
    def automate_item_failed(self, item: Any, error: AutomateError) -> None:
        self.failed.append((item.id, str(error)))


def test_what_is_given_up_is_told_once() -> None:
    """Hooks hear of an item that failed for good, after that is committed."""
    kernel, watcher = kernel_on(), Watcher()
    kernel.register(watcher, "hook")

    @kernel.handler("k")
    def handle(item: Any) -> None:
        raise ValueError("no good")

    item_id = kernel.outbox.enqueue("k", max_attempts=1)
    kernel.run_until_idle()
    kernel.run_until_idle()
    assert [one for one, _ in watcher.failed] == [item_id]
    assert "no good" in watcher.failed[0][1]


def test_what_is_given_up_is_told_only_once_it_is_committed() -> None:
    """Asked in the middle of the transaction the kernel waits; after a rollback it says nothing."""
    kernel, watcher = kernel_on(), Watcher()
    kernel.register(watcher, "hook")
    first, second = kernel.outbox.enqueue("k"), kernel.outbox.enqueue("k")
    first_item, second_item = kernel.outbox.claim_batch("w")
    kernel._failures._waiting.append((first_item, float("inf")))
    kernel._failures._waiting.append((second_item, 0.0))
    kernel._failures.send()
    assert watcher.failed == []
    for item_id in (first, second):
        kernel.outbox.mark_failed(item_id, "w", "BAD", "no good")
    kernel._failures._waiting.pop()
    kernel._failures._waiting.pop()
    kernel._failures.send()
    assert [one for one, _ in watcher.failed] == [first]


def test_an_execution_that_is_given_up_has_failed(clock: FakeClock) -> None:
    """An execution whose workers all died is FAILED, and its signal is sent."""
    kernel = kernel_on(MemoryStorage(clock), lease_seconds=10)
    kernel.add_workflow(ORDER)
    execution_id = kernel.start("order-notify")
    heard = []

    def note(sender: Any, execution: Any, error: AutomateError) -> None:
        heard.append((execution.id, execution.status, error.message))

    with signals.workflow_failed.connected_to(note, sender=kernel):
        for _ in range(10):
            kernel.outbox.claim_batch("dies")
            clock.advance(11)
            kernel.outbox.reap()
            clock.advance(86_400)
        kernel.run_until_idle()
    ((told, status, message),) = heard
    assert (told, status) == (execution_id, ExecutionStatus.FAILED)
    assert "given up after 10 attempts" in message


# -- calling ---------------------------------------------------------------------------------------


def test_invoke(kernel: Kernel) -> None:
    """Actions are called by name, plain and async ones from plain and async code."""
    assert kernel.invoke("orders.sum", {"lines": [1, 2]}) == 3
    assert kernel.invoke("chat.post", {"text": "a"}) == {"ts": 1}
    assert asyncio.run(kernel.ainvoke("orders.sum", {"lines": [1, 2]})) == 3
    assert asyncio.run(kernel.ainvoke("chat.post", {"text": "a"})) == {"ts": 2}
    for wrong in ({}, {"lines": "x"}, {"lines": [], "more": 1}):
        with pytest.raises(AutomateError) as caught:
            kernel.invoke("orders.sum", wrong)
        assert caught.value.code is ErrorCodes.INVALID_ARGUMENT
    with pytest.raises(AutomateError, match="chat.post"):
        kernel.invoke("chat.pots")


@pytest.mark.parametrize("style", ["plain", "async"])
def test_invoke_within_a_time(kernel: Kernel, style: str) -> None:
    """A call that takes too long is DEADLINE_EXCEEDED, from plain and async code."""
    go = threading.Event()

    @kernel.action("slow.plain")
    def slow() -> None:
        go.wait(20)

    @kernel.action("slow.async")
    async def aslow() -> None:
        await asyncio.Event().wait()

    calls = [
        lambda: kernel.invoke(f"slow.{style}", timeout=0.02),
        lambda: asyncio.run(kernel.ainvoke(f"slow.{style}", timeout=0.02)),
    ]
    for call in calls[: 1 if style == "plain" else 2]:
        with pytest.raises(AutomateError) as caught:
            call()
        assert caught.value.code is ErrorCodes.DEADLINE_EXCEEDED
    go.set()


def test_a_call_knows_what_it_is_part_of(kernel: Kernel) -> None:
    """An action sees the execution, step, attempt and a key that is the same for every attempt."""
    calls = []

    @kernel.action("seen.do")
    async def seen() -> None:
        calls.append(current_call())
        if len(calls) == 1:
            raise AutomateError(ErrorCodes.UNAVAILABLE)

    retry = {"attempts": 2, "delay": 0, "jitter": False}
    define(kernel, {"id": "a", "action": "seen.do", "retry": retry})
    execution = kernel.run("w")
    first, second = calls
    assert (first.execution_id, first.step_id, first.operation) == (execution.id, "a", "seen.do")
    assert (first.attempt, second.attempt) == (1, 2)
    assert first.idempotency_key == second.idempotency_key


class Objecting:
    @hookimpl
    def automate_before_call(self, call: Any) -> None:
        raise AutomateError(ErrorCodes.PERMISSION_DENIED, "not now")


class Breaking:
    @hookimpl
    def automate_before_call(self, call: Any) -> None:
        raise ValueError("broken")


@pytest.mark.parametrize("hook", [Objecting(), Breaking()])
def test_a_hook_may_refuse_a_call(kernel: Kernel, hook: Any) -> None:
    """Plain and async calls are refused alike, and with an AutomateError in any case."""
    kernel.register(hook, "hook")
    with pytest.raises(AutomateError) as plain:
        kernel.invoke("orders.sum", {"lines": []})
    with pytest.raises(AutomateError) as asynchronous:
        asyncio.run(kernel.ainvoke("orders.sum", {"lines": []}))
    assert plain.value.code is asynchronous.value.code


# -- webhooks --------------------------------------------------------------------------------------


class Hub(Connector):
    key = "hub"
    display_name = "Hub"

    @classmethod
    def triggers(cls) -> list[TriggerSpec]:
        signature = GitHubSignature(secret="HUB")
        return [
            TriggerSpec("push", signature=signature, delivery_id_header="X-Delivery"),
            TriggerSpec("ping", signature=signature, event_name="hub-was-here"),
        ]


WEBHOOK = {
    "name": "on-push",
    "trigger": {"type": "webhook", "connector": "hub", "trigger": "push"},
    "steps": [{"id": "a", "action": "note.do", "input": {"ref": "{{ event.payload.ref }}"}}],
}
BODY = b'{"ref": "main"}'


@pytest.fixture
def hub() -> Iterator[Kernel]:
    with kernel_on(plugins=[Hub], secrets={"HUB": "hush-hush-hush"}) as kernel:
        kernel.refs = []  # type: ignore[attr-defined]

        @kernel.action("note.do")
        def note(ref: str) -> None:
            kernel.refs.append(ref)  # type: ignore[attr-defined]

        kernel.add_workflow(WEBHOOK)
        yield kernel


def signed(body: bytes, **more: str) -> dict[str, str]:
    return {**GitHubSignature(secret="HUB").sign(body, "hush-hush-hush"), **more}


def test_a_webhook_becomes_an_event(hub: Kernel) -> None:
    """One that proves its origin is accepted, and its workflow runs."""
    receipt = hub.receive_webhook("hub", "push", signed(BODY), BODY, tenant_id="t1")
    assert (receipt.accepted, receipt.duplicate) == (True, False)
    hub.run_until_idle()
    (execution,) = hub.executions.find()
    assert (execution.event.id, execution.event.type) == (receipt.item_id, "webhook")
    assert (execution.event.name, execution.event.source) == ("hub.push", "hub")
    assert execution.tenant_id == "t1"
    assert hub.refs == ["main"]  # type: ignore[attr-defined]


def test_a_webhook_with_a_name_of_its_own(hub: Kernel) -> None:
    """Where the connector names the event, workflows listen for it as for any event."""
    trigger = {"type": "event", "event": "hub-was-here"}
    hub.add_workflow({**WEBHOOK, "name": "on-ping", "trigger": trigger})
    hub.receive_webhook("hub", "ping", signed(BODY), BODY)
    hub.run_until_idle()
    (execution,) = hub.executions.find()
    assert (execution.name, execution.event.name) == ("on-ping", "hub-was-here")


def test_the_same_delivery_starts_nothing_again(hub: Kernel) -> None:
    """A delivery that comes again is accepted, and told to be a duplicate, per tenant."""
    headers = signed(BODY, **{"X-Delivery": "d1"})
    first = hub.receive_webhook("hub", "push", headers, BODY)
    again = hub.receive_webhook("hub", "push", headers, BODY)
    assert (again.accepted, again.duplicate, again.item_id) == (True, True, first.item_id)
    other = hub.receive_webhook("hub", "push", headers, BODY, tenant_id="t1")
    assert not other.duplicate
    hub.run_until_idle()
    assert len(hub.executions.find()) == 2


class OtherHub(Hub):
    key = "other-hub"


def test_deliveries_of_two_connectors_have_nothing_in_common(hub: Kernel) -> None:
    """Two services may have chosen the same id for what has nothing to do with each other."""
    hub.plugins.register(OtherHub)
    headers = signed(BODY, **{"X-Delivery": "d1"})
    receipts = [hub.receive_webhook(key, "push", headers, BODY) for key in ("hub", "other-hub")]
    assert [receipt.duplicate for receipt in receipts] == [False, False]
    assert len({receipt.item_id for receipt in receipts}) == 2


@pytest.mark.parametrize(
    ("connector", "trigger", "headers"),
    [
        ("hub", "push", {}),
        ("hub", "push", {"X-Hub-Signature-256": "sha256=" + "0" * 64}),
        ("hub", "unknown", signed(BODY)),
        ("unknown", "push", signed(BODY)),
    ],
)
def test_a_webhook_that_proves_nothing(
    hub: Kernel,
    connector: str,
    trigger: str,
    headers: dict[str, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Forged, unsigned or unknown: the sender is told the same, the log has the reason."""
    with pytest.raises(WebhookRejectedError) as caught:
        hub.receive_webhook(connector, trigger, headers, BODY)
    assert str(caught.value) == "the webhook was refused"
    assert caught.value.__cause__ is None
    assert hub.outbox.find() == []
    assert f"{connector}.{trigger} refused" in caplog.text


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"a": NaN}', b'{"ref": "\\u0000"}'])
def test_a_webhook_with_a_bad_body(hub: Kernel, body: bytes) -> None:
    """A body that can't be read or stored is INVALID_ARGUMENT, and its delivery may come again."""
    headers = signed(body, **{"X-Delivery": "d1"})
    for _ in range(2):
        with pytest.raises(AutomateError) as caught:
            hub.receive_webhook("hub", "push", headers, body)
        assert caught.value.code is ErrorCodes.INVALID_ARGUMENT
    good = signed(BODY, **{"X-Delivery": "d1"})
    assert not hub.receive_webhook("hub", "push", good, BODY).duplicate


def test_a_webhook_in_the_hosts_transaction(sqlite_engine: sa.Engine) -> None:
    """A rollback forgets the delivery with the event, so that it may come again."""
    kernel = kernel_on(
        SqlAlchemyStorage(sqlite_engine), plugins=[Hub], secrets={"HUB": "hush-hush-hush"}
    )
    headers = signed(BODY, **{"X-Delivery": "d1"})
    with Session(sqlite_engine) as session:
        kernel.receive_webhook("hub", "push", headers, BODY, transaction=session)
        session.rollback()
    assert not kernel.receive_webhook("hub", "push", headers, BODY).duplicate
    assert kernel.receive_webhook("hub", "push", headers, BODY).duplicate


# -- secrets ---------------------------------------------------------------------------------------

SECRET = "qz7-Unfindable/Value+91"


class Leaky(Connector):
    """Does with its secret whatever it should not."""

    key = "leaky"
    display_name = "Leaky"

    def _tell(self, token: str) -> str:
        self.ctx.logger.warning("token is %s", token)
        return token

    @action
    def echo(self, token: str) -> dict[str, Any]:
        return {"token": self._tell(token), token: [f"Bearer {token}"]}

    @action
    def fail(self, token: str) -> None:
        raise AutomateError(ErrorCodes.UNAUTHENTICATED, f"bad token {self._tell(token)}")

    @action
    async def crash(self, token: str) -> None:
        try:
            raise KeyError(token)
        except KeyError:
            raise ValueError(f"https://host/?token={token}") from None

    @action
    def exit(self, token: str) -> None:
        raise SystemExit(f"bye {token}")


def leaking_steps() -> list[dict[str, Any]]:
    given = {"token": "{{ secrets.TOKEN }}"}
    return [
        {"id": name, "action": f"leaky.{name}", "input": given, "on_failure": "continue"}
        for name in ("echo", "fail", "crash")
    ]


def test_a_secret_is_nowhere_to_be_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Not in rows, in the database's file, in logs, in signals or in errors, whatever fails."""
    from automate_sqlalchemy import metadata

    caplog.set_level(logging.DEBUG)
    file = tmp_path / "automate.sqlite3"
    engine = sa.create_engine(f"sqlite:///{file}")
    metadata.create_all(engine)
    kernel = kernel_on(SqlAlchemyStorage(engine), plugins=[Leaky], secrets={"TOKEN": SECRET})
    heard: list[str] = []

    def note(sender: Any, **arguments: Any) -> None:
        heard.append(repr(arguments) + str(arguments.get("error")))

    steps = leaking_steps()
    undo = {"id": "undo", "action": "leaky.exit", "input": {"token": "x $secret:TOKEN y"}}
    last = {"id": "last", "action": "leaky.fail", "input": {"token": "$secret:TOKEN"}}
    define(kernel, *steps, last, on_failure=[undo], output="{{ steps.echo.output }}")
    errors = []
    for signal in signals.ALL_SIGNALS:
        signal.connect(note, sender=kernel)
    try:
        execution = kernel.run("w", patience=0)
        for name in ("fail", "crash"):
            with pytest.raises(AutomateError) as caught:
                kernel.invoke(f"leaky.{name}", {"token": "$secret:TOKEN"})
            errors.append(_all_of(caught.value))
            with pytest.raises(AutomateError) as caught:
                asyncio.run(kernel.ainvoke(f"leaky.{name}", {"token": "$secret:TOKEN"}))
            errors.append(_all_of(caught.value))
        output = kernel.invoke("leaky.echo", {"token": "$secret:TOKEN"})
    finally:
        for signal in signals.ALL_SIGNALS:
            signal.disconnect(note, sender=kernel)
    kernel.close()
    engine.dispose()
    items = repr([(one.payload, one.last_error) for one in kernel.outbox.find()])
    seen = "\n".join(
        [caplog.text, repr(kernel), repr(execution), items, *heard, *errors, json.dumps(output)]
    )
    assert execution.step("echo").status is StepStatus.COMPLETED  # type: ignore[union-attr]
    assert len(heard) > 8
    assert "token is [secret]" in caplog.text
    assert "[secret]" in seen
    engine.dispose()
    stored = b"".join(one.read_bytes() for one in tmp_path.iterdir())
    assert b"leaky" in stored
    for text in (SECRET, SECRET[4:16], "Unfindable"):
        assert text not in seen
        assert text.encode() not in stored


def _all_of(error: BaseException) -> str:
    """Everything that a traceback, or a logger, would show of an error."""
    import traceback

    return "".join(traceback.format_exception(error)) + repr(error) + repr(error.__dict__)


def test_no_error_keeps_a_secret_alive_by_its_traceback(kernel: Kernel) -> None:
    """What is raised to the host has no cause whose text or frames hold the value."""
    kernel_ = kernel_on(plugins=[Leaky], secrets={"TOKEN": SECRET})
    with pytest.raises(AutomateError) as caught:
        kernel_.invoke("leaky.crash", {"token": "$secret:TOKEN"})
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    gc.collect()


def test_a_missing_secret_names_its_key(kernel: Kernel) -> None:
    """The error says which secret is missing, and the step has failed."""
    define(kernel, {"id": "a", "action": "chat.post", "input": {"text": "$secret:GONE"}})
    execution = kernel.run("w")
    assert execution.status is ExecutionStatus.FAILED
    assert "GONE" in (execution.error or "")


def test_a_storage_without_tables_says_so(tmp_path: Path) -> None:
    """The first use of a database that has no tables is an error with its remedy."""
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'empty.sqlite3'}")
    kernel = kernel_on(SqlAlchemyStorage(engine))
    with pytest.raises(StorageError, match="create"):
        kernel.emit("a")
    engine.dispose()


def test_a_handler_declares_its_limit() -> None:
    """All of it, once a worker begins."""
    kernel = kernel_on()
    kernel.handler("mail", concurrency=3, rate=5, per_seconds=60, burst=2)(lambda item: None)
    kernel.run_until_idle()
    (limit,) = kernel.outbox.limits()
    assert (limit.kind, limit.concurrency, limit.rate) == ("mail", 3, 5)
    assert (limit.per_seconds, limit.burst, limit.declared) == (60, 2, True)


def test_workflow_files_may_use_the_filters_of_a_plugin(tmp_path: Path) -> None:
    """The hook that makes them is called before the files are read."""

    class Plugin:
        @hookimpl
        def automate_configure(self, kernel: Kernel) -> None:
            kernel.filter("shout")(str.upper)

    file = tmp_path / "loud.json"
    step = {"id": "say", "action": "say", "input": {"text": "{{ event.payload | shout }}"}}
    file.write_text(json.dumps({"name": "loud", "trigger": {"type": "manual"}, "steps": [step]}))
    kernel = kernel_on(listed={"hook": [Plugin]}, workflows=[file])
    assert [workflow.name for workflow in kernel.workflows] == ["loud"]


@pytest.mark.parametrize("error", [SystemExit("3"), ValueError("no colour")])
def test_a_hook_that_fails_to_configure_is_named(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """With its remedy; one that ends the process would end it without a word."""

    class Plugin:
        @hookimpl
        def automate_configure(self, kernel: Kernel) -> None:
            raise error

    with pytest.raises(PluginError if isinstance(error, SystemExit) else ValueError) as raised:
        kernel_on(listed={"hook": {"loud": Plugin}})
    said = f"{raised.value} {caplog.text}"
    assert "hook 'loud' failed in automate_configure: " in said
    assert "disabled=['hook:loud']" in said


@pytest.mark.parametrize("method", ["emit", "invoke", "start", "sweep", "__init__"])
def test_a_misspelt_option_names_the_kernel(method):
    """Python's own words name a class that the caller knows."""
    kernel = Kernel(discover=False, secrets={})
    with pytest.raises(TypeError, match=rf"^Kernel\.{method}\(\) got an unexpected keyword"):
        getattr(kernel, method)(tenant="a")


def test_the_if_of_a_manual_trigger() -> None:
    """It refuses a start by name, and not the start for an event of another type."""
    with Kernel(discover=False, secrets={}) as kernel:
        kernel.action("do.it")(lambda: 7)
        define(
            kernel,
            {"id": "a", "action": "do.it"},
            trigger={"type": "manual", "if": "{{ event.payload.n > 1 }}"},
        )
        assert kernel.run("w", {"n": 2}).status is ExecutionStatus.COMPLETED
        for begin in (kernel.run, kernel.start):
            with pytest.raises(AutomateError, match="the if of its manual trigger") as caught:
                begin("w", {"n": 1})
            assert caught.value.code is ErrorCodes.FAILED_PRECONDITION
        assert kernel.start("w", event=Event(id=EVENT_ID, name="order.created"))
        assert len(kernel.executions.find()) == 2


def test_an_execution_keeps_the_definition_that_it_began_with(posted: list[str]) -> None:
    """A process with a newer workflow finishes what began with the older one."""
    storage = MemoryStorage()
    old, new = kernel_on(storage), kernel_on(storage)
    for kernel in (old, new):
        add_actions(kernel, posted)
    old.add_workflow(ORDER)
    steps = [ORDER["steps"][0], {**ORDER["steps"][1], "input": {"text": "new"}}]
    new.add_workflow({**ORDER, "steps": steps})
    old.start("order-notify", {"lines": [7]})
    new.run_until_idle()
    assert posted == ["7 EUR"]


def test_emit_and_aemit_take_the_same(kernel: Kernel) -> None:
    """Whatever one of them takes, the other does, labels among it."""
    assert inspect.signature(Kernel.emit).parameters == inspect.signature(Kernel.aemit).parameters
    item_id = asyncio.run(kernel.aemit("e", labels={"order": 4711}))
    item = kernel.outbox.get(item_id)
    assert item is not None
    assert item.labels == {"order": "4711"}


def twins(owner):
    """Each pair of a plain function and its asynchronous twin."""
    for name, function in vars(owner).items():
        twin = getattr(owner, f"a{name}", None)
        if inspect.isfunction(function) and inspect.iscoroutinefunction(twin):
            yield function, twin


def test_a_call_and_its_asynchronous_twin_take_the_same():
    """What the one refuses or means, the other does too."""
    found = list(twins(Kernel))
    assert {function.__name__ for function, _ in found} >= {"emit", "invoke"}
    for function, twin in found:
        assert inspect.signature(function) == inspect.signature(twin)
        kinds = {parameter.kind for parameter in inspect.signature(twin).parameters.values()}
        assert inspect.Parameter.VAR_KEYWORD not in kinds
