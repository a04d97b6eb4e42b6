"""The configuration of the connector."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from automate_files.paths import check_folder, compile_pattern
from automate_kernel import AutomateError
from automate_kernel.base.hosts import check_encrypted, check_endpoint
from automate_kernel.secrets.keys import SecretKey

_MIB = 1024 * 1024
# The cursor of a poll has 65,536 characters, and each watch takes a quarter of them at most.
_MOST_WATCHES = 4
_NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"


def _pattern(value: str) -> str:
    try:
        compile_pattern(value)
    except AutomateError as error:
        raise ValueError(error.message) from None
    return value


def _name(value: str) -> str:
    if "/" in _pattern(value):
        raise ValueError("it is a pattern of names, without a folder")
    return value


def _folder(value: str) -> str:
    try:
        return check_folder(value)
    except AutomateError as error:
        raise ValueError(error.message) from None


class _PlaceConfig(BaseModel):
    """The bounds that each place has."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)

    read_only: bool = Field(False, description="True if nothing may be changed here.")
    max_bytes: int = Field(
        16 * _MIB, gt=0, le=512 * _MIB, description="The most bytes that are read or written whole."
    )
    max_entries: int = Field(
        200_000, gt=0, le=2_000_000, description="The most files and folders that one look reads."
    )
    timeout_seconds: float = Field(
        30.0, gt=0, le=3_600, description="The most seconds that one exchange with it may take."
    )


class LocalConfig(_PlaceConfig):
    """A folder of this machine, or a folder that is mounted here."""

    type: Literal["local"] = Field("local", description="`local`.")
    folder: str = Field(min_length=1, description="The folder. No path and no link leaves it.")


class S3PlaceConfig(_PlaceConfig):
    """A bucket, or a part of it, at AWS or another service with the same interface."""

    type: Literal["s3"] = Field("s3", description="`s3`.")
    bucket: str = Field(min_length=3, max_length=63, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
                        description="The bucket.")  # fmt: skip
    prefix: Annotated[str, AfterValidator(_folder)] = Field(
        "", description="The folder in the bucket that is the root; the bucket itself if empty."
    )
    region: str | None = Field(None, description="The region, such as `eu-central-1`.")
    endpoint_url: Annotated[str, AfterValidator(check_endpoint)] | None = Field(
        None,
        description="The address of a service other than AWS. Those of the environment and of "
        "AWS's files aren't read, and proxies of the environment aren't used.",
    )
    allow_plain_http: bool = Field(
        False, description="Let `endpoint_url` be http:// on other machines than this one."
    )
    access_key_id: str | None = Field(
        None, description="The access key's id. Without one the machine's own role is used."
    )
    access_key_secret: SecretKey | None = Field(
        None, description="The name of the secret with the secret access key."
    )
    session_token_secret: SecretKey | None = Field(
        None, description="The name of the secret with a temporary key's session token."
    )

    @model_validator(mode="after")
    def _keys_are_whole(self) -> S3PlaceConfig:
        if (self.access_key_id is None) != (self.access_key_secret is None):
            raise ValueError("access_key_id and access_key_secret come together")
        return self

    @model_validator(mode="after")
    def _is_encrypted(self) -> S3PlaceConfig:
        check_encrypted(
            self.endpoint_url or "", allow_plain_http=self.allow_plain_http, what="endpoint_url"
        )
        return self


class SftpConfig(_PlaceConfig):
    """A folder of an SFTP server, whose host key is known."""

    type: Literal["sftp"] = Field("sftp", description="`sftp`.")
    host: str = Field(min_length=1, description="The server's name or address.")
    port: int = Field(22, ge=1, le=65_535, description="The server's port.")
    user: str = Field(min_length=1, description="The user at the server.")
    folder: str = Field(
        ".", min_length=1, description="The folder that is the root; by default the user's own."
    )
    password_secret: SecretKey | None = Field(
        None, description="The name of the secret with the password."
    )
    private_key_secret: SecretKey | None = Field(
        None, description="The name of the secret with the private key, as OpenSSH writes it."
    )
    passphrase_secret: SecretKey | None = Field(
        None, description="The name of the secret with the private key's passphrase."
    )
    host_key: str | None = Field(
        None,
        description="The server's public key: `ssh-ed25519 AAAA…`, as `ssh-keyscan` prints it.",
    )
    known_hosts: str | None = Field(
        None, description="A file of known host keys; by default the user's own."
    )

    @model_validator(mode="after")
    def _has_credentials(self) -> SftpConfig:
        if self.password_secret is None and self.private_key_secret is None:
            raise ValueError("password_secret or private_key_secret is needed")
        if self.host_key is not None and self.known_hosts is not None:
            raise ValueError("host_key and known_hosts: one of them decides")
        return self


class FsspecConfig(_PlaceConfig):
    """Any file system of fsspec, as far as it goes: it may not be able to write atomically."""

    type: Literal["fsspec"] = Field("fsspec", description="`fsspec`.")
    protocol: str = Field(
        pattern=r"^[a-z][a-z0-9+_-]*$", description="The protocol: `gcs`, `abfs`."
    )
    root: str = Field("", description="The folder or bucket that is the root.")
    options: dict[str, Any] = Field(
        default_factory=dict, repr=False, description="The arguments of the file system's class."
    )


PlaceConfig = Annotated[
    LocalConfig | S3PlaceConfig | SftpConfig | FsspecConfig, Field(discriminator="type")
]


class FileWatch(BaseModel):
    """Files whose arrival is an event."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)

    place: str = Field(description="The place's name.")
    pattern: Annotated[str, AfterValidator(_pattern)] = Field(
        "*", description="The paths: `*` and `?` within a name, `**/` for all folders."
    )
    ignore: list[Annotated[str, AfterValidator(_name)]] = Field(
        default=[".*", "*.part", "*.filepart", "*.tmp", "*~"],
        description="Names that are not looked at: those of files that are being written.",
    )
    existing: bool = Field(
        False, description="True if files that are there at the first look are events too."
    )
    settled: bool | None = Field(
        None,
        description="True if a file has to be the same at two looks before it is an event. By "
        "default it has to, except in S3, where files appear whole.",
    )


class FilesConfig(BaseModel):
    """The places that may be used, and the files that are waited for."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)

    places: Annotated[
        dict[Annotated[str, Field(pattern=_NAME)], PlaceConfig],
        Field(default_factory=dict, description="The places by name; there are no others."),
    ]
    watches: Annotated[
        dict[Annotated[str, Field(pattern=_NAME)], FileWatch],
        Field(
            default_factory=dict,
            max_length=_MOST_WATCHES,
            description="The files whose arrival is an event, by name.",
        ),
    ]

    @model_validator(mode="after")
    def _watches_have_places(self) -> FilesConfig:
        for name, watch in self.watches.items():
            if watch.place not in self.places:
                known = ", ".join(sorted(self.places)) or "none"
                raise ValueError(
                    f"the watch {name!r} is of no place {watch.place!r} (there are: {known})"
                )
        return self
