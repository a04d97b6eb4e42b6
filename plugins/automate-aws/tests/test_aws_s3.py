"""The connector ``s3`` on moto: objects, conditions, files, signed URLs, bounds."""

from __future__ import annotations

import base64
import os
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from automate_aws import S3Connector
from automate_aws.clients import AwsClients
from aws_support import SECRET_KEY, Aws

from automate_kernel import AutomateError, Call, Connector, ConnectorContext, Kernel
from automate_kernel.operations.context import calling
from automate_kernel.operations.drafts import Draft
from automate_testing import ConnectorContract


class TestS3Connector(ConnectorContract):
    plugin_class = S3Connector
    supports_webhooks = False
    example_inputs: ClassVar[Any] = {
        "put_object": {"key": "a", "content": "x"}, "list_objects": {}, "presign_url": {"key": "a"},
        "delete_object": {"key": "a"},
    }  # fmt: skip
    bad_configs = ({"buckets": []}, {"buckets": ["b"], "endpoint_url": "http://10.0.0.1"})

    @pytest.fixture
    def connector(self, aws: Aws) -> Connector:
        config = {**aws.config, "secret_access_key": SECRET_KEY, "buckets": [aws.bucket()]}
        return S3Connector(config, ctx=ConnectorContext(key="s3"))


@pytest.fixture
def kernel(aws: Aws, tmp_path: Path) -> Any:
    config = {"buckets": [aws.bucket(), aws.bucket("-b")], "folder": str(tmp_path / "files")}
    with aws.kernel(s3={**config, "max_bytes": 1000, "max_file_bytes": 3_000_000}) as kernel:
        yield kernel


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        ("Grüße", "text"), ("", "text"), ({"a": [1, 2.5, None, "ü"]}, "json"), (7, "json"),
        (base64.b64encode(bytes(range(256))).decode(), "base64"),
    ],
    ids=["text", "nothing", "json", "number", "bytes"],
)  # fmt: skip
def test_an_object_comes_back_as_it_was(kernel: Kernel, content: Any, encoding: str):
    given = {"key": "a/ü b+c.txt", "content": content, "encoding": encoding, "metadata": {"n": "1"}}
    written = kernel.invoke("s3.put_object", given)
    read = kernel.invoke("s3.get_object", {"key": "a/ü b+c.txt", "encoding": encoding})
    assert read["content"] == content and read["etag"] == written["etag"]
    head = kernel.invoke("s3.head_object", {"key": "a/ü b+c.txt"})
    assert head["metadata"] == {"n": "1"} and head["size"] == read["size"]
    assert read["content_type"].split("/")[0] in {"text", "application"}


def test_lists_pages_and_folders(kernel: Kernel):
    for key in ("a/1", "a/2", "b/1", "c"):
        kernel.invoke("s3.put_object", {"key": key, "content": key})
    page = kernel.invoke("s3.list_objects", {"limit": 3})
    rest = kernel.invoke("s3.list_objects", {"limit": 3, "token": page["next_token"]})
    keys = [each["key"] for each in page["objects"] + rest["objects"]]
    assert keys == ["a/1", "a/2", "b/1", "c"] and rest["next_token"] is None
    top = kernel.invoke("s3.list_objects", {"delimiter": "/"})
    assert top["prefixes"] == ["a/", "b/"] and [each["key"] for each in top["objects"]] == ["c"]


def test_copies_and_deletes(kernel: Kernel, aws: Aws):
    kernel.invoke("s3.put_object", {"key": "a", "content": "x"})
    to = {"to_bucket": f"{aws.name}-b", "to_key": "c"}
    assert kernel.invoke("s3.copy_object", {"key": "a", **to})["etag"]
    for _ in range(2):  # the second time nothing happens
        kernel.invoke("s3.delete_object", {"key": "a"})
    with pytest.raises(AutomateError) as caught:
        kernel.invoke("s3.get_object", {"key": "a"})
    assert caught.value.code == "NOT_FOUND"
    copied = {"bucket": f"{aws.name}-b", "key": "c"}
    assert kernel.invoke("s3.get_object", copied)["content"] == "x"


