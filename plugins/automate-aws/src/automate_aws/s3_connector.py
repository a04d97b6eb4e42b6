"""The connector ``s3``: objects of S3, and of stores that are compatible with it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import IO, Any

from automate_aws.clients import AwsClients
from automate_aws.failures import aws_code, needed, worded
from automate_aws.file_folder import FileFolder
from automate_aws.object_content import CONTENT_TYPES, decoded, encoded
from automate_aws.s3_models import (
    CopyObjectInput,
    DeletedObject,
    DownloadedFile,
    DownloadFileInput,
    GetObjectInput,
    ListedObject,
    ListObjectsInput,
    ObjectContent,
    ObjectInfo,
    ObjectInput,
    ObjectList,
    PresignUrlInput,
    PutObjectInput,
    S3Config,
    SignedUrl,
    UploadFileInput,
    WrittenObject,
)
from automate_kernel import (
    AutomateError,
    Connector,
    ConnectorContext,
    ErrorCodes,
    action,
    current_call,
)

_CHUNK = 1024 * 1024
_MARK = "automate-call"


class S3Connector(Connector):
    """Objects of S3, and of stores that are compatible with it."""

    key = "s3"
    display_name = "Amazon S3"

    def __init__(self, config: dict[str, Any], *, ctx: ConnectorContext) -> None:
        super().__init__(config, ctx=ctx)
        self._settings: S3Config = self.parse_config(config)
        self._clients = AwsClients(self._settings)
        self._files = FileFolder(self._settings.folder)

    @classmethod
    def config_schema(cls) -> type[S3Config]:
        """Return the model of the config."""
        return S3Config

    @action(read_only=True)
    def get_object(self, given: GetObjectInput) -> ObjectContent:
        """Read an object as text, JSON or base64. One that is too long is refused unread."""
        with self._object(given, self._settings.max_bytes, "max_bytes") as (info, chunks):
            data = b"".join(chunks)
        return ObjectContent(**info.model_dump(), content=decoded(data, given.encoding))

    @action(read_only=True)
    def head_object(self, given: ObjectInput) -> ObjectInfo:
        """Read an object's size, ETag, media type and metadata."""
        place = self._place(given)
        return _info(place, self._clients.call("s3", "head_object", **place))

    @action(idempotent=True)
    def put_object(self, given: PutObjectInput) -> WrittenObject:
        """Write an object. With a condition, a step that is tried again knows its own object."""
        data = encoded(given.content, given.encoding)
        self._check_size(len(data), self._settings.max_bytes, "max_bytes")
        return self._write(given, data, given.content_type or CONTENT_TYPES[given.encoding])

    @action(idempotent=True)
    def upload_file(self, given: UploadFileInput) -> WrittenObject:
        """Write a file of this machine's folder to an object, without reading it into memory."""
        with self._files.reading(given.path) as (file, size):
            self._check_size(size, self._settings.max_file_bytes, "max_file_bytes")
            return self._write(given, file, given.content_type or CONTENT_TYPES["base64"])

    @action(idempotent=True)
    def download_file(self, given: DownloadFileInput) -> DownloadedFile:
        """Write an object to a file of this machine's folder, without reading it into memory."""
        self._files.path(given.path)  # refused before anything is asked for
        call, done = current_call(), 0
        limit = self._settings.max_file_bytes
        with (
            self._object(given, limit, "max_file_bytes") as (info, chunks),
            self._files.writing(given.path) as write,
        ):
            for chunk in chunks:
                write(chunk)
                done += len(chunk)
                if call is not None:
                    if call.cancelled:
                        raise AutomateError(ErrorCodes.CANCELLED, "the download was stopped")
                    call.progress({"bytes": done, "of": info.size})
        return DownloadedFile(**info.model_dump(), path=given.path)

    @action(read_only=True)
    def list_objects(self, given: ListObjectsInput) -> ObjectList:
        """List the keys of a bucket, a page at a time."""
        asked: dict[str, Any] = {
            "Bucket": self._bucket(given.bucket), "Prefix": given.prefix, "MaxKeys": given.limit
        }  # fmt: skip
        if given.delimiter is not None:
            asked["Delimiter"] = given.delimiter
        if given.token is not None:
            asked["ContinuationToken"] = given.token
        answer = self._clients.call("s3", "list_objects_v2", **asked)
        return ObjectList(
            # Without its name the answer is some other document.
            bucket=needed(answer, "Name", "s3 list_objects_v2"),
            objects=[_listed(each) for each in answer.get("Contents") or ()],
            prefixes=[each["Prefix"] for each in answer.get("CommonPrefixes") or ()],
            next_token=answer.get("NextContinuationToken"),
        )

    @action(idempotent=True, destructive=True)
    def delete_object(self, given: ObjectInput) -> DeletedObject:
        """Delete an object, or one version of it. Nothing happens if it is gone."""
        place = self._place(given)
        self._clients.call("s3", "delete_object", **place)
        return DeletedObject(bucket=place["Bucket"], key=given.key)

    @action(idempotent=True)
    def copy_object(self, given: CopyObjectInput) -> WrittenObject:
        """Copy an object of at most 5 GiB within S3."""
        to = {"Bucket": self._bucket(given.to_bucket), "Key": given.to_key}
        answer = self._clients.call("s3", "copy_object", CopySource=self._place(given), **to)
        what = "s3 copy_object"
        etag = needed(needed(answer, "CopyObjectResult", what), "ETag", what)
        return WrittenObject(
            bucket=to["Bucket"], key=given.to_key, etag=etag, version_id=answer.get("VersionId")
        )

    @action(read_only=True)
    def presign_url(self, given: PresignUrlInput) -> SignedUrl:
        """Make a URL that reads or writes one object for a while. Whoever has it may use it."""
        seconds = min(given.expires_seconds, self._settings.max_url_seconds)
        operation = "get_object" if given.method == "get" else "put_object"
        place = self._place(given)
        if self._shows_secrets():
            # The kernel would take them out of the URL on its way.
            raise AutomateError(
                ErrorCodes.FAILED_PRECONDITION,
                "the signed URL would show a secret of the config",
                hint="keys of the config are hidden everywhere: use a profile, a role, or the "
                "credentials of the machine",
            )
        url = self._clients.presigned_url(operation, seconds, **place)
        return SignedUrl(url=url, expires_seconds=seconds)

    def check(self) -> str:
        """Ask for each bucket, which needs the right to list it."""
        for bucket in self._settings.buckets:
            self._clients.call("s3", "head_bucket", Bucket=bucket)
        return f"{len(self._settings.buckets)} bucket(s) answer"

    def close(self) -> None:
        """Close the connections."""
        self._clients.close()

    def _shows_secrets(self) -> bool:
        settings = self._settings
        token = settings.session_token
        shown = (settings.access_key_id, token.get_secret_value() if token else None)
        return any(each is not None and self.ctx.redact(each) != each for each in shown)

    # -- places and bounds -------------------------------------------------------------------

    def _bucket(self, name: str | None) -> str:
        allowed = self._settings.buckets
        if name is not None and name not in allowed:
            raise AutomateError(
                ErrorCodes.PERMISSION_DENIED,
                f"the bucket {name[:100]!r} is not among the connector's",
                hint=f"it has {', '.join(allowed)}: add it to buckets in the config",
            )
        return allowed[0] if name is None else name

    def _place(self, given: ObjectInput) -> dict[str, Any]:
        place = {"Bucket": self._bucket(given.bucket), "Key": given.key}
        return place if given.version_id is None else {**place, "VersionId": given.version_id}

    def _check_size(self, size: int, most: int, name: str) -> None:
        if size > most:
            raise AutomateError(
                ErrorCodes.FAILED_PRECONDITION,
                f"the content has {size:,} bytes, and {most:,} are allowed",
                hint=f"raise {name} in the connector's config",
            )

    # -- reading and writing -----------------------------------------------------------------

    @contextmanager
    def _object(
        self, given: ObjectInput, most: int, name: str
    ) -> Iterator[tuple[ObjectInfo, Iterator[bytes]]]:
        """Open an object, and give what is known of it and its bytes, as they come."""
        place, what = self._place(given), "s3 get_object"
        answer = self._clients.call("s3", "get_object", **place)
        body = needed(answer, "Body", what)
        try:
            info = _info(place, answer)
            self._check_size(info.size, most, name)
            yield info, self._chunks(body, most, name)
        finally:
            body.close()

    def _chunks(self, body: Any, most: int, name: str) -> Iterator[bytes]:
        size = 0
        # The length that was announced need not be the length that comes.
        while chunk := _read(body):
            size += len(chunk)
            self._check_size(size, most, name)
            yield chunk

    def _write(
        self, given: PutObjectInput | UploadFileInput, body: bytes | IO[bytes], content_type: str
    ) -> WrittenObject:
        place = {"Bucket": self._bucket(given.bucket), "Key": given.key}
        metadata, mark = dict(given.metadata), _mark_of_call()
        condition: dict[str, Any] = {}
        if given.if_absent:
            condition["IfNoneMatch"] = "*"
        if given.if_etag is not None:
            condition["IfMatch"] = given.if_etag
        if condition and mark is not None:
            metadata[_MARK] = mark
        try:
            answer = self._clients.call(
                "s3", "put_object", **place, **condition,
                Body=body, Metadata=metadata, ContentType=content_type,
            )  # fmt: skip
        except AutomateError as error:
            if not condition or aws_code(error) not in {"PreconditionFailed", "412"}:
                raise
            found = self._own(place, mark)
            if found is None:
                raise _condition_failed(given) from None
            answer = found
        return WrittenObject(
            bucket=place["Bucket"],
            key=given.key,
            etag=needed(answer, "ETag", "s3 put_object"),
            version_id=answer.get("VersionId"),
        )

    def _own(self, place: dict[str, Any], mark: str | None) -> dict[str, Any] | None:
        """Return the object that an earlier attempt of this step wrote, whose answer got lost."""
        if mark is None:
            return None
        try:
            found = self._clients.call("s3", "head_object", **place)
        except AutomateError as error:
            if error.code is ErrorCodes.NOT_FOUND:
                return None
            raise
        return found if (found.get("Metadata") or {}).get(_MARK) == mark else None


