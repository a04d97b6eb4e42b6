"""``automate outbox``: look at the outbox, pause, clean and repair it."""

from __future__ import annotations

from typing import Annotated

from automate_kernel.cli.commands import (
    outbox_changes,
    outbox_items,
    outbox_limits,
    outbox_stats,
)
from automate_kernel.cli.definitions import Argument, Command, Context, Group, Option
from automate_kernel.cli.inputs import confirm, duration
from automate_kernel.cli.output import counted

__all__ = ["OUTBOX", "REAP"]

_Kind = Annotated[str, Argument(help="The kind of item: automate.event.")]


def purge(
    context: Context,
    older_than: Annotated[
        str, Option(help="Since when they must be over: 30d, 12h.", metavar="DURATION")
    ],
    yes: Annotated[bool, Option("--yes", "-y", help="Don't ask.")] = False,
) -> None:
    """Delete items and executions that ended long ago, with all that belongs to them."""
    age = duration(older_than, "--older-than")
    confirm(f"Delete every item and execution that ended over {older_than} ago?", yes=yes)
    with context.out.working("deleting"):
        total = context.session.plain.purge(older_than_seconds=age)
    context.out.data({"purged": total})
    context.out.line(f"{counted(total, 'row')} deleted")


def pause(
    context: Context,
    kind: _Kind,
    reason: Annotated[str, Option(help="Why, for whoever wonders.")] = "",
) -> None:
    """Stop all workers from claiming items of a kind, until resume."""
    context.session.plain.outbox.pause(kind, reason)
    context.out.data({"kind": kind, "paused": True})
    context.out.line(f"{kind} is paused; {context.named('outbox resume')} {kind} lets it go on")


def resume(context: Context, kind: _Kind) -> None:
    """Let workers claim items of a kind again."""
    context.session.plain.outbox.resume(kind)
    context.out.data({"kind": kind, "paused": False})
    context.out.line(f"{kind} is no longer paused")


def reap(
    context: Context,
    stale_seconds: Annotated[
        float | None,
        Option(help="Since the lease was last renewed; never less than the lease.", min=0),
    ] = None,
) -> None:
    """Recover items whose worker died. Workers do it themselves, if any is running."""
    from automate_kernel.worker import OutboxReaper

    kernel = context.session.plain
    stale = kernel.outbox.lease_seconds if stale_seconds is None else stale_seconds
    reaped = OutboxReaper(kernel.outbox, stale_threshold_seconds=stale).reap_stale_items()
    context.out.data({"reaped": reaped})
    context.out.line(f"{counted(reaped)} recovered")


REAP = Command(
    "reap", reap, ("automate outbox reap", "automate outbox reap --stale-seconds 600"), data=True
)
OUTBOX = Group("outbox", "Look at the outbox, and steer it: requeue, cancel, limit, pause, clean.")
outbox_stats.add_to_group(OUTBOX)
outbox_items.add_to_group(OUTBOX)
outbox_changes.add_to_group(OUTBOX)
outbox_limits.add_to_group(OUTBOX)
OUTBOX.command("purge", examples=("automate outbox purge --older-than 30d --yes",))(purge)
OUTBOX.command(
    "pause", examples=('automate outbox pause mail.send --reason "the mail server is down"',)
)(pause)
OUTBOX.command("resume", examples=("automate outbox resume mail.send",))(resume)
OUTBOX.commands.append(REAP)