def test_only_buckets_of_the_config_are_used(kernel: Kernel):
    for operation, given in {
        "get_object": {}, "put_object": {"content": ""}, "delete_object": {}, "presign_url": {},
        "copy_object": {"to_key": "x"}, "head_object": {},
    }.items():  # fmt: skip
        with pytest.raises(AutomateError, match="not among") as caught:
            kernel.invoke(f"s3.{operation}", {"bucket": "somebody-elses", "key": "a", **given})
        assert caught.value.code == "PERMISSION_DENIED"
    with pytest.raises(AutomateError, match="not among"):
        kernel.invoke("s3.copy_object", {"key": "a", "to_key": "a", "to_bucket": "elsewhere"})


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"content": "x" * 1001}, "FAILED_PRECONDITION"),
        ({"content": {"no": "text"}}, "INVALID_ARGUMENT"),
        ({"content": "no base64!", "encoding": "base64"}, "INVALID_ARGUMENT"),
        ({"content": "", "key": "k" * 1025}, "INVALID_ARGUMENT"),
    ],
    ids=["size", "type", "base64", "key"],
)
def test_what_does_not_fit_is_refused_before_the_call(
    kernel: Kernel, given: Any, code: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(AwsClients, "call", None)
    with pytest.raises(AutomateError) as caught:
        kernel.invoke("s3.put_object", {"key": "a", **given})
    assert caught.value.code == code and not caught.value.retryable


def test_an_object_that_is_too_long_or_no_text_is_refused(kernel: Kernel, aws: Aws):
    for key, body in {"long": b"x" * 1001, "bytes": b"\xff\xfe"}.items():
        aws.clients.call("s3", "put_object", Bucket=aws.name, Key=key, Body=body)
        with pytest.raises(AutomateError) as caught:
            kernel.invoke("s3.get_object", {"key": key})
        assert caught.value.code == "FAILED_PRECONDITION" and not caught.value.retryable


# -- conditions ------------------------------------------------------------------------------


def test_a_conditional_put_writes_once(kernel: Kernel):
    first = kernel.invoke("s3.put_object", {"key": "a", "content": "1", "if_absent": True})
    with pytest.raises(AutomateError) as caught:
        kernel.invoke("s3.put_object", {"key": "a", "content": "2", "if_absent": True})
    assert caught.value.code == "ALREADY_EXISTS"
    given = {"key": "a", "content": "3", "if_etag": first["etag"]}
    kernel.invoke("s3.put_object", given)
    with pytest.raises(AutomateError) as caught:
        kernel.invoke("s3.put_object", {**given, "content": "4"})
    assert caught.value.code == "FAILED_PRECONDITION" and not caught.value.retryable
    assert kernel.invoke("s3.get_object", {"key": "a"})["content"] == "3"


def test_a_step_whose_answer_got_lost_knows_its_own_object(kernel: Kernel):
    given = {"key": "a", "content": "1", "if_absent": True}
    # The first attempt did its work, and its worker died before it was saved.
    first = kernel.invoke("s3.put_object", given, idempotency_key="step-1")
    again = kernel.invoke("s3.put_object", given, idempotency_key="step-1")
    assert again["etag"] == first["etag"]
    with pytest.raises(AutomateError) as caught:
        kernel.invoke("s3.put_object", given, idempotency_key="step-2")
    assert caught.value.code == "ALREADY_EXISTS"


# -- files -----------------------------------------------------------------------------------


def test_files_go_up_and_come_down(kernel: Kernel, tmp_path: Path):
    folder = tmp_path / "files"
    folder.mkdir()
    data = os.urandom(2_500_000)
    (folder / "report.bin").write_bytes(data)
    up = kernel.invoke("s3.upload_file", {"key": "r", "path": "report.bin", "if_absent": True})
    down = kernel.invoke("s3.download_file", {"key": "r", "path": "sub/copy.bin"})
    assert (folder / "sub/copy.bin").read_bytes() == data
    assert down["size"] == len(data) and down["etag"] == up["etag"]
    assert {each.name for each in folder.rglob("*")} == {"report.bin", "sub", "copy.bin"}


def test_what_a_killed_download_had_begun_is_deleted_by_the_next_attempt(
    kernel: Kernel, tmp_path: Path
):
    folder = tmp_path / "files"
    folder.mkdir()
    kernel.invoke("s3.put_object", {"key": "a", "content": "x"})
    call = Call("s3.download_file", execution_id="e", step_id="s", idempotency_key="e:s")
    with calling(call):
        begun = folder / Draft.of(str(folder / "copy")).name
    begun.write_text("half")
    given = {"key": "a", "path": "copy"}
    kernel.perform(call, given)
    assert begun.exists()  # it may be another's, who is only slow
    kernel.perform(replace(call, attempt=2), given)
    assert [each.name for each in folder.iterdir()] == ["copy"]


def test_a_file_that_is_too_long_stays_where_it_is(kernel: Kernel, aws: Aws, tmp_path: Path):
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "long").write_bytes(b"x" * 3_000_001)
    with pytest.raises(AutomateError, match="max_file_bytes"):
        kernel.invoke("s3.upload_file", {"key": "a", "path": "long"})
    aws.clients.call("s3", "put_object", Bucket=aws.name, Key="a", Body=b"x" * 3_000_001)
    with pytest.raises(AutomateError, match="max_file_bytes"):
        kernel.invoke("s3.download_file", {"key": "a", "path": "copy"})
    assert [each.name for each in folder.iterdir()] == ["long"]


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "", ".", "a/../../x", "link/x", "a\0b"])
def test_no_path_leads_out_of_the_folder(kernel: Kernel, tmp_path: Path, path: str):
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    kernel.invoke("s3.put_object", {"key": "a", "content": "x"})
    for operation in ("upload_file", "download_file"):
        with pytest.raises(AutomateError) as caught:
            kernel.invoke(f"s3.{operation}", {"key": "a", "path": path})
        assert caught.value.code == "INVALID_ARGUMENT"
    assert {each.name for each in tmp_path.iterdir()} == {"files"}


