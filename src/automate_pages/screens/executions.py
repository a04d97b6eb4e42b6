"""The executions: their list, with the causes of those that failed."""

from __future__ import annotations

from automate_kernel.outbox.failed_attempts import ErrorGroup
from automate_pages.exchange import PageAnswer, PageRequest
from automate_pages.lists import MOST_CAUSES, PATIENCE, TIMES, ExecutionConditions
from automate_pages.screens.execution import show
from automate_pages.screens.workflows import workflow_names


def show_list(request: PageRequest) -> PageAnswer:
    """Show a page of executions, the newest first, and the causes of those that failed."""
    kernel, query = request.kernel, ExecutionConditions.read(request)
    wanted = request.query.get("id", "").strip()
    if wanted:
        return show(request, wanted)
    asked = query.matching(request, kernel.outbox.now())
    found = kernel.executions.page(**asked, after=request.query.get("after", ""), seconds=PATIENCE)
    failures = query.get("status") in ("", "FAILED")
    return PageAnswer(
        "executions.html",
        "Executions",
        {
            "query": query,
            "found": found,
            "statuses": query.tabs(request),
            "times": [(value, label) for value, (label, _) in TIMES.items()],
            "names": workflow_names(request),
            "groups": causes(request, query, asked.get("tenant_id")) if failures else [],
            "next": query.url(request, after=found.after) if found.after else "",
            "first": query.url(request) if request.query.get("after") else "",
        },
        live=not request.query.get("after"),
    )


def causes(
    request: PageRequest, query: ExecutionConditions, tenant: str | None
) -> list[tuple[ErrorGroup, str]]:
    """Return the causes of the executions that failed, with the addresses of their lists."""
    groups = request.kernel.executions.error_groups(
        workflow=query.get("workflow") or None, tenant_id=tenant, limit=MOST_CAUSES
    )
    return [
        (each, query.url(request, status="FAILED", workflow=each.kind, group=each.group))
        for each in groups
    ]
