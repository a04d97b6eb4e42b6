"""``automate top``: what the outbox, its workers and executions do right now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from automate_kernel.cli.command import Context, command

if TYPE_CHECKING:
    from automate_kernel.cli.overviews import Seen

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    command(
        app,
        "top",
        data=True,
        examples=("automate top", "automate top --once", "automate top --every 10 --json"),
    )(top)


def top(
    context: Context,
    every: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.2)] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Look once, and end.")] = False,
) -> None:
    """
    Show rates, latencies and failures of items and workflows, and workers, live until Ctrl-C.

    It reads what workers tell of themselves every few seconds, so it works from any machine that
    reaches the database. Without a terminal there is a line for each look, and with --json a
    document.
    """
    from automate_kernel.cli import overviews
    from automate_kernel.cli.watching import Watch

    kernel, out = context.session.plain, context.out
    look, where = overviews.observing(kernel), kernel.storage.describe()
    if once:
        found = look()
        out.data(overviews.as_data(found))
        overviews.show(out, found, where)
        return

    def picture(found: Seen) -> Any:
        return overviews.picture(found, where, out.console.width)

    Watch(out, look, picture, overviews.in_a_line, overviews.as_data, screen=True).run(every)
