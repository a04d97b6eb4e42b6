"""
The record of a workflow in code: the numbers of its calls, and the steps that they have begun.

A call's number is its place in the order of the function: ``3`` is the third call; ``3.2`` the
second of those that the third one, a ``gather``, begins; ``3.2.1`` the first call of a coroutine
there. Coroutines count for themselves, so that the numbers don't depend on which is faster. The
number is kept with the line of code, in the step's `place`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from automate_kernel.base.errors import AutomateError, ErrorCodes, UnknownHereError, WorkflowError
from automate_kernel.workflows.decide.children import BegunChild
from automate_kernel.workflows.execution import StepRun, StepStatus

Path = tuple[int, ...]
"""The parts of a call's number: calls and members of a ``gather`` by turns."""

LONGEST_PLACE = 200
"""The most characters of a place."""

_PLACE = re.compile(
    r"(?P<line>.*) \((?P<what>call|undo) (?P<path>[0-9]+(?:\.[0-9]+)*)(?:, (?P<kind>[a-z]+))?"
    r"(?:, since (?P<since>[0-9]+))?\)"
)
_REMEDY = (
    "bring the calls back in their old order, guard the new ones with ctx.patched() or"
    " ctx.version(), or give the changed workflow another version"
)


@dataclass(frozen=True, slots=True)
class CallPlace:
    """
    The line that makes a call, and the call's number. One that *undoes* is a compensation.

    Its *kind* is empty if it calls an operation; else it says what the call waits for or notes. A
    compensation has the number of calls *since* which it stood ready.
    """

    line: str
    path: Path
    undoes: bool = False
    kind: str = ""
    since: int | None = None

    def __str__(self) -> str:
        what = "undo" if self.undoes else "call"
        kind = f", {self.kind}" if self.kind else ""
        since = "" if self.since is None else f", since {self.since}"
        return f"{self.line} ({what} {'.'.join(map(str, self.path))}{kind}{since})"

    @classmethod
    def read(cls, text: str | None) -> CallPlace | None:
        """Return the place that `str` wrote; None for any other text."""
        match = _PLACE.fullmatch(text or "")
        if match is None:
            return None
        path = tuple(map(int, match["path"].split(".")))
        since = None if match["since"] is None else int(match["since"])
        return cls(match["line"], path, match["what"] == "undo", match["kind"] or "", since)


class ChangedCodeError(UnknownHereError):
    """The code does not repeat what is recorded, by a *difference*; that of others may."""

    def __init__(self, difference: str) -> None:
        super().__init__(
            f"does not repeat what is recorded: {difference}",
            reason="CHANGED_CODE", code=ErrorCodes.FAILED_PRECONDITION, hint=_REMEDY,
        )  # fmt: skip

    def as_failure(self) -> AutomateError:
        """Return the error of an execution that nobody else can go on with."""
        hint = f"{_REMEDY}; then resume the execution"
        return AutomateError(self.code, f"the code {self.message}", hint=hint)


class Placed(Protocol):
    """A run, or its row in any form, with the place that called it."""

    @property
    def place(self) -> str | None:
        """The text of a `CallPlace`, or None."""


P = TypeVar("P", bound=Placed)


def in_order(runs: Sequence[P]) -> Sequence[P]:
    """Return *runs* in the order of their calls; those of a definition's steps as they are."""
    if all(run.place is None for run in runs):
        return runs
    places = [CallPlace.read(run.place) for run in runs]
    paths = [place.path if place is not None else () for place in places]
    return [runs[index] for index in sorted(range(len(runs)), key=paths.__getitem__)]


