"""The outbox: its items by state and cause, the page of each, and what steers one or many."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from automate_kernel.monitoring.waiting import why_item_waits
from automate_kernel.outbox.controls import controls_of
from automate_kernel.outbox.item import ItemStatus, OutboxItem
from automate_kernel.outbox.labels import HEADER
from automate_kernel.storage.paging import LOOK
from automate_kernel.workflows.steer.attempts import step_attempts
from automate_pages.bulk import MOST_TICKED, BulkScope, carry_out, offered, under_way
from automate_pages.exchange import (
    OrderAnswer,
    PageAnswer,
    PageError,
    PageLink,
    PageRequest,
    sent_text,
)
from automate_pages.formats import shown_labels, shown_reasons, shown_text, shown_tree
from automate_pages.item_timeline import item_moments
from automate_pages.lists import MOST_CAUSES, PATIENCE, TIMES, FailureCause

NO_CODE = "-"
"""Stands in an address for no error code at all."""
# No index leads to the items of a tenant.
_LOOK_FOR_TENANT = 100_000


@dataclass(frozen=True, slots=True)
class OutboxList:
    """
    One list of the outbox: the items that *matching* finds, and the bulk actions for them.

    They can be done with all items of the list at once if it is *indexed*.
    """

    matching: Mapping[str, Any]
    actions: tuple[str, ...] = ()
    indexed: bool = True
    hint: str = ""


LISTS: dict[str, OutboxList] = {
    "All": OutboxList({}),
    "Failed": OutboxList({"status": ItemStatus.FAILED.value}, ("retry", "discard"),
                       hint="Given up: no attempt is left, or another one would not help."),
    "Due": OutboxList({"waiting_for": "worker"}, ("cancel", "reschedule"),
                    hint="Ready for a worker, in the order in which they will be taken."),
    "Later": OutboxList({"waiting_for": "time"}, ("cancel", "reschedule"),
                      hint="Not due yet: delayed, or waiting for their next attempt."),
    "Behind a key": OutboxList({"waiting_for": "key"}, ("cancel", "reschedule"), indexed=False,
                             hint="Another item with their key is before them."),
    "Paused": OutboxList({"waiting_for": "resume"}, ("cancel", "reschedule"), indexed=False,
                       hint="Their kind is paused."),
    "Running": OutboxList({"status": ItemStatus.RUNNING.value}, ("cancel",),
                        hint="Leased to a worker now."),
    "Completed": OutboxList({"status": ItemStatus.COMPLETED.value}, ("discard",), indexed=False),
    "Cancelled": OutboxList({"status": ItemStatus.CANCELLED.value}, ("retry", "discard"),
                          indexed=False),
}  # fmt: skip
"""The lists by their labels."""
_FIELDS = {
    "status": "status", "waiting_for": "waiting_for", "kind": "kind", "code": "error_code",
    "group": "error_group", "label": "label", "ordering_key": "ordering_key",
    "concurrency_key": "concurrency_key", "since": "since", "tenant": "tenant_id",
}  # fmt: skip
_WAITS = ("worker", "time", "key", "resume")


@dataclass(frozen=True, slots=True)
class ItemConditions:
    """The items that a user asks for: *fields* are those of the form that are filled in."""

    fields: dict[str, str]

    @classmethod
    def read(cls, request: PageRequest) -> ItemConditions:
        """Read an address or a form; an unknown value counts as left out."""
        sent = request.form if request.method == "POST" else request.query
        found = {name: sent_text(sent, name) for name in _FIELDS}
        if found["status"] not in {each.value for each in ItemStatus}:
            found["status"] = ""
        if found["waiting_for"] not in _WAITS:
            found["waiting_for"] = ""
        if found["since"] not in TIMES:
            found["since"] = ""
        if request.user.tenant is not None:
            found["tenant"] = ""
        return cls({name: text for name, text in found.items() if text})

    @property
    def chosen(self) -> OutboxList:
        """The list that is meant."""
        own = {name: self.fields[name] for name in ("status", "waiting_for") if name in self.fields}
        return next((each for each in LISTS.values() if each.matching == own), LISTS["All"])

    @property
    def actions(self) -> tuple[str, ...]:
        """The bulk actions that can be done with all of these items."""
        return self.chosen.actions if self.chosen.indexed else ()

    @property
    def words(self) -> str:
        """The items in words: ``failed items of slack.post with DEADLINE_EXCEEDED``."""
        label = next((name for name, each in LISTS.items() if each is self.chosen), "All")
        said = "items" if label == "All" else f"{label.lower()} items"
        words = {"kind": "of", "code": "with", "group": "of", "label": "labelled",
                 "tenant": "of tenant", "since": "of the last"}  # fmt: skip
        parts = [
            f"{word} {self.fields[name]}" for name, word in words.items() if name in self.fields
        ]
        return " ".join([said, *parts])

    def matching(self, request: PageRequest) -> dict[str, Any]:
        """Return the kernel's filter for these items, of the user's tenant alone."""
        found: dict[str, Any] = {_FIELDS[name]: text for name, text in self.fields.items()}
        if found.get("error_code") == NO_CODE:
            found["error_code"] = ""
        if "since" in found:
            found["created_after"] = request.kernel.outbox.now() - TIMES[found.pop("since")][1]
        if request.user.tenant is not None:
            found["tenant_id"] = request.user.tenant
        return found

    def url(self, request: PageRequest, **changed: str) -> str:
        """Return the address of the list that asks for the same but for what is *changed*."""
        return request.url("outbox", **{**self.fields, **changed})

    def tabs(self, request: PageRequest) -> list[PageLink]:
        """Return the lists to choose from, with what else is asked for kept."""
        none = {"status": "", "waiting_for": ""}
        return [
            PageLink(label, self.url(request, **{**none, **one.matching}), one is self.chosen)
            for label, one in LISTS.items()
        ]


def show_list(request: PageRequest) -> PageAnswer:
    """Show a page of items, and the causes of those that failed."""
    outbox, query = request.kernel.outbox, ItemConditions.read(request)
    wanted = request.text("id")
    if wanted:
        return show(request, wanted)
    after = request.query.get("after", "")
    found = controls_of(outbox).page(
        **query.matching(request),
        after=after,
        look=LOOK if request.user.tenant is None else _LOOK_FOR_TENANT,
        seconds=PATIENCE,
        payloads=False,
    )
    groups: list[FailureCause] = []
    if query.chosen.matching in ({}, {"status": ItemStatus.FAILED.value}):
        groups = causes(request, query.fields.get("kind"))
    return PageAnswer(
        "outbox.html",
        "Outbox",
        {
            "query": query,
            "given": query.fields,
            "found": found,
            "lists": query.tabs(request),
            "times": [(value, label) for value, (label, _) in TIMES.items()],
            "groups": groups,
            "under_way": under_way(request, "items"),
            "ticked": offered("items", _permitted(request, query.chosen.actions)),
            "actions": offered("items", _permitted(request, query.actions)),
            "next": query.url(request, after=found.after) if found.after else "",
            "first": query.url(request) if after else "",
            "shows_kinds": request.user.tenant is None,
        },
        live=not after,
    )


def _permitted(request: PageRequest, actions: Iterable[str]) -> list[str]:
    """Return those of the bulk actions that the user may do."""
    if not request.may("steer"):
        return []
    return [each for each in actions if each != "discard" or request.may("discard")]


def order_many(request: PageRequest) -> PageAnswer | OrderAnswer:
    """Carry a bulk action out on the items that are ticked, or on all of a list."""
    query = ItemConditions.read(request)
    ids = tuple(request.form.every("id")[:MOST_TICKED])
    matching = query.matching(request)
    if request.form.get("scope") == "all":
        if request.form.get("order") not in query.actions:
            raise PageError(400, "this can't be done with all of these items")
        ids = ()
    else:
        tenant = request.user.tenant
        matching = {"ids": list(ids), **({} if tenant is None else {"tenant_id": tenant})}
    back = PageLink("Outbox", query.url(request))
    words = "ticked items" if ids else query.words
    return carry_out(request, BulkScope("items", matching, query.fields, words, back, ids))


def causes(request: PageRequest, kind: str | None = None) -> list[FailureCause]:
    """Return the causes of the items that failed."""
    groups = controls_of(request.kernel.outbox).error_groups(
        kind=kind, tenant_id=request.user.tenant, limit=MOST_CAUSES
    )
    return [
        FailureCause(
            each,
            {
                "status": ItemStatus.FAILED.value,
                "kind": each.kind,
                "code": each.error_code or NO_CODE,
                "group": each.group or "",
            },
        )
        for each in groups
    ]


def _find(request: PageRequest, item_id: str) -> OutboxItem:
    found = request.kernel.outbox.get(item_id)
    if found is None or request.user.tenant not in (None, found.tenant_id):
        raise PageError(404, f"there is no item {item_id!r}")
    return found


def show(request: PageRequest, item_id: str) -> PageAnswer:
    """Show an item: why it waits, what happened to it, its payload and its failed attempts."""
    kernel, item = request.kernel, _find(request, item_id)
    failed = kernel.outbox.failed_attempts(item.id)
    attempts = [
        {
            "of": each,
            "error": shown_text(kernel, each.error, 2_000),
            "trace": shown_text(kernel, each.trace, 10_000),
        }
        for each in reversed(step_attempts((), failed))
    ]
    waits = item.status in (ItemStatus.PENDING, ItemStatus.RETRY)
    ended = item.status in (ItemStatus.FAILED, ItemStatus.CANCELLED)
    begun = item.payload.get("execution_id") if isinstance(item.payload, dict) else None
    actions = ["retry"] if ended else []
    actions += ["reschedule"] if waits else []
    actions += ["cancel"] if waits or item.status is ItemStatus.RUNNING else []
    actions += ["discard"] if ended or item.status is ItemStatus.COMPLETED else []
    labels = shown_labels(kernel, item.headers.get(HEADER))
    return PageAnswer(
        "item.html",
        f"{item.kind} {item.id[:8]}",
        {
            "item": item,
            "moments": list(item_moments(item, failed)),
            "payload": shown_tree(kernel, item.payload),
            "headers": shown_tree(kernel, item.headers),
            "error": shown_text(kernel, item.last_error),
            "reasons": shown_reasons(kernel, why_item_waits(kernel, item)),
            "attempts": attempts,
            "labels": [PageLink(each, request.url("outbox", label=each)) for each in labels],
            "execution": begun if isinstance(begun, str) else "",
            "actions": offered("items", _permitted(request, actions)),
        },
        crumbs=[PageLink("Outbox", request.url("outbox"))],
        live=item.status not in (ItemStatus.COMPLETED, ItemStatus.FAILED, ItemStatus.CANCELLED),
    )


def order(request: PageRequest, item_id: str) -> PageAnswer | OrderAnswer:
    """Carry out an order for an item; what can't be taken back is asked about first."""
    request.require("steer")
    item, outbox = _find(request, item_id), request.kernel.outbox
    wanted, here = request.form.get("order", ""), request.url("outbox", item_id)
    if wanted in ("discard", "reschedule"):
        leads = here if wanted == "reschedule" else request.url("outbox")
        matching = {"ids": [item.id]}
        back = PageLink(f"{item.kind} {item.id[:8]}", leads)
        return carry_out(request, BulkScope("items", matching, {}, "items", back, (item.id,)))
    known = {
        "retry": (outbox.requeue, "It is tried again.", "It has not failed."),
        "cancel": (outbox.cancel, "It is cancelled, or asked to stop.", "It had ended already."),
    }
    if wanted not in known:
        raise PageError(400, "there is no such order")
    do, done, nothing = known[wanted]
    changed = do([item.id])
    return OrderAnswer(here, done if changed else nothing, "ok" if changed else "warn")
