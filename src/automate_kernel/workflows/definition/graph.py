"""
Pictures of a workflow: for a terminal, for Mermaid, and as SVG.

Each takes *statuses*, the status of each step by its id, to show how far an execution is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from xml.sax.saxutils import escape

from automate_kernel.workflows.definition.duration import format_duration
from automate_kernel.workflows.definition.graph_layout import Layout, Spot, lay_out
from automate_kernel.workflows.definition.graph_text import draw_text
from automate_kernel.workflows.definition.model import (
    EventTrigger,
    ScheduleTrigger,
    Step,
    Trigger,
    WebhookTrigger,
    Workflow,
)
from automate_kernel.workflows.engine.execution import StepStatus

__all__ = [
    "Group",
    "Statuses",
    "describe_trigger",
    "draw_svg",
    "to_mermaid",
    "to_svg",
    "to_text",
]

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


Statuses = Mapping[str, StepStatus | str]

_ICONS = {
    StepStatus.PENDING: "○",
    StepStatus.RUNNING: "▶",
    StepStatus.RETRY: "↻",
    StepStatus.COMPLETED: "✓",
    StepStatus.FAILED: "✗",
    StepStatus.SKIPPED: "»",
    StepStatus.CANCELLED: "■",
}


def describe_trigger(trigger: Trigger) -> str:
    """What starts the workflow, in a few words: ``event order.created``, ``every 5m``."""
    if isinstance(trigger, EventTrigger):
        return f"event {trigger.event}"
    if isinstance(trigger, WebhookTrigger):
        return f"webhook {trigger.connector}.{trigger.trigger}"
    if isinstance(trigger, ScheduleTrigger):
        if trigger.every is not None:
            return f"every {format_duration(trigger.every)}"
        return f"cron {trigger.cron} ({trigger.timezone})"
    return "manual"


def to_text(workflow: Workflow, statuses: Statuses | None = None, *, width: int = 100) -> str:
    """
    A picture of boxes and lines for a terminal.

    A workflow that is wider than *width* characters comes as a list instead.
    """
    states = _checked(statuses)
    parts = [f"{workflow.name} ({_started_by(workflow)})"]
    for title, steps in (("", workflow.steps), ("on failure", workflow.on_failure)):
        if not steps:
            continue
        needs = {step.id: workflow.needs_of(step.id) for step in steps}
        labels = {step.id: _text_label(step, states) for step in steps}
        parts += [f"\n{title}:"] if title else []
        picture = draw_text(needs, labels)
        if max(map(len, picture)) > width:
            picture = _as_list(steps, needs, labels)
        parts += picture
    return "\n".join(parts) + "\n"


def _started_by(workflow: Workflow) -> str:
    return ", ".join(map(describe_trigger, workflow.triggers))


def _checked(statuses: Statuses | None) -> dict[str, StepStatus]:
    return {step_id: StepStatus(status) for step_id, status in (statuses or {}).items()}


def _traits(step: Step) -> list[str]:
    """What is special about the step, in a word each."""
    traits = ["if"] if step.if_ is not None else []
    traits += ["for each"] if step.for_each is not None else []
    traits += [f"{step.retry.attempts} attempts"] if step.retry.attempts > 1 else []
    traits += [f"≤ {format_duration(step.timeout)}"] if step.timeout is not None else []
    traits += ["may fail"] if step.on_failure == "continue" else []
    return traits


def _short(text: str, length: int = 36) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _text_label(step: Step, states: Mapping[str, StepStatus]) -> list[str]:
    status = states.get(step.id)
    first = _short(step.id) if status is None else f"{_ICONS[status]} {_short(step.id)}"
    traits = _traits(step)
    return [first, _short(step.action), *([" · ".join(traits)] if traits else [])]


def _as_list(
    steps: Iterable[Step], needs: Mapping[str, Sequence[str]], labels: Mapping[str, Sequence[str]]
) -> list[str]:
    lines = []
    for step in steps:
        first, *others = labels[step.id]
        after = f"  after {', '.join(needs[step.id])}" if needs[step.id] else ""
        lines.append(f"  {first}  [{'; '.join(others)}]{after}")
    return lines


def to_svg(workflow: Workflow, statuses: Statuses | None = None, *, styled: bool = True) -> str:
    """
    A picture that stands on its own, in a page or as a file.

    It has a title and a text for screen readers, follows the reader's light or dark scheme, and
    holds no script and no link. Not *styled* it holds no style either, for a page whose policy
    forbids that: the page's own style sheet says how ``svg.automate-graph`` looks.
    """
    states = _checked(statuses)
    groups = []
    for title, steps in (("", workflow.steps), ("on failure", workflow.on_failure)):
        if steps:
            needs = {step.id: workflow.needs_of(step.id) for step in steps}
            groups.append((title, needs, {step.id: _svg_label(step, states) for step in steps}))
    return draw_svg(
        workflow.title or workflow.name,
        _started_by(workflow),
        groups,
        {step_id: status.value for step_id, status in states.items()},
        styled=styled,
    )


def _svg_label(step: Step, states: Mapping[str, StepStatus]) -> list[str]:
    icon = f"{_ICONS[states[step.id]]} " if step.id in states else ""
    name = _short(step.name or step.id, 32)
    return [icon + name, _short(step.action, 36), " · ".join(_traits(step))]


_CLASSES = {
    StepStatus.RUNNING: "fill:#dbeafe,stroke:#1d4ed8,color:#1e3a8a",
    StepStatus.RETRY: "fill:#fef3c7,stroke:#b45309,color:#78350f",
    StepStatus.COMPLETED: "fill:#dcfce7,stroke:#15803d,color:#14532d",
    StepStatus.FAILED: "fill:#fee2e2,stroke:#b91c1c,color:#7f1d1d",
    StepStatus.SKIPPED: "fill:#f3f4f6,stroke:#9ca3af,color:#4b5563,stroke-dasharray:4 3",
    StepStatus.CANCELLED: "fill:#e5e7eb,stroke:#6b7280,color:#374151",
}


def to_mermaid(workflow: Workflow, statuses: Statuses | None = None) -> str:
    """A Mermaid flowchart, which GitHub and many wikis show as a picture."""
    states = _checked(statuses)
    # Ids of our own: a step may be called "end", which Mermaid doesn't survive.
    names = {
        step.id: f"s{number}" for number, step in enumerate([*workflow.steps, *workflow.on_failure])
    }
    lines = ["flowchart TD", f"  start([{_quoted(_started_by(workflow))}])"]
    lines += _mermaid_steps(workflow, workflow.steps, names, states, "  ")
    lines += [f"  start --> {names[s.id]}" for s in workflow.steps if not workflow.needs_of(s.id)]
    if workflow.on_failure:
        lines.append('  subgraph recovery["on failure"]')
        lines += _mermaid_steps(workflow, workflow.on_failure, names, states, "    ")
        lines.append("  end")
    used = [status for status in _CLASSES if status in states.values()]
    lines += [f"  classDef {status.value.lower()} {_CLASSES[status]}" for status in used]
    return "\n".join(lines) + "\n"


def _mermaid_steps(
    workflow: Workflow,
    steps: Sequence[Step],
    names: Mapping[str, str],
    states: Mapping[str, StepStatus],
    indent: str,
) -> list[str]:
    lines = []
    for step in steps:
        opening, closing = ("[[", "]]") if step.for_each is not None else ("[", "]")
        text = _quoted("\n".join(_text_label(step, states)))
        status = states.get(step.id)
        styled = f":::{status.value.lower()}" if status in _CLASSES and status else ""
        lines.append(f"{indent}{names[step.id]}{opening}{text}{closing}{styled}")
    for step in steps:
        lines += [f"{indent}{names[n]} --> {names[step.id]}" for n in workflow.needs_of(step.id)]
    return lines


def _quoted(text: str) -> str:
    escaped = "".join(
        c if c.isalnum() or c in " .,:_-/·✓✗○▶↻»■≤…()\n" else f"#{ord(c)};" for c in text
    )
    return '"' + escaped.replace("\n", "<br/>") + '"'
