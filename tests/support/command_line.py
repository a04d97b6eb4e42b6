"""Commands as tests call them: in this process, or as one of their own in a folder."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TypeVar

import warm_forks
from typer import testing
from waiting import until

T = TypeVar("T")
DEADLINE = 120.0

# It builds the commands of an app once, and not for each call.
testing._get_command = cache(testing._get_command)  # half of the time of a short command
CliRunner = testing.CliRunner


class CommandFolder:
    """A folder in which commands run as processes, one at a time, and write their log."""

    folder: Path
    forks: str
    variables: Mapping[str, str] = {}

    @contextlib.contextmanager
    def running(self, *arguments: str, **variables: str) -> Iterator[warm_forks.Forked]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("AUTOMATE_")}
        with (self.folder / "log").open("w") as log, warm_forks.running(
            self.forks, [sys.executable, "-m", "automate_cli", *arguments], text=True, cwd=self.folder,
            env={**environment, **self.variables, **variables}, stdout=subprocess.PIPE, stderr=log,
        ) as process:  # fmt: skip
            yield process

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def until(self, found: Callable[[], T], what: str) -> T:
        """Wait for *what* is looked for by *found*, and return it."""
        return until(found, DEADLINE, why=lambda: f"waited in vain for {what}\n{self.log()}")
