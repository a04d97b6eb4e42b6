"""The commands of ``automate``, put together."""

from __future__ import annotations

import typer

from automate_cli import demo, overview
from automate_cli.command import CONFIG, DATABASE, DEBUG, Commands
from automate_cli.commands import (
    approvals,
    authoring,
    call,
    connect,
    db,
    dev,
    doctor,
    documents,
    events,
    executions,
    executor,
    outbox,
    pausing,
    polls,
    schedules,
    tokens,
    worker,
)
from automate_cli.inputs import option
from automate_cli.plugin_commands import RootCommands
from automate_cli.version import version_line

app: Commands = Commands(
    "automate",
    cls=RootCommands,
    epilog="Begin with [bold]automate demo[/bold]. Each command has examples in its --help.\n\n"
    "Exit codes: 0 done, 1 the work failed, 2 wrong usage or configuration.",
)
hosted: Commands = Commands(
    cls=RootCommands,
    help="Look at the outbox and executions of this application, and change them.",
    add_completion=False,
)
"""The commands for a kernel that an application has made."""


def _show_version(wanted: bool) -> None:
    if wanted:
        print(version_line())
        raise typer.Exit


@app.callback()
def _root(
    ctx: typer.Context,
    config: str | None = CONFIG,
    database: str | None = DATABASE,
    debug: bool = DEBUG,
    version: bool = option(
        False, "Show the version.", "--version", callback=_show_version, is_eager=True
    ),
) -> None:
    """Run automations durably, from your own database: workflows, webhooks, workers."""
    ctx.obj = {"config": config, "database": database, "debug": debug}


for _each in (
    demo.app, dev.app, events.app, call.app, worker.app, executor.app, documents.app,
    executions.app, approvals.app, schedules.app, polls.app, outbox.app, pausing.app, tokens.app,
    overview.app, authoring.app, connect.app, doctor.app, db.app,
):  # fmt: skip
    app.add_typer(_each)
for _each in (
    call.app, executions.app, approvals.app, schedules.app, polls.app, outbox.app,
    pausing.app, overview.app, db.hosted, documents.hosted, tokens.hosted,
):  # fmt: skip
    hosted.add_typer(_each)
