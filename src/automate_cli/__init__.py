"""The command line: ``automate``, and its commands for the kernel of an application."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from automate_cli.interruption import be_interruptible, end_imports_at_once
from automate_cli.version import version_line
from automate_kernel.base.errors import ConfigError

if TYPE_CHECKING:
    from automate_kernel.kernel import Kernel

__all__ = ["app_for", "main"]


def main() -> None:
    """Run the command line, and exit with its exit code."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed, as it is under some daemons
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115
    if hasattr(sys.stdout, "reconfigure"):
        # A terminal that knows no ✓ gets \u2713, which is what JSON calls it, too.
        sys.stdout.reconfigure(errors="backslashreplace")
    if sys.argv[1:] == ["--version"]:
        # Asked for by scripts, at every start: it needs nothing else.
        print(version_line())
        return
    end_imports_at_once()
    try:
        with _libraries():
            from automate_cli.app import app
        app(prog_name="automate")
    except ConfigError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:  # before a command runs, which has its own words for it
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    finally:
        be_interruptible()


def app_for(
    kernel_factory: Callable[[], Kernel],
    *,
    name: str = "automate",
    colour: bool = True,
    commands: Mapping[str, Any] | None = None,
    users: Callable[[str], str | None] | None = None,
) -> Callable[[Sequence[str]], int]:
    """
    Return the commands for operators on a kernel of your own, as a function of their arguments.

    They are ``call``, ``outbox``, ``executions``, ``approvals``, ``schedules``, ``polls``, ``top``,
    ``db``, ``tokens`` and ``workflow``, and the commands of the kernel's plugins. *commands* has
    the settings of the latter by name. *users* gives the id of your user with a name, or None: a
    token may work for this user. The function prints to standard output and returns an exit code; a
    command that fails raises an `AutomateError`. *name* is how users call it. Raises `ConfigError`
    where the extra ``cli`` isn't installed.
    """
    with _libraries():
        from automate_cli.app import hosted
        from automate_cli.command import mounted
    return mounted(hosted, kernel_factory, name=name, colour=colour, commands=commands, users=users)


@contextmanager
def _libraries() -> Iterator[None]:
    """Raise `ConfigError` for a library of the command line that isn't installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich", "tomli", "yaml", "sqlalchemy"):
            raise
        raise ConfigError(
            f"the command line needs {error.name}", hint="pip install 'automate-kernel[cli]'"
        ) from None
