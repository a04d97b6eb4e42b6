"""The output store in S3: large outputs of steps as objects of a bucket."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from typing import Any

from automate_aws.access import AwsAccess
from automate_aws.clients import AwsClients
from automate_aws.failures import aws_code, needed, worded
from automate_kernel.base.errors import AutomateError, ConfigError, ErrorCodes, StorageError
from automate_kernel.storage.output_store import OutputStore, check_output_key, is_output_key

_PREFIX = re.compile(r"([A-Za-z0-9!_.*'()-]+/)*")
_MOST_BYTES = 64 * 1024 * 1024  # the kernel puts 64,000,000 at most
_CHUNK = 1024 * 1024


class S3OutputStore(OutputStore):
    """
    An output store in the S3 bucket *bucket*, under keys that begin with *prefix*.

    *access* has the fields of `AwsAccess`. The store needs the rights to get, put and delete
    objects, and to list the bucket: without the last S3 doesn't say that an object is gone.
    Objects are as private, and as encrypted, as the bucket makes them.
    """

    def __init__(
        self,
        bucket: str,
        *,
        prefix: str = "automate-outputs/",
        access: AwsAccess | Mapping[str, Any] | None = None,
    ) -> None:
        if not bucket or not _PREFIX.fullmatch(prefix):
            raise ConfigError(
                f"the output store has no bucket, or {prefix!r} can't be the prefix of its keys",
                hint='end the prefix with a slash: "outputs/"',
            )
        self.bucket: str = bucket
        self.prefix: str = prefix
        self._clients = AwsClients(AwsAccess.of(access))

    def put(self, key: str, data: bytes) -> None:
        """Write an object; S3 has it on several disks when it answers."""
        with _stored("write"):
            self._clients.call("s3", "put_object", **self._place(key), Body=data)

    def get(self, key: str) -> bytes:
        """Read an object."""
        place = self._place(key)
        try:
            with _stored("read"):
                answer = self._clients.call("s3", "get_object", **place)
                body = needed(answer, "Body", "s3 get_object")
                with worded("s3 get_object"):
                    return _whole(body)
        except AutomateError as error:
            if aws_code(error) != "NoSuchKey":
                raise
        raise AutomateError(
            ErrorCodes.NOT_FOUND,
            f"the output store has no {key!r}",
            hint="it was deleted, or this process has another bucket or prefix",
        )

    def delete(self, key: str) -> None:
        """Delete an object; S3 does nothing if it is gone."""
        with _stored("delete"):
            self._clients.call("s3", "delete_object", **self._place(key))

    def keys(self, *, older_than_seconds: float) -> Iterator[str]:
        """List the bucket's part, a page at a time; ages are by the clock of S3."""
        asked: dict[str, Any] = {"Bucket": self.bucket, "Prefix": self.prefix}
        while True:
            with _stored("list"):
                answer = self._clients.call("s3", "list_objects_v2", **asked)
                # Another document would be taken for an empty bucket.
                needed(answer, "Name", "s3 list_objects_v2")
            until = _now_of(answer) - timedelta(seconds=older_than_seconds)
            for each in answer.get("Contents") or ():
                key = each["Key"][len(self.prefix) :]
                # Other objects are somebody else's.
                if is_output_key(key) and each["LastModified"] <= until:
                    yield key
            token = answer.get("NextContinuationToken")
            if not token:
                return
            asked["ContinuationToken"] = token

    def close(self) -> None:
        """Close the connections."""
        self._clients.close()

    def _place(self, key: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self.prefix + check_output_key(key)}

    def __repr__(self) -> str:
        return f"S3OutputStore({self.bucket!r}, prefix={self.prefix!r})"


@contextmanager
def _stored(what: str) -> Iterator[None]:
    """Word failures that may pass as the kernel wants them, so that it tries again."""
    try:
        yield
    except AutomateError as error:
        if not error.retryable:
            raise
        failure = StorageError(
            f"the output store can't {what}: {error.message}",
            hint=error.hint,
            retry_after=error.retry_after,
        )
    else:
        return
    raise failure


def _whole(body: Any) -> bytes:
    parts, size = [], 0
    try:
        while chunk := body.read(_CHUNK):
            size += len(chunk)
            if size > _MOST_BYTES:
                raise AutomateError(
                    ErrorCodes.FAILED_PRECONDITION, f"the output is longer than {_MOST_BYTES} bytes"
                )
            parts.append(chunk)
    finally:
        body.close()
    return b"".join(parts)


def _now_of(answer: Mapping[str, Any]) -> datetime:
    headers = (answer.get("ResponseMetadata") or {}).get("HTTPHeaders") or {}
    try:
        return parsedate_to_datetime(headers.get("date") or "")
    except (TypeError, ValueError):
        return datetime.now(timezone.utc)
