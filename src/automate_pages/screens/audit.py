"""The audit trail: who did what, found by user, action, object and time."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from automate_pages.exchange import PageAnswer, PageRequest
from automate_pages.formats import shown_json
from automate_pages.lists import PATIENCE, TIMES

REVIEWED = (
    "execution", "approval", "item", "workflow", "kind", "operation", "plugin", "account",
    "webhook",
)  # fmt: skip
"""The kinds of objects whose entries a user sees who reviews, and doesn't administer."""
_FIELDS = {
    "user": "actor", "action": "action", "kind": "model", "object": "object_id",
    "outcome": "outcome", "tenant": "tenant_id",
}  # fmt: skip


def show(request: PageRequest) -> PageAnswer:
    """Show a page of entries, of the user's tenant alone."""
    administers = request.may("administer")
    if not administers:
        request.require("review")
    given = {name: request.text(name) for name in (*_FIELDS, "since")}
    if given["since"] not in TIMES:
        given["since"] = ""
    if request.user.tenant is not None:
        given["tenant"] = ""
    given = {name: text for name, text in given.items() if text}
    matching: dict[str, Any] = {
        column: given[name] for name, column in _FIELDS.items() if name in given
    }
    if "since" in given:
        matching["created_after"] = datetime.now(timezone.utc) - TIMES[given["since"]][1]
    if request.user.tenant is not None:
        matching["tenant_id"] = request.user.tenant
    if not administers:
        matching["models"] = REVIEWED
    after = request.text("after")
    found = request.kernel.audit.page(**matching, after=after, seconds=PATIENCE)
    return PageAnswer(
        "audit.html",
        "Audit",
        {
            "given": given,
            "times": {name: label for name, (label, _) in TIMES.items()},
            "entries": [
                (each, shown_json(request.kernel, {**each.details, **each.changes}))
                for each in found.records
            ],
            "addresses": _addresses(request, found.records),
            "looked": found.looked,
            "next": request.url("audit", **given, after=found.after) if found.after else "",
            "first": request.url("audit", **given) if after else "",
        },
    )


def _addresses(request: PageRequest, records: Any) -> dict[str, str]:
    """Return the addresses of the pages of the objects, by the entry's id."""
    places = {"execution": "executions", "approval": "executions", "item": "outbox",
              "workflow": "workflows"}  # fmt: skip
    return {
        each.id: request.url(places[each.model], each.object_id)
        for each in records
        if each.object_id and each.model in places
    }
