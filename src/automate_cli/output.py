"""The output of commands: tables and lines for people, JSON for programs, logs without secrets."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from automate_kernel.base.documents import shown_document
from automate_kernel.monitoring.logs import ContextFilter, JsonFormatter, TextFormatter
from automate_kernel.secrets import RedactingFilter
from automate_kernel.secrets.logs import AllRedactingFilter, continued, printable
from automate_kernel.storage.statuses import ExecutionStatus, StepStatus

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from automate_kernel.kernel import Kernel

_COLOURS = {
    "green": (StepStatus.COMPLETED, "LOADED", "ok"),
    "red": (StepStatus.FAILED, "BROKEN", "fail", "missing", "lost", "failing"),
    "cyan": (StepStatus.RUNNING,),
    "yellow": (
        StepStatus.RETRY,
        StepStatus.WAITING,
        ExecutionStatus.PAUSED,
        ExecutionStatus.CANCELLING,
        "warn",
        "CONFLICT",
        "INCOMPATIBLE",
        "stopping",
    ),
    "magenta": (StepStatus.CANCELLED,),
    "dim": (StepStatus.SKIPPED, "DISABLED"),
}
_STYLES = {word: colour for colour, words in _COLOURS.items() for word in words}


_Read = Callable[[Any], Any]
Columns = Mapping[str, "str | _Read"]
"""The title of each column, with the attribute that it shows, or a function that reads it."""


class Output:
    """
    Prints answers to standard output, and notes to standard error.

    Colours and boxes are for terminals, if it may *colour*; elsewhere, and with NO_COLOR, text is
    plain and nothing is cut off. With *json* only the one document of `data` is printed.
    """

    def __init__(self, *, json: bool = False) -> None:
        self.json = json
        self.colour = True
        self._console: Console | None = None

    @property
    def terminal(self) -> bool:
        """Return True if a person is looking at standard output."""
        return self.colour and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"

    @property
    def console(self) -> Console:
        """The console on standard output."""
        if self._console is None:
            from rich.console import Console

            self._console = Console(highlight=False, soft_wrap=not self.terminal)
        return self._console

    def data(self, value: Any, *, indent: int | None = 2) -> None:
        """Print *value* as JSON, if JSON was asked for; in a line if *indent* is None."""
        if self.json:
            print(as_json(value, indent), flush=True)

    def line(self, text: str = "", style: str | None = None) -> None:
        """Print a line, unless JSON was asked for."""
        if self.json:
            return
        if self.terminal and style:
            self.console.print(text, style=style, markup=False, soft_wrap=True)
        else:
            print(text, flush=True)

    def note(self, text: str) -> None:
        """Print a line to standard error, beside the answer."""
        # In one piece: a thread that logs meanwhile would get into the line.
        print(f"{text}\n", end="", file=sys.stderr, flush=True)

    def table(
        self, columns: Collection[str], rows: Iterable[Sequence[Any]], *, empty: str = "none"
    ) -> None:
        """Print a table, or *empty* if it has no rows."""
        if self.json:
            return
        cells = [[_text(cell) for cell in row] for row in rows]
        if not cells:
            self.line(empty)
        elif self.terminal:
            self.console.print(boxed(columns, cells))
        else:
            for line in _aligned(columns, cells):
                self.line(line)

    def fields(self, pairs: Iterable[tuple[str, Any]]) -> None:
        """Print names and values below each other; a value of None is left out."""
        shown = [(name, _text(value)) for name, value in pairs if value is not None]
        width = max((len(name) for name, _ in shown), default=0)
        for name, value in shown:
            lines = value.split("\n")
            self.line(f"{name:<{width}}  {lines[0]}")
            for line in lines[1:]:
                self.line(f"{'':<{width}}  {line}")

    def listing(
        self, found: Iterable[Any], columns: Columns, empty: str, data: _Read = asdict
    ) -> None:
        """Print each of *found*: as *data* for JSON, else in a row of a table."""
        found = list(found)
        self.data([data(each) for each in found])
        self.table(columns, rows_of(found, columns), empty=empty)

    @contextmanager
    def working(self, text: str) -> Iterator[Callable[[str], None]]:
        """Show a spinner in a terminal during a block, which may change its text."""
        if self.json or not self.terminal:
            yield lambda text: None
        else:
            with self.console.status(text) as status:
                yield status.update


def rows_of(found: Iterable[Any], columns: Columns) -> list[list[Any]]:
    """Return a row for each of *found*."""
    reads = [attrgetter(each) if isinstance(each, str) else each for each in columns.values()]
    return [[read(each) for read in reads] for each in found]


def attributes(one: Any, *names: str) -> dict[str, Any]:
    """Return attributes of *one* by their names."""
    return {name: getattr(one, name) for name in names}


def boxed(
    columns: Iterable[str], rows: Iterable[Sequence[str]], *, live: bool = False
) -> RenderableType:
    """Return a table for a terminal; the figures of a *live* one stand to the right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        figures: dict[str, Any] = {"justify": "right", "no_wrap": True} if live and index else {}
        table.add_column(column, overflow="ellipsis" if live else "fold", **figures)
    for row in rows:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    return table


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return time_of(value)
    if isinstance(value, (dict, list, tuple)):
        value = shown_document(value)
    # Text of others must not move the cursor or change what was printed before.
    return printable(str(value))


