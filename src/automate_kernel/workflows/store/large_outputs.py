"""
Large outputs: those that are too large for a row are in the application's output store.

::

    a call ends ─▶ put in the store ─▶ checkpoint: the row has the key ─▶ the next step
                      │ crash here: nothing names the key, and `purge` deletes it a day later

A row has the key in ``output_ref`` and null as its output. A worker reads an output back only if
it has not made it itself and a template of the workflow reads it. The output of a sub-workflow is
copied for the step that waits for it, since the two executions may be purged at different times.
"""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Container, Iterable, Iterator
from typing import Any

from automate_kernel.base import runtime
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.base.forks import new_lock
from automate_kernel.operations.outputs import stored_output
from automate_kernel.outbox.item import new_id
from automate_kernel.secrets.logs import get_logger
from automate_kernel.storage.codec import JsonText
from automate_kernel.storage.output_store import OutputStore
from automate_kernel.storage.query import Where
from automate_kernel.storage.rows import Rows, Storage
from automate_kernel.storage.tables import EXECUTION, STEP
from automate_kernel.storage.values import MAX_PAYLOAD_BYTES
from automate_kernel.worker.handler import should_stop
from automate_kernel.worker.periodic import try_for
from automate_kernel.workflows.execution import Execution, StepRun

logger: logging.Logger = get_logger(__name__)

MAX_OUTPUT_BYTES = 64_000_000
"""The most bytes of JSON that an output in a store can have."""
ROW_BYTES = 256_000
"""Outputs of more bytes of JSON are put in the store, if there is one."""
# So much of outputs is kept in memory for the templates of executions that a worker holds; beyond
# it claims no more.
_MOST_HELD = 256_000_000
_LOST_SECONDS = 86_400.0
_SWEPT_AT_ONCE = 500
# A store that fails so often in a row deletes nothing today.
_FAILURES = 10
_HINT = (
    "pass Kernel(output_store=…), a folder or a store of your own, or keep the data elsewhere and"
    " return a reference"
)


