"""A kernel with things to call, and the reference servers of MCP."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("automate_testing", "mcp_support")
sys.path.insert(0, str(Path(__file__).parent / "support"))

from mcp_support import SECRET, Shop  # noqa: E402

from automate_kernel import Kernel  # noqa: E402


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with Kernel(discover=False, secrets={"API_KEY": SECRET, "TOKEN": "t" * 32}) as kernel:
        kernel.secrets.get("API_KEY")  # known, and so taken out wherever it turns up
        yield kernel


@pytest.fixture
def shop(kernel: Kernel) -> Shop:
    return Shop(kernel)


_SERVERS = ("everything", "filesystem", "memory")


@pytest.fixture(scope="session")
def reference_servers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The commands of the reference servers, installed by npm into the user's cache once."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("npm and node are not there: the reference servers of MCP need them")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    place = cache / "automate-mcp-tests"
    scripts = {name: place / "node_modules" / ".bin" / f"mcp-server-{name}" for name in _SERVERS}
    place.mkdir(parents=True, exist_ok=True)
    with open(place / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process of the tests may install them
        if not all(script.exists() for script in scripts.values()):
            _install(npm, place)
    return {name: [node, str(script)] for name, script in scripts.items()}


def _install(npm: str, place: Path) -> None:
    packages = [f"@modelcontextprotocol/server-{name}" for name in _SERVERS]
    installed = subprocess.run(
        [npm, "install", "--no-audit", "--no-fund", "--prefix", str(place), *packages],
        capture_output=True, text=True, timeout=180, check=False, cwd=place,
    )  # fmt: skip
    if installed.returncode:
        last = installed.stderr.strip().splitlines()[-1:] or ["?"]
        pytest.skip(f"npm can't install the reference servers of MCP: {last[0]}")
