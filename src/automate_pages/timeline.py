"""The timeline of an execution: a track for each step, with a bar from its start to its end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from automate_kernel.kernel import Kernel
from automate_kernel.storage.query import Where
from automate_kernel.storage.rows import Rows
from automate_kernel.storage.tables import STEP, TABLES
from automate_kernel.workflows.decide.record import in_order
from automate_kernel.workflows.definition.model import Step, Workflow
from automate_kernel.workflows.execution import Execution, StepRun, StepStatus
from automate_pages.formats import duration, shown_text, tone

SCALE = 1000
"""The width of the drawing, in its own units."""
MOST_STEPS = 500
"""The number of steps that a page draws; what is inside blocks may be many thousands."""

_THINNEST = 4
_ELEMENTS = 20
_WITHOUT: dict[str, Any] = {"output": None, "trace": None}
_BRIEF = tuple(each.name for each in TABLES[STEP].columns if each.name not in _WITHOUT)
_OPEN = [status.value for status in StepStatus if status is not StepStatus.COMPLETED]
_FIRST = {"FAILED": 0, "RUNNING": 1, "RETRY": 2, "WAITING": 3, "CANCELLED": 4}


@dataclass(slots=True)
class StepRuns:
    """
    The runs of an execution's steps, without outputs, and those of lists in figures.

    *elements* counts the elements of each ``for_each`` by status, and *chosen* has those that
    matter most: the failed and running ones before the others.
    """

    runs: list[StepRun] = field(default_factory=list)
    elements: dict[str, dict[str, int]] = field(default_factory=dict)
    chosen: dict[str, list[StepRun]] = field(default_factory=dict)


def read_steps(rows: Rows, execution_id: str) -> StepRuns:
    """Read the steps of an execution in a bounded number of rows, however many elements it has."""
    its = [Where("execution_id", "eq", execution_id)]
    whole = [*its, Where("position", "eq", -1)]
    found = StepRuns(_runs(rows, whole, MOST_STEPS))
    for row in rows.count(STEP, ("step_id", "status"), [*its, Where("position", "ge", 0)]):
        found.elements.setdefault(row["step_id"], {})[row["status"]] = row["n"]
    for step_id in list(found.elements)[:_ELEMENTS]:
        of_step = [*its, Where("step_id", "eq", step_id), Where("position", "ge", 0)]
        chosen = _runs(rows, [*of_step, Where("status", "in", _OPEN)], _ELEMENTS)
        if len(chosen) < _ELEMENTS:
            done = Where("status", "eq", StepStatus.COMPLETED.value)
            chosen += _runs(rows, [*of_step, done], _ELEMENTS - len(chosen))
        chosen.sort(key=lambda run: (_FIRST.get(run.status.value, 9), run.position))
        found.chosen[step_id] = chosen
    return found


def _runs(rows: Rows, where: Sequence[Where], limit: int) -> list[StepRun]:
    found = rows.select(STEP, where, order_by=("id",), limit=limit, columns=_BRIEF)
    return [StepRun.from_row({**_WITHOUT, **row}) for row in found]


@dataclass(frozen=True, slots=True)
class TimelineTrack:
    """A line of the timeline: *x* and *width* are its bar, which has no width before it began."""

    step_id: str
    position: int = -1
    label: str = ""
    action: str = ""
    status: str = ""
    tone: str = ""
    attempts: int = 0
    took: str = ""
    after: str = ""
    note: str = ""
    x: int = 0
    width: int = 0
    depth: int = 0
    begun: bool = False


class ExecutionTimeline:
    """
    The tracks of *execution*, whose definition is *workflow* (None: it can't be read), at *now*.

    Bars that stand above each other in time are steps that ran beside each other.
    """

    def __init__(
        self,
        kernel: Kernel,
        execution: Execution,
        workflow: Workflow | None,
        steps: StepRuns,
        now: datetime,
    ) -> None:
        self._kernel, self._workflow, self._steps, self._now = kernel, workflow, steps, now
        self._start = execution.created_at or now
        ended = execution.completed_at if execution.status.finished else None
        self._seconds = max(0.0, ((ended or now) - self._start).total_seconds())
        self._goes_on = not execution.status.finished
        self.took = duration(self._seconds)
        self.tracks = list(self._draw())

    @property
    def statuses(self) -> dict[str, str]:
        """The status of each step that has begun, as the picture of the graph wants it."""
        known = {status.value for status in StepStatus}
        its = (track for track in self.tracks if track.position < 0)
        return {track.step_id: track.status for track in its if track.status in known}

    def _draw(self) -> Iterator[TimelineTrack]:
        runs = {run.step_id: run for run in in_order(self._steps.runs)}
        for step, recovers in self._defined():
            run = runs.pop(step.id, None)
            if run is None and step.id not in self._steps.elements:
                if self._goes_on and not recovers:
                    yield TimelineTrack(
                        step.id, label=step.name or step.id, action=step.does, status="PENDING"
                    )
                continue
            yield from self._of_step(step.id, step.name or step.id, step.does, run)
            for inside in [
                each for each in runs if each.startswith((f"{step.id}[", f"{step.id}."))
            ]:
                yield from self._of_step(inside, inside, "", runs.pop(inside), depth=1)
        for step_id, run in runs.items():
            yield from self._of_step(step_id, step_id, "", run)

    def _defined(self) -> Iterator[tuple[Step, bool]]:
        workflow = self._workflow
        if workflow is None:
            return
        steps = tuple(workflow.steps)
        for step in steps:
            yield step, False
        for step in (
            *reversed(tuple(workflow.compensations.values())),
            *workflow.every_step()[len(steps) :],
        ):
            yield step, True

    def _of_step(
        self, step_id: str, label: str, action: str, run: StepRun | None, *, depth: int = 0
    ) -> Iterator[TimelineTrack]:
        counts = self._steps.elements.get(step_id)
        if run is not None:
            track = self._single(run, label=label, action=action, depth=depth)
            yield track if counts is None else replace(track, note=_told(counts))
        elif counts is not None:
            yield TimelineTrack(
                step_id,
                label=label,
                action=action,
                status="RUNNING",
                tone=tone("RUNNING"),
                note=_told(counts),
                depth=depth,
            )
        for element in self._steps.chosen.get(step_id, ()):
            yield self._single(element, label=f"[{element.position}]", action="", depth=depth + 1)
        more = sum((counts or {}).values()) - len(self._steps.chosen.get(step_id, ()))
        if more > 0:
            yield TimelineTrack(step_id, label="…", note=f"and {more:,} more", depth=depth + 1)

    def _single(self, run: StepRun, **about: Any) -> TimelineTrack:
        status = run.status.value
        track = TimelineTrack(
            run.step_id,
            run.position,
            status=status,
            tone=tone(status),
            attempts=run.attempts,
            note=self._note(run),
            begun=run.started_at is not None,
            **about,
        )
        if run.started_at is None:
            return track
        first = max(0.0, (run.started_at - self._start).total_seconds())
        track = replace(track, after=f"began after {duration(first)}")
        until = run.completed_at or (self._now if not run.status.finished else None)
        if until is None:
            return track
        took = max(0.0, (until - run.started_at).total_seconds())
        whole = max(self._seconds, 1e-6)
        x = round(min(max(first / whole * SCALE, 0), SCALE - _THINNEST))
        end = round(min((first + took) / whole * SCALE, SCALE))
        return replace(track, took=duration(took), x=x, width=max(_THINNEST, end - x))

    def _note(self, run: StepRun) -> str:
        note = shown_text(self._kernel, run.error, 300).text
        if run.error_code and not note.startswith(run.error_code):
            note = f"{run.error_code}: {note}"
        if run.next_attempt_at is None or run.status.finished:
            return note
        wait = duration(max(0.0, (run.next_attempt_at - self._now).total_seconds()))
        if run.status is StepStatus.RETRY:
            return f"next attempt in {wait}; {note}"
        return f"for {wait} at most" if run.status is StepStatus.WAITING else note


def _told(counts: Mapping[str, int]) -> str:
    text = f"{counts.get('COMPLETED', 0):,} of {sum(counts.values()):,} begun elements done"
    failed = counts.get("FAILED", 0)
    return f"{text}, {failed:,} failed" if failed else text