class LargeOutputs:
    """The outputs of executions that are in *store*; without a store they are refused."""

    def __init__(self, store: OutputStore | None = None) -> None:
        self.store: OutputStore | None = store
        self.most: int = MAX_PAYLOAD_BYTES if store is None else MAX_OUTPUT_BYTES
        """The most bytes of JSON that an output can have."""
        self._held = 0
        self._sweep: Iterator[bool | None] | None = None
        self._lock = new_lock()

    def close(self) -> None:
        """Close the store. A failure is logged: the rest of a kernel is closed after it."""
        if self.store is None:
            return
        try:
            self.store.close()
        except Exception:
            logger.exception("closing the output store failed")

    def encode(self, output: Any, name: str) -> JsonText:
        """Return *output* as JSON; raises `OutputError` for one that can't be kept."""
        return stored_output(output, name, self.most, hint=_HINT if self.store is None else None)

    def is_large(self, text: JsonText) -> bool:
        """Return True if the JSON *text* is for the store."""
        return self.store is not None and len(text) > ROW_BYTES

    def put(self, execution_id: str, text: JsonText, *, patience: float) -> str:
        """
        Put the JSON *text* in the store, and return its key.

        It tries for *patience* seconds. Raises `AutomateError` if the store fails for longer.
        """
        store, data = self._store(), text.encode()
        # A new key for each: an attempt that is late must not overwrite what a row names.
        key = f"{execution_id}/{new_id()}"
        try:
            try_for(patience, lambda: store.put(key, data), "putting an output", until=should_stop)
        except AutomateError:
            raise
        except Exception as error:
            raise _failed("put an output", error) from error
        return key

    def read(self, key: str) -> Any:
        """Return the output under *key*; raises ``NOT_FOUND`` if it is gone."""
        return json.loads(self.fetch(key))

    def fetch(self, key: str) -> bytes:
        """Return the JSON under *key*."""
        store = self._store()
        try:
            return store.get(key)
        except AutomateError:
            raise
        except Exception as error:
            raise _failed(f"read the output {key!r}", error) from error

    def _store(self) -> OutputStore:
        if self.store is None:
            raise AutomateError(
                ErrorCodes.FAILED_PRECONDITION,
                "an output is in an output store, and this kernel has none",
                hint="pass the same Kernel(output_store=…) in every process",
            )
        return self.store

    def fill(self, execution: Execution, steps: Container[str] | None = None) -> None:
        """Read the outputs of *execution* that are in the store: all, or only those of *steps*."""
        every: list[StepRun | Execution]
        every = [run for run in execution.steps if steps is None or run.step_id in steps]
        for one in every if steps is not None else [*every, execution]:
            if one.output_ref is not None and one.output is None:
                one.output = self.read(one.output_ref)

    def copy(self, keys: Iterable[str], execution_id: str, copied: dict[str, str]) -> None:
        """
        Copy outputs for another execution, since both may be purged; note in *copied* their keys.

        If that fails, all that is *copied* is deleted.
        """
        try:
            for key in keys:
                text = JsonText(self.fetch(key).decode())
                copied[key] = self.put(execution_id, text, patience=0.0)
        except BaseException:
            self.delete(copied.values())
            raise

    # -- memory ------------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        """True while the executions held here have so many large outputs that no more may come."""
        return self._held > _MOST_HELD

    def hold(self, size: int) -> None:
        """Count outputs of *size* bytes that are kept in memory; a negative size lets them go."""
        if size:
            with self._lock:
                self._held += size

    # -- deleting ----------------------------------------------------------------------------

    def keys_of(self, rows: Rows, execution_ids: list[str]) -> list[str]:
        """Return the keys that executions and their steps have in the store."""
        if self.store is None or not execution_ids:
            return []
        keys = []
        for table, column in ((STEP, "execution_id"), (EXECUTION, "id")):
            where = [Where(column, "in", execution_ids), Where("output_ref", "ne", None)]
            found = rows.select(table, where, columns=("output_ref",))
            keys += [row["output_ref"] for row in found]
        return keys

    def delete(self, keys: Iterable[str]) -> None:
        """Delete outputs; what the store can't delete now is found later."""
        for key in keys:
            self._is_deleted(key)

    def _is_deleted(self, key: str) -> bool | None:
        # One that can't be deleted must not keep all others, today and every day after.
        try:
            self._store().delete(key)
        except Exception as error:
            logger.warning("the output %r can't be deleted now: %s", key, error)
            return None
        return True

    def purge(self, storage: Storage, *, older_than_seconds: float = _LOST_SECONDS) -> int:
        """
        Delete outputs in the store that no row names; return their number.

        A crash leaves them: between `put` and the checkpoint, or while an execution is purged.
        Only those that were put a day ago or earlier, as their checkpoints may still come.
        """
        return sum(map(bool, self._lost(storage, older_than_seconds)))

    def sweep(self, storage: Storage, *, seconds: float = 5.0) -> bool:
        """
        Do as `purge` does for so many *seconds*, from where the last sweep ended.

        Returns True if there may be more. While the store deletes nothing, that has time.
        """
        with self._lock:  # several workers of a kernel: the others begin anew
            lost, self._sweep = self._sweep or self._lost(storage, _LOST_SECONDS), None
        end, failures = runtime.monotonic() + seconds, 0
        for deleted in lost:
            failures = 0 if deleted else failures + (deleted is None)
            if failures >= _FAILURES or runtime.monotonic() >= end:
                self._sweep = lost
                return failures < _FAILURES
        return False

    def _lost(self, storage: Storage, older_than_seconds: float) -> Iterator[bool | None]:
        """Look at the store's keys; yield True for each that is deleted, None if that failed."""
        if self.store is None:
            return
        keys = self.store.keys(older_than_seconds=max(older_than_seconds, _LOST_SECONDS))
        while some := list(itertools.islice(keys, _SWEPT_AT_ONCE)):
            with storage.begin(atomic=False) as rows:
                named = set(self.keys_of(rows, sorted({key.partition("/")[0] for key in some})))
            for key in some:
                yield False if key in named else self._is_deleted(key)


def _failed(what: str, error: Exception) -> AutomateError:
    # A store of the host's own may put anything into its errors.
    return AutomateError(
        ErrorCodes.UNAVAILABLE, f"the output store failed to {what}: {type(error).__name__}"
    )
