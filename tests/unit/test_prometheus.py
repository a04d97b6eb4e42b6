"""The page that Prometheus reads."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from automate_kernel import (
    AutomateError,
    Connector,
    ErrorCodes,
    Kernel,
    StorageError,
    PollResult,
    TriggerSpec,
    poll,
)
from automate_kernel.base.errors import SecretNotFoundError, WebhookRejectedError
from automate_kernel.triggers.webhooks import GitHubSignature
from automate_kernel.outbox import ItemStatus, NewItem, WorkerInfo
from automate_kernel.worker.reporter import ActivityLog
from automate_kernel.worker.in_flight import Task
from automate_kernel.outbox.item import Outcome
from automate_kernel.storage import MemoryStorage
from automate_kernel.http.app import metrics_app
from automate_kernel.monitoring.prometheus import Exporter
from automate_testing.clock import FakeClock
from automate_kernel.workflows.store.catalogue import SuppliedWorkflow
from defined import define

SAMPLE = re.compile(r'^([a-z_]+)(\{(?:[a-z_]+="(?:[^"\\\n]|\\.)*",?)+\})? (-?[0-9.e+]+)$')


@pytest.fixture
def kernel(clock: FakeClock) -> Kernel:
    return Kernel(MemoryStorage(clock), discover=False)


def samples(page: str) -> dict[str, float]:
    """Every sample, after the page is checked to be in the format."""
    found: dict[str, float] = {}
    typed: set[str] = set()
    assert page.endswith("\n")
    for line in page.splitlines():
        if line.startswith("# TYPE "):
            name, type_ = line.split()[2:]
            assert type_ in ("gauge", "counter", "histogram")
            assert name not in typed
            typed.add(name)
        elif not line.startswith("# HELP "):
            match = SAMPLE.match(line)
            assert match is not None, line
            family = re.sub("_(bucket|sum|count)$", "", match[1])
            assert family in typed or match[1] in typed, line
            assert match[1] + (match[2] or "") not in found, line
            found[match[1] + (match[2] or "")] = float(match[3])
    return found


def work(kernel: Kernel, log: ActivityLog, kind: str, seconds: float, **outcome: Any) -> None:
    kernel.outbox.enqueue(kind)
    (item,) = kernel.outbox.claim_batch("worker", kinds=[kind])
    task = Task(item, 1.0)
    task.started_at, task.ended_at = 1.0, 1.0 + seconds
    log.add([(task, Outcome(item.id, **outcome))], ())
    kernel.outbox.acknowledge("worker", [Outcome(item.id, **outcome)])
    kernel.outbox.report(WorkerInfo("worker", "host", 7, None, None, (kind,), 10, 3), log)


def test_items_lateness_and_pauses(kernel: Kernel, clock: FakeClock) -> None:
    """What is in the outbox now."""
    kernel.outbox.enqueue_many([NewItem("mail.send"), NewItem("mail.send"), NewItem("quick")])
    kernel.outbox.cancel([kernel.outbox.enqueue("mail.send")])
    kernel.outbox.pause("quick")
    clock.advance(12.5)
    found = samples(Exporter(kernel).render())
    assert found['automate_outbox_items{kind="mail.send",status="PENDING"}'] == 2
    assert found['automate_outbox_items{kind="mail.send",status="CANCELLED"}'] == 1
    assert found['automate_outbox_items{kind="mail.send",status="FAILED"}'] == 0
    assert found["automate_outbox_oldest_due_seconds"] == 12.5
    assert found['automate_outbox_paused{kind="quick"}'] == 1
    assert found["automate_up"] == 1


@pytest.mark.usefixtures("always_counted")
def test_counters_count_from_the_first_page_on(kernel: Kernel) -> None:
    """They are there with 0 before anything happens, and only ever grow."""
    exporter, log = Exporter(kernel), ActivityLog()
    work(kernel, log, "k", 0.1)
    first = samples(exporter.render())
    assert first['automate_outbox_completed_total{kind="k"}'] == 0
    assert first['automate_outbox_run_seconds_count{kind="k"}'] == 0
    for _ in range(3):
        work(kernel, log, "k", 0.3)
    work(kernel, log, "k", 30, status=ItemStatus.FAILED)
    found = samples(exporter.render())
    assert found['automate_outbox_completed_total{kind="k"}'] == 3
    assert found['automate_outbox_failed_total{kind="k"}'] == 1
    assert samples(exporter.render()) == found


def test_histograms_are_cumulative(kernel: Kernel) -> None:
    """Each bucket holds those below it too, and the last one all."""
    exporter, log = Exporter(kernel), ActivityLog()
    exporter.render()
    for seconds in (0.0004, 0.03, 0.03, 0.3, 9000.0):
        work(kernel, log, "k", seconds)
    found = samples(exporter.render())
    buckets = {
        match[1]: value
        for name, value in found.items()
        if (match := re.match(r'automate_outbox_run_seconds_bucket{kind="k",le="(.+)"}', name))
    }
    assert list(buckets.values()) == sorted(buckets.values())
    bounds = ["0.001", "0.05", "0.5", "100", "+Inf"]
    assert [buckets[each] for each in bounds] == [1, 3, 4, 4, 5]
    assert found['automate_outbox_run_seconds_sum{kind="k"}'] == pytest.approx(9000.3604)
    assert found['automate_outbox_run_seconds_count{kind="k"}'] == 5


def test_workers(kernel: Kernel, clock: FakeClock) -> None:
    """How many there are in each state, and what they hold."""

    def report(name: str, **about: Any) -> None:
        info = WorkerInfo(name, "host", 7, None, None, ("k",), 10, 4, **about)
        kernel.outbox.report(info, ActivityLog())

    report("dead")
    clock.advance(3600)
    report("one")
    report("two", stopping=True)
    found = samples(Exporter(kernel).render())
    states = ("running", "stopping", "lost")
    assert [found[f'automate_workers{{state="{state}"}}'] for state in states] == [1, 1, 1]
    assert found["automate_worker_slots"] == 20
    assert found["automate_worker_in_flight"] == 8


def test_labels_are_escaped(kernel: Kernel) -> None:
    """A kind may hold any character."""
    kernel.outbox.enqueue('a "kind"\\ with\na line')
    page = Exporter(kernel).render()
    assert r'kind="a \"kind\"\\ with\na line"' in page
    samples(page)


def test_a_database_that_is_down_is_told_of(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As a 0, beside nothing that might be old, and without its secrets in the log."""
    exporter = Exporter(kernel)
    exporter.render()
    kernel.redactor.add("hunter2-hunter2")

    def down(**options: Any) -> Any:
        raise StorageError("can't connect as hunter2-hunter2")

    monkeypatch.setattr(kernel.outbox, "activity", down)
    assert samples(exporter.render()) == {"automate_up": 0}
    assert "can't connect" in caplog.text
    assert "hunter2" not in caplog.text
    monkeypatch.undo()
    assert samples(exporter.render())["automate_up"] == 1


