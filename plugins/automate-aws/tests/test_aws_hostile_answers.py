"""A service that misbehaves in place of AWS: codes, retries, bounds, and no secret shown."""

from __future__ import annotations

from typing import Any, ClassVar

from automate_aws import S3Connector, SqsConnector

from automate_testing import HostileAnswersContract


class _Hostile(HostileAnswersContract):
    # Each new client reads the description of its service, which takes a busy machine long.
    most_seconds = 40.0

    def config(self, url: str) -> dict[str, Any]:
        return {
            "endpoint_url": url, "region": "eu-central-1", "access_key_id": "AKIATEST",
            "secret_access_key": "$secret:AWS_KEY", "session_token": "$secret:AWS_TOKEN",
            "timeout_seconds": self.timeout_seconds, "max_attempts": 1,
        }  # fmt: skip


class TestS3AgainstHostileAnswers(_Hostile):
    plugin, operation, example_input = S3Connector, "get_object", {"key": "a/b"}
    answer: ClassVar[Any] = {"id": 7}
    # What an object holds is its writer's affair.
    reads_json = False

    def config(self, url: str) -> dict[str, Any]:
        # The bounds hold for its own attempts together.
        return {**super().config(url), "buckets": ["bucket"], "max_attempts": 2}


class TestS3ListAgainstHostileAnswers(TestS3AgainstHostileAnswers):
    operation, example_input = "list_objects", {}
    reads_json = True
    content_type = "application/xml"
    answer = (
        b'<?xml version="1.0" encoding="UTF-8"?>'
        b'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>bucket</Name>'
        b"<KeyCount>1</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated><Contents>"
        b"<Key>a/b</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
        b"<ETag>&quot;e&quot;</ETag><Size>3</Size></Contents></ListBucketResult>"
    )

    def config(self, url: str) -> dict[str, Any]:
        return {**super().config(url), "max_attempts": 1}


class TestSqsAgainstHostileAnswers(_Hostile):
    plugin, operation = SqsConnector, "send_message"
    example_input: ClassVar[Any] = {"queue": "orders", "body": "hello"}
    answer: ClassVar[Any] = {
        "MessageId": "m-1",
        "MD5OfMessageBody": "5d41402abc4b2a76b9719d911017c592",
    }

    def config(self, url: str) -> dict[str, Any]:
        return {**super().config(url), "queues": {"orders": f"{url}/123456789012/orders"}}
