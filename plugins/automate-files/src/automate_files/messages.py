"""The outputs of the actions, and the payload of an arrival."""

from __future__ import annotations

from datetime import datetime, timezone

from pydantic import BaseModel, Field

from automate_files.place import FileEntry, Kind

_NS = 1_000_000_000


class FileInfo(BaseModel):
    """A file or folder, as its place shows it."""

    place: str = Field(description="The place's name.")
    path: str = Field(description="The path from the place's root.")
    kind: Kind = Field(default="file", description="`file`, `folder`, `link` or `other`.")
    size: int = Field(default=0, description="The bytes of a file.")
    modified: datetime | None = Field(default=None, description="The time of its last change.")
    etag: str | None = Field(default=None, description="The place's own mark of the content.")

    @classmethod
    def of(cls, place: str, entry: FileEntry) -> FileInfo:
        """Return the info of *entry*."""
        modified = (
            datetime.fromtimestamp(entry.modified / _NS, tz=timezone.utc)
            if entry.modified
            else None
        )
        return cls(place=place, path=entry.path, kind=entry.kind, size=entry.size,
                   modified=modified, etag=entry.etag)  # fmt: skip


class FileContent(BaseModel):
    """The content of a file, or a part of it."""

    place: str = Field(description="The place's name.")
    path: str = Field(description="The path from the place's root.")
    text: str | None = Field(default=None, description="The content as text.")
    base64: str | None = Field(default=None, description="The content in Base64, if asked for so.")
    offset: int = Field(description="The first byte.")
    size: int = Field(description="The bytes of this part.")
    next_offset: int | None = Field(
        default=None, description="The byte to go on from; null at the end."
    )


class FileList(BaseModel):
    """A page of files, in the order of their paths."""

    files: list[FileInfo] = Field(description="The files.")
    after: str | None = Field(default=None, description="The path to go on after; null at the end.")


class Written(FileInfo):
    """A file that was written, copied or moved."""

    changed: bool = Field(description="False if it was there already with the same content.")


class Deleted(BaseModel):
    """A file or folder that is not there any more."""

    deleted: bool = Field(description="False if it wasn't there.")


class Checksum(BaseModel):
    """The checksum of a file's content."""

    algorithm: str = Field(description="The algorithm.")
    digest: str = Field(description="The checksum in hexadecimal digits.")
    size: int = Field(description="The bytes of the file.")


class Arrival(FileInfo):
    """The payload of an arrival."""

    watch: str = Field(description="The watch's name.")
