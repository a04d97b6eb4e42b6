"""The timeline of an execution: a track for each step, on which each attempt and wait is apart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from automate_kernel.kernel import Kernel
from automate_kernel.outbox.failed_attempts import FailedAttempt
from automate_kernel.storage.query import Where
from automate_kernel.storage.rows import Rows
from automate_kernel.storage.tables import STEP, TABLES
from automate_kernel.workflows.decide.record import in_order
from automate_kernel.workflows.definition.model import Step, Workflow
from automate_kernel.workflows.execution import Execution, StepKey, StepRun, StepStatus
from automate_kernel.workflows.steer.attempts import StepAttempt, step_attempts
from automate_pages.formats import duration, shown_text, tone

MOST_STEPS = 500
"""The number of steps that a page draws; what is inside blocks may be many thousands."""

_ELEMENTS = 20
_MOST_LOOKED = 1_000
_MOST_BARS = 40
_THINNEST = 0.4
_FOLD, _FOLDS = 4.0, 40.0  # per cent of the drawing: for one place without work, and for all
_SHORTEST_FOLD = 1.0
_SHORTEST_QUEUE = 0.005
_SAVING = timedelta(seconds=0.1)
_WITHOUT: dict[str, Any] = {"output": None, "trace": None}
_BRIEF = tuple(each.name for each in TABLES[STEP].columns if each.name not in _WITHOUT)
_FIRST = {
    StepStatus.FAILED.value: 0,
    StepStatus.RUNNING.value: 1,
    StepStatus.RETRY.value: 2,
    StepStatus.WAITING.value: 3,
    StepStatus.CANCELLED.value: 4,
}


@dataclass(slots=True)
class StepRuns:
    """
    The runs of an execution's steps, without outputs, and those of lists in figures.

    *elements* counts the elements of each ``for_each`` by status. *chosen* has those that matter
    most: the failed and running ones, then the slowest.
    """

    runs: list[StepRun] = field(default_factory=list)
    elements: dict[str, dict[str, int]] = field(default_factory=dict)
    chosen: dict[str, list[StepRun]] = field(default_factory=dict)

    @property
    def every(self) -> list[StepRun]:
        """The runs of steps, and the chosen elements."""
        return [*self.runs, *(run for chosen in self.chosen.values() for run in chosen)]


def read_steps(rows: Rows, execution_id: str) -> StepRuns:
    """Read the steps of an execution in a bounded number of rows, however many elements it has."""
    its = [Where("execution_id", "eq", execution_id)]
    whole = [*its, Where("position", "eq", -1)]
    found = StepRuns(_runs(rows, whole, MOST_STEPS))
    for row in rows.count(STEP, ("step_id", "status"), [*its, Where("position", "ge", 0)]):
        found.elements.setdefault(row["step_id"], {})[row["status"]] = row["n"]
    failed = StepStatus.FAILED.value
    lists = sorted(found.elements, key=lambda each: failed not in found.elements[each])
    for step_id in lists[:_ELEMENTS]:
        of_step = [*its, Where("step_id", "eq", step_id), Where("position", "ge", 0)]
        chosen = list[StepRun]()
        # Those that failed first, however many others stand before them.
        for status in sorted(found.elements[step_id], key=lambda each: _FIRST.get(each, 9)):
            if status != StepStatus.COMPLETED.value and len(chosen) < _ELEMENTS:
                of_status = [*of_step, Where("status", "eq", status)]
                chosen += _runs(rows, of_status, _ELEMENTS - len(chosen))
        if len(chosen) < _ELEMENTS:
            done = [*of_step, Where("status", "eq", StepStatus.COMPLETED.value)]
            slow = _runs(rows, done, _MOST_LOOKED)
            slow.sort(key=lambda run: -(run.duration_seconds or 0))
            chosen += slow[: _ELEMENTS - len(chosen)]
        found.chosen[step_id] = chosen
    return found


def _runs(rows: Rows, where: Sequence[Where], limit: int) -> list[StepRun]:
    found = rows.select(STEP, where, order_by=("id",), limit=limit, columns=_BRIEF)
    return [StepRun.from_row({**_WITHOUT, **row}) for row in found]


@dataclass(frozen=True, slots=True)
class TimelineBar:
    """
    A part of a track, from *x* on, both in per cent of the drawing; *text* says what it is.

    *kind* is ``attempt`` (with the tone of its outcome), ``wait`` (for a time, a person, an event
    or a sub-workflow), ``block``, ``queue`` (ready, and not begun) or ``retry`` (between attempts).
    """

    kind: str
    text: str
    x: str
    width: str
    tone: str = ""


@dataclass(frozen=True, slots=True)
class TimelineTrack:
    """A line of the timeline; a step that has not *begun* has no bars."""

    step_id: str
    position: int = -1
    label: str = ""
    action: str = ""
    status: str = ""
    tone: str = ""
    attempts: int = 0
    took: str = ""
    note: str = ""
    depth: int = 0
    begun: bool = False
    bars: Sequence[TimelineBar] = ()


class TimelineAxis:
    """
    Places of instants on the drawing, in per cent from *start* to *end*.

    Where nothing is *busy* for long the axis is folded: the time from one attempt to the next has
    the same short length, whether it was a minute or a week. With *whole* it isn't.
    """

    def __init__(
        self,
        start: datetime,
        end: datetime,
        busy: Iterable[tuple[datetime, datetime]],
        *,
        whole: bool = False,
    ) -> None:
        self._start = start
        self.seconds: float = max(0.0, (end - start).total_seconds())
        """The seconds from its beginning to its end."""
        idle = [] if whole else list(self._idle(busy))
        folded = sum(until - since for since, until in idle)
        share = min(_FOLD, _FOLDS / max(1, len(idle)))
        if folded >= self.seconds > 0:  # nothing else is left to draw
            idle = []
        unit = (100 - share * len(idle)) / max(self.seconds - sum(b - a for a, b in idle), 1e-9)
        self._pieces: list[tuple[float, float, float, float]] = []
        self.folds: list[tuple[str, str]] = []
        """The middles of the folded places, each with the time that is left out there."""
        at = x = 0.0
        for since, until in idle:
            self._pieces.append((at, since, x, x + (since - at) * unit))
            x += (since - at) * unit
            self._pieces.append((since, until, x, x + share))
            self.folds.append((_per_cent(x + share / 2), duration(until - since)))
            at, x = until, x + share
        self._pieces.append((at, max(self.seconds, at + 1e-9), x, 100.0))

    @property
    def labels(self) -> list[tuple[str, str]]:
        """The folds that have room for their time, apart from each other and the ends."""
        places = [float(x.rstrip("%")) for x, _ in self.folds]
        return [
            fold
            for fold, x, before in zip(self.folds, places, [0.0, *places], strict=False)
            if 15 <= x <= 75 and x - before >= 20
        ]

    def _idle(self, busy: Iterable[tuple[datetime, datetime]]) -> Iterator[tuple[float, float]]:
        spans = sorted((self._since(a), self._since(b)) for a, b in busy)
        if not spans:
            return
        worked, at = sum(b - a for a, b in spans), 0.0
        # A pause that is short beside the work is no reason to fold.
        shortest = max(_SHORTEST_FOLD, worked / 2)
        for since, until in [*spans, (self.seconds, self.seconds)]:
            if since - at >= shortest:
                yield at, since
            at = max(at, until)

    def _since(self, moment: datetime) -> float:
        return min(max((moment - self._start).total_seconds(), 0.0), self.seconds)

    def place(self, moment: datetime) -> float:
        """Return the place of *moment*."""
        since = self._since(moment)
        for begin, end, x, until in self._pieces:
            if since <= end:
                return x + (until - x) * (since - begin) / max(end - begin, 1e-9)
        return 100.0

    def bar(self, kind: str, text: str, begin: datetime, end: datetime, tone_: str) -> TimelineBar:
        """Return a bar from *begin* to *end*, which is wide enough to be seen."""
        x, until = self.place(begin), self.place(end)
        x = min(x, 100 - _THINNEST)
        return TimelineBar(kind, text, _per_cent(x), _per_cent(max(_THINNEST, until - x)), tone_)


def _per_cent(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") + "%"


class ExecutionTimeline:
    """
    The tracks of *execution*, whose definition is *workflow* (None: it can't be read), at *now*.

    *failed* are the failed attempts of its steps. With *whole* idle time is as long as it was.
    """

    def __init__(
        self,
        kernel: Kernel,
        execution: Execution,
        workflow: Workflow | None,
        steps: StepRuns,
        now: datetime,
        *,
        failed: Sequence[FailedAttempt] = (),
        whole: bool = False,
    ) -> None:
        self._kernel, self._workflow, self._steps, self._now = kernel, workflow, steps, now
        self._start = execution.created_at or now
        self._end = max((execution.completed_at if execution.status.finished else None) or now,
                        self._start)  # fmt: skip
        self._goes_on = not execution.status.finished
        self._ends = {run.step_id: run.completed_at for run in steps.runs if run.completed_at}
        self.attempts: list[StepAttempt] = step_attempts(
            [run for run in steps.every if run.attempts], failed
        )
        """The attempts of all steps, the earliest first."""
        self._by_run: dict[StepKey, list[StepAttempt]] = {}
        for each in self.attempts:
            self._by_run.setdefault((each.step_id, each.position), []).append(each)
        self._idle: dict[str, str] = {}
        busy = [
            (each.started_at, self._end_of(each))
            for each in self.attempts
            if each.started_at is not None and not self._idles(each)
        ]
        self.axis: TimelineAxis = TimelineAxis(self._start, self._end, busy, whole=whole)
        self.tracks: list[TimelineTrack] = list(self._tracks())

    @property
    def took(self) -> str:
        """The time from its beginning to its end, or to now."""
        return duration(self.axis.seconds)

    @property
    def statuses(self) -> dict[str, str]:
        """The status of each step that has begun, as the picture of the graph wants it."""
        known = {status.value for status in StepStatus}
        return {
            track.step_id: track.status
            for track in self.tracks
            if track.position < 0 and track.status in known
        }

    def _end_of(self, attempt: StepAttempt) -> datetime:
        running = attempt.status in (StepStatus.RUNNING.value, StepStatus.WAITING.value)
        return attempt.ended_at or (self._end if running else attempt.started_at) or self._end

    def _idles(self, attempt: StepAttempt) -> bool:
        waits = self._idle_kind(attempt.step_id) == "wait"
        return waits or attempt.status == StepStatus.WAITING.value

    def _idle_kind(self, step_id: str) -> str:
        """Return the kind of a step without work of its own: a wait or a block; else nothing."""
        if step_id not in self._idle:
            step = self._workflow.find_step(step_id) if self._workflow else None
            kind = ""
            if step is not None and (step.steps or step.switch):
                kind = "block"
            elif step is not None and step.action is None:
                kind = "wait"
            self._idle[step_id] = kind
        return self._idle[step_id]

    def _tracks(self) -> Iterator[TimelineTrack]:
        runs = {run.step_id: run for run in in_order(self._steps.runs)}
        for step, recovers in self._defined():
            run = runs.pop(step.id, None)
            if run is None and step.id not in self._steps.elements:
                if self._goes_on and not recovers:
                    yield TimelineTrack(
                        step.id,
                        label=step.name or step.id,
                        action=step.does,
                        status=StepStatus.PENDING,
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
                status=StepStatus.RUNNING,
                tone=tone(StepStatus.RUNNING),
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
        until = run.completed_at or (self._end if not run.status.finished else None)
        took = ""
        if run.started_at is not None and until is not None:
            took = duration(max(0.0, (until - run.started_at).total_seconds()))
        return TimelineTrack(
            run.step_id,
            run.position,
            status=status,
            tone=tone(status),
            attempts=run.attempts,
            note=self._note(run),
            took=took,
            begun=run.started_at is not None,
            bars=tuple(self._bars(run)) if run.started_at is not None else (),
            **about,
        )

    def _bars(self, run: StepRun) -> Iterator[TimelineBar]:
        attempts, began = self._by_run.get(run.key, [])[-_MOST_BARS:], run.started_at
        if began is None:
            return
        ready = self._ready(run, began)
        if ready is not None and (began - ready).total_seconds() >= _SHORTEST_QUEUE:
            yield self._bar("queue", "ready, and not begun", ready, began)
        if not attempts:
            end = run.completed_at or (began if run.status.finished else self._end)
            kind = self._idle_kind(run.step_id) or "wait"
            text = "waited" if kind == "wait" else "its steps"
            yield self._bar(kind, text, began, end, tone(run.status.value))
            return
        before: datetime | None = None
        for each in attempts:
            begin = each.started_at or each.ended_at
            if begin is None:
                continue
            if before is not None and begin > before:
                yield self._bar("retry", "waited for the next attempt", before, begin)
            before = self._end_of(each)
            if self._idles(each):
                text, kind = "waited for its sub-workflow", "wait"
            else:
                text, kind = f"attempt {each.attempt}: {each.status.lower()}", "attempt"
            yield self._bar(kind, text, begin, before, tone(each.status))
        if run.status is StepStatus.RETRY and before is not None:
            yield self._bar("retry", "waits for the next attempt", before, self._end)

    def _ready(self, run: StepRun, began: datetime) -> datetime | None:
        """Return when a step could have begun: when the last of the steps before it ended."""
        if run.position >= 0:
            return None
        needs = self._workflow.graph().get(run.step_id) if self._workflow else None
        if needs is not None:
            before = [self._ends[each] for each in needs if each in self._ends]
        else:
            # Of the steps that began before. An end is saved a moment after what follows began.
            before = [
                each.completed_at
                for each in self._steps.runs
                if each.started_at and each.completed_at and each.started_at < began
                and each.completed_at <= began + _SAVING
            ]  # fmt: skip
        return min(max(before, default=self._start), began)

    def _bar(
        self, kind: str, text: str, begin: datetime, end: datetime, tone_: str = ""
    ) -> TimelineBar:
        took = duration(max(0.0, (end - begin).total_seconds()))
        return self.axis.bar(kind, f"{text}, {took}", begin, end, tone_)

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
    text = (
        f"{counts.get(StepStatus.COMPLETED, 0):,} of {sum(counts.values()):,} begun elements done"
    )
    failed = counts.get(StepStatus.FAILED, 0)
    return f"{text}, {failed:,} failed" if failed else text
