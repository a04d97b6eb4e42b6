"""``manage.py automate``: the command line ``automate`` on the project's kernel."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import CommandParser, OutputWrapper

from automate_django import conf
from automate_django.kernel import get_kernel
from automate_django.management.base import KernelCommand


class Command(KernelCommand):
    """Runs the commands of ``automate``; among its arguments Django's own may stand anywhere."""

    help = (
        "Look at the outbox and executions, change them, and call operations. "
        "The commands are those of automate; "
        "they need the extra automate-kernel[cli]."
    )

    def create_parser(self, prog_name: str, subcommand: str, **options: Any) -> CommandParser:
        """Return Django's parser, which leaves everything that it doesn't know, --help too."""
        parser = super().create_parser(prog_name, subcommand, add_help=False, allow_abbrev=False)
        parser.parse_args = partial(_split, parser)  # type: ignore[assignment]
        return parser

    def handle(self, *args: Any, arguments: list[str], **options: Any) -> None:
        """Run the command in *arguments* on the command's own streams."""
        from automate_cli import app_for

        with (
            _as_it_is(self.stdout) as out,
            _as_it_is(self.stderr) as errors,
            redirect_stdout(out),
            redirect_stderr(errors),
        ):
            run = app_for(
                get_kernel,
                name="manage.py automate",
                colour=not options.get("no_color"),
                commands=conf.options("AUTOMATE_COMMANDS"),
                users=_user_id,
            )
            code = run(arguments)
        if code:
            sys.exit(code)


def _user_id(name: str) -> str | None:
    model = get_user_model()
    try:
        return str(model._default_manager.get_by_natural_key(name).pk)
    except model.DoesNotExist:
        return None


@contextmanager
def _as_it_is(stream: OutputWrapper) -> Iterator[Any]:
    """Let a stream of Django print texts without a line's end and a style of its own."""
    ending, style = stream.ending, stream.style_func
    stream.ending, stream.style_func = "", None
    try:
        yield stream
    finally:
        stream.ending, stream.style_func = ending, style


def _split(
    parser: CommandParser, args: list[str] | None = None, namespace: Namespace | None = None
) -> Namespace:
    found, rest = parser.parse_known_args(args, namespace)
    found.arguments = rest or ["--help"]
    return found
