"""
What templates say about steps: names that don't exist, and steps that may not have finished.

Only the names are looked at; whether a template can be compiled is the template engine's to say.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from automate_kernel.errors import did_you_mean
from automate_kernel.workflows.definition.model import Step, Workflow
from automate_kernel.workflows.definition.structure import Path, Problem, ancestors

__all__ = ["reference_problems", "template_texts", "texts_of"]


def texts_of(value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    """Every text in a JSON tree that stands at *path*, with its own path."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from texts_of(item, (*path, key))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from texts_of(item, (*path, index))


def template_texts(workflow: Workflow) -> Iterator[tuple[Path, str]]:
    """Every text of *workflow* that may be a template, with its path in the definition."""
    many = len(workflow.triggers) > 1
    for index, trigger in enumerate(workflow.triggers):
        place: Path = ("trigger", index) if many else ("trigger",)
        yield from texts_of(trigger.if_, (*place, "if"))
    for group in ("steps", "on_failure"):
        for index, step in enumerate(getattr(workflow, group)):
            for name, value in _templates_of(step):
                yield from texts_of(value, (group, index, name))
    yield from texts_of(workflow.output, ("output",))


def _templates_of(step: Step) -> tuple[tuple[str, Any], ...]:
    return ("if", step.if_), ("for_each", step.for_each), ("input", step.input)


def reference_problems(workflow: Workflow) -> list[Problem]:
    """What the templates of *workflow* name without being able to see it."""
    seen = _Sight(workflow)
    problems: list[Problem] = []
    for path, text in template_texts(workflow):
        for step_id in _steps_named(text, bare=path[-1] == "if"):
            problem = seen.step_problem(path, step_id)
            if problem:
                problems.append(problem)
        problems += seen.name_problems(path, text)
    return problems


class _Sight:
    """Which steps and names each place of a workflow can see."""

    def __init__(self, workflow: Workflow) -> None:
        self._groups = {"steps": workflow.steps, "on_failure": workflow.on_failure}
        self._main = [step.id for step in workflow.steps]
        self._all = [*self._main, *(step.id for step in workflow.on_failure)]
        self._before = ancestors({step_id: workflow.needs_of(step_id) for step_id in self._all})

    def step_problem(self, path: Path, step_id: str) -> Problem | None:
        if path[0] == "trigger":
            return Problem(
                path,
                "a trigger's condition can't see steps",
                "move it into the 'if' of the first step",
            )
        if step_id not in self._all:
            hint = did_you_mean(step_id, self._all) or f"there is {', '.join(map(repr, self._all))}"
            return Problem(path, f"names the step {step_id!r}, which does not exist", hint)
        if step_id in self._visible(path):
            return None
        own = self._step(path)
        if own is not None and own.id == step_id:
            return Problem(path, "a step can't see its own output", "name an earlier step")
        hint = f"add {step_id!r} to needs"
        if path[0] != "on_failure" and step_id not in self._main:
            hint = "steps under on_failure run only after these"
        elif own is not None and own.id in self._before[step_id]:
            hint = f"{step_id!r} waits for this step: change their order"
        return Problem(path, f"names the step {step_id!r}, which may not have finished", hint)

    def _visible(self, path: Path) -> Collection[str]:
        own = self._step(path)
        if own is None:
            return self._main
        before = self._before[own.id]
        return before | set(self._main) if path[0] == "on_failure" else before

    def _step(self, path: Path) -> Step | None:
        group = self._groups.get(str(path[0]))
        return group[int(path[1])] if group else None

    def name_problems(self, path: Path, text: str) -> Iterator[Problem]:
        step = self._step(path)
        names = _free_names(text, bare=path[-1] == "if")
        if "error" in names and path[0] != "on_failure":
            yield Problem(path, "'error' is known under on_failure only", "use steps.<id>.error")
        looped = step is not None and step.for_each is not None and path[2] == "input"
        for name in sorted(names & {"item", "index"}):
            if not looped:
                message = f"{name!r} is known in the input of a step with for_each only"
                yield Problem(path, message, "add for_each to the step, or use another name")


def _parse(text: str, *, bare: bool) -> Any:
    """The syntax tree of a template, or None if it has none; *bare* text is an expression."""
    if "{{" not in text and "{%" not in text:
        if not bare:
            return None
        text = "{{ (" + text + ") }}"
    import jinja2

    try:
        return jinja2.Environment().parse(text)  # noqa: S701 - parsed, never rendered
    except jinja2.TemplateError:
        return None  # the engine's check tells what is wrong
    except RecursionError:
        return None


def _steps_named(text: str, *, bare: bool) -> list[str]:
    """The ids in ``steps.ID`` and ``steps['ID']``, each once."""
    tree = _parse(text, bare=bare) if "steps" in text else None
    if tree is None:
        return []
    from jinja2 import nodes

    ids: dict[str, None] = {}
    for node in tree.find_all((nodes.Getattr, nodes.Getitem)):
        if not (isinstance(node.node, nodes.Name) and node.node.name == "steps"):
            continue
        if isinstance(node, nodes.Getattr):
            ids[node.attr] = None
        elif isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str):
            ids[node.arg.value] = None
    return list(ids)


def _free_names(text: str, *, bare: bool) -> set[str]:
    """The names that a template takes from outside."""
    if not any(name in text for name in ("item", "index", "error")):
        return set()
    tree = _parse(text, bare=bare)
    if tree is None:
        return set()
    from jinja2 import nodes

    # jinja2.meta would compile the template, and so refuse filters that only the host knows.
    uses = list(tree.find_all(nodes.Name))
    assigned = {node.name for node in uses if node.ctx != "load"}
    return {node.name for node in uses} - assigned
