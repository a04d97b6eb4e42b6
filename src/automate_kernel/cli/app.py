"""The commands of ``automate``, put together."""

from __future__ import annotations

from typing import Annotated

import typer

from automate_kernel.cli import demo, overview
from automate_kernel.cli.command import ConfigFile, Database, Debug
from automate_kernel.cli.commands import (
    config,
    db,
    doctor,
    events,
    executions,
    outbox,
    plugins,
    worker,
    workflow,
)
from automate_kernel.cli.version import version_line

app: typer.Typer = typer.Typer(
    name="automate",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    epilog="Begin with [bold]automate demo[/bold]. Each command has examples in its --help.\n\n"
    "Exit codes: 0 done, 1 the work failed, 2 wrong usage or configuration.",
)
hosted: typer.Typer = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Look at the outbox and executions of this application, and change them.",
)
"""The commands for a kernel that an application has made."""


def _show_version(wanted: bool) -> None:
    if wanted:
        print(version_line())
        raise typer.Exit


@app.callback()
def _root(
    ctx: typer.Context,
    config: ConfigFile = None,
    database: Database = None,
    debug: Debug = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Run automations durably, from your own database: workflows, webhooks, workers."""
    ctx.obj = {"config": config, "database": database, "debug": debug}


for _each in (
    demo.app, events.app, worker.app, workflow.app, executions.app, outbox.app, executions.find_app,
    overview.app, plugins.app, doctor.app, config.app, db.app,
):  # fmt: skip
    app.add_typer(_each)
for _each in (executions.app, outbox.app, executions.find_app, overview.app, db.hosted):
    hosted.add_typer(_each)
