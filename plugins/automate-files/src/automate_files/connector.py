"""The connector ``files``."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from pydantic import Field

from automate_files.arrivals import Arrivals
from automate_files.config import FilesConfig
from automate_files.messages import (
    Arrival,
    Checksum,
    Deleted,
    FileContent,
    FileInfo,
    FileList,
    Written,
)
from automate_files.paths import check_folder, check_path
from automate_files.place import FileEntry, FilePlace
from automate_files.places import Places
from automate_kernel import (
    AutomateError,
    Connector,
    ConnectorContext,
    ErrorCodes,
    PolledEvent,
    PollResult,
    action,
    options,
    poll,
)

PlaceName = Annotated[str, Field(min_length=1, description="The place's name in the config.")]
PathText = Annotated[str, Field(min_length=1, description="The path from the place's root.")]
TargetPath = Annotated[str, Field(min_length=1, description="The new path.")]
TargetPlace = Annotated[
    str | None, Field(description="The place of the new path; by default the same.")
]
Overwrite = Annotated[bool, Field(description="True if a file that is there may be replaced.")]

_PART = 1024 * 1024
_MOST_LISTED = 10_000
# 8 TiB: the usual file systems take little more as an offset, and answer with odd errors.
_MOST_OFFSET = 2**43
_MOST_ARRIVALS = 5_000
# A file on its way is read in parts, and S3 takes only whole objects: so memory bounds the size.
_MOST_COPIED = 512 * _PART


class FilesConnector(Connector):
    """
    Files in local folders, S3 buckets, folders of SFTP servers, and what else fsspec knows.

    Actions are plain functions, which the kernel runs on threads: no place keeps an event loop
    waiting.
    """

    key = "files"
    display_name = "Files"

    def __init__(
        self, config: Mapping[str, Any] | None = None, *, ctx: ConnectorContext | None = None
    ) -> None:
        super().__init__(dict(config or {}), ctx=ctx)
        self._settings: FilesConfig = self.parse_config(config)
        self._places = Places(self._settings.places, self.ctx.secrets)

    @classmethod
    def config_schema(cls) -> type[FilesConfig]:
        """Return the model of the config: the places, and the files that are waited for."""
        return FilesConfig

    @action(read_only=True)
    def read(
        self,
        place: PlaceName,
        path: PathText,
        encoding: Annotated[
            Literal["utf-8", "latin-1", "base64"],
            Field(description="How the content is given: as text of this encoding, or in Base64."),
        ] = "utf-8",
        offset: Annotated[int, Field(ge=0, le=_MOST_OFFSET, description="The first byte.")] = 0,
        max_bytes: Annotated[
            int | None,
            Field(
                gt=0, description="The most bytes of a part. By default all is read, or nothing."
            ),
        ] = None,
    ) -> FileContent:
        """Read a file, or a part of it."""
        check_path(path)
        most = self._places.config(place).max_bytes
        length = most if max_bytes is None else min(max_bytes, most)
        with self._at(place, f"read {path!r}") as where:
            data = where.read(path, offset, length + 1)
        rest, data = len(data) > length, data[:length]
        if rest and max_bytes is None:
            raise AutomateError(
                ErrorCodes.FAILED_PRECONDITION,
                f"the file {path!r} of the place {place!r} has more than {most} bytes",
                hint="read it in parts with max_bytes and offset, or raise the place's max_bytes",
            )
        text, size = _decode(data, encoding, whole=not rest)
        return FileContent(
            place=place,
            path=path,
            text=None if encoding == "base64" else text,
            base64=text if encoding == "base64" else None,
            offset=offset,
            size=size,
            next_offset=offset + size if rest else None,
        )

    @action(idempotent=True)
    def write(
        self,
        place: PlaceName,
        path: PathText,
        text: Annotated[
            str | None, Field(description="The content as text, stored as UTF-8.")
        ] = None,
        base64: Annotated[str | None, Field(description="The content in Base64.")] = None,
        overwrite: Overwrite = False,
    ) -> Written:
        """
        Write a file, and the folders above it.

        Nobody sees half of it. Without *overwrite* a file that is there already is an error, unless
        it has the same content: then an earlier attempt wrote it.
        """
        check_path(path)
        data = _content(text, base64)
        self._must_fit(place, len(data), "the content")
        return self._write(place, path, data, overwrite=overwrite)

    @action("list", read_only=True)
    def list_files(
        self,
        place: PlaceName,
        pattern: Annotated[
            str,
            Field(description="Which paths: `*`, `?` and `[a-z]` in a name, `**/` for folders."),
        ] = "*",
        limit: Annotated[int, Field(ge=1, le=_MOST_LISTED, description="The most files.")] = 1_000,
        after: Annotated[str | None, Field(description="The `after` of the page before.")] = None,
    ) -> FileList:
        """List files, in the order of their paths, a page at a time."""
        found: list[FileInfo] = []
        with self._at(place, f"list {pattern!r}") as where:
            for each in where.walk(pattern, after=check_folder(after or "")):
                if len(found) == limit:
                    return FileList(files=found, after=found[-1].path)
                found.append(FileInfo.of(place, each))
        return FileList(files=found)

    @action(read_only=True)
    def stat(self, place: PlaceName, path: PathText) -> FileInfo:
        """Look at a file or folder."""
        check_path(path)
        with self._at(place, f"find {path!r}") as where:
            return FileInfo.of(place, where.stat(path))

    @action(read_only=True)
    def checksum(
        self,
        place: PlaceName,
        path: PathText,
        algorithm: Annotated[
            Literal["sha256", "sha512", "sha1", "md5"], Field(description="The algorithm.")
        ] = "sha256",
    ) -> Checksum:
        """Compute the checksum of a file's content."""
        check_path(path)
        digest, size = hashlib.new(algorithm, usedforsecurity=False), 0
        with self._at(place, f"read {path!r}") as where:
            for part in _parts(where, path, where.stat(path)):
                digest.update(part)
                size += len(part)
        return Checksum(algorithm=algorithm, digest=digest.hexdigest(), size=size)

    @action(idempotent=True)
    def copy(
        self,
        place: PlaceName,
        path: PathText,
        to_path: TargetPath,
        to_place: TargetPlace = None,
        overwrite: Overwrite = False,
    ) -> Written:
        """Copy a file, also to another place."""
        check_path(path)
        check_path(to_path)
        target = to_place or place
        with self._at(place, f"read {path!r}") as where:
            found = where.stat(path)
            self._must_fit(target, found.size, f"the file {path!r}", most=_MOST_COPIED)
            data = b"".join(_parts(where, path, found))
        return self._write(target, to_path, data, overwrite=overwrite)

    @action
    def move(
        self,
        place: PlaceName,
        path: PathText,
        to_path: TargetPath,
        to_place: TargetPlace = None,
        overwrite: Overwrite = False,
    ) -> Written:
        """
        Move a file or, within a place that has folders, a folder.

        Within a local folder or an SFTP server it is one step. Elsewhere it is a copy, and then the
        file is deleted. A second attempt doesn't find the file any more: a move isn't idempotent.
        """
        check_path(path)
        check_path(to_path)
        self._must_be_writable(place)
        target = to_place or place
        if target != place:
            return self._moved(place, path, target, to_path, overwrite=overwrite)
        if path == to_path or to_path.startswith(f"{path}/"):
            raise AutomateError(ErrorCodes.INVALID_ARGUMENT, f"{path!r} can't be moved into itself")
        with self._at(place, f"move {path!r} to {to_path!r}") as where:
            where.rename(path, to_path, overwrite=overwrite)
            return _written(place, where.stat(to_path), changed=True)

    @action(idempotent=True, destructive=True)
    def delete(
        self,
        place: PlaceName,
        path: PathText,
        missing_ok: Annotated[
            bool, Field(description="False if it is an error that there is none.")
        ] = True,
    ) -> Deleted:
        """Delete a file or an empty folder."""
        check_path(path)
        self._must_be_writable(place)
        with self._at(place, f"delete {path!r}") as where:
            try:
                where.delete(path)
            except FileNotFoundError:
                if not missing_ok:
                    raise
                return Deleted(deleted=False)
        return Deleted(deleted=True)

    @action(idempotent=True)
    def mkdir(self, place: PlaceName, path: PathText) -> FileInfo:
        """Make a folder and those above it; in S3, which has none, nothing happens."""
        check_path(path)
        self._must_be_writable(place)
        with self._at(place, f"make the folder {path!r}") as where:
            where.mkdir(path)
        return FileInfo(place=place, path=path, kind="folder")

    @options("place")
    def place_names(self) -> list[str]:
        """Return the names of the places."""
        return self._places.names

    @options("to_place")
    def target_names(self) -> list[str]:
        """Return the names of the places."""
        return self._places.names

    @poll(
        "arrived",
        every="30s",
        max_events=_MOST_ARRIVALS,
        timeout_seconds=300,
        payload_schema=Arrival,
    )
    def arrived(self, cursor: Any) -> PollResult:
        """Files of the watches in the config that are new or have changed."""
        states = dict(cursor["watches"]) if cursor else {}
        waiting = [*self._settings.watches]
        if cursor and cursor.get("at") in waiting:
            # The others were looked at a moment ago: too soon to say that a file has settled.
            waiting = waiting[waiting.index(cursor["at"]) :]
        events: list[PolledEvent] = []
        failures: list[Exception] = []
        at = None
        for name in waiting:
            room = _MOST_ARRIVALS - len(events)
            if room == 0:
                at = name  # the next poll, at once, begins with it
                break
            try:
                found, states[name], more = self._look(name, states.get(name), room)
            except Exception as error:
                failures.append(error)
                self.ctx.logger.warning("the watch %r failed: %s", name, error)
                continue
            events += found
            if more:
                at = name
                break
        if failures and len(failures) == len(waiting):
            raise failures[0]
        kept = {name: states[name] for name in self._settings.watches if name in states}
        return PollResult(events, {"watches": kept, "at": at}, more=at is not None)

    def check(self) -> str | None:
        """Look at the root of each place."""
        for name in self._places.names:
            with self._at(name, "be reached") as where:
                where.entries("", 1)
        return f"{len(self._places.names)} place(s) can be reached"

    def close(self) -> None:
        """Close the connections."""
        self._places.close()

    # -- one place ---------------------------------------------------------------------------

    @contextmanager
    def _at(self, place: str, what: str) -> Iterator[FilePlace]:
        """Give the place, and its errors their codes."""
        where = self._places.get(place)
        try:
            yield where
        except Exception as error:
            found = where.failure(error, what)
            if found is error:
                raise
            raise found from error

    def _must_be_writable(self, place: str) -> None:
        if self._places.config(place).read_only:
            raise AutomateError(
                ErrorCodes.PERMISSION_DENIED,
                f"the place {place!r} is read-only",
                hint="its config says read_only",
            )

    def _must_fit(self, place: str, size: int, what: str, *, most: int | None = None) -> None:
        self._must_be_writable(place)
        bound = most or self._places.config(place).max_bytes
        if size > bound:
            raise AutomateError(
                ErrorCodes.INVALID_ARGUMENT,
                f"{what} has {size} bytes, and {bound} is the most for the place {place!r}",
                hint=None if most else "raise the place's max_bytes",
            )

    def _write(self, place: str, path: str, data: bytes, *, overwrite: bool) -> Written:
        with self._at(place, f"write {path!r}") as where:
            changed = True
            try:
                where.write(path, _cut(data), overwrite=overwrite)
            except FileExistsError:
                # An earlier attempt may have written it, and then lost its answer.
                if not _holds(where, path, data):
                    raise
                changed = False
            return _written(place, where.stat(path), changed=changed)

    def _moved(
        self, place: str, path: str, target: str, to_path: str, *, overwrite: bool
    ) -> Written:
        """Copy a file to another place, and delete it if the copy is another file and complete."""
        with self._at(place, f"find {path!r}") as where:
            before, source = where.stat(path), where.location(path)
        with self._at(target, f"find {to_path!r}") as where:
            same = where.location(to_path) == source
        if same:
            raise AutomateError(
                ErrorCodes.INVALID_ARGUMENT,
                f"{path!r} of the place {place!r} and {to_path!r} of {target!r} are one file",
            )
        written = self.copy(place, path, to_path, target, overwrite)
        with self._at(place, f"find {path!r}") as where:
            if where.stat(path) != before:
                raise AutomateError(
                    ErrorCodes.ABORTED,
                    f"{path!r} changed while it was copied to the place {target!r}, and is kept",
                    hint=f"copy it again with overwrite, or delete {to_path!r} there",
                    retryable=False,
                )
        self.delete(place, path)
        return written

    def _look(self, name: str, state: Any, most: int) -> tuple[list[PolledEvent], Any, bool]:
        watch = self._settings.watches[name]
        with self._at(watch.place, f"be watched for {watch.pattern!r}") as where:
            look = Arrivals(where, watch, self.ctx.logger).look(state, most)
        return [_event(name, watch.place, each) for each in look.files], look.state, look.more


