"""``manage.py automate_emit``: put an event into the outbox."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand

from automate_django.kernel import get_kernel
from automate_django.management.base import as_json, command_errors, duration
from automate_kernel.errors import ConfigError
from automate_kernel.storage.values import read_json


class Command(BaseCommand):
    """Accepts an event, and prints its id."""

    help = "Accept an event: workers start the workflows that wait for it. Prints the event's id."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the options of ``automate emit``."""
        add = parser.add_argument
        add("NAME", help="the event's name: order.created")
        payload = "the payload as JSON"
        add("PAYLOAD", nargs="?", help=f"{payload}; @FILE for a file with it, - for stdin")
        add("--payload", metavar="JSON", help=payload)
        add("--file", help="a file with the payload as JSON; - for stdin")
        delay = "the time before it counts: 90, 5m, 2h (default: %(default)s)"
        add("--delay", default="0", metavar="DURATION", help=delay)
        priority = "a point is worth an hour of waiting (default: %(default)s)"
        add("--priority", type=int, default=0, help=priority)
        once = "a second event with the same key is the first one"
        add("--idempotency-key", metavar="KEY", help=once)
        add("--tenant", help="the tenant that it belongs to")
        add("--source", default="manage.py", help="the sender (default: %(default)s)")
        label = "a key to find it by; may be repeated"
        add("--label", action="append", default=[], metavar="NAME=VALUE", help=label)
        add("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        """Emit the event."""
        name = options["NAME"]
        with command_errors():
            event_id = get_kernel().emit(
                name,
                _payload(options["PAYLOAD"], options["payload"], options["file"]),
                source=options["source"],
                delay=duration(options["delay"], "--delay"),
                priority=options["priority"],
                idempotency_key=options["idempotency_key"],
                tenant_id=options["tenant"],
                labels=dict(map(_label, options["label"])),
            )
        self.stdout.write(as_json({"id": event_id, "name": name}) if options["json"] else event_id)


def _label(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--label {text[:40]!r} has no value", hint="order=4711")
    return name, value


def _payload(given: str | None, payload: Any, file: str | None) -> Any:
    if sum(each is not None for each in (given, payload, file)) > 1:
        raise ConfigError("give the payload once: as PAYLOAD, with --payload or with --file")
    if given is not None and (given == "-" or given.startswith("@")):
        file, given = given.removeprefix("@"), None
    if file is not None:
        return _loaded(_read(file), "standard input" if file == "-" else file)
    if given is not None:
        return _loaded(given, "PAYLOAD")
    # `call_command` may give any value.
    return _loaded(payload, "--payload") if isinstance(payload, str) else payload


def _read(source: str) -> str:
    try:
        return sys.stdin.read() if source == "-" else Path(source).read_text("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"there is no file {source!r}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{source} can't be read: {type(error).__name__}") from None


def _loaded(text: str, place: str) -> Any:
    try:
        return read_json(text)
    except ValueError as error:
        raise ConfigError(f"{place} is not JSON: {error}") from None
