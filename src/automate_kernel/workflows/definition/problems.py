"""
What is wrong with a definition, in words that say what to do.

Turns pydantic's errors into `Problem`, and problems into one `WorkflowError` that tells all of
them, each with its file, line and field. No message shows what a field held, except for the short
words that have to be among a few.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import getitem
from typing import Any

from pydantic import BaseModel, ValidationError

from automate_kernel.errors import WorkflowError, did_you_mean
from automate_kernel.workflows.definition.document import Document
from automate_kernel.workflows.definition.model import RetryPolicy, Step, Workflow
from automate_kernel.workflows.definition.structure import Path, Problem
from automate_kernel.workflows.definition.triggers import trigger_types

__all__ = ["Finding", "find", "invalid", "problems_of", "show_path"]


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem with its place for people: ``orders.yaml:12: steps.notify.timeout: …``."""

    source: str
    line: int | None
    field: str
    message: str
    hint: str | None

    def __str__(self) -> str:
        place = self.source if self.line is None else f"{self.source}:{self.line}"
        parts = [place, self.field, self.message]
        text = ": ".join(part for part in parts if part)
        return f"{text} ({self.hint})" if self.hint else text


def find(problems: Iterable[Problem], document: Document, source: str) -> list[Finding]:
    """The *problems* of a *document* with their lines and fields, in the order of the text."""
    findings: dict[Finding, None] = {}
    for problem in problems:
        hint = problem.hint
        other = document.line(problem.see) if problem.see else None
        if other is not None:
            hint = f"{hint}; the other is on line {other}"
        line = problem.line or document.line(problem.path)
        field = show_path(problem.path, document.value)
        findings[Finding(source, line, field, problem.message, hint)] = None
    return sorted(findings, key=lambda each: each.line or 0)


def invalid(findings: Sequence[Finding], what: str) -> WorkflowError:
    """The error that tells all *findings*; its details hold them for programs."""
    number = "1 problem" if len(findings) == 1 else f"{len(findings)} problems"
    lines = [f"{what} is not valid: {number}", *(f"  {finding}" for finding in findings)]
    details = [
        {"source": f.source, "line": f.line, "field": f.field, "message": f.message, "hint": f.hint}
        for f in findings
    ]
    return WorkflowError("\n".join(lines), details={"problems": details})


def show_path(path: Path, value: Any = None) -> str:
    """*path* for people; the steps of the definition *value* are called by their ids."""
    text = ""
    for part in path:
        if isinstance(value, (list, tuple)) and isinstance(part, int) and part < len(value):
            value = value[part]
        else:
            value = value.get(part) if isinstance(value, Mapping) else None
        if isinstance(part, str):
            text += f".{part}" if text else part
        elif text in ("steps", "on_failure") and _has_id(value):
            text += f".{value['id']}"
        else:
            text += f"[{part}]"
    return text


def _has_id(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("id"), str) and value["id"] != ""


# From pydantic ---------------------------------------------------------------------------------


def problems_of(error: ValidationError, value: Any) -> list[Problem]:
    """What pydantic found in the definition *value*, in our words."""
    errors = error.errors(include_url=False, include_input=False)
    problems = [_problem(dict(each), value) for each in errors]
    return list(dict.fromkeys(problems))


@dataclass(frozen=True, slots=True)
class _Case:
    """One of pydantic's errors: where, with what figures, about which value of what definition."""

    path: Path
    context: Mapping[str, Any]
    value: Any
    definition: Any


_Words = tuple[str, str | None]


def _problem(error: dict[str, Any], definition: Any) -> Problem:
    path = _real_path(error["loc"], definition)
    context = error.get("ctx", {})
    kind: str = error["type"]
    if kind in _WORDING:
        message, hint = _WORDING[kind](_Case(path, context, _at(definition, path), definition))
    elif kind.endswith("_type") or kind in ("is_instance_of", "sequence_str"):
        message, hint = _wrong_type(path, kind, _at(definition, path))
    else:
        path = (*path, *context.get("at", ()))
        message, hint = str(error["msg"]), context.get("hint")
    return Problem(path, message, hint, see=context.get("see"))


def _real_path(location: Path, definition: Any) -> Path:
    """The *location* that pydantic gives, without what stands in its schema only."""
    if location[:1] != ("trigger",) or len(location) < 2:
        return location
    many = isinstance(definition, Mapping) and isinstance(definition.get("trigger"), (list, tuple))
    index = location[1:2] if many else ()
    # Next comes the tag of the union, which is no key, then what is inside.
    return ("trigger", *index, *location[3:])


def _at(value: Any, path: Path) -> Any:
    """What stands at *path* in *value*, or None."""
    try:
        return reduce(getitem, path, value)
    except (KeyError, IndexError, TypeError):
        return None


def _model_at(path: Path, definition: Any) -> type[BaseModel] | None:
    """The model of the mapping at *path*."""
    if not path:
        return Workflow
    if path[-1] == "retry":
        return RetryPolicy
    if path[0] in ("steps", "on_failure") and len(path) == 2:
        return Step
    if path[0] == "trigger":
        trigger = _at(definition, path)
        return (
            trigger_types().get(str(trigger.get("type"))) if isinstance(trigger, Mapping) else None
        )
    return None


def _fields(model: type[BaseModel]) -> list[str]:
    return [str(f.validation_alias or name) for name, f in model.model_fields.items()]


