"""``automate top``: an overview of outbox, workers and executions, once or again and again."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from automate_cli.command import Commands, Context
from automate_cli.inputs import flag, option
from automate_cli.output import Columns, Output, boxed, counted, rows_of, seconds
from automate_kernel.base.errors import StorageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from automate_cli.observing import NameOverview, Overview
    from automate_kernel.kernel import Kernel
    from automate_kernel.outbox import WorkerInfo
    from automate_kernel.workflows.store.statistics import ExecutionCounts

app: Commands = Commands()
T = TypeVar("T")


@app.called("automate top", "automate top --once", "automate top --every 10 --json")
def top(
    context: Context,
    every: float = option(2.0, "Seconds between two looks.", min=0.2),
    once: bool = flag("--once", "Look once, and end."),
) -> None:
    """
    Show rates, latencies and failures of items and workflows, and workers, live until Ctrl-C.

    It reads the reports that workers write every few seconds, so it works from any machine that
    reaches the database. Without a terminal it prints a line for each look, and with --json a
    document.
    """
    # Without --once it sees what others will store: in the file, which it makes.
    kernel, out = context.session.plain if once else context.session.storing, context.out
    look, where = observing(kernel), kernel.storage.describe()
    if once:
        found = look()
        out.data(as_data(found))
        _show(out, found, where)
        return

    def draw(found: Snapshot) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        title = Text(_headline(found.outbox, where), style="bold")
        tables = _tables(found, out.console.width)
        return Group(title, *(boxed(columns, rows, live=True) for columns, rows, _ in tables))

    Watch(out, look, draw, in_a_line, as_data).run(every)


class Snapshot(NamedTuple):
    """The result of one look: the outbox with its workers, and the executions by workflow."""

    outbox: Overview
    workflows: list[NameOverview[ExecutionCounts]]


def observing(kernel: Kernel) -> Callable[[], Snapshot]:
    """Return a function that looks at *kernel*, again and again."""
    from automate_cli.observing import ExecutionObserver, Observer

    outbox, executions = Observer(kernel.outbox), ExecutionObserver(kernel.executions)

    def look() -> Snapshot:
        found = outbox.look()
        return Snapshot(found, executions.look(found.at))

    return look


def as_data(snapshot: Snapshot) -> dict[str, Any]:
    """Return everything in *snapshot*, ready for JSON."""
    found = snapshot.outbox
    return {
        "at": found.at,
        "rate": round(found.rate, 3),
        "oldest_due_seconds": found.oldest_due_seconds,
        "paused": list(found.paused),
        "kinds": [_figures(kind, _KINDS) for kind in found.kinds],
        "workflows": [_figures(workflow, _WORKFLOWS) for workflow in snapshot.workflows],
        "workers": [worker_data(worker) for worker in found.workers],
    }


def _figures(of: NameOverview[Any], fields: _Fields) -> dict[str, Any]:
    return {name: _figure(of, name) for _, name, *_ in fields}


def _figure(of: Any, name: str) -> Any:
    """Return what is called *name* in JSON; its end says how it is found."""
    what, _, end = name.rpartition("_")
    if end in ("p50", "p95"):
        percentile = getattr(of.recent, f"{'run' if what == 'took' else what}_percentile")
        return percentile(int(end[1:]) / 100)
    if end == "minute":
        return round(of.per_minute(getattr(of.recent, name.removesuffix("_per_minute"))), 3)
    return round(of.rate, 3) if name == "rate" else getattr(of, _NAMED.get(name, name))


def worker_data(worker: WorkerInfo) -> dict[str, Any]:
    """Return a worker, ready for JSON."""
    return {**asdict(worker), "state": _state(worker)}


def _state(worker: WorkerInfo) -> str:
    if worker.lost:
        return "lost"
    if worker.problem is not None:
        return "failing"
    return "stopping" if worker.stopping else "ok"


# -- for people -----------------------------------------------------------------------------------


def _latency(value: float | None) -> str:
    """Write a duration with two digits, however short it is."""
    return f"{value * 1000:.2g} ms" if value is not None and value < 0.1 else seconds(value)


def _number(value: float) -> str:
    """Write a number short enough for a narrow column."""
    return f"{value:.0f}" if value >= 100 or value == 0 else f"{value:.1f}"


def _rate(value: float) -> str:
    return f"{_number(value)}/s"


_Fields = tuple[tuple["str | None", str, Callable[[Any], str], bool], ...]
_WIDE = 120
# Of a column: its title or None, the name of its values in JSON, and the function that writes them.
# The last says if a terminal that is narrower than _WIDE shows it.
_STANDING: _Fields = (
    ("RUNNING", "running", str, True),
    ("WAITING", "waiting", str, True),
    ("FAILED", "failed", str, True),
    ("FAIL/MIN", "failed_per_minute", _number, True),
)
_KINDS: _Fields = (
    ("KIND", "kind", str, True),
    ("RATE", "rate", _rate, True),
    ("RUN P50", "run_p50", _latency, True),
    ("RUN P95", "run_p95", _latency, True),
    ("WAIT P50", "wait_p50", _latency, False),
    ("WAIT P95", "wait_p95", _latency, True),
    *_STANDING,
    ("RETRY/MIN", "retried_per_minute", _number, False),
    ("LOST/MIN", "lost_per_minute", _number, False),
    (None, "paused", str, False),
)
_WORKFLOWS: _Fields = (
    ("WORKFLOW", "workflow", str, True),
    ("RATE", "rate", _rate, True),
    ("TOOK P50", "took_p50", _latency, False),
    ("TOOK P95", "took_p95", _latency, True),
    *_STANDING,
    (None, "cancelled_per_minute", _number, False),
    (None, "step_p50", _latency, False),
    ("STEP P95", "step_p95", _latency, False),
    ("STEP FAIL/MIN", "steps_failed_per_minute", _number, True),
    ("STEP RETRY/MIN", "steps_retried_per_minute", _number, False),
)
_NAMED = {"kind": "name", "workflow": "name"}
NO_WORKER = "no worker is running"
_Table = tuple[Collection[str], list[list[str]], str]


def _tables(snapshot: Snapshot, width: int = _WIDE) -> Iterator[_Table]:
    """Yield titles and rows of kinds, workflows and workers, and the words for none of them."""
    found, columns = as_data(snapshot), worker_columns(snapshot.outbox.at)
    for kind in found["kinds"]:
        kind["kind"] += " (paused)" if kind["paused"] else ""
    yield _table(_KINDS, found["kinds"], width)
    if snapshot.workflows:
        yield _table(_WORKFLOWS, found["workflows"], width)
    yield columns, rows_of(snapshot.outbox.workers, columns), NO_WORKER


def _table(fields: _Fields, found: list[dict[str, Any]], width: int) -> _Table:
    kept = [each for each in fields if each[0] and (each[3] or width >= _WIDE)]
    rows = [[write(one[name]) for _, name, write, _ in kept] for one in found]
    return [str(title) for title, *_ in kept], rows, "the outbox is empty"


def in_a_line(snapshot: Snapshot) -> str:
    """Return the most important figures in a line."""
    found = snapshot.outbox
    p95 = [each.recent.run_percentile(0.95) for each in found.kinds]
    slowest = max((each for each in p95 if each is not None), default=None)
    parts = (
        found.at.astimezone().strftime("%H:%M:%S"),
        _rate(found.rate),
        f"run p95 {_latency(slowest)}",
        f"{sum(each.running for each in found.kinds)} running",
        f"{sum(each.waiting for each in found.kinds)} waiting",
        f"{sum(each.failed for each in found.kinds)} failed",
        f"{sum(each.failed for each in snapshot.workflows)} executions failed",
        f"oldest due {seconds(found.oldest_due_seconds)}",
        counted(len(found.alive), "worker"),
    )
    return "  ".join(parts)


def _headline(found: Overview, where: str) -> str:
    lost = sum(worker.lost for worker in found.workers)
    failing = sum(_state(worker) == "failing" for worker in found.workers)
    gone = [f"{number} {word}" for number, word in ((lost, "lost"), (failing, "failing")) if number]
    parts = [
        where,
        _rate(found.rate),
        counted(len(found.alive), "worker") + (f" ({', '.join(gone)})" if gone else ""),
        f"{sum(w.in_flight for w in found.alive)} of {sum(w.slots for w in found.alive)} slots",
        f"oldest due {seconds(found.oldest_due_seconds)}",
    ]
    if found.handed_over:
        parts.append(f"{found.handed_over} handed over")
    if found.paused:
        parts.append(f"paused: {', '.join(found.paused)}")
    return " · ".join(parts)


def _show(out: Output, snapshot: Snapshot, where: str) -> None:
    out.line(_headline(snapshot.outbox, where))
    for index, (columns, rows, empty) in enumerate(_tables(snapshot)):
        if index:
            out.line()
        out.table(columns, rows, empty=empty)


def worker_columns(now: datetime) -> Columns:
    """Return the columns of a table of workers."""
    return {
        "WORKER": "id",
        "HOST": "host",
        "PID": lambda each: str(each.pid),
        "UP": lambda each: _since(each.started_at, now),
        "RUNNING": lambda each: str(each.in_flight),
        "SLOTS": lambda each: str(each.slots),
        "SEEN": lambda each: f"{_since(each.seen_at, now)} ago",
        "STATE": _state,
    }


def _since(moment: datetime | None, now: datetime) -> str:
    return seconds(None if moment is None else max(0.0, (now - moment).total_seconds()))


@dataclass
class Watch(Generic[T]):
    """
    Shows the result of *look*, every few seconds until Ctrl-C.

    A terminal shows *picture* in place, on a screen of its own. Elsewhere each look prints the text
    of *line*, or with JSON the document of *data*. While the database is away it says so and waits.
    """

    out: Output
    look: Callable[[], T]
    picture: Callable[[T], RenderableType]
    line: Callable[[T], str]
    data: Callable[[T], Any]

    def run(self, every: float, *, sleep: Callable[[float], Any] = time.sleep) -> None:
        """Look every *every* seconds until Ctrl-C; the first look may raise."""
        with contextlib.suppress(KeyboardInterrupt):
            if self.out.terminal and not self.out.json:
                self._in_place(every, sleep)
            else:
                self._line_by_line(every, sleep)

    def _line_by_line(self, every: float, sleep: Callable[[float], Any]) -> None:
        found = self.look()
        while True:
            self.out.data(self.data(found), indent=None)
            self.out.line(self.line(found))
            found = self._again(every, sleep, self.out.note)

    def _in_place(self, every: float, sleep: Callable[[float], Any]) -> None:
        from rich.console import Group
        from rich.live import Live
        from rich.text import Text

        found = self.look()
        # Not refreshed on a thread of its own: only a new result is worth drawing.
        live = Live(self.picture(found), console=self.out.console, screen=True, auto_refresh=False)

        def warn(text: str) -> None:
            live.update(Group(self.picture(found), Text(text, style="red")), refresh=True)

        try:
            # Not a with: Ctrl-C in the middle of the start must give the screen back as well.
            live.start(refresh=True)
            while True:
                found = self._again(every, sleep, warn)
                live.update(self.picture(found), refresh=True)
        finally:
            live.stop()

    def _again(self, every: float, sleep: Callable[[float], Any], warn: Callable[[str], None]) -> T:
        while True:
            sleep(every)
            try:
                return self.look()
            except StorageError as error:
                warn(f"no answer: {error.message}")
