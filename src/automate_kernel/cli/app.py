"""The commands of ``automate``, put together."""

from __future__ import annotations

from typing import Annotated

import typer

from automate_kernel.cli.command import ConfigFile, Database, Debug, add
from automate_kernel.cli.commands import (
    config,
    demo,
    plugins,
    run,
    secrets,
    top,
    worker,
    workflow,
)
from automate_kernel.cli.commands.db import DB
from automate_kernel.cli.commands.doctor import DOCTOR
from automate_kernel.cli.commands.emit import EMIT
from automate_kernel.cli.commands.executions import EXECUTIONS
from automate_kernel.cli.commands.find import FIND
from automate_kernel.cli.commands.outbox import OUTBOX
from automate_kernel.cli.definitions import Command, Group
from automate_kernel.cli.version import version_line

__all__ = ["app"]

app: typer.Typer = typer.Typer(
    name="automate",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    epilog="Begin with [bold]automate demo[/bold]. Each command has examples in its --help.\n\n"
    "Exit codes: 0 done, 1 the work failed, 2 wrong usage or configuration.",
)


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


for _subject in (
    demo, run, worker, EMIT, workflow, EXECUTIONS, OUTBOX, FIND, top, plugins, secrets, DOCTOR,
    config, DB,
):  # fmt: skip
    if isinstance(_subject, (Command, Group)):
        add(app, _subject)
    else:
        _subject.add_to(app)
