"""The page of workers: their states, their running items and their leases."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.urls import URLPattern

from automate_django.admin.pages.access import require_operator
from automate_django.admin.pages.base import PageSection
from automate_django.admin.pages.bulk_actions import allowed_actions
from automate_django.kernel import get_kernel
from automate_kernel.outbox import OutboxItem, WorkerInfo
from automate_kernel.workflows.steer.leader_election import followers, leader

MOST_RUNNING = 200


class WorkerPages(PageSection):
    """The workers that report, lost ones too."""

    current = "workers"

    def urls(self) -> list[URLPattern]:
        """Return the page's address, and that of the part that is refreshed."""
        get = self.owner.get
        return [
            get("workers/", self.view, "automate_workers"),
            get("workers/list/", self.list_view, "automate_workers_list"),
        ]

    def view(self, request: HttpRequest) -> TemplateResponse:
        """Show the page."""
        require_operator(request)
        return self.page(
            request,
            "workers.html",
            "Workers",
            list_url=self.url("automate_workers_list"),
            **self._found(request),
        )

    def list_view(self, request: HttpRequest) -> TemplateResponse:
        """Return the workers alone, for the script that keeps them up to date."""
        require_operator(request)
        return self.owner.fragment(request, "_workers.html", **self._found(request))

    def _found(self, request: HttpRequest) -> dict[str, Any]:
        outbox = get_kernel().outbox
        now, workers = outbox.now(), outbox.workers()
        running = outbox.running(limit=MOST_RUNNING)
        first, behind = leader(workers), followers(workers)
        by_owner = defaultdict[str, list[dict[str, Any]]](list)
        for item in running:
            by_owner[item.lease_owner or ""].append(_running(item, now))
        return {
            "workers": [
                {
                    "worker": one,
                    "state": _state(one),
                    "running": by_owner.pop(one.id, []),
                    "follows": first.id if first is not None and one in behind else "",
                }
                for one in sorted(workers, key=lambda one: (one.lost, one.host, one.pid))
            ],
            # A worker of an older version, or one that ended without handing its leases back.
            "strays": list(by_owner.items()),
            "cut": len(running) == MOST_RUNNING,
            "most": MOST_RUNNING,
            "can_cancel": bool(allowed_actions(request, ["cancel"])),
            "slots": sum(worker.slots for worker in workers if worker.alive),
            "in_flight": sum(worker.in_flight for worker in workers if worker.alive),
            "alive": sum(worker.alive for worker in workers),
            "lost": sum(worker.lost for worker in workers),
        }


def _state(worker: WorkerInfo) -> str:
    if worker.lost:
        return "LOST"
    if worker.problem is not None:
        return "FAILING"
    return "STOPPING" if worker.stopping else "ALIVE"


def _running(item: OutboxItem, now: Any) -> dict[str, Any]:
    expires = item.lease_expires_at
    return {
        "item": item,
        "for": (now - item.updated_at).total_seconds(),
        "left": None if expires is None else (expires - now).total_seconds(),
        "asked": item.waiting_for == "cancel",
    }
