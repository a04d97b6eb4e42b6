"""The command line: ``automate``, and its commands for the kernel of an application."""

from __future__ import annotations

from automate_kernel.cli.entry import app_for, main

__all__ = ["app_for", "main"]
