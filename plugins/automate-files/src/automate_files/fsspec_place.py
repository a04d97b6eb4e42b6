"""File systems of fsspec, S3 among them."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any, ClassVar

import fsspec
from fsspec.asyn import sync

from automate_files.config import FsspecConfig, S3PlaceConfig
from automate_files.paths import joined
from automate_files.place import FileEntry, FilePlace, Kind
from automate_kernel import ConfigError
from automate_kernel.operations.context import SecretReader
from automate_kernel.secrets.logs import guard_loggers, quiet

_NS = 1_000_000_000
_PART = 1024 * 1024


class FsspecPlace(FilePlace):
    """
    Any file system of fsspec.

    What it can do atomically is its own matter: most object stores write whole objects.
    """

    def __init__(self, name: str, config: FsspecConfig | S3PlaceConfig) -> None:
        super().__init__(name, max_entries=config.max_entries)
        self._timeout = config.timeout_seconds
        self._root = config.root.strip("/") if isinstance(config, FsspecConfig) else config.bucket
        if isinstance(config, FsspecConfig) and config.root.startswith("/"):
            self._root = f"/{self._root}"
        self._config = config

    def stat(self, path: str) -> FileEntry:
        """Look at a file or folder."""
        return _entry(path, self._call("info", self._full(path)))

    def entries(self, folder: str, most: int) -> list[FileEntry]:
        """Read a folder; a file system of fsspec reads all of it."""
        full = self._full(folder)
        return [
            _entry(joined(folder, name), each)
            for each in self._call("ls", full, detail=True)
            if (name := str(each["name"]).rstrip("/").rpartition("/")[2])
            # S3 shows an object that stands for the folder itself.
            and str(each["name"]).strip("/") != full.strip("/")
        ]

    def read(self, path: str, offset: int, length: int) -> bytes:
        """Read a file."""
        data: bytes = self._call("cat_file", self._full(path), start=offset, end=offset + length)
        return data[:length]

    def write(self, path: str, parts: Iterable[bytes], *, overwrite: bool) -> None:
        """Write an object."""
        full = self._full(path)
        if not overwrite and self._call("exists", full):
            raise FileExistsError(errno.EEXIST, "it exists")
        self._make_above(full)
        self._call("pipe_file", full, b"".join(parts))

    def rename(self, source: str, target: str, *, overwrite: bool) -> None:
        """Copy, then delete: object stores have nothing else."""
        old, new = self._full(source), self._full(target)
        if self._call("info", old)["type"] != "file":
            raise IsADirectoryError(errno.EISDIR, "a folder")
        if overwrite or not self._call("exists", new):
            self._make_above(new)
            self._call("cp_file", old, new)
        elif not self._is_copy(source, target):
            raise FileExistsError(errno.EEXIST, "it exists")
        self._call("rm_file", old)

    def delete(self, path: str) -> None:
        """Delete an object, or a folder where there are any."""
        full = self._full(path)
        if self._call("info", full)["type"] == "file":
            self._call("rm_file", full)
        elif self._call("ls", full, detail=False):
            raise OSError(errno.ENOTEMPTY, "not empty")
        else:
            self._call("rmdir", full)

    def mkdir(self, path: str) -> None:
        """Make a folder, where there are any."""
        self._call("makedirs", self._full(path), exist_ok=True)

    def location(self, path: str) -> str:
        """Return the file system, and the path in it."""
        config = self._config
        assert isinstance(config, FsspecConfig)  # noqa: S101 - S3 has its own
        return f"{config.protocol}://{config.options or ''}/{self._full(path).lstrip('/')}"

    def _is_copy(self, source: str, target: str) -> bool:
        """Return True if *target* is another file of the same content; here they may be one."""
        return False

    def _make_above(self, full: str) -> None:
        parent = full.rpartition("/")[0]
        if parent:
            self._call("makedirs", parent, exist_ok=True)

    def _full(self, path: str) -> str:
        return f"{self._root}/{path}" if path and self._root else path or self._root

    def _files(self) -> Any:
        config = self._config
        assert isinstance(config, FsspecConfig)  # noqa: S101 - S3 has its own
        with _library(self.name):
            return fsspec.filesystem(
                config.protocol, skip_instance_cache=True, use_listings_cache=False,
                **config.options,
            )  # fmt: skip

    def _call(self, name: str, *args: Any, **options: Any) -> Any:
        """Call a method of the file system; one that is asynchronous within the time limit."""
        files = self._files()
        if not files.async_impl:
            return getattr(files, name)(*args, **options)
        return self._timed(files, getattr(files, f"_{name}"), *args, **options)

    def _timed(self, files: Any, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        async def call() -> Any:
            # In the loop's thread: the debug log of S3's client shows session tokens.
            with quiet():
                return await asyncio.wait_for(function(*args, **options), self._timeout)

        return sync(files.loop, call)


class S3Place(FsspecPlace):
    """
    A bucket, or a part of it.

    The secrets are read at each call, and others make another client.
    """

    appears_whole: ClassVar[bool] = True

    def __init__(self, name: str, config: S3PlaceConfig, secrets: SecretReader) -> None:
        super().__init__(name, config)
        self._s3, self._secrets = config, secrets
        self._root = joined(config.bucket, config.prefix) if config.prefix else config.bucket
        self._lock = threading.Lock()
        self._client: Any = None
        self._client_of: tuple[str | None, str | None] | None = None

    def entries(self, folder: str, most: int) -> list[FileEntry]:
        """Read the objects and the common prefixes below a prefix, page by page."""
        bucket, _, key = self._full(folder).partition("/")
        files = self._files()

        async def read() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = []
            token: dict[str, str] = {}
            prefix = f"{key}/" if key else ""
            while len(found) <= most:
                page = await files._call_s3(  # noqa: SLF001 - s3fs has no bounded listing
                    "list_objects_v2", Bucket=bucket, Prefix=prefix, Delimiter="/", **token
                )
                found += page.get("CommonPrefixes", [])
                found += [each for each in page.get("Contents", []) if each["Key"] != prefix]
                if not page.get("IsTruncated"):
                    break
                token = {"ContinuationToken": page["NextContinuationToken"]}
            return found

        return [_of_listing(folder, each) for each in self._timed(files, read)]

    def read(self, path: str, offset: int, length: int) -> bytes:
        """Read a range of an object, and no more than that, whatever is answered."""
        bucket, _, key = self._full(path).partition("/")
        files = self._files()
        if length <= 0:
            return b""

        async def read() -> bytes:
            asked = f"bytes={offset}-{offset + length - 1}"
            try:
                answer = await files._call_s3(  # noqa: SLF001 - s3fs reads all that is answered
                    "get_object", Bucket=bucket, Key=key, Range=asked
                )
            except OSError as error:
                if _status(error) == _NO_SUCH_RANGE:
                    return b""
                raise
            if offset and answer["ResponseMetadata"]["HTTPStatusCode"] != _PARTIAL:
                raise OSError(errno.EIO, "it gives no parts of objects")
            parts, left, body = [], length, answer["Body"]
            async with body:  # an older aiobotocore gives its raw answer here
                while left > 0 and (part := await body.read(min(left, _PART))):
                    parts.append(part)
                    left -= len(part)
            return b"".join(parts)

        data: bytes = self._timed(files, read)
        return data

    def write(self, path: str, parts: Iterable[bytes], *, overwrite: bool) -> None:
        """Write an object whole; without *overwrite* S3 itself refuses a second one."""
        mode = "overwrite" if overwrite else "create"
        # In one request: parts that were sent before a kill or the time limit stay, and cost.
        self._call(
            "pipe_file", self._full(path), b"".join(parts), mode=mode, chunksize=_LONGEST_REQUEST
        )

    def mkdir(self, path: str) -> None:
        """Do nothing: S3 has no folders."""

    def location(self, path: str) -> str:
        """Return the service, the bucket and the key."""
        return f"s3://{self._s3.endpoint_url or ''}/{self._full(path)}"

    def _is_copy(self, source: str, target: str) -> bool:
        # Whoever was killed between the copy and the deletion has left both.
        size = self.stat(source).size
        return size == self.stat(target).size and all(
            self.read(source, at, _PART) == self.read(target, at, _PART)
            for at in range(0, size, _PART)
        )

    def _make_above(self, full: str) -> None:
        pass

    def close(self) -> None:
        """Close the client's connections."""
        with self._lock:
            client, self._client, self._client_of = self._client, None, None
        if client is not None:
            with suppress(Exception):
                self._timed(client, client.s3.close)

    def _files(self) -> Any:
        config, get = self._s3, self._secrets.get
        secret = get(config.access_key_secret) if config.access_key_secret else None
        token = get(config.session_token_secret) if config.session_token_secret else None
        with self._lock:
            if self._client is None or self._client_of != (secret, token):
                self._client, self._client_of = self._connect(secret, token), (secret, token)
            return self._client

    def _connect(self, secret: str | None, token: str | None) -> Any:
        config = self._s3
        with _library(self.name):
            from automate_files.s3_session import BoundedSession

            # All that decides where the secrets go is given: what isn't, fsspec and botocore take
            # from the environment.
            files = fsspec.filesystem(
                "s3",
                anon=False,
                use_ssl=True,
                key=config.access_key_id,
                secret=secret,
                token=token,
                endpoint_url=config.endpoint_url,
                client_kwargs={"region_name": config.region} if config.region else {},
                config_kwargs={
                    "http_session_cls": BoundedSession,
                    "ignore_configured_endpoint_urls": True,
                    "proxies": {},
                    "connect_timeout": config.timeout_seconds,
                    "read_timeout": config.timeout_seconds,
                    # The kernel decides about another try, and when.
                    "retries": {"max_attempts": 0},
                },
                skip_instance_cache=True,
                use_listings_cache=False,
            )
        guard_loggers("aiobotocore", "botocore")
        files.retries = 1
        return files


