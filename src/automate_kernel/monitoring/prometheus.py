"""
Metrics of the outbox and the executions in Prometheus's text format, version 0.0.4.

They are about all of them, whichever process is asked: they are read from the database, which
holds the reports of the workers. Scrape one process, or take ``max by (kind) (…)``, never sums.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from math import inf
from typing import TYPE_CHECKING, Any, Generic

from automate_kernel.base.forks import new_lock
from automate_kernel.monitoring.overview import (
    STANDING,
    C,
    Increments,
    Observed,
    ThrottledStats,
    workers_by_state,
)
from automate_kernel.outbox.item import WAITING_FOR, ItemStatus
from automate_kernel.outbox.queries import OutboxStats
from automate_kernel.outbox.statistics import (
    NamedCounts,
    NamedNumbers,
    counts_by_name,
    upper_bound,
)
from automate_kernel.outbox.worker_reports import Activity, WorkerInfo
from automate_kernel.plugins.records import PluginState
from automate_kernel.secrets.logs import get_logger
from automate_kernel.storage.query import Where
from automate_kernel.storage.rows import Rows
from automate_kernel.storage.tables import WAIT
from automate_kernel.triggers.webhooks.receiver import DELIVERY_OUTCOMES
from automate_kernel.workflows.definition.triggers import WebhookTrigger
from automate_kernel.workflows.store.statistics import REASONS, ExecutionCounts, ExecutionStats

if TYPE_CHECKING:
    from automate_kernel.kernel import Kernel
    from automate_kernel.workflows.definition.model import Workflow

__all__ = ["CONTENT_TYPE", "Exporter"]

logger: logging.Logger = get_logger(__name__)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# 1 ms, 2 ms, 5 ms, … 100 s, and then 17 min and 1 h: the bounds of ours that are round numbers.
# They are written for people: 0.002, not 0.00199526, from which it differs by 0.25 %.
_BOUNDS: dict[float, str] = {
    bucket: f"{float(f'{upper_bound(bucket):.1g}'):g}"
    for bucket in (-30, -27, -23, -20, -17, -13, -10, -7, -3, 0, 3, 7, 10, 13, 17, 20, 30, 36)
} | {inf: "+Inf"}
_TEXTS = {
    "automate_outbox_items": "Items in the outbox.",
    "automate_outbox_waiting": (
        "Items that wait: for a worker, a time (a retry, a sleep, a signal), a key or a resume."
    ),
    "automate_outbox_oldest_due_seconds": "How late the oldest due item is; 0 if none is due.",
    "automate_outbox_paused": "Kinds that are paused.",
    "automate_workers": (
        "Workers; a lost one has not been heard of for a minute, a failing one can't begin."
    ),
    "automate_worker_slots": "Handlers that can run at once, on all workers.",
    "automate_worker_in_flight": "Items that workers hold.",
    "automate_outbox_completed_total": "Items that were finished.",
    "automate_outbox_retried_total": "Attempts that failed and are to be repeated.",
    "automate_outbox_failed_total": "Items that were given up.",
    "automate_outbox_lost_total": "Leases that ended before their worker did.",
    "automate_outbox_run_seconds": "How long handlers ran.",
    "automate_outbox_wait_seconds": "How long items were due before they were begun.",
    "automate_executions": "Executions that have not ended, and FAILED ones that are kept.",
    "automate_workflow_paused": "Pauses of workflows, of all tenants and of single ones.",
    "automate_executions_started_total": "Executions that a worker began, or began again.",
    "automate_executions_ended_total": "Executions that ended.",
    "automate_execution_seconds": "How long executions took, from creation to end.",
    "automate_steps_total": "Outcomes of steps.",
    "automate_step_seconds": "How long steps took, with their retries.",
    "automate_action_attempts_total": "Attempts of steps that ended, by the action they called.",
    "automate_action_seconds": "How long single attempts took.",
    "automate_waiting_steps": "Steps that wait for something to come in.",
    "automate_waits_total": "Waits of steps that ended.",
    "automate_wait_seconds": "How long steps waited.",
    "automate_abandoned_calls": (
        "Calls in this process that took longer than their timeouts, and still run."
    ),
    "automate_schedule_last_timestamp_seconds": "When the schedules of a workflow last fired.",
    "automate_schedule_late_seconds": "For how long schedules of a workflow are due.",
    "automate_schedules_paused": "Schedules that are paused.",
    "automate_poll_last_timestamp_seconds": "When a poll was last called with success.",
    "automate_poll_late_seconds": "For how long a poll is due.",
    "automate_poll_failures": "Failures of a poll since its last success.",
    "automate_oldest_approval_seconds": "How long the oldest open approval waits; 0 if none does.",
    "automate_relay_lag_seconds": "The age of the oldest event that a relay has not sent.",
    "automate_plugins": "Plugins by their states.",
    "automate_webhooks_total": "Webhooks that came to this process.",
    "automate_secret_lookups_total": "Look-ups of secrets in this process.",
    "automate_up": "Whether the database could be used.",
}
_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
_WAITS_END = ("completed", "failed", "cancelled")
_LONG_AGO = datetime(1970, 1, 1, tzinfo=timezone.utc)
Labels = Mapping[str, str]


class Exporter:
    """
    Writes the metrics of the outbox and the executions of *kernel*.

    Counters begin at 0 with the exporter and count what all workers do from then on.
    """

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._outbox = kernel.outbox
        self._calls = kernel.operations.timed_calls
        self._redact = kernel.redactor.redact
        self._items = _Source(kernel.outbox, Activity)
        self._executions = _Source(kernel.executions, ExecutionCounts)
        self._lock = new_lock()

    def render(self) -> str:
        """Return the page; with ``automate_up 0`` alone if the database can't be used."""
        page, up = _Page(), 1
        try:
            with self._lock:
                items, totals = self._items.look(self._kernel.kinds)
                _write_items(page, items)
                lags = self._kernel.relays.lags(items)
                page.write("automate_relay_lag_seconds", _by("relay", lags))
                _write_workers(page, self._outbox.workers())
                _write_activity(page, totals)
                page.write("automate_abandoned_calls", [({}, self._calls.abandoned)])
                workflows = [entry.workflow for entry in self._kernel.workflows.entries()]
                names = {each.name for each in workflows}
                actions = {name for each in workflows for name in _actions_of(each)}
                _write_executions(page, *self._executions.look(names), actions)
                with self._kernel.storage.begin(atomic=False) as rows:
                    now = rows.now()
                    _write_oldest_approval(page, rows, now)
                _write_schedules(page, self._kernel, now)
                _write_polls(page, self._kernel, now)
                _write_plugins(page, self._kernel, workflows)
        except Exception as error:
            logger.warning("no metrics: %s", self._redact(str(error) or repr(error)))
            page, up = _Page(), 0
        page.write("automate_up", [({}, up)])
        return page.text()


