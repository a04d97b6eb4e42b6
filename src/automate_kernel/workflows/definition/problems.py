"""
The problems of a definition, in words that help its author.

Errors of pydantic and wrong names in templates become a `DefinitionProblem` each, and all problems
one `WorkflowError`, with file, line and field of each. No message shows the value of a field,
except for the short words that have to be among a few.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from itertools import islice
from operator import getitem
from typing import Any

from pydantic import BaseModel, ValidationError

from automate_kernel.base.durations import parse_duration
from automate_kernel.base.errors import WorkflowError, did_you_mean
from automate_kernel.workflows.definition.admission import START_FIELDS
from automate_kernel.workflows.definition.approval import LINKS, Approval, FormField, Notice
from automate_kernel.workflows.definition.blocks import list_of, lists_around, local_id
from automate_kernel.workflows.definition.document import Document
from automate_kernel.workflows.definition.fields import RetryPolicy
from automate_kernel.workflows.definition.model import Compensation, Step, Workflow
from automate_kernel.workflows.definition.structure import (
    STEP_GROUPS,
    DefinitionProblem,
    FieldPath,
    ancestors,
    kind_of,
)
from automate_kernel.workflows.definition.template_names import (
    NAMES,
    NamesRead,
    Place,
    name_problems,
    names_read,
)
from automate_kernel.workflows.definition.triggers import TRIGGERS
from automate_kernel.workflows.definition.waits import SleepUntil, WaitFor

MOST_PROBLEMS = 100
"""The most problems that one error shows: a file can have more of them than anybody reads."""
_WITHOUT_LINK = frozenset({"title", "description", "expires_at", "position", "to"})
_LONGEST = 500  # characters of a field, a message or a hint


@dataclass(frozen=True, slots=True)
class LocatedProblem:
    """A problem and its place for people: ``orders.yaml:12: steps.notify.timeout: …``."""

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


def locate(
    problems: Iterable[DefinitionProblem], document: Document, source: str
) -> list[LocatedProblem]:
    """Return the *problems* of a *document* with lines and fields, in the order of the text."""
    located: dict[LocatedProblem, None] = {}
    for problem in islice(problems, MOST_PROBLEMS + 1):
        hint = problem.hint
        other = document.line(problem.see) if problem.see else None
        if other is not None:
            hint = f"{hint}; the other is on line {other}"
        line = problem.line or document.line(problem.path)
        field = show_path(problem.path, document.value)
        words = (_shortened(text) for text in (field, problem.message, hint))
        located[LocatedProblem(source, line, *words)] = None
    return sorted(located, key=lambda each: each.line or 0)


def invalid(located: Sequence[LocatedProblem], what: str) -> WorkflowError:
    """Return the error with all *located* problems; its details hold them for programs."""
    shown = located[:MOST_PROBLEMS]
    number = "1 problem" if len(located) == 1 else f"{len(shown)} problems"
    lines = [f"{what} is not valid: {number}", *(f"  {each}" for each in shown)]
    if len(located) > len(shown):
        lines += ["  there are more: mend these first"]
    return WorkflowError("\n".join(lines), details={"problems": [asdict(f) for f in shown]})


def _shortened(text: str | None) -> Any:
    return text if text is None or len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def show_path(path: FieldPath, value: Any = None) -> str:
    """Write *path* for people; steps of the definition *value* are called by their ids."""
    text = ""
    for n, part in enumerate(path):
        value = _at(value, (part,))
        step_id = _at(value, ("id",)) if _of_steps(path[:n]) else None
        if isinstance(part, str):
            text += f".{part}" if text else part
        elif isinstance(step_id, str) and step_id:
            text += f".{step_id}"
        else:
            text += f"[{part}]"
    return text


def _of_steps(path: FieldPath) -> bool:
    """Return True if a list of steps has this path."""
    if not path:
        return False
    inner = path[-1] in ("steps", "default") or path[-2:-1] == ("cases",)
    return (len(path) == 1 and path[0] in STEP_GROUPS) or (path[0] in STEP_GROUPS and inner)


# Errors of pydantic -------------------------------------------------------------------------------


def problems_of(error: ValidationError, value: Any) -> list[DefinitionProblem]:
    """Return the problems that pydantic found in the definition *value*, in our words."""
    errors = error.errors(include_url=False, include_input=False)
    problems = dict.fromkeys(_problem(dict(each), value) for each in errors[: MOST_PROBLEMS + 1])
    return list(problems)


def in_one_line(error: ValidationError, value: Any) -> str:
    """Return the problems that pydantic found in *value* as one text, for an error about it."""
    problems = problems_of(error, value)
    return "; ".join(
        str(LocatedProblem("", None, show_path(each.path, value), each.message, each.hint))
        for each in problems
    )


@dataclass(frozen=True, slots=True)
class _Case:
    """One of pydantic's errors: its place and figures, the value there, and the definition."""

    path: FieldPath
    context: Mapping[str, Any]
    value: Any
    definition: Any


