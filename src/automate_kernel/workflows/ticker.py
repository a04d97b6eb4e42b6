"""Fires scheduled workflows, once each however many workers there are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any

from automate_kernel.storage.rows import Now, Rows, Storage, Where
from automate_kernel.storage.tables import SCHEDULE
from automate_kernel.workflows.model import Workflow
from automate_kernel.workflows.schedule import due
from automate_kernel.workflows.triggers import ScheduleTrigger

__all__ = ["Ticker"]

# Called in the transaction that moves the schedule on: the workflow, its trigger, the fire's time.
Fire = Callable[[Rows, Workflow, ScheduleTrigger, datetime], Any]


class Ticker:
    """
    Remembers in the database when each schedule fired last, on the database's clock.

    A schedule that is seen for the first time begins to count then: it doesn't fire for the past.
    """

    def __init__(
        self, storage: Storage, workflows: Callable[[], Iterable[Workflow]], fire: Fire
    ) -> None:
        self._storage = storage
        self._workflows = workflows
        self._fire = fire

    def tick(self) -> int:
        """Fire what is due; returns how many there were."""
        schedules = dict(self._schedules())
        if not schedules:
            return 0
        with self._storage.begin() as rows:
            now = rows.now()
            found = rows.select(SCHEDULE, [Where("id", "in", sorted(schedules))])
        known = {row["id"]: row["last_fired_at"] for row in found}
        self._begin(sorted(schedules.keys() - known.keys()))
        return sum(self._fire_due(key, *schedules[key], last, now) for key, last in known.items())

    def _schedules(self) -> Iterator[tuple[str, tuple[Workflow, ScheduleTrigger]]]:
        for workflow in self._workflows():
            for position, trigger in enumerate(workflow.triggers):
                if isinstance(trigger, ScheduleTrigger):
                    yield f"{workflow.name}#{position}", (workflow, trigger)

    def _begin(self, keys: list[str]) -> None:
        if keys:
            with self._storage.begin() as rows:
                rows.insert(SCHEDULE, [{"id": key, "last_fired_at": Now()} for key in keys])

    def _fire_due(
        self, key: str, workflow: Workflow, trigger: ScheduleTrigger, last: datetime, now: datetime
    ) -> int:
        fired = 0
        for moment in due(trigger, last, now):
            with self._storage.begin() as rows:
                # Compare and set: of all workers that see it due, one moves it on and fires.
                where = [Where("id", "eq", key), Where("last_fired_at", "eq", last)]
                if not rows.update(SCHEDULE, where, {"last_fired_at": moment}):
                    return fired
                self._fire(rows, workflow, trigger, moment)
            last = moment
            fired += 1
        return fired
