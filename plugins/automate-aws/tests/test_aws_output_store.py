"""The output store in S3 keeps the kernel's contract, and outputs of workflows."""

from __future__ import annotations

from typing import Any

import pytest
from automate_aws import S3OutputStore
from automate_aws.access import AwsAccess
from aws_support import REGION, SECRET_KEY, Aws

from automate_kernel import AutomateError, ConfigError, Kernel, OutputStore, StorageError
from automate_testing import OutputStoreContract
from automate_testing.contracts.hostile_service import hostile_service

KEY = "01890000-0000-7000-8000-000000000000/01890000-0000-7000-8000-000000000001"


class TestS3OutputStore(OutputStoreContract):
    @pytest.fixture
    def store(self, aws: Aws) -> OutputStore:
        return S3OutputStore(aws.bucket(), access=aws.access)


def test_a_bucket_may_have_other_objects_and_other_stores(aws: Aws):
    bucket = aws.bucket()
    mine = S3OutputStore(bucket, prefix="a/", access=aws.access)
    other = S3OutputStore(bucket, prefix="a/b/", access=aws.access)
    other.put(KEY, b"theirs")
    aws.clients.call("s3", "put_object", Bucket=bucket, Key="a/readme.txt", Body=b"")
    mine.put(KEY, b"mine")
    assert list(mine.keys(older_than_seconds=-60)) == [KEY]
    assert (mine.get(KEY), other.get(KEY)) == (b"mine", b"theirs")


def test_keys_come_page_after_page(aws: Aws, monkeypatch: pytest.MonkeyPatch):
    store = S3OutputStore(aws.bucket(), access=aws.access)
    given = {f"group/{number:04}" for number in range(25)}
    for each in given:
        store.put(each, b"")
    call, pages = store._clients.call, []

    def small_pages(service: str, operation: str, /, **parameters: Any) -> Any:
        pages.append(operation)
        return call(service, operation, **parameters, MaxKeys=10)

    monkeypatch.setattr(store._clients, "call", small_pages)
    assert set(store.keys(older_than_seconds=-60)) == given and len(pages) == 3


@pytest.mark.parametrize("key", ["", "a", "../a", "a/b/c", "a/b\n", "/a/b", "a//b"])
def test_a_key_leads_nowhere_else(aws: Aws, key: str):
    store = S3OutputStore("bucket", access=aws.access)
    for call in (store.get, store.delete, lambda key: store.put(key, b"1")):
        with pytest.raises(AutomateError, match="can't be a key"):
            call(key)


@pytest.mark.parametrize(
    ("manner", "passes"),
    [
        ("unavailable", True), ("rate_limited", True), ("cut_off", True), ("hung_up", True),
        ("forbidden", False), ("not_found", False), ("huge", False),
    ],
)  # fmt: skip
def test_only_failures_that_may_pass_are_tried_again(manner: str, passes: bool):
    with hostile_service(lambda method, path: {}) as service:
        service.manner = manner
        access = AwsAccess(
            region=REGION, access_key_id="A", secret_access_key=SECRET_KEY, max_attempts=1,
            endpoint_url=service.url, timeout_seconds=20,
        )  # fmt: skip
        store = S3OutputStore("bucket", access=access)
        with pytest.raises(AutomateError) as caught:
            store.get(KEY)
    assert isinstance(caught.value, StorageError) is passes
    assert caught.value.retryable is passes and SECRET_KEY not in str(caught.value)


def test_a_page_for_people_is_no_empty_bucket():
    with hostile_service(lambda method, path: {}) as service:
        service.manner = "page_for_people"
        access = {
            "region": REGION, "access_key_id": "A", "secret_access_key": SECRET_KEY,
            "endpoint_url": service.url, "max_attempts": 1,
        }  # fmt: skip
        with pytest.raises(StorageError, match="can't list"):
            list(S3OutputStore("bucket", access=access).keys(older_than_seconds=0))


def test_a_bucket_that_is_not_there_is_no_missing_output(aws: Aws):
    with pytest.raises(AutomateError, match="NoSuchBucket"):
        S3OutputStore(f"{aws.name}-gone", access=aws.access).get(KEY)


def test_a_wrong_prefix_or_access_is_refused_without_its_values():
    with pytest.raises(ConfigError, match="slash"):
        S3OutputStore("bucket", prefix="outputs")
    with pytest.raises(ConfigError, match="access_key_id") as caught:
        S3OutputStore("bucket", access={"secret_access_key": SECRET_KEY})
    assert SECRET_KEY not in str(caught.value)


def test_a_workflow_passes_a_large_output_on(aws: Aws):
    store = S3OutputStore(aws.bucket(), access=aws.access)
    kernel = Kernel(discover=False, output_store=store)

    @kernel.action("report.read")
    def read() -> dict[str, Any]:
        return {"rows": ["x" * 100] * 30_000}

    @kernel.action("report.count")
    def count(rows: list[str]) -> int:
        return len(rows)

    rows = "{{ steps.read.output.rows }}"
    steps = [
        {"id": "read", "action": "report.read"},
        {"id": "count", "action": "report.count", "input": {"rows": rows}},
    ]
    kernel.add_workflow({"name": "report", "trigger": {"type": "manual"}, "steps": steps})
    execution = kernel.run("report")
    assert execution.step("count").output == 30_000, execution.error
    (key,) = store.keys(older_than_seconds=-60)
    assert key.startswith(execution.id)
    kernel.executions.purge(older_than_seconds=0)
    assert list(store.keys(older_than_seconds=-60)) == []
    kernel.close()


def test_the_kernel_makes_it_by_its_key(aws: Aws):
    access = {
        "region": aws.access.region,
        "endpoint_url": aws.access.endpoint_url,
        "access_key_id": aws.access.access_key_id,
        "secret_access_key": "$secret:OUTPUTS",
    }
    given = {"store": "s3", "bucket": aws.bucket(), "access": access}
    with Kernel(secrets={"OUTPUTS": SECRET_KEY}, output_store=given) as kernel:
        store = kernel.executions.outputs.store
        assert store is not None
        store.put(KEY, b"1")
        assert store.get(KEY) == b"1"
        assert SECRET_KEY not in repr(store)
