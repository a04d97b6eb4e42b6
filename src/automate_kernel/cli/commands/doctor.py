"""``automate doctor`` and ``automate secrets``: checks of a project, with remedies."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING

import typer

from automate_kernel.cli.command import Commands, Context, WorkFailedError
from automate_kernel.cli.inputs import duration, option
from automate_kernel.cli.version import version_line
from automate_kernel.errors import AutomateError, ErrorCodes
from automate_kernel.monitoring.diagnosis import (
    Finding,
    clock_finding,
    findings_of,
    plugin_findings,
    schema_findings,
    secret_findings,
    secret_uses,
    worker_findings,
    workflow_findings,
)
from automate_kernel.storage import MemoryStorage

if TYPE_CHECKING:
    from automate_kernel.kernel import Kernel
    from automate_kernel.secrets import SecretStatus

app = Commands()
secrets_app = Commands("secrets", "Find out whether secrets can be read. Values are never shown.")


@app.called(
    "automate doctor",
    "automate doctor --json",
    "automate doctor --idle-after 15m   # where a worker runs every ten minutes",
)
def doctor(
    context: Context,
    idle_after: str = option(
        "60s",
        "Report work that is due for so long and that no worker works on.",
        metavar="DURATION",
    ),
) -> None:
    """
    Check the database and its tables, plugins, secrets, workflows, workers and clocks.

    Each finding comes with its remedy. Exits with 1 if something is broken: work that is due and
    that nobody works on, for example.
    """
    workers: Callable[[Context], list[Finding]] = partial(
        _workers, idle_seconds=duration(idle_after, "--idle-after")
    )
    checks = [*_CHECKS, ("workers", workers)]
    findings = findings_of(
        ((name, partial(check, context)) for name, check in checks), debug=context.debug
    )
    out, broken = context.out, sum(each.state == "fail" for each in findings)
    out.data({"ok": not broken, "findings": [each.to_json() for each in findings]})
    out.table(
        ("CHECK", "STATE", "FOUND"), [(each.check, each.state, each.text) for each in findings]
    )
    for each in findings:
        if each.remedy and each.state != "ok":
            out.line(f"{each.check}: {each.remedy}", "yellow")
    if broken:
        text = f"{broken} of {len(findings)} findings are failures"
        raise WorkFailedError(ErrorCodes.FAILED_PRECONDITION, text)


def _program(context: Context) -> list[Finding]:
    return [Finding("program", "ok", version_line())]


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
    found = schema_findings(storage)
    if any(each.state == "fail" for each in found):
        return found
    return [*found, clock_finding(storage)]


@cache
def _kernel(context: Context) -> Kernel:
    return context.session.build(MemoryStorage(), workflows=False)


def _plugins(context: Context) -> list[Finding]:
    return plugin_findings(_kernel(context))


def _workflows(context: Context) -> list[Finding]:
    kernel, found = _kernel(context), []
    for path in context.session.workflow_paths():
        try:
            kernel.add_workflow(path)
        except AutomateError as error:
            found.append(Finding("workflows", "fail", str(error), "correct the definitions"))
    if found and not len(kernel.workflows):
        return found
    none = "set workflows in automate.toml, or make the folder workflows"
    others = workflow_findings(kernel, none=none)
    return [*found, *(each for each in others if not found or each.state != "ok")]


def _secrets(context: Context) -> list[Finding]:
    kernel, settings = _kernel(context), context.session.settings
    uses = secret_uses(kernel, settings["config"], settings["serve.events_token"])
    return secret_findings(kernel, uses)


def _workers(context: Context, idle_seconds: float) -> list[Finding]:
    return worker_findings(
        context.session.plain.outbox,
        command=context.named("outbox"),
        worker=context.named("worker"),
        idle_seconds=idle_seconds,
    )


_CHECKS: tuple[tuple[str, Callable[[Context], list[Finding]]], ...] = (
    ("program", _program),
    ("settings", _settings),
    ("database", _database),
    ("plugins", _plugins),
    ("workflows", _workflows),
    ("secrets", _secrets),
)


@secrets_app.called("automate secrets check", "automate secrets check --json")
def check(context: Context) -> None:
    """
    Read each secret that workflows, plugins' config and webhooks name, and show which work.

    Values are read and dropped, never shown. Exits with 1 if any can't be read. A value that is too
    short or common to be hidden well gets a warning.
    """
    session, out = context.session, context.out
    kernel = session.build(MemoryStorage())
    settings = session.settings
    uses = secret_uses(kernel, settings["config"], settings["serve.events_token"])
    report = kernel.secrets.check(uses)
    rows = [
        {
            "key": status.key,
            "ok": status.ok,
            "backend": status.backend or None,
            "problem": status.problem or None,
            "warning": status.warning or None,
            "used_by": uses[status.key],
        }
        for status in report.statuses
    ]
    out.data({"ok": report.ok, "secrets": rows})
    out.table(
        ("KEY", "STATE", "BACKEND", "USED BY"),
        [(s.key, _state(s), s.backend or None, "; ".join(uses[s.key])) for s in report.statuses],
        empty="no workflow, config or webhook names a secret",
    )
    for status in report.problems:
        out.line(f"{status.key}: {status.problem}", "red")
    for status in report.warnings:
        out.line(f"{status.key}: {status.warning}", "yellow")
    if not report.ok:
        raise typer.Exit(1)


def _state(status: SecretStatus) -> str:
    if not status.ok:
        return "missing"
    return "warn" if status.warning else "ok"


app.add_typer(secrets_app)
