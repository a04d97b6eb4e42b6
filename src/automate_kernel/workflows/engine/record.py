"""
The record of a workflow in code: the numbers of its calls, and the steps that they have begun.

A call's number is its place in the order of the function: ``3`` is the third call; ``3.2`` the
second of those that the third one, a ``gather``, begins; ``3.2.1`` the first call of a coroutine
there. Coroutines count for themselves, so that the numbers don't depend on which is faster. The
number is kept with the line of code, in the step's `place`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from automate_kernel.errors import AutomateError, ErrorCodes, WorkflowError
from automate_kernel.workflows.execution import StepRun, StepStatus

Path = tuple[int, ...]
"""The parts of a call's number: calls and members of a ``gather`` by turns."""

LONGEST_PLACE = 200
"""The most characters of a place."""

_PLACE = re.compile(
    r"(?P<line>.*) \((?P<what>call|undo) (?P<path>[0-9]+(?:\.[0-9]+)*)(?:, (?P<kind>[a-z]+))?\)"
)
_REMEDY = (
    "bring the calls back in their old order, guard the new ones with ctx.patched() or"
    " ctx.version(), or give the changed workflow another version; then resume the execution"
)


@dataclass(frozen=True, slots=True)
class CallPlace:
    """
    The line that makes a call, and the call's number. One that *undoes* is a compensation.

    Its *kind* is empty if it calls an operation; else it says what the call waits for or notes.
    """

    line: str
    path: Path
    undoes: bool = False
    kind: str = ""

    def __str__(self) -> str:
        what = "undo" if self.undoes else "call"
        kind = f", {self.kind}" if self.kind else ""
        return f"{self.line} ({what} {'.'.join(map(str, self.path))}{kind})"

    @classmethod
    def read(cls, text: str | None) -> CallPlace | None:
        """Return the place that `str` wrote; None for any other text."""
        match = _PLACE.fullmatch(text or "")
        if match is None:
            return None
        path = tuple(map(int, match["path"].split(".")))
        return cls(match["line"], path, match["what"] == "undo", match["kind"] or "")


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
        for run in runs:
            place = CallPlace.read(run.place)
            if place is not None:
                self._by_path[place.path] = run.step_id, place
                self._by_step[run.step_id] = place
        self._left = set(self._by_path)

    def check(self, step_id: str, place: CallPlace) -> AutomateError | None:
        """Return the error if the record has another call in this one's place."""
        self._left.discard(place.path)
        recorded, known = self._by_path.get(place.path), self._by_step.get(step_id)
        if recorded is not None and (recorded[0], recorded[1].kind) != (step_id, place.kind):
            return _changed(recorded[0], recorded[1], f"{step_id} at {place}")
        if recorded is None and known is not None:
            return _changed(step_id, known, f"{step_id} at {place}")
        return None

    def reaches(self, scope: Path, number: int) -> bool:
        """Return True if calls of *scope* are recorded from *number* on."""
        depth = len(scope)
        return any(
            len(path) > depth and path[:depth] == scope and path[depth] >= number
            for path in self._by_path
        )

    def unrepeated(self) -> AutomateError | None:
        """Return the error if the workflow has ended without a call that is recorded."""
        if not self._left:
            return None
        step_id, place = self._by_path[min(self._left)]
        return _changed(step_id, place, "the workflow ends without it")


def _changed(step_id: str, place: CallPlace, now: str) -> AutomateError:
    return AutomateError(
        ErrorCodes.FAILED_PRECONDITION,
        f"the code does not repeat what is recorded: recorded is {step_id} at {place}; now {now}",
        hint=_REMEDY,
    )


# -- going on after an end -------------------------------------------------------------------------


def forgotten_on_resume(
    runs: Sequence[StepRun], step_id: str | None, workflow: str
) -> list[StepRun]:
    """
    Return the runs that an execution must forget, so that it goes on after its end.

    These are the calls that it ended at and that did not complete; a failure that the code has
    dealt with stays. With *step_id* they are that call and all that follow from it. Raises
    `WorkflowError` if there is no such call, and if compensations have undone what was done.
    """
    placed = [(place.path, place, run) for run in runs if (place := CallPlace.read(run.place))]
    stopped = [run for run in runs if run.status is not StepStatus.COMPLETED]
    if step_id is not None:
        start = next((path for path, _, run in placed if run.step_id == step_id), None)
        if start is None:
            there_are = ", ".join(run.step_id for run in runs) or "none"
            raise WorkflowError(
                f"the execution has no step {step_id!r} to go on from", hint=f"it has {there_are}"
            )
        return [run for path, _, run in placed if _follows(path, start)] + [
            run for run in stopped
            if run.status is not StepStatus.FAILED and not _follows(_path(run), start)
        ]  # fmt: skip
    last = _last_calls([path for path, _, _ in placed], ())
    undone = [run.step_id for path, place, run in placed if path in last and place.undoes]
    if undone:
        raise WorkflowError(
            f"workflow {workflow!r} has undone what it had done: {', '.join(undone)}",
            hint="name the step to go on from, before what was undone; or start it again",
        )
    return [
        run for run in stopped if run.status is not StepStatus.FAILED or _path(run) in last
    ]  # fmt: skip


def _path(run: StepRun) -> Path:
    place = CallPlace.read(run.place)
    return place.path if place is not None else ()


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
