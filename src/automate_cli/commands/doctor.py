"""``automate doctor``: checks of a project, with remedies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from automate_cli import inputs
from automate_cli.command import Commands, Context, WorkFailedError
from automate_cli.command_input import duration_input
from automate_cli.commands.config import show_settings
from automate_cli.database import is_stand_in
from automate_cli.inputs import flag, option
from automate_cli.output import Columns, attributes, rows_of
from automate_cli.version import version_line
from automate_kernel.base.errors import AutomateError, ConfigError
from automate_kernel.monitoring.diagnosis import (
    Finding,
    capacity_findings,
    clock_finding,
    connection_findings,
    execution_findings,
    executor_findings,
    findings_of,
    plugin_findings,
    poll_findings,
    relay_findings,
    schedule_findings,
    schema_findings,
    secret_findings,
    secret_uses,
    worker_findings,
    workflow_findings,
)
from automate_kernel.storage import MemoryStorage

if TYPE_CHECKING:
    from automate_kernel.kernel import Kernel

app: Commands = Commands()


@app.called(
    "automate doctor",
    "automate doctor --json",
    "automate doctor --test-connections   # starts servers of MCP, and asks other services",
    "automate doctor --idle-after 15m   # where a worker runs every ten minutes",
    "automate doctor --secrets",
    "automate doctor --settings --json | jq .settings.database",
    "automate doctor --settings --show-values   # with passwords: mind who looks on",
)
def doctor(
    context: Context,
    idle_after: str = option(
        "60s",
        "Report work that is due for so long and that no worker works on.",
        metavar="DURATION",
    ),
    test_connections: bool = flag(
        "--test-connections", "Have the plugins that have config ask their services, too."
    ),
    secrets: bool = flag(
        "--secrets",
        "Each secret that workflows, config and webhooks name alone, and if it is there.",
    ),
    settings: bool = flag(
        "--settings", "Each setting alone: its value, its source, and the variable that sets it."
    ),
    show_values: bool = flag("--show-values", "With --settings: passwords and tokens too."),
) -> None:
    """
    Check the database, plugins, secrets, workflows, schedules, executions, workers and clocks.

    Each finding comes with its remedy. Exits with 1 if something is broken: work that is due and
    that nobody works on, for example.

    With --secrets, values are read and dropped, never shown; it exits with 1 if any can't be read.

    A setting comes from automate.toml (or the table tool.automate in pyproject.toml), from the
    environment, or from a flag. A flag wins over the environment, and that over the file.
    """
    if secrets or settings:
        both = {"secrets": secrets and settings, "test_connections": test_connections}
        inputs.alone("--settings" if settings else "--secrets", **both)
        (partial(show_settings, show_values=show_values) if settings else _show_secrets)(context)
        return
    if show_values:
        raise ConfigError("--show-values is for --settings")
    checks = _checks(context, duration_input(idle_after, "--idle-after"))
    if test_connections:
        checks = chain(checks, [("connections", lambda: _connections(context))])
    findings = findings_of(checks, debug=context.debug)
    out, broken = context.out, sum(each.state == "fail" for each in findings)
    out.data({"ok": not broken, "findings": [each.to_json() for each in findings]})
    columns = {"CHECK": "check", "STATE": "state", "FOUND": "text"}
    out.table(columns, rows_of(findings, columns))
    for each in findings:
        if each.remedy and each.state != "ok":
            out.line(f"{each.check}: {each.remedy}", "yellow")
    if broken:
        raise WorkFailedError(message=f"{broken} of {len(findings)} findings are failures")


def _checks(
    context: Context, idle_seconds: float
) -> Iterator[tuple[str, Callable[[], list[Finding]]]]:
    session = context.session
    kernel = cache(partial(session.in_memory, workflows=False))
    yield "program", lambda: [Finding("program", "ok", version_line())]
    yield "settings", lambda: _settings(context)
    yield "database", lambda: _database(context)
    yield "plugins", lambda: _plugins(kernel())
    yield "workflows", lambda: _workflows(session.workflow_paths(), kernel())
    yield "secrets", lambda: secret_findings(kernel(), _uses(context, kernel()))
    listening = cache(partial(_listening, context))
    yield (
        "polls",
        lambda: poll_findings(listening(), program=context.program, idle_seconds=idle_seconds),
    )
    yield (
        "schedules",
        lambda: schedule_findings(listening(), program=context.program, idle_seconds=idle_seconds),
    )
    yield "executors", lambda: executor_findings(kernel())
    yield "relays", lambda: relay_findings(kernel())
    yield (
        "executions",
        lambda: execution_findings(session.plain, program=context.program),
    )
    yield (
        "workers",
        lambda: worker_findings(
            session.plain.outbox,
            program=context.program,
            worker=context.named("worker"),
            idle_seconds=idle_seconds,
        ),
    )


def _connections(context: Context) -> list[Finding]:
    return connection_findings(context.session.in_memory(workflows=False))


def _plugins(kernel: Kernel) -> list[Finding]:
    kernel.plugins.registry("command").load_all()  # no kernel imports them
    return plugin_findings(kernel)


def _listening(context: Context) -> Kernel:
    """Return a kernel that has the workflows, as far as they are valid."""
    kernel = context.session.look().build(workflows=False)
    for path in context.session.workflow_paths():
        with suppress(AutomateError):  # reported with the workflows
            kernel.add_workflow(path)
    return kernel


def _settings(context: Context) -> list[Finding]:
    settings = context.session.settings
    found = [Finding("settings", "ok", str(settings.file or "no file: defaults and environment"))]
    for name, near in settings.strays:
        remedy = f"did you mean {near}?" if near else "unset it, if it was meant for us"
        found.append(Finding("settings", "warn", f"{name} is read by nobody", remedy))
    return found


def _database(context: Context) -> list[Finding]:
    storage = context.session.plain.storage
    if isinstance(storage, MemoryStorage):
        remedy = "give the kernel a storage, or workers in other processes see nothing"
        return [Finding("database", "warn", "app keeps everything in memory", remedy)]
    if is_stand_in(storage):
        remedy = "name the right file, or begin: the first event, worker or db migrate makes it"
        return [Finding("database", "warn", f"{storage.describe()}: there is no file", remedy)]
    found = schema_findings(storage)
    if any(each.state == "fail" for each in found):
        return found
    settings = context.session.settings
    room = capacity_findings(
        storage,
        context.session.plain.outbox,
        processes=settings["worker.processes"],
        slots=settings["worker.slots"],
    )
    return [*found, *room, clock_finding(storage)]


def _workflows(paths: list[Path], kernel: Kernel) -> list[Finding]:
    found = []
    for path in paths:
        try:
            kernel.add_workflow(path)
        except AutomateError as error:
            found.append(Finding("workflows", "fail", str(error), "correct the definitions"))
    if found and not len(kernel.workflows):
        return found
    none = "set workflows in automate.toml, or make the folder workflows"
    others = workflow_findings(kernel, none=none)
    return [*found, *(each for each in others if not found or each.state != "ok")]


def _uses(context: Context, kernel: Kernel) -> dict[str, list[str]]:
    settings = context.session.settings
    tokens = {name: settings[name] for name in ("serve.events_token", "serve.operations_token")}
    for key in settings["serve.events_secrets"]:
        tokens[f"serve.events_secrets: {key}"] = f"$secret:{key.removeprefix('$secret:')}"
    return secret_uses(kernel, settings["config"], tokens)


def _show_secrets(context: Context) -> None:
    out, kernel = context.out, context.session.in_memory()
    uses = _uses(context, kernel)
    report = kernel.secrets.check(uses)
    rows = [
        {
            **attributes(status, "key", "ok"),
            **{name: getattr(status, name) or None for name in ("backend", "problem", "warning")},
            "used_by": uses[status.key],
        }
        for status in report.statuses
    ]
    out.data({"ok": report.ok, "secrets": rows})
    columns: Columns = {
        "KEY": "key",
        "STATE": lambda status: ("warn" if status.warning else "ok") if status.ok else "missing",
        "BACKEND": lambda status: status.backend or None,
        "USED BY": lambda status: "; ".join(uses[status.key]),
    }
    none = "no workflow, config or webhook names a secret"
    out.table(columns, rows_of(report.statuses, columns), empty=none)
    for status in report.problems:
        out.line(f"{status.key}: {status.problem}", "red")
    for status in report.warnings:
        out.line(f"{status.key}: {status.warning}", "yellow")
    if not report.ok:
        raise typer.Exit(1)
