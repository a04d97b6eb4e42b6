"""Which automate-kernel this is."""

from __future__ import annotations

import platform

from automate_kernel import __version__

__all__ = ["version_line"]


def version_line() -> str:
    """The version of automate-kernel and of Python, on what system."""
    system = f"{platform.system()} {platform.machine()}"
    return f"automate-kernel {__version__} (Python {platform.python_version()}, {system})"