class Record:
    """The calls that an execution has begun, as they were recorded; a replay must repeat them."""

    def __init__(self, runs: Iterable[StepRun]) -> None:
        self._by_path: dict[Path, tuple[str, CallPlace]] = {}
        self._by_step: dict[str, CallPlace] = {}
        self._last: dict[Path, Path] = {}
        """By its path, the last call of each line of calls; the members of a gather are lines."""
        for run in runs:
            # What is only kept for a sub-workflow that may go on was not called since.
            place = None if BegunChild.of_run(run) else CallPlace.read(run.place)
            if place is not None:
                path = place.path
                self._by_path[path] = run.step_id, place
                self._by_step[run.step_id] = place
                for depth in range(len(path)):
                    self._last[path[:depth]] = max(path, self._last.get(path[:depth], path))
        self._left = set(self._by_path)
        self._left_inside = Counter(
            path[:depth] for path in self._left for depth in range(len(path))
        )

    def __bool__(self) -> bool:
        return bool(self._by_path)

    def check(self, step_id: str, place: CallPlace) -> ChangedCodeError | None:
        """Return the error if the record has another call in this one's place."""
        if place.path in self._left:
            self._left.remove(place.path)
            for depth in range(len(place.path)):
                self._left_inside[place.path[:depth]] -= 1
        recorded, known = self._by_path.get(place.path), self._by_step.get(step_id)
        if recorded is not None and (recorded[0], recorded[1].kind) != (step_id, place.kind):
            return changed(recorded[0], recorded[1], f"{step_id} at {place}")
        if recorded is None and known is not None:
            return changed(step_id, known, f"{step_id} at {place}")
        passed = None if recorded is not None else self._passed(place)
        if passed is not None:
            return changed(*self._by_path[passed], f"{step_id} at {place}")
        return None

    def _passed(self, place: CallPlace) -> Path | None:
        """
        Return the recorded call that shows that a call at *place* isn't the next one.

        It stands where the new one has a ``gather``, or is a member where that is a call, or comes
        after it in its line: a call ends before the next one in its line begins.
        """
        path = place.path
        for depth in range(1, len(path)):
            if path[:depth] in self._by_path:
                return path[:depth]
        # One that undoes may be tried once more by hand: nothing follows from it.
        for depth in range(0, 0 if place.undoes else len(path), 2):
            last = self._last.get(path[:depth])
            if last is not None and last[depth] > path[depth]:
                return last
        return self._last.get(path)

    def reaches(self, scope: Path, number: int) -> bool:
        """Return True if calls of *scope* are recorded from *number* on."""
        depth = len(scope)
        return any(
            len(path) > depth and path[:depth] == scope and path[depth] >= number
            for path in self._by_path
        )

    def goes_on_after(self, path: Path) -> bool:
        """Return True if calls are recorded that follow from the one at *path*."""
        # Of its line; of a gather's member, of the line that the gather is in.
        depth = (len(path) - 1) // 2 * 2
        return self.reaches(path[:depth], path[depth] + 1)

    def unrepeated(self, end: str = "", inside: Path = ()) -> ChangedCodeError | None:
        """
        Return the error if the workflow has ended, with *end*, before a recorded call.

        With the path of a ``gather``, or of a member of it, it is about that which is *inside*.
        """
        if not self._left_inside[inside]:
            return None
        left = min(path for path in self._left if path[: len(inside)] == inside)
        what = "gather" if inside else "workflow"
        return changed(*self._by_path[left], f"the {what} ends without it{end and f': {end}'}")


def changed(step_id: str, place: CallPlace, now: str) -> ChangedCodeError:
    """Return the error for the call at *place*, which *now* is another."""
    return ChangedCodeError(f"recorded is {step_id} at {place}; now {now}")


# -- going on after an end -------------------------------------------------------------------------


def reset_on_resume(
    runs: Sequence[StepRun], step_id: str | None, workflow: str, error: str | None = None
) -> list[StepRun]:
    """
    Return the runs that an execution must forget, so that it goes on after its end.

    These are the calls that it ended at and that did not complete; a failure that the code has
    dealt with stays. With *step_id* they are that call and all that follow from it. *error* is that
    of the execution. Raises `WorkflowError` if there is no such call, if compensations have undone
    what was done, and if calls came after the failure that it ended with.
    """
    called = _Called(runs)
    if step_id is None:
        return _ended_at(called, workflow, error)
    start = called.path_of(step_id)
    if start is None:
        there_are = ", ".join(run.step_id for run in runs) or "none"
        raise WorkflowError(
            f"the execution has no step {step_id!r} to go on from", hint=f"it has {there_are}"
        )
    if called.undoes(start):
        raise WorkflowError(
            f"{step_id!r} undoes what was done: workflow {workflow!r} can't go on from it",
            hint="retry_step tries it once more; or name a step before it",
        )
    return _from_call(called, start, step_id, workflow)


