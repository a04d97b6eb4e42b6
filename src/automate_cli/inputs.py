"""Options and arguments that commands have in common, and confirmations."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

import typer

from automate_cli.command import WorkFailedError
from automate_cli.command_input import duration_input
from automate_cli.settings import meant
from automate_kernel.base.errors import ConfigError, ErrorCodes


def option(default: Any, help: str, *names: str, **more: Any) -> Any:
    """Return an option, as the default of a command's parameter."""
    return typer.Option(default, *names, help=help, **more)


def flag(name: str, help: str) -> Any:
    """Return an option without a value; it has no opposite ``--no-…``."""
    return typer.Option(False, name, help=help)


def argument(help: str, default: Any = ..., **more: Any) -> Any:
    """Return an argument that must be given, unless it has a *default*."""
    return typer.Argument(default, help=help, **more)


# The options of several commands.
LABEL = option(None, "A label: order=4711, or 4711 under any name.")
LIMIT = option(20, "The number of rows, at most.", "--limit", "-n", min=1, max=10_000)
MOST = option(None, "The number of them, at most.", "--limit", "-n", min=1)
NEWER_THAN = option(None, "Only created since then: 30m.", metavar="DURATION")
OLDER_THAN = option(None, "Only created longer ago: 2h.", metavar="DURATION")
TENANT = option(None, "Only what belongs to this tenant.")
YES = option(False, "Don't ask.", "--yes", "-y")


def ages(now: datetime, older_than: str | None, newer_than: str | None) -> dict[str, datetime]:
    """Return the conditions of ``--older-than`` and ``--newer-than`` for a store's methods."""
    given = {
        "created_before": ("--older-than", older_than),
        "created_after": ("--newer-than", newer_than),
    }
    return {
        name: now - timedelta(seconds=duration_input(age, option))
        for name, (option, age) in given.items()
        if age is not None
    }


def confirm(question: str, *, yes: bool) -> None:
    """
    Ask the user to confirm, unless *yes* says so already.

    Raises `WorkFailedError` if they refuse, and `ConfigError` where nobody can be asked.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError(f"{question} Nobody is there to ask", hint="add --yes")
    # Not on standard output: a program may read that.
    print(f"{question} [y/N]: ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise WorkFailedError(ErrorCodes.CANCELLED, "nothing was changed")


def alone(chosen: str, **others: Any) -> None:
    """Raise `ConfigError` for *others*, options by their names, that don't go with *chosen*."""
    for name, value in others.items():
        if value not in (None, False, [], ()):
            raise ConfigError(f"--{name.replace('_', '-')} doesn't go with {chosen}")


def one_of(text: str | None, known: type[Enum], option: str) -> str | None:
    """Return *text* in capitals, if it is a value of *known*; raises `ConfigError`."""
    if text is None:
        return None
    values = [str(each.value) for each in known]
    if text.upper() not in values:
        near = meant(text.upper(), values)
        raise ConfigError(
            f"{option}: there is no {text[:40]!r}",
            hint=f"did you mean {near}?" if near else f"it is one of {', '.join(values)}",
        )
    return text.upper()
