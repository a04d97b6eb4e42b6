"""
Starts that an application's transaction holds up.

A start inserts the workflow's definition where it is new, and takes the locks of its conditions.
Another start in a transaction of the application's may have done that, and go on for long: it
calls a service, or is prepared and forgotten. A worker puts the event off then, or the checkpoint
of a parent, since whatever else it has to do would wait with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from automate_kernel.base import runtime
from automate_kernel.storage.rows import Rows
from automate_kernel.workflows.decide.admission import Admission
from automate_kernel.workflows.definition.model import Workflow
from automate_kernel.workflows.execution import Event

Plain = tuple[Workflow, Event, int, datetime]
"""A start without conditions: its workflow, event, priority, and when the event was sent."""

Admitted = tuple[Workflow, Event, int, datetime, Admission]
"""A start with conditions."""

DEFERRED_SECONDS = 2.0
"""An event whose starts are held up is looked at again after so long."""

# Others that the same would hold up are put off without a try.
_KNOWN_SECONDS = 1.0


class LockedStarts:
    """The starts that are held up, as far as this process knows."""

    def __init__(self) -> None:
        # The definitions whose rows were committed: nobody's insert of them is waited for.
        self._stored: set[str] = set()
        self._until: dict[str, float] = {}

    def wait_briefly(
        self, rows: Rows, plain: Sequence[Plain], admitted: Sequence[Admitted]
    ) -> None:
        """Let the transaction of *rows* wait for no other for long, if these starts may have to."""
        if self.may_wait(_started(plain, admitted), [start[4] for start in admitted]):
            rows.wait_briefly()

    def may_wait(
        self, workflows: Iterable[Workflow], admissions: Iterable[Admission | None]
    ) -> bool:
        """Return True if starts of *workflows* may have to wait, or such with *admissions*."""
        new = not self._stored.issuperset(workflow.hash() for workflow in workflows)
        return new or any(one is not None and one.locks for one in admissions)

    def stored(self, workflows: Iterable[Workflow]) -> None:
        """Note that starts of *workflows* are committed."""
        self._stored.update(workflow.hash() for workflow in workflows)

    def note_stored(self, plain: Sequence[Plain], admitted: Sequence[Admitted]) -> None:
        """Note that these starts are committed."""
        self.stored(_started(plain, admitted))

    def note(self, plain: Sequence[Plain], admitted: Sequence[Admitted]) -> None:
        """Note that these starts are held up."""
        now = runtime.monotonic()
        self._until = {key: until for key, until in self._until.items() if until > now}
        self._until |= dict.fromkeys(_in_the_way(plain, admitted), now + _KNOWN_SECONDS)

    def holds(self, plain: Sequence[Plain], admitted: Sequence[Admitted]) -> bool:
        """Return True if one of these starts was held up a moment ago."""
        if not self._until:
            return False
        now = runtime.monotonic()
        return any(self._until.get(key, now) > now for key in _in_the_way(plain, admitted))


def _started(plain: Sequence[Plain], admitted: Sequence[Admitted]) -> list[Workflow]:
    return [start[0] for start in plain] + [start[0] for start in admitted]


def _in_the_way(plain: Sequence[Plain], admitted: Sequence[Admitted]) -> set[str]:
    """Return what may hold these starts up: of those with start locks these, which are narrower."""
    found = {start[0].hash() for start in plain}
    for start in admitted:
        found.update(start[4].locks or [start[0].hash()])
    return found
