"""The first page: what needs a person, and what happened last."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from automate_pages.exchange import PageAnswer, PageRequest
from automate_pages.formats import duration, number, shorten, shown_text
from automate_pages.lists import ExecutionConditions
from automate_pages.screens import executions, outbox
from automate_pages.screens.workflows import workflow_names

_LATEST = 10
_LATE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Card:
    """A figure that may need somebody, with the page that shows what is behind it."""

    label: str
    figure: str
    url: str
    tone: str = ""
    note: str = ""


def show(request: PageRequest) -> PageAnswer:
    """Show the failures by cause, what waits for people, and the latest executions."""
    kernel, tenant = request.kernel, request.user.tenant
    latest = kernel.executions.page(limit=_LATEST, tenant_id=tenant)
    return PageAnswer(
        "home.html",
        "Home",
        {
            "cards": list(_cards(request)),
            "causes": executions.causes(request, ExecutionConditions(), tenant),
            "items": outbox.causes(request),
            "latest": latest.executions,
            "names": workflow_names(request),
        },
        live=True,
    )


def _cards(request: PageRequest) -> Iterator[Card]:
    waiting = request.kernel.approvals.pending(
        by=request.user.name, roles=request.user.roles, tenant_id=request.user.tenant
    )
    asked = f"{len(waiting.approvals)}{'+' if waiting.after else ''}"
    tone = "warn" if waiting.approvals else ""
    yield Card("Approvals for you", asked, request.url("approvals"), tone)
    if request.user.tenant is None:  # the other figures are those of all tenants together
        yield from _of_executions(request)
        yield from _of_items(request)
        yield _of_workers(request)


def _of_executions(request: PageRequest) -> Iterator[Card]:
    counts = request.kernel.executions.stats().counts.values()
    failed = sum(each.get("FAILED", 0) for each in counts)
    goes_on = sum(n for each in counts for status, n in each.items() if status != "FAILED")
    where = request.url("executions", status="FAILED")
    yield Card("Failed executions", number(failed), where, "bad" if failed else "ok")
    where = request.url("executions", status="RUNNING")
    yield Card("Executions that go on", number(goes_on), where)


def _of_items(request: PageRequest) -> Iterator[Card]:
    store = request.kernel.outbox
    stats = store.stats()
    failed, late = stats.total("FAILED"), stats.oldest_due_seconds
    where = request.url("outbox", status="FAILED")
    yield Card("Failed items", number(failed), where, "bad" if failed else "ok")
    if late is not None and late > _LATE_SECONDS:
        where = request.url("outbox", waiting_for="worker")
        yield Card("Oldest due item", f"{duration(late)} late", where, "warn")
    if stats.paused:
        kinds = shorten(", ".join(stats.paused), 80)
        where = request.url("outbox", waiting_for="resume")
        yield Card("Paused kinds", number(len(stats.paused)), where, "warn", kinds)
    if handed := store.count_handed_on():
        notes = [item.handover for item in store.handed_on(limit=1) if item.handover]
        reason = shown_text(request.kernel, notes[0].reason, 120).text if notes else ""
        yield Card("Wait for another worker", number(handed), request.url("outbox"), "warn", reason)


def _of_workers(request: PageRequest) -> Card:
    workers = request.kernel.outbox.workers()
    alive = sum(each.alive for each in workers)
    gone = len(workers) - alive
    note = f"{gone:,} lost or unable to begin" if gone else ""
    return Card("Workers", number(alive), request.url("workers"), "ok" if alive else "bad", note)
