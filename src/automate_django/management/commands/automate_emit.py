"""``manage.py automate_emit``: put an event into the outbox."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from automate_cli.command_input import duration_input, label_input, payload_input
from automate_django.kernel import get_kernel
from automate_django.management.base import KernelCommand, as_json


class Command(KernelCommand):
    """Accepts an event, and prints its id."""

    help = "Accept an event: workers start the workflows that wait for it. Prints the event's id."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the options of ``automate emit``."""
        add = parser.add_argument
        add("NAME", help="the event's name: order.created")
        payload = "the payload as JSON; @FILE for a file with it, - for stdin"
        add("PAYLOAD", nargs="?", help=payload)
        delay = "the time before it counts: 90, 5m, 2h (default: %(default)s)"
        add("--delay", default="0", metavar="DURATION", help=delay)
        priority = "a point is worth an hour of waiting (default: %(default)s)"
        add("--priority", type=int, default=0, help=priority)
        once = "a second event with the same key changes nothing"
        add("--idempotency-key", metavar="KEY", help=once)
        add("--tenant", help="the tenant that it belongs to")
        add("--source", default="manage.py", help="the sender (default: %(default)s)")
        label = "a key to find it by; may be repeated"
        add("--label", action="append", default=[], metavar="NAME=VALUE", help=label)
        add("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        """Emit the event."""
        name = options["NAME"]
        event_id = get_kernel().emit(
            name,
            payload_input(options["PAYLOAD"]),
            source=options["source"],
            delay=duration_input(options["delay"], "--delay"),
            priority=options["priority"],
            idempotency_key=options["idempotency_key"],
            tenant_id=options["tenant"],
            labels=label_input(options["label"]),
        )
        self.stdout.write(as_json({"id": event_id, "name": name}) if options["json"] else event_id)
