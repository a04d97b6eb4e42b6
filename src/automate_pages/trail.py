"""Orders in the audit trail: written down before they are carried out, and what became of them."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from automate_kernel.access.audit import Outcome, tenant_of
from automate_kernel.base.errors import StorageError
from automate_kernel.kernel import Kernel
from automate_kernel.storage.tables import DOCUMENT, EXECUTION, OUTBOX
from automate_pages.exchange import Answer, OrderAnswer, PageAnswer, PageRequest, path_parts

_ORDER = re.compile("[a-z][a-z0-9_-]{0,40}")
# The kind of object by the address of its page, and the table that has its tenant.
_KINDS = {
    "executions": ("execution", EXECUTION),
    "approvals": ("approval", EXECUTION),
    "outbox": ("item", OUTBOX),
    "workflows": ("workflow", ""),
    "documents": ("workflow", DOCUMENT),
    "kinds": ("kind", ""),
    "operations": ("operation", ""),
    "plugins": ("plugin", ""),
    "accounts": ("account", ""),
    "webhooks": ("webhook", ""),
    "sessions": ("session", ""),
    "tokens": ("token", ""),
    "saved": ("query", ""),
}
# No other field of a form is kept: it may be a payload, or a comment.
_FIELDS = (
    "step", "position", "definition", "name", "scope", "number", "kind", "reason", "per_second",
    "delay", "concurrency", "rate", "per_seconds", "first", "last",
)  # fmt: skip
# The field that names the object, of forms whose address doesn't; and an order without a name.
_NAMED_BY = {"kinds": "kind", "operations": "name", "webhooks": "delivery", "accounts": "name"}
_USUAL = {"workflow": "start", "operation": "call", "plugin": "load"}
# The conditions of the lists that orders for many are sent from.
_CONDITIONS = (
    "status", "workflow", "waiting_for", "kind", "code", "group", "label", "since", "from", "to",
    "tenant", "ordering_key", "concurrency_key",
)  # fmt: skip
_MOST_IDS = 100


class OrderTrail:
    """Writes the orders of the pages of *kernel* into its audit trail."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def begin(self, request: PageRequest) -> tuple[str, dict[str, Any]]:
        """Write down what is asked for; raises `StorageError` if that can't be."""
        place, *rest = [*path_parts(request.path), ""]
        if place == "access" and len(rest) > 1:
            place, *rest = rest
        model, table = _KINDS.get(place, (place or "page", ""))
        if rest[0] == "bulk" and len(rest) > 1:
            model, table, rest = "bulk action", "", rest[1:]
        if rest[:1] == ["new"]:
            table, rest = "", [""]
        object_id = rest[0] or request.form.get(_NAMED_BY.get(place, "")) or None
        details: dict[str, Any] = {
            name: request.form[name][:200] for name in _FIELDS if request.form.get(name)
        }
        if place == "documents" and len(rest) > 2:
            details |= {"version": rest[2]}
        if place == "approvals":
            details |= dict(zip(("step", "position"), rest[1:3], strict=False))
        if object_id is None and table:
            details |= _chosen(request)
        tenant = request.user.tenant or (request.text("tenant") if model == "workflow" else None)
        if tenant is None and table and object_id is not None:
            tenant = tenant_of(self._kernel.storage, table, object_id)
        entry = self._kernel.audit.write(
            _action(request, model), actor=request.user.name, actor_id=request.user.id or None,
            model=model, object_id=object_id, tenant_id=tenant or None, outcome="asked",
            details=details,
        )  # fmt: skip
        return entry, details

    def end(
        self, begun: tuple[str, dict[str, Any]], request: PageRequest,
        answer: Answer,
    ) -> Answer:  # fmt: skip
        """Write down what became of it, and return *answer*, or that this wasn't possible."""
        entry, details = begun
        outcome: Outcome
        if isinstance(answer, OrderAnswer):
            outcomes: dict[str, Outcome] = {"ok": "done", "warn": "nothing", "bad": "failed"}
            outcome = outcomes[answer.tone]
            led_to = answer.url.partition("?")[0].removeprefix(request.base)
            if outcome == "done" and led_to.strip("/") != request.path.strip("/"):
                details = {**details, "led_to": led_to}
        elif isinstance(answer, PageAnswer):
            # A page that asks to confirm, or shows the form again, has done nothing.
            refused: Outcome = "failed" if answer.status >= 500 else "refused"
            outcome = refused if answer.status >= 400 else "done" if answer.done else "nothing"
            details = {**details, "status": answer.status}
        else:  # no order is answered by a file
            return answer
        try:
            self._kernel.audit.conclude(entry, outcome, details=details)
        except StorageError:
            lost = "What became of it is not in the audit trail, which can't be written."
            if isinstance(answer, OrderAnswer):
                return replace(answer, notice=f"{answer.notice} {lost}".strip(), tone="bad")
        return answer


def _chosen(request: PageRequest) -> dict[str, Any]:
    """Return what an order for many is for: those that are ticked, or the list's filter."""
    ids = request.form.every("id")
    if ids:
        return {"ids": [each[:40] for each in ids[:_MOST_IDS]], "number": len(ids)}
    given = {name: request.form.get(name, "")[:200] for name in _CONDITIONS}
    return {"filter": {name: text for name, text in given.items() if text}}


def _action(request: PageRequest, model: str) -> str:
    text = request.form.get("order") or request.form.get("decision") or ""
    if not text:
        return _USUAL.get(model, "order") if "choices" not in request.form else "choices"
    return text if _ORDER.fullmatch(text) else "order"
