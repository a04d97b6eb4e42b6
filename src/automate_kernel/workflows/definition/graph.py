"""
Pictures of a workflow: an outline in text, a Mermaid flowchart, and SVG.

Each takes *statuses*, the status of each step by its id, to show how far an execution is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from operator import attrgetter
from types import MappingProxyType
from xml.sax.saxutils import escape, quoteattr

from automate_kernel.base.durations import format_duration
from automate_kernel.workflows.definition.model import CodeWorkflow, Step, Workflow
from automate_kernel.workflows.definition.structure import topological_order
from automate_kernel.workflows.definition.triggers import (
    EventTrigger,
    ScheduleTrigger,
    Trigger,
    WebhookTrigger,
)
from automate_kernel.workflows.execution import StepStatus

__all__ = [
    "STATUS_MARKS",
    "Statuses",
    "StepChange",
    "changed_steps",
    "describe_trigger",
    "to_mermaid",
    "to_svg",
    "to_text",
]

Statuses = Mapping[str, StepStatus | str]


class StepChange(Enum):
    """The difference of a step from the one in a former definition."""

    ADDED = "ADDED"
    REMOVED = "REMOVED"
    CHANGED = "CHANGED"


_State = StepStatus | StepChange
_StepList = tuple[str, Sequence[Step], dict[str, tuple[str, ...]]]

STATUS_MARKS: dict[StepStatus, str] = {
    StepStatus.PENDING: "·",
    StepStatus.RUNNING: "▶",
    StepStatus.RETRY: "↻",
    StepStatus.WAITING: "○",
    StepStatus.COMPLETED: "✓",
    StepStatus.FAILED: "✕",
    StepStatus.SKIPPED: "⇥",
    StepStatus.CANCELLED: "⊘",
}
"""The sign of each status in pictures and on pages. Readers need not tell colours apart."""
_CHANGE_MARKS = {
    StepChange.ADDED: "+",
    StepChange.REMOVED: "\N{MINUS SIGN}",
    StepChange.CHANGED: "~",
}


def describe_trigger(trigger: Trigger) -> str:
    """Write a trigger in a few words: ``event order.created``, ``every 5m``."""
    if isinstance(trigger, EventTrigger):
        return f"event {trigger.event}"
    if isinstance(trigger, WebhookTrigger):
        return f"webhook {trigger.connector}.{trigger.trigger}"
    if isinstance(trigger, ScheduleTrigger):
        if trigger.every is not None:
            return f"every {format_duration(trigger.every)}"
        return f"cron {trigger.cron} ({trigger.timezone})"
    return "manual"


def changed_steps(former: Workflow, workflow: Workflow) -> dict[str, StepChange]:
    """
    Return the steps that differ between two definitions, by their ids.

    A block is changed if a step inside it is, and a step if it waits for others.
    """
    old, new = ({step.id: step for step in each.every_step()} for each in (former, workflow))
    changes = {each: StepChange.REMOVED for each in old if each not in new}
    for step_id, step in new.items():
        if step_id not in old:
            changes[step_id] = StepChange.ADDED
        elif step != old[step_id] or workflow.needs_of(step_id) != former.needs_of(step_id):
            changes[step_id] = StepChange.CHANGED
    return changes


def _lists_of_both(former: Workflow, workflow: Workflow) -> Iterator[_StepList]:
    """Yield the lists of *workflow*, with the steps of *former* that it has no more."""
    kept = {step.id for step in workflow.every_step()}
    before = {title: (steps, needs) for title, steps, needs in _step_lists(former, {})}
    after = {title: (steps, needs) for title, steps, needs in _step_lists(workflow, {})}
    for title in dict.fromkeys([*after, *before]):
        steps, needs = after.get(title, ((), {}))
        removed = [step for step in before.get(title, ((), {}))[0] if step.id not in kept]
        shown = {*needs, *(step.id for step in removed)}
        gone = {
            step.id: tuple(each for each in before[title][1][step.id] if each in shown)
            for step in removed
        }
        # Nothing waits for what is gone, so there is no circle.
        yield title, [*steps, *removed], {**needs, **gone}


def _step_lists(workflow: Workflow, states: Mapping[str, _State]) -> Iterator[_StepList]:
    """Yield a title, the steps below it, and the needs of each."""
    if isinstance(workflow, CodeWorkflow):
        # The function is no graph: the steps that it has called are drawn in their order.
        called = [Step.model_construct(id=step_id, action="") for step_id in states]
        before = [(), *((step.id,) for step in called)]
        if called:
            yield "", called, {step.id: need for step, need in zip(called, before, strict=False)}
        return
    for name, steps in workflow.groups().items():
        if steps:
            title = "" if name == "steps" else name.replace("_", " ")
            yield title, steps, {step.id: workflow.needs_of(step.id) for step in steps}


def _started_by(workflow: Workflow) -> str:
    triggers = ", ".join(map(describe_trigger, workflow.triggers))
    return f"{triggers}; {workflow.code}" if isinstance(workflow, CodeWorkflow) else triggers


def _checked(statuses: Statuses | None) -> dict[str, StepStatus]:
    return {step_id: StepStatus(status) for step_id, status in (statuses or {}).items()}


def _traits(step: Step, states: Mapping[str, _State]) -> list[str]:
    """Return the step's options that differ from the default, in a word each."""
    traits = ["if"] if step.if_ is not None else []
    traits += ["for each"] if step.for_each is not None else []
    if step.loops:
        traits += ["while" if step.while_ is not None else "until"]
        traits += [f"every {_pause(step.every)}"] if step.every is not None else []
        traits += [f"≤ {step.max_rounds} rounds"]
    traits += [f"{step.retry.attempts} attempts"] if step.retry.attempts > 1 else []
    traits += [f"≤ {format_duration(step.timeout)}"] if step.timeout is not None else []
    if step.heartbeat is not None:
        traits.append(f"heard every {format_duration(step.heartbeat)}")
    traits += [f"on {step.runs_on}"] if step.runs_on is not None else []
    traits += ["may fail"] if step.on_failure == "continue" else []
    if step.compensation is not None:
        text = f"undone by {step.compensation.action}"
        traits.append(_with_icon(text, states.get(step.compensation.id)))
    return traits


