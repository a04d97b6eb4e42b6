"""
The timeline of an execution: a track for each step, with a bar from its start to its end.

Tracks are drawn on the server; the polling script moves the same bars by the same figures. Bars
that stand above each other in time are steps that ran beside each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.db.models import Count, Max, Min, Q, QuerySet
from django.utils import timezone

from automate_django.admin.pages.display import shown_text
from automate_django.models import WorkflowExecution, WorkflowStep
from automate_kernel.workflows.decide.record import in_order
from automate_kernel.workflows.definition.model import Workflow
from automate_kernel.workflows.execution import ExecutionStatus, StepStatus
from automate_pages.formats import duration, tone

SCALE = 1000
"""The width of the drawing, in its own units."""

_THINNEST = 4
_ELEMENTS = 20
"""The number of elements of one ``for_each`` that have a track of their own."""

# What is inside blocks may be many thousands of steps, of which some are shown.
_OUTSIDE = Q(step_id__endswith=".compensate") | ~Q(step_id__contains=".")
_LIVE = [status.value for status in StepStatus if not status.finished]
_ORDER = {"FAILED": 0, "RUNNING": 1, "RETRY": 2, "WAITING": 3, "CANCELLED": 4}
_WITHOUT_OUTPUT = (
    "id", "step_id", "position", "status", "attempts", "error_code", "error", "started_at",
    "next_attempt_at", "completed_at", "place",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class StepTrack:
    """A line of the timeline: *key* names it, *x* and *width* are its bar (none without width)."""

    key: str
    step_id: str
    position: int = -1
    label: str = ""
    action: str = ""
    status: str = ""
    tone: str = ""
    attempts: str = ""
    took: str = ""
    after: str = ""
    note: str = ""
    url: str = ""
    x: int = 0
    width: int = 0
    depth: int = 0
    recovery: bool = False


@dataclass(frozen=True, slots=True)
class Timeline:
    """The tracks of an execution, and how long it took until now."""

    tracks: list[StepTrack]
    took: str

    @property
    def statuses(self) -> dict[str, str]:
        """The status of each step that has begun, as the picture of the graph wants it."""
        known = {status.value for status in StepStatus}
        its = (one for one in self.tracks if one.position < 0)
        return {one.step_id: one.status for one in its if one.status in known}


@dataclass(frozen=True, slots=True)
class _Summary:
    """A summary of all runs of one step, however many there are."""

    statuses: Mapping[str, int]
    begun: datetime | None
    rounds: int = 0
    """Those that a loop has completed."""

    @property
    def total(self) -> int:
        return sum(self.statuses.values())


class TimelineDrawing:
    """
    Draws the timeline of *execution*, whose definition is *workflow* (None: it can't be read).

    *url* gives the page of a step. Costs a few queries, however many elements a step has.
    """

    def __init__(
        self,
        execution: WorkflowExecution,
        workflow: Workflow | None,
        url: Callable[[WorkflowExecution, str, int], str],
    ) -> None:
        self._execution = execution
        self._workflow = workflow
        self._url = url
        self._rows = WorkflowStep.objects.using(execution._state.db).filter(execution=execution)
        self._start = execution.created_at
        finished = ExecutionStatus(execution.status).finished
        end = execution.completed_at if finished else None
        self._end = max(end or timezone.now(), self._start)
        self._seconds = (self._end - self._start).total_seconds()
        self._open = not finished

    def timeline(self) -> Timeline:
        """Return the tracks, in the order of the definition."""
        summaries = self._summaries()
        whole = self._outside().filter(position=-1).only(*_WITHOUT_OUTPUT)
        runs = {row.step_id: row for row in whole}
        tracks: list[StepTrack] = []
        workflow = self._workflow
        steps = tuple(workflow.steps) if workflow else ()
        undoing = tuple(workflow.compensations.values()) if workflow else ()
        cleaning = workflow.every_step()[len(steps) :] if workflow else ()
        for i, step in enumerate((*steps, *reversed(undoing), *cleaning)):
            summary, recovers = summaries.pop(step.id, None), i >= len(steps)
            if summary is None and (recovers or not self._open):
                continue  # it did not come to that
            about = {"step_id": step.id, "action": step.does, "recovery": recovers}
            tracks += self._of_step(step.name or step.id, about, runs.get(step.id), summary)
            if step.is_block:
                tracks += self._inside(step.id)
        ordered = [row.step_id for row in in_order(list(runs.values()))]
        for step_id in (*(each for each in ordered if each in summaries), *summaries):
            if (summary := summaries.pop(step_id, None)) is not None:
                tracks += self._of_step(step_id, {"step_id": step_id}, runs.get(step_id), summary)
        return Timeline(tracks, duration(self._seconds))

    def _outside(self) -> QuerySet[WorkflowStep]:
        """Return the steps that are inside no block."""
        every: QuerySet[WorkflowStep] = self._rows.all()
        blocks = self._workflow is not None and self._workflow.has_blocks
        return every.filter(_OUTSIDE) if blocks else every

    def _summaries(self) -> dict[str, _Summary]:
        found: dict[str, list[dict[str, Any]]] = {}
        grouped = self._outside().order_by().values("step_id", "status")
        for row in grouped.annotate(
            # The line of the whole for_each is one more, at -1; it counts if it stands alone.
            elements=Count("id", filter=Q(position__gte=0)),
            begun=Min("started_at"),
            last=Max("position"),
        ):
            found.setdefault(row["step_id"], []).append(row)
        return {
            step_id: _Summary(
                {row["status"]: row["elements"] for row in rows if row["elements"]},
                min((row["begun"] for row in rows if row["begun"]), default=None),
                1 + max((row["last"] for row in rows if row["status"] == "COMPLETED"), default=-1),
            )
            for step_id, rows in found.items()
        }

    def _of_step(
        self,
        label: str,
        about: dict[str, Any],
        run: WorkflowStep | None,
        summary: _Summary | None,
    ) -> Iterator[StepTrack]:
        if summary is not None and summary.total:
            yield self._whole(label, about, run, summary)
            yield from self._elements(about, summary)
        elif run is not None:
            yield self._single(label, about, run)
        else:
            yield StepTrack(key=about["step_id"], label=label, status="PENDING", **about)

    def _whole(
        self, label: str, about: dict[str, Any], run: WorkflowStep | None, summary: _Summary
    ) -> StepTrack:
        """Return the track of a step with ``for_each``, from its first element to its last."""
        done, alone = summary.statuses.get("COMPLETED", 0), run is None
        live = run is None or run.status in _LIVE
        status, ended = ("RUNNING", None) if run is None else (run.status, run.completed_at)
        note = f"{done:,} of {summary.total:,} begun elements done"
        step = self._workflow and self._workflow.find_step(about["step_id"])
        if step and step.loops:  # the rows of old rounds are deleted
            note = f"{summary.rounds:,} rounds done"
        if failed := summary.statuses.get("FAILED", 0):
            note += f", {failed:,} failed"
        about = {**about, "label": label, "note": note}
        return self._track(about, status, summary.begun, ended, live=live, linked=not alone)

    def _elements(self, about: dict[str, Any], summary: _Summary) -> Iterator[StepTrack]:
        """Give the elements of a ``for_each`` that matter most: failed ones, then running ones."""
        its = self._rows.filter(step_id=about["step_id"], position__gte=0).only(*_WITHOUT_OUTPUT)
        rows = list(its.filter(~Q(status="COMPLETED")).order_by("position")[:_ELEMENTS])
        if len(rows) < _ELEMENTS:
            done = its.filter(status="COMPLETED").order_by("position")
            rows += done[: _ELEMENTS - len(rows)]
        rows.sort(key=lambda row: (_ORDER.get(row.status, 9), row.position))
        for row in rows:
            yield self._single(f"[{row.position}]", about, row, depth=1)
        if summary.total > len(rows):
            note = f"and {summary.total - len(rows):,} more"
            yield StepTrack(key=f"{about['step_id']}…", label="…", depth=1, note=note, **about)

    def _inside(self, block_id: str) -> Iterator[StepTrack]:
        """Give the steps inside a block that matter most: failed ones, then those that go on."""
        inner = Q(step_id__startswith=f"{block_id}[") | Q(step_id__startswith=f"{block_id}.")
        its = self._rows.filter(inner, position=-1).exclude(step_id=f"{block_id}.compensate")
        its = its.only(*_WITHOUT_OUTPUT)
        rows = list(its.exclude(status="COMPLETED").order_by("started_at", "id")[:_ELEMENTS])
        if len(rows) < _ELEMENTS:
            done = its.filter(status="COMPLETED").order_by("started_at", "id")
            rows += done[: _ELEMENTS - len(rows)]
        for row in sorted(rows, key=lambda row: _ORDER.get(row.status, 9)):
            yield self._single(row.step_id, {"step_id": row.step_id}, row, depth=1)

    def _single(
        self, label: str, about: dict[str, Any], run: WorkflowStep, *, depth: int = 0
    ) -> StepTrack:
        note = shown_text(run.error, 300).text if run.error else ""
        if run.error_code and not note.startswith(run.error_code):
            note = f"{run.error_code}: {note}"
        if run.status == "RETRY" and run.next_attempt_at is not None:
            wait = (run.next_attempt_at - timezone.now()).total_seconds()
            note = f"next attempt in {duration(max(0.0, wait))}; {note}"
        elif run.status == "WAITING" and run.next_attempt_at is not None:
            wait = (run.next_attempt_at - timezone.now()).total_seconds()
            note = f"for {duration(max(0.0, wait))} at most"
        about = {**about, "label": label, "note": note, "depth": depth, "position": run.position}
        about["attempts"] = str(run.attempts or "")
        live = run.status in _LIVE
        return self._track(about, run.status, run.started_at, run.completed_at, live=live)

    def _track(
        self,
        about: dict[str, Any],
        status: str,
        begun: datetime | None,
        ended: datetime | None,
        *,
        live: bool,
        linked: bool = True,
    ) -> StepTrack:
        step_id, position = about["step_id"], about.get("position", -1)
        key = step_id if position < 0 else f"{step_id}[{position}]"
        url = self._url(self._execution, step_id, position) if linked else ""
        track = StepTrack(key=key, status=status, tone=tone(status), url=url, **about)
        if begun is None:
            return track
        first = (begun - self._start).total_seconds()
        track = replace(track, after=f"began after {duration(max(0.0, first))}")
        until = ended or (self._end if live else None)
        if until is None:
            return track
        took = duration(max(0.0, (until - begun).total_seconds()))
        x, width = self._bar(first, (until - self._start).total_seconds())
        return replace(track, took=took, x=x, width=width)

    def _bar(self, first: float, last: float) -> tuple[int, int]:
        """Return where a step's bar begins, and its width, which is never nothing."""
        whole = max(self._seconds, 1e-6)
        x = round(min(max(first / whole * SCALE, 0), SCALE - _THINNEST))
        return x, max(_THINNEST, round(min(last / whole * SCALE, SCALE)) - x)
