"""
Arguments as callers hand them over: one text in place of several, numbers out of their bounds.

Checked here before anything is read, a mistake is an error with a remedy. Unchecked it is what a
database makes of it: a text is a list of its letters, and a limit of -1 is all rows on SQLite.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

from automate_kernel.errors import AutomateError, ErrorCodes, type_name

# All drivers take it as a number of rows.
_MOST_ROWS = 2**31 - 1


def several(given: Any) -> list[Any]:
    """Return the elements of *given*; a text, a path, a mapping or a class is the only one."""
    alone = isinstance(given, (str, bytes, PurePath, Mapping, type))
    return [given] if alone or not isinstance(given, Iterable) else list(given)


def check_limit(limit: Any, *, least: int = 1) -> int:
    """Return *limit*, or the most that databases take; raises ``INVALID_ARGUMENT``."""
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < least:
        raise AutomateError(
            ErrorCodes.INVALID_ARGUMENT,
            f"a limit is a whole number from {least} on, not {_shown(limit)}",
            hint="for all rows read page after page",
        )
    return min(limit, _MOST_ROWS)


def check_age(seconds: Any, name: str) -> float:
    """Return *seconds*, an age called *name*; raises ``INVALID_ARGUMENT``."""
    number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if not number or not math.isfinite(seconds) or seconds < 0:
        # An age below zero is that of everything: nothing would be kept.
        raise AutomateError(
            ErrorCodes.INVALID_ARGUMENT,
            f"{name} is a number of seconds from 0 on, not {_shown(seconds)}",
        )
    return float(seconds)


def _shown(value: Any) -> str:
    return str(value)[:40] if isinstance(value, (int, float)) else type_name(value)