def asked(app: Any, method: str) -> tuple[int, dict[bytes, bytes], bytes]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    asyncio.run(app({"type": "http", "method": method, "path": "/"}, receive, send))
    start, body = sent
    return start["status"], dict(start["headers"]), body["body"]


def test_asgi(kernel: Kernel) -> None:
    """The same page, in whatever application it is mounted."""
    app = metrics_app(kernel)
    status, headers, body = asked(app, "GET")
    assert status == 200
    assert headers[b"content-type"].startswith(b"text/plain; version=0.0.4")
    assert samples(body.decode())["automate_up"] == 1
    assert asked(app, "HEAD")[2] == b""
    assert asked(app, "POST")[0] == 405


def test_a_counter_is_there_before_it_counts() -> None:
    """`increase()` sees no change in a series that is born at 1: the first failure was missed."""
    later = {"name": "later", "trigger": {"type": "manual"}, "steps": [{"id": "a", "sleep": "1s"}]}

    class Source:
        def stamp(self) -> int:
            return 1

        def load(self) -> list[SuppliedWorkflow]:
            return [SuppliedWorkflow(name="later", definition=later, tenant_id="acme")]

    kernel = Kernel(discover=False, workflow_source=Source())

    @kernel.handler("mail.send")
    def send(item: Any) -> None:
        raise ValueError

    refund = {"action": "shop.refund"}
    kernel.add_workflow(
        {"name": "w", "trigger": {"type": "webhook", "connector": "shop", "trigger": "paid"},
         "steps": [{"id": "a", "sleep": "1s"},
                   {"id": "b", "steps": [{"id": "c", "action": "shop.ship"}]},
                   {"id": "d", "action": "shop.charge", "compensate": refund}]}
    )  # fmt: skip
    found = samples(Exporter(kernel).render())
    assert found['automate_outbox_failed_total{kind="mail.send"}'] == 0
    assert found['automate_outbox_failed_total{kind="automate.event"}'] == 0
    assert found['automate_executions_ended_total{workflow="w",outcome="failed"}'] == 0
    assert found['automate_executions_ended_total{workflow="later",outcome="failed"}'] == 0
    assert found['automate_webhooks_total{connector="shop",outcome="refused"}'] == 0
    for action in ("ship", "charge", "refund"):
        assert (
            found[f'automate_action_attempts_total{{action="shop.{action}",outcome="failed"}}'] == 0
        )
    for reason in ("time", "event", "signal", "approval", "workflow"):
        assert found[f'automate_waits_total{{reason="{reason}",outcome="failed"}}'] == 0


