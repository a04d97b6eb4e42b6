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
_MORE = {
    "discard": "automate_django.delete_outboxitem",
    "fork": "automate_django.add_workflowexecution",
}


def add_bulk_actions(kernel: Kernel) -> None:
    """Have bulk actions asked for by Django's users, if the project has an admin."""
    if apps.is_installed("django.contrib.admin"):
        kernel.bulk.ask(DjangoBulkHost(kernel.audit, kernel.sessions, kernel.tokens))


class DjangoBulkHost(RecordedEnds):
    """Asks for the user's permissions and tenant again before each second of work."""

    def review(self, request: BulkRequest) -> tuple[BulkRequest, str]:
        """Return why the user, or the token, may not do it any more; empty text if they may."""
        problem = "" if _of_service(request) else self._problem(request)
        return (request, problem) if problem else super().review(request)

    def _problem(self, request: BulkRequest) -> str:
        user = get_user_model()._default_manager.filter(pk=request.user).first()
        needed = [
            _CHANGE[request.action.target],
            *([_MORE[request.kind]] if request.kind in _MORE else []),
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
        if _of_service(request):
            return False
        user = get_user_model()._default_manager.filter(pk=request.user).first()
        return request.tenant is not None and _tenant_of(user) == request.tenant


def _of_service(request: BulkRequest) -> bool:
    """Return True for what a service's token began, which acts for no user."""
    return bool(request.token) and request.token == request.user


def _tenant_of(user: Any) -> str | None:
    request = HttpRequest()
    request.user = user
    try:
        tenant = tenant_key(tenant_for_request(request))
    except Exception:  # the project's own function may need whatever a request has
        return None
    return None if tenant is None else str(tenant)
