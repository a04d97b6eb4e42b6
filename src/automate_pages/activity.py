"""The activity of the last hour, day or week: gathered once, added up by steps, drawn as charts."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from automate_kernel.base.forks import new_lock
from automate_kernel.kernel import Kernel
from automate_kernel.outbox import Activity
from automate_kernel.outbox.statistics import MinuteTotal
from automate_kernel.secrets.logs import get_logger
from automate_kernel.workflows.store.statistics import ExecutionCounts
from automate_pages.charts import Chart, Series, bars, lines
from automate_pages.formats import duration, utc

logger: logging.Logger = get_logger(__name__)
T = TypeVar("T", bound=MinuteTotal)
# Workers write down what they did within seconds. What is older than this is complete.
_LATE = timedelta(minutes=5)
_AT_ONCE_SECONDS = 3_600


@dataclass(frozen=True, slots=True)
class TimeSpan:
    """A period of the charts, and its steps."""

    name: str
    label: str
    seconds: int
    step: int
    each: str
    clock: str = "%H:%M"
    """The format of its steps' times."""


SPANS: dict[str, TimeSpan] = {
    span.name: span
    for span in (
        TimeSpan("1h", "Last hour", 3_600, 60, "minute"),
        TimeSpan("24h", "Last 24 hours", 86_400, 1_800, "half hour"),
        TimeSpan("7d", "Last 7 days", 604_800, 14_400, "4 hours", clock="%d %b %H:%M"),
    )
}
"""The periods by their names."""


def floor(moment: datetime, step: int) -> datetime:
    """Return the beginning of the step of so many seconds that *moment* is in."""
    since = int(moment.timestamp())
    return datetime.fromtimestamp(since - since % step, tz=moment.tzinfo)


def merged(activity: Iterable[T], step: int) -> list[T]:
    """Add up the minutes of each kind in each step of so many seconds, the earliest first."""
    totals: dict[tuple[datetime, str], T] = {}
    for one in activity:
        at = floor(one.at, step)
        known = totals.get((at, one.kind))
        total = one if known is None else known + one
        totals[at, one.kind] = replace(total, at=at)
    return [totals[each] for each in sorted(totals)]


