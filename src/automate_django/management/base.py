"""What our commands have in common: the kernel, plain output or JSON, errors with a remedy."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError, OutputWrapper

from automate_django.kernel import get_kernel
from automate_kernel.cli.output import Output, as_json
from automate_kernel.errors import AutomateError
from automate_kernel.kernel import Kernel

__all__ = ["AutomateCommand", "CommandOutput", "confirm"]


class CommandOutput(Output):
    """The command line's output, on the streams of a Django command; always plain."""

    @property
    def terminal(self) -> bool:
        """Never: colours and boxes need a library that Django doesn't."""
        return False

    def __init__(self, stdout: OutputWrapper, stderr: OutputWrapper, *, json: bool = False) -> None:
        super().__init__(json=json)
        self._stdout, self._stderr = stdout, stderr

    def data(self, value: Any) -> None:
        """Print *value* as JSON, if that was asked for."""
        if self.json:
            self._stdout.write(as_json(value))

    def line(self, text: str = "", style: str | None = None) -> None:
        """Print a line, unless JSON was asked for."""
        if not self.json:
            self._stdout.write(text)

    def note(self, text: str) -> None:
        """Print a line to standard error."""
        self._stderr.write(text)


class AutomateCommand(BaseCommand):
    """A command that is given the kernel, and whose errors are `CommandError`."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add ``--json``."""
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> str | None:
        """Do it; whatever goes wrong is told without secrets, and with its remedy."""
        out = CommandOutput(self.stdout, self.stderr, json=options.get("json", False))
        try:
            kernel = get_kernel()
        except AutomateError as error:
            raise CommandError(str(error)) from error
        try:
            self.perform(kernel, out, options)
        except AutomateError as error:
            raise CommandError(kernel.redactor.redact(str(error))) from error
        return None

    def perform(self, kernel: Kernel, out: CommandOutput, options: dict[str, Any]) -> None:
        """What the command does."""
        raise NotImplementedError


def confirm(question: str, *, yes: bool) -> None:
    """Go on if *yes*, or if the user says so; raises CommandError."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise CommandError(f"{question} Nobody is there to ask: add --yes.")
    if input(f"{question} [y/N] ").strip().lower() not in ("y", "yes"):
        raise CommandError("Nothing was changed.")
