"""The parts of an execution that may go on: steps, elements of lists, runs that are due."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from operator import itemgetter
from typing import Any

from automate_kernel.base.errors import AutomateError
from automate_kernel.workflows.decide.program import Inside
from automate_kernel.workflows.definition.model import Step
from automate_kernel.workflows.execution import StepKey, StepRun, StepStatus


class Waits:
    """The runs that wait for their retry, on a clock that only `pass_time` moves."""

    def __init__(self, left: Mapping[StepKey, float]) -> None:
        self._clock = 0.0
        self.due: dict[StepKey, float] = dict(left)
        """The times at which they are due, by runs."""
        self._queue = [(due, key) for key, due in self.due.items()]
        heapify(self._queue)

    def pass_time(self, seconds: float) -> None:
        """Move the clock on."""
        self._clock += seconds

    def add(self, key: StepKey, delay: float) -> None:
        """Let *key* wait for *delay* seconds from now."""
        self.due[key] = due = self._clock + delay
        heappush(self._queue, (due, key))

    def drop(self, key: StepKey) -> None:
        """Let *key* wait no longer."""
        self.due.pop(key, None)
        if not self.due:
            self._queue.clear()  # who looks at `due` alone leaves nothing behind

    def is_due(self, key: StepKey) -> bool:
        """Return True if *key* waits for a time, and that has come."""
        return key in self.due and not self.holds(key)

    def holds(self, key: StepKey) -> bool:
        """Return True if the time of *key* has not come."""
        return self.due.get(key, self._clock) > self._clock

    def take_due(self) -> list[StepKey]:
        """Return the runs whose time has come since the last call."""
        due = []
        while self._queue and self._queue[0][0] <= self._clock:
            at, key = heappop(self._queue)
            if self.due.get(key) == at:
                due.append(key)
        return due

    def until_next(self) -> float | None:
        """Return the seconds until the next run is due; None if none waits."""
        while self._queue and self.due.get(self._queue[0][1]) != self._queue[0][0]:
            heappop(self._queue)
        return self._queue[0][0] - self._clock if self._queue else None


class Agenda:
    """
    The steps that may begin or go on, since all that they need has ended, in the workflow's order.

    It counts the open needs of each step, so that a turn looks at none that has to wait.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        needs: Mapping[str, Sequence[str]],
        ended: Callable[[str], bool],
    ) -> None:
        self._steps = {step.id: (place, step) for place, step in enumerate(steps)}
        self._left: set[str] = set()
        self._open: dict[str, int] = {}
        self._followers: dict[str, list[str]] = {}
        self._ready: list[tuple[int, Step]] = []
        for place, step in self._steps.values():
            if ended(step.id):
                continue
            self._left.add(step.id)
            waited_for = [need for need in set(needs[step.id]) if not ended(need)]
            for need in waited_for:
                self._followers.setdefault(need, []).append(step.id)
            if waited_for:
                self._open[step.id] = len(waited_for)
            else:
                self._ready.append((place, step))

    def ready(self) -> list[Step]:
        """Return the steps whose needs have ended, and that have not ended themselves."""
        return [step for _, step in self._ready]

    def __bool__(self) -> bool:
        return bool(self._left)

    def end(self, step_id: str) -> None:
        """Note that a step has ended."""
        self._left.discard(step_id)
        self._ready = [entry for entry in self._ready if entry[1].id != step_id]
        for follower in self._followers.pop(step_id, ()):
            self._open[follower] -= 1
            if not self._open[follower]:
                insort(self._ready, self._steps[follower], key=itemgetter(0))


NO_AGENDA = Agenda((), {}, bool)
"""One without steps."""


@dataclass(slots=True)
class Elements:
    """The elements of one step's ``for_each``: those that may begin, run, or have failed."""

    values: list[Any]
    ready: list[int] = field(default_factory=list)
    """Those that may begin, as a heap: their positions, which are negated if *backwards*."""
    begun: list[int] = field(default_factory=list)
    """Those of a block that had begun before, and go on."""
    calls: int = 0
    """The calls in flight inside the elements of a block."""
    running: int = 0
    """Those that run, and those that wait for a signal or a sub-workflow."""
    waiting: int = 0
    unfinished: int = 0
    failed: StepRun | None = None
    stops: bool = True
    """True if none begins once one has failed."""
    backwards: bool = False
    """True if the last in the list begins first."""
    round: int = 0
    """The number of a loop's round: its only element."""
    over: bool = False
    """True for a loop that ends with this round."""

    @classmethod
    def of(
        cls,
        step_id: str,
        values: list[Any],
        runs: Mapping[StepKey, StepRun],
        waits: Waits,
        chosen: Sequence[int] | None = None,
        begun: Collection[int] = (),
    ) -> Elements:
        """
        Return the elements of a step; its *runs* may have come some way already.

        With *chosen*, only the elements at these positions count, and all of them are tried. Of a
        block, *begun* are the elements that steps inside have rows of.
        """
        elements = cls(values, stops=chosen is None)
        for position in range(len(values)) if chosen is None else chosen:
            key = (step_id, position)
            run = runs.get(key)
            if run is not None and run.status is StepStatus.COMPLETED:
                continue
            elements.unfinished += 1
            if run is not None and run.status is StepStatus.WAITING:
                elements.running += 1
                elements.waiting += 1
            elif run is not None and run.status is StepStatus.FAILED:
                elements.note_failed(run)
            elif position in begun:
                elements.running += 1
                elements.begun.append(position)
            elif (run is None or not run.status.finished) and not waits.holds(key):
                elements.ready.append(position)  # ascending, and so a heap
        return elements

    @classmethod
    def of_loop(
        cls,
        step_id: str,
        number: int,
        runs: Mapping[StepKey, StepRun],
        waits: Waits,
        begun: Collection[int] = (),
    ) -> Elements:
        """Return the round of a loop that runs, or is the next one."""
        elements = cls.of(step_id, [], runs, waits, (number,), begun)
        elements.stops, elements.round = True, number
        return elements

    def next_round(self, number: int) -> None:
        """Let round *number* begin."""
        self.round, self.ready, self.unfinished = number, [number], 1

    def turn_round(self) -> None:
        """Let the last in the list begin first."""
        self.backwards, self.ready = True, [-position for position in reversed(self.ready)]

    def note_failed(self, run: StepRun) -> None:
        """Note a failed run; the first in the list counts, whichever failed first."""
        if self.failed is None or run.position < self.failed.position:
            self.failed = run

    def take(self, limit: int) -> int | None:
        """Return the position of the next element to begin, if fewer than *limit* run."""
        if (self.failed is not None and self.stops) or self.running >= limit or not self.ready:
            return None
        position = heappop(self.ready)
        return -position if self.backwards else position

    def put_back(self, position: int) -> None:
        """Let the element at *position* begin again: its retry is due."""
        heappush(self.ready, -position if self.backwards else position)


@dataclass(slots=True, eq=False)
class BlockScope:
    """The inside of a block that runs, for one element of it (or -1)."""

    block: Step
    position: int
    inside: Inside
    agenda: Agenda
    around: BlockScope | None
    failed: AutomateError | None = None
    calls: int = 0
    """The calls in flight in it, and in the blocks inside it."""
    skipped: bool = False
    """True for a switch without a case for its value."""
