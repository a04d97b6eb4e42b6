"""The outbox pages: lists of items, and the page of one item with its timeline."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern
from django.utils import timezone

from automate_django.admin.pages.access import reach_of, uuid_of
from automate_django.admin.pages.accounts import AccountPages
from automate_django.admin.pages.base import Link, PageAdmin
from automate_django.admin.pages.bulk_actions import BulkActionPages, allowed_actions
from automate_django.admin.pages.dashboard import DashboardPages
from automate_django.admin.pages.display import (
    shown_attempts,
    shown_json,
    shown_labels,
    shown_reasons,
    shown_text,
)
from automate_django.admin.pages.kinds import KindPages
from automate_django.admin.pages.list_query import LISTS, NO_CODE, ItemQuery, spans
from automate_django.admin.pages.operations import OperationPages
from automate_django.admin.pages.plugins import PluginPages
from automate_django.admin.pages.workers import WorkerPages
from automate_django.kernel import get_kernel
from automate_django.models import OutboxItem
from automate_django.outbox_counts import Counts, read_counts
from automate_kernel.base.errors import AutomateError
from automate_kernel.monitoring.waiting import why_item_waits
from automate_kernel.outbox import ErrorGroup
from automate_kernel.outbox.controls import controls_of
from automate_kernel.outbox.labels import HEADER as LABELS
from automate_kernel.storage.paging import LOOK
from automate_pages.item_timeline import item_moments

LOOK_FOR_TENANT = 100_000
"""The number of items that a page of a tenant's looks through at a time."""
PATIENCE = 1.5
"""The number of seconds that a page looks on while it has found nothing."""
NOTHING = Counts({}, None, [], timezone.now(), 0.0)


class OutboxItemAdmin(PageAdmin):
    """The outbox, and the pages about what works on it."""

    current = "outbox"

    def pages(self) -> list[URLPattern]:
        """Return the pages below the outbox's own address."""
        parts = (
            DashboardPages, BulkActionPages, KindPages, WorkerPages, PluginPages, AccountPages,
            OperationPages,
        )  # fmt: skip
        return [
            self.get("figures/", self.figures_view, "automate_outbox_figures"),
            *(url for part in parts for url in part(self).urls()),
        ]

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        """Show a page of a list of the outbox."""
        self.require_view(request)
        reach = reach_of(request)
        query = ItemQuery.read(request.GET, reach)
        if (item_id := uuid_of(request.GET.get("id"))) is not None:
            return HttpResponseRedirect(self.url("automate_django_outboxitem_change", item_id))
        try:
            found = controls_of(get_kernel().outbox).page(
                **query.matching(reach),
                after=request.GET.get("after", ""),
                # No index leads to the items of a tenant.
                look=LOOK if reach.everyone else LOOK_FOR_TENANT,
                seconds=PATIENCE,
                payloads=False,
            )
        except AutomateError as error:
            raise Http404(error.message) from None
        return self.page(
            request,
            "outbox.html",
            "Outbox",
            query=query,
            times=spans(query.since),
            found=found,
            lists=[
                Link(one.label, query.url(slice=one.name), one is query.list)
                for one in LISTS.values()
            ],
            actions=allowed_actions(request, query.list.actions),
            reach=reach,
            next_url=query.url(after=found.after),
            first_page="after" not in request.GET,
            **self._figures(request, now=request.GET.get("count") == "now"),
        )

    def figures_view(self, request: HttpRequest) -> TemplateResponse:
        """Return the counts alone, for the script that keeps them up to date."""
        self.require_view(request)
        return self.fragment(request, "_figures.html", **self._figures(request, now=True))

    def _figures(self, request: HttpRequest, *, now: bool) -> dict[str, Any]:
        reach, outbox = reach_of(request), get_kernel().outbox
        tenant = None if reach.everyone else reach.tenant
        found = NOTHING if reach.nothing else read_counts(outbox, tenant, now=now)
        base = self.url("automate_django_outboxitem_changelist")
        failed = 0 if found is None else found.statuses.get("FAILED", 0)
        return {
            "counts": found,
            "outbox_url": base,
            "figures_url": self.url("automate_outbox_figures"),
            "groups": [
                {
                    "of": group,
                    "share": group.count / max(failed, group.count),
                    "url": f"{base}?{urlencode(_fields_of(group))}",
                }
                for group in (() if found is None else found.groups)
            ],
            "kinds": [] if found is None else list(found.by_kind),
        }

    def changeform_view(self, request: Any, object_id: Any = None, *_: Any, **__: Any) -> Any:
        """Show an item: its values, its timeline and its actions."""
        if request.method != "GET" or object_id is None:
            raise PermissionDenied
        item = self.find(request, object_id)
        attempts = get_kernel().outbox.failed_attempts(str(item.pk))
        return self.page(
            request,
            "item.html",
            f"{item.kind} {str(item.pk)[:8]}",
            item=item,
            error=shown_text(item.last_error),
            payload=shown_json(item.payload),
            headers=shown_json(item.headers) if item.headers else "",
            timeline=list(item_moments(item, attempts)),
            attempts=shown_attempts(attempts),
            reasons=_reasons(item),
            labels=shown_labels(item.headers.get(LABELS)),
            actions=allowed_actions(request, _possible(item)),
            execution_url=self._execution_url(request, item),
            crumbs=[Link("Outbox", self.url("automate_django_outboxitem_changelist"))],
            delays=BulkActionPages.DELAYS,
        )

    def _execution_url(self, request: HttpRequest, item: OutboxItem) -> str:
        found = item.payload.get("execution_id") if isinstance(item.payload, dict) else None
        execution_id = uuid_of(str(found or ""))
        may = request.user.has_perm("automate_django.view_workflowexecution")
        if execution_id is None or not may:
            return ""
        return self.url("automate_django_workflowexecution_change", execution_id)


def _reasons(item: OutboxItem) -> str:
    """Return why an item waits, a line for each reason; empty once it has ended."""
    kernel = get_kernel()
    found = kernel.outbox.get(str(item.pk))
    return "" if found is None else shown_reasons(why_item_waits(kernel, found))


def _fields_of(group: ErrorGroup) -> dict[str, str]:
    """Return the fields of an address that lists the items of *group*."""
    code = group.error_code or NO_CODE
    return ItemQuery(kind=group.kind, code=code, group=group.group or "").fields


def _possible(item: OutboxItem) -> tuple[str, ...]:
    match item.status:
        case "FAILED" | "CANCELLED":
            return ("retry", "discard")
        case "COMPLETED":
            return ("discard",)
        case "RUNNING":
            return ("cancel",)
    return ("reschedule", "cancel")
