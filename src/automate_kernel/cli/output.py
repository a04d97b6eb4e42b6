"""What commands print: tables and lines for people, JSON for programs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from automate_kernel.secrets.logs import printable

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["STYLES", "Output", "ago", "aligned", "as_json", "counted", "seconds", "time_of"]

STYLES = {
    "COMPLETED": "green",
    "LOADED": "green",
    "ok": "green",
    "FAILED": "red",
    "BROKEN": "red",
    "fail": "red",
    "missing": "red",
    "RUNNING": "cyan",
    "RETRY": "yellow",
    "warn": "yellow",
    "CONFLICT": "yellow",
    "INCOMPATIBLE": "yellow",
    "CANCELLED": "magenta",
    "SKIPPED": "dim",
    "DISABLED": "dim",
}


class Output:
    """
    Prints to standard output, and what is not the answer itself to standard error.

    Colours and boxes are for terminals; elsewhere, and with NO_COLOR, text is plain and nothing
    is cut off. With *json* only the one document that `data` is given is printed.
    """

    def __init__(self, *, json: bool = False) -> None:
        self.json = json
        self._console: Console | None = None

    @property
    def terminal(self) -> bool:
        """Whether a person is looking at standard output."""
        return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"

    @property
    def console(self) -> Console:
        """The console on standard output."""
        if self._console is None:
            from rich.console import Console

            self._console = Console(highlight=False, soft_wrap=not self.terminal)
        return self._console

    def data(self, value: Any) -> None:
        """Print *value* as JSON, if that was asked for."""
        if self.json:
            self.write(as_json(value))

    def record(self, value: Any) -> None:
        """Print *value* as JSON in a line of its own, if JSON was asked for."""
        if self.json:
            self.write(json.dumps(value, ensure_ascii=False, default=_plain))

    def line(self, text: str = "", style: str | None = None) -> None:
        """Print a line, unless JSON was asked for."""
        if self.json:
            return
        if self.terminal and style:
            self.console.print(text, style=style, markup=False, soft_wrap=True)
        else:
            self.write(text)

    def write(self, text: str) -> None:
        """Print a line to standard output, whatever it is."""
        print(text, flush=True)

    def note(self, text: str) -> None:
        """Print a line to standard error: it is no part of the answer."""
        print(text, file=sys.stderr, flush=True)

    def table(
        self, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str = "none"
    ) -> None:
        """Print a table, or *empty* if it has no rows."""
        if self.json:
            return
        cells = [[_text(cell) for cell in row] for row in rows]
        if not cells:
            self.line(empty)
        elif self.terminal:
            self._boxed(columns, cells)
        else:
            for line in aligned(columns, cells):
                self.line(line)

    def _boxed(self, columns: Sequence[str], rows: list[list[str]]) -> None:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in row))
        self.console.print(table)

    def fields(self, pairs: Iterable[tuple[str, Any]]) -> None:
        """Print names and values below each other; a value of None is left out."""
        shown = [(name, _text(value)) for name, value in pairs if value is not None]
        width = max((len(name) for name, _ in shown), default=0)
        for name, value in shown:
            lines = value.split("\n")
            self.line(f"{name:<{width}}  {lines[0]}")
            for line in lines[1:]:
                self.line(f"{'':<{width}}  {line}")

    def working(self, text: str) -> AbstractContextManager[Any]:
        """A moving sign that something is being done; nothing where nobody looks."""
        if self.json or not self.terminal:
            return nullcontext()
        return self.console.status(text)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return time_of(value)
    if isinstance(value, (dict, list, tuple)):
        value = json.dumps(value, ensure_ascii=False, default=str)
    # What others sent must not move the cursor or change what was printed before.
    return printable(str(value))


def aligned(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a plain table."""
    flat = [[cell.replace("\n", " ") for cell in row] for row in [columns, *rows]]
    widths = [max(len(row[index]) for row in flat) for index in range(len(columns))]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in flat
    ]


def as_json(value: Any) -> str:
    """*value* as a JSON document; times are ISO 8601, and what has fields is an object."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if hasattr(value, "to_json"):
        return value.to_json()
    return str(value)


def time_of(moment: datetime | None) -> str:
    """*moment* in local time, to the second."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S") if moment is not None else "-"


def seconds(value: float | None) -> str:
    """A duration for people: ``35 ms``, ``2.10 s``, ``3 min``, ``2.5 h``."""
    if value is None:
        return "-"
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 120:
        return f"{value:.2f} s"
    return f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.1f} h"


def counted(number: int, noun: str = "item") -> str:
    """``1 item``, ``2 items``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def ago(moment: datetime | None) -> str:
    """How long ago *moment* was, by this machine's clock."""
    if moment is None:
        return "-"
    return seconds(max(0.0, (datetime.now(timezone.utc) - moment).total_seconds())) + " ago"