_Words = tuple[str, str | None]


def _problem(error: dict[str, Any], definition: Any) -> DefinitionProblem:
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
    return DefinitionProblem(path, message, hint, see=context.get("see"))


def _real_path(location: FieldPath, definition: Any) -> FieldPath:
    """Return the *location* of pydantic, without the parts that exist in its schema only."""
    if location[:1] != ("trigger",) or len(location) < 2:
        return location
    many = isinstance(definition, Mapping) and isinstance(definition.get("trigger"), (list, tuple))
    index = location[1:2] if many else ()
    # Next comes the tag of the union, which is no key, then what is inside.
    return ("trigger", *index, *location[3:])


def _at(value: Any, path: FieldPath) -> Any:
    """Return the part at *path* in *value*, or None."""
    try:
        return reduce(getitem, path, value)
    except (KeyError, IndexError, TypeError):
        return None


_MODELS: dict[str, type[BaseModel]] = {
    "retry": RetryPolicy, "wait_for": WaitFor, "approval": Approval, "notify": Notice,
}  # fmt: skip


def _model_at(path: FieldPath, definition: Any) -> type[BaseModel] | None:
    """Return the model of the mapping at *path*."""
    if not path:
        return Workflow
    if path[-1] in _MODELS:
        return _MODELS[str(path[-1])]
    if path[-2:-1] == ("form",):
        return FormField
    if len(path) == 1 and path[0] in START_FIELDS:
        return START_FIELDS[str(path[0])]
    if _of_steps(path[:-1]):
        return Step
    if path[-1] == "compensate":
        return Compensation
    if path[0] == "trigger":
        trigger = _at(definition, path)
        return TRIGGERS.get(str(trigger.get("type"))) if isinstance(trigger, Mapping) else None
    return None


# Our fields, each with its names in other tools.
_ELSEWHERE = {
    "action": "uses run call task",
    "input": "with inputs args arguments params parameters payload data body",
    "needs": "depends_on dependencies after",
    "if": "when condition if_",
    "trigger": "on triggers",
    "steps": "jobs tasks",
    "sleep": "delay pause wait_until duration",
    "retry": "retries",
    "for_each": "loop foreach with_items",
    "until": "repeat_until do_until",
    "max_rounds": "max_iterations max_loops limit",
    "attempts": "max_attempts max_retries",
    "every": "interval pause wait_between",
    "cron": "schedule",
    "timezone": "tz",
    "output": "outputs",
    "on_failure": "on_error catch",
    "on_cancel": "on_cancelled on_cancellation",
    "finally": "always ensure finally_ on_exit",
    "compensate": "undo compensation rollback",
    "concurrency": "max_parallel parallel",
    "by": "approvers reviewers assignees users",
    "title": "question message prompt",
    "choices": "options enum",
    "switch": "match choose",
    "default": "otherwise else",
}


def _unknown_field(case: _Case) -> _Words:
    model = _model_at(case.path[:-1], case.definition)
    if model is None:
        return "is not a field here", "take it out"
    known = [str(f.validation_alias or name) for name, f in model.model_fields.items()]
    key = str(case.path[-1])
    meant = next((ours for ours, names in _ELSEWHERE.items() if key in names.split()), None)
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
# Of a field that has the name of one of the workflow's: of a trigger, of an approval's form.
_INNER_EXAMPLES = {"trigger": "trigger: push", "name": "name: amount"}


