"""``automate top``: an overview of outbox, workers and executions, once or again and again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

import typer

from automate_kernel.cli.command import Context, DataCommand, examples
from automate_kernel.cli.output import STYLES, Output, counted, seconds
from automate_kernel.errors import StorageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from automate_kernel.kernel import Kernel
    from automate_kernel.monitoring.overview import KindOverview, Overview, WorkflowOverview
    from automate_kernel.outbox import WorkerInfo

__all__ = [
    "Seen",
    "Watch",
    "app",
    "as_data",
    "drawn",
    "in_a_line",
    "observing",
    "picture",
    "show",
    "show_workers",
    "worker_data",
]

app: typer.Typer = typer.Typer()

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

T = TypeVar("T")


@app.command(
    "top",
    cls=DataCommand,
    epilog=examples("automate top", "automate top --once", "automate top --every 10 --json"),
)
def top(
    context: Context,
    every: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.2)] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Look once, and end.")] = False,
) -> None:
    """
    Show rates, latencies and failures of items and workflows, and workers, live until Ctrl-C.

    It reads what workers tell of themselves every few seconds, so it works from any machine that
    reaches the database. Without a terminal there is a line for each look, and with --json a
    document.
    """
    kernel, out = context.session.plain, context.out
    look, where = observing(kernel), kernel.storage.describe()
    if once:
        found = look()
        out.data(as_data(found))
        show(out, found, where)
        return

    def draw(found: Seen) -> RenderableType:
        return picture(found, where, out.console.width)

    Watch(out, look, draw, in_a_line, as_data, screen=True).run(every)


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

    styles = {**STYLES, "lost": "red", "failing": "red", "stopping": "yellow"}
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", no_wrap=index > 0)
    for row in rows:
        table.add_row(*(Text(cell, style=styles.get(cell, "")) for cell in row))
    return table


@dataclass
class Watch(Generic[T]):
    """
    Shows what *look* finds, every few seconds until Ctrl-C.

    In a terminal *picture* stands in place; elsewhere there is the text of *line* for each look,
    and with JSON what *data* gives, one document a line. A database that is away for a while is
    told of, and waited for.
    """

    out: Output
    look: Callable[[], T]
    picture: Callable[[T], RenderableType]
    line: Callable[[T], str]
    data: Callable[[T], Any]
    screen: bool = False

    def run(self, every: float, *, sleep: Callable[[float], Any] = time.sleep) -> None:
        """Look every *every* seconds. The first look may raise; Ctrl-C is the way to end."""
        try:
            if self.out.terminal and not self.out.json:
                self._in_place(every, sleep)
            else:
                self._line_by_line(every, sleep)
        except KeyboardInterrupt:
            pass

    def _line_by_line(self, every: float, sleep: Callable[[float], Any]) -> None:
        found = self.look()
        while True:
            self.out.record(self.data(found))
            self.out.line(self.line(found))
            found = self._again(every, sleep, self.out.note)

    def _in_place(self, every: float, sleep: Callable[[float], Any]) -> None:
        from rich.console import Group
        from rich.live import Live
        from rich.text import Text

        found = self.look()
        # Not refreshed on a thread of its own: only what was just looked up is worth drawing.
        live = Live(
            self.picture(found), console=self.out.console, screen=self.screen, auto_refresh=False
        )
        try:
            # Not a with: Ctrl-C in the middle of the start must give the screen back as well.
            live.start(refresh=True)
            while True:
                shown = self.picture(found)

                def tell(text: str, shown: RenderableType = shown) -> None:
                    live.update(Group(shown, Text(text, style="red")), refresh=True)

                found = self._again(every, sleep, tell)
                live.update(self.picture(found), refresh=True)
        finally:
            live.stop()

    def _again(self, every: float, sleep: Callable[[float], Any], tell: Callable[[str], None]) -> T:
        while True:
            sleep(every)
            try:
                return self.look()
            except StorageError as error:
                tell(f"no answer: {error.message}")
