"""
The loader of workflows from YAML, JSON and Python; it reports all their problems at once.

::

    orders.yaml is not valid: 2 problems
      orders.yaml:7: steps.notify.retrys: there is no such field (did you mean 'retry'?)
      orders.yaml:9: steps.notify.timeout: '30 sec' is not a duration: did you mean '30s'?

A Python file is executed to read it, so load only what you would run.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from itertools import chain, islice
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from pydantic import ValidationError

from automate_kernel.base.errors import AutomateError, WorkflowError, did_you_mean
from automate_kernel.workflows.definition.document import Document, dump_yaml, read_json, read_yaml
from automate_kernel.workflows.definition.model import KINDS, NO_KIND, Workflow
from automate_kernel.workflows.definition.problems import (
    MOST_PROBLEMS,
    LocatedProblem,
    invalid,
    locate,
    problems_of,
    reference_problems,
    show_path,
    template_texts,
)
from automate_kernel.workflows.definition.structure import (
    STEP_GROUPS,
    DefinitionProblem,
    FieldPath,
    StepNeeds,
    step_problems,
)

Format = Literal["yaml", "json"]
Check = Callable[[str, str], object]
"""
A check of a text that may be a template. It raises an `AutomateError` if the text is wrong.

Its arguments are the text and its field for people (``steps.notify.input.text``). Where the field
ends in ``.if``, the text may be an expression without braces.
"""

_FORMATS: dict[str, Format] = {".yaml": "yaml", ".yml": "yaml", ".json": "json"}
_SUFFIXES = (*_FORMATS, ".py")


def load_workflow(
    source: str | Path | Mapping[str, Any], *, check: Check | None = None
) -> Workflow:
    """
    Read the one workflow in a file (``.yaml``, ``.yml``, ``.json``, ``.py``), or in a mapping.

    Raises `WorkflowError` with all problems, each with its line.
    """
    if isinstance(source, Mapping):
        return _one(_build([Document(dict(source))], "workflow", check), "the mapping")
    return _one(_load_file(_existing(source), check), str(source))


def load_workflows(source: str | Path, *, check: Check | None = None) -> list[Workflow]:
    """
    Read all workflows in a file or directly in a folder, in the order of the files' names.

    A YAML file may hold many, with ``---`` between them. In a folder, files whose names begin
    with ``_`` or ``.`` are left out, and tests of workflows (``orders.test.yaml``). Raises one
    `WorkflowError` for the problems of all files.
    """
    path = _existing(source)
    if not path.is_dir():
        return _distinct([(str(path), each) for each in _load_file(path, check)], str(source))
    problems: list[LocatedProblem] = []
    loaded: list[tuple[str, Workflow]] = []
    for file in sorted(path.iterdir()):
        if file.suffix.lower() not in _SUFFIXES or file.name.startswith(("_", ".")):
            continue
        if file.stem.endswith(".test"):
            continue
        try:
            loaded += [(str(file), workflow) for workflow in _load_file(file, check)]
        except WorkflowError as error:
            found = [LocatedProblem(**each) for each in error.details.get("problems", ())]
            problems += found or [LocatedProblem(str(file), None, "", error.message, error.hint)]
    if problems:
        raise invalid(problems, str(source))
    return _distinct(loaded, str(source))


def loads(
    text: str, format: Format = "yaml", *, source: str = "<string>", check: Check | None = None
) -> Workflow:
    """Read the one workflow in a YAML or JSON text; errors name it *source*."""
    return _one(_build(_read(text, format), source, check), source)


def check_workflow(workflow: Workflow) -> None:
    """Raise `WorkflowError` if templates of a *workflow* that is Python read what they can't."""
    problems = reference_problems(workflow)
    if problems:
        source = f"workflow {workflow.name!r}"
        raise invalid(locate(problems, Document(workflow.to_dict()), source), source)


def dumps(workflow: Workflow, format: Format = "yaml") -> str:
    """Write *workflow* as text that `loads` reads back, equal and with the same hash."""
    if format == "json":
        return json.dumps(workflow.to_dict(), indent=2, ensure_ascii=False) + "\n"
    return dump_yaml(workflow.to_dict())


