"""The first page: what needs a person, how much is done and how fast, and what happened last."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from automate_kernel.outbox.failed_attempts import ErrorGroup
from automate_kernel.outbox.statistics import total_by_kind
from automate_kernel.storage.statuses import ExecutionStatus, ItemStatus
from automate_kernel.workflows.store.statistics import ExecutionStats
from automate_pages.activity import SPANS, TimeSpan, execution_charts, item_charts, spread
from automate_pages.charts import Chart
from automate_pages.exchange import PageAnswer, PageLink, PageRequest
from automate_pages.formats import duration, first_waits_shown, number, shorten, shown_text
from automate_pages.lists import ExecutionConditions, FailureCause
from automate_pages.screens import executions, outbox
from automate_pages.screens.workflows import workflow_names

_LATEST = 10
_LATE_SECONDS = 60.0
_MISSED = timedelta(minutes=1)
_NEW = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Card:
    """A figure that may need somebody, with the page that shows what is behind it."""

    label: str
    figure: str
    url: str
    tone: str = ""
    note: str = ""


def show(request: PageRequest) -> PageAnswer:
    """Show the failures by cause, what waits for people, the charts, the latest executions."""
    kernel, tenant = request.kernel, request.user.tenant
    now, sees_executions = kernel.outbox.now(), request.may("view", "executions")
    latest = kernel.executions.page(limit=_LATEST, tenant_id=tenant) if sees_executions else None
    span = SPANS.get(request.text("span"), SPANS["1h"])
    return PageAnswer(
        "home.html",
        "Home",
        {
            "cards": list(_cards(request, now)),
            "causes": _causes(request, now) if sees_executions else [],
            "items": [
                replace(cause, new=_is_new(cause.group, now))
                for cause in (outbox.causes(request) if request.may("view", "outbox") else ())
            ],
            "spans": [
                PageLink(each.label, request.url(span=each.name), each is span)
                for each in SPANS.values()
            ],
            **(_figures(request, span, now) if tenant is None else {"charts": [], "totals": []}),
            "latest": None if latest is None else latest.executions,
            "waits": {} if latest is None else first_waits_shown(kernel, latest.executions),
            "names": workflow_names(request) if request.may("view", "workflows") else [],
        },
        live=True,
    )


def _causes(request: PageRequest, now: datetime) -> list[FailureCause]:
    store, tenant = request.kernel.executions, request.user.tenant
    causes = executions.causes(request, ExecutionConditions(), tenant)
    if not causes:
        return []
    hours = [
        store.count_failures(since=now - (back + 1) * _NEW, until=now - back * _NEW,
                             tenant_id=tenant)
        for back in (0, 1)
    ]  # fmt: skip
    return [
        replace(
            cause,
            new=_is_new(cause.group, now),
            trend=_trend(*(its.get((cause.group.kind, cause.group.group), 0) for its in hours)),
        )
        for cause in causes
    ]


def _is_new(group: ErrorGroup, now: datetime) -> bool:
    return group.first_at is not None and now - group.first_at < _NEW


def _trend(last: int, before: int) -> str:
    if not last and not before:
        return ""
    arrow = (
        "\N{UPWARDS ARROW}" if last > before else "\N{DOWNWARDS ARROW}" if last < before else "="
    )
    return f"{arrow} {last:,} of the last hour, {before:,} of the hour before"


# -- what needs a person -----------------------------------------------------------------------


def _cards(request: PageRequest, now: datetime) -> Iterator[Card]:
    user = request.user
    if request.may("view", "approvals"):
        by, roles = (None, ()) if user.stands_in else (user.name, user.asked_as)
        waiting = request.kernel.approvals.pending(by=by, roles=roles, tenant_id=user.tenant)
        asked = f"{len(waiting.approvals)}{'+' if waiting.after else ''}"
        tone = "warn" if waiting.approvals else ""
        yield Card("Approvals for you", asked, request.url("approvals"), tone)
    if user.tenant is not None:
        return  # the other figures are those of all tenants together
    if request.may("view", "executions"):
        yield from _of_executions(request, request.kernel.executions.stats())
    if request.may("view", "outbox"):
        yield from _of_items(request)
    if request.may("view", "workers"):
        yield from _of_workers(request, now)
    if request.may("view", "workflows"):
        yield from _of_workflows(request, request.kernel.executions.stats(), now)


def _of_executions(request: PageRequest, stats: ExecutionStats) -> Iterator[Card]:
    counts = stats.counts.values()
    failed = sum(each.get(ExecutionStatus.FAILED, 0) for each in counts)
    goes_on = sum(
        n for each in counts for status, n in each.items() if status != ExecutionStatus.FAILED
    )
    where = request.url("executions", status=ExecutionStatus.FAILED)
    yield Card("Failed executions", number(failed), where, "bad" if failed else "ok")
    where = request.url("executions", status=ExecutionStatus.RUNNING)
    yield Card("Executions that go on", number(goes_on), where)


def _of_items(request: PageRequest) -> Iterator[Card]:
    store = request.kernel.outbox
    stats = store.stats()
    failed, late = stats.total(ItemStatus.FAILED), stats.oldest_due_seconds
    where = request.url("outbox", status=ItemStatus.FAILED)
    yield Card("Failed items", number(failed), where, "bad" if failed else "ok")
    if late is not None and late > _LATE_SECONDS:
        where = request.url("outbox", waiting_for="worker")
        yield Card("Oldest due item", duration(late), where, "warn", "late")
    if stats.paused:
        kinds = shorten(", ".join(stats.paused), 80)
        yield Card("Paused kinds", number(len(stats.paused)), request.url("kinds"), "warn", kinds)
    later = any("time" in its for its in stats.waiting.values())
    if handed := store.count_handed_over() if later or not stats.waiting else 0:
        notes = [item.handover for item in store.handed_over(limit=1) if item.handover]
        reason = shown_text(request.kernel, notes[0].reason, 120).text if notes else ""
        yield Card("Wait for another worker", number(handed), request.url("outbox"), "warn", reason)


def _of_workers(request: PageRequest, now: datetime) -> Iterator[Card]:
    workers = request.kernel.outbox.workers()
    alive = sum(each.alive for each in workers)
    gone = len(workers) - alive
    note = f"{gone:,} lost or unable to begin" if gone else ""
    tone = "bad" if gone or not alive else "ok"
    yield Card("Workers", number(alive), request.url("workers"), tone, note)
    stuck = [
        item for item in request.kernel.outbox.running(limit=200)
        if item.lease_expires_at is not None and item.lease_expires_at < now
    ]  # fmt: skip
    if stuck:
        note = "their workers have not been heard of"
        yield Card("Stuck leases", number(len(stuck)), request.url("workers"), "bad", note)


def _of_workflows(request: PageRequest, stats: ExecutionStats, now: datetime) -> Iterator[Card]:
    kernel = request.kernel
    missed = [each for each in kernel.schedules.find()
              if each.paused_at is None and each.overdue(now) > _MISSED]  # fmt: skip
    if missed:
        names = shorten(", ".join(sorted({each.workflow.name for each in missed})), 80)
        where = request.url("workflows", missed[0].workflow.name)
        yield Card("Missed schedules", number(len(missed)), where, "bad", names)
    if paused := sorted(stats.paused):
        where, names = request.url("workflows"), shorten(", ".join(paused), 80)
        yield Card("Paused workflows", number(len(paused)), where, "warn", names)
    if unreadable := kernel.workflows.problems():
        where = request.url("workflows")
        yield Card("Workflows that can't be read", number(len(unreadable)), where, "bad")


# -- throughput and latency --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ActivityTotal:
    """The work of one workflow or kind in a period; times are in seconds, *failing* in per cent."""

    kind: str
    completed: int
    failed: int
    failing: float
    p50: float | None
    p95: float | None


def _figures(request: PageRequest, span: TimeSpan, now: datetime) -> dict[str, Any]:
    """Return the charts of *span*; None while they are being gathered."""
    history = request.history
    ends = None if history is None else history.executions(span)
    work = None if history is None else history.items(span)
    if ends is None or work is None:
        return {"charts": None, "totals": []}
    charts: Sequence[Chart] = [
        *execution_charts(spread(ends, span, now), span, request.local),
        *item_charts(spread(work, span, now), span, request.local),
    ]
    shown = [each for each in charts if not each.empty]
    return {"charts": shown, "totals": [("Workflow", _totals(ends)), ("Kind", _totals(work))]}


def _totals(rows: Iterable[Any]) -> list[ActivityTotal]:
    found = [
        ActivityTotal(
            one.kind,
            one.completed,
            one.failed,
            100 * one.failed / max(1, one.completed + one.failed),
            one.run_percentile(0.5),
            one.run_percentile(0.95),
        )
        for one in total_by_kind(rows).values()
    ]
    return sorted(found, key=lambda one: -(one.completed + one.failed))
