"""
The schedule of workflows: their times, the ticker that fires them, and an operator's commands.

Times are aware, and come out in UTC. `cronsim` reads cron lines; it comes with the extra
``schedule``, and is only needed where cron lines are used.
"""

from __future__ import annotations

import hashlib
import json
import logging
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from functools import partial
from itertools import islice, takewhile
from typing import TYPE_CHECKING

from automate_kernel.base.durations import format_duration
from automate_kernel.base.errors import AutomateError, ErrorCodes, StorageError, WorkflowError
from automate_kernel.outbox.item import new_id
from automate_kernel.secrets.logs import get_logger
from automate_kernel.storage.errors import LockedError
from automate_kernel.storage.query import Now, Where
from automate_kernel.storage.rows import Row, Rows, Storage, write, write_bounded
from automate_kernel.storage.tables import SCHEDULE
from automate_kernel.workflows.decide.admission import Admission, SkippedError
from automate_kernel.workflows.definition.admission import Concurrency
from automate_kernel.workflows.definition.model import Workflow
from automate_kernel.workflows.definition.triggers import ScheduleTrigger, require_cron
from automate_kernel.workflows.execution import Event
from automate_kernel.workflows.steer.executions import ExecutionStore
from automate_kernel.workflows.store.catalogue import ALL_TENANTS, AllTenants, Catalogue
from automate_kernel.workflows.store.events import scheduled_event
from automate_kernel.workflows.store.start_locks import acquire_start_locks, announce_skipped
from automate_kernel.workflows.store.starts import backfilled

if TYPE_CHECKING:
    from cronsim import CronSim

__all__ = [
    "Schedule",
    "Schedules",
    "Ticker",
    "as_stored",
    "due",
    "forget_schedules",
    "next_fire",
    "schedules_of",
    "upcoming",
]

logger: logging.Logger = get_logger(__name__)

_NAMESPACE = uuid.UUID("2c1f3b52-7f6d-4b0a-9a0e-6a1f0c9f8f55")
_UTC = timezone.utc
# Of a database: it would refuse the same value for ever.
_REFUSED = ErrorCodes.INVALID_ARGUMENT
_EPOCH = datetime(1970, 1, 1, tzinfo=_UTC)
# So much the clock may differ between a database and its replacement.
_BEHIND = timedelta(minutes=1)
# A time that a worker comes to so long after it is late. Later than that, it was missed.
_LATE = timedelta(minutes=1)
# Places behind the last one at which a schedule is looked for that has moved forward.
_PLACES_BEHIND = 10


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
    trigger: ScheduleTrigger,
    last: datetime,
    now: datetime,
    *,
    limit: int = 100,
    watched_since: datetime | None = None,
) -> list[datetime]:
    """
    Return the times after *last*, up to *now*, that are to be fired now: the oldest first.

    After a pause only the newest of them counts, because an hourly report is not wanted twelve
    times in the morning. With ``catch_up`` all of them count, the oldest *limit* at a time. Then
    call it again with the last time as *last*, until nothing comes back. All times after
    *watched_since* count as well: since then somebody has looked, and none was missed.
    """
    last, now = _aware(last), _aware(now)
    if trigger.catch_up:
        return _first(trigger, last, now, limit)
    if watched_since is not None and watched_since < now:
        late = _first(trigger, max(last, _aware(watched_since)), now, limit)
        if late or last >= watched_since:
            return late
    newest = _newest(trigger, last, now)
    return [] if newest is None else [newest]


