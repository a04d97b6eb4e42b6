"""``manage.py automate_emit``: put an event into the outbox."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from automate_django.management.base import AutomateCommand, CommandOutput
from automate_kernel.cli.inputs import duration, read_json
from automate_kernel.kernel import Kernel

__all__ = ["Command"]


class Command(AutomateCommand):
    """Accepts one event, and prints its id."""

    help = "Accept an event: workers start the workflows that wait for it. Prints the event's id."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the event, and what else there is to say of it."""
        super().add_arguments(parser)
        parser.add_argument("name", help="what happened: order.created")
        parser.add_argument(
            "payload", nargs="?", help="as JSON; @FILE for a file with it, - for standard input"
        )
        parser.add_argument("--tenant", help="the tenant that it belongs to")
        parser.add_argument(
            "--delay", default="0", help="before it counts: 90, 5m, 2h (default: none)"
        )
        parser.add_argument(
            "--priority",
            type=int,
            default=0,
            help="a point is worth an hour of waiting (default: 0)",
        )
        parser.add_argument(
            "--idempotency-key", help="a second event with the same key is the first one"
        )
        parser.add_argument(
            "--source", default="manage.py", help="who says so (default: %(default)s)"
        )

    def perform(self, kernel: Kernel, out: CommandOutput, options: dict[str, Any]) -> None:
        """Emit it."""
        event_id = kernel.emit(
            options["name"],
            _payload(options["payload"]),
            source=options["source"],
            tenant_id=options["tenant"],
            delay=duration(str(options["delay"]), "--delay"),
            priority=options["priority"],
            idempotency_key=options["idempotency_key"],
        )
        out.data({"id": event_id, "name": options["name"]})
        out.line(event_id)


def _payload(given: Any) -> Any:
    if not isinstance(given, str):
        return given  # from call_command, which need not write JSON
    if given == "-":
        return read_json("-")
    return read_json(given[1:]) if given.startswith("@") else read_json(given, "payload")