def _event(watch: str, place: str, entry: FileEntry) -> PolledEvent:
    parts = (watch, place, entry.path, entry.size, entry.modified, entry.etag)
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()
    payload = Arrival(watch=watch, **FileInfo.of(place, entry).model_dump())
    return PolledEvent(digest, payload.model_dump(mode="json"))


def _written(place: str, entry: FileEntry, *, changed: bool) -> Written:
    return Written(changed=changed, **FileInfo.of(place, entry).model_dump())


def _parts(place: FilePlace, path: str, entry: FileEntry) -> Iterator[bytes]:
    """Yield the content of a file, which must not be cut off meanwhile."""
    if entry.kind != "file":
        raise IsADirectoryError
    at = 0
    while at < entry.size:
        part = place.read(path, at, min(_PART, entry.size - at))
        if not part:
            raise AutomateError(ErrorCodes.ABORTED, f"the file {path!r} changed while it was read")
        yield part
        at += len(part)


def _holds(place: FilePlace, path: str, data: bytes) -> bool:
    entry = place.stat(path)
    if entry.kind != "file" or entry.size != len(data):
        return False
    return b"".join(_parts(place, path, entry)) == data


def _cut(data: bytes) -> Iterator[bytes]:
    view = memoryview(data)
    return (bytes(view[at : at + _PART]) for at in range(0, len(data), _PART))


def _content(text: str | None, encoded: str | None) -> bytes:
    if (text is None) == (encoded is None):
        raise AutomateError(ErrorCodes.INVALID_ARGUMENT, "give either text or base64")
    try:
        if text is not None:
            return text.encode("utf-8")
        return base64.b64decode(encoded or "", validate=True)
    except (UnicodeEncodeError, binascii.Error):
        what = "text is not Unicode" if encoded is None else "base64 can't be decoded"
        raise AutomateError(ErrorCodes.INVALID_ARGUMENT, what) from None


def _decode(data: bytes, encoding: str, *, whole: bool) -> tuple[str, int]:
    """Return the text, and of how many bytes it is: a part ends with a whole character."""
    if encoding == "base64":
        return base64.b64encode(data).decode("ascii"), len(data)
    for cut in range(1 if whole else 4):
        part = data[: len(data) - cut]
        try:
            return part.decode(encoding), len(part)
        except UnicodeDecodeError as error:
            if error.start < len(part) - 3:
                break
    raise AutomateError(
        ErrorCodes.FAILED_PRECONDITION,
        f"the content is no text in {encoding}",
        hint='read it with the encoding "base64" or "latin-1"',
    )
