"""``manage.py automate_outbox``: look at the outbox, pause, limit, clean and repair it."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from automate_django.management import outbox_items, outbox_kinds
from automate_django.management.base import AutomateCommand, CommandOutput
from automate_kernel.kernel import Kernel

__all__ = ["Command"]

_SUBJECTS = (outbox_kinds, outbox_items)


class Command(AutomateCommand):
    """A command of commands; each is a function of `outbox_kinds` or `outbox_items`."""

    help = "Look at the outbox: count, list, requeue, cancel, pause, limit, purge."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the commands."""
        commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
        for subject in _SUBJECTS:
            for name, (function, text, add) in subject.COMMANDS.items():
                also = ["ls"] if name == "list" else []
                own = commands.add_parser(name, help=text, description=text, aliases=also)
                own.add_argument("--json", action="store_true", help="print JSON")
                add(own)
                own.set_defaults(function=function)

    def perform(self, kernel: Kernel, out: CommandOutput, options: dict[str, Any]) -> None:
        """Do what the command says."""
        options["function"](kernel.outbox, out, options)
