"""The version line of ``automate --version``."""

from __future__ import annotations

import platform

from automate_kernel import __version__


def version_line() -> str:
    """Return the versions of automate-kernel and of Python, and the system."""
    system = f"{platform.system()} {platform.machine()}"
    return f"automate-kernel {__version__} (Python {platform.python_version()}, {system})"
