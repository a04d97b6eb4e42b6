"""
Output stores: the place of outputs that are too large for a row.

An output store keeps bytes under keys. It is no part of the database: what is put there is there
whatever becomes of a transaction. So a key is never used twice, the row that names it is written
after it, and what no row names is deleted in time.
"""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from automate_kernel.base import runtime
from automate_kernel.base.errors import AutomateError, ConfigError, ErrorCodes, StorageError
from automate_kernel.base.forks import new_lock

__all__ = [
    "FileOutputStore",
    "LateOutputStore",
    "OutputStore",
    "check_output_key",
    "is_output_key",
]

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}/[A-Za-z0-9][A-Za-z0-9-]{0,63}")


def is_output_key(text: str) -> bool:
    """Return True if *text* can be a key: ``NAME/NAME``, of letters, digits and hyphens."""
    return _KEY.fullmatch(text) is not None


def check_output_key(key: str) -> str:
    """Return *key*; raise ``INVALID_ARGUMENT`` if it can't be one, and might lead elsewhere."""
    if not is_output_key(key):
        raise AutomateError(
            ErrorCodes.INVALID_ARGUMENT, f"{key[:80]!r} can't be a key of an output store"
        )
    return key


class OutputStore(ABC):
    """
    A place for bytes that all processes of the application reach: a shared folder, a bucket.

    Keys are ``NAME/NAME``, of letters, digits and hyphens; each is put once. Methods may be called
    from several threads. A failure that may pass (the network) is a `StorageError`.
    """

    @abstractmethod
    def put(self, key: str, data: bytes) -> None:
        """Keep *data* under *key*; it is durable when this returns."""

    @abstractmethod
    def get(self, key: str) -> bytes:
        """Return the bytes under *key*; raise `AutomateError` with ``NOT_FOUND`` without any."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Delete what is under *key*; nothing happens if it is gone."""

    @abstractmethod
    def keys(self, *, older_than_seconds: float) -> Iterator[str]:
        """Yield the keys that were put longer ago than that, in any order."""

    def close(self) -> None:  # noqa: B027 - many have none
        """
        Give back connections; a kernel calls it as it is closed.

        It may be called twice, and the next call of another method opens them again: kernels of
        one application, one after another, may have the same store.
        """


class FileOutputStore(OutputStore):
    """
    An output store in the folder *folder*, which is made if it isn't there.

    Workers and web processes on several machines need one that they share (NFS, say).
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder: Path = Path(folder).absolute()
        """The folder."""
        if self.folder.exists() and not self.folder.is_dir():
            raise ConfigError(f"the output store {str(self.folder)!r} is no folder")

    def put(self, key: str, data: bytes) -> None:
        """Write *data* to a file of its own, and wait until the disk has it."""
        path = self._path(key)
        # The same folder: only within it can a file be moved at once.
        unfinished = path.with_name(f".{runtime.uuid4().hex}")
        try:
            for last in (False, True):
                path.parent.mkdir(parents=True, exist_ok=True)
                try:
                    _write(unfinished, data)
                    unfinished.replace(path)
                    break
                except FileNotFoundError:
                    # `delete` has taken the folder away, which was empty.
                    if last:
                        raise
            _flush_folders(path.parent, self.folder)
        except OSError as error:
            with suppress(OSError):
                unfinished.unlink()
            raise _unavailable("write", error) from error

    def get(self, key: str) -> bytes:
        """Read a file."""
        try:
            return self._path(key).read_bytes()
        except FileNotFoundError:
            raise AutomateError(
                ErrorCodes.NOT_FOUND,
                f"the output store has no {key!r}",
                hint="it was deleted, or this process has another folder than the one that put it",
            ) from None
        except OSError as error:
            raise _unavailable("read", error) from error

    def delete(self, key: str) -> None:
        """Delete a file, and its folder once that is empty."""
        path = self._path(key)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise _unavailable("delete", error) from error
        with suppress(OSError):
            path.parent.rmdir()

    def keys(self, *, older_than_seconds: float) -> Iterator[str]:
        """Walk through the folder; what a dying process left unfinished is deleted on the way."""
        until = runtime.time() - older_than_seconds
        for path in self.folder.glob("*/*/*"):
            try:
                old = path.stat().st_mtime <= until
                if old and path.name.startswith("."):
                    path.unlink()
                    continue
            except OSError:
                continue  # deleted meanwhile
            if old and not path.name.startswith("."):
                yield f"{path.parent.name}/{path.name}"

    def _path(self, key: str) -> Path:
        group, _, name = check_output_key(key).partition("/")
        # Few folders in each: some file systems are slow with many thousands.
        return self.folder / group[:2].lower() / group / name

    def __repr__(self) -> str:
        return f"FileOutputStore({str(self.folder)!r})"


class LateOutputStore(OutputStore):
    """
    An output store that *make* returns at its first use: only then are its secrets read.

    *secret_keys* are the keys of these secrets.
    """

    def __init__(
        self, make: Callable[[], OutputStore], secret_keys: frozenset[str] = frozenset()
    ) -> None:
        self.secret_keys: frozenset[str] = secret_keys
        """The keys of the secrets that it needs."""
        self._make = make
        self._made: OutputStore | None = None
        self._lock = new_lock()

    def put(self, key: str, data: bytes) -> None:
        """Keep *data* in the store that is made."""
        self._store().put(key, data)

    def get(self, key: str) -> bytes:
        """Return the bytes in the store that is made."""
        return self._store().get(key)

    def delete(self, key: str) -> None:
        """Delete a key in the store that is made."""
        self._store().delete(key)

    def keys(self, *, older_than_seconds: float) -> Iterator[str]:
        """Yield the keys of the store that is made."""
        return self._store().keys(older_than_seconds=older_than_seconds)

    def close(self) -> None:
        """Close the store, if it was made."""
        if self._made is not None:
            self._made.close()

    def _store(self) -> OutputStore:
        with self._lock:
            if self._made is None:
                try:
                    self._made = self._make()
                except AutomateError as error:
                    if not error.retryable:
                        raise
                    # What may pass is a `StorageError` here: the secrets backend is away.
                    raise StorageError(error.message, hint=error.hint) from error
            return self._made


def _write(path: Path, data: bytes) -> None:
    # For the host's own user alone: an output is as private as the database.
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _flush_folders(folder: Path, top: Path) -> None:
    """Have the disk know the names of a new file and of the folders above it."""
    if os.name == "nt":  # it has no such call
        return
    for each in (folder, folder.parent, top):
        handle = os.open(each, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _unavailable(what: str, error: OSError) -> StorageError:
    return StorageError(
        f"the output store can't {what}: {error.strerror or type(error).__name__}",
        hint="look at its folder: is it there, may this process write to it, is the disk full?",
    )
