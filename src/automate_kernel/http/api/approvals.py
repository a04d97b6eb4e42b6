"""``/approvals``: the steps that wait for a person, and the decisions on them."""

from __future__ import annotations

from typing import Any

from automate_kernel.base.errors import AutomateError
from automate_kernel.http.api.exchange import (
    ApiPage,
    ApiRequest,
    WholeValue,
    uuid_of,
    without,
)
from automate_kernel.http.api.problems import NOT_VALID, ApiError, pointer_to
from automate_kernel.workflows.steer.approvals import Decision, PendingApproval


def list_approvals(request: ApiRequest) -> ApiPage:
    """List the open approvals, the oldest first."""
    matching = without(request.filters, "mine")
    if request.query.get("mine"):
        matching |= {"by": request.client.name, "roles": request.client.roles}
    page = request.page(request.kernel.approvals.pending, "approvals", **matching)
    return ApiPage([_told(request, each) for each in page.results], page.next, page.previous)


def list_decisions(request: ApiRequest) -> ApiPage:
    """List who decided what, the latest first."""
    return request.page(request.kernel.approvals.decided, "decisions", **request.filters)


def show(request: ApiRequest, execution_id: str, step: str) -> Any:
    """Read one, with the JSON Schema of its form."""
    position = request.query.get("position", -1)
    found = request.kernel.approvals.get(uuid_of(execution_id), step, position)
    return _told(request, request.client.visible(found))


def approve(request: ApiRequest, execution_id: str, step: str) -> Any:
    """Approve what a step waits for; the answer is the step's output."""
    return _decide(request, "approve", execution_id, step)


def reject(request: ApiRequest, execution_id: str, step: str) -> Any:
    """Reject what a step waits for; its workflow says what that means."""
    return _decide(request, "reject", execution_id, step)


def _decide(request: ApiRequest, decision: Decision, execution_id: str, step: str) -> Any:
    approvals, client = request.kernel.approvals, request.client
    decide = approvals.approve if decision == "approve" else approvals.reject
    try:
        return decide(
            uuid_of(execution_id), step, by=client.name, roles=client.roles,
            tenant_id=client.own_tenant, **request.body,
        )  # fmt: skip
    except AutomateError as error:
        if problems := error.details.get("fields"):
            errors = [
                {"pointer": pointer_to("form", str(name)), "detail": text, "code": "invalid"}
                for name, text in problems.items()
            ]
            raise ApiError(400, NOT_VALID, errors=errors) from None
        raise


def _told(request: ApiRequest, approval: PendingApproval) -> Any:
    may = approval.may_decide(request.client.name, request.client.roles)
    return WholeValue(approval, may_decide=may, form_fields=approval.form_schema())
