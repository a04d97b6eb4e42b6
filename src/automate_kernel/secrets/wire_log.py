"""The logs of client libraries, which show headers and addresses: kept off for a plugin's calls."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_silent: ContextVar[int] = ContextVar("automate_kernel_silent", default=logging.NOTSET)


class _NoWireLog(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        """Return False for low records of our calls. Those of the application's own calls stay."""
        return record.levelno > _silent.get()


_FILTER = _NoWireLog()


def guard_loggers(*libraries: str) -> None:
    """Have the loggers of *libraries* that exist now keep silent within `quiet`."""
    above = tuple(f"{each}." for each in libraries)
    for name in list(logging.root.manager.loggerDict):
        if name.startswith(above) or name in libraries:
            # A filter on "botocore" itself would not see the records of its children.
            logging.getLogger(name).addFilter(_FILTER)


@contextmanager
def quiet(level: int = logging.DEBUG) -> Iterator[None]:
    """Keep this thread's or task's records up to *level* out of the log."""
    token = _silent.set(level)
    try:
        yield
    finally:
        _silent.reset(token)
