"""Secrets backends: what they have to do, and those for the environment, memory and files."""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from automate_kernel.base import runtime
from automate_kernel.base.arguments import check_table
from automate_kernel.base.errors import (
    SecretDeniedError,
    SecretError,
    SecretNotFoundError,
    SecretUnavailableError,
)
from automate_kernel.secrets.handles import LONGEST_SECRET


class SecretsBackend(ABC):
    """
    A place that secrets are read from: a vault, a cloud's secret manager, files.

    A backend must have `get_secret` only; there is no constructor to call. Several threads call it
    at once. Its errors decide what happens next:

    * `SecretNotFoundError`: the next backend is asked. Nothing else falls through.
    * `SecretDeniedError`, or a ``PermissionError``: the look-up ends, trying again won't help.
    * `SecretUnavailableError`, or anything else: the look-up ends, and may be tried again.

    `automate_testing.contracts.secrets.SecretsBackendContract` tests all of this.
    """

    name: str = ""
    """The backend's name in messages; the class's name if empty."""

    @abstractmethod
    def get_secret(self, key: str) -> str:
        """
        Return the secret's value, never empty.

        Raises `SecretNotFoundError` if there is no such key.
        """

    async def aget_secret(self, key: str) -> str:
        """Do the same as `get_secret`, in a thread unless a backend overrides this."""
        from asyncio import to_thread

        return await to_thread(self.get_secret, key)

    def remedy(self, key: str) -> str:
        """Return a hint on adding *key* here, for an error message; empty if there is none."""
        return ""

    def close(self) -> None:  # noqa: B027 - most backends hold nothing
        """Give back connections and the like."""

    def __repr__(self) -> str:
        # Never the attributes: they may hold a token, or the secrets themselves.
        return f"<{type(self).__name__}>"


_NOT_IN_VARIABLE = re.compile(r"[^A-Za-z0-9_]")
_FILE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,254}")


class EnvSecretsBackend(SecretsBackend):
    """
    Secrets in environment variables whose names begin with *prefix*.

    The key ``stripe/api-key`` is read from ``AUTOMATE_SECRET_stripe_api_key`` or, if that is not
    set, ``AUTOMATE_SECRET_STRIPE_API_KEY``. A variable that is set but empty counts as not set.
    The prefix keeps a template from reaching the rest of the environment.
    """

    name = "env"

    def __init__(
        self, prefix: str = "AUTOMATE_SECRET_", *, environ: Mapping[str, str] | None = None
    ) -> None:
        self.prefix = prefix
        self._environ = os.environ if environ is None else environ

    def variable(self, key: str) -> str:
        """Return the variable that *key* is read from first."""
        return self.prefix + _NOT_IN_VARIABLE.sub("_", key)

    def get_secret(self, key: str) -> str:
        """Return the variable's value."""
        variable = self.variable(key)
        value = self._environ.get(variable) or self._environ.get(variable.upper())
        if not value:
            raise SecretNotFoundError(key)
        return value

    def remedy(self, key: str) -> str:
        """Name the variable to set."""
        return f"set the environment variable {self.variable(key)}"


class MemorySecretsBackend(SecretsBackend):
    """Secrets from a mapping, which is copied. For tests, and for the application's own secrets."""

    name = "memory"

    def __init__(self, secrets: Mapping[str, str] | None = None) -> None:
        # Never the value, which may be half of a secret.
        self._secrets: dict[str, str] = dict(
            check_table(secrets, "secrets", '{"SLACK": "…"}', of=str)
        )

    def remedy(self, key: str) -> str:
        """Name the mapping."""
        return f"add {key!r} to the mapping of secrets, Kernel(secrets={{…}})"

    def get_secret(self, key: str) -> str:
        """Return the value in the mapping."""
        try:
            return self._secrets[key]
        except KeyError:
            raise SecretNotFoundError(key) from None


class FileSecretsBackend(SecretsBackend):
    """
    Secrets in one file per key, as Docker (``/run/secrets``) and Kubernetes mount them.

    A key is a file name: letters, digits, dots, dashes, underscores. Any other key is not found
    here, and a link that leads out of *directory* is refused. One newline at the end of the file
    is not part of the secret, since editors add it. Each look-up reads the file, so a rotated
    secret counts at once.
    """

    name = "file"

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory: Path = Path(directory)

    def get_secret(self, key: str) -> str:
        """Return the file's text."""
        if not is_file_name(key):
            raise SecretNotFoundError(key)
        return re.sub(r"\r?\n\Z", "", self._read(key))

    def _read(self, key: str) -> str:
        try:
            root = self.directory.resolve(strict=True)
        except (OSError, RuntimeError):
            message = f"the secrets directory {str(self.directory)!r} can't be read"
            raise SecretUnavailableError(message, hint="is the volume mounted?") from None
        try:
            # Kubernetes mounts each key as a link to a link; the last target counts.
            path = (root / key).resolve(strict=True)
            if not path.is_relative_to(root):
                raise SecretDeniedError(f"secret {key!r} is a link out of {str(root)!r}")
            if not path.is_file():  # opening a pipe would wait for ever
                raise SecretError(
                    f"secret {key!r} is no file in {str(root)!r}",
                    hint="Docker makes a folder where the file to mount is missing",
                )
            with path.open("rb") as file:
                content = file.read(LONGEST_SECRET + 1)
        except FileNotFoundError:
            if not os.path.lexists(root / key):
                raise SecretNotFoundError(key) from None
            message = f"secret {key!r} is a link to a file that is not there"
            raise SecretUnavailableError(message, hint="is the volume mounted?") from None
        except PermissionError:
            raise SecretDeniedError(f"the file of secret {key!r} can't be read") from None
        except (OSError, RuntimeError) as error:  # the latter for links in a circle
            reason = type(error).__name__
            raise SecretUnavailableError(f"secret {key!r} can't be read: {reason}") from None
        return _text(key, content)

    def remedy(self, key: str) -> str:
        """Name the file to write."""
        return f"write it to {self.directory / key}" if is_file_name(key) else ""


def is_file_name(key: str) -> bool:
    """Return True if the secret *key* can be a file's name."""
    return _FILE_NAME.fullmatch(key) is not None


def _text(key: str, content: bytes) -> str:
    if len(content) > LONGEST_SECRET:
        raise SecretError(f"the file of secret {key!r} is larger than {LONGEST_SECRET} bytes")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        hint = "encode a binary secret as base64"
        message = f"the file of secret {key!r} is not UTF-8 text"
    raise SecretError(message, hint=hint)  # outside the handler: that error holds the content


# -- backends that programs write to: for tokens that a service renews -----------------------------

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
            draft = path.with_name(f".{key[:200]}.{runtime.urandom(8).hex()}.new")
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
            until = runtime.monotonic() + _LOCK_SECONDS
            while True:
                with suppress(BlockingIOError):
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                if runtime.monotonic() > until:
                    raise SecretUnavailableError(f"secret {key!r} is locked by another process")
                runtime.sleep(_LOOK_SECONDS)
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
