"""``automate outbox stats``: how many items there are, once or again and again."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

from automate_kernel.cli.definitions import Argument, Context, Group, Option
from automate_kernel.cli.output import seconds
from automate_kernel.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from automate_kernel.outbox import OutboxStats

__all__ = ["add_to_group"]

_STATES = ("PENDING", "RETRY", "RUNNING", "COMPLETED", "FAILED", "CANCELLED")
_EVERY_SECONDS = 2.0


def add_to_group(own: Group) -> None:
    """Add the commands."""
    own.command(
        "stats",
        examples=(
            "automate outbox stats",
            "automate outbox stats --watch",
            "automate outbox stats --watch 10 --json   # a document a line",
        ),
    )(stats)
    own.command("workers", examples=("automate outbox workers",))(workers)


def stats(
    context: Context,
    watch: Annotated[bool, Option("--watch", help="Look again and again.")] = False,
    every: Annotated[
        float | None,
        Argument(
            metavar="[SECONDS]",
            help="With --watch: how often; 2 by default.",
            min=0.1,
        ),
    ] = None,
) -> None:
    """Count the items of each kind by state, and tell how late the oldest due one is."""
    if every is not None and not watch:
        raise ConfigError("how often to look is for --watch", hint=f"add it: --watch {every:g}")
    look, out = context.session.plain.outbox.stats, context.out
    if watch:
        from automate_kernel.cli.watching import Watch

        Watch(out, look, _picture, _line, _data).run(every or _EVERY_SECONDS)
        return
    found = look()
    out.data(_data(found))
    out.table(("KIND", *_STATES), _rows(found), empty="the outbox is empty")
    for text, style in _below(found):
        out.line(text, style)


def workers(context: Context) -> None:
    """List the workers that tell of themselves: where they run, and how much."""
    from automate_kernel.cli.overviews import show_workers, worker_data

    outbox = context.session.plain.outbox
    found = outbox.workers()
    context.out.data([worker_data(each) for each in found])
    show_workers(context.out, found, outbox.now())


def _data(found: OutboxStats) -> dict[str, Any]:
    return {
        "counts": found.counts,
        "oldest_due_seconds": found.oldest_due_seconds,
        "paused": list(found.paused),
    }


def _rows(found: OutboxStats) -> list[tuple[Any, ...]]:
    return [(kind, *(of.get(each, 0) for each in _STATES)) for kind, of in found.counts.items()]


def _below(found: OutboxStats) -> list[tuple[str, str | None]]:
    late = found.oldest_due_seconds
    told: list[tuple[str, str | None]] = [
        (f"oldest due item: {'none' if late is None else seconds(late) + ' late'}", None)
    ]
    if found.paused:
        told.append((f"paused: {', '.join(found.paused)}", "yellow"))
    return told


def _line(found: OutboxStats) -> str:
    counts = "  ".join(f"{state.lower()} {found.total(state)}" for state in _STATES)
    return f"{datetime.now():%H:%M:%S}  {counts}  {_below(found)[0][0]}"  # noqa: DTZ005  (to read)


def _picture(found: OutboxStats) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from automate_kernel.cli.overviews import drawn

    return Group(
        drawn(("KIND", *_STATES), [tuple(map(str, row)) for row in _rows(found)]),
        *(Text(text, style=style or "") for text, style in _below(found)),
    )
