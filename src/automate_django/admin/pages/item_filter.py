"""The lists of the outbox page, and the filters on them, read from a request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from automate_django.admin.pages.access import Reach
from automate_django.admin.pages.list_query import ListQuery, given

NO_CODE = "-"
"""Stands in a filter for no error code at all. A code is a word, so it means nothing else."""


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
    tenant: str = ""

    @classmethod
    def read(cls, data: Mapping[str, Any], reach: Reach) -> ItemQuery:
        """Read the parameters of a request; an unknown list counts as left out."""
        found = cls.texts(data, reach)
        if found["slice"] not in LISTS:
            # Who looks for a label looks for whatever has it.
            found["slice"] = "all" if found["label"] else "failed"
        return cls(**found)

    @property
    def list(self) -> ItemList:
        """The list that is meant."""
        return LISTS[self.slice]

    @property
    def filtered(self) -> bool:
        """True if there are conditions beside the list's own."""
        return len(self.fields) > 1

    def matching(self, reach: Reach) -> dict[str, Any]:
        """Return the kernel's filter for these items, as far as *reach* covers them."""
        own = given(kind=self.kind, error_code=self.code, error_group=self.group, label=self.label)
        if self.code == NO_CODE:
            own["error_code"] = ""
        return {**self.list.matching, **own, **reach.conditions(self.tenant)}

    @property
    def words(self) -> str:
        """The items in words: ``failed items of slack.post with DEADLINE_EXCEEDED``."""
        said = "items" if self.slice == "all" else f"{self.list.label.lower()} items"
        code = self.said(code="with") if self.code != NO_CODE else " without an error code"
        more = self.said(group="of", label="labelled", tenant="of tenant")
        return f"{said}{self.said(kind='of')}{code}{more}"
