"""A service to call, and localstripe, a stateful double of Stripe from the package index."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("automate_testing")
HERE = Path(__file__).parent
sys.path[:0] = [
    str(HERE / "support"),
    str(HERE.parents[1] / "automate-http" / "tests" / "support"),
]

from recording_service import service  # noqa: E402, F401
from server_process import server_process  # noqa: E402


@pytest.fixture(scope="session")
def localstripe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of localstripe, which runs in a process of its own."""
    if importlib.util.find_spec("localstripe") is None:
        pytest.skip("localstripe is missing: pip install localstripe")
    program = str(HERE / "support" / "run_localstripe.py")
    log = tmp_path_factory.mktemp("localstripe") / "log"
    with server_process(lambda port: [sys.executable, program, str(port)], log) as url:
        yield url
