"""A graph in boxes and lines, for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import or_

from automate_kernel.workflows.definition.graph_layout import Spot, lay_out
from automate_kernel.workflows.definition.structure import topological_order

__all__ = ["draw_text"]

_UP, _DOWN, _LEFT, _RIGHT = 1, 2, 4, 8
_CHARACTERS = {
    _UP | _DOWN: "│",
    _LEFT | _RIGHT: "─",
    _DOWN | _RIGHT: "╭",
    _DOWN | _LEFT: "╮",
    _UP | _RIGHT: "╰",
    _UP | _LEFT: "╯",
    _UP | _DOWN | _RIGHT: "├",
    _UP | _DOWN | _LEFT: "┤",
    _DOWN | _LEFT | _RIGHT: "┬",
    _UP | _LEFT | _RIGHT: "┴",
    _UP | _DOWN | _LEFT | _RIGHT: "┼",
    _UP: "│",
    _DOWN: "│",
    _LEFT: "─",
    _RIGHT: "─",
}


def draw_text(needs: Mapping[str, Sequence[str]], labels: Mapping[str, Sequence[str]]) -> list[str]:
    """The lines of a picture in which each step is a box with the lines of its label."""
    # Odd widths have a middle character.
    widths = {step_id: max(map(len, label)) + 4 for step_id, label in labels.items()}
    odd = {step_id: width + 1 - width % 2 for step_id, width in widths.items()}
    layout = lay_out(needs, {key: float(value) for key, value in odd.items()}, gap=2, thin=1)
    canvas = _Canvas()
    y = 0
    for layer, following in zip(layout.layers, [*layout.layers[1:], []], strict=True):
        height = 2 + max(len(labels[spot.step_id]) for spot in layer if not spot.passage)
        for spot in layer:
            if spot.passage:
                canvas.line(spot.step_id, (_column(spot), y), (_column(spot), y + height - 1))
            else:
                canvas.box(spot, y, height, labels[spot.step_id])
        y += height
        if following:
            y += _connect(canvas, layer, y)
    return canvas.lines()


def _column(spot: Spot) -> int:
    return round(spot.x - 0.5)


def _connect(canvas: _Canvas, layer: Sequence[Spot], y: int) -> int:
    """Draw the lines from *layer* to the one below, from row *y*; returns how many rows."""
    tracks = _tracks([spot for spot in layer if spot.below])
    height = max(tracks.values(), default=-1) + 3
    for spot in layer:
        if not spot.below:
            continue
        start, columns = _column(spot), [_column(each) for each in spot.below]
        row = y + tracks.get(id(spot), 0)
        canvas.line(spot.step_id, (start, y - 1), (start, row))
        canvas.line(spot.step_id, (min(start, *columns), row), (max(start, *columns), row))
        for column in columns:
            canvas.line(spot.step_id, (column, row), (column, y + height - 1))
            canvas.joints.add((column, row))
        for each, column in zip(spot.below, columns, strict=True):
            if not each.passage:
                canvas.arrows.add((column, y + height - 2))
    return height - 1


def _tracks(spots: Sequence[Spot]) -> dict[int, int]:
    """
    The row, from 0, on which each spot's lines run sideways.

    Two lines share a row if they don't meet there, or meet only where both come down to the same
    box. Where a line comes down to a column in which another begins, it must turn below that
    one's turn, or they would look like one.
    """
    later: dict[str, list[str]] = {str(index): [] for index in range(len(spots))}
    for index, spot in enumerate(spots):
        goals = {_column(each) for each in spot.below} - {_column(spot)}
        later[str(index)] += [str(n) for n, other in enumerate(spots) if _column(other) in goals]
    order = [int(key) for key in topological_order(later)]
    # Lines that must all turn below one another can't; they come last, as they are.
    order += [index for index in range(len(spots)) if index not in order]
    rows: dict[int, int] = {}
    for index in order:
        above = [rows[int(other)] + 1 for other in later[str(index)] if int(other) in rows]
        row = max(above, default=0)
        taken = {rows[other] for other in rows if _meet(spots[other], spots[index])}
        while row in taken:
            row += 1
        rows[index] = row
    return {id(spots[index]): row for index, row in rows.items()}


def _meet(one: Spot, other: Spot) -> bool:
    """Whether the lines of both, on one row, would run into each other."""
    first, second = sorted((_span(one), _span(other)))
    if first[1] == second[0]:
        return not any(
            spot in other.below and _column(spot) == first[1] and not spot.passage
            for spot in one.below
        )
    return second[0] <= first[1] + 1


def _span(spot: Spot) -> tuple[int, int]:
    columns = [_column(spot), *(_column(each) for each in spot.below)]
    return min(columns), max(columns)


class _Canvas:
    """
    Characters by place.

    Lines of one owner join where they meet. Those of two pass over each other, except at the
    *joints*, where both come down to the same box.
    """

    def __init__(self) -> None:
        self._text: dict[tuple[int, int], str] = {}
        self._lines: dict[tuple[int, int], dict[str, int]] = {}
        self.arrows: set[tuple[int, int]] = set()
        self.joints: set[tuple[int, int]] = set()

    def line(self, owner: str, start: tuple[int, int], end: tuple[int, int]) -> None:
        """A straight line, both ends included."""
        (x1, y1), (x2, y2) = start, end
        for y in range(y1, y2):
            self._mark(owner, x1, y, _DOWN)
            self._mark(owner, x1, y + 1, _UP)
        for x in range(x1, x2):
            self._mark(owner, x, y1, _RIGHT)
            self._mark(owner, x + 1, y1, _LEFT)

    def _mark(self, owner: str, x: int, y: int, direction: int) -> None:
        owners = self._lines.setdefault((x, y), {})
        owners[owner] = owners.get(owner, 0) | direction

    def box(self, spot: Spot, y: int, height: int, label: Sequence[str]) -> None:
        """A frame with the *label* in it."""
        width = int(spot.width)
        left = _column(spot) - width // 2
        self._write(left, y, "┌" + "─" * (width - 2) + "┐")
        for row in range(height - 2):
            text = label[row] if row < len(label) else ""
            self._write(left, y + row + 1, f"│ {text:<{width - 4}} │")
        self._write(left, y + height - 1, "└" + "─" * (width - 2) + "┘")

    def _write(self, x: int, y: int, text: str) -> None:
        for offset, character in enumerate(text):
            self._text[x + offset, y] = character

    def lines(self) -> list[str]:
        """What was drawn, row by row."""
        places = {*self._text, *self._lines}
        left = min((x for x, _ in places), default=0)
        rows: dict[int, dict[int, str]] = {}
        for x, y in places:
            rows.setdefault(y, {})[x - left] = self._character((x, y))
        return ["".join(rows[y].get(x, " ") for x in range(max(rows[y]) + 1)) for y in sorted(rows)]

    def _character(self, place: tuple[int, int]) -> str:
        text = self._text.get(place)
        if text is not None:
            leaves = place in self._lines and text == "─"
            below = any(mask & _DOWN for mask in self._lines.get(place, {}).values())
            return ("┬" if below else "─") if leaves else text
        if place in self.arrows:
            return "▼"
        masks = list(self._lines[place].values())
        if len(masks) > 1 and place in self.joints:
            return _CHARACTERS[reduce(or_, masks)]
        if len(masks) > 1:
            # Two lines cross: the upright one is drawn, and the other seems to pass under it.
            return "│" if any(mask & (_UP | _DOWN) for mask in masks) else "─"
        return _CHARACTERS[masks[0]]
