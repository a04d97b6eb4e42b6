"""Django's argument parser, built from what the commands of ``automate`` say of themselves."""

from __future__ import annotations

import re
from argparse import ArgumentParser, ArgumentTypeError, RawDescriptionHelpFormatter
from collections.abc import Callable
from typing import Any

from django.core.management.base import DjangoHelpFormatter

from automate_kernel.cli.definitions import Command, Group, Option, Parameter

__all__ = ["add_command", "described", "values_of"]


class _Formatter(DjangoHelpFormatter, RawDescriptionHelpFormatter):
    """Django's, that leaves the lines of the examples as they are."""


def add_command(parser: ArgumentParser, definition: Command | Group, prefix: str) -> None:
    """Let *parser* take what *definition* takes; which command was chosen is ``definition``."""
    if isinstance(definition, Command):
        _add_parameters(parser, definition, prefix)
        return
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for each in definition.commands:
        text = described(each.help[0])
        own = commands.add_parser(each.name, help=text, aliases=list(each.also))
        own.description = described("\n\n".join(each.help))
        _add_parameters(own, each, prefix)


def _add_parameters(parser: ArgumentParser, command: Command, prefix: str) -> None:
    for each in command.parameters():
        if isinstance(each.how, Option):
            _add_option(parser, each)
        else:
            _add_argument(parser, each)
    if command.data:
        parser.add_argument("--json", action="store_true", help="Print JSON.")
    if command.examples:
        called = [re.sub(r"\bautomate (?=\w)", prefix, each) for each in command.examples]
        parser.epilog = described("\n  ".join(["examples:", *called]))
    parser.formatter_class = _Formatter
    parser.set_defaults(definition=command)


def _add_option(parser: ArgumentParser, given: Parameter) -> None:
    text, dest = described(given.how.help), _dest(given)
    if given.type is bool:
        parser.add_argument(*given.flags, dest=dest, action="store_true", help=text)
        return
    parser.add_argument(
        *given.flags,
        dest=dest,
        action="append" if given.many else "store",
        type=_type(given),
        metavar=given.how.metavar,
        required=given.required,
        default=given.default,
        help=text,
    )


def _add_argument(parser: ArgumentParser, given: Parameter) -> None:
    count = ("+" if given.required else "*") if given.many else None if given.required else "?"
    parser.add_argument(
        _dest(given),
        nargs=count,
        type=_type(given),
        metavar=(given.how.metavar or given.name.upper()).strip("[]…"),
        help=described(given.how.help),
    )


def described(text: str) -> str:
    """*text* for a parser, which replaces what follows a ``%``."""
    return text.replace("%", "%%")


def _dest(given: Parameter) -> str:
    # call_command takes options by these names; a positional one must not be taken for one.
    if not isinstance(given.how, Option):
        return given.name.upper()
    return next(flag for flag in given.flags if flag.startswith("--"))[2:].replace("-", "_")


def _type(given: Parameter) -> Callable[[str], Any]:
    least, most = given.how.min, given.how.max

    def read(text: str) -> Any:
        value = given.type(text)
        if least is not None and value < least:
            raise ArgumentTypeError(f"{text} is less than {least:g}")
        if most is not None and value > most:
            raise ArgumentTypeError(f"{text} is more than {most:g}")
        return value

    read.__name__ = given.type.__name__  # what the parser calls it in errors
    return read


def values_of(command: Command, options: dict[str, Any]) -> dict[str, Any]:
    """What the function of *command* is called with."""
    return {each.name: _value(each, options[_dest(each)]) for each in command.parameters()}


def _value(given: Parameter, value: Any) -> Any:
    # From call_command, which hands numbers on as they are.
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return str(value) if number and given.type is str else value
