"""The debug logs of client libraries, which show headers: kept off for a plugin's calls."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_calling: ContextVar[bool] = ContextVar("automate_kernel_calling", default=False)


class _NoWireLog(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        """Return False for the debug records of our calls. Those of the host's own calls stay."""
        return record.levelno > logging.DEBUG or not _calling.get()


_FILTER = _NoWireLog()


def guard_loggers(*libraries: str) -> None:
    """Have the loggers of *libraries* that exist now keep silent at level DEBUG within `quiet`."""
    above = tuple(f"{each}." for each in libraries)
    for name in list(logging.root.manager.loggerDict):
        if name.startswith(above) or name in libraries:
            # A filter on "botocore" itself would not see the records of its children.
            logging.getLogger(name).addFilter(_FILTER)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the debug records of this thread's or task's calls out of the log."""
    token = _calling.set(True)
    try:
        yield
    finally:
        _calling.reset(token)
