"""Executions and steps in metrics and on the command line, and what it costs to count them."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from workers import working
from automate_kernel import Kernel
from automate_cli import overview as overviews
from automate_kernel.outbox.statistics import MOST_NAMES, OTHERS, NamedTimes, counts_by_name
from automate_kernel.storage import MemoryStorage
from automate_kernel.storage.tables import EXECUTION, STEP
from automate_kernel.monitoring.prometheus import Exporter
from automate_cli.observing import ExecutionObserver
from defined import define

pytestmark = pytest.mark.usefixtures("always_counted")

WORKFLOW = {
    "name": "order",
    "trigger": {"type": "manual"},
    "steps": [
        {"id": "first", "action": "shop.first"},
        {
            "id": "each", "action": "shop.each", "for_each": "{{ event.payload.ids }}",
            "input": {"id": "{{ item }}"}, "retry": {"attempts": 2, "delay": "1ms"},
        },
    ],
}  # fmt: skip


@pytest.fixture
def kernel() -> Kernel:
    """A kernel with a workflow whose second step fails for the element 13, once for 7."""
    made, tried = Kernel(MemoryStorage(), discover=False, secrets={}), set()

    @made.action("shop.first")
    def first() -> None:
        pass

    @made.action("shop.each", idempotent=True)
    def each(id: int) -> int:
        if id == 13 or (id == 7 and id not in tried):
            tried.add(id)
            raise ConnectionError
        return id

    from automate_kernel.workflows.definition.model import Workflow

    made.add_workflow(Workflow.model_validate(WORKFLOW))
    return made


def sample(page: str, name: str, **labels: str) -> float:
    """The value of a sample."""
    shown = ",".join(f'{key}="{value}"' for key, value in labels.items())
    (line,) = [each for each in page.splitlines() if each.startswith(f"{name}{{{shown}}} ")]
    return float(line.rpartition(" ")[2])


def test_prometheus_counts_executions_and_steps(kernel: Kernel) -> None:
    """By workflow and outcome, from 0 on, with durations: its first failure is a change."""
    exporter = Exporter(kernel)
    first = exporter.render()
    ended = "automate_executions_ended_total"
    assert sample(first, ended, workflow="order", outcome="failed") == 0
    kernel.run("order", {"ids": [1, 7]})
    kernel.run("order", {"ids": [13]})
    kernel.executions.cancel(kernel.start("order", {"ids": []}))
    page = exporter.render()
    for outcome in ("completed", "failed", "cancelled"):
        assert sample(page, ended, workflow="order", outcome=outcome) == 1
    assert sample(page, "automate_executions_started_total", workflow="order") == 2
    steps = {
        outcome: sample(page, "automate_steps_total", workflow="order", outcome=outcome)
        for outcome in ("completed", "retried", "failed")
    }
    assert steps == {"completed": 4, "retried": 2, "failed": 1}
    assert sample(page, "automate_execution_seconds_count", workflow="order") == 2
    assert sample(page, "automate_step_seconds_count", workflow="order") == 5
    assert sample(page, "automate_executions", workflow="order", status="FAILED") == 1
    assert exporter.render() == page


class Watching(MemoryStorage):
    """A storage that notes which tables are read row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[str] = []

    def begin(self, transaction: Any = None, *, atomic: bool = True) -> Any:
        manager = super().begin(transaction, atomic=atomic)
        enter = manager.__enter__

        class Noting:
            def __enter__(noting) -> Any:  # noqa: N805
                rows = enter()
                select = rows.select

                def noted(table: str, *args: Any, **options: Any) -> Any:
                    self.read.append(table)
                    return select(table, *args, **options)

                rows.select = noted
                return rows

            def __exit__(noting, *exc: Any) -> Any:  # noqa: N805
                return manager.__exit__(*exc)

        return Noting()


def test_a_page_of_metrics_reads_no_execution() -> None:
    """However many there are: what workers told is read, and the standing ones are counted."""
    storage = Watching()
    kernel = Kernel(storage, discover=False, secrets={})
    exporter = Exporter(kernel)
    exporter.render()
    assert storage.read
    assert not {EXECUTION, STEP} & set(storage.read)


def test_top_shows_workflows(kernel: Kernel) -> None:
    """What stands, what ends and fails in a minute, and how long it takes."""
    kernel.run("order", {"ids": [1]})
    kernel.run("order", {"ids": [13]})
    kernel.start("order", {"ids": []})
    (found,) = ExecutionObserver(kernel.executions).look(kernel.outbox.now())
    assert (found.name, found.waiting, found.failed) == ("order", 1, 1)
    assert (found.recent.completed, found.recent.failed) == (1, 1)
    assert found.rate > 0
    seen = overviews.observing(kernel)()
    (data,) = overviews.as_data(seen)["workflows"]
    assert (data["workflow"], data["failed"], data["waiting"]) == ("order", 1, 1)
    assert data["steps_failed_per_minute"] > 0
    assert data["took_p95"] is not None
    assert "1 executions failed" in overviews.in_a_line(seen)


