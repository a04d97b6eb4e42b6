"""
The progress that calls report of themselves while they run, in the rows of their steps.

A call may report thousands of times in a second: the newest report counts, and one thread writes
those of all calls once in a second. What a call reported last is written when it ends.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from automate_kernel.base import runtime
from automate_kernel.base.forks import renew_in_children
from automate_kernel.operations.reports import CallReport, Ending
from automate_kernel.outbox.item import OutboxItem, new_id
from automate_kernel.secrets.logs import get_logger
from automate_kernel.storage.checkpoint import LIVE
from automate_kernel.storage.query import Now, Where
from automate_kernel.storage.rows import Rows, Storage
from automate_kernel.storage.shortage import warn_of
from automate_kernel.storage.statuses import ItemStatus
from automate_kernel.storage.tables import EXECUTION, OUTBOX, STEP
from automate_kernel.storage.values import Redaction
from automate_kernel.workflows.execution import StepRun, StepStatus

logger: logging.Logger = get_logger(__name__)

_CALLED = (StepStatus.PENDING, StepStatus.RUNNING, StepStatus.RETRY)

SECONDS = 1.0
"""So often the progress of a call is written, at most."""


class StepReport(CallReport):
    """The report of the call of a step's *run*, under the claim of *item*."""

    def __init__(
        self,
        item: OutboxItem,
        run: StepRun,
        asked: Callable[[], Ending | None],
        redact: Redaction | None,
        writer: ProgressWriter | None,
        heartbeat: float | None = None,
    ) -> None:
        super().__init__(run.progress, asked, redact, heartbeat)
        self.item, self.run = item, run
        self.attempt: int = run.attempts
        self.begun: float = runtime.monotonic()
        self.written: str | None = None
        """The progress that stands in the row, as far as is known."""
        self._writer = writer

    def report(self, value: Any, message: str | None) -> None:
        """Take the newest progress in, which is written soon."""
        if self.over:
            return  # of an attempt that was given up: another one may report by now
        super().report(value, message)
        if self._writer is not None:
            self._writer.note(self)

    def end(self) -> None:
        """Note that the call has ended, and write what it reported last."""
        self.over = True
        if self.latest is not None:
            self.run.progress = json.loads(self.latest)
            if self._writer is not None:
                self._writer.flush(self)


class ProgressWriter:
    """
    Writes the reports of calls to *storage*, by a thread that is there while calls report.

    With *fenced* only under the claims that they were made in, which are in the same tables.
    """

    def __init__(self, storage: Storage, *, fenced: bool) -> None:
        self._storage, self._fenced = storage, fenced
        self.renew()
        renew_in_children(self)

    def renew(self) -> None:
        """Begin anew, without the reports of calls in another process."""
        self._lock = runtime.Lock()
        self._new: dict[StepReport, None] = {}
        self._writing = False
        self._closed = runtime.Event()

    def note(self, report: StepReport) -> None:
        """Have *report* written soon."""
        with self._lock:
            self._new[report] = None
            if not self._writing:
                thread = runtime.Thread(target=self._serve, name="automate-progress", daemon=True)
                # Where the machine has no more threads, the next report tries again.
                with suppress(RuntimeError):
                    thread.start()
                    self._writing = True

    def flush(self, report: StepReport) -> None:
        """Write *report* now, unless that is done; that the thread has begun to is not enough."""
        with self._lock:
            self._new.pop(report, None)
        if report.written != report.latest:
            self._write([report])

    def show(self, reports: Sequence[StepReport]) -> None:
        """Write that the calls of *reports* run, unless they have rows; raises `StorageError`."""
        with self._storage.begin() as rows:
            rows.wait_briefly()
            self._insert(rows, self._held(rows, reports))

    def close(self) -> None:
        """End the thread."""
        self._closed.set()

    def _serve(self) -> None:
        while True:
            with self._lock:
                reports, self._new = list(self._new), {}
                if not reports or self._closed.is_set():
                    self._writing = False
                    return
            self._write(reports)
            self._closed.wait(SECONDS)

    def _write(self, reports: Sequence[StepReport]) -> None:
        latest = [one.latest for one in reports]  # or older than what is written: then it is again
        try:
            with self._storage.begin() as rows:
                self._save(rows, reports)
            for report, value in zip(reports, latest, strict=True):
                report.written = value
        except Exception as error:
            # The work goes on, whether anybody sees it or not.
            warn_of(logger, error, "the progress of %d calls can't be written: %s", len(reports))

    def _save(self, rows: Rows, reports: Sequence[StepReport]) -> None:
        held = self._held(rows, reports)
        missing = [one for one in held if not rows.update(STEP, _running(one.run), _changes(one))]
        if missing and not self._insert(rows, missing):
            # The engine has just saved that it runs.
            for one in missing:
                rows.update(STEP, _running(one.run), _changes(one))

    def _insert(self, rows: Rows, reports: Sequence[StepReport]) -> bool:
        """Add the rows of calls that have none yet; return False if some were there."""
        if not reports:
            return True
        # Who cancels the execution waits, and ends it then.
        ids = sorted({one.run.execution_id for one in reports})
        live = [Where("id", "in", ids), Where("status", "in", LIVE)]
        found = rows.select(EXECUTION, live, order_by=("id",), lock=True, columns=("id",))
        going = {row["id"] for row in found}
        new = [_row(one) for one in reports if one.run.execution_id in going]
        return rows.insert(STEP, new) == len(new)

    def _held(self, rows: Rows, reports: Sequence[StepReport]) -> list[StepReport]:
        """Return the reports whose claims hold, in the order in which rows are locked."""
        reports = sorted(reports, key=lambda one: (one.run.execution_id, one.run.key))
        if not self._fenced:
            return reports
        claims = [
            Where("id", "in", sorted({one.item.id for one in reports})),
            Where("status", "eq", ItemStatus.RUNNING.value),
        ]
        found = rows.select(OUTBOX, claims, columns=("id", "lease_token"))
        tokens = {row["id"]: row["lease_token"] for row in found}
        return [one for one in reports if tokens.get(one.item.id) == one.item.lease_token]


def _running(run: StepRun) -> list[Where]:
    return [
        Where("execution_id", "eq", run.execution_id),
        Where("step_id", "eq", run.step_id),
        Where("position", "eq", run.position),
        Where("status", "in", [each.value for each in _CALLED]),
    ]


def _changes(report: StepReport) -> dict[str, Any]:
    return {"progress": report.latest}


def _row(report: StepReport) -> dict[str, Any]:
    run = report.run
    nothing = (
        "output", "error_code", "error", "trace", "error_group", "next_attempt_at", "completed_at",
        "place", "output_ref",
    )  # fmt: skip
    return {
        **dict.fromkeys(nothing),
        "id": new_id(),
        "execution_id": run.execution_id,
        "step_id": run.step_id,
        "position": run.position,
        "status": StepStatus.RUNNING.value,
        # Without those that killed a worker: the item counts them.
        "attempts": max(1, report.attempt - max(0, report.item.attempt_count - 1)),
        "failures": run.failures,
        "started_at": Now(report.begun - runtime.monotonic()),
        "attempted_at": Now(report.begun - runtime.monotonic()),
        "worker_id": report.item.lease_owner,
        "progress": report.latest,
    }
