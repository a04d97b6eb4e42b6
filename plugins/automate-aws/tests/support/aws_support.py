"""Buckets, queues and kernels on a server that answers as AWS does."""

from __future__ import annotations

from typing import Any

from automate_aws import AwsAccess, S3Connector, SqsConnector
from automate_aws.clients import AwsClients

from automate_kernel import Kernel

SECRET_KEY = "canary-7Qm2xVb91tZkP0eL-secret-access-key"
REGION = "eu-central-1"


class Aws:
    """One test's part of a server: names that begin with *name*."""

    def __init__(self, url: str, name: str) -> None:
        self.url, self.name = url, name
        self.access = AwsAccess(
            region=REGION, access_key_id="AKIATEST", secret_access_key=SECRET_KEY, endpoint_url=url,
            timeout_seconds=30,
        )  # fmt: skip
        self.clients = AwsClients(self.access)
        self.config = {
            "region": REGION, "access_key_id": "AKIATEST", "endpoint_url": url,
            "secret_access_key": "$secret:AWS_KEY", "timeout_seconds": 30,
        }  # fmt: skip

    def bucket(self, name: str = "") -> str:
        bucket = f"{self.name}{name}"
        place = {"LocationConstraint": REGION}
        self.clients.call("s3", "create_bucket", Bucket=bucket, CreateBucketConfiguration=place)
        return bucket

    def queue(self, name: str = "queue", **attributes: str) -> str:
        fifo = {"FifoQueue": "true"} if name.endswith(".fifo") else {}
        made = self.clients.call(
            "sqs", "create_queue", QueueName=f"{self.name}-{name}", Attributes={**fifo, **attributes}
        )  # fmt: skip
        return made["QueueUrl"]

    def kernel(self, *, storage: Any = None, s3: Any = None, sqs: Any = None) -> Kernel:
        config = {
            "s3": {**self.config, **(s3 or {})}, "sqs": {**self.config, "queues": {}, **(sqs or {})}
        }  # fmt: skip
        given = {"plugins": [S3Connector, SqsConnector], "secrets": {"AWS_KEY": SECRET_KEY}}
        return Kernel(*([storage] if storage else []), discover=False, config=config, **given)

    def close(self) -> None:
        self.clients.close()