def _first(trigger: ScheduleTrigger, after: datetime, now: datetime, limit: int) -> list[datetime]:
    """Return the first *limit* fires in (after, now]."""
    return list(islice(takewhile(lambda fire: fire <= now, upcoming(trigger, after)), limit))


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """
    A schedule of a workflow: its *trigger*, the *number* of it among the workflow's triggers.

    Its state is that of the database: `last_fired_at` is the last time that fired, or the time
    since which it counts. `execution_id` is the execution that it started last, `next_at` the time
    at which it fires next; None while it is paused.
    """

    key: str
    workflow: Workflow
    tenant_id: str | None
    number: int
    trigger: ScheduleTrigger
    last_fired_at: datetime | None = None
    next_at: datetime | None = None
    paused_at: datetime | None = None
    execution_id: str | None = None

    @property
    def about(self) -> str:
        """Its times for people: ``0 9 * * * Europe/Berlin``, or ``every 5m``, and its id."""
        trigger = self.trigger
        own = "" if trigger.id is None else f" ({trigger.id})"
        if trigger.every is not None:
            return f"every {format_duration(trigger.every)}{own}"
        zone = "" if trigger.timezone == "UTC" else f" {trigger.timezone}"
        return f"{trigger.cron}{zone}{own}"

    def upcoming(self, count: int, after: datetime) -> list[datetime]:
        """Return the next *count* times after *after*."""
        return list(islice(upcoming(self.trigger, after), count))

    def overdue(self, now: datetime) -> timedelta:
        """Return for how long it is due; zero if no worker has looked at it yet."""
        last = self.last_fired_at
        missed = due(self.trigger, last, now) if last is not None else []
        # Where several were missed only the newest fires, once its jitter is over.
        if last is None or not missed or missed[0] + self.jitter(missed[0]) > now:
            return timedelta(0)
        (first,) = self.upcoming(1, last)
        return now - first - self.jitter(first)

    def event(self, moment: datetime) -> Event:
        """Return the event of its time *moment*: the same one each time, so that it counts once."""
        event_id = str(uuid.uuid5(_NAMESPACE, f"{self.key}\n{_aware(moment).isoformat()}"))
        return scheduled_event(
            self.workflow, self.tenant_id, self.trigger.payload, moment, event_id
        )

    def jitter(self, moment: datetime) -> timedelta:
        """Return the delay of its time *moment*: a part of its jitter, the same on all workers."""
        digest = hashlib.sha256(f"jitter\n{self.key}\n{_aware(moment).isoformat()}".encode())
        part = int.from_bytes(digest.digest()[:6], "big") / 2**48
        return timedelta(seconds=(self.trigger.jitter or 0.0) * part)


# Called in the transaction that moves a schedule on, with the time of the fire. What it returns is
# called once that is committed.
Fire = Callable[[Rows, Schedule, datetime], "Callable[[], None] | None"]
Call = Callable[[Callable[[], None]], object]
"""Calls a function that sends signals: now, or soon and elsewhere."""


def schedules_of(workflow: Workflow, tenant_id: str | None) -> list[Schedule]:
    """
    Return the schedules of a workflow with the keys that they get where they are new.

    A schedule whose times are changed is another schedule. It begins to count again, and does not
    fire for its new times in the past. A schedule that only moves among the triggers stays the
    same; see `as_stored`.
    """
    found = []
    for number, trigger in enumerate(workflow.triggers):
        if isinstance(trigger, ScheduleTrigger):
            key = _key(workflow, tenant_id, trigger, number)
            found.append(
                Schedule(
                    key=key, workflow=workflow, tenant_id=tenant_id, number=number, trigger=trigger
                )
            )
    return found


def _key(workflow: Workflow, tenant_id: str | None, trigger: ScheduleTrigger, number: int) -> str:
    about = [workflow.name, tenant_id, trigger.cron, trigger.every, trigger.timezone]
    about += [] if trigger.id is None else [trigger.id]
    digest = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:32]
    return f"{workflow.name}#{number}#{digest}"


def as_stored(rows: Rows, schedules: Iterable[Schedule]) -> list[tuple[Schedule, Row | None]]:
    """
    Return *schedules* with the keys that their state is stored under, and that state, if any.

    A key keeps the place that its trigger had at first. So the events and executions that follow
    from it stay the same when other triggers come or go.
    """
    given = list(schedules)
    own = {each.key for each in given}
    known = _states(rows, own)
    places = {
        each.key: [
            _key(each.workflow, each.tenant_id, each.trigger, number)
            for number in range(len(each.workflow.triggers) + _PLACES_BEHIND)
        ]
        for each in given
        if each.key not in known
    }
    moved = _states(rows, {key for keys in places.values() for key in keys} - own)
    found: list[tuple[Schedule, Row | None]] = []
    for each in given:
        row = known.get(each.key)
        left = [moved[key] for key in places.get(each.key, ()) if key in moved]
        if left:
            row = moved.pop(max(left, key=lambda one: one["last_fired_at"])["id"])
        found.append((each if row is None else replace(each, key=row["id"]), row))
    return found


