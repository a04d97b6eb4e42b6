"""Formats of the pages: durations, ages, statuses, numbers, long text."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from markupsafe import Markup, escape

from automate_kernel.kernel import Kernel
from automate_kernel.monitoring.waiting import WaitReason, first_waits
from automate_kernel.secrets.masking import hide_named
from automate_kernel.storage.statuses import ExecutionStatus, StepStatus
from automate_kernel.workflows.definition.graph import STATUS_MARKS
from automate_kernel.workflows.execution import Execution

NOTHING = "\N{EN DASH}"
"""Stands where there is no value."""
MOST = 20_000
"""The number of characters of one value that a page shows."""

_OK = (StepStatus.COMPLETED, "LOADED", "ALIVE", "CONNECTED")
_BAD = (StepStatus.FAILED, "BROKEN", "LOST", "FAILING", "CONFLICT", "INCOMPATIBLE", "ENDED")
_WARN = (
    StepStatus.RETRY, StepStatus.WAITING, ExecutionStatus.PAUSED, ExecutionStatus.CANCELLING,
    "STOPPING", "DRAFT",
)  # fmt: skip
_TONES: dict[str, str] = {
    **dict.fromkeys(_OK, "ok"),
    **dict.fromkeys(_BAD, "bad"),
    **dict.fromkeys(_WARN, "warn"),
    StepStatus.RUNNING: "run",
}
_MARKS = {
    **{status.value: mark for status, mark in STATUS_MARKS.items()},
    ExecutionStatus.PAUSED: "\N{DOUBLE VERTICAL LINE}",
    ExecutionStatus.CANCELLING: STATUS_MARKS[StepStatus.CANCELLED],
    "DRAFT": "\N{LOWER RIGHT PENCIL}",
    "OFF": "\N{WHITE SQUARE}",
}
# A value of more lines is closed at first.
_CLOSED_FROM = 12
_UNITS = ((86_400.0, "d", 3_600.0, "h"), (3_600.0, "h", 60.0, "min"), (60.0, "min", 1.0, "s"))


@dataclass(frozen=True, slots=True)
class ShownValue:
    """Text for a page; if it was *cut*, *length* is how long the whole is."""

    text: str
    length: int
    cut: bool = False

    def __str__(self) -> str:
        return self.text

    def __bool__(self) -> bool:
        return bool(self.text)


def shown_json(kernel: Kernel, value: Any) -> ShownValue:
    """
    Return a JSON value as indented text.

    What the redactor knows is taken out first, and so is whatever stands under a name like
    ``password`` or ``api_key``: the redactor of this process knows only the secrets that this
    process has used.
    """
    return _cut(json_text(kernel, value), MOST)


def json_text(kernel: Kernel, value: Any) -> str:
    """Return all of a JSON value as `shown_json` shows its beginning."""
    clean = hide_named(kernel.redactor.redact_value(value))
    return json.dumps(clean, indent=2, ensure_ascii=False)


def shown_tree(kernel: Kernel, value: Any) -> Markup:
    """
    Return a JSON value as text that folds: what is long inside of it is closed at first.

    Secrets are taken out as in `shown_json`. Its text alone is the JSON, so that it can be copied.
    """
    clean = hide_named(kernel.redactor.redact_value(value))
    return Markup("").join(_tree(clean, "", "", _Room(MOST)))


@dataclass(slots=True)
class _Room:
    """The number of characters that are left for a tree."""

    left: int

    def take(self, text: str) -> str:
        shown = text[: max(0, self.left)]
        self.left -= len(text)
        return shown if self.left >= 0 else f"{shown}…"


def _tree(value: Any, before: str, after: str, room: _Room) -> Iterator[Markup]:
    """Yield *value* between the texts *before* and *after* it, a line for each entry."""
    indent = " " * (len(before) - len(before.lstrip(" ")))
    entries = list(_entries(value))
    text = f"{before}{json.dumps(value, indent=2, ensure_ascii=False)}{after}"
    lines = text.count("\n")
    if not entries or lines <= _CLOSED_FROM or room.left <= 0:
        if room.left > 0:
            yield escape(room.take(text.replace("\n", f"\n{indent}")) + "\n")
        return
    begin, end = "{}" if isinstance(value, dict) else "[]"
    told = f"{len(entries):,} {'field' if isinstance(value, dict) else 'element'}s"
    opening = Markup('<details><summary data-count="{}">{}</summary>').format(
        told, f"{before}{begin}\n"
    )
    yield opening if before or indent else escape(f"{begin}\n")
    for number, (name, each) in enumerate(entries, 1):
        comma = "" if number == len(entries) else ","
        yield from _tree(each, f"{indent}  {name}", comma, room)
        if room.left <= 0:
            break
    closing = Markup("{}</details>") if before or indent else Markup("{}")
    yield closing.format(f"{indent}{end}{after}\n")


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, each in value.items():
            yield f"{json.dumps(name, ensure_ascii=False)}: ", each
    elif isinstance(value, list):
        yield from (("", each) for each in value)


def shown_text(kernel: Kernel, text: str | None, most: int = MOST) -> ShownValue:
    """Return an error or a traceback, without what the redactor knows."""
    return _cut(kernel.redactor.redact(text or ""), most)


def shown_labels(kernel: Kernel, labels: Any) -> list[str]:
    """Return labels as text, without secrets: ``order=4711``."""
    given = hide_named(labels) if isinstance(labels, dict) else {}
    return [shown_text(kernel, f"{name}={value}").text for name, value in given.items()]


def shown_reasons(kernel: Kernel, reasons: Iterable[WaitReason]) -> list[str]:
    """Return why something waits, without what the redactor knows."""
    lines = []
    for each in reasons:
        until = "" if each.until is None else f" Until {each.until:%Y-%m-%d %H:%M:%S} UTC."
        lines.append(" ".join(filter(None, (each.text + until, each.hint))))
    return [shown_text(kernel, line).text for line in lines]


def first_waits_shown(kernel: Kernel, executions: Sequence[Execution]) -> dict[str, str]:
    """Return what each of *executions* has waited for longest, in words, by their ids."""
    found = first_waits(kernel, executions)
    return {each: " ".join(shown_reasons(kernel, [reason])) for each, reason in found.items()}


def _cut(text: str, most: int) -> ShownValue:
    return ShownValue(text[:most], len(text), len(text) > most)


def tone(status: Any) -> str:
    """Return the tone of a status, for ``data-tone``: ok, bad, warn, run or nothing."""
    return _TONES.get(str(status).upper(), "")


def mark(status: Any) -> Markup:
    """Return the shape of a status."""
    shape = _MARKS.get(str(status).upper(), "")
    return Markup('<span aria-hidden="true">{}</span>').format(shape)


def badge(status: Any) -> Markup:
    """Return a status as a mark and a word, which say all that the colour does."""
    text = str(status)
    mark = _MARKS.get(text.upper(), "")
    return Markup(
        '<span class="badge" data-tone="{}"><span aria-hidden="true">{}</span> {}</span>'
    ).format(tone(text), mark, text)


def duration(seconds: Any) -> str:
    """Format seconds for people: ``340 ms``, ``12.4 s``, ``3 min 20 s``, ``2 d 4 h``."""
    try:
        value = float(seconds)
    except (TypeError, ValueError):
        return NOTHING
    if value < 0:
        return f"-{duration(-value)}"
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 60:
        return f"{value:.3g} s"
    for size, unit, smaller_size, smaller in _UNITS:
        if value >= size:
            whole, rest = divmod(value, size)
            part = int(rest // smaller_size)
            return f"{whole:,.0f} {unit} {part} {smaller}" if part else f"{whole:,.0f} {unit}"
    return f"{value:.0f} s"  # NaN


def utc(moment: datetime) -> datetime:
    """Return *moment* as it is: the pages have times in UTC, unless their host has another."""
    return moment


def ago(moment: datetime | None, local: Callable[[datetime], datetime] = utc) -> Markup | str:
    """Format the time since or until *moment*, with the instant itself, *local*, as the title."""
    if moment is None:
        return NOTHING
    passed = round((datetime.now(timezone.utc) - moment).total_seconds())
    text = f"{duration(passed)} ago" if passed > 0 else f"in {duration(-passed)}"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        moment.isoformat(),
        local(moment).strftime("%Y-%m-%d %H:%M:%S %Z"),
        text if passed else "now",
    )


def shorten(text: Any, length: int = 160) -> str:
    """Return the beginning of *text*, on one line."""
    line = " ".join(str("" if text is None else text).split())
    return line if len(line) <= length else f"{line[: length - 1].rstrip()}…"


def number(value: Any) -> str:
    """Return a number with its thousands apart: ``39,800``."""
    return f"{value or 0:,}"


def short_id(value: Any) -> Markup:
    """Return both ends of an id, which differ from its neighbours'; the whole as the title."""
    text = str(value)
    shown = f"{text[:8]}…{text[-6:]}" if len(text) == 36 else text
    return Markup('<code class="quiet id" title="{}">{}</code>').format(text, shown)
