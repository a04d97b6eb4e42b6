"""The dashboard: throughput, failures, run time and wait, drawn on the server."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from django.core.cache import cache
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.urls import URLPattern
from django.utils import timezone

from automate_django.admin.pages.access import database, require_operator
from automate_django.admin.pages.base import PageSection
from automate_django.admin.pages.charts import Chart, Series, bars, lines
from automate_django.kernel import get_kernel
from automate_django.models import OutboxActivity
from automate_django.outbox_counts import cache_key, read_counts
from automate_kernel.outbox import Activity, ItemStatus
from automate_kernel.outbox.statistics import total_by_kind
from automate_kernel.workflows.store.statistics import ExecutionCounts
from automate_pages.formats import duration

# Workers write down what they did within seconds. What is older than this is complete.
_LATE = timedelta(minutes=5)
_RECENT_MINUTES = 5
RECENT_SECONDS = 60 * (_RECENT_MINUTES + 1)
"""The period that `recent` needs."""
CHEAP_ROWS = 5_000
"""The number of activity rows that are read at each request: it takes 200 ms."""
_KEPT_SECONDS = 4


@dataclass(frozen=True, slots=True)
class TimeSpan:
    """A period of the dashboard, its steps, and the milliseconds until it looks again."""

    name: str
    label: str
    seconds: int
    step: int
    each: str
    every: int


SPANS: dict[str, TimeSpan] = {
    span.name: span
    for span in (
        TimeSpan("1h", "Last hour", 3_600, 60, "minute", 5_000),
        TimeSpan("6h", "Last 6 hours", 21_600, 300, "5 minutes", 15_000),
        TimeSpan("24h", "Last 24 hours", 86_400, 3_600, "hour", 30_000),
    )
}


def history(span: TimeSpan, moment: datetime, *, now: bool = True) -> list[Activity] | None:
    """
    Return the activity in *span* up to *moment*, per step and kind, the oldest first.

    Steps that are over are read once and kept in the cache. Without *now*, None if they were not
    read yet and there are so many rows that it would take long.
    """
    outbox, key = get_kernel().outbox, cache_key(get_kernel().storage, f"activity-{span.name}")
    begin = _floor(moment - timedelta(seconds=span.seconds), span.step)
    kept: tuple[datetime, list[Activity]] | None = cache.get(key)
    if kept is None and not now:
        stored = OutboxActivity.objects.using(database()).filter(at__gte=begin)
        if stored[: CHEAP_ROWS + 1].count() > CHEAP_ROWS:
            return None
    since, known = kept or (begin, [])
    since = max(since, begin)
    # A minute more, because it has grown later meanwhile.
    new = outbox.activity(seconds=(moment - since).total_seconds() + 60)
    rows = _merged([*known, *(one for one in new if one.at >= since)], span.step)
    rows = [one for one in rows if one.at >= begin]
    complete = _floor(moment - _LATE, span.step)
    over = [one for one in rows if one.at < complete]
    cache.set(key, (complete, over), span.seconds)
    return rows


def _merged(activity: Iterable[Activity], step: int) -> list[Activity]:
    totals: dict[tuple[datetime, str], Activity] = {}
    for one in activity:
        at = _floor(one.at, step)
        known = totals.get((at, one.kind))
        total = one if known is None else known + one
        totals[at, one.kind] = replace(total, at=at)
    return [totals[each] for each in sorted(totals)]


def spread(
    activity: Iterable[Activity], span: TimeSpan, now: datetime
) -> list[tuple[datetime, Activity | None]]:
    """Return the beginning of each step of *span* up to *now*, and the activity in it."""
    found: dict[datetime, Activity] = {}
    for one in activity:
        at = _floor(one.at, span.step)
        found[at] = found[at] + one if at in found else one
    last, step = _floor(now, span.step), timedelta(seconds=span.step)
    starts = (last - step * i for i in reversed(range(span.seconds // span.step)))
    return [(start, found.get(start)) for start in starts]


def _floor(moment: datetime, step: int) -> datetime:
    since = int(moment.timestamp())
    return datetime.fromtimestamp(since - since % step, tz=moment.tzinfo)


def charts(spread_out: Sequence[tuple[datetime, Activity | None]], span: TimeSpan) -> list[Chart]:
    """Draw throughput, failures, run time and wait over the time of *spread_out*."""
    labels = [timezone.localtime(at).strftime("%H:%M") for at, _ in spread_out]
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


def recent(activity: Iterable[Activity], now: datetime) -> tuple[float, float | None]:
    """Return attempts per minute, and the share of failing ones, over the last five minutes."""
    end = _floor(now, 60)
    rows = [one for one in activity if end - timedelta(minutes=_RECENT_MINUTES) <= one.at < end]
    total = sum(one.total for one in rows)
    failing = sum(one.retried + one.failed for one in rows)
    return total / _RECENT_MINUTES, (failing / total if total else None)


class DashboardPages(PageSection):
    """The figures of the outbox. They are of all tenants together, so they are for operators."""

    current = "dashboard"

    def urls(self) -> list[URLPattern]:
        """Return the page's address, and that of the part that is refreshed."""
        get = self.owner.get
        return [
            get("dashboard/", self.view, "automate_dashboard"),
            get("dashboard/figures/", self.figures_view, "automate_dashboard_figures"),
        ]

    def view(self, request: HttpRequest) -> TemplateResponse:
        """Show the page."""
        require_operator(request)
        span = _span(request)
        return self.page(
            request,
            "dashboard.html",
            "Dashboard",
            spans=SPANS.values(),
            figures_url=f"{self.url('automate_dashboard_figures')}?span={span.name}",
            **self._figures(span, now=request.GET.get("count") == "now"),
        )

    def figures_view(self, request: HttpRequest) -> TemplateResponse:
        """Return the figures and charts alone, for the script that keeps them up to date."""
        require_operator(request)
        figures = self._figures(_span(request), now=True)
        return self.owner.fragment(request, "_dashboard.html", **figures)

    def _figures(self, span: TimeSpan, *, now: bool) -> dict[str, Any]:
        outbox = get_kernel().outbox
        moment = outbox.now()
        activity = history(span, moment, now=now)
        rate, failing = recent(outbox.activity(seconds=RECENT_SECONDS), moment)
        workers = outbox.workers()
        found = read_counts(outbox, now=now)
        return {
            "span": span,
            "charts": None if activity is None else charts(spread(activity, span, moment), span),
            "kinds": _by_kind(activity or []),
            "workflows": _by_workflow(),
            "executions_url": self.url("automate_django_workflowexecution_changelist"),
            "unread": activity is None or found is None,
            "every": max(span.every, 0 if found is None else found.every),
            "counts": found,
            "failed": None if found is None else found.statuses[str(ItemStatus.FAILED)],
            "rate": rate,
            "failing": None if failing is None else failing * 100,
            "alive": [worker for worker in workers if worker.alive],
            "unable": [worker for worker in workers if worker.problem and not worker.lost],
            "lost": [worker for worker in workers if worker.lost],
            "moment": moment,
            "outbox_url": self.url("automate_django_outboxitem_changelist"),
            "workers_url": self.url("automate_workers"),
        }


