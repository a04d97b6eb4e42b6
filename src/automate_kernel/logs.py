"""The kernel's own loggers: what they say holds no secret and no forged line, in any host."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from automate_kernel.secrets.log_filter import KernelFilter

__all__ = ["get_logger", "get_plugin_logger", "log_loop_errors", "run_logged"]

T = TypeVar("T")
_filter = KernelFilter()


def get_logger(name: str) -> logging.Logger:
    """
    The logger *name*, whose records are redacted before any handler sees them.

    For the modules of the kernel and its adapters. A filter on a logger sees what is logged
    through that logger alone, not through its children, so each module's has one.
    """
    logger = logging.getLogger(name)
    logger.addFilter(_filter)
    return logger


def get_plugin_logger(key: str) -> logging.Logger:
    """The logger of the plugin *key*; the children that it makes are redacted too."""
    return _with_children(get_logger(f"automate.plugins.{key}"))


def _with_children(logger: logging.Logger) -> logging.Logger:
    make: Callable[[str], logging.Logger] = logging.Logger.getChild.__get__(logger)

    def child(suffix: str) -> logging.Logger:
        made = make(suffix)
        made.addFilter(_filter)
        return _with_children(made)

    logger.getChild = child  # type: ignore[method-assign]
    return logger


def log_loop_errors(loop: asyncio.AbstractEventLoop) -> None:
    """Let what goes wrong on *loop* unseen be logged by the kernel, not printed by asyncio."""
    loop.set_exception_handler(_loop_error)


def run_logged(coroutine: Coroutine[Any, Any, T]) -> T:
    """``asyncio.run``, on a loop whose unseen errors are logged as `log_loop_errors` does."""

    async def run() -> T:
        log_loop_errors(asyncio.get_running_loop())
        return await coroutine

    return asyncio.run(run())


def _loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    about = context.get("task") or context.get("future") or context.get("handle") or loop
    error = context.get("exception")
    # The same words as asyncio's own, which people look for.
    _logger.error(
        "%s: %r", context.get("message", "error on the event loop"), about, exc_info=error
    )


_logger = get_logger(__name__)