def _states(rows: Rows, keys: Iterable[str]) -> dict[str, Row]:
    found = rows.select(SCHEDULE, [Where("id", "in", sorted(keys))])
    return {row["id"]: row for row in found}


def _begin(storage: Storage, keys: Iterable[str]) -> None:
    """Let schedules that are new begin to count now."""
    if new := [{"id": key, "last_fired_at": Now()} for key in sorted(keys)]:
        write(storage, None, lambda rows: rows.insert(SCHEDULE, new))


def forget_schedules(rows: Rows, workflow: Workflow, tenant_id: str | None) -> None:
    """Let the workflow's schedules begin to count again, once it is switched on again."""
    keys = [each.key for each, _ in as_stored(rows, schedules_of(workflow, tenant_id))]
    rows.update(SCHEDULE, [Where("id", "in", keys)], {"last_fired_at": Now()})


class Ticker:
    """
    The clock of scheduled workflows: each fire happens once, however many workers there are.

    The database holds the last fire of each schedule, by its own clock. A new schedule begins to
    count now: it doesn't fire for the past. Times that come between two looks of a worker, less
    than a minute apart, all fire: none of them was missed for want of a worker.
    """

    def __init__(
        self, storage: Storage, schedules: Callable[[], Iterable[Schedule]], fire: Fire
    ) -> None:
        self._storage = storage
        self._schedules = schedules
        self._fire = fire
        # By key: since when this ticker has looked at a schedule without a break; its last look.
        self._watched: dict[str, tuple[datetime, datetime]] = {}

    def tick(self, call: Call = lambda function: function()) -> int:
        """Fire the schedules that are due; return the number of fires. *call* sends signals."""
        schedules = list(self._schedules())
        if not schedules:
            return 0
        with self._storage.begin(atomic=False) as rows:
            found = as_stored(rows, schedules)
            # After that: who is frozen in between must not take another's fire for a future one.
            now = rows.now()
        _begin(self._storage, (schedule.key for schedule, row in found if row is None))
        going = [
            (schedule, row["last_fired_at"])
            for schedule, row in found
            if row is not None and row["paused_at"] is None
        ]
        since = {
            each.key: self._watched_since(each.key, now)
            for each, row in found
            if row is None or row["paused_at"] is None
        }
        self._watched = {key: (begin, now) for key, begin in since.items()}
        for schedule, last in going:
            if last > now + _BEHIND:
                self._count_again(schedule, last, now)
        fired = 0
        for schedule, last in going:
            times = due(schedule.trigger, last, now, watched_since=since[schedule.key])
            fired += self._fire_times(schedule, last, times, call)
        return fired

    def _watched_since(self, key: str, now: datetime) -> datetime:
        since, seen = self._watched.get(key, (now, now))
        # What could not be fired for longer counts as missed: the database was down for writing.
        return max(since, now - _LATE) if seen <= now <= seen + _LATE else now

    def _count_again(self, schedule: Schedule, last: datetime, now: datetime) -> None:
        """Let a schedule count from *now*: the database's clock was ahead when it fired last."""
        # A time that fired meanwhile has its execution, and makes no second execution.
        with self._storage.begin() as rows:
            if _moved_on(rows, schedule, last, now):
                logger.warning(
                    "the schedule of workflow %r fired at %s, in the future: the database's clock"
                    " was set back, and the schedule counts from now on",
                    schedule.workflow.name, last,
                )  # fmt: skip

    def _fire_times(
        self, schedule: Schedule, last: datetime, times: list[datetime], call: Call
    ) -> int:
        fired = 0
        for moment in times:
            after = None
            fire = partial(self._fired, schedule=schedule, last=last, moment=moment)
            try:
                moved, after = write(self._storage, None, fire)
                if not moved:
                    return fired
            except LockedError as error:
                # The application's transaction has started the same. The next look fires it.
                logger.warning(
                    "the schedule of workflow %r fires later: a transaction that goes on holds up"
                    " what it starts (%s)", schedule.workflow.name, error.message,
                )  # fmt: skip
                return fired
            except AutomateError as error:
                if isinstance(error, StorageError) and error.code is not _REFUSED:
                    raise
                # Another look at it would end the same, and hold up the other schedules.
                with self._storage.begin() as rows:
                    if not _moved_on(rows, schedule, last, moment):
                        return fired
                logger.error("the schedule of workflow %r: %s", schedule.workflow.name, error)
            if after is not None:
                call(after)
            last = moment
            fired += 1
        return fired

    def _fired(
        self, rows: Rows, schedule: Schedule, last: datetime, moment: datetime
    ) -> tuple[bool, Callable[[], None] | None]:
        """Return whether the schedule fires now, here, and what to call after that."""
        rows.wait_briefly()
        if not _moved_on(rows, schedule, last, moment):
            return False, None
        return True, self._fire(rows, schedule, moment)


