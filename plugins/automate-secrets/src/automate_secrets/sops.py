"""The backend that reads a file which is encrypted with SOPS."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from automate_kernel.base.errors import (
    ConfigError,
    SecretDeniedError,
    SecretError,
    SecretNotFoundError,
    SecretUnavailableError,
)
from automate_kernel.base.forks import new_lock
from automate_kernel.secrets import SecretsBackend

_MOST_BYTES = 4 * 1024 * 1024
_MAC_MISMATCH, _NO_DATA_KEY = 51, 128  # exit codes of sops


class _FileState(NamedTuple):
    """The state of a file, which changes whenever it is written or put in the place of another."""

    inode: int
    size: int
    written: int


class SopsBackend(SecretsBackend):
    """
    Secrets in a *file* of YAML, JSON, INI or ``.env`` that is encrypted with SOPS.

    ``database/password`` is the key ``password`` inside of ``database``. The program ``sops``
    decrypts the file at the first look-up, and again when the file has changed; in between its
    content stays in memory. It takes its keys as always (age, a cloud's service, PGP);
    *age_key_file* names a file of age keys.
    """

    name = "sops"

    def __init__(
        self,
        file: str | os.PathLike[str],
        *,
        age_key_file: str | os.PathLike[str] | None = None,
        program: str = "sops",
        timeout_seconds: float = 30.0,
    ) -> None:
        self._file, self._timeout = Path(file), timeout_seconds
        self._age_key_file = age_key_file
        # An installation by pip puts it beside Python, which need not be on the PATH.
        beside = str(Path(sys.executable).parent)
        found = shutil.which(program) or shutil.which(program, path=beside)
        if found is None:
            raise ConfigError(
                f"the program {program!r} is not there",
                hint="install SOPS, for example: pip install 'automate-secrets[sops]'",
            )
        self._program = found
        self._lock = new_lock()
        self._content: Mapping[str, Any] = {}
        self._stamp: _FileState | None = None

    def get_secret(self, key: str) -> str:
        """Return the value; one that is no text as JSON."""
        value: Any = self._current()
        for part in key.split("/"):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is None or value == "":
            raise SecretNotFoundError(key)
        return value if isinstance(value, str) else json.dumps(value)

    def remedy(self, key: str) -> str:
        """Give the command that writes it."""
        place = "".join(f"[{json.dumps(part)}]" for part in key.split("/"))
        return f"sops set {shlex.quote(str(self._file))} {shlex.quote(place)} '\"…\"'"

    def close(self) -> None:
        """Forget the content."""
        with self._lock:
            self._content, self._stamp = {}, None

    def _current(self) -> Mapping[str, Any]:
        with self._lock:
            stamp = self._read_stamp()
            if stamp != self._stamp:
                self._content, self._stamp = self._decrypted(), stamp
            return self._content

    def _read_stamp(self) -> _FileState:
        try:
            found = self._file.stat()
        except OSError as error:
            reason = type(error).__name__
        else:
            if found.st_size <= _MOST_BYTES:
                return _FileState(found.st_ino, found.st_size, found.st_mtime_ns)
            raise SecretError(f"{str(self._file)!r} is larger than {_MOST_BYTES} bytes")
        # No `SecretNotFoundError`: what is in a file that can't be read, nobody knows.
        raise SecretUnavailableError(f"{str(self._file)!r} can't be read: {reason}")

    def _decrypted(self) -> Mapping[str, Any]:
        command = [self._program, "--decrypt", "--output-type", "json", str(self._file.absolute())]
        environment = dict(os.environ)
        if self._age_key_file is not None:
            environment["SOPS_AGE_KEY_FILE"] = str(Path(self._age_key_file).absolute())
        try:
            ran = subprocess.run(  # noqa: S603 - the operator names the program
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=self._timeout,
                env=environment,
                check=False,
            )
        except subprocess.TimeoutExpired:
            code = None
        except OSError as error:
            raise ConfigError(f"sops can't be started: {type(error).__name__}") from None
        else:
            code = ran.returncode
        if code != 0:
            raise self._failure(code)
        return _object(ran.stdout, str(self._file))

    def _failure(self, code: int | None) -> SecretError:
        file = str(self._file)
        if code is None:
            return SecretUnavailableError(f"sops took longer than {self._timeout:g} s for {file!r}")
        if code == _NO_DATA_KEY:
            return SecretDeniedError(
                f"no key that is here decrypts {file!r}",
                hint="set age_key_file, or SOPS_AGE_KEY_FILE, to a key that it is encrypted for",
            )
        if code == _MAC_MISMATCH:
            return SecretError(
                f"{file!r} was changed without sops",
                hint="take the version before that change; edit it with sops",
            )
        # Its own words may hold a part of the file.
        return SecretError(
            f"sops can't decrypt {file!r}: exit code {code}",
            hint=f"try: sops --decrypt {shlex.quote(file)}",
        )


def _object(output: bytes, file: str) -> Mapping[str, Any]:
    try:
        content = json.loads(output)
    except (ValueError, RecursionError):
        content = None
    if isinstance(content, Mapping):
        return content
    raise SecretError(f"{file!r} holds no object", hint="its top level has names and values")
