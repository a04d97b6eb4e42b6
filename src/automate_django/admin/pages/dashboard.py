"""The dashboard: throughput, failures, run time and wait, drawn on the server."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.core.cache import cache
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.urls import URLPattern
from django.utils import timezone

from automate_django.admin.pages.access import database, require_operator
from automate_django.admin.pages.base import PageSection
from automate_django.kernel import get_kernel
from automate_django.models import OutboxActivity
from automate_django.outbox_counts import cache_key, read_counts
from automate_kernel.outbox import Activity, ItemStatus
from automate_kernel.outbox.statistics import total_by_kind
from automate_kernel.workflows.store.statistics import ExecutionCounts
from automate_pages.activity import (
    RECENT_SECONDS,
    TimeSpan,
    floor,
    item_charts,
    merged,
    recent,
    spread,
)

# Workers write down what they did within seconds. What is older than this is complete.
_LATE = timedelta(minutes=5)
CHEAP_ROWS = 5_000
"""The number of activity rows that are read at each request: it takes 200 ms."""
_KEPT_SECONDS = 4


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
    begin = floor(moment - timedelta(seconds=span.seconds), span.step)
    kept: tuple[datetime, list[Activity]] | None = cache.get(key)
    if kept is None and not now:
        stored = OutboxActivity.objects.using(database()).filter(at__gte=begin)
        if stored[: CHEAP_ROWS + 1].count() > CHEAP_ROWS:
            return None
    since, known = kept or (begin, [])
    since = max(since, begin)
    # A minute more, because it has grown later meanwhile.
    new = outbox.activity(seconds=(moment - since).total_seconds() + 60)
    rows = merged([*known, *(one for one in new if one.at >= since)], span.step)
    rows = [one for one in rows if one.at >= begin]
    complete = floor(moment - _LATE, span.step)
    over = [one for one in rows if one.at < complete]
    cache.set(key, (complete, over), span.seconds)
    return rows


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
            "charts": None
            if activity is None
            else item_charts(spread(activity, span, moment), span, timezone.localtime),
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
