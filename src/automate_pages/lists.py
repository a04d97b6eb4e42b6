"""The conditions of a list, between an address, a form and the kernel's filters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

from automate_kernel.outbox.failed_attempts import ErrorGroup
from automate_kernel.storage.statuses import ExecutionStatus, words
from automate_pages.exchange import PageLink, PageRequest, sent_text

PATIENCE = 0.05
"""The number of seconds that a list looks on while it has found nothing."""
MOST_CAUSES = 12
"""The number of causes of failures that a list shows."""
TIMES = {
    "": ("any time", timedelta()),
    "1h": ("the last hour", timedelta(hours=1)),
    "24h": ("the last 24 hours", timedelta(hours=24)),
    "7d": ("the last 7 days", timedelta(days=7)),
    "30d": ("the last 30 days", timedelta(days=30)),
}
"""The spans of time to choose from."""
_FIELDS = ("status", "workflow", "since", "from", "to", "tenant", "group", "label")
_SHOWN = (
    "", *words(
        ExecutionStatus.FAILED, ExecutionStatus.RUNNING, ExecutionStatus.PENDING,
        ExecutionStatus.PAUSED, ExecutionStatus.CANCELLING, ExecutionStatus.COMPLETED,
        ExecutionStatus.CANCELLED,
    ),
)  # fmt: skip
_ACTIONS: Mapping[str, tuple[str, ...]] = {
    ExecutionStatus.FAILED.value: ("resume", "fork"),
    ExecutionStatus.COMPLETED.value: ("fork",),
    ExecutionStatus.CANCELLED.value: ("fork",),
    ExecutionStatus.PENDING.value: ("pause", "cancel"),
    ExecutionStatus.RUNNING.value: ("pause", "cancel"),
    ExecutionStatus.PAUSED.value: ("unpause", "cancel"),
}
# A value may hold a comma: between two labels a comma stands before another name.
_BETWEEN_LABELS = re.compile(r",\s*(?=[A-Za-z0-9][A-Za-z0-9_.-]{0,63}=)")


def read_moment(text: str) -> datetime | None:
    """Return a time that an address or a browser's field has, in UTC; None for anything else."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)


@dataclass(frozen=True, slots=True)
class FailureCause:
    """
    A cause of failures. *fields* are the conditions of the list that has these failures alone.

    It is *new* if it was seen first within an hour; *trend* says how it goes, in words.
    """

    group: ErrorGroup
    fields: Mapping[str, str]
    new: bool = False
    trend: str = ""


@dataclass(frozen=True, slots=True)
class ExecutionConditions:
    """The executions that a user asks for: *fields* are those of the form that are filled in."""

    fields: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, request: PageRequest) -> ExecutionConditions:
        """Read an address; an unknown value counts as left out, and so does another's tenant."""
        # A form that is sent has the conditions of the list that it stands on.
        given = request.form if request.method == "POST" else request.query
        found = {name: sent_text(given, name) for name in _FIELDS}
        if found["status"] not in {status.value for status in ExecutionStatus}:
            found["status"] = ""
        if found["since"] not in TIMES:
            found["since"] = ""
        for name in ("from", "to"):
            found[name] = found[name] if read_moment(found[name]) else ""
        if request.user.tenant is not None:
            found["tenant"] = ""
        return cls({name: text for name, text in found.items() if text})

    def get(self, name: str) -> str:
        """Return the text of a field, empty if it isn't filled in."""
        return self.fields.get(name, "")

    def matching(self, request: PageRequest, now: datetime) -> dict[str, Any]:
        """Return the kernel's filter for these executions, of the user's tenant alone."""
        names = {"status": "status", "workflow": "workflow", "group": "error_group"}
        found: dict[str, Any] = {
            own: self.fields[name] for name, own in names.items() if name in self.fields
        }
        if "label" in self.fields:
            labels = _BETWEEN_LABELS.split(self.fields["label"])
            found["labels"] = [text.strip() for text in labels]
        if "since" in self.fields:
            found["created_after"] = now - TIMES[self.fields["since"]][1]
        for name, own in (("from", "created_after"), ("to", "created_before")):
            if name in self.fields:
                found[own] = read_moment(self.fields[name])
        tenant = request.user.tenant or self.fields.get("tenant")
        if tenant is not None:
            found["tenant_id"] = tenant
        return found

    def url(self, request: PageRequest, *view: str, **changed: str) -> str:
        """Return the address of a list that asks for the same but for what is *changed*."""
        return request.url("executions", *view, **{**self.fields, **changed})

    @property
    def actions(self) -> tuple[str, ...]:
        """The bulk actions that can be done with all of these executions."""
        if "label" in self.fields:
            return ()
        every = _ACTIONS.get(self.get("status"), ())
        # Copies begin from a step, which the executions of one workflow have.
        return tuple(each for each in every if each != "fork" or "workflow" in self.fields)

    @property
    def words(self) -> str:
        """The executions in words: ``failed executions of order``."""
        said = f"{self.get('status').lower()} executions".lstrip()
        words = {"workflow": "of", "group": "with", "tenant": "of tenant", "from": "since",
                 "to": "before"}  # fmt: skip
        parts = [f"{word} {self.get(name)}" for name, word in words.items() if self.get(name)]
        return " ".join([said, *parts])

    def tabs(self, request: PageRequest, *view: str) -> list[PageLink]:
        """Return the statuses to choose from, with what else is asked for kept."""
        return [
            PageLink(
                status.capitalize() or "All",
                self.url(request, *view, status=status),
                status == self.get("status"),
            )
            for status in _SHOWN
        ]
