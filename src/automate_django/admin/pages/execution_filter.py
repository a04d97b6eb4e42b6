"""Which executions are asked for, and which index finds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from django.db.models import Q
from django.utils import timezone

from automate_django.admin.pages.access import Reach
from automate_django.admin.pages.failures import labelled
from automate_django.admin.pages.slices import Part, Slice
from automate_kernel.workflows.execution import ExecutionStatus

__all__ = ["Filter"]

_TIMES = {
    "": ("any time", timedelta()),
    "1h": ("the last hour", timedelta(hours=1)),
    "24h": ("the last 24 hours", timedelta(hours=24)),
    "7d": ("the last 7 days", timedelta(days=7)),
    "30d": ("the last 30 days", timedelta(days=30)),
}
_MOST = ExecutionStatus.COMPLETED.value


@dataclass(frozen=True, slots=True)
class Filter:
    """
    What a user asks for; empty text is no condition.

    One condition chooses the index that is read, in the order of time. The others are looked for
    along it, through a bounded stretch.
    """

    reach: Reach
    status: str = ""
    workflow: str = ""
    since: str = ""
    tenant: str = ""
    group: str = ""
    label: str = ""

    @classmethod
    def read(cls, data: Mapping[str, Any], reach: Reach) -> Filter:
        """What the parameters of a request ask for; a value that is not ours counts as left out."""

        def text(name: str) -> str:
            # No text in a database holds a NUL, and PostgreSQL raises for one.
            return str(data.get(name) or "").replace("\x00", "").strip()[:200]

        known = {status.value for status in ExecutionStatus}
        return cls(
            reach,
            text("status") if text("status") in known else "",
            text("workflow"),
            text("since") if text("since") in _TIMES else "",
            text("tenant") if reach.everyone else "",
            text("group"),
            text("label"),
        )

    @property
    def _conditions(self) -> dict[str, Q]:
        found = {}
        if self.tenant:
            found["tenant"] = Q(tenant_id=self.tenant)
        if self.status:
            found["status"] = Q(status=self.status)
        if self.workflow:
            found["workflow"] = Q(workflow=self.workflow)
        if self.group:
            found["group"] = Q(error_group=self.group)
        return found

    def among(self, queryset: Any) -> Any:
        """Those of *queryset* that have the label, if one is asked for; an index finds them."""
        if not self.label:
            return queryset
        return queryset.filter(pk__in=labelled(self.label, "execution", self.reach))

    @property
    def _leading(self) -> str:
        """The condition whose index is read."""
        if not self.reach.everyone:
            return ""  # the user's own tenant is, before all
        given = self._conditions
        # Nearly all executions are COMPLETED: that finds little.
        rare = (
            ["tenant", "status", "workflow"]
            if self.status != _MOST
            else ["tenant", "workflow", "status"]
        )
        return next((name for name in rare if name in given), "")

    @property
    def slice(self) -> Slice:
        """The executions that one index gives, the newest first."""
        condition = self._conditions.get(self._leading, Q())
        if self.since:
            condition &= Q(created_at__gte=timezone.now() - _TIMES[self.since][1])
        # The name signs the cursor: one of another list leads nowhere.
        return Slice(
            f"executions {sorted(self.fields.items())}",
            "",
            (Part(condition, ("-created_at", "-id")),),
        )

    @property
    def rest(self) -> Q | None:
        """The conditions that are looked for along the slice."""
        q = Q()
        for name, condition in self._conditions.items():
            if name != self._leading:
                q &= condition
        return q or None

    @property
    def fields(self) -> dict[str, str]:
        """What an address says to ask for the same."""
        given = {
            "status": self.status,
            "workflow": self.workflow,
            "since": self.since,
            "tenant": self.tenant,
            "group": self.group,
            "label": self.label,
        }
        return {name: text for name, text in given.items() if text}

    @property
    def query(self) -> str:
        """`fields`, as the query of an address."""
        return urlencode(self.fields)

    def tabs(self) -> list[dict[str, Any]]:
        """The statuses to choose from, with what else is asked for kept."""
        kept = {name: text for name, text in self.fields.items() if name != "status"}
        order = ["", "FAILED", "RUNNING", "PENDING", "COMPLETED", "CANCELLED"]
        return [
            {
                "label": status.capitalize() or "All",
                "url": f"?{urlencode({**kept, **({'status': status} if status else {})})}",
                "current": status == self.status,
            }
            for status in order
        ]

    def times(self) -> list[tuple[str, str, bool]]:
        """The spans of time to choose from: value, label, whether it is chosen."""
        return [(name, label, name == self.since) for name, (label, _) in _TIMES.items()]