def _pause(every: float | str) -> str:
    return _short(every, 20) if isinstance(every, str) else format_duration(every)


def _short(text: str, length: int = 36) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _with_icon(text: str, status: _State | None) -> str:
    if status is None:
        return text
    if isinstance(status, StepChange):
        return f"{_CHANGE_MARKS[status]} {text}"
    return f"{STATUS_MARKS[status]} {text}"


def _label(name: str, step: Step, states: Mapping[str, _State]) -> list[str]:
    first = _with_icon(name, states.get(step.id))
    return [first, _short(step.does), " · ".join(_traits(step, states))]


def _depths(needs: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Return the layer of each step, in an order that puts needs first."""
    depths: dict[str, int] = {}
    for step_id in topological_order(needs):
        depths[step_id] = max((depths[need] + 1 for need in needs[step_id]), default=0)
    return depths


# Text -------------------------------------------------------------------------------------------


def to_text(workflow: Workflow, statuses: Statuses | None = None) -> str:
    """
    Write an outline for a terminal: a line for each step, indented below the steps that it needs.

    The line holds the step's action, its options, and the ids that it waits for.
    """
    states = _checked(statuses)
    lines = [f"{workflow.name} ({_started_by(workflow)})"]
    for title, steps, needs in _step_lists(workflow, states):
        lines += [f"\n{title}:"] if title else []
        by_id = {step.id: step for step in steps}
        for step_id, depth in _depths(needs).items():
            step = by_id[step_id]
            first = _with_icon(step_id, states.get(step_id))
            if isinstance(workflow, CodeWorkflow):
                lines.append(f"  {first}")
                continue
            about = "; ".join([step.does, *_traits(step, states)])
            after = f"  after {', '.join(needs[step_id])}" if needs[step_id] else ""
            lines.append(f"{'  ' * (depth + 1)}{first}  [{about}]{after}")
            lines += _text_inside(step, depth + 2)
    return "\n".join(lines) + "\n"


def _text_inside(block: Step, depth: int) -> Iterator[str]:
    """Yield the lines of the steps inside a block, each list below its case."""
    needs = block.inner_needs()
    for place, steps in block.lists.items():
        below = depth
        if block.switch is not None:
            yield f"{'  ' * depth}{' '.join(place[-1:])}:"
            below += 1
        own = {step.id: needs[step.id] for step in steps}
        by_id = {step.id: step for step in steps}
        for step_id, layer in _depths(own).items():
            step = by_id[step_id]
            about = "; ".join([step.does, *_traits(step, {})])
            after = f"  after {', '.join(own[step_id])}" if own[step_id] else ""
            yield f"{'  ' * (below + layer)}· {step_id}  [{about}]{after}"
            yield from _text_inside(step, below + layer + 1)


# Mermaid ----------------------------------------------------------------------------------------

_CLASSES = {
    StepStatus.RUNNING: "fill:#dbeafe,stroke:#1d4ed8,color:#1e3a8a",
    StepStatus.RETRY: "fill:#fef3c7,stroke:#b45309,color:#78350f",
    StepStatus.WAITING: "fill:#ede9fe,stroke:#6d28d9,color:#4c1d95",
    StepStatus.COMPLETED: "fill:#dcfce7,stroke:#15803d,color:#14532d",
    StepStatus.FAILED: "fill:#fee2e2,stroke:#b91c1c,color:#7f1d1d",
    StepStatus.SKIPPED: "fill:#f3f4f6,stroke:#9ca3af,color:#4b5563,stroke-dasharray:4 3",
    StepStatus.CANCELLED: "fill:#e5e7eb,stroke:#6b7280,color:#374151",
}


def to_mermaid(workflow: Workflow, statuses: Statuses | None = None) -> str:
    """Write a Mermaid flowchart, which GitHub and many wikis show as a picture."""
    states = _checked(statuses)
    # Ids of our own: a step may be called "end", which Mermaid doesn't survive.
    lists = list(_step_lists(workflow, states))
    every = (step for _, own, _ in lists for step in own)
    names = {step.id: f"s{n}" for n, step in enumerate(every)}
    lines = ["flowchart TD", f"  start([{_quoted(_started_by(workflow))}])"]
    for title, steps, needs in lists:
        indent = "    " if title else "  "
        lines += [f'  subgraph {title.replace(" ", "_")}["{title}"]'] if title else []
        lines += [indent + names[s.id] + _mermaid_box(s, states) for s in steps]
        arrows = [(need, step_id) for step_id, own in needs.items() for need in own]
        lines += [f"{indent}{names[need]} --> {names[step_id]}" for need, step_id in arrows]
        if title:
            lines.append("  end")
        else:
            lines += [f"  start --> {names[step_id]}" for step_id, own in needs.items() if not own]
    used = [status for status in _CLASSES if status in states.values()]
    lines += [f"  classDef {status.value.lower()} {_CLASSES[status]}" for status in used]
    return "\n".join(lines) + "\n"


def _mermaid_box(step: Step, states: Mapping[str, StepStatus]) -> str:
    status = states.get(step.id)
    opening, closing = ("[[", "]]") if step.repeats else ("[", "]")
    text = _quoted("\n".join(filter(None, _label(_short(step.id), step, states))))
    styled = f":::{status.value.lower()}" if status in _CLASSES and status else ""
    return f"{opening}{text}{closing}{styled}"


def _quoted(text: str) -> str:
    escaped = "".join(
        c if c.isalnum() or c in " .,:_-/·✓✕○▶↻⇥⊘≤…()\n" else f"#{ord(c)};" for c in text
    )
    return '"' + escaped.replace("\n", "<br/>") + '"'


# SVG --------------------------------------------------------------------------------------------

_MARGIN, _HEADER, _LINE, _BETWEEN, _GAP = 24, 64, 19, 36, 28
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
#{id} .RETRY rect, #{id} .WAITING rect {{ stroke: var(--wait); stroke-width: 2.5; }}
#{id} .SKIPPED rect, #{id} .CANCELLED rect {{ stroke-dasharray: 5 4; }}
#{id} .ADDED rect {{ stroke: var(--ok); stroke-width: 3; }}
#{id} .CHANGED rect {{ stroke: var(--wait); stroke-dasharray: 12 3; stroke-width: 2.5; }}
#{id} .REMOVED rect {{ stroke: var(--bad); stroke-dasharray: 3 4; stroke-width: 2; }}
#{id} .REMOVED .name {{ text-decoration: line-through; }}
""".strip()


def to_svg(
    workflow: Workflow,
    statuses: Statuses | None = None,
    *,
    former: Workflow | None = None,
    styled: bool = True,
    links: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """
    Draw a picture that stands on its own, in a page or as a file.

    It has a title and a text for screen readers, and follows the reader's light or dark scheme.
    It holds no script. *links* are addresses of steps by their ids. If it is not *styled*, it holds
    no style and no heading either, for a page that has its own: the page's style sheet styles
    ``svg.automate-graph``. With a *former* definition, steps are marked as added, changed or
    removed since.
    """
    states: Mapping[str, _State] = _checked(statuses)
    lists = list(_step_lists(workflow, states))
    if former is not None:
        states = changed_steps(former, workflow)
        lists = list(_lists_of_both(former, workflow))
    title, subtitle = workflow.title or workflow.name, _started_by(workflow)
    heads = [_text(_MARGIN, _MARGIN + 16, title, "head"),
             _text(_MARGIN, _MARGIN + 38, subtitle, "soft")] if styled else []  # fmt: skip
    top, widest, body = float(_MARGIN + (_HEADER if heads else 0)), 0.0, []
    for heading, steps, needs in lists:
        if heading:
            body.append(_text(_MARGIN, top, heading, "soft"))
            top += 18
        labels = {s.id: _label(_short(s.name or s.id, 32), s, states) for s in steps}
        widths = {key: max(120.0, _PER_LETTER * max(map(len, labels[key])) + 28) for key in labels}
        layers, width = lay_out(needs, widths, gap=_GAP, thin=8)
        drawing = _Drawing(labels, states, links, top)
        body.append(drawing.group(layers))
        widest = max(widest, width)
        top += len(layers) * (drawing.box + _BETWEEN) - _BETWEEN + _MARGIN
    longest = max(_PER_LETTER * 1.3 * len(title), _PER_LETTER * len(subtitle)) if heads else 0.0
    width, height = max(widest, longest) + 2 * _MARGIN, top
    words = _description(subtitle, lists, states)
    # An id of its own keeps the style of one picture from another on the same page.
    own = "wf-" + hashlib.sha256("\n".join([title, *body]).encode()).hexdigest()[:10]
    role = "group" if links else "img"  # what is inside an image is not there for a screen reader
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" id="{own}" class="automate-graph" role="{role}" '
        f'aria-labelledby="{own}-t {own}-d" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}">'
    )
    return "\n".join(
        [
            opening,
            f'<title id="{own}-t">{escape(title)}</title>',
            f'<desc id="{own}-d">{escape(words)}</desc>',
            *([f"<style>{_STYLE.format(id=own)}</style>"] if styled else []),
            '<rect class="paper" width="100%" height="100%"/>',
            *heads,
            *body,
            "</svg>\n",
        ]
    )


def _description(begins: str, lists: Sequence[_StepList], states: Mapping[str, _State]) -> str:
    """Write the whole graph in words."""
    sentences = [f"Starts on: {begins}."]
    for title, _, needs in lists:
        sentences += [f"{title.capitalize()}:"] if title else []
        for step_id, own in needs.items():
            after = f" after {', '.join(own)}" if own else " first"
            status = f" ({states[step_id].value.lower()})" if step_id in states else ""
            sentences.append(f"{step_id}{status}{after}.")
    return " ".join(sentences)


class _Drawing:
    """The boxes and lines of a list of steps, from *top* on; all boxes are of one height."""

    def __init__(
        self,
        labels: Mapping[str, Sequence[str]],
        states: Mapping[str, _State],
        links: Mapping[str, str],
        top: float,
    ) -> None:
        self._labels, self._states, self._links, self._top = labels, states, links, top
        lines = max((sum(map(bool, each)) for each in labels.values()), default=0)
        self.box: int = 15 + _LINE * lines

    def group(self, layers: Sequence[Sequence[Spot]]) -> str:
        edges, boxes = [], []
        for depth, layer in enumerate(layers):
            y = self._top + depth * (self.box + _BETWEEN)
            for spot in layer:
                edges += [self._edge(spot, each, y) for each in spot.below]
                if spot.passage:
                    x = spot.x + _MARGIN
                    edges.append(f'<path class="edge" d="M{x:.1f} {y:.1f}V{y + self.box:.1f}"/>')
                else:
                    boxes.append(self._box(spot, y))
        return "\n".join([*edges, *boxes])

    def _edge(self, upper: Spot, lower: Spot, y: float) -> str:
        x1, x2 = upper.x + _MARGIN, lower.x + _MARGIN
        y1, y2 = y + self.box, y + self.box + _BETWEEN
        tip = "" if lower.passage else f'<path class="tip" d="M{x2:.1f} {y2:.1f}l-4.5-8h9z"/>'
        end = y2 if lower.passage else y2 - 7
        middle = (y1 + y2) / 2
        curve = f"M{x1:.1f} {y1:.1f}C{x1:.1f} {middle:.1f} {x2:.1f} {middle:.1f} {x2:.1f} {end:.1f}"
        return f'<path class="edge" d="{curve}"/>{tip}'

    def _box(self, spot: Spot, y: float) -> str:
        left = spot.x - spot.width / 2 + _MARGIN
        lines = [
            _text(left + 14, y + 22 + _LINE * row, line, "soft" if row else "name")
            for row, line in enumerate(filter(None, self._labels[spot.step_id]))
        ]
        status = self._states.get(spot.step_id)
        shown = status.value if status else ""
        name = f"{spot.step_id}: {shown.lower()}" if shown else spot.step_id
        box = (
            f'<g class="{shown}"><title>{escape(name)}</title>'
            f'<rect class="box" x="{left:.1f}" y="{y:.1f}" width="{spot.width:.1f}" '
            f'height="{self.box}" rx="8"/>{"".join(lines)}</g>'
        )
        link = self._links.get(spot.step_id)
        return box if link is None else f"<a href={quoteattr(link)}>{box}</a>"


def _text(x: float, y: float, text: str, style: str) -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


# Layout of the SVG ------------------------------------------------------------------------------

_SWEEPS = 4


@dataclass(slots=True, eq=False)
class Spot:
    """
    A place in a layer: a step's box, or the passage of a line to a lower layer.

    *x* is its middle. All lines that leave a step share one way down, so a layer has at most one
    passage per step.
    """

    step_id: str
    passage: bool
    width: float
    x: float = 0.0
    below: list[Spot] = field(default_factory=list)
    above: list[Spot] = field(default_factory=list)


def lay_out(
    needs: Mapping[str, Sequence[str]], widths: Mapping[str, float], *, gap: float, thin: float
) -> tuple[list[list[Spot]], float]:
    """
    Give every step of an acyclic graph a spot, in layers, each step below all that it needs.

    Returns the layers from top to bottom, each from left to right, and the width of them all.
    *gap* is left between neighbours, and *thin* is the width of a line that passes through.
    """
    layers = _layers(needs, widths, thin)
    above, below = attrgetter("above"), attrgetter("below")
    down = [(layer, above) for layer in layers[1:]]
    up = [(layer, below) for layer in reversed(layers[:-1])]
    for layer, near in (down + up) * _SWEEPS:
        _sort(layer, [_middle(near(spot)) for spot in layer])
    for layer, near in [(layer, above) for layer in layers] + (up + down) * _SWEEPS:
        _place(layer, [_middle(near(spot)) for spot in layer], gap)
    return layers, _shift_to_zero(layers)


def _layers(
    needs: Mapping[str, Sequence[str]], widths: Mapping[str, float], thin: float
) -> list[list[Spot]]:
    depth = _depths(needs)
    layers: list[list[Spot]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    last: dict[str, list[Spot]] = {}  # each step's box and the passages under it
    for step_id in needs:
        spot = Spot(step_id, passage=False, width=widths[step_id])
        layers[depth[step_id]].append(spot)
        last[step_id] = [spot]
    for step_id, own in needs.items():
        for need in own:
            way = last[need]
            while len(way) < depth[step_id] - depth[need]:
                passage = Spot(need, passage=True, width=thin)
                layers[depth[need] + len(way)].append(passage)
                _join(way[-1], passage)
                way.append(passage)
            _join(way[depth[step_id] - depth[need] - 1], last[step_id][0])
    return layers


def _join(upper: Spot, lower: Spot) -> None:
    upper.below.append(lower)
    lower.above.append(upper)


def _middle(spots: Sequence[Spot]) -> float | None:
    return sum(spot.x for spot in spots) / len(spots) if spots else None


def _sort(layer: list[Spot], wanted: Sequence[float | None]) -> None:
    """Reorder *layer* by where each spot is wanted; None leaves it where it is."""
    for spot, want in zip(layer, wanted, strict=True):
        spot.x = spot.x if want is None else want
    layer.sort(key=attrgetter("x"))
    for position, spot in enumerate(layer):
        spot.x = float(position)


def _place(layer: list[Spot], wanted: Sequence[float | None], gap: float) -> None:
    """
    Move each spot as near to where it is wanted as order and gaps allow.

    Least squares under an order is isotonic regression: neighbours that would overlap are
    pooled, and a pool stands at the mean of what its members want.
    """
    offset, offsets = 0.0, []
    for position, spot in enumerate(layer):
        if position:
            offset += (layer[position - 1].width + spot.width) / 2 + gap
        offsets.append(offset)
    pools: list[list[float]] = []  # each the sum and the number of what its members want
    for spot, want, start in zip(layer, wanted, offsets, strict=True):
        pools.append([(spot.x if want is None else want) - start, 1.0])
        while len(pools) > 1 and pools[-2][0] / pools[-2][1] > pools[-1][0] / pools[-1][1]:
            total, count = pools.pop()
            pools[-1][0] += total
            pools[-1][1] += count
    means = [total / count for total, count in pools for _ in range(int(count))]
    for spot, mean, start in zip(layer, means, offsets, strict=True):
        spot.x = mean + start


def _shift_to_zero(layers: Sequence[Sequence[Spot]]) -> float:
    spots = [spot for layer in layers for spot in layer]
    left = min((spot.x - spot.width / 2 for spot in spots), default=0.0)
    for spot in spots:
        spot.x -= left
    return max((spot.x + spot.width / 2 for spot in spots), default=0.0)
