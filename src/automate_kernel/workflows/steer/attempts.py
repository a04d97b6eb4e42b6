"""Attempts of steps: each call that was made, with its times, its worker, and its error."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from automate_kernel.outbox.failed_attempts import FailedAttempt, seconds_between
from automate_kernel.workflows.execution import StepKey, StepRun, StepStatus

_FAILED = StepStatus.FAILED.value
# Times are the database's at a checkpoint, less what has passed since, and a database may count
# milliseconds: of two that are closer than that, either may seem the first.
_SAME_SECONDS = 0.002
_COARSE = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepAttempt:
    """
    One attempt of a step, or of an element of its ``for_each`` (*position*).

    *attempt* counts from 1; 0 is a step that failed before its call. *status* is RUNNING or the
    status of its end: COMPLETED, FAILED or CANCELLED; and WAITING for that of a sub-workflow. An
    attempt that was lost with its worker is FAILED with ``LEASE_EXPIRED``. *worker_id* is the
    worker that made it, *trace* the place of its error, without values.
    """

    step_id: str
    position: int
    attempt: int
    status: str
    started_at: datetime | None = None
    ended_at: datetime | None = None
    worker_id: str | None = None
    error_code: str | None = None
    error_group: str | None = None
    error: str | None = None
    trace: str | None = None

    @property
    def duration_seconds(self) -> float | None:
        """The seconds from its beginning to its end, or None if one is not known."""
        return seconds_between(self.started_at, self.ended_at)


def step_attempts(runs: Iterable[StepRun], failed: Iterable[FailedAttempt]) -> list[StepAttempt]:
    """
    Return all attempts of steps, the earliest first.

    *failed* are those that are kept. The latest one of each step is in its run, and *runs* are in
    the order in which they began.
    """
    runs = list(runs)
    found = [_of_failed(each) for each in failed]
    kept = {
        (each.step_id, each.position, each.attempt): each.ended_at
        for each in found if each.ended_at is not None
    }  # fmt: skip
    for run in runs:
        ended_at = kept.get((run.step_id, run.position, run.attempts))
        began = run.attempted_at or run.started_at
        # An attempt with its number may be from before the execution was resumed.
        same = ended_at is not None and (began is None or began <= ended_at + _COARSE)
        if run.attempts and not (same and run.status is not StepStatus.COMPLETED):
            found += _latest(run)
    return _in_order(found, {run.key: place for place, run in enumerate(runs)})


def _in_order(found: Iterable[StepAttempt], places: Mapping[StepKey, int]) -> list[StepAttempt]:
    """Sort attempts by their times, and those of about one time by the *places* of their steps."""
    groups: list[list[StepAttempt]] = []
    before = float("-inf")
    for one in sorted(found, key=_time):
        if _time(one) - before > _SAME_SECONDS:
            groups.append([])
        groups[-1].append(one)
        before = _time(one)
    for group in groups:
        group.sort(key=lambda one: (places.get((one.step_id, one.position), -1), one.attempt))
    return [one for group in groups for one in group]


def _time(one: StepAttempt) -> float:
    moment = one.started_at or one.ended_at
    return moment.timestamp() if moment is not None else 0.0


def _of_failed(one: FailedAttempt) -> StepAttempt:
    return StepAttempt(
        step_id=one.step_id or "", position=one.position, attempt=one.attempt, status=_FAILED,
        started_at=one.started_at, ended_at=one.failed_at, worker_id=one.worker_id,
        error_code=one.error_code, error_group=one.error_group, error=one.error, trace=one.trace,
    )  # fmt: skip


def _latest(run: StepRun) -> Iterator[StepAttempt]:
    """Return the latest attempt of a run, unless none is known."""
    if run.status in (StepStatus.PENDING, StepStatus.SKIPPED):
        return
    failed = run.status in (StepStatus.RETRY, StepStatus.FAILED)
    yield StepAttempt(
        step_id=run.step_id, position=run.position, attempt=run.attempts,
        status=_FAILED if failed else run.status.value,
        started_at=run.attempted_at or (run.started_at if run.attempts == 1 else None),
        ended_at=run.completed_at, worker_id=run.worker_id, error_code=run.error_code,
        error_group=run.error_group, error=run.error, trace=run.trace,
    )  # fmt: skip
