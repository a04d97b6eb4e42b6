"""
A file with the cases of a workflow's test, beside the workflow: ``order.test.yaml``.

::

    workflow: order.yaml
    replace:
      slack.post: {output: {ok: true}}
    cases:
      - name: a large order is announced
        payload: {total: 120}
        expect:
          calls:
            - slack.post: {text: "A large order: 120"}
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from automate_kernel.base.errors import WorkflowError, did_you_mean
from automate_kernel.kernel import Kernel
from automate_kernel.workflows.definition.document import Document, read_json, read_yaml
from automate_kernel.workflows.definition.fields import DefinitionModel, OperationName, PlainText
from automate_kernel.workflows.definition.model import Workflow
from automate_kernel.workflows.definition.problems import LocatedProblem, invalid, locate
from automate_kernel.workflows.definition.structure import DefinitionProblem, FieldPath
from automate_testing.workflows.case import (
    Answer,
    Case,
    CaseResult,
    Decided,
    Emitted,
    Expected,
    FakeError,
    GivenEvent,
    Replace,
    Signalled,
    Then,
    run_case,
)

_SUFFIXES = (".test.yaml", ".test.yml", ".test.json")
_WORKFLOW_SUFFIXES = (".yaml", ".yml", ".json", ".py")


class _Content(DefinitionModel):
    workflow: PlainText | None = None
    real: Literal[True] | Sequence[OperationName] = ()
    replace: Replace = Field(default_factory=dict)
    cases: Sequence[Case] = Field(min_length=1)


# By the name that leads to them. What stands under the name of an action is an answer.
_MODELS: dict[str, type[BaseModel]] = {
    "cases": Case, "event": GivenEvent, "error": FakeError, "expect": Expected, "then": Then,
    "emit": Emitted, "signal": Signalled, "decide": Decided,
}  # fmt: skip

# What stands in a field, where something of another kind was given.
_SHAPES = {
    "cases": "- {name: a large order, payload: {total: 120}}",
    "replace": "action: {output: …}, or {error: {code: …}}",
    "error": "{code: UNAVAILABLE, message: asleep}",
    "event": "{name: order.created, payload: …}",
    "expect": "{output: …}",
    "then": "- {after: 2d}",
    "emit": "{name: order.paid, payload: …}",
    "signal": "{name: …, payload: …}",
    "decide": "{step: …, by: …}",
    "calls": "- action: {field: value}",
    "calls_in_any_order": "- action: {field: value}",
}
_MAPPINGS, _LISTS = ("model_type", "dict_type", "mapping_type"), ("is_instance_of", "list_type")


@dataclass(frozen=True, slots=True)
class CaseFile:
    """
    A file that was read: its cases, and the workflow that they are about.

    *workflow* is a file, or the name of a workflow that the kernel has. *real* are the actions that
    are really called; True means all. *lines* are those of the cases.
    """

    path: Path
    workflow: Path | str
    cases: Sequence[Case]
    replace: Mapping[str, Sequence[Answer]]
    real: Literal[True] | frozenset[str]
    lines: Sequence[int | None]

    def run(self, kernel: Callable[[], Kernel]) -> Iterator[CaseResult]:
        """Run the cases, each on a *kernel* of its own, and yield their results."""
        for index in range(len(self.cases)):
            yield self.run_case(index, kernel())

    def run_case(self, index: int, kernel: Kernel) -> CaseResult:
        """Run one case on *kernel*, which keeps everything in memory."""
        case, line = self.cases[index], self.lines[index]
        workflow = self._workflow(kernel, case)
        return run_case(case, kernel, workflow, replace=self.replace, real=self.real, line=line)

    def _workflow(self, kernel: Kernel, case: Case) -> Workflow:
        if isinstance(self.workflow, Path):
            found = {each.name: each for each in kernel.add_workflow(self.workflow)}
        else:
            found = {self.workflow: kernel.workflows[self.workflow]}
        if case.workflow is None and len(found) == 1:
            return next(iter(found.values()))
        if case.workflow not in found:
            names = ", ".join(found)
            raise WorkflowError(
                f"{self.path}: the case {case.name!r} is about one of {len(found)} workflows",
                hint=did_you_mean(case.workflow or "", found, also=f"workflow: one of {names}"),
            )
        return found[case.workflow]


def is_case_file(path: Path) -> bool:
    """Return True if the name of *path* is that of a file with cases."""
    return path.name.endswith(_SUFFIXES) and not path.name.startswith(("_", "."))


def find_case_files(paths: Iterable[Path]) -> list[Path]:
    """Return the files with cases among *paths*, and in the folders among them, at any depth."""
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            inside = (each for each in sorted(path.rglob("*.test.*")) if is_case_file(each))
            found.update(dict.fromkeys(each for each in inside if not _hidden(each, path)))
        else:
            found[path] = None
    return list(found)


def cases_beside(paths: Iterable[Path]) -> list[Path]:
    """Return what has the cases of workflows: their folders as they are, and files beside them."""
    found: list[Path] = []
    for path in paths:
        beside = (path.with_name(path.stem + suffix) for suffix in _SUFFIXES)
        found += [path] if path.is_dir() else [each for each in beside if each.is_file()]
    return found


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def load_case_file(path: Path) -> CaseFile:
    """Read a file with cases; raises `WorkflowError` with all its problems and their lines."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise WorkflowError(f"{path} can't be read: {reason}") from None
    documents = [read_json(text)] if path.suffix == ".json" else read_yaml(text)
    document = documents[0] if len(documents) == 1 else Document()
    problems = list(document.problems)
    if len(documents) != 1:
        problems.append(DefinitionProblem((), f"holds {len(documents)} documents, not one"))
    elif not problems and not isinstance(document.value, Mapping):
        problems.append(DefinitionProblem((), "it must be a mapping", "it needs cases"))
    elif not problems and "steps" in document.value and "cases" not in document.value:
        beside = f"{path.stem}{_SUFFIXES[0]}"
        hint = f"write its cases in {beside} beside it, and pass that file"
        problems.append(DefinitionProblem((), "it is a workflow, not a file with cases", hint))
    if not problems:
        try:
            return _made(path, _Content.model_validate(document.value), document)
        except ValidationError as error:
            problems = [_problem(each) for each in error.errors(include_url=False)]
    raise invalid(locate(problems, document, str(path)), str(path))