def _aligned(columns: Collection[str], rows: Sequence[Sequence[str]]) -> list[str]:
    flat = [[cell.replace("\n", " ") for cell in row] for row in [columns, *rows]]
    widths = [max(len(row[index]) for row in flat) for index in range(len(columns))]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in flat
    ]


def as_json(value: Any, indent: int | None = 2) -> str:
    """Return *value* as a JSON document; times are ISO 8601."""
    return shown_document(value, indent=indent, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if hasattr(value, "to_json"):
        return value.to_json()
    return str(value)


def time_of(moment: datetime | None) -> str:
    """Return *moment* in local time, to the second."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S") if moment is not None else "-"


def seconds(value: float | None) -> str:
    """Return a duration for people: ``35 ms``, ``2.10 s``, ``3 min``, ``2.5 h``."""
    if value is None:
        return "-"
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 120:
        return f"{value:.2f} s"
    return f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.1f} h"


def counted(number: int, noun: str = "item") -> str:
    """Return a number with its noun: ``1 item``, ``2 items``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def ago(moment: datetime | None) -> str:
    """Return the time since *moment*, by this machine's clock: ``3 min ago``."""
    if moment is None:
        return "-"
    return seconds(max(0.0, (datetime.now(timezone.utc) - moment).total_seconds())) + " ago"


_NOISY = ("httpx", "httpcore", "sqlalchemy", "uvicorn", "asyncio")


class _Handler(logging.StreamHandler):  # type: ignore[type-arg]  # none before Python 3.11
    """The handler that is replaced when the level or the filters change."""


class _Brief(logging.Formatter):
    """The message alone: for commands that end at once, whose user can add --debug."""

    def format(self, record: logging.LogRecord) -> str:
        return continued(f"{record.levelname.lower()}: {record.getMessage()}")


_FULL = TextFormatter("%(asctime)s %(levelname)-7s %(message)s", "%Y-%m-%d %H:%M:%S")


def log_to_stderr(
    level: str, filters: Sequence[logging.Filter] = (), *, brief: bool = False, format: str = "text"
) -> None:
    """
    Print log records of *level* and above to standard error, through *filters*.

    When *brief*, without time and traceback; with *format* ``json``, a document a line.
    """
    handler = _Handler(sys.stderr)
    handler.setFormatter(_Brief() if brief else _FULL)
    if format == "json":
        handler.setFormatter(JsonFormatter())
        handler.addFilter(ContextFilter())
    root = logging.getLogger()
    # What hides secrets stays in place, whatever the level is changed to.
    kept = [one for each in root.handlers if type(each) is _Handler for one in each.filters]
    for each in (*kept, *filters):
        if not isinstance(each, (ContextFilter, AllRedactingFilter)):
            handler.addFilter(each)
    handler.addFilter(AllRedactingFilter())
    # Replace only ours: a host's code may have added others.
    root.handlers[:] = [*(each for each in root.handlers if type(each) is not _Handler), handler]
    root.setLevel(level.upper())
    # Below their warnings they are of no use here.
    for name in _NOISY:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


@contextmanager
def kept_logging() -> Iterator[None]:
    """
    Have the logging of the process as it was, after a block that calls `log_to_stderr`.

    A program or a test that runs a command within itself would be silent from then on.
    """
    loggers = [logging.getLogger(), *map(logging.getLogger, _NOISY)]
    levels, handlers = [each.level for each in loggers], loggers[0].handlers[:]
    try:
        yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
        added = [each for each in loggers[0].handlers if type(each) is not _Handler]
        ours = [each for each in handlers if type(each) is _Handler]
        loggers[0].handlers[:] = [*added, *ours]


def redact_logs(kernel: Kernel) -> None:
    """Take the kernel's secrets out of everything that is logged from now on."""
    for handler in logging.getLogger().handlers:
        if type(handler) is _Handler:
            handler.addFilter(RedactingFilter(kernel.redactor))
