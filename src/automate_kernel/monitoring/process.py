"""The guard of a process: no secret in its warnings, dead threads and uncaught errors."""

from __future__ import annotations

import logging
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from automate_kernel.secrets.logs import AllRedactingFilter, get_logger
from automate_kernel.secrets.redaction import redact_text

logger: logging.Logger = get_logger(__name__)
# Loggers of the standard library, which log what somebody else's code has raised or warned of.
_OTHERS = ("py.warnings", "asyncio", "concurrent.futures")


@contextmanager
def guarded_process() -> Iterator[None]:
    """
    Take secrets out of all that this process logs, warns of or dies of, while the block runs.

    It is for a process that is all the kernel's own, as a worker's is. It sets the interpreter's
    hooks for warnings, threads and uncaught errors, and adds a filter to every handler that there
    is. Enter it once logging is configured.
    """
    hooks = threading.excepthook, sys.excepthook, sys.unraisablehook, warnings.showwarning
    for name in _OTHERS:
        get_logger(name)
    warned = logging.getLogger("py.warnings")
    if not warned.hasHandlers():
        warned.addHandler(logging.StreamHandler())  # else they would be lost
    loggers = [logging.getLogger(), *map(logging.getLogger, list(logging.root.manager.loggerDict))]
    handlers = {id(each): each for one in loggers for each in one.handlers}.values()
    own = AllRedactingFilter()
    for handler in handlers:
        handler.addFilter(own)
    logging.captureWarnings(capture=True)
    threading.excepthook, sys.excepthook, sys.unraisablehook = _thread_died, _died, _ignored
    try:
        yield
    finally:
        logging.captureWarnings(capture=False)
        threading.excepthook, sys.excepthook, sys.unraisablehook, warnings.showwarning = hooks
        for handler in handlers:
            handler.removeFilter(own)


def _thread_died(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_type is SystemExit:
        return  # as threads end on it in silence
    name = arguments.thread.name if arguments.thread is not None else "?"
    error = arguments.exc_value or arguments.exc_type()
    logger.error("thread %s died", name, exc_info=error.with_traceback(arguments.exc_traceback))


def _ignored(unraisable: Any) -> None:
    what = unraisable.err_msg or "an error was ignored in"
    error = unraisable.exc_value
    logger.error("%s: %r", what, unraisable.object, exc_info=error)


def _died(kind: type[BaseException], error: BaseException, frames: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, frames)
        return
    text = "".join(traceback.format_exception(kind, error, frames))
    sys.stderr.write(redact_text(text))
