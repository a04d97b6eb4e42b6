"""Traces and metrics, as an exporter of OpenTelemetry's SDK gets them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from automate_kernel import AutomateError, ErrorCodes, Kernel
from automate_kernel.outbox import NewItem
from automate_kernel.plugins.hooks import hookimpl
from automate_kernel.operations.executors import Executors, Placement
from automate_kernel.operations.task_worker import TaskWorker
from automate_testing.memory_executor import MemoryBroker, MemoryExecutor
from automate_kernel.storage import MemoryStorage, Storage
from automate_kernel.workflows.definition.model import Workflow
from automate_kernel.monitoring.opentelemetry import BoundedNames, instrument
from automate_kernel.outbox.statistics import MOST_NAMES, OTHERS
from automate_sqlalchemy import SqlAlchemyStorage
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from defined import define

WORKFLOW = {
    "name": "greet",
    "trigger": {"type": "event", "event": "user.new"},
    "steps": [
        {"id": "look", "action": "users.look", "input": {"name": "{{ event.payload.name }}"}},
        {
            "id": "left",
            "action": "users.greet",
            "input": {"token": "$secret:TOKEN"},
            "needs": ["look"],
        },
        {"id": "right", "action": "users.greet", "input": {"token": "x"}, "needs": ["look"]},
    ],
}


def add_actions(kernel: Kernel) -> None:
    @kernel.action("users.look")
    def look(name: str) -> dict[str, str]:
        return {"name": name}

    @kernel.action("users.greet")
    def greet(token: str) -> dict[str, str]:
        return {"echo": token}


class Traced:
    """A kernel, and what it tells the exporters."""

    def __init__(self, storage: Storage) -> None:
        self.spans = InMemorySpanExporter()
        self.metrics = InMemoryMetricReader()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.spans))
        self.tracer = provider.get_tracer("test")
        self.kernel = Kernel(storage, discover=False, secrets={"TOKEN": "hunter2-hunter2"})
        self.providers = (provider, MeterProvider([self.metrics]))
        instrument(self.kernel, *self.providers)

    def named(self, name: str) -> ReadableSpan:
        (found,) = [span for span in self.spans.get_finished_spans() if span.name == name]
        return found

    def names(self) -> list[str]:
        return [span.name for span in self.spans.get_finished_spans()]

    def points(self, name: str) -> list[Any]:
        data = self.metrics.get_metrics_data()
        assert data is not None
        return [
            point
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]


@pytest.fixture(params=["memory", "sqlalchemy"])
def traced(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Traced]:
    if request.param == "memory":
        yield Traced(MemoryStorage())
        return
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'automate.sqlite3'}")
    storage = SqlAlchemyStorage(engine)
    storage.create_tables()
    yield Traced(storage)
    engine.dispose()


def parent_of(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def test_an_event_leads_to_spans_in_the_trace_that_emitted_it(traced: Traced) -> None:
    """From the host's span through the outbox to the execution and each step, parallel ones too."""
    kernel = traced.kernel
    add_actions(kernel)
    kernel.add_workflow(WORKFLOW)
    with traced.tracer.start_as_current_span("POST /users") as host:
        kernel.emit("user.new", {"name": "Ada Lovelace"})
    kernel.run_until_idle()
    spans = traced.spans.get_finished_spans()
    assert {span.context.trace_id for span in spans} == {host.get_span_context().trace_id}
    chain = [
        "enqueue automate.event", "process automate.event", "enqueue automate.advance",
        "process automate.advance", "execute greet",
    ]  # fmt: skip
    above = host.get_span_context().span_id
    for name in chain:
        assert parent_of(traced.named(name)) == above, name
        above = traced.named(name).context.span_id
    calls = [span for span in spans if span.name.startswith("call ")]
    assert {span.attributes["automate.step.id"] for span in calls} == {"look", "left", "right"}
    assert {parent_of(span) for span in calls} == {above}
    execution = traced.named("execute greet")
    assert execution.attributes["automate.execution.status"] == "COMPLETED"
    assert (
        calls[0].attributes["automate.execution.id"]
        == execution.attributes["automate.execution.id"]
    )
    told = "".join(span.to_json() for span in spans)
    assert "hunter2" not in told, "what a secret resolves to is in no span"
    assert "Lovelace" not in told, "nor is what an event holds"


