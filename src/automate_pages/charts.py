"""
Charts drawn on the server as SVG: pure functions of the figures, without style or script.

The drawing stretches to whatever room it gets, and its labels are HTML beside it, so that they stay
legible on a phone. Colours are tones of the page's style sheet. What a chart shows is also in its
description and in a table below it, for who can't see it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

WIDTH, HEIGHT = 600.0, 160.0
NOTHING = "\N{EN DASH}"
"""Stands where there is no figure."""

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_UNITS = ((1e15, ""), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_X_LABELS = 5

Write = Callable[[float], str]


@dataclass(frozen=True, slots=True)
class Series:
    """One row of figures: None where there is none. *tone* gives its colour."""

    label: str
    values: Sequence[float | None]
    tone: str = "run"


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart as its template wants it. It is *empty* if there is not one figure."""

    title: str
    description: str
    svg: Markup
    series: tuple[Series, ...]
    y_labels: list[str] = field(default_factory=list)
    x_labels: list[str] = field(default_factory=list)
    rows: list[tuple[str, list[str]]] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        """True if there is nothing to draw."""
        return not self.rows


def compact(value: float) -> str:
    """Return a number in few characters: ``950``, ``1.2k``, ``39.8k``, ``4M``, ``7e+15``."""
    size = abs(value)
    if size >= 1e15 or not math.isfinite(value):
        return f"{value:.0e}" if math.isfinite(value) else NOTHING
    for unit, letter in _UNITS[1:]:
        if size >= unit * 0.9995:
            return f"{_short(value / unit)}{letter}"
    return _short(value)


def _short(value: float) -> str:
    """Return three digits of *value*, two of them behind the point at the most."""
    digits = 2 - (abs(value) >= 10) - (abs(value) >= 100)
    return f"{round(value, digits):g}"


def nice_maximum(values: Sequence[float]) -> float:
    """Return the end of an axis that has room for *values*: 1, 2, 2.5 or 5 times a power of ten."""
    highest = max((value for value in values if math.isfinite(value)), default=0.0)
    if highest <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(highest))
    return next(step * power for step in _STEPS if step * power >= highest * 0.999999)


def bars(title: str, labels: Sequence[str], series: Sequence[Series]) -> Chart:
    """Draw figures per *label*, stacked upon each other."""
    totals = [sum(_clean(one.values[i]) or 0.0 for one in series) for i in range(len(labels))]
    top = nice_maximum(totals)
    width = WIDTH / max(1, len(labels))
    gap = min(2.0, width * 0.2)

    def column(i: int) -> Iterator[Markup]:
        base = HEIGHT
        for one in series:
            height = HEIGHT * (_clean(one.values[i]) or 0.0) / top
            if height <= 0:
                continue
            base -= height
            yield Markup(
                '<rect class="bar" data-tone="{}" x="{}" y="{}" width="{}" height="{}"/>'
            ).format(
                one.tone, _at(i * width + gap / 2), _at(base), _at(width - gap), _at(height)
            )  # fmt: skip

    groups = (
        (_said(label, series, i, compact), _joined(column(i)))
        for i, label in enumerate(labels)
        if totals[i] > 0
    )
    drawn = _joined(Markup("<g><title>{}</title>{}</g>").format(*group) for group in groups)
    return _chart(title, labels, series, top, drawn, compact)


def lines(
    title: str, labels: Sequence[str], series: Sequence[Series], *, write: Write = compact
) -> Chart:
    """Draw figures per *label* as lines, with a gap where one is missing."""
    known = [value for one in series for value in map(_clean, one.values) if value is not None]
    top = nice_maximum(known)
    step = WIDTH / max(1, len(labels))
    drawn: list[Markup] = []
    for one in series:
        points = [
            None if value is None else ((i + 0.5) * step, HEIGHT * (1 - value / top))
            for i, value in enumerate(map(_clean, one.values))
        ]
        if path := _path(points):
            drawn.append(
                Markup('<path class="line" data-tone="{}" d="{}"/>').format(one.tone, path)
            )
    # Invisible columns, which show their figures under the pointer.
    hit = Markup('<rect class="hit" x="{}" y="0" width="{}" height="{}"><title>{}</title></rect>')
    drawn += [
        hit.format(_at(i * step), _at(step), _at(HEIGHT), _said(label, series, i, write))
        for i, label in enumerate(labels)
        if any(_clean(one.values[i]) is not None for one in series)
    ]
    return _chart(title, labels, series, top, _joined(drawn), write)


def _joined(parts: Iterable[Markup]) -> Markup:
    return Markup("").join(parts)


def _clean(value: float | None) -> float | None:
    """Return *value* if it can be drawn: no NaN, no infinity, nothing below zero."""
    if value is None or not math.isfinite(value):
        return None
    return max(0.0, value)


def _path(points: Sequence[tuple[float, float] | None]) -> str:
    pieces: list[str] = []
    previous = None
    for i, point in enumerate(points):
        if point is not None:
            pieces.append(f"{'M' if previous is None else 'L'}{_at(point[0])} {_at(point[1])}")
            after = points[i + 1] if i + 1 < len(points) else None
            if previous is None and after is None:
                pieces.append("h0")  # a point by itself: its round cap is a dot
        previous = point
    return "".join(pieces)


def _at(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")


def _said(label: str, series: Sequence[Series], i: int, write: Write) -> str:
    figures = (
        f"{one.label} {write(value)}"
        for one in series
        if (value := _clean(one.values[i])) is not None
    )
    return f"{label}: {', '.join(figures)}"


def _chart(
    title: str,
    labels: Sequence[str],
    series: Sequence[Series],
    top: float,
    drawn: Markup,
    write: Write,
) -> Chart:
    def cell(value: float | None) -> str:
        known = _clean(value)
        return NOTHING if known is None else write(known)

    rows = [
        (label, [cell(one.values[i]) for one in series])
        for i, label in enumerate(labels)
        if any(_clean(one.values[i]) for one in series)
    ]
    description = _description(labels, series, write)
    heights = (("grid", 0.0), ("grid", HEIGHT / 2), ("axis", HEIGHT))
    line = Markup('<line class="{}" x1="0" x2="{}" y1="{}" y2="{}"/>')
    grid = [line.format(kind, _at(WIDTH), _at(y), _at(y)) for kind, y in heights]
    svg = Markup(
        '<svg class="automate-chart" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img"'
        ' aria-label="{}"><desc>{}</desc>{}{}</svg>'
    ).format(_at(WIDTH), _at(HEIGHT), title, description, _joined(grid), drawn)
    y_labels = [write(top), write(top / 2), write(0)]
    last, steps = len(labels) - 1, min(len(labels), _X_LABELS) - 1
    x_labels = [labels[round(last * i / max(1, steps))] for i in range(steps + 1)]
    return Chart(title, description, svg, tuple(series), y_labels, x_labels, rows)


def _description(labels: Sequence[str], series: Sequence[Series], write: Write) -> str:
    said = []
    for one in series:
        known = [(value, i) for i, value in enumerate(map(_clean, one.values)) if value is not None]
        if known:
            highest, i = max(known)
            said.append(f"{one.label}: at most {write(highest)}, at {labels[i]}")
    return ". ".join(said) + "." if said else "No figures yet."
