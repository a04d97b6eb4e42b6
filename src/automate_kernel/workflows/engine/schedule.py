"""
The schedule of workflows: the times at which they fire, and the ticker that fires them.

Times are aware, and come out in UTC. `cronsim` reads cron lines; it comes with the extra
``schedule``, and is only needed where cron lines are used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta, timezone
from itertools import islice
from typing import TYPE_CHECKING, Any

from automate_kernel.errors import WorkflowError
from automate_kernel.storage.rows import Now, Rows, Storage, Where
from automate_kernel.storage.tables import SCHEDULE
from automate_kernel.workflows.definition.model import Workflow
from automate_kernel.workflows.definition.triggers import ScheduleTrigger, require_cron

if TYPE_CHECKING:
    from cronsim import CronSim

__all__ = [
    "Scheduled",
    "Ticker",
    "due",
    "forget_schedules",
    "next_fire",
    "schedules_of",
    "upcoming",
]

_UTC = timezone.utc
_EPOCH = datetime(1970, 1, 1, tzinfo=_UTC)


def next_fire(trigger: ScheduleTrigger, after: datetime) -> datetime:
    """
    Return the first time, in UTC, at which *trigger* fires after *after*.

    Raises `WorkflowError` if there is none in the next fifty years.
    """
    after = _aware(after)
    if trigger.every is not None:
        return _next_multiple(trigger.every, after)
    from zoneinfo import ZoneInfo

    local = after.astimezone(ZoneInfo(trigger.timezone))
    times = _cron(trigger.cron or "", local)
    try:
        # In the hour that autumn repeats, cronsim starts over with its first pass and answers
        # with times that lie in the past; and both ends of a gap can give the same instant.
        return next(fire for fire in (t.astimezone(_UTC) for t in times) if fire > after)
    except StopIteration:
        raise WorkflowError(
            f"cron {trigger.cron!r} has no time after {after:%Y-%m-%d}",
            hint="check its day of month against its month",
        ) from None


def upcoming(trigger: ScheduleTrigger, after: datetime) -> Iterator[datetime]:
    """Yield the times at which *trigger* fires after *after*, without end."""
    while True:
        after = next_fire(trigger, after)
        yield after


def due(
    trigger: ScheduleTrigger, last: datetime, now: datetime, *, limit: int = 100
) -> list[datetime]:
    """
    Return the times after *last*, up to *now*, that are to be fired now: the oldest first.

    After a pause only the newest of them counts, because an hourly report is not wanted twelve
    times in the morning. With ``catch_up`` all of them count, the oldest *limit* at a time. Then
    call it again with the last time as *last*, until nothing comes back.
    """
    last, now = _aware(last), _aware(now)
    if not trigger.catch_up:
        newest = _newest(trigger, last, now)
        return [] if newest is None else [newest]
    fires: list[datetime] = []
    for fire in islice(upcoming(trigger, last), limit):
        if fire > now:
            break
        fires.append(fire)
    return fires


def _newest(trigger: ScheduleTrigger, last: datetime, now: datetime) -> datetime | None:
    """Return the last fire in (last, now]; takes few steps however long the pause was."""
    if trigger.every is not None:
        step = timedelta(seconds=trigger.every)
        newest = _EPOCH + (now - _EPOCH) // step * step
        return newest if newest > last else None
    # Look back over windows that grow, and walk only the first one that holds a fire.
    width, end = timedelta(minutes=2), now
    while end > last:
        start = max(last, now - width)
        fire = next_fire(trigger, start)
        if fire <= now:
            break
        end, width = start, width * 4
    else:
        return None
    for later in upcoming(trigger, fire):
        if later > now:
            return fire
        fire = later
    return None


def _next_multiple(every_seconds: float, after: datetime) -> datetime:
    step = timedelta(seconds=every_seconds)
    return _EPOCH + ((after - _EPOCH) // step + 1) * step


def _aware(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("a schedule needs times with a time zone; this one is naive")
    return moment.astimezone(_UTC)


def _cron(text: str, after: datetime) -> CronSim:
    require_cron()
    from cronsim import CronSim

    return CronSim(text, after)


Scheduled = tuple[Workflow, str | None]
"""A workflow, and the tenant that it belongs to."""

# Called in the transaction that moves the schedule on, with the workflow, its tenant, its trigger
# and the time of the fire.
Fire = Callable[[Rows, Workflow, str | None, ScheduleTrigger, datetime], Any]


def schedules_of(workflow: Workflow, tenant_id: str | None) -> dict[str, ScheduleTrigger]:
    """
    Return the schedules of a workflow by their keys, under which their last fires are stored.

    A schedule that is changed is another one. It begins to count anew, and does not fire for its
    new times in the past.
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
    """Let the workflow's schedules begin to count anew, once it is switched on again."""
    rows.delete(SCHEDULE, [Where("id", "in", list(schedules_of(workflow, tenant_id)))])


class Ticker:
    """
    The clock of scheduled workflows: each fire happens once, however many workers there are.

    The database holds the last fire of each schedule, by its own clock. A new schedule begins to
    count now: it doesn't fire for the past.
    """

    def __init__(
        self, storage: Storage, workflows: Callable[[], Iterable[Scheduled]], fire: Fire
    ) -> None:
        self._storage = storage
        self._scheduled = workflows
        self._fire = fire

    def tick(self) -> int:
        """Fire the schedules that are due; return the number of fires."""
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
