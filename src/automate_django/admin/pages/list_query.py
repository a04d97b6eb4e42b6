"""The conditions of the lists of items and executions, between a request, an address and words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from django.utils import timezone

from automate_django.admin.pages.access import Reach
from automate_django.admin.pages.base import Link
from automate_kernel.workflows.execution import ExecutionStatus

NO_CODE = "-"
"""Stands in a filter for no error code at all. A code is a word, so it means nothing else."""
_TIMES = {
    "": ("any time", timedelta()),
    "1h": ("the last hour", timedelta(hours=1)),
    "24h": ("the last 24 hours", timedelta(hours=24)),
    "7d": ("the last 7 days", timedelta(days=7)),
    "30d": ("the last 30 days", timedelta(days=30)),
}


# A value may hold a comma: between two labels one stands before another name.
_BETWEEN_LABELS = re.compile(r",\s*(?=[A-Za-z0-9][A-Za-z0-9_.-]{0,63}=)")


def _given(**texts: str) -> dict[str, Any]:
    """Return those of *texts* that are not empty."""
    return {name: text for name, text in texts.items() if text}


def _of_a_known_time(texts: dict[str, str]) -> dict[str, str]:
    return texts if texts["since"] in _TIMES else {**texts, "since": ""}


def _time_of(since: str) -> datetime:
    return timezone.now() - _TIMES[since][1]


def spans(chosen: str) -> list[tuple[str, str, bool]]:
    """Return the spans of time to choose from: value, label, whether it is *chosen*."""
    return [(name, label, name == chosen) for name, (label, _) in _TIMES.items()]


@dataclass(frozen=True, slots=True)
class ListQuery:
    """Conditions under the names that an address has for them; empty text is no condition."""

    @classmethod
    def texts(cls, data: Mapping[str, Any], reach: Reach) -> dict[str, str]:
        """Read the parameters of a request. Only who sees the rows of all chooses a tenant."""
        # No text in a database holds a NUL, and PostgreSQL raises for one.
        found = {
            each.name: str(data.get(each.name) or "").replace("\x00", "").strip()[:255]
            for each in fields(cls)
        }
        return found if reach.everyone else {**found, "tenant": ""}

    @property
    def fields(self) -> dict[str, str]:
        """The fields of a form or an address that asks for the same."""
        return _given(**asdict(self))

    @property
    def query(self) -> str:
        """`fields`, as the query of an address."""
        return urlencode(self.fields)

    def url(self, **changed: str) -> str:
        """Return the address that asks for the same but for what is *changed*."""
        return f"?{urlencode(_given(**{**self.fields, **changed}))}"

    def said(self, **words: str) -> str:
        """Return the conditions in words: *words* stand before their values."""
        texts = self.fields
        return "".join(f" {word} {texts[name]}" for name, word in words.items() if name in texts)


@dataclass(frozen=True, slots=True)
class ItemList:
    """
    One list of the outbox page: the items that *matching* finds, an `ItemFilter` of the kernel.

    *actions* are the bulk actions on its items. They can be done with all items of the list at once
    if it is *indexed*.
    """

    name: str
    label: str
    matching: Mapping[str, Any] = field(default_factory=dict)
    indexed: bool = True
    actions: tuple[str, ...] = ()
    hint: str = ""


LISTS: dict[str, ItemList] = {
    one.name: one
    for one in (
        ItemList(
            "failed",
            "Failed",
            {"status": "FAILED"},
            actions=("retry", "discard"),
            hint="Given up: all attempts are spent, or the error can't go away by itself.",
        ),
        ItemList(
            "due",
            "Due",
            {"waiting_for": "worker"},
            actions=("cancel", "reschedule"),
            hint="Ready for a worker. Each kind in the order in which they will be taken.",
        ),
        ItemList(
            "later",
            "Later",
            {"waiting_for": "time"},
            actions=("cancel", "reschedule"),
            hint="Not due yet: delayed, or waiting for their next attempt.",
        ),
        ItemList(
            "running",
            "Running",
            {"status": "RUNNING"},
            actions=("cancel",),
            hint="Leased to a worker now.",
        ),
        ItemList(
            "held",
            "Held back",
            {"waiting_for": ["key", "resume"]},
            indexed=False,
            actions=("cancel", "reschedule"),
            hint="Their kind is paused, or another item with their key is before them.",
        ),
        ItemList("done", "Completed", {"status": "COMPLETED"}, indexed=False, actions=("discard",)),
        ItemList(
            "cancelled",
            "Cancelled",
            {"status": "CANCELLED"},
            indexed=False,
            actions=("retry", "discard"),
        ),
        ItemList("all", "All", hint="The newest first, whatever their status."),
    )
}


@dataclass(frozen=True, slots=True)
class ItemQuery(ListQuery):
    """A list, and what its items must have."""

    slice: str = "failed"
    kind: str = ""
    code: str = ""
    group: str = ""
    label: str = ""
    since: str = ""
    tenant: str = ""

    @classmethod
    def read(cls, data: Mapping[str, Any], reach: Reach) -> ItemQuery:
        """Read the parameters of a request; an unknown list counts as left out."""
        found = cls.texts(data, reach)
        if found["slice"] not in LISTS:
            # Who looks for a label looks for whatever has it.
            found["slice"] = "all" if found["label"] else "failed"
        return cls(**_of_a_known_time(found))

    @property
    def list(self) -> ItemList:
        """The list that is meant."""
        return LISTS[self.slice]

    @property
    def all_actions(self) -> tuple[str, ...]:
        """The bulk actions that can be done with all of these items."""
        return self.list.actions if self.list.indexed else ()

    @property
    def filtered(self) -> bool:
        """True if there are conditions beside the list's own."""
        return len(self.fields) > 1

    def matching(self, reach: Reach) -> dict[str, Any]:
        """Return the kernel's filter for these items, as far as *reach* covers them."""
        own = _given(kind=self.kind, error_code=self.code, error_group=self.group, label=self.label)
        if self.code == NO_CODE:
            own["error_code"] = ""
        if self.since:
            # As text, which a bulk action takes along.
            own["created_after"] = _time_of(self.since).isoformat()
        return {**self.list.matching, **own, **reach.conditions(self.tenant)}

    @property
    def words(self) -> str:
        """The items in words: ``failed items of slack.post with DEADLINE_EXCEEDED``."""
        said = "items" if self.slice == "all" else f"{self.list.label.lower()} items"
        code = self.said(code="with") if self.code != NO_CODE else " without an error code"
        more = self.said(group="of", label="labelled", tenant="of tenant")
        time = f" accepted in {_TIMES[self.since][0]}" if self.since else ""
        return f"{said}{self.said(kind='of')}{code}{more}{time}"


