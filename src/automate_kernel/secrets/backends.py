"""Secrets backends: the interface, and those for environment variables, memory and files."""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

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
