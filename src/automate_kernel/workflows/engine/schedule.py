"""
When a scheduled workflow fires: the next time after a moment, and what is due now.

Times go in and come out aware and in UTC. `cronsim` reads cron lines; it comes with the extra
``schedule``, and is only needed where cron lines are used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from itertools import islice
from typing import TYPE_CHECKING

from automate_kernel.errors import ConfigError, WorkflowError

if TYPE_CHECKING:
    from cronsim import CronSim

    from automate_kernel.workflows.definition.triggers import ScheduleTrigger

__all__ = ["cron_problem", "due", "next_fire", "upcoming"]

_UTC = timezone.utc
_EPOCH = datetime(1970, 1, 1, tzinfo=_UTC)
_MICROSECOND = timedelta(microseconds=1)
_FIELDS = "five fields: minute, hour, day of month, month, day of week"
_MACROS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


def next_fire(trigger: ScheduleTrigger, after: datetime) -> datetime:
    """
    The first time, in UTC, at which *trigger* fires after *after*.

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
    """The times at which *trigger* fires after *after*, without end."""
    while True:
        after = next_fire(trigger, after)
        yield after


def due(
    trigger: ScheduleTrigger, last: datetime, now: datetime, *, limit: int = 100
) -> list[datetime]:
    """
    The times after *last*, up to *now*, that are to be fired now: the oldest first.

    After a pause only the newest of them counts, because an hourly report is not wanted
    twelve times in the morning. With ``catch_up`` all of them do: the oldest *limit* at a time, so
    call again with the last one returned as *last* until nothing comes back.
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
    """The last fire in (last, now], found in few steps however long the pause was."""
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


def require_cron() -> None:
    """Raise `ConfigError` if what reads cron lines is not installed."""
    try:
        import cronsim  # noqa: F401
    except ImportError:
        raise ConfigError(
            "cron lines need the package cronsim",
            hint="install it with: pip install 'automate-kernel[schedule]'",
        ) from None


def cron_problem(text: str) -> tuple[str, str] | None:
    """
    What is wrong with a cron line, and the remedy; None if nothing is.

    Without `cronsim` only the number of fields is checked.
    """
    shown = repr(text[:60])
    if text.strip().startswith("@"):
        line = _MACROS.get(text.strip().lower())
        remedy = f"write '{line}'" if line else "write the line out"
        return f"cron {shown} is a nickname, which is not supported", f"{remedy}: {_FIELDS}"
    if len(text) > 200 or len(text.split()) not in (5, 6):
        return f"cron {shown} has {len(text.split())} fields", f"give {_FIELDS}"
    try:
        from cronsim import CronSim, CronSimError
    except ImportError:
        return None
    try:
        next(CronSim(text, datetime(2024, 1, 1, tzinfo=_UTC)))
    except CronSimError as error:
        part = re.sub("^bad ", "", str(error).lower())
        return f"cron {shown} has a wrong {part}", f"give {_FIELDS}; for example '0 9 * * MON-FRI'"
    except StopIteration:
        return f"cron {shown} never fires", "check its day of month against its month"
    return None