def _read(body: Any) -> bytes:
    with worded("s3 get_object"):
        chunk: bytes = body.read(_CHUNK)
        return chunk


def _mark_of_call() -> str | None:
    call = current_call()
    if call is None or call.idempotency_key is None:
        return None
    return hashlib.sha256(call.idempotency_key.encode()).hexdigest()[:32]


def _condition_failed(given: PutObjectInput | UploadFileInput) -> AutomateError:
    if given.if_absent:
        return AutomateError(
            ErrorCodes.ALREADY_EXISTS, f"there is an object {given.key[:200]!r} already"
        )
    return AutomateError(
        ErrorCodes.FAILED_PRECONDITION,
        f"the object {given.key[:200]!r} is another than it was",
        hint="read it again, and decide again",
    )


def _info(place: dict[str, Any], answer: dict[str, Any]) -> ObjectInfo:
    return ObjectInfo(
        bucket=place["Bucket"],
        key=place["Key"],
        size=int(answer.get("ContentLength") or 0),
        etag=answer.get("ETag") or "",
        content_type=answer.get("ContentType"),
        last_modified=_time(answer.get("LastModified")),
        version_id=answer.get("VersionId"),
        metadata=answer.get("Metadata") or {},
    )


def _listed(entry: dict[str, Any]) -> ListedObject:
    return ListedObject(
        key=entry["Key"],
        size=int(entry["Size"]),
        etag=entry.get("ETag") or "",
        last_modified=_time(entry["LastModified"]) or "",
    )


def _time(value: Any) -> str | None:
    return value.isoformat() if isinstance(value, datetime) else None