def test_kinds_and_attributes_follow_the_conventions(traced: Traced) -> None:
    """Names that a backend for traces knows what to do with."""
    kernel = traced.kernel
    kernel.handler("mail.send")(lambda item: None)
    item_id = kernel.outbox.enqueue("mail.send")
    kernel.run_until_idle()
    sent, processed = traced.named("enqueue mail.send"), traced.named("process mail.send")
    assert (sent.kind, processed.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    assert dict(sent.attributes) == {
        "messaging.system": "automate",
        "messaging.destination.name": "mail.send",
        "messaging.operation.name": "enqueue",
        "messaging.operation.type": "create",
    }
    about = dict(processed.attributes)
    assert about.pop("messaging.client.id")
    assert about == {
        "messaging.system": "automate",
        "messaging.destination.name": "mail.send",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.message.id": item_id,
        "automate.attempt": 1,
    }


def test_a_handlers_own_spans_are_inside(traced: Traced) -> None:
    """``def`` and ``async def`` handlers alike run in the span of their item."""

    def plain(item: Any) -> None:
        with traced.tracer.start_as_current_span("inner"):
            pass

    async def waits(item: Any) -> None:
        await asyncio.sleep(0)
        with traced.tracer.start_as_current_span("ainner"):
            pass

    traced.kernel.handler("plain")(plain)
    traced.kernel.handler("waits")(waits)
    traced.kernel.outbox.enqueue_many([NewItem("plain"), NewItem("waits")])
    traced.kernel.run_until_idle()
    assert parent_of(traced.named("inner")) == traced.named("process plain").context.span_id
    assert parent_of(traced.named("ainner")) == traced.named("process waits").context.span_id


def test_failures_are_told_by_code_and_without_text(traced: Traced) -> None:
    """An error's text may hold anything, so it is in no span."""
    kernel = traced.kernel

    def breaks(item: Any) -> None:
        raise ValueError("hunter2 is in here")

    def look(name: str) -> None:
        raise AutomateError(ErrorCodes.NOT_FOUND, f"nobody is called {name}")

    kernel.handler("breaks")(breaks)
    kernel.action("users.look")(look)
    kernel.add_workflow({**WORKFLOW, "steps": WORKFLOW["steps"][:1]})
    kernel.outbox.enqueue("breaks", {"password": "hunter2"}, max_attempts=1)
    kernel.emit("user.new", {"name": "Ada Lovelace"})
    kernel.run_until_idle()
    for name, code in (
        ("process breaks", "ValueError"),
        ("call users.look", "NOT_FOUND"),
        ("execute greet", "NOT_FOUND"),
    ):
        span = traced.named(name)
        assert span.status.status_code is StatusCode.ERROR
        assert span.attributes["error.type"] == code
        assert not span.events
    told = "".join(span.to_json() for span in traced.spans.get_finished_spans())
    assert "hunter2" not in told
    assert "Lovelace" not in told


def test_headers_of_the_caller_are_kept(traced: Traced) -> None:
    """A trace context that the caller brings wins over the current one."""
    theirs = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    traced.kernel.handler("k")(lambda item: None)
    traced.kernel.outbox.enqueue("k", headers={"traceparent": theirs, "more": 1})
    (item,) = traced.kernel.outbox.find()
    assert item.headers == {"traceparent": theirs, "more": 1}
    traced.kernel.run_until_idle()
    processed = traced.named("process k")
    assert f"{processed.context.trace_id:032x}" == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert f"{processed.parent.span_id:016x}" == "00f067aa0ba902b7"


@pytest.mark.parametrize("header", ["nonsense", 7, None, "00-0-0-00"])
def test_a_header_that_is_no_trace_context_begins_a_trace(traced: Traced, header: Any) -> None:
    """Whatever stands in the headers, the item is handled."""
    traced.kernel.handler("k")(lambda item: None)
    traced.kernel.outbox.enqueue("k", headers={"traceparent": header})
    assert traced.kernel.run_until_idle().completed == 1
    assert traced.named("process k").parent is None


def test_a_batch_is_one_span(traced: Traced) -> None:
    """Enqueueing a thousand items makes no thousand spans."""
    traced.kernel.outbox.enqueue_many([NewItem("k")] * 1000)
    assert traced.names() == ["enqueue k"]
    assert traced.named("enqueue k").attributes["messaging.batch.message_count"] == 1000
    (point,) = traced.points("messaging.client.sent.messages")
    assert point.value == 1000


def test_metrics(traced: Traced) -> None:
    """What was sent, processed and called, and how the outbox stands."""
    kernel = traced.kernel

    def breaks(item: Any) -> None:
        raise ValueError

    kernel.handler("good")(lambda item: None)
    kernel.handler("bad")(breaks)
    kernel.action("users.look")(lambda: 1)
    kernel.outbox.enqueue_many([NewItem("good"), NewItem("good"), NewItem("bad", max_attempts=1)])
    kernel.run_until_idle()
    kernel.invoke("users.look")
    consumed = {
        (p.attributes["messaging.destination.name"], p.attributes.get("error.type")): p.value
        for p in traced.points("messaging.client.consumed.messages")
    }
    assert consumed == {("good", None): 2, ("bad", "ValueError"): 1}
    assert sum(p.count for p in traced.points("messaging.process.duration")) == 3
    assert [p.count for p in traced.points("automate.call.duration")] == [1]
    items = {
        (p.attributes["messaging.destination.name"], p.attributes["automate.status"]): p.value
        for p in traced.points("automate.outbox.items")
        if p.value
    }
    assert items == {("good", "COMPLETED"): 2, ("bad", "FAILED"): 1}
    assert [p.value for p in traced.points("automate.outbox.oldest_due")] == [0]


def test_executions_and_steps_are_measured(traced: Traced) -> None:
    """By workflow and outcome, with durations; and those that stand are counted."""
    kernel = traced.kernel
    add_actions(kernel)
    kernel.add_workflow(WORKFLOW)
    broken = {
        "name": "broken", "trigger": {"type": "manual"},
        "steps": [{"id": "only", "action": "test.broken"}],
    }  # fmt: skip

    @kernel.action("test.broken")
    def fail() -> None:
        raise ValueError

    kernel.add_workflow(Workflow.model_validate(broken))
    kernel.emit("user.new", {"name": "Ada Lovelace"})
    kernel.start("broken")
    kernel.run_until_idle()
    ended = {
        (point.attributes["automate.workflow"], point.attributes["automate.outcome"]): point.count
        for point in traced.points("automate.execution.duration")
    }
    assert ended == {("greet", "completed"): 1, ("broken", "failed"): 1}
    (failed,) = [
        point
        for point in traced.points("automate.step.duration")
        if point.attributes["automate.outcome"] == "failed"
    ]
    assert failed.attributes["automate.step.id"] == "only"
    assert failed.attributes["error.type"]
    standing = [
        point for point in traced.points("automate.executions")
        if point.attributes == {"automate.workflow": "broken", "automate.status": "FAILED"}
    ]  # fmt: skip
    assert [point.value for point in standing] == [1]


def test_the_page_names_what_is_exported(traced: Traced) -> None:
    """Every metric and every attribute of the kernel's own, and no other."""
    kernel = traced.kernel

    @kernel.action("users.fail")
    def fail() -> None:
        raise AutomateError(ErrorCodes.UNAVAILABLE, "no")

    step = {"id": "a", "action": "users.fail", "retry": {"attempts": 2, "delay": 0}}
    kernel.add_workflow({"name": "broken", "trigger": {"type": "manual"}, "steps": [step]})
    kernel.run("broken")
    names = {key for span in traced.spans.get_finished_spans() for key in span.attributes or ()}
    data = traced.metrics.get_metrics_data()
    assert data is not None
    for metric in data.resource_metrics[0].scope_metrics[0].metrics:
        names.add(metric.name)
        names.update(key for point in metric.data.data_points for key in point.attributes)
    page = Path(__file__).parents[2].joinpath("docs/howto/observe.md").read_text()
    section = page[page.index("## Traces") :]
    written = set(re.findall(r"`((?:automate|error)\.[a-z_.]+)`", section))
    assert written == {name for name in names if not name.startswith("messaging.")}


def test_a_second_call_changes_nothing(traced: Traced) -> None:
    """Instrumenting twice makes no double spans."""
    assert instrument(traced.kernel) is instrument(traced.kernel, *traced.providers)
    traced.kernel.outbox.enqueue("k")
    assert traced.names() == ["enqueue k"]


def test_a_call_that_a_hook_refuses_leaves_no_open_span(traced: Traced) -> None:
    """The span of a refused call ends, and what follows is not inside it."""

    class Refusing:
        @hookimpl
        def automate_before_call(self, call: Any, input: Any) -> None:
            if call.operation == "refused":
                raise AutomateError(ErrorCodes.UNAVAILABLE, "quiet hours")

    kernel = traced.kernel
    kernel.register(Refusing(), "hook", key="refusing")
    kernel.action("refused")(lambda: 1)
    kernel.action("allowed")(lambda: 1)
    with pytest.raises(AutomateError):
        kernel.invoke("refused")
    kernel.invoke("allowed")
    assert traced.named("call refused").attributes["error.type"] == "UNAVAILABLE"
    assert traced.named("call allowed").parent is None


def test_a_cancelled_call_ends_its_span(traced: Traced) -> None:
    """An asynchronous call that is cancelled is told as that."""

    async def endless() -> None:
        await asyncio.Event().wait()

    traced.kernel.action("endless")(endless)

    async def host() -> None:
        call = asyncio.create_task(traced.kernel.ainvoke("endless"))
        await asyncio.sleep(0.05)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(host())
    assert traced.named("call endless").attributes["error.type"] == "CANCELLED"


def test_a_call_elsewhere_is_in_the_trace_of_its_host(traced: Traced) -> None:
    """The remote's span is below that of the host's call."""
    broker, remote = MemoryBroker(), Kernel(discover=False)
    gpu = Placement("gpu", MemoryExecutor(broker))
    traced.kernel.operations.executors = Executors({"gpu": gpu})
    instrument(remote, *traced.providers)
    add_actions(remote)

    async def host() -> None:
        stopping, tasks = asyncio.Event(), TaskWorker(remote.operations)
        serving = asyncio.ensure_future(
            MemoryExecutor(broker).serve(tasks.perform, slots=1, stopping=stopping, name="r")
        )
        with traced.tracer.start_as_current_span("POST /users"):
            await traced.kernel.ainvoke("users.look", {"name": "Ada"}, runs_on="gpu")
        stopping.set()
        await serving

    asyncio.run(host())
    theirs, ours = (
        span for span in traced.spans.get_finished_spans() if span.name == "call users.look"
    )
    assert parent_of(theirs) == ours.context.span_id
    assert parent_of(ours) == traced.named("POST /users").context.span_id
    remote.close()


def test_a_broken_receiver_fails_no_item(caplog: pytest.LogCaptureFixture) -> None:
    """What goes wrong in a hook around handlers is logged, and the item is done."""

    class Broken:
        @hookimpl
        def automate_handling(self, item: Any) -> Any:
            return self

        @hookimpl
        def automate_before_enqueue(self, items: Any) -> None:
            raise ZeroDivisionError

        def __enter__(self) -> None:
            raise ZeroDivisionError

        def __exit__(self, *exc: object) -> None:
            raise ZeroDivisionError

    kernel = Kernel(discover=False, plugins=[])
    kernel.register(Broken(), "hook", key="broken")
    kernel.handler("k")(lambda item: None)
    kernel.outbox.enqueue("k")
    assert kernel.run_until_idle().completed == 1
    assert "ZeroDivisionError" in caplog.text


def test_one_trace_spans_an_execution_over_workers_waits_and_sub_workflows(
    traced: Traced,
) -> None:
    """From the start through steps, a sleep, a signal and a sub-workflow, whoever makes them."""
    child = {
        "name": "child", "trigger": {"type": "manual"},
        "steps": [{"id": "greet", "action": "users.greet", "input": {"token": "y"}}],
    }  # fmt: skip
    parent = {
        "name": "parent", "trigger": {"type": "manual"},
        "steps": [
            {"id": "before", "action": "users.look", "input": {"name": "a"}},
            {"id": "pause", "sleep": "30ms"},
            {"id": "ask", "wait_for": {"signal": "go"}},
            {"id": "sub", "workflow": "child"},
            {"id": "after", "action": "users.look", "input": {"name": "b"}},
        ],
    }  # fmt: skip

    def kernel_of_worker() -> Kernel:
        kernel = Kernel(traced.kernel.storage, discover=False, secrets={"TOKEN": "x" * 20})
        add_actions(kernel)
        kernel.add_workflow(child)
        kernel.add_workflow(parent)
        instrument(kernel, *traced.providers)
        return kernel

    first, second = kernel_of_worker(), kernel_of_worker()
    with traced.tracer.start_as_current_span("POST /orders") as host:
        one = first.start("parent")
    first.run_until_idle(patience=5)
    second.signal(one, "go")
    second.run_until_idle(patience=5)
    execution = second.executions.get(one)
    assert execution is not None
    assert str(execution.status) == "COMPLETED"
    assert len({each.worker_id for each in second.executions.attempts(one)}) > 1
    trace_id = host.get_span_context().trace_id
    of_it = [s.name for s in traced.spans.get_finished_spans() if s.context.trace_id == trace_id]
    assert of_it.count("call users.look") == 2
    assert of_it.count("call users.greet") == 1
    assert of_it.count("execute parent") >= 3
    assert of_it.count("execute child") == 1
    others = {
        span.name for span in traced.spans.get_finished_spans() if span.context.trace_id != trace_id
    }
    # Whoever sent the signal has a trace of his own.
    assert others <= {"enqueue automate.signal", "process automate.signal"}


def test_starts_retries_cancellations_and_waiting_steps_are_measured(traced: Traced) -> None:
    kernel = traced.kernel
    failed: list[int] = []

    @kernel.action("test.flaky")
    def flaky() -> None:
        if len(failed) < 2:
            failed.append(1)
            raise ConnectionError

    again = {"id": "a", "action": "test.flaky", "retry": {"attempts": 3, "delay": 0}}
    define(kernel, again, {"id": "ask", "wait_for": {"signal": "go"}}, name="flaky")
    one = kernel.start("flaky")
    kernel.run_until_idle(patience=5)
    (started,) = traced.points("automate.executions.started")
    assert (started.attributes, started.value) == ({"automate.workflow": "flaky"}, 1)
    (retried,) = traced.points("automate.call.retries")
    assert (retried.attributes, retried.value) == ({"automate.operation": "test.flaky"}, 2)
    waiting = {
        point.attributes["automate.reason"]: point.value
        for point in traced.points("automate.waiting.steps")
    }
    assert waiting == {"event": 0, "signal": 1, "approval": 0, "workflow": 0, "task": 0}
    kernel.executions.cancel(one)
    (ended,) = traced.points("automate.execution.duration")
    assert ended.attributes["automate.outcome"] == "cancelled"


def test_names_in_metrics_are_bounded() -> None:
    """A workflow in code may give its steps any name."""
    names = BoundedNames(most=2)
    kept = [names.kept("step", f"s{number}") for number in range(2 * MOST_NAMES)]
    assert kept[: MOST_NAMES + 1] == [*(f"s{number}" for number in range(MOST_NAMES)), OTHERS]
    assert set(kept[MOST_NAMES:]) == {OTHERS}
    assert names.kept("step", "s0") == "s0"
    assert names.kept("workflow", "a") == "a"
    assert names.kept("one more", "a") == OTHERS
