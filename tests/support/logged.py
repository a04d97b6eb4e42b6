"""What a part of the product has logged, without the records of what other tests have left."""

from __future__ import annotations

import pytest


def logged(caplog: pytest.LogCaptureFixture, *loggers: str) -> list[str]:
    """Return the messages of these *loggers* and those below them."""
    below = tuple(f"{name}." for name in loggers)
    return [
        each.getMessage()
        for each in caplog.records
        if each.name in loggers or each.name.startswith(below)
    ]
