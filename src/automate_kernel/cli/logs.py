"""Where logs go: to standard error, without secrets."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from automate_kernel.monitoring.logs import ContextFilter, JsonFormatter, TextFormatter
from automate_kernel.secrets.logs import AllRedactingFilter, continued

__all__ = ["log_to_stderr", "redact_logs"]

if TYPE_CHECKING:
    from automate_kernel.kernel import Kernel

    _Stream = logging.StreamHandler[TextIO]
else:
    _Stream = logging.StreamHandler  # takes no parameters before Python 3.11


class _Handler(_Stream):
    """The handler that is replaced when the level or the filters change."""


class _Brief(logging.Formatter):
    """Only the message: for commands that end at once, whose user can ask for --debug."""

    def format(self, record: logging.LogRecord) -> str:
        return continued(f"{record.levelname.lower()}: {record.getMessage()}")


_FULL = TextFormatter("%(asctime)s %(levelname)-7s %(message)s", "%Y-%m-%d %H:%M:%S")


def log_to_stderr(
    level: str,
    filters: Sequence[logging.Filter] = (),
    *,
    brief: bool = False,
    format: str = "text",
) -> None:
    """
    Let everything of *level* and above be printed to standard error, through *filters*.

    When *brief*, without time and traceback; with *format* ``json``, a document a line.
    """
    handler = _Handler(sys.stderr)
    handler.setFormatter(_Brief() if brief else _FULL)
    if format == "json":
        handler.setFormatter(JsonFormatter())
        handler.addFilter(ContextFilter())
    root = logging.getLogger()
    # What hides secrets stays in place, whatever the level is changed to.
    kept = [one for each in root.handlers if type(each) is _Handler for one in each.filters]
    for each in (*kept, *filters):
        if not isinstance(each, (ContextFilter, AllRedactingFilter)):
            handler.addFilter(each)
    handler.addFilter(AllRedactingFilter())
    # Only our own from before: a host's code may have added others.
    root.handlers[:] = [*(each for each in root.handlers if type(each) is not _Handler), handler]
    root.setLevel(level.upper())
    # Their own talk is of no use here, below what is wrong.
    for name in ("httpx", "httpcore", "sqlalchemy", "uvicorn", "asyncio"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def redact_logs(kernel: Kernel) -> None:
    """Take the kernel's secrets out of everything that is logged from now on."""
    from automate_kernel.secrets import RedactingFilter

    for handler in logging.getLogger().handlers:
        if type(handler) is _Handler:
            handler.addFilter(RedactingFilter(kernel.redactor))
