"""
Metrics of the outbox and the executions in Prometheus's text format, version 0.0.4.

They are about all of them, whichever process is asked: they are read from the database, which
holds the reports of the workers. Scrape one process, or take ``max by (kind) (…)``, never sums.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from automate_kernel.monitoring.overview import (
    Increments,
    Observed,
    ThrottledStats,
    workers_by_state,
)
from automate_kernel.outbox.item import ItemStatus
from automate_kernel.outbox.queries import OutboxStats
from automate_kernel.outbox.statistics import upper_bound
from automate_kernel.outbox.worker_reports import Activity, WorkerInfo
from automate_kernel.secrets.logs import get_logger
from automate_kernel.workflows.engine.statistics import ExecutionCounts, ExecutionStats

if TYPE_CHECKING:
    from automate_kernel.kernel import Kernel

__all__ = ["CONTENT_TYPE", "Exporter"]

logger: logging.Logger = get_logger(__name__)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# 1 ms, 2 ms, 5 ms, … 100 s, and then 17 min and 1 h: the bounds of ours that are round numbers.
_BOUNDS = (-30, -27, -23, -20, -17, -13, -10, -7, -3, 0, 3, 7, 10, 13, 17, 20, 30, 36)
_COUNTERS = (
    ("completed", "Items that were finished."),
    ("retried", "Attempts that failed and are to be repeated."),
    ("failed", "Items that were given up."),
    ("lost", "Leases that ended before their worker did."),
)
_STANDING = ("PENDING", "RUNNING", "FAILED")
_LONG_AGO = datetime(1970, 1, 1, tzinfo=timezone.utc)
Labels = Mapping[str, str]
C = TypeVar("C", Activity, ExecutionCounts)


class Exporter:
    """
    Writes the metrics of the outbox and the executions of *kernel*.

    Counters begin at 0 with the exporter and count what all workers do from then on.
    """

    def __init__(self, kernel: Kernel, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._outbox = kernel.outbox
        self._redact = kernel.redactor.redact
        self._workflows = kernel.workflows.added
        self._items = _Source(kernel.outbox, Activity, clock)
        self._executions = _Source(kernel.executions, ExecutionCounts, clock)
        self._lock = threading.Lock()

    def render(self) -> str:
        """Return the page; with ``automate_up 0`` alone if the database can't be used."""
        page = _Lines()
        try:
            with self._lock:
                self._write(page)
        except Exception as error:
            logger.warning("no metrics: %s", self._redact(str(error) or repr(error)))
            page = _Lines()
            page.family("automate_up", "gauge", _UP, [({}, 0)])
        return page.text()

    def _write(self, page: _Lines) -> None:
        items, totals = self._items.look()
        _write_items(page, items)
        _write_workers(page, self._outbox.workers())
        _write_activity(page, totals)
        names = {workflow.name for workflow in self._workflows()}
        _write_executions(page, *self._executions.look(names))
        page.family("automate_up", "gauge", _UP, [({}, 1)])


class _Source(Generic[C]):
    """The counts of *source*, and the totals of its activity since the first look."""

    def __init__(
        self,
        source: Observed[C, Any],
        make: Callable[[datetime, str], C],
        clock: Callable[[], float],
    ) -> None:
        self._increments: Increments[C] = Increments(source, clock)
        self._counts: ThrottledStats[Any] = ThrottledStats(source, clock)
        self._make: Callable[[datetime, str], C] = make
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


def _write_items(page: _Lines, stats: OutboxStats) -> None:
    page.family(
        "automate_outbox_items", "gauge", "Items in the outbox.",
        (
            ({"kind": kind, "status": str(status)}, of.get(status, 0))
            for kind, of in stats.counts.items()
            for status in ItemStatus
        ),
    )  # fmt: skip
    page.family(
        "automate_outbox_oldest_due_seconds", "gauge",
        "How late the oldest due item is; 0 if none is due.",
        [({}, stats.oldest_due_seconds or 0)],
    )  # fmt: skip
    page.family(
        "automate_outbox_paused", "gauge", "Kinds that are paused.",
        (({"kind": kind}, 1) for kind in stats.paused),
    )  # fmt: skip


