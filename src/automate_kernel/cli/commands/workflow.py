"""``automate workflow``: check and show definitions."""

from __future__ import annotations

from operator import methodcaller
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from automate_kernel.cli.command import Commands, Context, TextCommand
from automate_kernel.cli.commands.events import find_workflow, is_path
from automate_kernel.cli.commands.executions import found_execution
from automate_kernel.cli.inputs import argument, flag, option
from automate_kernel.cli.output import Columns, as_json
from automate_kernel.cli.records import statuses_of
from automate_kernel.errors import AutomateError, ConfigError

if TYPE_CHECKING:
    from automate_kernel.kernel import Kernel

app: Commands = Commands("workflow", "Check and show workflows.")


@app.called(
    "automate workflow validate",
    "automate workflow validate workflows/ extra/report.yaml",
    "automate workflow validate --syntax workflows/   # without looking for the actions",
)
def validate(
    context: Context,
    paths: list[str] | None = argument("Files and folders; by default the configured ones.", None),
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
    from automate_kernel.monitoring.diagnosis import workflow_problems

    try:
        found = kernel.add_workflow(path)
    except AutomateError as error:
        lines = [line.strip() for line in str(error).split("\n")]
        return [{"source": str(path), "workflow": None, "problems": lines[1:] or lines}]
    return [
        {
            "source": str(path),
            "workflow": each.name,
            "problems": [] if syntax else workflow_problems(kernel, each),
        }
        for each in found
    ]


@app.called(
    "automate workflow show order-notify",
    "automate workflow show workflows/order-notify.yaml --mermaid",
    "automate workflow show order-notify --svg > order-notify.svg",
)
def show(
    context: Context,
    workflow: str = argument("A workflow's file, or its name."),
    mermaid: bool = flag("--mermaid", "As a Mermaid diagram."),
    svg: bool = flag("--svg", "As an SVG picture."),
    execution: str | None = option(None, "Show how far this execution is.", metavar="ID"),
) -> None:
    """Draw a workflow: its triggers, its steps, and the order of the steps."""
    from automate_kernel.workflows.definition.graph import to_mermaid, to_svg, to_text

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


@app.called("automate workflow ls")
def ls(context: Context) -> None:
    """List the workflows that are configured."""
    from automate_kernel.workflows.definition.graph import describe_trigger

    kernel = context.session.in_memory()
    columns: Columns = {
        "NAME": "name",
        "STARTS ON": lambda each: ", ".join(map(describe_trigger, each.triggers)),
        "STEPS": lambda each: len(each.steps) or getattr(each, "code", 0),
        "DESCRIPTION": lambda each: each.description or each.title or "",
    }
    found = sorted(kernel.workflows, key=lambda each: each.name)
    none = "no workflows; set workflows in automate.toml, or make the folder workflows"
    context.out.listing(found, columns, data=methodcaller("to_dict"), empty=none)


@app.called("automate workflow schema > workflow.schema.json", cls=TextCommand)
def schema(context: Context) -> None:
    """Print the JSON Schema of workflows, for editors."""
    from automate_kernel.workflows import workflow_json_schema

    print(as_json(workflow_json_schema()))
