"""A graph as SVG that stands on its own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

from automate_kernel.workflows.graph_layout import Layout, Spot, lay_out

__all__ = ["Group", "draw_svg"]

Group = tuple[str, Mapping[str, Sequence[str]], Mapping[str, Sequence[str]]]
"""A title (or none), each step's needs, and the three lines of each step's label."""

_MARGIN, _HEADER, _BOX, _BETWEEN, _GAP = 24, 64, 72, 48, 28
_PER_LETTER = 7.6  # a little more than the widest usual sans-serif font takes at 13 px

_STYLE = """
#{id} {{ font: 13px system-ui, sans-serif; --ink: #1f2937; --soft: #6b7280; --line: #9ca3af;
  --paper: #ffffff; --box: #f9fafb;
  --ok: #15803d; --bad: #b91c1c; --busy: #1d4ed8; --wait: #b45309; }}
@media (prefers-color-scheme: dark) {{
  #{id} {{ --ink: #f3f4f6; --soft: #9ca3af; --line: #6b7280; --paper: #111827; --box: #1f2937;
    --ok: #4ade80; --bad: #f87171; --busy: #60a5fa; --wait: #fbbf24; }}
}}
#{id} .paper {{ fill: var(--paper); }}
#{id} text {{ fill: var(--ink); }}
#{id} .head {{ font-size: 16px; font-weight: 600; }}
#{id} .name {{ font-weight: 600; }}
#{id} .soft {{ fill: var(--soft); font-size: 12px; }}
#{id} .edge {{ fill: none; stroke: var(--line); stroke-width: 1.5; }}
#{id} .tip {{ fill: var(--line); }}
#{id} rect.box {{ fill: var(--box); stroke: var(--line); stroke-width: 1.5; }}
#{id} .COMPLETED rect {{ stroke: var(--ok); }}
#{id} .FAILED rect {{ stroke: var(--bad); stroke-width: 2.5; }}
#{id} .RUNNING rect {{ stroke: var(--busy); stroke-width: 2.5; }}
#{id} .RETRY rect {{ stroke: var(--wait); stroke-width: 2.5; }}
#{id} .SKIPPED rect, #{id} .CANCELLED rect {{ stroke-dasharray: 5 4; }}
""".strip()


def draw_svg(
    title: str,
    subtitle: str,
    groups: Sequence[Group],
    statuses: Mapping[str, str],
    *,
    styled: bool = True,
) -> str:
    """The picture of *groups* of steps, one below the other, under a heading."""
    top, widest, body = float(_HEADER + _MARGIN), 0.0, []
    for group_title, needs, labels in groups:
        if group_title:
            body.append(_text(_MARGIN, top, group_title, "soft"))
            top += 18
        widths = {key: max(120.0, _PER_LETTER * max(map(len, labels[key])) + 28) for key in labels}
        layout = lay_out(needs, widths, gap=_GAP, thin=8)
        body.append(_group(layout, labels, statuses, top))
        widest = max(widest, layout.width)
        top += len(layout.layers) * (_BOX + _BETWEEN) - _BETWEEN + _MARGIN
    heading = max(_PER_LETTER * 1.3 * len(title), _PER_LETTER * len(subtitle))
    width, height = max(widest, heading) + 2 * _MARGIN, top
    # An id of its own keeps the style of one picture from another on the same page.
    own = "wf-" + hashlib.sha256("\n".join([title, *body]).encode()).hexdigest()[:10]
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" id="{own}" class="automate-graph" role="img" '
        f'aria-labelledby="{own}-t {own}-d" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}">'
    )
    return "\n".join(
        [
            opening,
            f'<title id="{own}-t">{escape(title)}</title>',
            f'<desc id="{own}-d">{escape(_description(subtitle, groups, statuses))}</desc>',
            *([f"<style>{_STYLE.format(id=own)}</style>"] if styled else []),
            '<rect class="paper" width="100%" height="100%"/>',
            _text(_MARGIN, _MARGIN + 16, title, "head"),
            _text(_MARGIN, _MARGIN + 38, subtitle, "soft"),
            *body,
            "</svg>\n",
        ]
    )


def _description(subtitle: str, groups: Sequence[Group], statuses: Mapping[str, str]) -> str:
    """The whole graph in words."""
    sentences = [f"Starts on: {subtitle}."]
    for title, needs, _ in groups:
        sentences += [f"{title.capitalize()}:"] if title else []
        for step_id, own in needs.items():
            after = f" after {', '.join(own)}" if own else " first"
            status = f" ({statuses[step_id].lower()})" if step_id in statuses else ""
            sentences.append(f"{step_id}{status}{after}.")
    return " ".join(sentences)


def _group(
    layout: Layout,
    labels: Mapping[str, Sequence[str]],
    statuses: Mapping[str, str],
    top: float,
) -> str:
    edges, boxes = [], []
    for depth, layer in enumerate(layout.layers):
        y = top + depth * (_BOX + _BETWEEN)
        for spot in layer:
            edges += [_edge(spot, each, y) for each in spot.below]
            if spot.passage:
                x = spot.x + _MARGIN
                edges.append(f'<path class="edge" d="M{x:.1f} {y:.1f}V{y + _BOX:.1f}"/>')
            else:
                boxes.append(_box(spot, y, labels[spot.step_id], statuses.get(spot.step_id, "")))
    return "\n".join([*edges, *boxes])


def _edge(upper: Spot, lower: Spot, y: float) -> str:
    x1, x2 = upper.x + _MARGIN, lower.x + _MARGIN
    y1, y2 = y + _BOX, y + _BOX + _BETWEEN
    tip = "" if lower.passage else f'<path class="tip" d="M{x2:.1f} {y2:.1f}l-4.5-8h9z"/>'
    end = y2 if lower.passage else y2 - 7
    middle = (y1 + y2) / 2
    curve = f"M{x1:.1f} {y1:.1f}C{x1:.1f} {middle:.1f} {x2:.1f} {middle:.1f} {x2:.1f} {end:.1f}"
    return f'<path class="edge" d="{curve}"/>{tip}'


def _box(spot: Spot, y: float, label: Sequence[str], status: str) -> str:
    left = spot.x - spot.width / 2 + _MARGIN
    lines = [
        _text(left + 14, y + 24 + 19 * row, line, "soft" if row else "name")
        for row, line in enumerate(label)
        if line
    ]
    name = f"{spot.step_id}: {status.lower()}" if status else spot.step_id
    return (
        f'<g class="{status}"><title>{escape(name)}</title>'
        f'<rect class="box" x="{left:.1f}" y="{y:.1f}" width="{spot.width:.1f}" '
        f'height="{_BOX}" rx="8"/>{"".join(lines)}</g>'
    )


def _text(x: float, y: float, text: str, style: str) -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'