def _one(workflows: list[Workflow], what: str) -> Workflow:
    if len(workflows) != 1:
        hint = "use load_workflows to read many" if workflows else None
        raise WorkflowError(f"{what} holds {len(workflows)} workflows, not one", hint=hint)
    return workflows[0]


def _distinct(loaded: list[tuple[str, Workflow]], what: str) -> list[Workflow]:
    first: dict[str, str] = {}
    located = []
    for source, workflow in loaded:
        if workflow.name in first:
            message = f"another workflow is called {workflow.name!r}"
            hint = f"it is in {first[workflow.name]}: rename one of them"
            located.append(LocatedProblem(source, None, "name", message, hint))
        first.setdefault(workflow.name, source)
    if located:
        raise invalid(located, what)
    return [workflow for _, workflow in loaded]


def _existing(source: str | Path) -> Path:
    if isinstance(source, str) and ("\n" in source or source.lstrip().startswith("{")):
        raise WorkflowError(
            "load_workflow was given a definition where it takes a file's path",
            hint="use loads(text), or loads(text, 'json')",
        )
    path = Path(source)
    if path.exists():
        return path
    names = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
    near = did_you_mean(path.name, names) or None
    raise WorkflowError(f"there is no file {str(source)!r}", hint=near)


def _load_file(path: Path, check: Check | None) -> list[Workflow]:
    if path.is_dir():
        raise WorkflowError(f"{path} is a folder", hint="use load_workflows to read all in it")
    suffix = path.suffix.lower()
    if suffix == ".py":
        documents = [Document(workflow.to_dict()) for workflow in _workflows_in(path)]
        return _build(documents, str(path), check)
    if suffix not in _FORMATS:
        raise WorkflowError(
            f"{path} is not a kind of file that holds workflows",
            hint=f"its name must end in one of {', '.join(_SUFFIXES)}",
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise WorkflowError(f"{path} is not UTF-8", hint=f"byte {error.start} is wrong") from None
    except OSError as error:
        raise WorkflowError(f"{path} can't be read: {error.strerror}") from None
    return _build(_read(text, _FORMATS[suffix]), str(path), check)


def _read(text: str, form: Format) -> list[Document]:
    if form == "json":
        return [read_json(text)]
    if form == "yaml":
        return read_yaml(text)
    raise WorkflowError(f"there is no format {form!r}", hint="the formats are yaml and json")


def _build(documents: list[Document], source: str, check: Check | None) -> list[Workflow]:
    workflows: list[Workflow] = []
    located: list[LocatedProblem] = []
    if not documents:
        problem = DefinitionProblem((), "is empty", "it needs a name, a trigger and steps")
        located = locate([problem], Document(), source)
    for document in documents:
        problems = document.problems[: MOST_PROBLEMS + 1]
        if document.value is not None or not problems:
            workflow, more = _validate(document.value, check)
            problems += _elsewhere(problems, more)
            if workflow is not None:
                workflows.append(workflow)
        located += locate(problems, document, source)
    if located:
        raise invalid(located, source)
    return workflows


def _elsewhere(
    first: list[DefinitionProblem], more: list[DefinitionProblem]
) -> list[DefinitionProblem]:
    """Return *more*, without those at a place that has a problem already."""
    places = {problem.path for problem in first}
    return [problem for problem in more if problem.path not in places]


def _validate(value: Any, check: Check | None) -> tuple[Workflow | None, list[DefinitionProblem]]:
    if not isinstance(value, Mapping):
        hint = "it needs a name, a trigger and steps"
        return None, [DefinitionProblem((), "a workflow must be a mapping", hint)]
    try:
        workflow = Workflow.model_validate(dict(value))
    except ValidationError as error:
        problems = problems_of(error, value)
        # pydantic looks at the steps together only once each of them is right.
        raw = step_problems({name: _raw_steps(value, name) for name in STEP_GROUPS})
        raw += [
            DefinitionProblem((*path, "action"), *NO_KIND)
            for name in STEP_GROUPS
            for path, step in _mappings(value, name)
            if not any(kind in step for kind in KINDS)
        ]
        return None, problems + _elsewhere(problems, raw)
    refused = _refused_texts(workflow, check) if check is not None else ()
    found = chain(reference_problems(workflow), refused)
    return workflow, list(islice(found, MOST_PROBLEMS + 1))


def _raw_steps(value: Mapping[str, Any], group: str) -> list[StepNeeds]:
    """Return path, id and needs of the steps whose ids can be read."""
    found: list[StepNeeds] = []
    for path, step in _mappings(value, group):
        if isinstance(step.get("id"), str):
            needs = step.get("needs")
            texts = isinstance(needs, list) and all(isinstance(need, str) for need in needs)
            found.append((path, step["id"], needs if texts else None))
    return found


def _mappings(
    value: Mapping[str, Any], group: str
) -> Iterator[tuple[FieldPath, Mapping[str, Any]]]:
    """Yield path and value of the steps that are mappings at least."""
    steps = value.get(group)
    for index, step in enumerate(steps if isinstance(steps, list) else []):
        if isinstance(step, Mapping):
            yield (group, index), step


def _refused_texts(workflow: Workflow, check: Check) -> Iterator[DefinitionProblem]:
    definition = workflow.to_dict()
    for path, text in template_texts(workflow):
        shown = show_path(path, definition)
        try:
            check(text, shown)
        except AutomateError as error:
            # The problem names the place, and the line beside it.
            yield DefinitionProblem(path, error.message.removeprefix(f"{shown}: "), error.hint)


def _workflows_in(path: Path) -> list[Workflow]:
    """
    Execute the file, and return its module-level ``workflow``, or list of ``workflows``.

    Raises `WorkflowError` with the line that failed.
    """
    module = _execute(path)
    found = getattr(module, "workflows", None)
    if found is None:
        found = [module.workflow] if hasattr(module, "workflow") else None
    if found is None:
        raise WorkflowError(
            f"{path} holds no workflow",
            hint="assign a Workflow to the name 'workflow', or a list of them to 'workflows'",
        )
    workflows = list(found) if isinstance(found, (list, tuple)) else [found]
    for each in workflows:
        if not isinstance(each, Workflow):
            raise WorkflowError(
                f"{path}: {type(each).__name__} is not a Workflow",
                hint="build it with automate_kernel.workflows.Workflow",
            )
    return workflows


def _execute(path: Path) -> ModuleType:
    # A name of its own: two files called orders.py must not share a module.
    digest = sha256(str(path.resolve()).encode()).hexdigest()[:12]
    name = f"_automate_workflow_{path.stem}_{digest}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise WorkflowError(f"{path} can't be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pydantic look their own module up
    try:
        spec.loader.exec_module(module)
    except ValidationError as error:
        problems = problems_of(error, {})
        found = [(f"{error.title}({show_path(p.path)})", p.message, p.hint) for p in problems]
        raise _broken_file(path, _line(error, path), *found) from None
    except SyntaxError as error:
        problem = ("", f"is not Python: {error.msg}", None)
        raise _broken_file(path, error.lineno, problem) from None
    except (Exception, SystemExit) as error:
        message = f"{type(error).__name__} while the file was executed"
        raise _broken_file(path, _line(error, path), ("", message, str(error) or None)) from error
    finally:
        sys.modules.pop(name, None)
    return module


def _broken_file(
    path: Path, line: int | None, *problems: tuple[str, str, str | None]
) -> WorkflowError:
    """Return the error with *problems*: of each the field, the message and the hint."""
    return invalid([LocatedProblem(str(path), line, *each) for each in problems], str(path))


def _line(error: BaseException, path: Path) -> int | None:
    """Return the last line of the file itself that was being executed."""
    frames = traceback.extract_tb(error.__traceback__)
    return next((f.lineno for f in reversed(frames) if f.filename == str(path)), None)