class _Source(Generic[C]):
    """The counts of *source*, and the totals of its activity since the first look."""

    def __init__(self, source: Observed[C, Any], make: Callable[..., C]) -> None:
        self._increments: Increments[C] = Increments(source)
        self._counts: ThrottledStats[Any] = ThrottledStats(source)
        self._make: Callable[..., C] = make
        self._totals: dict[str, C] = {}

    def look(self, names: Collection[str] = ()) -> tuple[Any, list[C]]:
        """Return the counts of now and the totals, sorted by name; those of *names* at least."""
        stats: Any = self._counts.look()
        new, totals = self._increments.look(), self._totals
        for name in {*names, *stats.counts, *(one.kind for one in self._increments.latest)}:
            # A kind is there with 0 before it counts: only so is its first failure a change.
            totals.setdefault(name, self._make(_LONG_AGO, name))
        for one in new:
            totals[one.kind] += one
        return stats, [totals[name] for name in sorted(totals)]


def _write_items(page: _Page, stats: OutboxStats) -> None:
    items = (
        ({"kind": kind, "status": str(status)}, of.get(status, 0))
        for kind, of in stats.counts.items()
        for status in ItemStatus
    )
    page.write("automate_outbox_items", items)
    waiting = (
        ({"kind": kind, "reason": reason}, of.get(reason, 0))
        for kind, of in stats.waiting.items()
        for reason in WAITING_FOR
    )
    page.write("automate_outbox_waiting", waiting)
    page.write("automate_outbox_oldest_due_seconds", [({}, stats.oldest_due_seconds or 0)])
    page.write("automate_outbox_paused", (({"kind": kind}, 1) for kind in stats.paused))