_EXECUTION_ACTIONS: Mapping[str, tuple[str, ...]] = {
    "FAILED": ("resume",),
    "PENDING": ("pause", "cancel"),
    "RUNNING": ("pause", "cancel"),
    "PAUSED": ("unpause", "cancel"),
}


@dataclass(frozen=True, slots=True)
class ExecutionQuery(ListQuery):
    """The executions that a user asks for."""

    status: str = ""
    workflow: str = ""
    since: str = ""
    tenant: str = ""
    group: str = ""
    label: str = ""

    @classmethod
    def read(cls, data: Mapping[str, Any], reach: Reach) -> ExecutionQuery:
        """Read the parameters of a request; an unknown value counts as left out."""
        found = cls.texts(data, reach)
        if found["status"] not in {status.value for status in ExecutionStatus}:
            found["status"] = ""
        return cls(**_of_a_known_time(found))

    def matching(self, reach: Reach) -> dict[str, Any]:
        """Return the kernel's filter for these executions, as far as *reach* covers them."""
        found = _given(status=self.status, workflow=self.workflow, error_group=self.group)
        if self.label:
            found["labels"] = [text.strip() for text in _BETWEEN_LABELS.split(self.label)]
        if self.since:
            found["created_after"] = _time_of(self.since)
        return {**found, **reach.conditions(self.tenant)}

    @property
    def all_actions(self) -> tuple[str, ...]:
        """The bulk actions that can be done with all of these executions."""
        return () if self.label else _EXECUTION_ACTIONS.get(self.status, ())

    @property
    def words(self) -> str:
        """The executions in words: ``failed executions of order-notify``."""
        said = f"{self.status.lower()} executions".lstrip()
        said += self.said(workflow="of", group="with", tenant="of tenant")
        return f"{said} that began in {_TIMES[self.since][0]}" if self.since else said

    def tabs(self) -> list[Link]:
        """Return the statuses to choose from, with what else is asked for kept."""
        order = [
            "", "FAILED", "RUNNING", "PENDING", "PAUSED", "CANCELLING", "COMPLETED", "CANCELLED"
        ]  # fmt: skip
        return [
            Link(status.capitalize() or "All", self.url(status=status), status == self.status)
            for status in order
        ]
