"""Secrets backends that programs write to: for tokens that a service renews."""

from __future__ import annotations

import os
import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from automate_kernel.base.errors import (
    SecretDeniedError,
    SecretError,
    SecretNotFoundError,
    SecretUnavailableError,
)
from automate_kernel.secrets.backends import (
    EnvSecretsBackend,
    FileSecretsBackend,
    SecretsBackend,
    is_file_name,
)
from automate_kernel.secrets.handles import LONGEST_SECRET

_LOCK_SECONDS, _LOOK_SECONDS = 60.0, 0.05


class WritableSecretsBackend(SecretsBackend):
    """
    A place that secrets are read from and written to.

    `automate_testing.WritableSecretsBackendContract` tests all of this.
    """

    @abstractmethod
    def set_secret(self, key: str, value: str) -> None:
        """
        Store *value*, which is not empty, under *key*, in the place of an earlier value.

        A reader sees the old value or the new one, and a process that dies leaves one of them.
        """

    @abstractmethod
    def delete_secret(self, key: str) -> None:
        """Remove *key*, if it is there."""

    @abstractmethod
    def locked(self, key: str) -> AbstractContextManager[None]:
        """
        Keep all other holders of the lock *key* out for the block, those in other processes too.

        The lock of a process that dies is free. Readers and writers aren't kept out. Raises
        `SecretUnavailableError` if it is not free within a minute.
        """


class WritableFileSecretsBackend(FileSecretsBackend, WritableSecretsBackend):
    """
    Secrets in one file per key, which only this user can read; they are not encrypted.

    The folder is made at the first write. It belongs on a disk of this machine: locks on network
    file systems may keep nobody out.
    """

    name = "writable_file"

    def set_secret(self, key: str, value: str) -> None:
        """Write a new file, and then put it in the place of the old file."""
        content = value.encode()
        if not value or len(content) > LONGEST_SECRET or value != value.rstrip("\r\n"):
            raise SecretError(
                f"the value of secret {key!r} can't be kept in a file",
                hint=f"it has 1 to {LONGEST_SECRET} bytes and no line break at its end",
            )
        with _worded(key):
            path = self._path(key)
            draft = path.with_name(f".{key[:200]}.{os.urandom(8).hex()}.new")
            try:
                handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(handle, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                draft.replace(path)
            except BaseException:
                draft.unlink(missing_ok=True)
                raise
            self._sync_folder()

    def delete_secret(self, key: str) -> None:
        """Remove the file."""
        with _worded(key):
            self._path(key).unlink(missing_ok=True)

    @contextmanager
    def locked(self, key: str) -> Iterator[None]:
        """Hold a lock on a file beside it; the system frees it when the process ends."""
        import fcntl  # not on Windows

        with _worded(key):
            path = self._path(key).with_name(f".{key[:200]}.lock")
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            until = time.monotonic() + _LOCK_SECONDS
            while True:
                with suppress(BlockingIOError):
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                if time.monotonic() > until:
                    raise SecretUnavailableError(f"secret {key!r} is locked by another process")
                time.sleep(_LOOK_SECONDS)
            yield
        finally:
            os.close(handle)

    def remedy(self, key: str) -> str:
        """Say nothing: programs write these files."""
        return ""

    def _path(self, key: str) -> Path:
        if not is_file_name(key):
            raise SecretError(f"secret {key!r} can't be kept in a file", hint="use letters and -_.")
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self.directory / key

    def _read(self, key: str) -> str:
        if not os.path.lexists(self.directory):  # a link to a disk that is away is there
            raise SecretNotFoundError(key)
        return super()._read(key)

    def _sync_folder(self) -> None:
        folder = os.open(self.directory, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextmanager
def _worded(key: str) -> Iterator[None]:
    try:
        yield
    except PermissionError:
        raise SecretDeniedError(f"the file of secret {key!r} can't be written") from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise SecretUnavailableError(f"secret {key!r} can't be written: {reason}") from None


BUILT_IN: Mapping[str, type[SecretsBackend]] = {
    "env": EnvSecretsBackend,
    "file": FileSecretsBackend,
    "writable_file": WritableFileSecretsBackend,
}
"""The backends that need no plugin, by their keys in settings."""