@contextmanager
def _library(place: str) -> Iterator[None]:
    """Say what to install, where the library of a protocol is missing."""
    try:
        yield
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"the place {place!r}: {error}",
            hint="install the protocol's library; for S3: pip install 'automate-files[s3]'",
        ) from None


_PARTIAL, _NO_SUCH_RANGE = 206, 416
_LONGEST_REQUEST = 5 * 1024**3


def _status(error: BaseException) -> int | None:
    answer = getattr(error.__cause__, "response", None) or {}
    status: int | None = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status


def _of_listing(folder: str, found: dict[str, Any]) -> FileEntry:
    key = found.get("Prefix") or found["Key"]
    path = joined(folder, key.rstrip("/").rpartition("/")[2])
    if "Prefix" in found:
        return FileEntry(path, "folder")
    if key.endswith("/"):
        return FileEntry(f"{path}/", "other")
    etag = str(found.get("ETag", "")).strip('"') or None
    return FileEntry(
        path, "file", int(found["Size"]), _nanoseconds(found.get("LastModified")), etag
    )


def _entry(path: str, found: dict[str, Any]) -> FileEntry:
    kinds: dict[str, Kind] = {"file": "file", "directory": "folder", "link": "link"}
    kind = kinds.get(str(found.get("type")), "other")
    modified = next((found[name] for name in _TIMES if found.get(name) is not None), None)
    etag = str(found.get("ETag") or found.get("etag") or "").strip('"') or None
    size = int(found.get("size") or 0) if kind == "file" else 0
    return FileEntry(path, kind, size, _nanoseconds(modified), etag if kind == "file" else None)


_TIMES = ("LastModified", "mtime", "modified", "last_modified", "updated", "created")


def _nanoseconds(value: object) -> int:
    if isinstance(value, datetime):
        return int(value.timestamp() * _NS)
    return int(value * _NS) if isinstance(value, (int, float)) else 0
