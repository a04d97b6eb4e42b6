"""Places: roots below which files are read and written, wherever they are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from automate_files.failures import failure_of
from automate_files.paths import compile_pattern, is_path
from automate_kernel import AutomateError, ErrorCodes

Kind = Literal["file", "folder", "link", "other"]


@dataclass(frozen=True, slots=True)
class FileEntry:
    """
    A file or folder as a place shows it.

    *modified* is nanoseconds since 1970, and 0 where the place doesn't say. *etag* is the place's
    own mark of the content, if it has one.
    """

    path: str
    kind: Kind
    size: int = 0
    modified: int = 0
    etag: str | None = None


class FilePlace(ABC):
    """
    Files below a root that no path leaves.

    Paths were checked by `check_path`; ``""`` is the root. Methods may be called from several
    threads. They raise `OSError`, or what the library raises; callers have `failure_of` for it.
    A subclass keeps each exchange within its config's ``timeout_seconds``.
    """

    appears_whole: ClassVar[bool] = False
    """True if a file isn't seen before all of it is there."""

    def __init__(self, name: str, *, max_entries: int) -> None:
        self.name: str = name
        """The place's name in the config."""
        self.max_entries: int = max_entries
        """The most entries that one look may read."""

    @abstractmethod
    def stat(self, path: str) -> FileEntry:
        """Return the entry of *path*; raise `FileNotFoundError` without one."""

    @abstractmethod
    def entries(self, folder: str, most: int) -> list[FileEntry]:
        """Return what is in *folder*: *most* entries, or one more if there are more."""

    @abstractmethod
    def read(self, path: str, offset: int, length: int) -> bytes:
        """Return at most *length* bytes from *offset* on."""

    @abstractmethod
    def write(self, path: str, parts: Iterable[bytes], *, overwrite: bool) -> None:
        """
        Make a file of *parts*, and the folders above it.

        Nobody sees half a file, where the place can do it. Raises `FileExistsError` if there is one
        and *overwrite* is False.
        """

    @abstractmethod
    def rename(self, source: str, target: str, *, overwrite: bool) -> None:
        """Move within the place, and make the folders above *target*; as `write`."""

    @abstractmethod
    def delete(self, path: str) -> None:
        """Delete a file or an empty folder; raise `FileNotFoundError` without one."""

    @abstractmethod
    def mkdir(self, path: str) -> None:
        """Make a folder, and those above it; nothing happens if it is there."""

    @abstractmethod
    def location(self, path: str) -> str:
        """Return where *path* is: two places that hold the same file say the same of it."""

    def close(self) -> None:  # noqa: B027 - many have none
        """Close its connections."""

    def failure(self, error: Exception, what: str) -> Exception:
        """Return the error of a call that was to *what* (``read 'a.txt'``)."""
        return failure_of(error, f"the place {self.name!r} can't {what}")

    def walk(self, pattern: str, *, after: str = "") -> Iterator[FileEntry]:
        """
        Yield the files that match *pattern* and come after *after*, in the order of their paths.

        Links are no files, and are not followed. Raises ``RESOURCE_EXHAUSTED`` if more than
        `max_entries` would have to be read.
        """
        wanted = compile_pattern(pattern)
        seen = 0
        waiting = [FileEntry(wanted.folder, "folder")]
        while waiting:
            entry = waiting.pop()
            if entry.kind == "file":
                if entry.path > after and wanted.matches(entry.path):
                    yield entry
                continue
            below = f"{entry.path}/"
            if entry.path and below < after and not after.startswith(below):
                continue  # all that is in it comes before
            try:
                found = self.entries(entry.path, self.max_entries - seen)
            except FileNotFoundError:
                # Deleted meanwhile, or never there; without the root nothing can be said.
                if entry.path:
                    self.entries("", 0)
                    continue
                raise
            seen += len(found)
            if seen > self.max_entries:
                raise AutomateError(
                    ErrorCodes.RESOURCE_EXHAUSTED,
                    f"the place {self.name!r} has more than {self.max_entries} files and folders "
                    f"that {pattern!r} may mean",
                    hint="name the folder in the pattern, or raise the place's max_entries",
                    retryable=False,
                )
            waiting += self._open(found, wanted.depth)

    @staticmethod
    def _open(found: list[FileEntry], deepest: int | None) -> list[FileEntry]:
        """Return files and folders to go into, the last first: a folder as its content sorts."""
        kept = [
            each
            for each in found
            if is_path(each.path)
            and (
                each.kind == "file"
                or (each.kind == "folder" and (deepest is None or each.path.count("/") < deepest))
            )
        ]
        return sorted(
            kept, key=lambda each: each.path + "/" * (each.kind == "folder"), reverse=True
        )