def _moved_on(rows: Rows, schedule: Schedule, last: datetime, moment: datetime) -> bool:
    """Move *schedule* on to *moment*: of all workers that see it due, only one does."""
    where = [
        Where("id", "eq", schedule.key),
        Where("last_fired_at", "eq", last),
        Where("paused_at", "eq", None),
    ]
    return bool(rows.update(SCHEDULE, where, {"last_fired_at": moment}))


class Schedules:
    """
    The schedules of a kernel's workflows: find them, pause and resume them, fire them by hand.

    A command means all schedules of a workflow, or with *number* that of one trigger: its position
    in the workflow's list of triggers, from 0. With *tenant_id* the workflow is the tenant's own.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        executions: ExecutionStore,
        *,
        sender: object,
    ) -> None:
        self._catalogue, self._executions = catalogue, executions
        self._storage = executions.storage
        self._sender = sender

    def all(self) -> Iterator[Schedule]:
        """Yield the schedules of all workflows that can run, without their state."""
        for entry in self._catalogue.entries():
            if entry.error is None:
                yield from schedules_of(entry.workflow, entry.tenant_id)

    def find(
        self, workflow: str | None = None, *, tenant_id: str | AllTenants | None = ALL_TENANTS
    ) -> list[Schedule]:
        """
        Find schedules with their state, by workflow: all, or those of one *workflow* or tenant.

        None as the tenant means the workflows that belong to no tenant.
        """
        found = [
            each
            for each in self.all()
            if workflow in (None, each.workflow.name)
            and (isinstance(tenant_id, AllTenants) or each.tenant_id == tenant_id)
        ]
        with self._storage.begin(atomic=False) as rows:
            states = as_stored(rows, found)
            now = rows.now()
        stated = [_with_state(each, row, now) for each, row in states]
        return sorted(
            stated, key=lambda each: (each.workflow.name, each.tenant_id or "", each.number)
        )

    def pause(
        self, workflow: str, *, tenant_id: str | None = None, number: int | None = None
    ) -> int:
        """
        Let schedules fire no more until `resume`; return how many were not paused before.

        Executions that have begun go on. A schedule whose times are changed is another one, and
        not paused.
        """
        paused = 0
        for schedule in self._chosen(workflow, tenant_id, number):
            paused += write_bounded(self._storage, None, partial(_paused, key=schedule.key))
        return paused

    def resume(
        self, workflow: str, *, tenant_id: str | None = None, number: int | None = None
    ) -> int:
        """
        Let paused schedules fire again; return how many there were.

        What they missed is made up for only with ``catch_up``, and then each time.
        """
        resumed = 0
        for schedule in self._chosen(workflow, tenant_id, number):
            changes: Row = {"paused_at": None}
            if not schedule.trigger.catch_up:
                changes["last_fired_at"] = Now()
            resumed += write_bounded(
                self._storage, None, partial(_resumed, key=schedule.key, changes=changes)
            )
        return resumed

    def trigger(
        self, workflow: str, *, tenant_id: str | None = None, number: int | None = None
    ) -> str:
        """
        Fire a schedule now, beside its own times, and return the id of the execution.

        Its ``if`` is not asked, and a pause doesn't matter. Raises ``INVALID_ARGUMENT`` if the
        workflow has several and no *number* says which, and ``FAILED_PRECONDITION`` where
        ``overlap: skip`` lets none begin.
        """
        chosen = self._chosen(workflow, tenant_id, number)
        if len(chosen) > 1:
            numbers = ", ".join(f"{each.number} ({each.about})" for each in chosen)
            raise AutomateError(
                ErrorCodes.INVALID_ARGUMENT,
                f"workflow {workflow!r} has {len(chosen)} schedules",
                hint=f"say which by its number: {numbers}",
            )

        def work(rows: Rows) -> str:
            # None of its own times, though it may be the same moment.
            event = replace(chosen[0].event(rows.now()), id=new_id())
            return self._start(rows, chosen[0], event, self._admission(chosen[0], event))

        return write_bounded(self._storage, None, work)

    def backfill(
        self,
        workflow: str,
        start: datetime,
        end: datetime,
        *,
        tenant_id: str | None = None,
        number: int | None = None,
        limit: int = 1000,
        progress: Callable[[int], object] | None = None,
    ) -> int:
        """
        Fire each time of schedules from *start* to *end*, and return how many executions began.

        A time for which there is an execution makes none again: repeat a backfill that was cut
        short. One that a later time has replaced, by ``debounce``, has none. What a schedule's
        ``if`` refuses is left out. Nothing is skipped or debounced: what may not go on at once
        queues. *progress* gets the number of times so far after each. Raises ``INVALID_ARGUMENT``
        if there are more than *limit* times, or *end* is before *start* or not over yet; then none
        is fired.
        """
        chosen = self._chosen(workflow, tenant_id, number)
        start, end = _checked_range(start, end)
        with self._storage.begin(atomic=False) as rows:
            if end > rows.now():
                raise AutomateError(
                    ErrorCodes.INVALID_ARGUMENT,
                    "a backfill can't end in the future",
                    hint="workers fire what is to come",
                )
        times = [
            (schedule, moment)
            for schedule in chosen
            for moment in _between(schedule.trigger, start, end, limit + 1)
        ]
        if len(times) > limit:
            raise AutomateError(
                ErrorCodes.INVALID_ARGUMENT,
                f"a backfill from {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} has more than"
                f" {limit} times",
                hint="take a shorter range, or raise the limit",
            )
        begun = 0
        for count, (schedule, moment) in enumerate(times, 1):
            begun += self._fire_past(schedule, moment)
            if progress is not None:
                progress(count)
        return begun

    def fire(self, rows: Rows, schedule: Schedule, moment: datetime) -> Callable[[], None] | None:
        """Begin the execution of a schedule's time, in the transaction that moves it on."""
        event = schedule.event(moment)
        if not self._catalogue.pulls(schedule.workflow, schedule.trigger, event):
            return None
        admission = self._admission(schedule, event)
        run_at = moment + schedule.jitter(moment) if schedule.trigger.jitter else None
        try:
            self._start(rows, schedule, event, admission, run_at)
        except SkippedError as error:
            skipped = error
            return lambda: announce_skipped(self._sender, schedule.workflow, event, skipped)
        return None

    def _fire_past(self, schedule: Schedule, moment: datetime) -> bool:
        event = schedule.event(moment)
        if not self._catalogue.pulls(schedule.workflow, schedule.trigger, event):
            return False
        admission = self._admission(schedule, event)

        def work(rows: Rows) -> bool:
            if admission is not None and admission.debounce is not None:
                # All of them, in their order: the start locks the others.
                acquire_start_locks(rows, admission.locks)
            execution_id = backfilled(rows, schedule.workflow, event)
            if execution_id is None:
                return False
            self._executions.starts.start(
                rows, schedule.workflow, event, execution_id=execution_id,
                admission=admission and admission.waiting(),
            )  # fmt: skip
            return True

        return write_bounded(self._storage, None, work)

    def _start(
        self,
        rows: Rows,
        schedule: Schedule,
        event: Event,
        admission: Admission | None,
        run_at: datetime | None = None,
    ) -> str:
        its = [Where("id", "eq", schedule.key)]
        # First, as the ticker does: two that lock it and a start lock in turns would wait for ever.
        rows.select(SCHEDULE, its, lock=True, columns=("id",))
        execution_id = self._executions.starts.start(
            rows, schedule.workflow, event, run_at=run_at, admission=admission
        )
        rows.update(SCHEDULE, its, {"execution_id": execution_id})
        return execution_id

    def _admission(self, schedule: Schedule, event: Event) -> Admission | None:
        """Return the conditions on a start by *schedule*: the workflow's own, and its overlap."""
        own, overlap = self._catalogue.admission(schedule.workflow, event), schedule.trigger.overlap
        if overlap == "allow":
            return own
        key = hashlib.sha256(f"schedule\n{schedule.key}".encode()).hexdigest()[:32]
        one = Concurrency(limit=1, when_full=overlap)
        return replace(own or Admission(), concurrency=one, concurrency_key=key)

    def _chosen(self, workflow: str, tenant_id: str | None, number: int | None) -> list[Schedule]:
        # None of another tenant is shown, not even its name.
        known = [each for each in self.all() if each.tenant_id == tenant_id]
        with self._storage.begin(atomic=False) as rows:
            stored = as_stored(rows, (each for each in known if each.workflow.name == workflow))
        found = [each for each, _ in stored if number in (None, each.number)]
        # What a command does is known by the key: the next one must find the same, wherever the
        # trigger stands by then.
        _begin(self._storage, (each.key for each, row in stored if row is None))
        if not found:
            which = "" if number is None else f" with the number {number}"
            names = ", ".join(sorted({each.workflow.name for each in known}))
            numbers = ", ".join(f"{each.number} ({each.about})" for each, _ in stored)
            hint = f"there are schedules of {names}" if names else None
            raise AutomateError(
                ErrorCodes.NOT_FOUND, f"workflow {workflow!r} has no schedule{which}",
                hint=f"it has {numbers}" if numbers else hint,
            )  # fmt: skip
        return found


