"""The folder of this machine from which files are sent, and to which they are written."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from automate_kernel.base.errors import AutomateError, ConfigError, ErrorCodes
from automate_kernel.operations.drafts import Draft


class FileFolder:
    """Files below *folder*, by their relative paths; no path or link leads out of it."""

    def __init__(self, folder: str | None) -> None:
        self._folder = folder

    def path(self, name: str) -> Path:
        """Return the path of the file *name*; raise ``INVALID_ARGUMENT`` if it lies elsewhere."""
        if self._folder is None:
            raise ConfigError(
                "no folder for files is configured", hint="set folder in the connector's config"
            )
        root = Path(self._folder).resolve()
        if "\0" in name or not name:
            raise _outside(name)
        path = (root / name).resolve()
        if path == root or not path.is_relative_to(root):
            raise _outside(name)
        return path

    @contextmanager
    def reading(self, name: str) -> Iterator[tuple[IO[bytes], int]]:
        """Open a file; give it and its size in bytes."""
        path = self.path(name)
        try:
            # A pipe would be waited for.
            if path.exists() and not path.is_file():
                raise AutomateError(ErrorCodes.INVALID_ARGUMENT, f"{name[:100]!r} is no file")
            file = path.open("rb")
        except OSError as error:
            raise _failed("read", name, error) from None
        with file:
            yield file, os.fstat(file.fileno()).st_size

    @contextmanager
    def writing(self, name: str) -> Iterator[Callable[[bytes], object]]:
        """Give a function that writes to a new file, which takes its place when the block ends."""
        path = self.path(name)
        named = Draft.of(str(path))
        draft = path.with_name(named.name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            named.delete_left(path.parent)
            with draft.open("xb") as file:
                yield file.write
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        except OSError as error:
            raise _failed("write", name, error) from None
        finally:
            with suppress(OSError):
                draft.unlink()


def _outside(name: str) -> AutomateError:
    return AutomateError(
        ErrorCodes.INVALID_ARGUMENT,
        f"the path {name[:100]!r} leads out of the folder",
        hint="write it relative to the folder of the config",
    )


def _failed(what: str, name: str, error: OSError) -> AutomateError:
    gone = isinstance(error, FileNotFoundError)
    return AutomateError(
        ErrorCodes.NOT_FOUND if gone else ErrorCodes.FAILED_PRECONDITION,
        f"can't {what} the file {name[:100]!r}: {error.strerror or type(error).__name__}",
    )
