"""The kernel's own loggers: what they say holds no secret and no forged line, in any host."""

from __future__ import annotations

import logging
from collections.abc import Callable

from automate_kernel.secrets.log_filter import KernelFilter

__all__ = ["get_logger", "get_plugin_logger"]

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
