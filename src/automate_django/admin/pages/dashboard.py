"""The dashboard: throughput, failures, run time and wait, drawn on the server."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from django.core.cache import cache
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.urls import URLPattern

from automate_django.admin.pages.access import Reach, require_operator
from automate_django.admin.pages.base import Section
from automate_django.admin.pages.figures import counts
from automate_django.admin.pages.rates import (
    RECENT_SECONDS,
    SPANS,
    Span,
    charts,
    history,
    recent,
    spread,
)
from automate_django.kernel import get_kernel
from automate_kernel.outbox import Activity, ItemStatus
from automate_kernel.workflows.engine.statistics import WorkflowActivity

__all__ = ["Dashboard"]

_KEPT_SECONDS = 4


class Dashboard(Section):
    """How the outbox does. It tells of all tenants together, so it is for operators."""

    current = "dashboard"

    def urls(self) -> list[URLPattern]:
        """The page, and the part of it that is refreshed."""
        get = self.owner.get
        return [
            get("dashboard/", self.view, "automate_dashboard"),
            get("dashboard/figures/", self.figures_view, "automate_dashboard_figures"),
        ]

    def view(self, request: HttpRequest) -> TemplateResponse:
        """The page."""
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
        """The figures and charts alone, for the script that keeps them up to date."""
        require_operator(request)
        return self.owner.fragment(
            request, "_dashboard.html", **self._figures(_span(request), now=True)
        )

    def _figures(self, span: Span, *, now: bool) -> dict[str, Any]:
        outbox = get_kernel().outbox
        moment = outbox.now()
        activity = history(span, moment, now=now)
        rate, failing = recent(outbox.activity(seconds=RECENT_SECONDS), moment)
        workers = outbox.workers()
        found = counts(Reach(everyone=True), now=now)
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
    What became of executions in the last hour, whatever the charts span.

    That is some thousand rows at most; they are read every few seconds, however many look.
    """
    from automate_kernel.outbox.statistics import total_by_kind

    kernel = get_kernel()
    where = sha256(kernel.storage.describe().encode()).hexdigest()[:32]
    key = f"automate-pages-workflows-{where}"
    found: list[WorkflowActivity] | None = cache.get(key)
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


def _span(request: HttpRequest) -> Span:
    return SPANS.get(request.GET.get("span", ""), SPANS["1h"])


def _by_kind(activity: list[Activity]) -> list[dict[str, Any]]:
    from automate_kernel.outbox.statistics import total_by_kind

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
