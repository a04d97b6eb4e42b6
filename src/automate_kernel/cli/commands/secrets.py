"""``automate secrets``: whether every secret that is needed can be read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from automate_kernel.cli.command import Context, command, group

if TYPE_CHECKING:
    from automate_kernel.secrets import SecretStatus

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    own = group("secrets", "Find out whether secrets can be read. Values are never shown.")
    command(
        own,
        "check",
        data=True,
        examples=("automate secrets check", "automate secrets check --json"),
    )(check)
    app.add_typer(own)


def check(context: Context) -> None:
    """
    Read each secret that workflows, plugins' config and webhooks name, and tell which work.

    Values are read and dropped, never shown. Exits with 1 if any can't be read. Of one that is too
    short or common to be hidden well a warning tells.
    """
    from automate_kernel.monitoring.diagnosis import secret_uses
    from automate_kernel.storage import MemoryStorage

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