def forgotten_on_retry(runs: Sequence[StepRun], step_id: str, workflow: str) -> list[StepRun]:
    """
    Return the runs that an execution must forget, so that the failed step *step_id* runs again.

    These are the step and all that follow from it; of one that undoes something the step alone,
    since the code doesn't see how it ended. Raises `WorkflowError` if compensations have undone
    what was done before it.
    """
    called = _Called(runs)
    start = called.path_of(step_id)
    if start is None:
        return []
    if called.undoes(start):
        return called.runs([start])
    return _from_call(called, start, step_id, workflow)


def undoes(run: StepRun) -> bool:
    """Return True if *run* is a call that undoes what was done."""
    place = CallPlace.read(run.place)
    return place is not None and place.undoes


def _from_call(called: _Called, start: Path, step_id: str, workflow: str) -> list[StepRun]:
    """Return the runs that an execution must forget that goes on from the call at *start*."""
    again = called.following([start])
    before = [path for path in again if called.stood_ready(path, start)]
    if undone := called.undoing(before):
        raise WorkflowError(
            f"workflow {workflow!r} has undone what it had done before {step_id!r}:"
            f" {', '.join(undone)}",
            hint=_before_what_was_undone(called, before, workflow),
        )
    beside = [path for path in called.interrupted() if path not in again]
    # What an interrupted call was followed by belongs to the interruption.
    after = called.following(beside) - again
    undone = called.undoing(after)
    if undone:
        raise WorkflowError(
            f"workflow {workflow!r} has undone what it had done beside {step_id!r}:"
            f" {', '.join(undone)}",
            hint="name a step before both; or start it again",
        )
    return called.runs(again | after)


def _ended_at(called: _Called, workflow: str, error: str | None) -> list[StepRun]:
    """Return the runs that an execution must forget that goes on where it ended."""
    last = called.last()
    stopped = set(called.interrupted())
    failed = {path for path in last if called.has_failed(path)}
    end = called.named_by(error)
    began = stopped if end is None or end in last else {*stopped, end}
    after = called.following(began) - began
    undone = called.undoing(last | after)
    in_vain = {path for path in after if called.undoes(path) and called.has_failed(path)}
    if undone:
        raise WorkflowError(
            f"workflow {workflow!r} has undone what it had done: {', '.join(undone)}",
            hint=_before_what_was_undone(called, last | after, workflow),
        )
    if after - in_vain:
        first = called.names([min(began)])[0]
        raise WorkflowError(
            f"workflow {workflow!r} has gone on after {first!r} did not complete:"
            f" {', '.join(called.names(sorted(after)))}",
            hint=f"name the step to go on from: from {first!r} all of it runs again",
        )
    return called.runs(stopped | failed | in_vain | (began if in_vain else set()))


def _before_what_was_undone(called: _Called, paths: Iterable[Path], workflow: str) -> str:
    """Return the remedy for an execution in which the calls at *paths* have undone something."""
    start = called.before_undone(paths)
    name = called.names([start])[0] if start is not None else ""
    try:
        if start is not None:
            _from_call(called, start, name, workflow)
    except WorkflowError:
        name = ""
    if not name:
        return "name a step before what was undone, to go on from; or start it again"
    # The record doesn't say which call it was that a compensation has undone.
    return (
        "name the step to go on from, at or before the one that was undone:"
        f" {name!r} is the last that can be; or start it again"
    )