def _made(path: Path, content: _Content, document: Document) -> CaseFile:
    lines = [document.line(("cases", index)) for index in range(len(content.cases))]
    real = content.real if content.real is True else frozenset(content.real)
    workflow = _workflow_of(path, content.workflow, document)
    return CaseFile(path, workflow, content.cases, content.replace, real, lines)


def _workflow_of(path: Path, given: str | None, document: Document) -> Path | str:
    """Return the file of the workflow, or its name."""
    if given is not None:
        if not given.lower().endswith(_WORKFLOW_SUFFIXES):
            return given
        file = path.parent / given
        if file.exists():
            return file
        line, names = document.line(("workflow",)), [each.name for each in path.parent.iterdir()]
        hint = did_you_mean(given, names) or None
        problem = LocatedProblem(str(path), line, "workflow", f"there is no file {given!r}", hint)
        raise invalid([problem], str(path))
    ends = (path.name.removesuffix(end) for end in _SUFFIXES if path.name.endswith(end))
    stem = next(ends, path.stem)
    beside = [path.with_name(stem + suffix) for suffix in _WORKFLOW_SUFFIXES]
    for file in beside:
        if file.exists():
            return file
    hint = "add workflow: with the workflow's file or name"
    message = f"there is no {stem}.yaml beside it"
    raise invalid([LocatedProblem(str(path), None, "", message, hint)], str(path))


def _fields_beside(path: FieldPath) -> Iterable[str]:
    """Return the names of the fields that may stand where *path* leads to."""
    around = [part for part in path[:-1] if isinstance(part, str)]
    model = _MODELS.get(around[-1], Answer) if around else _Content
    return model.model_fields


def _problem(error: Any) -> DefinitionProblem:
    # For a union pydantic names the branch too, which is no key.
    path: FieldPath = tuple(
        part for part in error["loc"] if not (isinstance(part, str) and "[" in part)
    )
    context, key = error.get("ctx", {}), str(path[-1]) if path else ""
    if error["type"] == "extra_forbidden":
        hint = did_you_mean(key, _fields_beside(path)) or "take it out"
        return DefinitionProblem(path, "there is no such field", hint)
    if error["type"] == "missing":
        return DefinitionProblem(path, "is missing", "add it")
    if error["type"] == "too_short":
        return DefinitionProblem(path, "must not be empty", "fill it in")
    if error["type"] in (*_MAPPINGS, *_LISTS):
        around = next((part for part in reversed(path) if part in _SHAPES), "")
        around = "replace" if "replace" in path and around != "error" else around
        kind = "a mapping" if error["type"] in _MAPPINGS else "a list"
        return DefinitionProblem(path, f"must be {kind}", _SHAPES.get(str(around)))
    return DefinitionProblem((*path, *context.get("at", ())), error["msg"], context.get("hint"))