# What other tools call our fields.
_ELSEWHERE = {
    "uses": "action",
    "run": "action",
    "call": "action",
    "task": "action",
    "with": "input",
    "inputs": "input",
    "args": "input",
    "arguments": "input",
    "params": "input",
    "parameters": "input",
    "depends_on": "needs",
    "dependencies": "needs",
    "after": "needs",
    "when": "if",
    "condition": "if",
    "on": "trigger",
    "triggers": "trigger",
    "jobs": "steps",
    "tasks": "steps",
    "retries": "retry",
    "loop": "for_each",
    "foreach": "for_each",
    "with_items": "for_each",
    "max_attempts": "attempts",
    "max_retries": "attempts",
    "interval": "every",
    "schedule": "cron",
    "tz": "timezone",
    "outputs": "output",
    "on_error": "on_failure",
    "finally": "on_failure",
    "if_": "if",
    "max_parallel": "concurrency",
    "parallel": "concurrency",
}


def _unknown_field(case: _Case) -> _Words:
    model = _model_at(case.path[:-1], case.definition)
    if model is None:
        return "is not a field here", "take it out"
    known, key = _fields(model), str(case.path[-1])
    meant = _ELSEWHERE.get(key)
    hint = f"here it is called {meant!r}" if meant in known else did_you_mean(key, known)
    return "there is no such field", hint or f"the fields are {', '.join(known)}"


_EXAMPLES = {
    "name": "name: order-notify",
    "trigger": "trigger: {type: event, event: order.created}",
    "steps": "steps: [{id: notify, action: http.post}]",
    "id": "id: notify",
    "action": "action: http.post",
    "event": "event: order.created",
    "connector": "connector: github",
}


def _missing(case: _Case) -> _Words:
    example = _EXAMPLES.get(str(case.path[-1]))
    return "is missing", f"add it: {example}" if example else "add it"


def _choice(case: _Case) -> _Words:
    expected = str(case.context["expected"]).replace("'", "").replace(" or ", ", ")
    near = did_you_mean(case.value, expected.split(", ")) if isinstance(case.value, str) else ""
    return f"must be one of {expected}", near or None


def _trigger_type(case: _Case) -> _Words:
    types = list(trigger_types())
    tag = case.context.get("tag")
    if tag is None:
        keys = case.value if isinstance(case.value, Mapping) else {}
        guess = next((name for name, key in _TELLS.items() if key in keys), None)
        return "its type is missing", f"add type: {guess or ', or '.join(types)}"
    message = f"there is no trigger type {str(tag)[:40]!r}"
    return message, did_you_mean(str(tag), types) or f"the types are {', '.join(types)}"


_TELLS = {"event": "event", "webhook": "connector", "schedule": "cron"}


def _pattern(case: _Case) -> _Words:
    if case.path[-1] == "action":
        return (
            "is no name of an action",
            "write connector.action, for example http.post: letters, digits, _ and - between dots",
        )
    return "must start with a letter or _, and hold letters, digits, _ and - only", None


def _bound(words: str, key: str) -> Callable[[_Case], _Words]:
    def wording(case: _Case) -> _Words:
        bound = case.context[key]
        number = int(bound) if float(bound).is_integer() else bound
        unit = " s" if case.path[-1] in ("timeout", "every", "delay", "max_delay") else ""
        return f"must be {words} {number}{unit}", None

    return wording


def _empty(case: _Case) -> _Words:
    remedy = "take it out, or name codes" if case.path[-1] == "on" else "fill it in"
    return "must not be empty", remedy


def _long(case: _Case) -> _Words:
    return f"must not be longer than {case.context['max_length']} characters", None


_WORDING: dict[str, Callable[[_Case], _Words]] = {
    "extra_forbidden": _unknown_field,
    "missing": _missing,
    "literal_error": _choice,
    "enum": _choice,
    "union_tag_invalid": _trigger_type,
    "union_tag_not_found": _trigger_type,
    "string_pattern_mismatch": _pattern,
    "greater_than_equal": _bound("at least", "ge"),
    "greater_than": _bound("more than", "gt"),
    "less_than_equal": _bound("at most", "le"),
    "string_too_short": _empty,
    "too_short": _empty,
    "string_too_long": _long,
}

_KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "true or false"),
    (int, "a number"),
    (float, "a number"),
    (str, "text"),
    (Mapping, "a mapping"),
    ((list, tuple), "a list"),
)
_WANTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}


def _wrong_type(path: Path, kind: str, value: Any) -> _Words:
    wanted = _WANTED.get(kind, "a list")
    got = next((name for types, name in _KINDS if isinstance(value, types)), "nothing")
    hint = None
    if path[-1:] == ("retry",):
        hint = "for example retry: {attempts: 5}"
    elif path[-1:] in (("steps",), ("on_failure",)):
        hint = "write each step as '- id: …'"
    elif path[:1] in (("steps",), ("on_failure",)) and len(path) == 2:
        hint = "a step has an id and an action"
    elif path[:1] == ("trigger",) and (len(path) == 1 or wanted == "a mapping"):
        hint = f"for example {_EXAMPLES['trigger']}"
    elif wanted == "a list":
        hint = "put it in brackets: [a, b]"
    elif wanted == "text" and got == "a number":
        hint = "put it in quotes"
    elif got == "text":
        hint = "take its quotes away, or write one"
    elif got == "nothing":
        hint = "give it a value, or take it out"
    return f"must be {wanted}, not {got}", hint