def test_schedules_that_are_late(clock: FakeClock, kernel: Kernel) -> None:
    """No worker fires them; a paused one is not late."""
    every = {"type": "schedule", "every": "1m"}
    for name in ("runs", "rests"):
        kernel.add_workflow({"name": name, "trigger": every, "steps": [{"id": "a", "sleep": "1s"}]})
    kernel.run_until_idle()
    before = clock().timestamp()
    kernel.schedules.pause("rests")
    clock.advance(400)
    found = samples(Exporter(kernel).render())
    assert found['automate_schedule_last_timestamp_seconds{workflow="runs"}'] == before
    assert found['automate_schedule_late_seconds{workflow="runs"}'] == 340
    assert found['automate_schedule_late_seconds{workflow="rests"}'] == 0
    assert found['automate_schedules_paused{workflow="rests"}'] == 1


def test_the_oldest_approval(clock: FakeClock, kernel: Kernel) -> None:
    """Nobody else sees that people are waited for."""
    define(kernel, {"id": "a", "approval": {"title": "May we?"}}, name="asks")
    assert samples(Exporter(kernel).render())["automate_oldest_approval_seconds"] == 0
    kernel.start("asks")
    kernel.run_until_idle()
    clock.advance(50)
    assert samples(Exporter(kernel).render())["automate_oldest_approval_seconds"] == 50


def test_webhooks_secrets_and_plugins() -> None:
    """By their outcomes; a name that a stranger made up makes no series."""

    class Shop(Connector):
        key = "shop"
        display_name = "Shop"

        @classmethod
        def triggers(cls) -> list[TriggerSpec]:
            return [TriggerSpec("paid", signature=GitHubSignature("$secret:SHOP"))]

    kernel = Kernel(plugins=[Shop], secrets={"SHOP": "it-s-a-secret-to-everybody"}, discover=False)
    body = b'{"id": 7}'
    signed = GitHubSignature().sign(body, "it-s-a-secret-to-everybody")
    signed |= {"X-GitHub-Delivery": "1"}
    for _ in range(2):
        kernel.receive_webhook("shop", "paid", signed, body)
    for connector in ("shop", "made-up"):
        with pytest.raises(WebhookRejectedError):
            kernel.receive_webhook(connector, "paid", {}, body)
    with pytest.raises(SecretNotFoundError):
        kernel.secrets.get("OTHER")
    page = Exporter(kernel).render()
    found = samples(page)
    assert found['automate_webhooks_total{connector="shop",outcome="accepted"}'] == 1
    assert found['automate_webhooks_total{connector="shop",outcome="repeated"}'] == 1
    assert found['automate_webhooks_total{connector="shop",outcome="refused"}'] == 1
    assert found['automate_webhooks_total{connector="",outcome="refused"}'] == 1
    assert "made-up" not in page
    (name,) = kernel.secrets.backends
    assert found[f'automate_secret_lookups_total{{backend="{name}",outcome="missing"}}'] == 1
    assert found[f'automate_secret_lookups_total{{backend="{name}",outcome="found"}}'] > 0
    assert found['automate_plugins{state="LOADED"}'] >= 1


def test_polls_that_fail(clock: FakeClock) -> None:
    """Their failures in a row, and for how long they are due; a success ends both."""
    away = [AutomateError(ErrorCodes.UNAVAILABLE, "the feed is away")]

    class Feed(Connector):
        key = "feed"
        display_name = "Feed"

        @poll("news", every="1m")
        def news(self, cursor: Any) -> PollResult:
            if away:
                raise away.pop()
            return PollResult(cursor=1)

    kernel = Kernel(MemoryStorage(clock), plugins=[Feed], discover=False)
    kernel.add_workflow(
        {"name": "reads", "trigger": {"type": "event", "event": "feed.news"},
         "steps": [{"id": "a", "sleep": "1s"}]}
    )  # fmt: skip
    labels = '{poll="feed.news"}'
    kernel.run_until_idle()
    clock.advance(10_000)
    found = samples(Exporter(kernel).render())
    assert found[f"automate_poll_failures{labels}"] == 1
    assert found[f"automate_poll_late_seconds{labels}"] > 9_000
    kernel.run_until_idle()
    found = samples(Exporter(kernel).render())
    assert found[f"automate_poll_failures{labels}"] == 0
    assert found[f"automate_poll_late_seconds{labels}"] == 0
    assert found[f"automate_poll_last_timestamp_seconds{labels}"] == clock().timestamp()
