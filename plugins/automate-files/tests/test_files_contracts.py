"""The kernel's contracts."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from automate_files import FilesConnector, PlaceOutputStore
from automate_files.config import S3PlaceConfig
from automate_files.failures import failure_of
from automate_files.fsspec_place import S3Place
from automate_kernel import (
    AutomateError,
    ConfigError,
    Connector,
    Kernel,
    OutputStore,
    StorageError,
)
from automate_kernel.plugins.connectors import ConnectorContext
from automate_testing import (
    ConnectorContract,
    HostileAnswersContract,
    OutputStoreContract,
    PollContract,
)
from automate_testing.contracts.hostile_service import hostile_service
from botocore.exceptions import ClientError
from files_support import SECRETS, Secrets, SftpServer

HERE = {"place": "here"}


class TestFilesConnector(ConnectorContract):
    supports_webhooks = False
    example_inputs: ClassVar[Any] = {
        "write": {**HERE, "path": "a.txt", "text": "hello"},
        "read": {**HERE, "path": "b.txt"},
        "list": HERE,
        "stat": {**HERE, "path": "b.txt"},
        "checksum": {**HERE, "path": "b.txt"},
        "copy": {**HERE, "path": "b.txt", "to_path": "c.txt"},
        "move": {**HERE, "path": "b.txt", "to_path": "d.txt"},
        "delete": {**HERE, "path": "b.txt"},
        "mkdir": {**HERE, "path": "folder"},
    }
    bad_configs = ({"places": {"here": {"type": "local", "folder": "/nowhere/at/all"}}},)

    @pytest.fixture
    def connector(self, tmp_path: Path) -> Connector:
        (tmp_path / "b.txt").write_text("hello")
        places = {"here": {"type": "local", "folder": str(tmp_path)}}
        return FilesConnector({"places": places}, ctx=ConnectorContext(key="files"))


class TestArrivals(PollContract):
    poll = "arrived"

    @pytest.fixture
    def connector(self, place_config: dict[str, Any]) -> Connector:
        watches = {"in": {"place": "here", "pattern": "in/*", "settled": False}}
        config = {"places": {"here": place_config}, "watches": watches}
        self.count = 0
        return FilesConnector(config, ctx=ConnectorContext(key="files", secrets=Secrets(**SECRETS)))

    def happen(self, connector: Any) -> None:
        self.count += 1
        connector.write("here", f"in/{self.count}", text="x")


class TestLocalOutputs(OutputStoreContract):
    @pytest.fixture
    def store(self, local_config: dict[str, Any]) -> OutputStore:
        return PlaceOutputStore(local_config)


class TestS3Outputs(OutputStoreContract):
    @pytest.fixture
    def store(self, s3_config: dict[str, Any]) -> OutputStore:
        return PlaceOutputStore(s3_config, secrets=SECRETS)


class TestSftpOutputs(OutputStoreContract):
    @pytest.fixture
    def store(self, sftp_config: dict[str, Any]) -> OutputStore:
        return PlaceOutputStore(sftp_config, secrets=Secrets(**SECRETS))


class TestS3AgainstHostileAnswers(HostileAnswersContract):
    """Reading an object gives bytes as they are."""

    plugin, operation = FilesConnector, "read"
    example_input: ClassVar[Any] = {"place": "bucket", "path": "a.json"}
    answer: ClassVar[Any] = {"id": 7}
    reads_json = False
    most_seconds = 40.0

    def config(self, url: str) -> dict[str, Any]:
        bucket = {
            "type": "s3", "bucket": "files", "endpoint_url": url, "region": "us-east-1",
            "access_key_id": "AKIA", "access_key_secret": "S3", "session_token_secret": "TOKEN",
            "timeout_seconds": self.timeout_seconds,
        }  # fmt: skip
        return {"places": {"bucket": bucket}}


@pytest.mark.parametrize(
    ("url", "wrong"),
    [
        ("http://minio.example:9000", "use https://"),
        ("http://169.254.169.254", "use https://"),
        ("http://localhost.evil.example", "use https://"),
        ("http://127.0.0.1@evil.example", "more than a scheme"),
        ("https://key:canary@s3.example", "more than a scheme"),
        ("ftp://127.0.0.1", "it is no address"),
        ("https://", "it is no address"),
        ("http://127.0.0.1:9000", None),
        ("http://[::1]:9000", None),
        ("http://localhost", None),
        ("https://minio.example", None),
    ],
)
def test_objects_go_in_the_clear_to_this_machine_only(url: str, wrong: str | None) -> None:
    """The content isn't encrypted by the signature, and a temporary key's token neither."""
    config = {"type": "s3", "bucket": "files", "endpoint_url": url}
    if wrong is None:
        PlaceOutputStore(config)
        return
    with pytest.raises(ConfigError, match=wrong) as raised:
        PlaceOutputStore(config)
    assert "canary" not in str(raised.value)
    if wrong == "use https://":
        PlaceOutputStore({**config, "allow_plain_http": True})


def test_the_environment_does_not_decide_where_objects_go(
    s3_config: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Neither an endpoint nor a proxy of it; fsspec's own settings there neither."""
    elsewhere = "http://127.0.0.1:9"  # where nobody listens
    (tmp_path / "config").write_text(f"[default]\nendpoint_url = {elsewhere}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "HTTP_PROXY", "http_proxy",
                 "HTTPS_PROXY", "https_proxy", "ALL_PROXY"):  # fmt: skip
        monkeypatch.setenv(name, elsewhere)
    given = {"endpoint_url": elsewhere, "use_ssl": False, "anon": True, "key": "AKIAOTHER"}
    monkeypatch.setitem(fsspec.config.conf, "s3", given)
    store = PlaceOutputStore(s3_config, secrets=SECRETS)
    store.put("a/b", b"1")
    assert store.get("a/b") == b"1"
    keys = {"access_key_id": "AKIA", "access_key_secret": "S3_SECRET"}
    aws = S3PlaceConfig(bucket="files", region="eu-central-1", **keys)
    files = S3Place("aws", aws, Secrets(**SECRETS))._files()  # noqa: SLF001 - where would it go?
    client = fsspec.asyn.sync(files.loop, files.set_session)
    assert client.meta.endpoint_url == "https://s3.eu-central-1.amazonaws.com"


