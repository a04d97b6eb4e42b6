"""What ``automate doctor`` looks at."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING

from automate_kernel.cli.command import Context
from automate_kernel.cli.version import version_line
from automate_kernel.errors import AutomateError
from automate_kernel.monitoring.diagnosis import (
    Finding,
    clock_finding,
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

__all__ = ["Finding", "checks"]


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


Check = tuple[str, Callable[[Context], list[Finding]]]


def checks(idle_seconds: float) -> tuple[Check, ...]:
    """Return all checks; for *idle_seconds* see `worker_findings` of the kernel's diagnosis."""
    return (*_CHECKS, ("workers", partial(_workers, idle_seconds=idle_seconds)))


_CHECKS: tuple[Check, ...] = (
    ("program", _program),
    ("settings", _settings),
    ("database", _database),
    ("plugins", _plugins),
    ("workflows", _workflows),
    ("secrets", _secrets),
)