def spread(activity: Iterable[T], span: TimeSpan, now: datetime) -> list[tuple[datetime, T | None]]:
    """Return the beginning of each step of *span* up to *now*, and the activity in it."""
    found: dict[datetime, T] = {}
    for one in activity:
        at = floor(one.at, span.step)
        found[at] = found[at] + one if at in found else one
    last, step = floor(now, span.step), timedelta(seconds=span.step)
    starts = (last - step * i for i in reversed(range(span.seconds // span.step)))
    return [(start, found.get(start)) for start in starts]


def item_charts(
    spread_out: Sequence[tuple[datetime, Activity | None]],
    span: TimeSpan,
    local: Callable[[datetime], datetime] = utc,
) -> list[Chart]:
    """Draw throughput, failures, run time and wait of items; *local* gives the reader's time."""
    labels = [local(at).strftime(span.clock) for at, _ in spread_out]
    done = [one for _, one in spread_out]

    def counted(name: str) -> list[float | None]:
        return [None if one is None else float(getattr(one, name)) for one in done]

    def timed(name: str, share: float) -> list[float | None]:
        return [None if one is None else getattr(one, f"{name}_percentile")(share) for one in done]

    def shared(*names: str) -> list[float | None]:
        return [
            100.0 * sum(getattr(one, name) for name in names) / one.total
            if one is not None and one.total
            else None
            for one in done
        ]

    attempts = [
        Series("completed", counted("completed"), "ok"),
        Series("to be retried", counted("retried"), "warn"),
        Series("failed", counted("failed"), "bad"),
    ]
    failing = [
        Series("retried or failed", shared("retried", "failed"), "warn"),
        Series("failed for good", shared("failed"), "bad"),
    ]
    run, wait = (
        [Series("p95", timed(name, 0.95), "warn"), Series("p50", timed(name, 0.5), "run")]
        for name in ("run", "wait")
    )
    return [
        bars(f"Attempts per {span.each}", labels, attempts),
        lines("Failing attempts", labels, failing, write=_percent),
        lines("Run time", labels, run, write=duration),
        lines("Wait from due to begun", labels, wait, write=duration),
    ]


def _percent(value: float) -> str:
    return f"{value:.3g}%"


def execution_charts(
    spread_out: Sequence[tuple[datetime, ExecutionCounts | None]],
    span: TimeSpan,
    local: Callable[[datetime], datetime] = utc,
) -> list[Chart]:
    """Draw the ends and the time of executions; *local* gives the reader's time."""
    labels = [local(at).strftime(span.clock) for at, _ in spread_out]
    ends = [
        Series(word, [getattr(one, word, None) for _, one in spread_out], tone)
        for word, tone in (("completed", "ok"), ("cancelled", "warn"), ("failed", "bad"))
    ]
    times = [
        Series(
            label,
            [None if one is None else one.run_percentile(share) for _, one in spread_out],
            tone,
        )
        for label, share, tone in (("p95", 0.95, "warn"), ("p50", 0.5, "run"))
    ]
    return [
        bars(f"Executions per {span.each}", labels, ends),
        lines("Time of executions", labels, times, write=duration),
    ]


@dataclass(slots=True)
class _Gathered:
    """The steps that are over, and the time up to which they are known."""

    until: datetime
    over: list[Any] = field(default_factory=list)


class ActivityHistory:
    """
    The activity of *kernel*, of which steps that are over are read once.

    A long period is gathered by a thread of its own, so that no page waits for it.
    """

    def __init__(self, kernel: Kernel) -> None:
        self._reads: dict[str, Callable[..., list[Any]]] = {
            "items": kernel.outbox.activity,
            "executions": kernel.executions.activity,
        }
        self._now = kernel.outbox.now
        self._known: dict[tuple[str, str], _Gathered] = {}
        self._gathering: set[str] = set()
        self._lock = new_lock()

    def items(self, span: TimeSpan) -> list[Activity] | None:
        """Return the work on items in steps of *span*; None while it is being gathered."""
        return self._read("items", span)

    def executions(self, span: TimeSpan) -> list[ExecutionCounts] | None:
        """Return the ends of executions in steps of *span*; None while it is being gathered."""
        return self._read("executions", span)

    def _read(self, what: str, span: TimeSpan) -> list[Any] | None:
        if (what, span.name) in self._known or span.seconds <= _AT_ONCE_SECONDS:
            return self._look(what, span)
        with self._lock:
            if span.name not in self._gathering:
                self._gathering.add(span.name)
                threading.Thread(target=self._gather, args=(span,), daemon=True).start()
        return None

    def _gather(self, span: TimeSpan) -> None:
        try:
            for what in self._reads:
                self._look(what, span)
        except Exception as error:  # another look may do better
            logger.warning("the activity of %s can't be gathered: %s", span.label, error)
        finally:
            with self._lock:
                self._gathering.discard(span.name)

    def _look(self, what: str, span: TimeSpan) -> list[Any]:
        moment = self._now()
        begin = floor(moment - timedelta(seconds=span.seconds), span.step)
        kept = self._known.get((what, span.name)) or _Gathered(begin)
        since = max(kept.until, begin)
        # A minute more, because it has grown later meanwhile.
        new = self._reads[what](seconds=(moment - since).total_seconds() + 60)
        rows = merged([*kept.over, *(one for one in new if one.at >= since)], span.step)
        rows = [one for one in rows if one.at >= begin]
        complete = floor(moment - _LATE, span.step)
        self._known[what, span.name] = _Gathered(
            complete, [one for one in rows if one.at < complete]
        )
        return rows