def _by_workflow() -> list[dict[str, Any]]:
    """
    Return the executions that ended in the last hour, whatever the charts span.

    That is some thousand rows at most; they are read every few seconds, however many look.
    """
    kernel = get_kernel()
    key = cache_key(kernel.storage, "workflows")
    found: list[ExecutionCounts] | None = cache.get(key)
    if found is None:
        found = list(total_by_kind(kernel.executions.activity(seconds=3600)).values())
        cache.set(key, found, _KEPT_SECONDS)
    rows = [
        {
            "total": one,
            "failing": 100 * one.failed / one.ended if one.ended else 0.0,
            "p50": one.run_percentile(0.5),
            "p95": one.run_percentile(0.95),
        }
        for one in found
    ]
    return sorted(rows, key=lambda row: -row["total"].ended)


def _span(request: HttpRequest) -> TimeSpan:
    return SPANS.get(request.GET.get("span", ""), SPANS["1h"])


def _by_kind(activity: list[Activity]) -> list[dict[str, Any]]:
    rows = [
        {
            "total": one,
            "failing": 100 * (one.retried + one.failed) / one.total if one.total else 0.0,
            "run_p50": one.run_percentile(0.5),
            "run_p95": one.run_percentile(0.95),
            "wait_p95": one.wait_percentile(0.95),
        }
        for one in total_by_kind(activity).values()
    ]
    return sorted(rows, key=lambda row: -row["total"].total)
