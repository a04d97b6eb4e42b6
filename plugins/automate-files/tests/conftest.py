"""Places of each kind, and a connector that has all of them."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
import hypothesis
import pytest

sys.path.insert(0, str(Path(__file__).parent / "support"))
pytest.register_assert_rewrite("automate_testing")
# A busy machine is no failure: no example has to be ready within a time. With `search` others come.
if hypothesis.settings.get_current_profile_name() not in {"project", "search"}:
    hypothesis.settings.register_profile("plugin", deadline=None, derandomize=True)
    hypothesis.settings.load_profile("plugin")

from files_support import SECRETS, SftpServer  # noqa: E402


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    """The address of a service with the interface of S3."""
    from moto.s3.responses import S3Response
    from moto.server import ThreadedMotoServer

    put, one_at_a_time = S3Response.put_object, threading.Lock()

    def put_object(response: Any) -> Any:
        # Else it looks whether there is such an object, and writes another's after that.
        with one_at_a_time:
            return put(response)

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(S3Response, "put_object", put_object)
        yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_config(s3_url: str) -> dict[str, Any]:
    """A place in an empty bucket."""
    import boto3

    bucket = f"files-{uuid4().hex}"
    keys = {"aws_access_key_id": "AKIA", "aws_secret_access_key": SECRETS["S3_SECRET"]}
    boto3.client("s3", endpoint_url=s3_url, region_name="us-east-1", **keys).create_bucket(
        Bucket=bucket
    )
    return {
        "type": "s3", "bucket": bucket, "prefix": "root", "endpoint_url": s3_url,
        "region": "us-east-1", "access_key_id": "AKIA", "access_key_secret": "S3_SECRET",
    }  # fmt: skip


@pytest.fixture(scope="session")
def sftp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SftpServer]:
    """An SFTP server."""
    server = SftpServer(tmp_path_factory.mktemp("sftp"))
    yield server
    server.stop()


@pytest.fixture
def sftp_config(sftp: SftpServer) -> dict[str, Any]:
    """A place in an empty folder of the SFTP server."""
    folder = uuid4().hex
    (sftp.root / folder).mkdir()
    return sftp.config(folder=f"/{folder}")


@pytest.fixture
def local_config(tmp_path: Path) -> dict[str, Any]:
    """A place in an empty folder."""
    (tmp_path / "local").mkdir()
    return {"type": "local", "folder": str(tmp_path / "local")}


@pytest.fixture
def memory_config() -> dict[str, Any]:
    """A place of a file system of fsspec."""
    root = f"/{uuid4().hex}"
    fsspec.filesystem("memory").mkdir(root)
    return {"type": "fsspec", "protocol": "memory", "root": root}


@pytest.fixture(params=["local", "s3", "sftp", "memory"])
def place_config(request: pytest.FixtureRequest) -> dict[str, Any]:
    """A place of each kind."""
    config: dict[str, Any] = request.getfixturevalue(f"{request.param}_config")
    return config