def test_without_a_folder_there_are_no_files(aws: Aws):
    with aws.kernel(s3={"buckets": [aws.bucket()]}) as kernel:
        with pytest.raises(AutomateError, match="set folder"):
            kernel.invoke("s3.download_file", {"key": "a", "path": "x"})


# -- signed URLs -----------------------------------------------------------------------------


def test_a_signed_url_reads_and_writes(aws: Aws, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    config = {"buckets": [aws.bucket()], "access_key_id": None, "secret_access_key": None}
    with aws.kernel(s3=config) as kernel:
        put = kernel.invoke("s3.presign_url", {"key": "a", "method": "put", "expires_seconds": 60})
        request = urllib.request.Request(
            put["url"], b"hello", {"Content-Type": "text/plain"}, method="PUT"
        )
        urllib.request.urlopen(request).close()
        get = kernel.invoke("s3.presign_url", {"key": "a", "expires_seconds": 604_800})
    with urllib.request.urlopen(get["url"]) as answer:
        assert answer.read() == b"hello"
    assert get["expires_seconds"] == 3_600 and "X-Amz-Expires=3600" in get["url"]
    assert SECRET_KEY not in put["url"] + get["url"]


def test_a_signed_url_that_would_show_a_key_of_the_config_is_refused(kernel: Kernel, aws: Aws):
    config = {"buckets": ["b"], "access_key_id": "AKIAIOSFODNN7EXAMPLE"}
    with aws.kernel(s3=config) as kernel:
        with pytest.raises(AutomateError, match="use a profile, a role"):
            kernel.invoke("s3.presign_url", {"key": "a"})
