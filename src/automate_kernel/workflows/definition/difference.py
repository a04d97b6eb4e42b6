"""The differences between two definitions of a workflow, by step and field."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from automate_kernel.workflows.definition.graph import describe_trigger
from automate_kernel.workflows.definition.model import Step, Workflow

__all__ = ["Change", "differences_between"]

_LONGEST = 100
_ABSENT = object()


@dataclass(frozen=True, slots=True)
class Change:
    """
    One difference: its place (``steps.notify.input.text``), and the values before and after.

    *kind* is ``added``, ``removed``, ``changed`` or ``moved``.
    """

    kind: str
    place: str
    before: Any = None
    after: Any = None

    def __str__(self) -> str:
        if self.kind == "added":
            return f"+ {self.place}: {_shown(self.after)}"
        if self.kind == "removed":
            return f"- {self.place}: {_shown(self.before)}"
        if self.kind == "moved":
            return f"~ {self.place}: {self.after}"
        return f"~ {self.place}: {_shown(self.before)} → {_shown(self.after)}"


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = text.replace("\n", "⏎")
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def differences_between(before: Workflow, after: Workflow) -> list[Change]:
    """
    Return the differences between two definitions, in the order of a definition's fields.

    Steps are compared by their ids, wherever they stand, and by the steps that they wait for: a
    step without ``needs`` has another one when a step is put before it.
    """
    old, new = before.to_dict(), after.to_dict()
    changes: list[Change] = []
    for name in dict.fromkeys([*old, *new]):
        if name == "trigger":
            changes += _trigger_changes(before, after, old[name], new[name])
        elif name != "output" and _holds_steps(old.get(name) or new.get(name)):
            changes += _step_changes(name, before, after, old.get(name, ()), new.get(name, ()))
        else:
            changes += _changes(name, old.get(name, _ABSENT), new.get(name, _ABSENT))
    return changes


def _holds_steps(value: Any) -> bool:
    first = value[0] if isinstance(value, list) and value else None
    return isinstance(first, Mapping) and "id" in first


def _changes(place: str, old: Any, new: Any) -> Iterator[Change]:
    if old is _ABSENT:
        if new is not _ABSENT:
            yield Change("added", place, after=new)
    elif new is _ABSENT:
        yield Change("removed", place, before=old)
    elif isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in dict.fromkeys([*old, *new]):
            yield from _changes(f"{place}.{key}", old.get(key, _ABSENT), new.get(key, _ABSENT))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from _changes(f"{place}[{index}]", one, other)
    elif json.dumps(old) != json.dumps(new):  # in Python 1, 1.0 and True are the same
        yield Change("changed", place, old, new)


def _trigger_changes(before: Workflow, after: Workflow, old: Any, new: Any) -> Iterator[Change]:
    if len(before.triggers) == len(after.triggers) == 1:
        if old["type"] == new["type"]:
            yield from _changes("trigger", old, new)
        else:
            yield Change("changed", "trigger", *map(_told, (before, after)))
        return
    olds = [json.dumps(one, sort_keys=True) for one in (old if isinstance(old, list) else [old])]
    news = [json.dumps(one, sort_keys=True) for one in (new if isinstance(new, list) else [new])]
    for text, trigger in zip(olds, before.triggers, strict=True):
        if text not in news:
            yield Change("removed", "trigger", before=describe_trigger(trigger))
    for text, trigger in zip(news, after.triggers, strict=True):
        if text not in olds:
            yield Change("added", "trigger", after=describe_trigger(trigger))


def _told(workflow: Workflow) -> str:
    return ", ".join(map(describe_trigger, workflow.triggers))


def _step_changes(
    group: str,
    before: Workflow,
    after: Workflow,
    old: Sequence[Mapping[str, Any]],
    new: Sequence[Mapping[str, Any]],
) -> Iterator[Change]:
    olds = {step["id"]: _spoken_out(before, step) for step in old}
    news = {step["id"]: _spoken_out(after, step) for step in new}
    for step_id in olds:
        if step_id not in news:
            yield Change("removed", f"{group}.{step_id}", before=_gist(before, step_id))
    for step_id, step in news.items():
        place = f"{group}.{step_id}"
        if step_id not in olds:
            yield Change("added", place, after=_gist(after, step_id))
            continue
        own = olds[step_id]
        spoken = own.pop("needs", None), step.pop("needs", None)
        yield from _own_changes(place, own, step)
        yield from _needs_changes(place, step_id, before, after, spoken)
    yield from _moved(group, list(olds), list(news))


def _own_changes(place: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    """Yield the changes of a step's own fields, then of the steps inside it, by their ids."""
    inner = _inner_lists(old), _inner_lists(new)
    fields = ({name: step[name] for name in step if name not in _LISTS} for step in (old, new))
    yield from _changes(place, *fields)
    for name in dict.fromkeys([*inner[0], *inner[1]]):
        olds, news = (
            {step["id"]: {key: step[key] for key in step if key != "id"} for step in steps}
            for steps in (inner[0].get(name, ()), inner[1].get(name, ()))
        )
        for step_id in dict.fromkeys([*olds, *news]):
            its = f"{place}.{name}.{step_id}"
            if step_id in olds and step_id in news:
                yield from _own_changes(its, olds[step_id], news[step_id])
            else:
                yield from _changes(its, olds.get(step_id, _ABSENT), news.get(step_id, _ABSENT))
        yield from _moved(f"{place}.{name}", list(olds), list(news))


_LISTS = ("steps", "cases", "default")


def _inner_lists(step: Mapping[str, Any]) -> dict[str, Sequence[Mapping[str, Any]]]:
    """Return the lists of steps inside a step, by their places in it."""
    lists = {name: step[name] for name in ("steps", "default") if name in step}
    return lists | {f"cases.{case}": steps for case, steps in step.get("cases", {}).items()}


def _needs_changes(
    place: str, step_id: str, before: Workflow, after: Workflow, spoken: tuple[Any, Any]
) -> Iterator[Change]:
    old, new = sorted(before.needs_of(step_id)), sorted(after.needs_of(step_id))
    if old != new:
        yield Change("changed", f"{place}.needs", old, new)
    elif (spoken[0] is None) != (spoken[1] is None) and old:
        # It waits for the same steps; but who names them is skipped with them.
        words = "the step before", "named"
        shown = words if spoken[0] is None else words[::-1]
        yield Change("changed", f"{place}.needs", *(f"{old} ({each})" for each in shown))


def _moved(group: str, old: list[str], new: list[str]) -> Iterator[Change]:
    """Yield a change if the steps that both have stand in another order."""
    kept, now = [each for each in old if each in new], [each for each in new if each in old]
    if kept != now:
        order = " ".join(now)
        yield Change("moved", group, " ".join(kept), f"the order is now {order}")


def _spoken_out(workflow: Workflow, step: Mapping[str, Any]) -> dict[str, Any]:
    """Return a step's fields; a retry says its attempts, even if they are the usual number."""
    if "retry" not in step:
        return dict(step)
    attempts = workflow.step(step["id"]).retry.attempts
    return {**step, "retry": {"attempts": attempts, **step["retry"]}}


def _gist(workflow: Workflow, step_id: str) -> dict[str, Any]:
    step: Step = workflow.step(step_id)
    data = step.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return {key: value for key, value in _spoken_out(workflow, data).items() if key != "id"}
