"""Typer's `CliRunner`, which builds the commands of an app once, and not for each call."""

from __future__ import annotations

from functools import cache

from typer import testing

testing._get_command = cache(testing._get_command)  # half of the time of a short command
CliRunner = testing.CliRunner
