"""How a command of ``automate`` becomes one of ``manage.py``, on the project's own kernel."""

from __future__ import annotations

import os
from argparse import ArgumentParser
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TextIO, cast

from django.core.management.base import BaseCommand, CommandError, OutputWrapper

from automate_django.kernel import get_kernel
from automate_django.management.parsing import add_command, described, values_of
from automate_kernel.cli.definitions import Command, Context, Group
from automate_kernel.cli.failures import exit_code
from automate_kernel.cli.hosted import HostSession
from automate_kernel.cli.output import Output
from automate_kernel.errors import AutomateError

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["AutomateCommand", "CommandOutput"]

PREFIX = "manage.py automate_"


class CommandOutput(Output):
    """
    The command line's output, on the streams of a Django command.

    In a terminal it is as colourful as that of ``automate``, if ``rich`` is installed.
    """

    def __init__(
        self,
        stdout: OutputWrapper,
        stderr: OutputWrapper,
        *,
        json: bool = False,
        colour: bool = True,
    ) -> None:
        super().__init__(json=json)
        self._stdout, self._stderr, self._colour = stdout, stderr, colour

    @cached_property
    def terminal(self) -> bool:
        """Whether a person is looking at standard output, and all is there to please one."""
        looked_at = self._colour and self._stdout.isatty() and os.environ.get("TERM") != "dumb"
        return looked_at and find_spec("rich") is not None

    @cached_property
    def console(self) -> Console:
        """The console on the command's standard output."""
        from rich.console import Console

        return Console(
            file=cast("TextIO", self._stdout._out), highlight=False, soft_wrap=not self.terminal
        )

    def write(self, text: str) -> None:
        """Print a line to the command's standard output."""
        self._stdout.write(text)
        self._stdout.flush()

    def note(self, text: str) -> None:
        """Print a line to the command's standard error."""
        self._stderr.write(text)


class AutomateCommand(BaseCommand):
    """A command of ``automate``, or a group of them, that works on the project's kernel."""

    definition: Command | Group

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        text = self.definition.help
        self.help = described(text if isinstance(text, str) else "\n\n".join(text))

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take what the definition takes."""
        add_command(parser, self.definition, PREFIX)

    def handle(self, *args: Any, **options: Any) -> None:
        """Do it; whatever goes wrong is told without secrets, and with its remedy."""
        command: Command = options["definition"]
        out = CommandOutput(
            self.stdout,
            self.stderr,
            json=options.get("json", False),
            colour=not options.get("no_color", False),
        )
        session = HostSession(get_kernel)
        context = Context(
            session, out, debug=bool(options["traceback"]), prefix=PREFIX, source="manage.py"
        )
        try:
            command.function(context, **values_of(command, options))
        except AutomateError as error:
            text = context.redact(str(error))
            raise CommandError(text, returncode=exit_code(error)) from error
