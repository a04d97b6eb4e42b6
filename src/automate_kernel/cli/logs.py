"""Where logs go: to standard error, without secrets."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

__all__ = ["log_to_stderr"]


def log_to_stderr(level: str, filters: Sequence[logging.Filter] = ()) -> None:
    """Let everything of *level* and above be printed to standard error, through *filters*."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%Y-%m-%d %H:%M:%S")
    )
    for each in filters:
        handler.addFilter(each)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Their own talk is of no use here, below what is wrong.
    for name in ("httpx", "httpcore", "sqlalchemy", "uvicorn", "asyncio"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