class _Called:
    """The *runs* of an execution by the numbers of their calls."""

    def __init__(self, runs: Iterable[StepRun]) -> None:
        self._by_path: dict[Path, tuple[CallPlace, StepRun]] = {}
        for run in runs:
            place = CallPlace.read(run.place)
            if place is not None:
                self._by_path[place.path] = place, run

    def path_of(self, step_id: str) -> Path | None:
        """Return the number of the call that is the step *step_id*, or None."""
        found = (path for path, (_, run) in self._by_path.items() if run.step_id == step_id)
        return next(found, None)

    def named_by(self, error: str | None) -> Path | None:
        """Return the number of the failed call that the execution's *error* names, or None."""
        for path, (_, run) in self._by_path.items():
            if self.has_failed(path) and (error or "").startswith(step_failed(run.step_id)):
                return path
        return None

    def has_failed(self, path: Path) -> bool:
        """Return True if the call has FAILED."""
        return self._by_path[path][1].status is StepStatus.FAILED

    def stood_ready(self, path: Path, start: Path) -> bool:
        """
        Return True if the call at *path* undoes what was done before *start*.

        It stood ready before that, and is in the same line or in one around it. What is undone was
        done right before, or after: so from the very first call on nothing is missing, but what
        was done beside that.
        """
        since, depth = self._by_path[path][0].since, len(path) - 1
        if since is None or path[:depth] != start[:depth]:
            return False
        return start[depth] > (max(since, 1) if len(start) == len(path) else since)

    def before_undone(self, paths: Iterable[Path]) -> Path | None:
        """Return the last call from which on all runs again that *paths* undo, if it is known."""
        starts: list[Path] = []
        for path in paths:
            place = self._by_path[path][0]
            if self._has_undone(path):
                depth = len(path) - 1
                if place.since is None:
                    return None
                starts.append((*path[:depth], max(place.since, 1)))
        start = min(starts, default=())
        return start if start in self._by_path else None

    def interrupted(self) -> list[Path]:
        """Return the calls that have neither completed nor failed."""
        ended = (StepStatus.COMPLETED, StepStatus.FAILED)
        return [path for path, (_, run) in self._by_path.items() if run.status not in ended]

    def following(self, starts: Iterable[Path]) -> set[Path]:
        """Return *starts*, and all calls that their outcomes may change."""
        given = list(starts)
        return {path for path in self._by_path if any(_follows(path, one) for one in given)}

    def last(self) -> set[Path]:
        """Return the calls with which it, and the coroutines in it, ended."""
        return _last_calls(list(self._by_path), ())

    def undoes(self, path: Path) -> bool:
        """Return True if the call at *path* is one that undoes what was done."""
        return self._by_path[path][0].undoes

    def undoing(self, paths: Iterable[Path]) -> list[str]:
        """Return the ids of the steps at *paths* that undo what was done, if any of them has."""
        undo = sorted(filter(self.undoes, paths))
        return self.names(undo) if any(map(self._has_undone, undo)) else []

    def _has_undone(self, path: Path) -> bool:
        # One that has failed is told of by the error, and what it was to undo is there.
        return self.undoes(path) and not self.has_failed(path)

    def names(self, paths: Iterable[Path]) -> list[str]:
        """Return the ids of the steps at *paths*."""
        return [self._by_path[path][1].step_id for path in paths]

    def runs(self, paths: Iterable[Path]) -> list[StepRun]:
        """Return the runs at *paths*."""
        return [self._by_path[path][1] for path in paths]


def step_failed(step_id: str) -> str:
    """Return the beginning of the error of an execution that ended since a step had failed."""
    return f"step {step_id!r} failed: "


def _follows(path: Path, start: Path) -> bool:
    """Return True if the call at *path* is that at *start*, or one that its outcome may change."""
    for depth, (one, other) in enumerate(zip(path, start, strict=False)):
        if one != other:
            # At odd depths are members of a gather, which are independent.
            return depth % 2 == 0 and one > other
    return len(path) >= len(start)


def _last_calls(paths: Sequence[Path], scope: Path) -> set[Path]:
    """Return the calls among *paths* with which a scope, and the coroutines in it, ended."""
    depth = len(scope)
    own = [path for path in paths if len(path) > depth and path[:depth] == scope]
    if not own:
        return set()
    number = max(path[depth] for path in own)
    last: set[Path] = set()
    for path in own:
        if path[depth] != number:
            continue
        if len(path) <= depth + 2:
            last.add(path)
        else:
            last |= _last_calls(own, path[: depth + 2])
    return last
