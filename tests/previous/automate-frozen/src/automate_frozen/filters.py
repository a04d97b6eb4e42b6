"""A template filter."""

from __future__ import annotations


def shout(value: str, mark: str = "!") -> str:
    """Return *value* in capitals."""
    return f"{value.upper()}{mark}"
