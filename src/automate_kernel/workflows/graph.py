"""
Pictures of a workflow: for a terminal, for Mermaid, and as SVG.

Each takes *statuses*, the status of each step by its id, to show how far an execution is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from automate_kernel.workflows.duration import format_duration
from automate_kernel.workflows.execution import StepStatus
from automate_kernel.workflows.graph_svg import draw_svg
from automate_kernel.workflows.graph_text import draw_text
from automate_kernel.workflows.model import (
    EventTrigger,
    ScheduleTrigger,
    Step,
    Trigger,
    WebhookTrigger,
    Workflow,
)

__all__ = ["Statuses", "describe_trigger", "to_mermaid", "to_svg", "to_text"]

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


# SVG -------------------------------------------------------------------------------------------


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


# Mermaid ---------------------------------------------------------------------------------------

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
