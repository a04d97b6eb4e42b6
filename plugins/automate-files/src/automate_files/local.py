"""Folders of this machine."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from automate_files.config import LocalConfig
from automate_files.paths import joined, parent_of
from automate_files.place import FileEntry, FilePlace, Kind
from automate_kernel import ConfigError
from automate_kernel.operations.drafts import Draft

_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)


class LocalPlace(FilePlace):
    """
    A folder of this machine.

    Each folder on the way is opened by its name in the one above, never through a link. So another
    process that replaces a folder by a link at the wrong moment leads nowhere else.
    """

    def __init__(self, name: str, config: LocalConfig) -> None:
        super().__init__(name, max_entries=config.max_entries)
        if os.open not in os.supports_dir_fd or not _NO_LINK:
            raise ConfigError(
                f"the place {name!r}: this system can't keep links from being followed"
            )
        self._root = os.path.abspath(config.folder)  # noqa: PTH100

    def stat(self, path: str) -> FileEntry:
        """Look at a file or folder."""
        if not path:
            return _entry("", os.stat(self._root))  # noqa: PTH116
        with self._folder_of(path) as (folder, name):
            return _entry(path, os.stat(name, dir_fd=folder, follow_symlinks=False))

    def entries(self, folder: str, most: int) -> list[FileEntry]:
        """Read a folder."""
        found = []
        with self._opened(folder) as handle, os.scandir(handle) as entries:
            for each in entries:
                with suppress(FileNotFoundError):  # deleted meanwhile
                    found.append(
                        _entry(joined(folder, each.name), each.stat(follow_symlinks=False))
                    )
                if len(found) > most:
                    break
        return found

    def read(self, path: str, offset: int, length: int) -> bytes:
        """Read a file."""
        with self._folder_of(path) as (folder, name):
            # Without waiting: a pipe that nobody writes to would keep this thread.
            handle = os.open(name, os.O_RDONLY | _NO_LINK | os.O_NONBLOCK, dir_fd=folder)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise OSError(errno.EISDIR, "it is no file")
            with os.fdopen(handle, "rb", closefd=False) as file:
                file.seek(offset)
                return file.read(length)
        finally:
            os.close(handle)

    def write(self, path: str, parts: Iterable[bytes], *, overwrite: bool) -> None:
        """Write a file under another name, and give it its own once the disk has it."""
        with self._folder_of(path, make=True) as (folder, name):
            draft = Draft.of(path)
            _delete_left(draft, folder)
            unfinished = draft.name
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK
            handle = os.open(unfinished, flags, 0o666, dir_fd=folder)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.writelines(parts)
                    file.flush()
                    os.fsync(file.fileno())
                _rename(unfinished, folder, name, folder, overwrite=overwrite)
            except BaseException:
                with suppress(OSError):
                    os.unlink(unfinished, dir_fd=folder)
                raise
            os.fsync(folder)

    def rename(self, source: str, target: str, *, overwrite: bool) -> None:
        """Rename a file or a folder."""
        with (
            self._folder_of(source) as (old_folder, old),
            self._folder_of(target, make=True) as (new_folder, new),
        ):
            _rename(old, old_folder, new, new_folder, overwrite=overwrite)
            os.fsync(new_folder)

    def delete(self, path: str) -> None:
        """Delete a file, a link or an empty folder."""
        with self._folder_of(path) as (folder, name):
            mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
            remove = os.rmdir if stat.S_ISDIR(mode) else os.unlink
            remove(name, dir_fd=folder)

    def mkdir(self, path: str) -> None:
        """Make a folder and those above it."""
        with self._opened(path, make=True):
            pass

    def location(self, path: str) -> str:
        """Return its URL; below the root no link is followed."""
        return f"file://{os.path.realpath(self._root)}/{path}"

    @contextmanager
    def _folder_of(self, path: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
        with self._opened(parent_of(path), make=make) as folder:
            yield folder, path.rpartition("/")[2]

    @contextmanager
    def _opened(self, path: str, *, make: bool = False) -> Iterator[int]:
        """Open a folder, each on the way by its name in the one above."""
        handle = os.open(self._root, _FOLDER)
        try:
            for name in filter(None, path.split("/")):
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(name, dir_fd=handle)
                below = self._step(name, handle)
                os.close(handle)
                handle = below
            yield handle
        finally:
            os.close(handle)

    @staticmethod
    def _step(name: str, folder: int) -> int:
        try:
            return os.open(name, _FOLDER | _NO_LINK, dir_fd=folder)
        except NotADirectoryError:
            # Linux says this of a link too.
            mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
            if stat.S_ISLNK(mode):
                raise OSError(errno.ELOOP, "a link") from None
            raise


def _rename(old: str, old_folder: int, new: str, new_folder: int, *, overwrite: bool) -> None:
    if overwrite:
        os.replace(old, new, src_dir_fd=old_folder, dst_dir_fd=new_folder)
        return
    mode = os.stat(old, dir_fd=old_folder, follow_symlinks=False).st_mode
    if not stat.S_ISREG(mode):
        # A folder can't have a second name. It replaces at most an empty folder.
        with suppress(FileNotFoundError):
            os.stat(new, dir_fd=new_folder, follow_symlinks=False)
            raise FileExistsError(errno.EEXIST, "it exists")
        os.rename(old, new, src_dir_fd=old_folder, dst_dir_fd=new_folder)
        return
    # A second name is refused if somebody has taken it meanwhile; a rename would replace theirs.
    try:
        os.link(old, new, src_dir_fd=old_folder, dst_dir_fd=new_folder, follow_symlinks=False)
    except FileExistsError:
        # Whoever was killed between these two has left both names of one file.
        if not _is_second_name(old, old_folder, new, new_folder):
            raise
    os.unlink(old, dir_fd=old_folder)


def _is_second_name(old: str, old_folder: int, new: str, new_folder: int) -> bool:
    first = os.stat(old, dir_fd=old_folder, follow_symlinks=False)
    second = os.stat(new, dir_fd=new_folder, follow_symlinks=False)
    # Where capitals don't count, two spellings are one name, and the file has no other.
    return os.path.samestat(first, second) and first.st_nlink > 1


def _delete_left(draft: Draft, folder: int) -> None:
    for name in os.listdir(folder) if draft.left is not None else ():
        if draft.is_left(name):
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)


def _entry(path: str, found: os.stat_result) -> FileEntry:
    kind: Kind = (
        "folder" if stat.S_ISDIR(found.st_mode)
        else "file" if stat.S_ISREG(found.st_mode)
        else "link" if stat.S_ISLNK(found.st_mode)
        else "other"
    )  # fmt: skip
    return FileEntry(path, kind, found.st_size if kind == "file" else 0, found.st_mtime_ns)
