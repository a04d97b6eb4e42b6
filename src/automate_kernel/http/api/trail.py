"""Commands of clients in the audit trail: written down before they are carried out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from automate_kernel.access.audit import Outcome, tenant_of
from automate_kernel.base.errors import AutomateError, StorageError
from automate_kernel.http.api.exchange import ApiRequest, without
from automate_kernel.http.api.problems import ApiError, problem_of
from automate_kernel.http.api.routes import ApiRoute
from automate_kernel.storage.tables import DOCUMENT, EXECUTION, OUTBOX

# The kind of object by the first part of a path, and the table that has its tenant.
_KINDS: Mapping[str, tuple[str, str]] = {
    "executions": ("execution", EXECUTION),
    "approvals": ("approval", EXECUTION),
    "outbox": ("item", OUTBOX),
    "deliveries": ("webhook", ""),
    "workflows": ("workflow", ""),
    "documents": ("workflow", DOCUMENT),
    "tokens": ("token", ""),
}
# What people write, and what may be a payload.
_NOT_KEPT = ("action", "payload", "comment", "form", "source", "tenant_id")
_MOST_IDS = 100
_NO_VERBS = ("bulk", "begin", "kinds", "versions")


def recorded(
    route: ApiRoute, request: ApiRequest, arguments: Sequence[str], carry_out: Callable[[], Any]
) -> Any:
    """
    Return what *carry_out* gives; the audit trail has the command before, and its outcome after.

    Raises `StorageError` if it can't be written: then nothing is carried out.
    """
    audit, client = request.kernel.audit, request.client
    model, table = _KINDS[route.area]
    if "kind" in route.arguments:
        model, table = "kind", ""
    if "bulk_id" in route.arguments:
        model, table = "bulk action", ""
    object_id = arguments[0] if arguments else None
    tenant = client.tenant_for(request.body.get("tenant_id"))
    with suppress(AutomateError):  # an id that is none; the command itself says so
        if tenant is None and table and object_id is not None:
            tenant = tenant_of(request.kernel.storage, table, object_id)
    details = without(request.body, *_NOT_KEPT)
    if "ids" in details:
        details |= {"ids": details["ids"][:_MOST_IDS], "number": len(details["ids"])}
    if len(arguments) > 1:
        details |= dict(zip(route.arguments[1:], arguments[1:], strict=True))
    entry = audit.write(
        _action(route, request), actor=client.name, actor_id=client.id or None, model=model,
        object_id=object_id, tenant_id=tenant, outcome="asked", details=details,
    )  # fmt: skip
    outcome: Outcome = "failed"
    try:
        found = carry_out()
        outcome = "done"
    except ApiError as error:
        outcome = _outcome(error.status)
        raise
    except AutomateError as error:
        outcome = _outcome(problem_of(error).status)
        raise
    finally:
        with suppress(StorageError):  # then the entry says that it was asked for
            audit.conclude(entry, outcome)
    return found


def _action(route: ApiRoute, request: ApiRequest) -> str:
    """Return the word for a command: that of its path, or of its body."""
    words = [part for part in route.parts[1:] if part[0] != "{" and part not in _NO_VERBS]
    return "-".join(words) or str(request.body.get("action") or "new")


def _outcome(status: int) -> Outcome:
    if status == 409:
        return "nothing"
    return "refused" if status < 500 else "failed"
