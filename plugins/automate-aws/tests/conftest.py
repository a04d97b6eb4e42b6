"""A server of moto, which answers as AWS does, on this machine."""

from __future__ import annotations

import logging
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

pytest.register_assert_rewrite("automate_testing", "aws_support")
sys.path.insert(0, str(Path(__file__).parent / "support"))

from aws_support import Aws  # noqa: E402

from automate_testing.contracts.hostile_service import hostile_service  # noqa: E402


@pytest.fixture(autouse=True)
def no_credentials_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))


@pytest.fixture(scope="session", autouse=True)
def packed() -> None:
    """Have the large packed answer made once, which takes longer than a request may."""
    with hostile_service(lambda method, path: {}) as service:
        service.manner = "bomb"
        urllib.request.urlopen(service.url).read(1)


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """The address of the server."""
    server = pytest.importorskip(
        "moto.server", reason="moto is not installed here: uv sync --group plugins"
    )
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def aws(moto: str) -> Iterator[Aws]:
    """Buckets and queues of this test's own."""
    found = Aws(moto, f"t{uuid4().hex[:12]}")
    yield found
    found.close()
