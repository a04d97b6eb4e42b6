"""How a worker logs: as the project's ``LOGGING`` says, or in a format that was asked for."""

from __future__ import annotations

import logging
import sys
from argparse import ArgumentParser
from typing import Any

from automate_kernel.kernel import Kernel
from automate_kernel.monitoring.logs import configure_logging

__all__ = ["add_log_arguments", "log_as", "log_options"]

_LEVELS = ("warning", "info", "debug", "debug")


def add_log_arguments(parser: ArgumentParser, default: str | None) -> None:
    """Add the option."""
    parser.add_argument(
        "--log-format",
        choices=("text", "json"),
        default=default,
        help="log everything to standard error, as text or as JSON with ids, a document a line; "
        f"--verbosity says how much (default: {default or 'what LOGGING says'})",
    )


def log_options(options: dict[str, Any]) -> dict[str, Any]:
    """What `log_as` needs of a command's options."""
    return {"log_format": options["log_format"], "log_level": _LEVELS[options["verbosity"]]}


def log_as(kernel: Kernel, *, log_format: str | None = None, log_level: str = "info") -> None:
    """Log to standard error, without the secrets of *kernel*; without a format change nothing."""
    if log_format is None:
        return
    configure_logging(kernel, level=log_level, format=log_format)
    for name in list(logging.root.manager.loggerDict):
        _give_up_console(logging.getLogger(name))


def _give_up_console(logger: logging.Logger) -> None:
    # Django's own configuration has ``django`` print by itself, as plain text and a second time.
    for handler in logger.handlers[:]:
        stream = getattr(handler, "stream", None)
        if stream is not None and stream in (sys.stdout, sys.stderr):
            logger.removeHandler(handler)
            logger.propagate = True
