"""Parts of tests that come from npm: GitHub's document, and Prism, which answers any document."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

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
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "log"
    command = [str(place / "node_modules/.bin/prism"), "mock", "-h", "127.0.0.1"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "-p", str(port), "--errors", str(document)], stdout=output, stderr=output
        )
    try:
        _until_it_listens(process, port, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


def _until_it_listens(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.fail(f"Prism ended: {log.read_text()[-2000:]}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    pytest.fail(f"Prism doesn't listen: {log.read_text()[-2000:]}")
