"""The outbox: its items by state and cause, the page of each, and what steers them."""

from __future__ import annotations

from typing import Any

from automate_kernel.monitoring.waiting import why_item_waits
from automate_kernel.outbox.failed_attempts import ErrorGroup
from automate_kernel.outbox.item import ItemStatus, OutboxItem
from automate_pages.exchange import OrderAnswer, PageAnswer, PageError, PageLink, PageRequest
from automate_pages.formats import shown_json, shown_reasons, shown_text
from automate_pages.lists import MOST_CAUSES, PATIENCE

_LISTS: dict[str, dict[str, str]] = {
    "All": {}, "Failed": {"status": "FAILED"}, "Due": {"waiting_for": "worker"},
    "Later": {"waiting_for": "time"}, "Behind a key": {"waiting_for": "key"},
    "Paused": {"waiting_for": "resume"}, "Running": {"status": "RUNNING"},
    "Completed": {"status": "COMPLETED"}, "Cancelled": {"status": "CANCELLED"},
}  # fmt: skip
_FIELDS = {
    "status": "status",
    "waiting_for": "waiting_for",
    "kind": "kind",
    "group": "error_group",
    "label": "label",
}


def show_list(request: PageRequest) -> PageAnswer:
    """Show a page of items, and the causes of those that failed."""
    outbox, tenant = request.kernel.outbox, request.user.tenant
    wanted = request.query.get("id", "").strip()
    if wanted:
        return show(request, wanted)
    given = {name: request.text(name) for name in _FIELDS}
    if given["status"] not in {each.value for each in ItemStatus}:
        given["status"] = ""
    if given["waiting_for"] not in ("worker", "time", "key", "resume"):
        given["waiting_for"] = ""
    given = {name: text for name, text in given.items() if text}
    matching: dict[str, Any] = {_FIELDS[name]: text for name, text in given.items()}
    if tenant is not None:
        matching["tenant_id"] = tenant
    after = request.query.get("after", "")
    found = outbox.page(**matching, after=after, seconds=PATIENCE)
    groups: list[tuple[ErrorGroup, str]] = []
    if given.get("status") in (None, "FAILED") and "waiting_for" not in given:
        groups = causes(request, given.get("kind"))
    chosen = {name: given[name] for name in ("status", "waiting_for") if name in given}
    rest = {name: text for name, text in given.items() if name not in chosen}
    return PageAnswer(
        "outbox.html",
        "Outbox",
        {
            "given": given,
            "found": found,
            "lists": [
                PageLink(label, request.url("outbox", **{**rest, **its}), its == chosen)
                for label, its in _LISTS.items()
            ],
            "groups": groups,
            "next": request.url("outbox", **given, after=found.after) if found.after else "",
            "first": request.url("outbox", **given) if after else "",
        },
        live=not after,
    )


def causes(request: PageRequest, kind: str | None = None) -> list[tuple[ErrorGroup, str]]:
    """Return the causes of the items that failed, with the addresses of their lists."""
    groups = request.kernel.outbox.error_groups(
        kind=kind, tenant_id=request.user.tenant, limit=MOST_CAUSES
    )
    return [
        (each, request.url("outbox", status="FAILED", kind=each.kind, group=each.group))
        for each in groups
    ]


def _find(request: PageRequest, item_id: str) -> OutboxItem:
    found = request.kernel.outbox.get(item_id)
    if found is None or request.user.tenant not in (None, found.tenant_id):
        raise PageError(404, f"there is no item {item_id!r}")
    return found


def show(request: PageRequest, item_id: str) -> PageAnswer:
    """Show an item: why it waits, its payload and its failed attempts."""
    kernel, item = request.kernel, _find(request, item_id)
    attempts = [
        {
            "of": each,
            "error": shown_text(kernel, each.error, 2_000),
            "trace": shown_text(kernel, each.trace, 10_000),
        }
        for each in reversed(kernel.outbox.failed_attempts(item.id))
    ]
    waits = item.status in (ItemStatus.PENDING, ItemStatus.RETRY)
    return PageAnswer(
        "item.html",
        f"{item.kind} {item.id[:8]}",
        {
            "item": item,
            "payload": shown_json(kernel, item.payload),
            "headers": shown_json(kernel, item.headers),
            "error": shown_text(kernel, item.last_error),
            "reasons": shown_reasons(kernel, why_item_waits(kernel, item)),
            "attempts": attempts,
            "retries": request.user.may("steer") and item.status is ItemStatus.FAILED,
            "cancels": request.user.may("steer") and (waits or item.status is ItemStatus.RUNNING),
        },
        crumbs=[PageLink("Outbox", request.url("outbox"))],
        live=item.status not in (ItemStatus.COMPLETED, ItemStatus.FAILED, ItemStatus.CANCELLED),
    )


def order(request: PageRequest, item_id: str) -> OrderAnswer:
    """Carry out an order for an item."""
    request.require("steer")
    item, outbox = _find(request, item_id), request.kernel.outbox
    wanted = request.form.get("order", "")
    known = {
        "retry": (outbox.requeue, "It is tried again.", "It has not failed."),
        "discard": (outbox.discard, "It is discarded.", "It has not failed."),
        "cancel": (outbox.cancel, "It is cancelled, or asked to stop.", "It had ended already."),
    }
    if wanted not in known:
        raise PageError(400, "there is no such order")
    do, done, nothing = known[wanted]
    changed = do([item.id])
    return OrderAnswer(
        request.url("outbox", item.id), done if changed else nothing, "ok" if changed else "warn"
    )
