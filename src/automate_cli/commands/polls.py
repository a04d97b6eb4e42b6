"""``automate polls``: look at the polls of connectors, pause, resume and start them over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from automate_cli import inputs
from automate_cli.command import Commands, Context, DataCommand
from automate_cli.inputs import argument, flag, option
from automate_cli.output import Columns, ago, attributes, counted, time_of

if TYPE_CHECKING:
    from automate_kernel.triggers.polls.poller import Poll

app: Commands = Commands("polls", "Look at the polls of connectors; pause, resume, start over.")

_NAME = argument("The name of its events: connector.poll.")
_TENANT = option(None, "The tenant whose own workflows listen to it.")
_COLUMNS: Columns = {
    "POLL": "name",
    "TENANT": "tenant_id",
    "STATE": "state",
    "NEXT": lambda each: "paused" if each.paused_at else time_of(each.next_at),
    "LAST": lambda each: ago(each.polled_at) if each.polled_at else "",
    "LAST EVENT": lambda each: ago(each.event_at) if each.event_at else "",
    "FAILURES": "failures",
    "ERROR": "error",
}


def poll_data(poll: Poll) -> dict[str, Any]:
    """Return a poll with its state, ready for JSON."""
    return {
        **attributes(poll, "name", "tenant_id", "state"),
        "every_seconds": poll.spec.every_seconds,
        **attributes(poll, "next_at", "polled_at", "event_at", "paused_at"),
        **attributes(poll, "failures", "error_code", "error"),
    }


@app.command("list", cls=DataCommand, hidden=True)
@app.called("automate polls ls", "automate polls ls --json")
def ls(context: Context) -> None:
    """List the polls that workflows listen to, with their state and their last error."""
    found = context.session.look().whole.polls.find()
    context.out.listing(found, _COLUMNS, "no workflow listens to a poll", poll_data)


@app.called("automate polls pause sheet.new_row")
def pause(context: Context, name: str = _NAME, tenant: str | None = _TENANT) -> None:
    """Let a poll rest. It keeps its place."""
    _report(context, context.session.whole.polls.pause(name, tenant_id=tenant), "paused")


@app.called(
    "automate polls resume sheet.new_row", "automate polls resume sheet.new_row --start-over"
)
def resume(
    context: Context,
    name: str = _NAME,
    tenant: str | None = _TENANT,
    start_over: bool = flag(
        "--start-over",
        "Forget its place and its failures, paused or not: its next call is its first.",
    ),
    yes: bool = inputs.YES,
) -> None:
    """
    Let a paused poll go on from its place.

    With --start-over, events of the last 30 days are known, and not emitted again.
    """
    polls = context.session.whole.polls
    if not start_over:
        _report(context, polls.resume(name, tenant_id=tenant), "resumed")
        return
    inputs.confirm(f"Let {name} begin again?", yes=yes)
    changed = polls.start_over(name, tenant_id=tenant)
    polls.resume(name, tenant_id=tenant)
    _report(context, changed, "started over")


def _report(context: Context, count: int, done: str) -> None:
    context.out.data({done.replace(" ", "_"): count})
    context.out.line(f"{counted(count, 'poll')} {done}")