def _write_workers(page: _Page, workers: Sequence[WorkerInfo]) -> None:
    alive = [worker for worker in workers if worker.alive]
    states = workers_by_state(workers).items()
    page.write("automate_workers", (({"state": state}, number) for state, number in states))
    page.write("automate_worker_slots", [({}, sum(worker.slots for worker in alive))])
    page.write("automate_worker_in_flight", [({}, sum(worker.in_flight for worker in alive))])


def _write_activity(page: _Page, totals: Sequence[Activity]) -> None:
    by_kind = [({"kind": one.kind}, one) for one in totals]
    for name in ("completed", "retried", "failed", "lost"):
        page.write(f"automate_outbox_{name}_total", ((k, getattr(one, name)) for k, one in by_kind))
    run = ((k, one.run_buckets, one.run_seconds) for k, one in by_kind)
    page.write_histograms("automate_outbox_run_seconds", run)
    wait = ((k, one.wait_buckets, one.wait_seconds) for k, one in by_kind)
    page.write_histograms("automate_outbox_wait_seconds", wait)


def _write_schedules(page: _Page, kernel: Kernel, now: datetime) -> None:
    last: dict[str, float] = {}
    late: dict[str, float] = {}
    paused: Counter[str] = Counter()
    for each in kernel.schedules.find():
        name, fired = each.workflow.name, each.last_fired_at
        paused[name] += each.paused_at is not None
        overdue = 0.0 if each.paused_at else each.overdue(now).total_seconds()
        late[name] = max(late.get(name, 0.0), overdue)
        if fired is not None:
            last[name] = max(last.get(name, 0.0), fired.timestamp())
    page.write("automate_schedule_last_timestamp_seconds", _by("workflow", last))
    page.write("automate_schedule_late_seconds", _by("workflow", late))
    page.write("automate_schedules_paused", _by("workflow", paused))


def _write_polls(page: _Page, kernel: Kernel, now: datetime) -> None:
    last: dict[str, float] = {}
    late: dict[str, float] = {}
    failures: dict[str, float] = {}
    for each in kernel.polls.find():
        name, due = each.name, None if each.paused_at else each.next_at
        overdue = (now - due).total_seconds() if due else 0.0
        late[name] = max(late.get(name, 0.0), overdue, 0.0)
        failures[name] = max(failures.get(name, 0), each.failures)
        if each.polled_at is not None:
            last[name] = max(last.get(name, 0.0), each.polled_at.timestamp())
    page.write("automate_poll_last_timestamp_seconds", _by("poll", last))
    page.write("automate_poll_late_seconds", _by("poll", late))
    page.write("automate_poll_failures", _by("poll", failures))


def _write_oldest_approval(page: _Page, rows: Rows, now: datetime) -> None:
    asked = [Where("about", "eq", "approval")]
    found = rows.select(
        WAIT, asked, order_by=("created_at", "id"), limit=1, columns=("created_at",)
    )
    waits = [(now - row["created_at"]).total_seconds() for row in found]
    page.write("automate_oldest_approval_seconds", [({}, max(0.0, *waits, 0.0))])


def _write_plugins(page: _Page, kernel: Kernel, workflows: Sequence[Workflow]) -> None:
    states = Counter(str(each.state) for each in kernel.plugins.records())
    page.write("automate_plugins", (({"state": str(s)}, states[str(s)]) for s in PluginState))
    came = kernel.deliveries.tally.counts()
    connectors = {
        trigger.connector
        for workflow in workflows
        for trigger in workflow.triggers
        if isinstance(trigger, WebhookTrigger)
    }
    outcomes = [
        ({"connector": connector, "outcome": outcome}, came.get((connector, outcome), 0))
        for connector in sorted({*connectors, *(words[0] for words in came)})
        for outcome in DELIVERY_OUTCOMES
    ]
    page.write("automate_webhooks_total", outcomes)
    looks = kernel.secrets.looks.counts()
    asked = [
        ({"backend": name, "outcome": outcome}, looks.get((name, outcome), 0))
        for name in kernel.secrets.backends
        for outcome in ("found", "missing", "failed")
    ]
    page.write("automate_secret_lookups_total", asked)


def _by(label: str, numbers: Mapping[str, float]) -> Iterator[tuple[Labels, float]]:
    return (({label: name}, numbers[name]) for name in sorted(numbers))


def _actions_of(workflow: Workflow) -> Iterator[str]:
    """Yield the actions that the steps of *workflow* name, and those that undo them."""
    for _, step in workflow.walk():
        for call in (step, step.compensation):
            if call is not None and call.action is not None:
                yield call.action