def test_a_worker_tells_of_executions(kernel: Kernel) -> None:
    """What it has done is written when it stops, at the latest."""
    ended = threading.Event()
    from automate_kernel import signals

    def end(sender: Any, execution: Any) -> None:
        ended.set()

    signals.workflow_completed.connect(end, sender=kernel)
    with working(kernel, report_seconds=3600.0):
        kernel.start("order", {"ids": [1]})
        assert ended.wait(30)
    (found,) = kernel.executions.activity()
    assert (found.started, found.completed, found.steps_completed) == (1, 1, 2)


def test_what_cant_be_counted_stops_no_work(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is written later, when it can be."""
    from automate_kernel.base.errors import StorageError

    report = kernel.executions.report

    def down(*args: Any) -> None:
        raise StorageError("the database is down")

    monkeypatch.setattr(kernel.executions, "report", down)
    assert kernel.run("order", {"ids": [1]}).status == "COMPLETED"
    assert "could not be counted" in caplog.text
    assert kernel.executions.activity() == []
    monkeypatch.setattr(kernel.executions, "report", report)
    kernel.run_until_idle()
    (found,) = kernel.executions.activity()
    assert found.completed == 1


# -- actions and waits -----------------------------------------------------------------------------


def histogram(page: str, name: str, **labels: str) -> tuple[float, float]:
    """The number and the sum of what a histogram has."""
    return sample(page, f"{name}_count", **labels), sample(page, f"{name}_sum", **labels)


def test_prometheus_counts_attempts_by_action_and_waits_by_reason(kernel: Kernel) -> None:
    """Attempts with their own durations, whichever workflow calls the action."""
    define(
        kernel,
        {"id": "call", "action": "shop.first"},
        {"id": "pause", "sleep": "10ms"},
        {"id": "ask", "wait_for": {"signal": "go"}},
        name="waiting",
    )
    exporter = Exporter(kernel)
    exporter.render()
    began = time.monotonic()
    kernel.start("order", {"ids": [1, 7, 13]})
    waiting = kernel.start("waiting")
    kernel.run_until_idle(patience=5)
    page = exporter.render()
    about = {"action": "shop.each"}
    assert sample(page, "automate_action_attempts_total", **about, outcome="completed") == 2
    assert sample(page, "automate_action_attempts_total", **about, outcome="retried") == 2
    assert sample(page, "automate_action_attempts_total", **about, outcome="failed") == 1
    number, seconds = histogram(page, "automate_action_seconds", **about)
    assert number == 5
    assert 0 < seconds < time.monotonic() - began
    assert sample(page, "automate_action_attempts_total", action="shop.first",
        outcome="completed") == 2  # fmt: skip
    assert sample(page, "automate_waits_total", reason="time", outcome="completed") == 1
    assert histogram(page, "automate_wait_seconds", reason="time")[1] >= 0.01
    assert sample(page, "automate_waiting_steps", reason="signal") == 1
    assert sample(page, "automate_waiting_steps", reason="approval") == 0
    drives = {"kind": "automate.advance"}
    assert sample(page, "automate_outbox_waiting", **drives, reason="time") == 1
    assert sample(page, "automate_outbox_waiting", **drives, reason="resume") == 0
    assert "automate_workflow_paused{" not in page
    kernel.signal(waiting, "go")
    kernel.run_until_idle(patience=5)
    page = exporter.render()
    assert sample(page, "automate_waits_total", reason="signal", outcome="completed") == 1
    assert sample(page, "automate_action_attempts_total", **about, outcome="failed") == 1
    kernel.executions.pauses.pause("waiting")
    kernel.executions.pauses.pause("waiting", tenant_id="acme")
    kernel.start("waiting")
    kernel.run_until_idle()
    stats, items = kernel.executions.stats(), kernel.outbox.stats()
    assert (stats.paused, items.waiting) == ({"waiting": 2}, {"automate.advance": {"resume": 1}})
    paused = Exporter(kernel).render()
    assert sample(paused, "automate_workflow_paused", workflow="waiting") == 2
    assert sample(paused, "automate_outbox_waiting", **drives, reason="resume") == 1
    (order,) = [each for each in kernel.executions.activity() if each.workflow == "order"]
    assert order.by_action["shop.each"].outcomes == {"completed": 2, "retried": 2, "failed": 1}


def test_names_are_bounded() -> None:
    """A workflow in code may call steps by any name."""
    gathered = NamedTimes()
    for number in range(3 * MOST_NAMES):
        gathered.add(f"action.{number}", "completed", 0.1)
    total = NamedTimes()
    for _ in range(2):
        total.merge(gathered)
        total.merge_json(gathered.to_json())
    found = counts_by_name(total.numbers)
    assert len(found) == MOST_NAMES + 1
    assert found[OTHERS].outcomes == {"completed": 4 * 2 * MOST_NAMES}
    assert found[OTHERS].seconds == pytest.approx(4 * 2 * MOST_NAMES * 0.1)
    assert sum(found[OTHERS].buckets.values()) == 4 * 2 * MOST_NAMES
