"""Statistics of executions and their steps, by minute and workflow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from automate_kernel.base import runtime
from automate_kernel.base.forks import new_lock
from automate_kernel.outbox.item import new_id
from automate_kernel.outbox.statistics import (
    MinuteRow,
    Minutes,
    MinuteTable,
    MinuteTotal,
    NamedCounts,
    NamedNumbers,
    NamedTimes,
    Times,
    counts_by_name,
    percentile,
)
from automate_kernel.storage.query import Now, Where
from automate_kernel.storage.rows import Row, Rows, Storage
from automate_kernel.storage.tables import EXECUTION_ACTIVITY
from automate_kernel.workflows.decide.turn import Turn
from automate_kernel.workflows.execution import (
    Execution,
    ExecutionStatus,
    StepKey,
    StepRun,
    StepStatus,
)

_COUNTED = (
    "started", "completed", "failed", "cancelled", "steps_completed", "steps_retried",
    "steps_failed",
)  # fmt: skip
REASONS = ("time", "event", "signal", "approval", "workflow", "task")
"""The things that steps wait for."""

_TABLE = MinuteTable(
    EXECUTION_ACTIVITY, "workflow", _COUNTED, ("run", "step"), ("actions", "waits"), (5, 60, 360)
)


@dataclass(frozen=True, slots=True)
class ExecutionStats:
    """
    Numbers of executions, by workflow and status.

    *counts* has those that have not ended, and the FAILED ones that are kept, since somebody has to
    see to them. COMPLETED and CANCELLED ones are not counted, however many are kept.
    """

    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    waiting: Mapping[str, int] = field(default_factory=dict)
    """The steps that wait for an ``event``, a ``signal``, an ``approval`` or a ``workflow``."""
    paused: Mapping[str, int] = field(default_factory=dict)
    """The pauses of workflows that are paused: one each, or one for each tenant."""

    def total(self, status: ExecutionStatus | str) -> int:
        """Return the number of executions in *status*, of all workflows."""
        return sum(of.get(str(status), 0) for of in self.counts.values())


@dataclass(frozen=True, slots=True)
class ExecutionCounts(MinuteTotal):
    """
    The activity of one *workflow* in the minute that begins *at*.

    *started* counts the executions that a worker began, and *completed*, *failed* and *cancelled*
    their ends. *run_seconds* is the sum of the durations, from creation on, of those that a worker
    ended. *steps_completed*, *steps_retried* and *steps_failed* count outcomes of steps, each
    element of a list by itself, and *step_seconds* is the sum of their durations, with their
    retries. The buckets are histograms of both: see `automate_kernel.outbox.percentile`.

    *actions* has the numbers of steps by the actions that they call, with the durations of single
    attempts, and *waits* those of ended waits by their reasons: `by_action` and `by_reason`.
    """

    started: int = 0
    failed: int = 0
    cancelled: int = 0
    run_seconds: float = 0.0
    run_buckets: Mapping[int, int] = field(default_factory=dict)
    steps_completed: int = 0
    steps_retried: int = 0
    steps_failed: int = 0
    step_seconds: float = 0.0
    step_buckets: Mapping[int, int] = field(default_factory=dict)
    actions: NamedNumbers = field(default_factory=dict)
    waits: NamedNumbers = field(default_factory=dict)

    @property
    def by_action(self) -> dict[str, NamedCounts]:
        """The attempts by action: their outcomes (completed, retried, failed) and durations."""
        return counts_by_name(self.actions)

    @property
    def by_reason(self) -> dict[str, NamedCounts]:
        """The waits that have ended, by reason: time, event, signal, approval or workflow."""
        return counts_by_name(self.waits)

    @property
    def workflow(self) -> str:
        """The workflow's name."""
        return self.kind

    @property
    def ended(self) -> int:
        """The number of executions that ended, in any status."""
        return self.completed + self.failed + self.cancelled

    def run_percentile(self, share: float) -> float | None:
        """Return the seconds within which a *share* of the executions ended; None if none did."""
        return percentile(self.run_buckets, share)

    def step_percentile(self, share: float) -> float | None:
        """Return the seconds within which a *share* of the steps ended; None if none did."""
        return percentile(self.step_buckets, share)


@dataclass(slots=True)
class _MinuteCounts(MinuteRow):
    """The counts of one process for one workflow and minute."""

    started: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    steps_completed: int = 0
    steps_retried: int = 0
    steps_failed: int = 0
    run: Times = field(default_factory=Times)
    step: Times = field(default_factory=Times)
    actions: NamedTimes = field(default_factory=NamedTimes)
    waits: NamedTimes = field(default_factory=NamedTimes)