def _write_executions(
    page: _Page,
    stats: ExecutionStats,
    totals: Sequence[ExecutionCounts],
    actions: Iterable[str],
) -> None:
    standing = (
        ({"workflow": name, "status": status}, of.get(status, 0))
        for name, of in stats.counts.items()
        for status in STANDING
    )
    page.write("automate_executions", standing)
    waiting = (({"reason": each}, stats.waiting.get(each, 0)) for each in REASONS[1:])
    page.write("automate_waiting_steps", waiting)
    paused = (({"workflow": name}, number) for name, number in stats.paused.items())
    page.write("automate_workflow_paused", paused)
    by_name = [({"workflow": one.workflow}, one) for one in totals]
    page.write("automate_executions_started_total", ((w, one.started) for w, one in by_name))
    ended = ("completed", "failed", "cancelled")
    page.write("automate_executions_ended_total", _outcomes(by_name, ended))
    took = ((w, one.run_buckets, one.run_seconds) for w, one in by_name)
    page.write_histograms("automate_execution_seconds", took)
    steps = ("completed", "retried", "failed")
    page.write("automate_steps_total", _outcomes(by_name, steps, "steps_"))
    took = ((w, one.step_buckets, one.step_seconds) for w, one in by_name)
    page.write_histograms("automate_step_seconds", took)
    # For all workflows together: each action of each workflow would be too many series.
    _write_named(page, "action", "automate_action_attempts_total", "automate_action_seconds",
        counts_by_name(_summed((one.actions for one in totals), actions)), steps)  # fmt: skip
    _write_named(page, "reason", "automate_waits_total", "automate_wait_seconds",
        counts_by_name(_summed((one.waits for one in totals), REASONS)), _WAITS_END)  # fmt: skip


def _summed(each: Iterable[NamedNumbers], names: Iterable[str]) -> NamedNumbers:
    """Return the sums of *each*, in which all *names* are with 0 at least."""
    total: dict[tuple[str, str | int], float] = {(name, "completed"): 0 for name in names}
    for numbers in each:
        for key, number in numbers.items():
            total[key] = total.get(key, 0) + number
    return total


def _write_named(
    page: _Page,
    label: str,
    counter: str,
    histogram: str,
    found: Mapping[str, NamedCounts],
    outcomes: Sequence[str],
) -> None:
    page.write(
        counter,
        (
            ({label: name, "outcome": outcome}, one.outcomes.get(outcome, 0))
            for name, one in found.items()
            for outcome in outcomes
        ),
    )
    took = (({label: name}, one.buckets, one.seconds) for name, one in found.items())
    page.write_histograms(histogram, took)


def _outcomes(
    by_name: Iterable[tuple[Labels, ExecutionCounts]], outcomes: Sequence[str], prefix: str = ""
) -> Iterator[tuple[Labels, float]]:
    for labels, one in by_name:
        for outcome in outcomes:
            yield {**labels, "outcome": outcome}, getattr(one, prefix + outcome)


class _Page:
    """Lines of the text format."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def text(self) -> str:
        return "\n".join(self._lines) + "\n"

    def write(self, name: str, samples: Iterable[tuple[Labels, float]]) -> None:
        self._begin(name, "counter" if name.endswith("_total") else "gauge")
        self._lines += [f"{name}{_labelled(labels)} {value:.15g}" for labels, value in samples]

    def write_histograms(
        self, name: str, found: Iterable[tuple[Labels, Mapping[int, int], float]]
    ) -> None:
        self._begin(name, "histogram")
        for labels, buckets, seconds in found:
            count = sum(buckets.values())
            for bound, shown in _BOUNDS.items():
                within = sum(number for bucket, number in buckets.items() if bucket <= bound)
                le = {**labels, "le": shown}
                self._lines.append(f"{name}_bucket{_labelled(le)} {within}")
            self._lines.append(f"{name}_sum{_labelled(labels)} {seconds:.15g}")
            self._lines.append(f"{name}_count{_labelled(labels)} {count}")

    def _begin(self, name: str, type_: str) -> None:
        self._lines += [f"# HELP {name} {_TEXTS[name]}", f"# TYPE {name} {type_}"]


def _labelled(labels: Labels) -> str:
    if not labels:
        return ""
    values = {name: value.translate(_ESCAPES) for name, value in labels.items()}
    return "{" + ",".join(f'{name}="{value}"' for name, value in values.items()) + "}"
