"""The command line: ``automate``."""

from __future__ import annotations

from automate_kernel.cli.entry import main

__all__ = ["main"]