class ExecutionActivity(Minutes[_MinuteCounts]):
    """The counts of one process, gathered in memory until one of its workers writes them down."""

    def __init__(self) -> None:
        super().__init__(_MinuteCounts)
        self.writing: runtime.Lock = new_lock()
        """The lock of whoever writes the counts down: several workers may share a kernel."""

    def add(
        self,
        execution: Execution,
        turn: Turn,
        *,
        began: bool,
        made: MutableMapping[StepKey, tuple[str, float]] | None = None,
        reasons: MutableMapping[StepKey, str] | None = None,
    ) -> None:
        """
        Count the outcomes of a turn of *execution* that has been saved.

        *made* has the actions of calls that have ended and how long they took, and *reasons* those
        of waits; what is counted is taken out.
        """
        made, reasons = {} if made is None else made, {} if reasons is None else reasons
        with self._lock:
            row = self._row(execution.name)
            row.started += began
            for run in turn.saves:
                if run.status.finished or run.status is StepStatus.RETRY:
                    _count(row, execution, run)
                    if (call := made.pop(run.key, None)) is not None:
                        row.actions.add(call[0], _OUTCOMES.get(run.status, "failed"), call[1])
                    elif (reason := reasons.pop(run.key, None)) is not None:
                        row.waits.add(reason, run.status.value.lower(), run.duration_seconds)
            if turn.end is ExecutionStatus.COMPLETED:
                row.completed += 1
            elif turn.end is ExecutionStatus.FAILED:
                row.failed += 1
            elif turn.end is ExecutionStatus.CANCELLED:
                row.cancelled += 1
            seconds = execution.duration_seconds if turn.end is not None else None
            if seconds is not None:
                row.run.add(seconds)


_OUTCOMES = {StepStatus.COMPLETED: "completed", StepStatus.RETRY: "retried"}


def _count(row: _MinuteCounts, execution: Execution, run: StepRun) -> None:
    if run.status is StepStatus.RETRY:
        row.steps_retried += 1
        return
    # The elements of a step with a list were counted one by one.
    if not run.attempts and (run.status is not StepStatus.FAILED or execution.step(run.id, 0)):
        return
    if run.status is StepStatus.COMPLETED:
        row.steps_completed += 1
    elif run.status is StepStatus.FAILED:
        row.steps_failed += 1
    else:
        return
    # A step that only waited has made no attempt, and took no time of anybody's.
    if run.attempts and (took := run.duration_seconds) is not None:
        row.step.add(took)


# -- rows ------------------------------------------------------------------------------------------


def write_activity(rows: Rows, activity: ExecutionActivity, worker_id: str) -> None:
    """Write the counts of *activity*; call its `saved` once they are committed."""
    _TABLE.write(rows, worker_id, activity)


def note_ends(rows: Rows, ended: Iterable[Execution]) -> None:
    """
    Count executions that were cancelled or given up, which no worker's counts contain.

    A workflow gets a row of its own in the same transaction. The caller may have nothing that would
    write it later, and in a row that two callers add to, one would wait for the other.
    """
    by_end = Counter((one.name, one.status is ExecutionStatus.CANCELLED) for one in ended)
    rows.insert(EXECUTION_ACTIVITY, [_ends(*about, count) for about, count in by_end.items()])


def _ends(workflow: str, cancelled: bool, count: int) -> Row:
    counts: dict[str, Any] = dict.fromkeys(_COUNTED, 0)
    counts["cancelled" if cancelled else "failed"] = count
    nothing = Times().to_json()
    about = {
        "id": new_id(), "at": Now(), "worker_id": None, "workflow": workflow,
        "run_times": nothing, "step_times": nothing, "actions": None, "waits": None, "minutes": 1,
    }  # fmt: skip
    return {**about, **counts}


def read_activity(rows: Rows, seconds: float) -> list[ExecutionCounts]:
    """Sum up the last *seconds* of all processes, by minute and workflow."""
    return _TABLE.read(rows, seconds, ExecutionCounts)


def read_history(rows: Rows, seconds: float) -> list[ExecutionCounts]:
    """Sum up the last *seconds* of all processes, by blocks of minutes and by workflow."""
    return _TABLE.history(rows, seconds, ExecutionCounts)


def roll_up_activity(storage: Storage) -> bool:
    """Sum up the blocks that are over, which `read_history` reads; True if there are more."""
    return _TABLE.roll_up(storage)


def purge_activity(rows: Rows, older_than_seconds: float) -> int:
    """Delete the counts of earlier minutes and blocks; return the number of rows."""
    every = Where("minutes", "in", [1, *_TABLE.blocks])
    return rows.delete(EXECUTION_ACTIVITY, [every, Where("at", "lt", Now(-older_than_seconds))])
