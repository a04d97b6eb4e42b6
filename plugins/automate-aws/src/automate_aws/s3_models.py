"""The config of the S3 connector, and the inputs and outputs of its actions."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from unicodedata import category

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from automate_aws.access import AwsAccess

_MIB = 1024 * 1024
_MOST_PUT_BYTES = 5 * 1024 * _MIB  # of S3 itself, for one request
Encoding = Literal["text", "json", "base64"]


def _checked_key(key: str) -> str:
    if not 0 < len(key.encode("utf-8", "surrogatepass")) <= 1024:
        raise ValueError("a key has 1 to 1,024 bytes")
    return key


def _checked_new_key(key: str) -> str:
    # A list of keys is XML, which can't hold these.
    if any(category(char) in ("Cc", "Cs") for char in key):
        raise ValueError("a new key has no line break and no control character")
    return _checked_key(key)


Key = Annotated[str, AfterValidator(_checked_key)]
NewKey = Annotated[str, AfterValidator(_checked_new_key)]
# These become headers of the request: what can't stand there is cut off or changed on its way.
HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,200}$")]
HeaderText = Annotated[
    str, StringConstraints(pattern=r"^([!-~]([ -~]*[!-~])?)?$", max_length=2_000)
]


class S3Config(AwsAccess):
    """The buckets that actions may use, and the bounds of objects."""

    buckets: list[str] = Field(min_length=1, examples=[["my-bucket"]])
    """The buckets that actions may use; calls that name none use the first."""
    folder: str | None = None
    """The folder of this machine that files are downloaded to and uploaded from. Without it both
    actions are refused."""
    max_bytes: int = Field(default=5 * _MIB, ge=0, le=64 * _MIB)
    """The most bytes of an object that comes or goes as a value of a workflow."""
    max_file_bytes: int = Field(default=1024 * _MIB, ge=0, le=_MOST_PUT_BYTES)
    """The most bytes of a file."""
    max_url_seconds: int = Field(default=3_600, ge=1, le=604_800)
    """The longest time for which a signed URL is good."""


class _S3Input(BaseModel):
    model_config = ConfigDict(extra="forbid")

    bucket: str | None = Field(
        default=None, description="The bucket; by default the first of the config."
    )
    key: Key = Field(description="The object's key.")


class ObjectInput(_S3Input):
    """One object."""

    version_id: str | None = Field(default=None, description="A version of the object.")


class GetObjectInput(ObjectInput):
    """The input of ``get_object``."""

    encoding: Encoding = Field(
        default="text", description="The form of `content`: UTF-8 text, JSON's value, or base64."
    )


class _ConditionalInput(_S3Input):
    key: NewKey = Field(description="The object's key.")
    if_absent: bool = Field(default=False, description="Write only if there is no such object.")
    if_etag: HeaderText | None = Field(
        default=None, description="Write only if the object has this ETag still."
    )
    content_type: HeaderText | None = Field(default=None, description="Its media type.")
    metadata: dict[HeaderName, HeaderText] = Field(
        default_factory=dict, description="Metadata of your own: names, and ASCII text."
    )


class PutObjectInput(_ConditionalInput):
    """The input of ``put_object``."""

    content: Any = Field(description="Text, base64, or with `json` any JSON value.")
    encoding: Encoding = Field(default="text", description="The form of `content`.")


class UploadFileInput(_ConditionalInput):
    """The input of ``upload_file``."""

    path: str = Field(description="The file, relative to `folder` of the config.")


class DownloadFileInput(ObjectInput):
    """The input of ``download_file``."""

    path: str = Field(description="The file to write, relative to `folder` of the config.")


class CopyObjectInput(ObjectInput):
    """The input of ``copy_object``."""

    to_bucket: str | None = Field(default=None, description="By default the first of the config.")
    to_key: NewKey = Field(description="The new object's key.")


class ListObjectsInput(BaseModel):
    """The input of ``list_objects``."""

    model_config = ConfigDict(extra="forbid")

    bucket: str | None = Field(default=None, description="By default the first of the config.")
    prefix: str = Field(default="", description="The beginning of the keys.")
    delimiter: str | None = Field(
        default=None, description="Keys that go on after it are given as `prefixes`: / for folders."
    )
    limit: int = Field(default=1_000, ge=1, le=1_000, description="The most keys of a page.")
    token: str | None = Field(default=None, description="`next_token` of the page before.")


class PresignUrlInput(ObjectInput):
    """The input of ``presign_url``."""

    method: Literal["get", "put"] = Field(default="get", description="What the URL may do.")
    expires_seconds: int = Field(
        default=900, ge=1, le=604_800, description="The time for which it is good."
    )


class ObjectInfo(BaseModel):
    """An object without its content."""

    bucket: str
    key: str
    size: int
    etag: str
    content_type: str | None = None
    last_modified: str | None = None
    version_id: str | None = None
    metadata: dict[str, str] = Field(default_factory=dict)


class ObjectContent(ObjectInfo):
    """An object with its content."""

    content: Any


class WrittenObject(BaseModel):
    """An object that was written."""

    bucket: str
    key: str
    etag: str
    version_id: str | None = None


class DeletedObject(BaseModel):
    """An object that is gone."""

    bucket: str
    key: str


class DownloadedFile(ObjectInfo):
    """A file that was written."""

    path: str


class ListedObject(BaseModel):
    """One object of a list."""

    key: str
    size: int
    etag: str
    last_modified: str


class ObjectList(BaseModel):
    """A page of a bucket's objects."""

    bucket: str
    objects: list[ListedObject]
    prefixes: list[str]
    next_token: str | None = None


class SignedUrl(BaseModel):
    """A URL that needs no credentials; whoever has it may use it."""

    url: str
    expires_seconds: int
