"""Files: rows of a query as JSON lines or CSV, of any number, whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from automate_kernel.base.errors import AutomateError, ConfigError, ErrorCodes
from automate_kernel.operations.drafts import Draft
from automate_sql.reading import Row

_LONGEST_NAME, _LONGEST_PATH = 255, 1_024
Form = Literal["jsonl", "csv"]


def place_of(folder: str | None, name: str) -> Path:
    """Return the path of the file *name* below *folder*; raises for one outside of it."""
    if folder is None:
        raise ConfigError("there is no folder for files", hint="set files_to in the config")
    longest = max(len(part.encode("utf-8", "replace")) for part in name.split("/"))
    if not name.isprintable() or longest > _LONGEST_NAME or len(name) > _LONGEST_PATH:
        raise AutomateError(
            ErrorCodes.INVALID_ARGUMENT,
            f"the file's name is longer than {_LONGEST_NAME} bytes, or can't be printed",
        )
    root = Path(folder).resolve()
    path = (root / name).resolve()
    if path == root or root not in path.parents:
        raise AutomateError(
            ErrorCodes.INVALID_ARGUMENT, "the file is outside of files_to", hint="give its name"
        )
    return path


class RowsFile:
    """
    A file that is written row by row beside its place, and put there when it is whole.

    Its methods block: they are for a thread.
    """

    def __init__(self, path: Path, form: Form) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = Draft.of(str(path))
        draft.delete_left(path.parent)
        self._beside = path.with_name(draft.name)
        # For its owner alone, as long as it may hold more than the place it goes to shows.
        descriptor = os.open(self._beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._file = os.fdopen(descriptor, "w", encoding="utf-8", newline="")
        self._lines: Callable[[Sequence[Row]], str] = _json_lines if form == "jsonl" else _Csv()
        self.rows = 0

    def write(self, rows: Sequence[Row]) -> None:
        """Add *rows*."""
        self._file.write(self._lines(rows))
        self.rows += len(rows)

    def finish(self) -> int:
        """Put the file in its place, durably; return its size in bytes."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        size = self._beside.stat().st_size
        self._beside.replace(self._path)
        return size

    def discard(self) -> None:
        """Delete what was written, unless it is in its place."""
        self._file.close()
        self._beside.unlink(missing_ok=True)


def _json_lines(rows: Sequence[Row]) -> str:
    return "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in rows)


class _Csv:
    """Writes a header before the first row. NULL is an empty field; JSON is its text."""

    def __init__(self) -> None:
        self._begun = False

    def __call__(self, rows: Sequence[Row]) -> str:
        text = io.StringIO()
        writer = csv.writer(text)
        for row in rows:
            if not self._begun:
                writer.writerow(row)
                self._begun = True
            writer.writerow(
                json.dumps(each, ensure_ascii=False) if isinstance(each, (dict, list)) else each
                for each in row.values()
            )
        return text.getvalue()
