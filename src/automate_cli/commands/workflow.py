"""``automate workflow``: check, test and show definitions."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from automate_cli import inputs
from automate_cli.command import Commands, Context
from automate_cli.commands.events import find_workflow, is_path
from automate_cli.commands.executions import found_execution
from automate_cli.inputs import argument, flag, option
from automate_cli.output import as_json, counted, seconds
from automate_cli.records import statuses_of
from automate_kernel.base.errors import AutomateError, ConfigError, StorageError, did_you_mean

if TYPE_CHECKING:
    from automate_cli.session import Session
    from automate_kernel.kernel import Kernel
    from automate_kernel.workflows.definition.model import Workflow
    from automate_testing.workflows.file import CaseFile

_SHOWN_NAMES = 5
app: Commands = Commands("workflow", "Check, test, show and publish workflows.")
hosted: Commands = Commands("workflow", "List and publish workflows.")
"""The commands for workflows that the application's kernel has."""


@app.called(
    "automate workflow validate",
    "automate workflow validate workflows/ extra/report.yaml",
    "automate workflow validate --syntax workflows/   # without looking for the actions",
)
def validate(
    context: Context,
    paths: list[str] | None = argument(
        "Files and folders; by default those of the settings.", None
    ),
    syntax: bool = flag("--syntax", "Only what stands in the files themselves."),
) -> None:
    """
    Check workflows: fields, templates, and that their actions and webhooks exist.

    Shows every problem, with its file and line if it has them. Exits with 2 if there is any.
    """
    session, out = context.session, context.out
    kernel = session.in_memory(workflows=False)
    given = [Path(path) for path in paths or ()] or session.workflow_paths()
    if not given and not len(kernel.workflows):
        raise ConfigError(
            "there are no workflows to check",
            hint="name files or folders, or set workflows in automate.toml",
        )
    results = [result for path in given for result in _results(kernel, path, syntax=syntax)]
    out.data({"ok": not any(each["problems"] for each in results), "workflows": results})
    for each in results:
        name, problems = each["workflow"] or each["source"], each["problems"]
        out.line(f"{'✗' if problems else '✓'} {name}", "red" if problems else "green")
        for problem in problems:
            out.line(f"  {problem}")
    if any(each["problems"] for each in results):
        raise typer.Exit(2)


def _results(kernel: Kernel, path: Path, *, syntax: bool) -> list[dict[str, Any]]:
    from automate_cli.definition_places import problems_of_workflows

    try:
        found = kernel.add_workflow(path)
    except AutomateError as error:
        lines = [line.strip() for line in str(error).split("\n")]
        return [{"source": str(path), "workflow": None, "problems": lines[1:] or lines}]
    return [
        {
            "source": str(path),
            "workflow": each.name,
            "problems": [] if syntax else [*problems_of_workflows(kernel, [each], [path])],
        }
        for each in found
    ]


@app.called(
    "automate workflow test",
    "automate workflow test workflows/order.test.yaml",
    'automate workflow test workflows/ --only "a large order"',
    name="test",
)
def run_cases(
    context: Context,
    paths: list[str] | None = argument(
        "Files with cases, and folders; by default those of the workflows.", None
    ),
    only: str | None = option(None, "Only the cases with this in their name.", metavar="TEXT"),
) -> None:
    """
    Run the tests of workflows: the cases in files like order.test.yaml.

    No action is called but those that a file names as real, and nothing is stored. Time that a
    workflow waits is skipped. Exits with 1 if a case fails.
    """
    from automate_testing.workflows.file import cases_beside, find_case_files, load_case_file

    session, out = context.session, context.out
    files = find_case_files(
        [Path(path) for path in paths or ()] or cases_beside(session.workflow_paths())
    )
    loaded = [load_case_file(path) for path in files]
    data, failed, number = [], 0, 0
    for cases in loaded:
        out.line(str(cases.path))
        for index, case in enumerate(cases.cases):
            if only is not None and only not in case.name:
                continue
            result = cases.run_case(index, _kernel_for(session, cases))
            data.append({"file": str(cases.path), **asdict(result), "passed": result.passed})
            number, failed = number + 1, failed + (not result.passed)
            mark, style = ("✓", "green") if result.passed else ("✗", "red")
            out.line(f"  {mark} {result.name}  {seconds(result.seconds)}", style)
            for problem in result.problems:
                out.line(f"      {problem}")
    if not number and only is not None and any(cases.cases for cases in loaded):
        names = [case.name for cases in loaded for case in cases.cases]
        some = ", ".join(repr(name) for name in names[:_SHOWN_NAMES])
        more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
        raise ConfigError(
            f"no case has {only!r} in its name",
            hint=did_you_mean(only, names, also=f"there are {some}{more}"),
        )
    if not number:
        raise ConfigError(
            "there are no tests to run",
            hint="name a file with cases, for example workflows/order.test.yaml",
        )
    out.data({"ok": not failed, "cases": data})
    out.line(f"{number - failed} passed, {failed} failed" if failed else f"{number} passed")
    if failed:
        raise typer.Exit(1)


