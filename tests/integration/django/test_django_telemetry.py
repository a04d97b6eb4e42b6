"""Traces, logs and reports through Django's connection."""

from __future__ import annotations

import io
import json
import logging
import urllib.request
from typing import Any

import pytest
from ports import free_ports
from waiting import until
from automate_django import get_kernel
from automate_django.models import OutboxActivity, OutboxItem, OutboxWorker
from automate_kernel.monitoring.logs import configure_logging
from automate_kernel.monitoring.opentelemetry import instrument
from automate_kernel.monitoring.prometheus import Exporter
from django.db import transaction
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


def test_a_view_and_what_it_leads_to_are_one_trace(alias: str) -> None:
    """The context goes into the row within the view's transaction, and out again on the worker."""
    spans, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    kernel = get_kernel()
    kernel.handler("traced")(lambda item: None)
    instrument(kernel, provider)
    tracer = provider.get_tracer("view")
    with tracer.start_as_current_span("POST /orders") as view, transaction.atomic(using=alias):
        kernel.outbox.enqueue("traced", {"card": "4111"})
    assert "traceparent" in OutboxItem.objects.get(kind="traced").headers
    kernel.run_until_idle()
    found = {span.name: span for span in spans.get_finished_spans()}
    assert set(found) == {"POST /orders", "enqueue traced", "process traced"}
    trace_id = view.get_span_context().trace_id
    assert {span.context.trace_id for span in found.values()} == {trace_id}
    assert found["process traced"].parent.span_id == found["enqueue traced"].context.span_id
    assert "4111" not in "".join(span.to_json() for span in found.values())


def test_logs_of_a_handler_tell_its_item(alias: str) -> None:
    """As everywhere."""
    root, stream = logging.getLogger(), io.StringIO()
    before, level = root.handlers[:], root.level
    kernel = get_kernel()
    kernel.handler("logged")(lambda item: logging.getLogger("shop").warning("at work"))
    item_id = kernel.outbox.enqueue("logged")
    try:
        configure_logging(kernel, stream=stream)
        kernel.run_until_idle()
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["item_id"] for line in lines if line["message"] == "at work"] == [item_id]


@pytest.mark.slow
def test_a_worker_process_is_listed_and_counted(alias: str, start: Any) -> None:
    """``manage.py automate_worker`` shows in the tables, and in the metrics."""
    kernel = get_kernel()
    exporter = Exporter(kernel)
    exporter.render()
    process = start("automate_worker")
    until(lambda: OutboxWorker.objects.exists(), 120)
    (worker,) = kernel.outbox.workers()
    assert worker.pid == process.pid and not worker.lost
    assert 'automate_workers{state="running"} 1' in exporter.render()
    kernel.emit("nobody.listens")
    until(lambda: OutboxItem.objects.filter(status="COMPLETED").exists(), 120)
    process.terminate()
    assert process.wait(120) == 0
    assert kernel.outbox.workers() == []
    row = OutboxActivity.objects.get(kind="automate.event")
    assert (row.worker_id, row.completed) == (worker.id, 1)
    assert 'automate_outbox_completed_total{kind="automate.event"} 1' in exporter.render()


@pytest.mark.slow
@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_worker_answers_probes(sqlite: str, start: Any, processes: str) -> None:
    """One process or several: health and metrics on one port."""
    port = str(free_ports(1)[0])
    start(
        "automate_worker", "--processes", processes, "--health-port", port, "--metrics-port", port
    )
    url = f"http://127.0.0.1:{port}"
    until(lambda: _get(f"{url}/readyz") == '{"status": "ready"}', 120)
    assert _get(f"{url}/healthz") == '{"status": "ok"}'
    until(lambda: f'{{state="running"}} {processes}' in (_get(f"{url}/metrics") or ""), 120)


def _get(url: str) -> str | None:
    try:
        with urllib.request.urlopen(url, timeout=120) as answer:
            return str(answer.read().decode())
    except OSError:
        return None