def _missing(case: _Case) -> _Words:
    inner = _INNER_EXAMPLES if len(case.path) > 1 else {}
    example = {**_EXAMPLES, **inner}.get(str(case.path[-1]))
    return "is missing", f"add it: {example}" if example else "add it"


def _choice(case: _Case) -> _Words:
    expected = str(case.context["expected"]).replace("'", "").replace(" or ", ", ")
    near = did_you_mean(case.value, expected.split(", ")) if isinstance(case.value, str) else ""
    return f"must be one of {expected}", near or None


def _trigger_type(case: _Case) -> _Words:
    types = list(TRIGGERS)
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
            "is not the name of an action",
            "write connector.action, for example http.post: letters, digits, _ and - between dots",
        )
    return "must start with a letter or _, and hold letters, digits, _ and - only", None


def _bound(words: str, key: str) -> Callable[[_Case], _Words]:
    def wording(case: _Case) -> _Words:
        bound = case.context[key]
        number = int(bound) if float(bound).is_integer() else bound
        unit = (
            " s" if case.path[-1] in ("timeout", "heartbeat", "every", "delay", "max_delay") else ""
        )
        return f"must be {words} {number}{unit}", None

    return wording


def _empty(case: _Case) -> _Words:
    remedy = "take it out, or name codes" if case.path[-1] == "on" else "fill it in"
    return "must not be empty", remedy


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
    "string_too_long": lambda case: (
        f"must not be longer than {case.context['max_length']} characters",
        None,
    ),
}

_WANTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}


_SHAPES = {
    "retry": "{attempts: 5}",
    "compensate": "{action: stock.release}",
    "wait_for": "{event: order.paid}",
    "match": '{order: "{{ event.payload.id }}"}',
    "approval": "{title: Refund?}",
    "notify": "{action: mail.send}",
    "cases": "{express: [{id: fly, action: ship.fly}]}",
    "labels": '{order: "{{ event.payload.id }}"}',
    "concurrency": '{limit: 1, key: "{{ event.payload.customer }}"}',
    "rate_limit": "{limit: 10, per: 1m}",
    "debounce": "{for: 10s}",
}


def _wrong_type(path: FieldPath, kind: str, value: Any) -> _Words:
    wanted = _WANTED.get(kind, "a list")
    if path[-1:] == ("[key]",):  # of a mapping made in Python: YAML and JSON give text
        return "each name must be text", "put it in quotes: 'true', say"
    got = kind_of(value)
    first, last = path[:1], path[-1:]
    a_trigger = first == ("trigger",) and (len(path) == 1 or wanted == "a mapping")
    name = str(path[-1]) if path else ""
    hints = (
        (wanted == "a mapping" and name in _SHAPES, f"for example {name}: {_SHAPES.get(name)}"),
        (_of_steps(path), "write each step as '- id: …'"),
        (_of_steps(path[:-1]), "a step has an id and an action"),
        (a_trigger, f"for example {_EXAMPLES['trigger']}"),
        (wanted == "a list", "put it in brackets: [a, b]"),
        (wanted == "text" and got == "a number", "put it in quotes"),
        (last == ("wait",) and _is_duration(value), f"to let time pass write sleep: {value}"),
        (got == "text" and wanted == "true or false", "write true or false, without quotes"),
        (got == "text", "take its quotes away, or write one"),
        (got == "nothing", "give it a value, or take it out"),
    )
    if wanted == "a whole number" and got == "a number":
        got = "one with a fraction"
    return f"must be {wanted}, not {got}", next((hint for fits, hint in hints if fits), None)


def _is_duration(value: Any) -> bool:
    try:
        return not isinstance(value, bool) and parse_duration(value) > 0
    except (ValueError, OverflowError):
        return False


# Names in templates ------------------------------------------------------------------------------


