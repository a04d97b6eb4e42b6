"""Fires scheduled workflows, once each however many workers there are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any

from automate_kernel.storage.rows import Now, Rows, Storage, Where
from automate_kernel.storage.tables import SCHEDULE
from automate_kernel.workflows.definition.model import Workflow
from automate_kernel.workflows.definition.triggers import ScheduleTrigger
from automate_kernel.workflows.engine.schedule import due

__all__ = ["Scheduled", "Ticker", "forget_schedules", "schedules_of"]

Scheduled = tuple[Workflow, str | None]
"""A workflow, and whose it is."""

# Called in the transaction that moves the schedule on: the workflow, whose it is, its trigger, and
# the fire's time.
Fire = Callable[[Rows, Workflow, str | None, ScheduleTrigger, datetime], Any]


def schedules_of(workflow: Workflow, tenant_id: str | None) -> dict[str, ScheduleTrigger]:
    """
    The schedules of a workflow by the key under which it is remembered when they fired.

    A schedule that is changed is another one: it begins to count anew, and does not fire for what
    its new times would have been in the past.
    """
    found = {}
    for position, trigger in enumerate(workflow.triggers):
        if isinstance(trigger, ScheduleTrigger):
            times = [trigger.cron, trigger.every, trigger.timezone]
            about = json.dumps([workflow.name, tenant_id, *times])
            digest = hashlib.sha256(about.encode()).hexdigest()[:32]
            found[f"{workflow.name}#{position}#{digest}"] = trigger
    return found


def forget_schedules(rows: Rows, workflow: Workflow, tenant_id: str | None) -> None:
    """Have the workflow's schedules begin to count anew, once it is switched on again."""
    rows.delete(SCHEDULE, [Where("id", "in", list(schedules_of(workflow, tenant_id)))])


class Ticker:
    """
    Remembers in the database when each schedule fired last, on the database's clock.

    A schedule that is seen for the first time begins to count then: it doesn't fire for the past.
    """

    def __init__(
        self, storage: Storage, workflows: Callable[[], Iterable[Scheduled]], fire: Fire
    ) -> None:
        self._storage = storage
        self._scheduled = workflows
        self._fire = fire

    def tick(self) -> int:
        """Fire what is due; returns how many there were."""
        schedules = dict(self._schedules())
        if not schedules:
            return 0
        with self._storage.begin(atomic=False) as rows:
            now = rows.now()
            found = rows.select(SCHEDULE, [Where("id", "in", sorted(schedules))])
        known = {row["id"]: row["last_fired_at"] for row in found}
        self._begin(sorted(schedules.keys() - known.keys()))
        return sum(self._fire_due(key, *schedules[key], last, now) for key, last in known.items())

    def _schedules(self) -> Iterator[tuple[str, tuple[Scheduled, ScheduleTrigger]]]:
        for workflow, tenant_id in self._scheduled():
            for key, trigger in schedules_of(workflow, tenant_id).items():
                yield key, ((workflow, tenant_id), trigger)

    def _begin(self, keys: list[str]) -> None:
        if keys:
            with self._storage.begin() as rows:
                rows.insert(SCHEDULE, [{"id": key, "last_fired_at": Now()} for key in keys])

    def _fire_due(
        self,
        key: str,
        scheduled: Scheduled,
        trigger: ScheduleTrigger,
        last: datetime,
        now: datetime,
    ) -> int:
        fired = 0
        for moment in due(trigger, last, now):
            with self._storage.begin() as rows:
                # Compare and set: of all workers that see it due, one moves it on and fires.
                where = [Where("id", "eq", key), Where("last_fired_at", "eq", last)]
                if not rows.update(SCHEDULE, where, {"last_fired_at": moment}):
                    return fired
                self._fire(rows, *scheduled, trigger, moment)
            last = moment
            fired += 1
        return fired
