"""The base of the commands of ``manage.py``: their errors, their output and its JSON."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from automate_cli.command_output import written_output
from automate_kernel.base.documents import shown_document
from automate_kernel.base.errors import AutomateError, exit_code
from automate_kernel.secrets.redaction import redact_text


class KernelCommand(BaseCommand):
    """A command that ends with a `CommandError` without secrets, and not with a traceback."""

    def run_from_argv(self, argv: list[str]) -> None:
        """Run the command of a command line, and write out its output."""
        try:
            with written_output():
                super().run_from_argv(argv)
        except AutomateError as error:
            self.stderr.write(redact_text(str(error)))
            sys.exit(exit_code(error))

    def execute(self, *args: Any, **options: Any) -> Any:
        """Run the command."""
        with _command_errors():
            return super().execute(*args, **options)


@contextmanager
def _command_errors() -> Iterator[None]:
    try:
        yield
    except AutomateError as error:
        raise CommandError(redact_text(str(error)), returncode=exit_code(error)) from error


def as_json(value: Any) -> str:
    """Return *value* as a JSON document."""
    return shown_document(value, indent=2)
