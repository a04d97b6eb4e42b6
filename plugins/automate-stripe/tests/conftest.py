"""A service to call, and localstripe, a stateful double of Stripe from the package index."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

pytest.register_assert_rewrite("automate_kernel.testing")
HERE = Path(__file__).parent
sys.path[:0] = [
    str(HERE / "support"),
    str(HERE.parents[1] / "automate-http" / "tests" / "support"),
]

from recording_service import service  # noqa: E402, F401


@pytest.fixture(scope="session")
def localstripe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of localstripe, which runs in a process of its own."""
    if importlib.util.find_spec("localstripe") is None:
        pytest.skip("localstripe is missing: pip install localstripe")
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("localstripe") / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, str(HERE / "support" / "run_localstripe.py"), str(port)],
            stdout=output, stderr=output,
        )  # fmt: skip
    try:
        for _ in range(1_200):
            if process.poll() is not None:
                pytest.fail(f"localstripe ended: {log.read_text()[-2000:]}")
            with closing(socket.socket()) as trial:
                if trial.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        else:
            pytest.fail(f"localstripe doesn't listen: {log.read_text()[-2000:]}")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)
