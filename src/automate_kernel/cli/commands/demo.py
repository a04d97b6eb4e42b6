"""``automate demo``: the whole thing on this machine, in some seconds."""

from __future__ import annotations

from typing import Annotated

import typer

from automate_kernel.cli.command import Context, command

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    command(
        app,
        "demo",
        data=True,
        examples=("automate demo", "automate demo --keep", "automate demo --json"),
    )(demo)


def demo(
    context: Context,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the project and its database where they are.")
    ] = False,
) -> None:
    """
    See it work: webhooks come in, a workflow runs, a worker is killed, and nothing is lost.

    Everything is real and on this machine: the receiver, signed requests, two worker processes,
    SQLite, a service that fails. It needs no network and takes some ten seconds.
    """
    from automate_kernel.cli.demo.story import tell

    if not tell(context.out, keep=keep):
        raise typer.Exit(1)
