"""Programs that no Python package brings: tests that need them are skipped where they are missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from command_line import CliRunner

from automate_cli.app import app

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"


def tool(name: str, package: str | None = None) -> str:
    """The path of the program *name*; the test is skipped where *package* is not installed."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"{name} is missing: apt-get install {package or name}")
    return found


def output_of(*command: Any, **options: Any) -> str:
    """What *command* prints, on both pipes; the test fails with it where the command fails."""
    done = subprocess.run(
        [str(each) for each in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        **options,
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout


def refused(arguments: Sequence[str]) -> str:
    """Why the command ``automate`` doesn't know *arguments*; empty if it does. Nothing runs."""
    # Options are parsed before the help is shown.
    done = CliRunner().invoke(app, [*arguments, "--help"])
    return "" if done.exit_code == 0 else done.output
