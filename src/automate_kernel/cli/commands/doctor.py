"""``automate doctor``: is everything as it should be, and what to do where it isn't."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import typer

from automate_kernel.cli.command import Context, command
from automate_kernel.errors import AutomateError

if TYPE_CHECKING:
    from automate_kernel.diagnosis import Finding

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "doctor", data=True, examples=("automate doctor", "automate doctor --json"))(
        doctor
    )


def doctor(context: Context) -> None:
    """
    Check the database, plugins, secrets, workflows, workers' leases and clocks.

    Each finding comes with its remedy. Exits with 1 if something is broken.
    """
    from automate_kernel.cli import diagnosis

    findings: list[Finding] = []
    for name, check in diagnosis.CHECKS:
        findings += _carefully(name, check, context)
    out = context.out
    broken = any(each.state == "fail" for each in findings)
    out.data({"ok": not broken, "findings": [each.to_json() for each in findings]})
    out.table(
        ("CHECK", "STATE", "FOUND"), [(each.check, each.state, each.text) for each in findings]
    )
    for each in findings:
        if each.remedy and each.state != "ok":
            out.line(f"{each.check}: {each.remedy}", "yellow")
    if broken:
        raise typer.Exit(1)


def _carefully(
    name: str, check: Callable[[Context], list[Finding]], context: Context
) -> list[Finding]:
    from automate_kernel.diagnosis import Finding

    try:
        return check(context)
    except AutomateError as error:
        text = context.redact(error.message)
        return [Finding(name, "fail", text, error.hint and context.redact(error.hint))]
