"""How many examples a test makes that runs a whole model for each."""

from __future__ import annotations

full_length = False
"""True with ``--full``, which conftest.py of the project sets before it reads the tests."""


def examples(full: int, few: int = 30) -> int:
    """Return *full* with ``--full``, else *few*."""
    return full if full_length else few