def _write_workers(page: _Lines, workers: Sequence[WorkerInfo]) -> None:
    alive = [worker for worker in workers if worker.alive]
    page.family(
        "automate_workers", "gauge",
        "Workers; a lost one has not been heard of for a minute, a failing one can't begin.",
        (({"state": state}, number) for state, number in workers_by_state(workers).items()),
    )  # fmt: skip
    page.family(
        "automate_worker_slots", "gauge", "Handlers that can run at once, on all workers.",
        [({}, sum(worker.slots for worker in alive))],
    )  # fmt: skip
    page.family(
        "automate_worker_in_flight", "gauge", "Items that workers hold.",
        [({}, sum(worker.in_flight for worker in alive))],
    )  # fmt: skip


def _write_activity(page: _Lines, totals: Sequence[Activity]) -> None:
    for name, text in _COUNTERS:
        page.family(
            f"automate_outbox_{name}_total", "counter", text,
            (({"kind": one.kind}, getattr(one, name)) for one in totals),
        )  # fmt: skip
    page.histograms(
        "automate_outbox_run_seconds", "How long handlers ran.",
        (({"kind": one.kind}, one.run_buckets, one.run_seconds) for one in totals),
    )  # fmt: skip
    page.histograms(
        "automate_outbox_wait_seconds", "How long items were due before they were begun.",
        (({"kind": one.kind}, one.wait_buckets, one.wait_seconds) for one in totals),
    )  # fmt: skip


def _write_executions(
    page: _Lines, stats: ExecutionStats, totals: Sequence[ExecutionCounts]
) -> None:
    page.family(
        "automate_executions", "gauge",
        "Executions that have not ended, and FAILED ones that are kept.",
        (
            ({"workflow": name, "status": status}, of.get(status, 0))
            for name, of in stats.counts.items()
            for status in ("PENDING", "RUNNING", "FAILED")
        ),
    )  # fmt: skip
    page.family(
        "automate_executions_started_total", "counter",
        "Executions that a worker began, or began again.",
        (({"workflow": one.workflow}, one.started) for one in totals),
    )  # fmt: skip
    page.family(
        "automate_executions_ended_total", "counter", "Executions that ended.",
        (
            ({"workflow": one.workflow, "outcome": outcome}, getattr(one, outcome))
            for one in totals
            for outcome in ("completed", "failed", "cancelled")
        ),
    )  # fmt: skip
    page.histograms(
        "automate_execution_seconds", "How long executions took, from creation to end.",
        (({"workflow": one.workflow}, one.run_buckets, one.run_seconds) for one in totals),
    )  # fmt: skip
    page.family(
        "automate_steps_total", "counter", "Outcomes of steps.",
        (
            ({"workflow": one.workflow, "outcome": outcome}, getattr(one, f"steps_{outcome}"))
            for one in totals
            for outcome in ("completed", "retried", "failed")
        ),
    )  # fmt: skip
    page.histograms(
        "automate_step_seconds", "How long steps took, with their retries.",
        (({"workflow": one.workflow}, one.step_buckets, one.step_seconds) for one in totals),
    )  # fmt: skip


_UP = "Whether the database could be used."


class _Lines:
    """Lines of the text format."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def text(self) -> str:
        return "\n".join(self._lines) + "\n"

    def family(
        self, name: str, type_: str, text: str, samples: Iterable[tuple[Labels, float]]
    ) -> None:
        self._lines += [f"# HELP {name} {text}", f"# TYPE {name} {type_}"]
        self._lines += [f"{name}{_labelled(labels)} {value:.15g}" for labels, value in samples]

    def histograms(
        self,
        name: str,
        text: str,
        found: Iterable[tuple[Labels, Mapping[int, int], float]],
    ) -> None:
        self._lines += [f"# HELP {name} {text}", f"# TYPE {name} histogram"]
        for labels, buckets, seconds in found:
            count = sum(buckets.values())
            for bound in _BOUNDS:
                within = sum(number for bucket, number in buckets.items() if bucket <= bound)
                le = {**labels, "le": _rounded(upper_bound(bound))}
                self._lines.append(f"{name}_bucket{_labelled(le)} {within}")
            self._lines.append(f"{name}_bucket{_labelled({**labels, 'le': '+Inf'})} {count}")
            self._lines.append(f"{name}_sum{_labelled(labels)} {seconds:.15g}")
            self._lines.append(f"{name}_count{_labelled(labels)} {count}")


def _rounded(seconds: float) -> str:
    """Return a bound for people: 0.002, not 0.00199526, from which it differs by 0.25 %."""
    return f"{float(f'{seconds:.1g}'):g}"


def _labelled(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
