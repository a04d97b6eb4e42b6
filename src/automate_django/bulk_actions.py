"""The permissions of Django's users for bulk actions that workers carry on after the request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.contrib.auth import get_user_model
from django.http import HttpRequest

from automate_django.tenants import OPERATE, tenant_for_request, tenant_key
from automate_kernel.workflows.steer.bulk_runner import BulkRequest, RecordedEnds

if TYPE_CHECKING:
    from automate_kernel.kernel import Kernel

_CHANGE = {
    "items": "automate_django.change_outboxitem",
    "executions": "automate_django.change_workflowexecution",
}
_DISCARD = "automate_django.delete_outboxitem"


def add_bulk_actions(kernel: Kernel) -> None:
    """Have bulk actions asked for by Django's users, if the project has an admin."""
    if apps.is_installed("django.contrib.admin"):
        kernel.bulk.ask(DjangoBulkHost(kernel.audit))


class DjangoBulkHost(RecordedEnds):
    """Asks for the user's permissions and tenant again before each second of work."""

    def objection(self, request: BulkRequest) -> str:
        """Return why the user may not do it any more; empty text if they may."""
        user = get_user_model()._default_manager.filter(pk=request.user).first()
        needed = [
            _CHANGE[request.action.target],
            *([_DISCARD] if request.kind == "discard" else []),
        ]
        if user is None or not user.is_active or not all(map(user.has_perm, needed)):
            return "The user who began it may not do it any more"
        if user.has_perm(OPERATE):
            return ""
        if request.tenant is None:
            return "The user who began it may not do it for all tenants any more"
        if request.tied and _tenant_of(user) != request.tenant:
            return "The user who began it does not belong to this tenant any more"
        return ""

    def is_tied(self, request: BulkRequest) -> bool:
        """Return True if it takes no more than the user to know the tenant: no session, no host."""
        user = get_user_model()._default_manager.filter(pk=request.user).first()
        return request.tenant is not None and _tenant_of(user) == request.tenant


def _tenant_of(user: Any) -> str | None:
    request = HttpRequest()
    request.user = user
    try:
        tenant = tenant_key(tenant_for_request(request))
    except Exception:  # the project's own function may need whatever a request has
        return None
    return None if tenant is None else str(tenant)
