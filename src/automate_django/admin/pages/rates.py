"""What workers did, gathered into the columns of a chart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils import timezone

from automate_django.admin.pages.charts import Chart, Series, bars, lines
from automate_django.templatetags.automate_pages import duration
from automate_kernel.outbox import Activity

__all__ = ["SPANS", "Span", "charts", "recent", "spread"]


@dataclass(frozen=True, slots=True)
class Span:
    """How far back a dashboard looks, and in what steps."""

    name: str
    label: str
    seconds: int
    step: int
    each: str


SPANS: dict[str, Span] = {
    span.name: span
    for span in (
        Span("1h", "Last hour", 3_600, 60, "minute"),
        Span("6h", "Last 6 hours", 21_600, 300, "5 minutes"),
        Span("24h", "Last 24 hours", 86_400, 3_600, "hour"),
    )
}


def spread(
    activity: Iterable[Activity], span: Span, now: datetime
) -> list[tuple[datetime, Activity | None]]:
    """One entry per step of *span* up to *now*: its beginning, and what was done in it."""
    step = timedelta(seconds=span.step)
    last = _floor(now, span.step)
    starts = [last - step * i for i in range(span.seconds // span.step - 1, -1, -1)]
    found: dict[datetime, Activity] = {}
    for one in activity:
        at = _floor(one.at, span.step)
        found[at] = found[at] + one if at in found else one
    return [(start, found.get(start)) for start in starts]


def _floor(moment: datetime, step: int) -> datetime:
    since = int(moment.timestamp())
    return datetime.fromtimestamp(since - since % step, tz=moment.tzinfo)


def charts(spread_out: Sequence[tuple[datetime, Activity | None]], span: Span) -> list[Chart]:
    """Throughput, failures, run time and wait, each over the time of *spread_out*."""
    labels = [timezone.localtime(at).strftime("%H:%M") for at, _ in spread_out]
    done = [one for _, one in spread_out]

    def counted(name: str) -> list[float | None]:
        return [None if one is None else float(getattr(one, name)) for one in done]

    def timed(name: str, share: float) -> list[float | None]:
        return [None if one is None else getattr(one, f"{name}_percentile")(share) for one in done]

    return [
        bars(
            f"Attempts per {span.each}",
            labels,
            [
                Series("completed", counted("completed"), "ok"),
                Series("to be retried", counted("retried"), "warn"),
                Series("failed", counted("failed"), "bad"),
            ],
        ),
        lines(
            "Failing attempts",
            labels,
            [
                Series(
                    "retried or failed", [_share(one, "retried", "failed") for one in done], "warn"
                ),
                Series("failed for good", [_share(one, "failed") for one in done], "bad"),
            ],
            write=_percent,
        ),
        lines(
            "Run time",
            labels,
            [Series("p95", timed("run", 0.95), "warn"), Series("p50", timed("run", 0.5), "run")],
            write=duration,
        ),
        lines(
            "Wait from due to begun",
            labels,
            [Series("p95", timed("wait", 0.95), "warn"), Series("p50", timed("wait", 0.5), "run")],
            write=duration,
        ),
    ]


def _share(one: Activity | None, *names: str) -> float | None:
    if one is None or not one.total:
        return None
    return float(100.0 * sum(getattr(one, name) for name in names) / one.total)


def _percent(value: float) -> str:
    return f"{value:.3g}%"


def recent(
    activity: Iterable[Activity], now: datetime, *, minutes: int = 5
) -> tuple[float, float | None]:
    """Attempts per minute, and the share of failing ones, over the last *minutes* that are over."""
    end = _floor(now, 60)
    rows = [one for one in activity if end - timedelta(minutes=minutes) <= one.at < end]
    total = sum(one.total for one in rows)
    failing = sum(one.retried + one.failed for one in rows)
    return total / minutes, (failing / total if total else None)
