"""``automate outbox``: look at the outbox, pause, clean and repair it."""

from __future__ import annotations

from typing import Annotated

import typer

from automate_kernel.cli.command import Context, command, group
from automate_kernel.cli.commands import (
    outbox_changes,
    outbox_items,
    outbox_limits,
    outbox_stats,
)
from automate_kernel.cli.inputs import confirm, duration
from automate_kernel.cli.output import counted

__all__ = ["add_to"]

_Kind = Annotated[str, typer.Argument(help="The kind of item: automate.event.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    own = group("outbox", "Look at the outbox, and steer it: requeue, cancel, limit, pause, clean.")
    outbox_stats.add_to_group(own)
    outbox_items.add_to_group(own)
    outbox_changes.add_to_group(own)
    outbox_limits.add_to_group(own)
    command(
        own,
        "purge",
        data=True,
        examples=("automate outbox purge --older-than 30d --yes",),
    )(purge)
    command(
        own,
        "pause",
        data=True,
        examples=('automate outbox pause mail.send --reason "the mail server is down"',),
    )(pause)
    command(own, "resume", data=True, examples=("automate outbox resume mail.send",))(resume)
    command(
        own,
        "reap",
        data=True,
        examples=("automate outbox reap", "automate outbox reap --stale-seconds 600"),
    )(reap)
    app.add_typer(own)


def purge(
    context: Context,
    older_than: Annotated[
        str, typer.Option(help="Since when they must be finished: 30d, 12h.", metavar="DURATION")
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
) -> None:
    """Delete items that finished long ago. Executions and their steps stay."""
    age = duration(older_than, "--older-than")
    confirm(f"Delete every item that finished more than {older_than} ago?", yes=yes)
    outbox, total = context.session.plain.outbox, 0
    with context.out.working("deleting"):
        while deleted := outbox.purge(older_than_seconds=age):
            total += deleted
    context.out.data({"purged": total})
    context.out.line(f"{counted(total)} deleted")


def pause(
    context: Context,
    kind: _Kind,
    reason: Annotated[str, typer.Option(help="Why, for whoever wonders.")] = "",
) -> None:
    """Stop all workers from claiming items of a kind, until resume."""
    context.session.plain.outbox.pause(kind, reason)
    context.out.data({"kind": kind, "paused": True})
    context.out.line(f"{kind} is paused; automate outbox resume {kind} lets it go on")


def resume(context: Context, kind: _Kind) -> None:
    """Let workers claim items of a kind again."""
    context.session.plain.outbox.resume(kind)
    context.out.data({"kind": kind, "paused": False})
    context.out.line(f"{kind} is no longer paused")


def reap(
    context: Context,
    stale_seconds: Annotated[
        float | None,
        typer.Option(help="Since the lease was last renewed; never less than the lease.", min=0),
    ] = None,
) -> None:
    """Recover items whose worker died. Workers do it themselves, if any is running."""
    from automate_kernel.outbox import OutboxReaper

    kernel = context.session.plain
    stale = kernel.outbox.lease_seconds if stale_seconds is None else stale_seconds
    reaped = OutboxReaper(kernel.outbox, stale_threshold_seconds=stale).reap_stale_items()
    context.out.data({"reaped": reaped})
    context.out.line(f"{counted(reaped)} recovered")
