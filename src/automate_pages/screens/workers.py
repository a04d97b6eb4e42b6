"""The workers: who works, on what, what each runs now, and the executors that make their calls."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from automate_kernel.outbox.worker_reports import WorkerInfo
from automate_pages.exchange import PageAnswer, PageError, PageRequest
from automate_pages.formats import ShownValue, shown_text


@dataclass(frozen=True, slots=True)
class ExecutorRow:
    """
    An executor, as all workers together use it, the last of which was *seen_at* that time.

    *operations* run there by default; they are None if this process doesn't know it. Steps that
    are held *in_flight* wait in a worker, those *waiting* in the database.
    """

    name: str
    operations: tuple[str, ...] | None
    in_flight: int
    waiting: int
    ended: int
    seen_at: datetime | None
    errors: list[ShownValue]
    problems: list[ShownValue]


def show(request: PageRequest) -> PageAnswer:
    """Show the workers and what runs; they are the installation's, not a tenant's."""
    if request.user.tenant is not None:
        raise PageError(403, "workers belong to all tenants, and you see one tenant's rows alone")
    outbox = request.kernel.outbox
    workers = outbox.workers()
    return PageAnswer(
        "workers.html",
        "Workers",
        {
            "workers": [(each, shown_text(request.kernel, each.problem, 500)) for each in workers],
            "executors": _executors(request, workers),
            "running": outbox.running(limit=50),
            "now": outbox.now(),
            "steers": request.may("steer", "outbox"),
        },
        live=True,
    )


def _executors(request: PageRequest, workers: Iterable[WorkerInfo]) -> list[ExecutorRow]:
    kernel = request.kernel
    uses = [(each, use) for each in workers if not each.lost for use in each.executors]
    known = kernel.executors.placements
    names = dict.fromkeys([*known, *(use.name for _, use in uses)])
    waiting = kernel.executions.waiting_tasks() if names else {}
    rows = []
    for name in sorted({*names, *waiting}):
        its = [(worker, use) for worker, use in uses if use.name == name]
        errors, problems = (
            [
                shown_text(kernel, text, 500)
                for text in dict.fromkeys(getattr(use, field) for _, use in its)
                if text
            ]
            for field in ("error", "problem")
        )
        seen = [each.seen_at for each, _ in its if each.seen_at is not None]
        rows.append(
            ExecutorRow(
                name,
                known[name].operations if name in known else None,
                sum(use.in_flight for _, use in its),
                waiting.get(name, 0),
                sum(use.ended for _, use in its),
                max(seen, default=None),
                errors,
                problems,
            )
        )
    return rows