def _texts_of(value: Any, path: FieldPath) -> Iterator[tuple[FieldPath, str]]:
    """Yield every text in a JSON tree at *path*, and keys with a template, with their own paths."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            if "{{" in str(key) or "{%" in str(key):
                yield (*path, key), str(key)
            yield from _texts_of(item, (*path, key))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _texts_of(item, (*path, index))


def template_texts(workflow: Workflow) -> Iterator[tuple[FieldPath, str]]:
    """Yield every text of *workflow* that may be a template, with its path."""
    many = len(workflow.triggers) > 1
    for index, trigger in enumerate(workflow.triggers):
        pulled: FieldPath = ("trigger", index) if many else ("trigger",)
        yield from _texts_of(trigger.if_, (*pulled, "if"))
    for place, step in workflow.walk():
        texts = {"if": step.if_, "for_each": step.for_each, "input": step.input}
        yield from _texts_of({**texts, "switch": step.switch, "output": step.output}, place)
        rounds = {"while": step.while_, "until": step.until, "every": step.every}
        yield from _texts_of({**rounds, "continue_as_new": step.continue_as_new}, place)
        yield from _texts_of(_texts_of_wait(step), place)
        if step.compensate is not None:
            yield from _texts_of(step.compensate.input, (*place, "compensate", "input"))
    yield from _texts_of(workflow.output, ("output",))
    for name in START_FIELDS:
        yield from _texts_of(getattr(getattr(workflow, name), "key", None), (name, "key"))
    yield from _texts_of(dict(workflow.labels), ("labels",))


def _texts_of_wait(step: Step) -> dict[str, Any]:
    until = step.sleep.until if isinstance(step.sleep, SleepUntil) else None
    texts: dict[str, Any] = {"sleep": {"until": until} if until else step.sleep}
    if step.wait_for is not None:
        texts["wait_for"] = {"match": dict(step.wait_for.match), "if": step.wait_for.if_}
    if step.approval is not None:
        asked, notice = step.approval, step.approval.notify
        by = asked.by if isinstance(asked.by, str) else list(asked.by)
        texts["approval"] = {"title": asked.title, "description": asked.description, "by": by}
        texts["approval"]["notify"] = {"input": notice.input} if notice is not None else {}
    return texts


def reads_link(notice: Notice) -> bool:
    """Return True if *notice* reads a link, so that it needs an address and a key that signs."""
    return any(
        path[0] == "approval" and not _WITHOUT_LINK.intersection(path[1:2])
        for _, text in _texts_of(notice.input, ())
        for path in names_read(text).paths
    )


def reference_problems(workflow: Workflow) -> list[DefinitionProblem]:
    """Find the names in templates of *workflow* that they can't see there, up to a number."""
    visible = _Visible(workflow)
    found = (
        DefinitionProblem(path, message, hint)
        for path, text in template_texts(workflow)
        for message, hint in visible.problems(path, text)
    )
    return list(islice(found, MOST_PROBLEMS + 1))


# A step's own output, in its fields that see it.
_OWN_OUTPUT = {
    "until": "write output: here it is that of the round",
    "while": "write last: here it is that of the round before",
    "compensate": "write output: here it is that of the step to undo",
}
_DASHED = re.compile(r"(?<![\w.])([A-Za-z_][\w.]*)\.([A-Za-z_]\w*(?:-[A-Za-z_]\w*)+)")


def _dashed(text: str, read: NamesRead) -> _Words | None:
    """Return the problem of a name with a dash, of which a template subtracts the second part."""
    paths, names = set(read.paths), set(read.names) - NAMES.keys()
    for owner, name in _DASHED.findall(text) if names else ():
        first, *others = name.split("-")
        path = (*owner.split("."), first)
        if path in paths and not names.isdisjoint(others):
            return f"{owner}.{name} is a subtraction", f"write {owner}[{name!r}]"
    return None


