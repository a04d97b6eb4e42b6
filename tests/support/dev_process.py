"""`automate dev` as a process, with what it prints and the pages that it serves."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path

import processes
import warm_forks
from waiting import until

ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith("AUTOMATE_")}


class Dev:
    """`automate dev` in a folder, with *options* and *variables*, forked at *forks* if given; what it prints."""

    def __init__(self, folder: Path, *options: str, forks: str = "", **variables: str) -> None:
        self.folder, self._out = folder, folder.parent / f"{folder.name}.log"
        command = [sys.executable, "-m", "automate_cli", "dev", "--no-open", *options]
        with self._out.open("wb") as out:
            run = partial(warm_forks.running, forks) if forks else processes.running
            self._running = run(
                command, cwd=folder, env={**ENVIRONMENT, **variables},
                stdout=out, stderr=subprocess.STDOUT,
            )  # fmt: skip
            self.process = self._running.__enter__()
        self._seen = 0

    def __enter__(self) -> Dev:
        return self

    def __exit__(self, *exc: object) -> None:
        self._running.__exit__(None, None, None)

    @property
    def text(self) -> str:
        return self._out.read_text("utf-8")

    def says(self, pattern: str) -> str:
        """Wait until it prints this after what was waited for before; return all until there."""
        found: list[re.Match[str]] = []

        def look() -> bool:
            assert self.process.poll() is None or re.search(pattern, self.text), self.text
            found[:] = re.finditer(pattern, self.text[self._seen :])
            return bool(found)

        try:
            until(look, 60)
        except AssertionError:
            raise AssertionError(f"no {pattern!r} in:\n{self.text[self._seen :]}") from None
        begun, self._seen = self._seen, self._seen + found[0].end()
        return self.text[begun : self._seen]

    @property
    def url(self) -> str:
        return re.findall(r"http://127.0.0.1:\d+", self.text)[0]

    def get(self, path: str = "/ui/", **headers: str) -> str:
        """Return a page; of an error its status."""
        request = urllib.request.Request(self.url + path, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as error:
            return str(error.code)

    def edit(self, name: str, change: Callable[[str], str]) -> None:
        path = self.folder / name
        path.write_text(change(path.read_text("utf-8")), "utf-8")