def _kernel_for(session: Session, cases: CaseFile) -> Kernel:
    """Return a new kernel that keeps nothing; raises `ConfigError` where the app's own does."""
    from automate_kernel.storage import MemoryStorage

    kernel = session.in_memory(workflows=_among_configured(session, cases.workflow))
    if not isinstance(kernel.storage, MemoryStorage):
        raise ConfigError(
            f"app is a kernel that keeps what it does in {kernel.storage.describe()}",
            hint="let app be a function that is called with the kernel",
        )
    return kernel


def _among_configured(session: Session, workflow: Path | str) -> bool:
    """Return True for a workflow by name, or in a configured file: others may be needed with it."""
    if isinstance(workflow, str):
        return True
    file = workflow.resolve()
    configured = [path.resolve() for path in session.workflow_paths()]
    return any(path in (file, *file.parents) for path in configured)


@app.called(
    "automate workflow show order-notify",
    "automate workflow show workflows/order-notify.yaml --mermaid",
    "automate workflow show order-notify --svg > order-notify.svg",
    "automate workflow show order-notify --diff stored",
    "automate workflow show new/order.yaml --diff old/order.yaml",
    "automate workflow show --schema > workflow.schema.json",
)
def show(
    context: Context,
    workflow: str | None = argument("A workflow's file, or its name.", None),
    mermaid: bool = flag("--mermaid", "As a Mermaid diagram."),
    svg: bool = flag("--svg", "As an SVG picture."),
    execution: str | None = option(None, "Show how far this execution is.", metavar="ID"),
    diff: str | None = option(
        None,
        "Compare it, by step and field, with another definition: a file, a name, a stored hash, or"
        " stored for the definition of the newest execution.",
        metavar="stored|FILE|NAME|HASH",
    ),
    schema: bool = flag("--schema", "Print the JSON Schema of all workflows, for editors."),
) -> None:
    """Draw a workflow: its triggers, its steps, and the order of the steps."""
    from automate_kernel.workflows.definition.graph import to_mermaid, to_svg, to_text

    pictures = {"mermaid": mermaid, "svg": svg, "execution": execution}
    if schema:
        inputs.alone("--schema", **pictures, diff=diff)
        _show_schema(context)
        return
    if workflow is None:
        raise ConfigError(
            "which workflow?", hint="name its file, or automate workflow ls lists them"
        )
    if diff is not None:
        inputs.alone("--diff", **pictures)
        _compare(context, workflow, diff)
        return
    if mermaid and svg:
        raise ConfigError("--mermaid and --svg are two pictures: take one")
    kernel = context.session.in_memory(workflows=not is_path(workflow))
    found = find_workflow(kernel, workflow)
    statuses = statuses_of(found_execution(context, execution)) if execution else None
    context.out.data(found.to_dict())
    if context.out.json:
        return
    if mermaid or svg:
        print((to_mermaid if mermaid else to_svg)(found, statuses).rstrip("\n"))
        return
    if found.description:
        context.out.line(f"{found.description}\n")
    context.out.line(to_text(found, statuses).rstrip("\n"))


def _show_schema(context: Context) -> None:
    from automate_kernel.workflows import workflow_json_schema

    schema = workflow_json_schema()
    context.out.data(schema)
    if not context.out.json:
        print(as_json(schema))


def _compare(context: Context, workflow: str, other: str) -> None:
    """Show what is different in *workflow*, and how many executions go on with the *other*."""
    from automate_kernel.workflows.definition.difference import differences_between
    from automate_kernel.workflows.store.definitions import newest_definition

    session, out = context.session, context.out
    new = _definition(context, workflow)
    if other == "stored":
        stored = newest_definition(session.bare(), new.name)
        if stored is None:
            raise ConfigError(
                f"no execution of {new.name!r} is stored to compare with",
                hint="name another definition, or the --database",
            )
        old = stored
    else:
        old = _definition(context, other)
    changes = differences_between(old, new)
    files = is_path(other) and is_path(workflow)
    pinned = _pinned(session, old, files=files)
    data = {
        "before": {"name": old.name, "hash": old.hash()},
        "after": {"name": new.name, "hash": new.hash()},
        "changes": [asdict(change) for change in changes],
        "running_before": pinned,
    }
    out.data(data)
    out.line(f"{old.name} {old.hash()[:12]} → {new.name} {new.hash()[:12]}")
    colours = {"added": "green", "removed": "red"}
    for change in changes:
        out.line(f"  {change}", colours.get(change.kind, "yellow"))
    if not changes:
        out.line("  no difference")
    if pinned:
        out.line(f"{counted(pinned, 'execution')} still running with the first")


def _definition(context: Context, given: str) -> Workflow:
    """Return the workflow in a file, with a name, or with a stored hash."""
    if is_path(given):
        return find_workflow(context.session.in_memory(workflows=False), given)
    if re.fullmatch(r"[0-9a-f]{6,64}", given):
        from automate_kernel.workflows.store.definitions import find_definition

        return find_definition(context.session.bare(), given)
    return find_workflow(context.session.in_memory(), given)


def _pinned(session: Session, workflow: Workflow, *, files: bool) -> int | None:
    """Count the executions that go on with *workflow*; None if no database is known."""
    if files and not session.settings.given("database"):
        return None  # to look would make the default one
    from automate_kernel.workflows.store.definitions import pinned_executions

    try:
        return pinned_executions(session.bare(), workflow)
    except (ConfigError, StorageError):
        return None