class _Visible:
    """The steps and names that each place of a workflow can see."""

    def __init__(self, workflow: Workflow) -> None:
        self._groups = workflow.groups()
        self._main = [step.id for step in workflow.steps]
        self._all = [step.id for step in workflow.every_step()]
        self._steps = dict(workflow.walk())
        # Of each step, by its path: the ids of those that have ended, in its own list and around.
        self._before = ancestors({step_id: workflow.needs_of(step_id) for step_id in self._all})
        self._around: dict[str, tuple[Step, ...]] = dict.fromkeys(self._all, ())
        for step in self._steps.values():
            if step.is_block:
                self._look_inside(step)

    def _look_inside(self, block: Step) -> None:
        around = (*self._around[block.id], *([block] if block.repeats else []))
        for step_id, before in ancestors(block.inner_needs()).items():
            path = f"{block.id}.{step_id}"
            self._before[path] = before | self._before[block.id]
            self._around[path] = around

    def problems(self, path: FieldPath, text: str) -> Iterator[_Words]:
        """Find the names in *text* that can't be seen at *path*."""
        places = (path[:n] for n in range(len(path), 1, -1))
        at = next((each for each in places if each in self._steps), ())
        step = self._steps.get(at)
        condition = path[-1] == "if" or path[len(at) :] in (("while",), ("until",))
        read = names_read(text, bare=condition)
        place = Place(path, step, len(at), () if step is None else self._around[step.id])
        if (dashed := _dashed(text, read)) is not None:
            yield dashed
            return
        for step_id in read.steps:
            problem = self._step_problem(place, step_id)
            if problem:
                yield problem
        yield from name_problems(read, place, self._all)
        yield from _link_problems(read, place)

    def _known_at(self, place: Place) -> list[str]:
        """Return the ids in the list of the step at *place*, in those around, and inside it."""
        if place.step is None:
            return self._all
        known = list(self._all)
        lists = [*lists_around(place.step.id)]
        if place.ends_block:
            lists.append(place.step.id)
        for path in lists:
            known += [local_id(each) for each in self._before if list_of(each) == path]
        return known

    def _step_problem(self, place: Place, step_id: str) -> _Words | None:
        """Return the problem of naming *step_id* at *place*."""
        path, own = place.path, place.step
        if path[0] == "trigger":
            hint = "move it into the 'if' of the first step"
            return "a trigger's condition can't see steps", hint
        if path[0] in START_FIELDS:
            return "a key can't see steps: it is read before any runs", "use event"
        if path[0] == "labels":
            return "a label can't see steps: it is set before any runs", "use event"
        known = self._known_at(place)
        if step_id not in known:
            hint = did_you_mean(step_id, known) or f"there is {', '.join(map(repr, known))}"
            if (block := self._block_with(step_id)) is not None:
                hint = f"it is inside {block!r}: name that, whose output others see"
            return f"names the step {step_id!r}, which does not exist", hint
        before = frozenset() if own is None else self._before[own.id]
        ends = path[0] in ("output", *STEP_GROUPS[1:]) or "compensate" in path
        if step_id in before or (ends and step_id in self._main):
            return None
        if own is not None and place.ends_block and f"{own.id}.{step_id}" in self._before:
            return None
        if own is not None and local_id(own.id) == step_id:
            hint = _OWN_OUTPUT.get(place.field, "name an earlier step")
            return "a step can't see its own output", hint
        hint = self._remedy(path, own, step_id)
        return f"names the step {step_id!r}, which may not have finished", hint

    def _remedy(self, path: FieldPath, own: Step | None, step_id: str) -> str:
        """Return the remedy for naming a step that may not have finished."""
        beside = {step.id for step in self._groups.get(str(path[0]), ())}
        if step_id in self._all and step_id not in self._main and step_id not in beside:
            return "the steps that clean up run only after these"
        if own is None:
            return f"add {step_id!r} to needs"
        if step_id in [local_id(plain) for plain in lists_around(own.id)]:
            return f"this is inside {step_id!r}, which ends later"
        its_list = list_of(own.id)
        other = f"{its_list}.{step_id}" if its_list else step_id
        if local_id(own.id) in self._before.get(other, ()):
            return f"{step_id!r} waits for this step: change their order"
        return f"add {step_id!r} to needs"

    def _block_with(self, step_id: str) -> str | None:
        """Return the block that has a step called *step_id* inside, if any has."""
        inner = (each for each in self._before if "." in each and local_id(each) == step_id)
        return next((list_of(each) for each in inner), None)


def _link_problems(read: NamesRead, place: Place) -> Iterator[_Words]:
    """Find the links in a notice that can have none: it is one for all of several people."""
    asked = place.step.approval if place.step is not None else None
    if asked is None or asked.notify is None or not (asked.notify.once and asked.by):
        return
    links = [("approval", name) for name in LINKS]
    for path in read.paths:
        if path[:2] in links and "notify" in place.path and read.expects(*path[:2]):
            text = f"{'.'.join(path[:2])} is not there: with once: true the call is for all of by"
            yield f"{text}, and a link is for one of them", "take once out, or take by out"
