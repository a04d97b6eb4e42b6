"""The audit trail: who did what, found by user, action, object and time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import Any

from automate_kernel.access.audit import AuditRecord
from automate_pages.csv_file import CSV_TYPE, csv_lines
from automate_pages.exchange import FileAnswer, PageAnswer, PageError, PageRequest
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

_COLUMNS = (
    "created_at", "actor", "actor_id", "tenant_id", "action", "model", "object_id", "object_repr",
    "outcome", "details", "changes",
)  # fmt: skip
_AT_ONCE = 500


def show(request: PageRequest) -> PageAnswer:
    """Show a page of entries, of the user's tenant alone."""
    given, matching = _asked(request)
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
            "file": request.url("audit", "csv", **given),
            "next": request.url("audit", **given, after=found.after) if found.after else "",
            "first": request.url("audit", **given) if after else "",
        },
    )


def _asked(request: PageRequest) -> tuple[dict[str, str], dict[str, Any]]:
    """Return what the address asks for, and the conditions on entries that follow from it."""
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
    return given, matching


def export(request: PageRequest) -> FileAnswer:
    """Return all entries that the address asks for as CSV, and write down who took them."""
    given, matching = _asked(request)
    if request.part:
        raise PageError(404, "a file has no part that changes")
    user = request.user
    request.kernel.audit.write(
        "export", actor=user.name, actor_id=user.id or None, model="audit", tenant_id=user.tenant,
        details=given,
    )  # fmt: skip
    rows = (
        [_text(request, getattr(each, name)) for name in _COLUMNS]
        for each in _entries(request, matching)
    )
    day = datetime.now(timezone.utc).strftime("%Y-%m-%d")
    return FileAnswer(f"audit-{day}.csv", CSV_TYPE, csv_lines(_COLUMNS, rows))


def _text(request: PageRequest, value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return request.kernel.redactor.redact(json.dumps(dict(value), ensure_ascii=False, default=str))


def _entries(request: PageRequest, matching: Mapping[str, Any]) -> Iterator[AuditRecord]:
    """Return the entries page by page, each page when it is asked for."""
    after, more = "", True
    while more:
        found = request.kernel.audit.page(**matching, after=after, limit=_AT_ONCE)
        yield from found.records
        after, more = found.after, bool(found.after)


def _addresses(request: PageRequest, records: Any) -> dict[str, str]:
    """Return the addresses of the pages of the objects, by the entry's id."""
    places = {"execution": "executions", "approval": "executions", "item": "outbox",
              "workflow": "workflows"}  # fmt: skip
    return {
        each.id: request.url(places[each.model], each.object_id)
        for each in records
        if each.object_id and each.model in places
    }
