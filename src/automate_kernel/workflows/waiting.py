"""What an `advance` waits for, and what it still has to begin: looked up, never searched for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Any

from automate_kernel.workflows.execution import StepRun, StepStatus

__all__ = ["Elements", "Key", "Waits"]

Key = tuple[str, int]
"""A step's id, and the element's position or -1."""


class Waits:
    """The runs that wait for their retry, on a clock that moves only when it is told to."""

    def __init__(self, left: Mapping[Key, float]) -> None:
        self._clock = 0.0
        self._due = dict(left)
        self._queue = [(due, key) for key, due in self._due.items()]
        heapify(self._queue)

    def __bool__(self) -> bool:
        return bool(self._due)

    def pass_time(self, seconds: float) -> None:
        """Bring all of them nearer."""
        self._clock += seconds

    def add(self, key: Key, delay: float) -> None:
        """Have *key* wait for *delay* seconds from now."""
        self._due[key] = due = self._clock + delay
        heappush(self._queue, (due, key))

    def drop(self, key: Key) -> None:
        """Have *key* wait no longer."""
        self._due.pop(key, None)

    def holds(self, key: Key) -> bool:
        """Whether the time of *key* has not come."""
        return self._due.get(key, self._clock) > self._clock

    def take_due(self) -> list[Key]:
        """Those whose time has come since this was asked last."""
        due = []
        while self._queue and self._queue[0][0] <= self._clock:
            at, key = heappop(self._queue)
            if self._due.get(key) == at:
                due.append(key)
        return due

    def until_next(self) -> float | None:
        """The seconds until another one is due; None if there is none to come."""
        while self._queue and self._due.get(self._queue[0][1]) != self._queue[0][0]:
            heappop(self._queue)
        return self._queue[0][0] - self._clock if self._queue else None


@dataclass(slots=True)
class Elements:
    """What the ``for_each`` of one step goes over: which may begin, how many run, what failed."""

    values: list[Any]
    ready: list[int] = field(default_factory=list)
    running: int = 0
    unfinished: int = 0
    failed: StepRun | None = None

    @classmethod
    def of(
        cls, step_id: str, values: list[Any], runs: Mapping[Key, StepRun], waits: Waits
    ) -> Elements:
        """Those of a step whose *runs* may have come some way already."""
        elements = cls(values)
        for position in range(len(values)):
            key = (step_id, position)
            run = runs.get(key)
            if run is not None and run.status is StepStatus.COMPLETED:
                continue
            elements.unfinished += 1
            if run is not None and run.status is StepStatus.FAILED:
                elements.note_failed(run)
            elif (run is None or not run.status.finished) and not waits.holds(key):
                elements.ready.append(position)  # ascending, and so a heap
        return elements

    def note_failed(self, run: StepRun) -> None:
        """The first in the list counts, whichever failed first."""
        if self.failed is None or run.position < self.failed.position:
            self.failed = run

    def take(self, limit: int) -> int | None:
        """The position of the next one to begin, if there is one and fewer than *limit* run."""
        if self.failed is not None or self.running >= limit or not self.ready:
            return None
        return heappop(self.ready)

    def put_back(self, position: int) -> None:
        """The retry of the one at *position* is due."""
        heappush(self.ready, position)
