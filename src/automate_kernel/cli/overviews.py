"""An overview of the outbox and of executions, as a picture, as lines and as data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from automate_kernel.cli.output import Output, counted, seconds

if TYPE_CHECKING:
    from rich.console import RenderableType

    from automate_kernel.kernel import Kernel
    from automate_kernel.monitoring.overview import KindOverview, Overview, WorkflowOverview
    from automate_kernel.outbox import WorkerInfo

__all__ = [
    "Seen",
    "as_data",
    "drawn",
    "in_a_line",
    "observing",
    "picture",
    "show",
    "show_workers",
    "worker_data",
]

_KINDS = (
    "KIND", "RATE", "RUN P50", "RUN P95", "WAIT P50", "WAIT P95", "RUNNING", "WAITING", "FAILED",
    "FAIL/MIN", "RETRY/MIN", "LOST/MIN",
)  # fmt: skip
# What a terminal that is not wide enough for all does without.
_WIDE, _DISPENSABLE = 120, ("WAIT P50", "RETRY/MIN", "LOST/MIN")
_WORKFLOWS = (
    "WORKFLOW", "RATE", "TOOK P50", "TOOK P95", "RUNNING", "WAITING", "FAILED", "FAIL/MIN",
    "STEP P95", "STEP FAIL/MIN", "STEP RETRY/MIN",
)  # fmt: skip
_LESS_OF_WORKFLOWS = ("TOOK P50", "STEP P95", "STEP RETRY/MIN")
_WORKERS = ("WORKER", "HOST", "PID", "UP", "RUNNING", "SLOTS", "SEEN", "STATE")


@dataclass(frozen=True, slots=True)
class Seen:
    """What one look has found: the outbox with its workers, and the executions by workflow."""

    outbox: Overview
    workflows: list[WorkflowOverview]


def observing(kernel: Kernel) -> Callable[[], Seen]:
    """A function that looks at *kernel*, again and again."""
    from automate_kernel.monitoring.overview import ExecutionObserver, Observer

    outbox, executions = Observer(kernel.outbox), ExecutionObserver(kernel.executions)

    def look() -> Seen:
        found = outbox.look()
        return Seen(found, executions.look(found.at))

    return look


def as_data(seen: Seen) -> dict[str, Any]:
    """All of it, for programs."""
    found = seen.outbox
    return {
        "at": found.at,
        "rate": round(found.rate, 3),
        "oldest_due_seconds": found.oldest_due_seconds,
        "paused": list(found.paused),
        "kinds": [_kind_data(kind) for kind in found.kinds],
        "workflows": [_workflow_data(workflow) for workflow in seen.workflows],
        "workers": [worker_data(worker) for worker in found.workers],
    }


def _workflow_data(workflow: WorkflowOverview) -> dict[str, Any]:
    recent, per_minute = workflow.recent, workflow.per_minute
    return {
        "workflow": workflow.workflow,
        "rate": round(workflow.rate, 3),
        "took_p50": recent.run_percentile(0.5),
        "took_p95": recent.run_percentile(0.95),
        "running": workflow.running,
        "waiting": workflow.waiting,
        "failed": workflow.failed,
        "failed_per_minute": round(per_minute(recent.failed), 3),
        "cancelled_per_minute": round(per_minute(recent.cancelled), 3),
        "step_p50": recent.step_percentile(0.5),
        "step_p95": recent.step_percentile(0.95),
        "steps_failed_per_minute": round(per_minute(recent.steps_failed), 3),
        "steps_retried_per_minute": round(per_minute(recent.steps_retried), 3),
    }


def _kind_data(kind: KindOverview) -> dict[str, Any]:
    recent = kind.recent
    return {
        "kind": kind.kind,
        "rate": round(kind.rate, 3),
        "run_p50": recent.run_percentile(0.5),
        "run_p95": recent.run_percentile(0.95),
        "wait_p50": recent.wait_percentile(0.5),
        "wait_p95": recent.wait_percentile(0.95),
        "running": kind.running,
        "waiting": kind.waiting,
        "failed": kind.failed,
        "failed_per_minute": round(kind.per_minute(recent.failed), 3),
        "retried_per_minute": round(kind.per_minute(recent.retried), 3),
        "lost_per_minute": round(kind.per_minute(recent.lost), 3),
        "paused": kind.paused,
    }


def in_a_line(seen: Seen) -> str:
    """The most important of it."""
    found = seen.outbox
    p95 = [each.recent.run_percentile(0.95) for each in found.kinds]
    slowest = max((each for each in p95 if each is not None), default=None)
    parts = (
        found.at.astimezone().strftime("%H:%M:%S"),
        f"{_number(found.rate)}/s",
        f"run p95 {_latency(slowest)}",
        f"{sum(each.running for each in found.kinds)} running",
        f"{sum(each.waiting for each in found.kinds)} waiting",
        f"{sum(each.failed for each in found.kinds)} failed",
        f"{sum(each.failed for each in seen.workflows)} executions failed",
        f"oldest due {seconds(found.oldest_due_seconds)}",
        counted(len(found.alive), "worker"),
    )
    return "  ".join(parts)


def show(out: Output, seen: Seen, where: str) -> None:
    """Print all of it."""
    if out.json:
        return
    found = seen.outbox
    out.line(_headline(found, where))
    out.table(_KINDS, [_kind_row(kind) for kind in found.kinds], empty="the outbox is empty")
    out.line()
    if seen.workflows:
        out.table(_WORKFLOWS, [_workflow_row(each) for each in seen.workflows])
        out.line()
    show_workers(out, found.workers, found.at)


def show_workers(out: Output, workers: Sequence[WorkerInfo], now: datetime) -> None:
    """A table of workers."""
    rows = [_worker_row(worker, now) for worker in workers]
    out.table(_WORKERS, rows, empty="no worker is running")


def worker_data(worker: WorkerInfo) -> dict[str, Any]:
    """A worker, ready for JSON."""
    return {**asdict(worker), "state": _state(worker)}


def _state(worker: WorkerInfo) -> str:
    if worker.lost:
        return "lost"
    if worker.problem is not None:
        return "failing"
    return "stopping" if worker.stopping else "ok"


def picture(seen: Seen, where: str, width: int = _WIDE) -> RenderableType:
    """All of it, to be drawn in place; less of it where *width* is small."""
    from rich.console import Group
    from rich.text import Text

    found, kinds = seen.outbox, [_kind_row(kind) for kind in seen.outbox.kinds]
    parts = [drawn(*_fitting(_KINDS, kinds, width, _DISPENSABLE))]
    if seen.workflows:
        rows = [_workflow_row(each) for each in seen.workflows]
        parts.append(drawn(*_fitting(_WORKFLOWS, rows, width, _LESS_OF_WORKFLOWS)))
    return Group(
        Text(_headline(found, where), style="bold"),
        *parts,
        drawn(_WORKERS, [_worker_row(worker, found.at) for worker in found.workers]),
    )


def _fitting(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    width: int,
    dispensable: Sequence[str],
) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    if width >= _WIDE:
        return columns, rows
    kept = [index for index, name in enumerate(columns) if name not in dispensable]
    return [columns[index] for index in kept], [[row[index] for index in kept] for row in rows]


def _headline(found: Overview, where: str) -> str:
    lost = sum(worker.lost for worker in found.workers)
    failing = sum(_state(worker) == "failing" for worker in found.workers)
    gone = [f"{number} {word}" for number, word in ((lost, "lost"), (failing, "failing")) if number]
    told = [
        where,
        f"{_number(found.rate)}/s",
        counted(len(found.alive), "worker") + (f" ({', '.join(gone)})" if gone else ""),
        f"{sum(w.in_flight for w in found.alive)} of {sum(w.slots for w in found.alive)} slots",
        f"oldest due {seconds(found.oldest_due_seconds)}",
    ]
    if found.paused:
        told.append(f"paused: {', '.join(found.paused)}")
    return " · ".join(told)


def _kind_row(kind: KindOverview) -> tuple[str, ...]:
    recent = kind.recent
    return (
        kind.kind + (" (paused)" if kind.paused else ""),
        f"{_number(kind.rate)}/s",
        *(_latency(recent.run_percentile(share)) for share in (0.5, 0.95)),
        *(_latency(recent.wait_percentile(share)) for share in (0.5, 0.95)),
        str(kind.running),
        str(kind.waiting),
        str(kind.failed),
        *(
            _number(kind.per_minute(count))
            for count in (recent.failed, recent.retried, recent.lost)
        ),
    )


def _workflow_row(workflow: WorkflowOverview) -> tuple[str, ...]:
    recent, per_minute = workflow.recent, workflow.per_minute
    return (
        workflow.workflow,
        f"{_number(workflow.rate)}/s",
        *(_latency(recent.run_percentile(share)) for share in (0.5, 0.95)),
        str(workflow.running),
        str(workflow.waiting),
        str(workflow.failed),
        _number(per_minute(recent.failed)),
        _latency(recent.step_percentile(0.95)),
        *(_number(per_minute(count)) for count in (recent.steps_failed, recent.steps_retried)),
    )


def _worker_row(worker: WorkerInfo, now: datetime) -> tuple[str, ...]:
    return (
        worker.id,
        worker.host,
        str(worker.pid),
        _since(worker.started_at, now),
        str(worker.in_flight),
        str(worker.slots),
        f"{_since(worker.seen_at, now)} ago",
        _state(worker),
    )


def _since(moment: datetime | None, now: datetime) -> str:
    return seconds(None if moment is None else max(0.0, (now - moment).total_seconds()))


def _latency(value: float | None) -> str:
    """A duration to two digits, however short."""
    return f"{value * 1000:.2g} ms" if value is not None and value < 0.1 else seconds(value)


def _number(value: float) -> str:
    """A number short enough for a narrow column."""
    return f"{value:.0f}" if value >= 100 or value == 0 else f"{value:.1f}"


def drawn(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> RenderableType:
    """A table that can be drawn in place."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from automate_kernel.cli.output import STYLES

    styles = {**STYLES, "lost": "red", "failing": "red", "stopping": "yellow"}
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", no_wrap=index > 0)
    for row in rows:
        table.add_row(*(Text(cell, style=styles.get(cell, "")) for cell in row))
    return table
