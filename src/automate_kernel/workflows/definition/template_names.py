"""The names that templates can read, where each is known, and the names that a template reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from automate_kernel.base.errors import ErrorCodes, did_you_mean
from automate_kernel.workflows.definition.structure import FieldPath
from automate_kernel.workflows.execution import Event, StepStatus

if TYPE_CHECKING:
    import jinja2
    from jinja2 import nodes

    from automate_kernel.workflows.definition.model import Step

_Words = tuple[str, str | None]


@dataclass(frozen=True, slots=True)
class Place:
    """
    A place in a workflow that holds a template.

    *step* is the step around it, of whose fields *path* has the name at *at*. *around* are the
    blocks around that step which repeat the steps inside them, the innermost one last.
    """

    path: FieldPath
    step: Step | None = None
    at: int = 2
    around: tuple[Step, ...] = ()

    @property
    def group(self) -> str:
        """The workflow's own field: ``steps``, ``on_failure``, ``trigger``, ``output``."""
        return str(self.path[0])

    @property
    def field(self) -> str:
        """The field of the step around it, or ""."""
        return str(self.path[self.at]) if self.step is not None else ""

    @property
    def ends_block(self) -> bool:
        """True in the ``output`` and ``until`` of a block, which see the steps inside it."""
        return self.step is not None and self.step.is_block and self.field in _ENDS

    @property
    def repeating(self) -> tuple[Step, ...]:
        """The steps for whose elements or rounds it is rendered, the innermost one last."""
        step = self.step
        if step is None or not step.repeats or self.field in ("if", "for_each"):
            return self.around
        # What undoes a loop undoes all its rounds.
        return self.around if step.loops and self.field == "compensate" else (*self.around, step)

    @property
    def innermost(self) -> Step | None:
        """The innermost step for whose elements or rounds it is rendered."""
        return self.repeating[-1] if self.repeating else None

    @property
    def cleans_up(self) -> bool:
        """True in what runs when the workflow has failed, or undoes a step."""
        return self.group in _CLEANING or self.field == "compensate"


# The lists of steps that run when a workflow has failed or ended.
_CLEANING = ("on_failure", "on_cancel", "finally")
_ENDS = ("output", "until")


def _everywhere(place: Place) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class TemplateName:
    """
    A name that templates know.

    *fields* are those of its value; without them it may have any. *known* says where it is known,
    and *elsewhere* is the problem in other places, with its remedy.
    """

    fields: frozenset[str] | None = None
    known: Callable[[Place], bool] = _everywhere
    elsewhere: _Words = ("", None)


def _in_for_each(place: Place) -> bool:
    return place.innermost is not None and place.innermost.for_each is not None


def _in_loop(place: Place) -> bool:
    return place.innermost is not None and place.innermost.loops


def _known(name: str, where: str, known: Callable[[Place], bool], remedy: str) -> TemplateName:
    return TemplateName(known=known, elsewhere=(f"{name!r} is known {where} only", remedy))


STEP_FIELDS = frozenset({"output", "status", "error"})
"""The fields of ``steps.<id>``."""

_EVENT = frozenset(each.name for each in fields(Event))
_STATUSES = tuple(str(each) for each in StepStatus)
_VALUES: dict[tuple[str, ...], tuple[str, ...]] = {
    ("event", "type"): ("event", "webhook", "manual", "schedule"),
    ("error", "code"): tuple(ErrorCodes),
}

NAMES: dict[str, TemplateName] = {
    "event": TemplateName(_EVENT),
    "execution": TemplateName(frozenset({"id", "name", "tenant_id", "created_at"})),
    "steps": TemplateName(),
    "secrets": TemplateName(),
    "env": TemplateName(),
    "error": TemplateName(
        frozenset({"code", "message"}),
        lambda place: place.cleans_up,
        ("'error' is known where a workflow cleans up only", "use steps.<id>.error"),
    ),
    "item": _known(
        "item",
        "in a step with for_each",
        _in_for_each,
        "add for_each to the step, or use another name",
    ),
    "index": _known(
        "index",
        "in a step with for_each, while or until",
        lambda place: place.innermost is not None,
        "add for_each to the step, or use another name",
    ),
    "last": _known("last", "in a step with while or until", _in_loop, "use steps.<id>.output"),
    "outer": TemplateName(
        frozenset({"item", "index", "last", "outer"}),
        lambda place: len(place.repeating) > 1,
        ("'outer' is known where one for_each or loop is inside another only", "use item"),
    ),
    "signal": TemplateName(
        _EVENT,
        lambda place: place.field == "wait_for" and place.path[-1] == "if",
        ("'signal' is known in the if of wait_for only", "use steps.<id>.output"),
    ),
    "approval": _known(
        "approval",
        "in an approval's notify",
        lambda place: place.field == "approval" and "notify" in place.path,
        "use steps.<id>.output",
    ),
    "output": _known(
        "output",
        "under compensate and in until",
        lambda place: place.field in ("compensate", "until"),
        "use steps.<id>.output",
    ),
}
"""All names that templates know."""

