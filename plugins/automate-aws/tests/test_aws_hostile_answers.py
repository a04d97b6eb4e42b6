"""A service that misbehaves in place of AWS: codes, retries, bounds, and no secret shown."""

from __future__ import annotations

from typing import Any, ClassVar

from automate_aws import S3Connector, SqsConnector

from automate_kernel.testing import HostileAnswersContract


class _Hostile(HostileAnswersContract):
    def config(self, url: str) -> dict[str, Any]:
        return {
            "endpoint_url": url, "region": "eu-central-1", "access_key_id": "AKIATEST",
            "secret_access_key": "$secret:AWS_KEY", "session_token": "$secret:AWS_TOKEN",
            "timeout_seconds": 1, "max_attempts": 1,
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

    def config(self, url: str) -> dict[str, Any]:
        return {**super().config(url), "max_attempts": 1}

    def test_it_works_with_a_service_that_is_well(self) -> None:
        """Not here: the contract's service has JSON only. Moto's answers are XML."""


class TestSqsAgainstHostileAnswers(_Hostile):
    plugin, operation = SqsConnector, "send_message"
    example_input: ClassVar[Any] = {"queue": "orders", "body": "hello"}
    answer: ClassVar[Any] = {
        "MessageId": "m-1",
        "MD5OfMessageBody": "5d41402abc4b2a76b9719d911017c592",
    }

    def config(self, url: str) -> dict[str, Any]:
        return {**super().config(url), "queues": {"orders": f"{url}/123456789012/orders"}}
