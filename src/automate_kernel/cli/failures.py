"""Errors of commands: how they are shown, and the exit codes that scripts see."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from automate_kernel.errors import AutomateError, StorageError, exit_code

__all__ = ["EXIT_CODES", "WorkFailedError", "reporting"]

_FAILED = 1
_INTERRUPTED = 130
EXIT_CODES = {
    0: "done",
    _FAILED: "the work failed, a check found a failure, the database can't be used, or an item, "
    "execution, workflow or plugin that was named is not there",
    2: "called wrongly, or configured wrongly: an option, a file, a setting, a definition",
    _INTERRUPTED: "interrupted by Ctrl-C; a worker that finishes what runs ends with 0",
}
"""The meaning of each exit code of every command, `manage.py`'s too; see `exit_code`."""


class WorkFailedError(AutomateError):
    """The command ran, and its work failed."""


@contextmanager
def reporting(*, debug: bool, redact: Callable[[str], str] = str) -> Iterator[None]:
    """Turn exceptions of the block into a line on standard error and an exit code."""
    import typer

    try:
        yield
    except AutomateError as error:
        if debug:
            print(redact(traceback.format_exc()), file=sys.stderr)
        _show(error, redact)
        raise typer.Exit(exit_code(error)) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise typer.Exit(_INTERRUPTED) from None
    except BrokenPipeError:
        # The reader of our output has enough. Python would complain once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(_FAILED) from None
    except Exception as error:
        if type(error).__module__.startswith(("typer", "click")):
            raise  # its own way of ending
        if debug:
            print(redact(traceback.format_exc()), file=sys.stderr)
        text = redact(f"{type(error).__name__}: {error}").split("\n")[0]
        print(f"error: this should not happen: {text}", file=sys.stderr)
        if not debug:
            print(
                "hint: run the same command with --debug, and report the traceback together with "
                "the output of automate --version",
                file=sys.stderr,
            )
        raise typer.Exit(_FAILED) from None


def _show(error: AutomateError, redact: Callable[[str], str]) -> None:
    print(f"error: {redact(error.message)}", file=sys.stderr)
    hint = error.hint
    if hint is not None and hint.startswith("create our tables"):
        hint = "run automate db create, or add the tables to your Alembic migrations"
    if hint is None and isinstance(error, StorageError):
        hint = "is the server running, and is the database in automate config the right one?"
    if hint:
        print(f"hint: {redact(hint)}", file=sys.stderr)
