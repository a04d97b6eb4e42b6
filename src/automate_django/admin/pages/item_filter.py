"""The lists of the outbox page, and the filters on them, read from a request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from automate_django.admin.pages.access import Reach

_NO_CODE = "-"
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
class ItemQuery:
    """A list, and what its items must have; empty text is no condition."""

    list: ItemList
    kind: str = ""
    code: str = ""
    tenant: str = ""
    group: str = ""
    label: str = ""

    @classmethod
    def read(cls, data: Mapping[str, Any], reach: Reach) -> ItemQuery:
        """Read the parameters of a request; an unknown list counts as left out."""

        def text(name: str) -> str:
            # No text in a database holds a NUL, and PostgreSQL raises for one.
            return str(data.get(name) or "").replace("\x00", "").strip()[:255]

        # Who looks for a label looks for whatever has it.
        chosen = LISTS.get(text("slice")) or LISTS["all" if text("label") else "failed"]
        tenant = text("tenant") if reach.everyone else ""
        return cls(chosen, text("kind"), text("code"), tenant, text("group"), text("label"))

    @property
    def filtered(self) -> bool:
        """True if there are conditions beside the list's own."""
        return len(self.fields) > 1

    def matching(self, reach: Reach) -> dict[str, Any]:
        """Return the kernel's filter for these items, as far as *reach* covers them."""
        given = {
            "kind": self.kind,
            "error_code": self.code,
            "error_group": self.group,
            "label": self.label,
        }
        found = {**self.list.matching, **{name: text for name, text in given.items() if text}}
        if self.code == _NO_CODE:
            found["error_code"] = ""
        return {**found, **reach.conditions(self.tenant)}

    @property
    def fields(self) -> dict[str, str]:
        """The fields of a form or an address that asks for the same."""
        given = {
            "kind": self.kind, "code": self.code, "group": self.group, "label": self.label,
            "tenant": self.tenant,
        }  # fmt: skip
        return {"slice": self.list.name, **{name: text for name, text in given.items() if text}}

    @property
    def query(self) -> str:
        """`fields`, as the query of an address."""
        return urlencode(self.fields)

    @property
    def words(self) -> str:
        """The items in words: ``failed items of slack.post with DEADLINE_EXCEEDED``."""
        said = "items" if self.list.name == "all" else f"{self.list.label.lower()} items"
        if self.kind:
            said += f" of {self.kind}"
        if self.code == _NO_CODE:
            said += " without an error code"
        elif self.code:
            said += f" with {self.code}"
        if self.group:
            said += f" of {self.group}"
        if self.label:
            said += f" labelled {self.label}"
        if self.tenant:
            said += f" of tenant {self.tenant}"
        return said
