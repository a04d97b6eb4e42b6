"""``automate polls``: look at the polls of connectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from automate_cli.command import Commands, Context, DataCommand
from automate_cli.output import Columns, ago, attributes, time_of

if TYPE_CHECKING:
    from automate_kernel.triggers.polls.poller import Poll

app: Commands = Commands("polls", "Look at the polls of connectors.")

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
