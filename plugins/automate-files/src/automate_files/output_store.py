"""Outputs of steps that are too large for a row, in a place."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from automate_files.place import FilePlace
from automate_files.places import make_place, parse_place
from automate_kernel import (
    AutomateError,
    ConfigError,
    ErrorCodes,
    OutputStore,
    SecretError,
    SecretNotFoundError,
    StorageError,
)
from automate_kernel.operations.context import SecretReader
from automate_kernel.storage.output_store import check_output_key, is_output_key

_NS = 1_000_000_000
_MOST_BYTES = 64 * 1024 * 1024  # the kernel puts 64,000,000 at most
# A place that isn't mounted, full, or refuses us for now: the outputs are there all the same.
_PASSES = {
    ErrorCodes.NOT_FOUND,
    ErrorCodes.UNAVAILABLE, ErrorCodes.DEADLINE_EXCEEDED, ErrorCodes.RESOURCE_EXHAUSTED,
    ErrorCodes.ABORTED, ErrorCodes.UNAUTHENTICATED, ErrorCodes.PERMISSION_DENIED,
}  # fmt: skip


class PlaceOutputStore(OutputStore):
    """
    An output store in a place: ``PlaceOutputStore({"type": "s3", "bucket": "outputs"})``.

    *config* is that of a place of the connector, which should have the place for itself. *secrets*
    has the secrets that it names: a reader, or a mapping such as ``os.environ``.
    """

    def __init__(
        self, config: Mapping[str, Any], *, secrets: SecretReader | Mapping[str, str] | None = None
    ) -> None:
        given = secrets if secrets is not None else {}
        reader = _Given(given) if isinstance(given, Mapping) else given
        self.place: FilePlace = make_place("outputs", parse_place(config), reader)
        """The place."""

    def put(self, key: str, data: bytes) -> None:
        """Write a file."""
        with self._doing("write"):
            self.place.write(_path(key), [data], overwrite=True)

    def get(self, key: str) -> bytes:
        """Read a file."""
        path = _path(key)
        with self._doing("read"):
            try:
                data: bytes | None = self.place.read(path, 0, _MOST_BYTES + 1)
            except FileNotFoundError:
                data = None
                self.place.entries("", 0)  # a place that isn't there may come back
        if data is None:
            raise AutomateError(
                ErrorCodes.NOT_FOUND,
                f"the output store has no {key!r}",
                hint="it was deleted, or this process has another place than its writer",
            )
        if len(data) > _MOST_BYTES:
            raise AutomateError(
                ErrorCodes.FAILED_PRECONDITION, f"the output is longer than {_MOST_BYTES} bytes"
            )
        return data

    def delete(self, key: str) -> None:
        """Delete a file, and its folder once that is empty."""
        path = _path(key)
        with self._doing("delete"), suppress(FileNotFoundError):
            self.place.delete(path)
        # It isn't empty, or there are no folders.
        with suppress(Exception):
            self.place.delete(path.rpartition("/")[0])

    def keys(self, *, older_than_seconds: float) -> Iterator[str]:
        """Yield the keys of files that are old enough; unfinished files are deleted on the way."""
        until = (time.time() - older_than_seconds) * _NS
        with self._doing("list"):
            for each in self.place.walk("*/*/*"):
                if each.modified > until:
                    continue
                _, group, name = each.path.split("/")
                if name.startswith("."):
                    with suppress(FileNotFoundError):
                        self.place.delete(each.path)
                elif is_output_key(f"{group}/{name}"):
                    yield f"{group}/{name}"

    def close(self) -> None:
        """Close the connections."""
        self.place.close()

    @contextmanager
    def _doing(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            found = self.place.failure(error, what)
            passes = isinstance(found, AutomateError) and found.code in _PASSES
            if passes and not isinstance(found, (ConfigError, SecretError)):
                hint = "look at the place: is it there, may this process write to it, is it full?"
                raise StorageError(str(found), hint=hint) from error
            if found is error:
                raise
            raise found from error

    def __repr__(self) -> str:
        return f"{type(self).__name__}({type(self.place).__name__})"


class _Given:
    """Reads secrets of a mapping."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values

    def get(self, key: str) -> str:
        if key not in self._values:
            raise SecretNotFoundError(key, hint="give it: PlaceOutputStore(…, secrets={…})")
        return self._values[key]

    async def aget(self, key: str) -> str:
        return self.get(key)


def _path(key: str) -> str:
    group = check_output_key(key).partition("/")[0]
    # Few folders in each: some file systems are slow with many thousands.
    return f"{group[:2].lower()}/{key}"