@pytest.mark.parametrize("manner", ["huge", "bomb", "redirect_to_private_address"])
def test_a_hostile_listing_is_refused(manner: str) -> None:
    with hostile_service(lambda method, path: {}) as service:
        service.manner = manner
        config = TestS3AgainstHostileAnswers().config(service.url)
        kernel = Kernel(
            plugins=[FilesConnector],
            discover=False,
            config={"files": config},
            secrets={"S3": "canary-7Qm2xVb91tZk", "TOKEN": "canary-9Rn3yWc82uAl"},
        )
        with pytest.raises(AutomateError, match="refused") as raised:
            kernel.invoke("files.list", {"place": "bucket"})
        assert not raised.value.retryable
        assert not service.reached
        kernel.close()


@pytest.mark.parametrize("kind", ["local", "s3", "sftp"])
def test_outputs_of_a_workflow_live_in_a_place(kind: str, request: pytest.FixtureRequest) -> None:
    store = PlaceOutputStore(request.getfixturevalue(f"{kind}_config"), secrets=SECRETS)
    kernel = Kernel(discover=False, output_store=store)

    @kernel.action("report.read")
    def read() -> dict[str, Any]:
        return {"rows": ["x" * 1000] * 2000}

    kernel.add_workflow({
        "name": "report", "trigger": {"type": "manual"},
        "steps": [{"id": "read", "action": "report.read"}],
    })  # fmt: skip
    execution = kernel.run("report")
    assert execution.status == "COMPLETED"
    (key,) = store.keys(older_than_seconds=-60)
    assert key.startswith(execution.id)
    assert len(kernel.executions.output(execution.id, "read")["rows"]) == 2000


@pytest.mark.parametrize("kind", ["local", "s3", "sftp"])
def test_the_kernel_makes_it_by_its_key(kind: str, request: pytest.FixtureRequest) -> None:
    """With the secrets of the kernel, which the place reads by their names."""
    config = request.getfixturevalue(f"{kind}_config")
    with Kernel(secrets=SECRETS, output_store={"store": "files", "config": config}) as kernel:
        store = kernel.executions.outputs.store
        assert isinstance(store, PlaceOutputStore)
        store.put("a/b", b"1")
        assert store.get("a/b") == b"1"


def test_a_missing_library_is_named(s3_config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "automate_files.s3_session", None)
    with pytest.raises(ConfigError, match=r"automate-files\[s3\]"):
        PlaceOutputStore(s3_config, secrets=SECRETS).put("a/b", b"1")


def test_an_output_that_is_too_long_is_refused(
    local_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not cut off."""
    monkeypatch.setattr("automate_files.output_store._MOST_BYTES", 2)
    store = PlaceOutputStore(local_config)
    store.put("a/b", b"12")
    store.put("a/c", b"123")
    assert store.get("a/b") == b"12"
    with pytest.raises(AutomateError, match="longer than 2 bytes"):
        store.get("a/c")


@pytest.mark.parametrize(
    ("name", "status", "code", "wait"),
    [
        ("SlowDown", 503, "RESOURCE_EXHAUSTED", "7"),
        ("RequestTimeout", 400, "DEADLINE_EXCEEDED", ""),
        ("InvalidRequest", 400, "FAILED_PRECONDITION", "²"),
        ("PreconditionFailed", 412, "ALREADY_EXISTS", "9" * 400),
        ("404", 404, "NOT_FOUND", ""),
        ("ExpiredToken", 400, "UNAUTHENTICATED", ""),
        ("PermanentRedirect", 301, "FAILED_PRECONDITION", ""),
        ("InternalError", 500, "UNAVAILABLE", ""),
    ],
)
def test_codes_of_s3(name: str, status: int, code: str, wait: str) -> None:
    error = OSError("s3fs has the answer as the cause")
    error.__cause__ = ClientError(
        {
            "Error": {"Code": name, "Message": "m"},
            "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": {"retry-after": wait}},
        },
        "GetIt",
    )
    found = failure_of(error, "it can't")
    assert isinstance(found, AutomateError)
    assert (found.code, found.retry_after) == (code, 7.0 if wait == "7" else None)


def test_an_output_store_that_is_away_may_come_back(tmp_path: Path) -> None:
    store = PlaceOutputStore({"type": "local", "folder": str(tmp_path / "gone")})
    with pytest.raises(StorageError):
        store.put("a/b", b"1")


def test_unfinished_outputs_are_deleted_in_time(sftp: SftpServer, sftp_config: Any) -> None:
    store = PlaceOutputStore(sftp_config, secrets=SECRETS)
    store.put("ab1/c", b"1")
    folder = sftp.root / sftp_config["folder"].strip("/") / "ab" / "ab1"
    (folder / ".x.part").write_bytes(b"half")
    assert list(store.keys(older_than_seconds=60)) == []
    os.utime(folder / ".x.part", (0, 0))
    assert list(store.keys(older_than_seconds=60)) == []
    assert [each.name for each in folder.iterdir()] == ["c"]
