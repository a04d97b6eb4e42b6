"""Bulk actions of the operator's pages: what there is to do, who may, and the record of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.contrib.auth import get_user_model
from django.db import router, transaction
from django.http import HttpRequest

from automate_django.audit_trail import entry_values, write_entries
from automate_django.models import AuditEntry, OutboxItem, WorkflowExecution
from automate_django.outbox_counts import forget_counts
from automate_django.tenants import OPERATE, tenant_for_request, tenant_key
from automate_kernel.outbox import OutboxStore
from automate_kernel.outbox.controls import controls_of
from automate_kernel.workflows.steer.bulk_runner import BulkRequest, BulkRunner
from automate_pages.bulk import BULK_ACTIONS, BulkActionKind

if TYPE_CHECKING:
    from automate_kernel.kernel import Kernel

CHANGE: Mapping[str, str] = {
    "items": "automate_django.change_outboxitem",
    "executions": "automate_django.change_workflowexecution",
}
"""The permission that every bulk action needs, by what it changes."""
MODELS: Mapping[str, Any] = {"items": OutboxItem, "executions": WorkflowExecution}
"""The models that the entries of the audit trail are about."""


PERMISSIONS: Mapping[str, str] = {"discard": "automate_django.delete_outboxitem"}
"""The permissions that some bulk actions need beside `CHANGE`."""


def allowed(kind: BulkActionKind, user: Any) -> bool:
    """Return True if *user* may do what *kind* says."""
    return all(map(user.has_perm, filter(None, (CHANGE[kind.target], PERMISSIONS.get(kind.name)))))


def kind_of(request: BulkRequest) -> BulkActionKind:
    """Return the kind of the bulk action that was asked for."""
    return BULK_ACTIONS[request.action.target][request.kind]


def run_on_items(outbox: OutboxStore, kind: str, ids: list[str], *, delay: float = 0.0) -> int:
    """Do what the bulk action *kind* does to the items *ids*; return how many it changed."""
    command = BULK_ACTIONS["items"][kind].command
    if command == "reschedule":
        return controls_of(outbox).reschedule(ids, delay=delay)
    return int(getattr(outbox, command)(ids))


def follows_from_user(user: Any, tenant: str | None) -> bool:
    """Return True if it takes no more than *user* to know the *tenant*: no session, no host."""
    return tenant is not None and _tenant_of(user) == tenant


def _tenant_of(user: Any) -> str | None:
    request = HttpRequest()
    request.user = user
    try:
        tenant = tenant_key(tenant_for_request(request))
    except Exception:  # the project's own function may need whatever a request has
        return None
    return None if tenant is None else str(tenant)


def bulk_runner(kernel: Kernel) -> BulkRunner:
    """Return what carries bulk actions out for *kernel*."""
    return kernel.bulk


def add_bulk_actions(kernel: Kernel) -> None:
    """Have bulk actions asked for by Django's users, if the project has an admin."""
    if apps.is_installed("django.contrib.admin"):
        kernel.bulk.host = _Host()


class _Host:
    """Permissions from Django's users, and the audit trail."""

    def objection(self, request: BulkRequest) -> str:
        user = _user(request)
        if user is None or not user.is_active or not allowed(kind_of(request), user):
            return "The user who began it may not do it any more"
        if user.has_perm(OPERATE):
            return ""
        if request.tenant is None:
            return "The user who began it may not do it for all tenants any more"
        if request.tied and _tenant_of(user) != request.tenant:
            return "The user who began it does not belong to this tenant any more"
        return ""

    def ended(self, request_id: str, request: BulkRequest, problem: str, _: Any) -> None:
        nobody = SimpleNamespace(pk=None, get_username=lambda: "")
        by: Any = SimpleNamespace(user=_user(request) or nobody)
        details: dict[str, Any] = {"filter": request.fields, "request": asdict(request)}
        if problem:
            details["problem"] = problem
        model = MODELS[request.action.target]
        entry = entry_values(by, request.kind, model, tenant=request.tenant, details=details)
        about = f"{'stopped' if problem else 'ended'}: {request.label}"
        write_entries([{**entry, "object_repr": about[:200], "object_id": request_id}])
        transaction.on_commit(forget_counts, using=router.db_for_write(OutboxItem))

    def find_ended(self, request_id: str) -> tuple[BulkRequest, str] | None:
        # Not in a replica, which may not know it yet: the item would be gone, and nothing known
        # of it.
        entries = AuditEntry.objects.using(router.db_for_write(AuditEntry))
        labels = [model._meta.label_lower for model in MODELS.values()]
        entry = entries.filter(model__in=labels, object_id=request_id).first()
        if entry is None:
            return None
        return BulkRequest.read(entry.details["request"]), entry.details.get("problem") or ""


def _user(request: BulkRequest) -> Any:
    return get_user_model()._default_manager.filter(pk=request.user).first()