def _paused(rows: Rows, key: str) -> int:
    its = [Where("id", "eq", key), Where("paused_at", "eq", None)]
    return rows.update(SCHEDULE, its, {"paused_at": Now()})


def _resumed(rows: Rows, key: str, changes: Row) -> int:
    its = [Where("id", "eq", key), Where("paused_at", "ne", None)]
    return rows.update(SCHEDULE, its, changes)


def _with_state(schedule: Schedule, row: Row | None, now: datetime) -> Schedule:
    paused_at = row["paused_at"] if row else None
    return replace(
        schedule,
        last_fired_at=row["last_fired_at"] if row else None,
        next_at=next_fire(schedule.trigger, now) if paused_at is None else None,
        paused_at=paused_at,
        execution_id=row["execution_id"] if row else None,
    )


def _between(
    trigger: ScheduleTrigger, start: datetime, end: datetime, most: int
) -> Iterator[datetime]:
    for moment in islice(upcoming(trigger, start - timedelta(microseconds=1)), most):
        if moment > end:
            return
        yield moment


def _checked_range(start: datetime, end: datetime) -> tuple[datetime, datetime]:
    start, end = _checked_time(start, "start"), _checked_time(end, "end")
    if end < start:
        raise AutomateError(
            ErrorCodes.INVALID_ARGUMENT,
            f"a backfill from {start:%Y-%m-%d %H:%M} can't end before, at {end:%Y-%m-%d %H:%M}",
            hint="pass the earlier time first",
        )
    return start, end


def _checked_time(moment: datetime, name: str) -> datetime:
    if moment.tzinfo is None:
        raise AutomateError(
            ErrorCodes.INVALID_ARGUMENT,
            f"the {name} of a backfill has no time zone",
            hint="pass an aware datetime",
        )
    return moment.astimezone(_UTC)
