"""Parts of tests that come from npm: GitHub's document, and Prism, which answers any document."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from server_process import server_process

_GITHUB = "node_modules/@octokit/openapi/generated/api.github.com.json"


def npm_folder(package: str, wanted: str) -> Path:
    """Return the folder of npm in the user's cache, with *package* in it; skip where it can't be."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip(f"npm and node are not there: {package} comes from npm")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    place = cache / "automate-openapi-tests"
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process of the tests may install it
        if not (place / wanted).exists():
            installed = subprocess.run(
                [npm, "install", "--no-audit", "--no-fund", "--prefix", str(place), package],
                capture_output=True, text=True, timeout=280, check=False, cwd=place,
            )  # fmt: skip
            if installed.returncode:
                last = installed.stderr.strip().splitlines()[-1:] or ["?"]
                pytest.skip(f"npm can't install {package}: {last[0]}")
    return place


def github_document() -> Path:
    """Return GitHub's own document, from npm."""
    return npm_folder("@octokit/openapi", _GITHUB) / _GITHUB


@contextmanager
def prism_for(document: Path, folder: Path) -> Iterator[str]:
    """Run Prism, which answers *document* and refuses what doesn't fit it; gives its URL."""
    place = npm_folder("@stoplight/prism-cli@5", "node_modules/.bin/prism")
    prism = str(place / "node_modules/.bin/prism")

    def command(port: int) -> list[str]:
        return [
            prism, "mock", "-h", "127.0.0.1", "-p", str(port), "--errors", str(document),
        ]  # fmt: skip

    with server_process(command, folder / "log") as url:
        yield url