# What Jinja defines, and what a checked template can't use in any case.
_OWN = frozenset({"range", "namespace", "loop", "varargs", "kwargs", "caller", "self"})
# The methods that templates can call on a mapping.
_METHODS = frozenset({"items", "keys", "values", "get"})
_ASKS = frozenset({"defined", "undefined"})
_DEFAULTS = frozenset({"default", "d"})


@dataclass(frozen=True)
class NamesRead:
    """
    The names that a template reads from outside, each as the path of literal fields that it takes.

    ``event.payload.total`` is ``("event", "payload", "total")``. *asked* are those for which the
    template has a default, or whose being there it asks for.
    """

    paths: tuple[tuple[str, ...], ...] = ()
    asked: frozenset[tuple[str, ...]] = field(default_factory=frozenset)
    compared: tuple[tuple[tuple[str, ...], str], ...] = ()
    """The paths that are compared with a text, each with that."""

    @property
    def names(self) -> list[str]:
        """The names themselves, each once."""
        return list(dict.fromkeys(path[0] for path in self.paths))

    @property
    def steps(self) -> list[str]:
        """The ids in ``steps.ID`` and ``steps['ID']``, each once."""
        ids = (path[1] for path in self.paths if path[0] == "steps" and len(path) > 1)
        return list(dict.fromkeys(ids))

    @property
    def any_step(self) -> bool:
        """True if the ids of some steps that it reads are computed."""
        return ("steps",) in self.paths

    def expects(self, *path: str) -> bool:
        """Return True if the template fails without a value at *path*."""
        return not any(
            path[:length] in self.asked for length in self._lengths if length <= len(path)
        )

    @cached_property
    def _lengths(self) -> set[int]:
        return set(map(len, self.asked))


@lru_cache(maxsize=256)
def names_read(text: str, *, bare: bool = False) -> NamesRead:
    """
    Return the names that a template reads; *bare* text is an expression without braces.

    Nothing is read in text without a template, or in a template that can't be parsed.
    """
    tree = _parse(text, bare=bare)
    if tree is None:
        return NamesRead()
    from jinja2 import nodes

    # Not jinja2.meta, which would compile the template, and so refuse filters that only the host
    # knows. Names are taken as assigned wherever they are: better to miss a mistake than to see one
    # in a template that is right.
    paths: dict[tuple[str, ...], None] = {}
    assigned, asked = set(_OWN), set[tuple[str, ...]]()
    compared: dict[tuple[tuple[str, ...], str], None] = {}
    left: list[nodes.Node] = [tree]
    while left:
        node = left.pop()
        path = _path(node)
        if path:
            paths[path] = None
            continue
        if isinstance(node, (nodes.Name, nodes.Macro)):
            assigned.add(node.name)
        elif (isinstance(node, nodes.Test) and node.name in _ASKS) or (
            isinstance(node, nodes.Filter) and node.name in _DEFAULTS
        ):
            asked.add(_path(node.node))
        elif isinstance(node, nodes.Compare):
            compared.update(dict.fromkeys(_compared(node)))
        left += reversed([*node.iter_child_nodes()])
    found = (path for path in paths if path[0] not in assigned)
    return NamesRead(tuple(found), frozenset(path for path in asked if path), tuple(compared))


def _compared(node: nodes.Compare) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield what a comparison for equality compares: a path and a text, or several of a list."""
    from jinja2 import nodes

    if len(node.ops) != 1 or node.ops[0].op not in ("eq", "ne", "in", "notin"):
        return
    left, right = node.expr, node.ops[0].expr
    for one, other in ((left, right), (right, left)):
        texts = other.items if isinstance(other, (nodes.List, nodes.Tuple)) else [other]
        for text in texts:
            if isinstance(text, nodes.Const) and isinstance(text.value, str) and _path(one):
                yield _path(one), text.value


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    import jinja2

    return jinja2.Environment()  # noqa: S701 - parses, never renders


def _parse(text: str, *, bare: bool) -> nodes.Template | None:
    if "{{" not in text and "{%" not in text:
        if not bare:
            return None
        text = "{{ (" + text + ") }}"
    import jinja2

    try:
        return _environment().parse(text)
    except (jinja2.TemplateError, RecursionError, ValueError):  # a number of too many digits, too
        return None  # the engine's check reports it


def _path(node: nodes.Node | None) -> tuple[str, ...]:
    """Return the path of a name or of a literal field of one; empty for anything else."""
    from jinja2 import nodes

    taken: list[str] = []
    while True:
        if isinstance(node, nodes.Name):
            return (node.name, *reversed(taken)) if node.ctx == "load" else ()
        if isinstance(node, nodes.Getattr):
            taken.append(node.attr)
        elif isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
            if not isinstance(node.arg.value, str):
                return ()
            taken.append(node.arg.value)
        else:
            return ()
        node = node.node


def _of_each(name: str, place: Place) -> _Words | None:
    """Return the problem of a name of the elements in what is decided once for all of them."""
    step = place.step
    if name not in ("item", "index", "last") or place.field != "if" or step is None:
        return None
    if step.for_each is not None:
        return (
            f"{name!r} is not known in the if, which is decided once for all elements",
            "leave them out of the list, or put the step with its if into a block with for_each",
        )
    if step.loops:
        return (
            f"{name!r} is not known in the if, which is decided once for all rounds",
            "write while, which is decided before each round",
        )
    return None


def name_problems(read: NamesRead, place: Place, steps: Iterable[str]) -> Iterator[_Words]:
    """Yield the problems of the names that a template at *place* reads; *steps* are all ids."""
    steps = list(steps)
    for name in read.names:
        known = NAMES.get(name)
        if known is None:
            if read.expects(name):
                yield _unknown(name, place, steps)
        elif not known.known(place):
            yield _of_each(name, place) or known.elsewhere
    for path in read.paths:
        owner, name, has = _field(path, place)
        if has is not None and name not in has | _METHODS and read.expects(*owner, name):
            hint = did_you_mean(name, sorted(has)) or f"it has {', '.join(sorted(has))}"
            yield f"{'.'.join(owner)} has no {name!r}", hint
    for path, text in read.compared:
        values = _values(path)
        if values and text not in values:
            hint = did_you_mean(text, values) or f"it is one of {', '.join(values)}"
            yield f"{'.'.join(path)} is never {text!r}", hint


def _values(path: tuple[str, ...]) -> tuple[str, ...]:
    """Return the values that *path* can have where they are known, or none."""
    if path[0] == "steps" and len(path) == 3 and path[2] == "status":
        return _STATUSES
    return _VALUES.get(path, ())


def _field(
    path: tuple[str, ...], place: Place
) -> tuple[tuple[str, ...], str, frozenset[str] | None]:
    """Return the owner of the field that *path* reads, its name, and the owner's known fields."""
    if path[0] == "steps":
        return (path[:2], path[2], STEP_FIELDS) if len(path) > 2 else (path, "", None)
    known = NAMES.get(path[0])
    if known is None or known.fields is None or not known.known(place) or len(path) == 1:
        return path, "", None
    return path[:1], path[1], known.fields


# What is written here, each with its names in other tools and languages.
_IN_OTHER_WORDS = {
    "none": "null nil",
    "event.payload": "input inputs data body trigger context vars params",
    "execution": "workflow run",
    "event.payload.lines | length": "len size count",
}


def _unknown(name: str, place: Place, steps: list[str]) -> _Words:
    message = f"templates know no {name!r}"
    if name in (NAMES["event"].fields or ()):
        return message, f"write event.{name}"
    if name in steps:
        return message, f"write steps.{name}.output"
    for meant, names in _IN_OTHER_WORDS.items():
        if name in names.split():
            return message, f"write {meant}"
    known = [each for each, one in NAMES.items() if one.known(place)]
    return message, did_you_mean(name, known) or f"the names are {', '.join(known)}"
