"""The pages of approvals: the steps that wait for a person, and the form to decide on one."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern

from automate_django.admin.pages.access import reach_of, record
from automate_django.admin.pages.base import Link, PageAdmin
from automate_django.admin.pages.display import shown_text
from automate_django.kernel import get_kernel
from automate_django.models import WorkflowExecution, WorkflowWait
from automate_django.tenants import person_of
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.http.approvals import SentAnswer, fields_html, problems_in, shown_fields
from automate_kernel.workflows.steer.approvals import ApprovalPage, PendingApproval

_LIST = "automate_django_workflowwait_changelist"
_CHANGE = "automate_django_workflowwait_change"


class WorkflowWaitAdmin(PageAdmin):
    """
    The open approvals, and the form to approve or reject one.

    Looking takes the permission ``view_workflowwait``, deciding ``change_workflowwait``; and the
    user, or one of the user's groups as a role, must be among those that the approval is for. A
    user with a tenant reaches that tenant's alone.
    """

    current = "approvals"

    def pages(self) -> list[URLPattern]:
        """Return the pages below the approvals' own address."""
        return [self.post("<uuid:wait_id>/decide/", self.decide_view, "automate_approval_decide")]

    def get_queryset(self, request: HttpRequest) -> Any:
        """Return the approvals that the user may see."""
        return super().get_queryset(request).filter(about="approval")

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        """Show a page of open approvals: those that the user may decide, or all."""
        self.require_view(request)
        everybodys = request.GET.get("for") == "all"
        return self.page(
            request,
            "approvals.html",
            "Approvals",
            found=self._read_page(request, everybodys=everybodys),
            reach=reach_of(request),
            which=[
                Link("For me", "?", not everybodys),
                Link("All", "?for=all", everybodys),
            ],
            everybodys=everybodys,
            first_page="after" not in request.GET,
        )

    def _read_page(self, request: HttpRequest, *, everybodys: bool) -> ApprovalPage:
        reach = reach_of(request)
        if reach.nothing:
            return ApprovalPage()
        person = person_of(request)
        by, roles = (None, ()) if everybodys else (person.name, person.roles)
        try:
            return get_kernel().approvals.pending(
                tenant_id=None if reach.everyone else reach.tenant,
                after=request.GET.get("after", ""), by=by, roles=roles,
            )  # fmt: skip
        except AutomateError as error:
            raise Http404(error.message) from None

    def changeform_view(self, request: Any, object_id: Any = None, *_: Any, **__: Any) -> Any:
        """Show an approval with its form."""
        if request.method != "GET":
            raise PermissionDenied
        row = self.find(request, object_id)
        return self._form(request, row, self._waiting(row))

    def decide_view(self, request: HttpRequest, wait_id: UUID) -> HttpResponse:
        """Approve or reject."""
        row = self.find(request, wait_id)
        self.require_change(request, row)
        waiting, person = self._waiting(row), person_of(request)
        answer = SentAnswer.read(request.POST.items())
        if answer.approved is None:
            return self._form(request, row, waiting, answer, "Choose to approve or to reject.")
        done = "approve" if answer.approved else "reject"
        try:
            # What is done and that it is written down are one transaction.
            with get_kernel().storage.begin():
                getattr(get_kernel().approvals, done)(
                    waiting.execution_id, waiting.step_id, waiting.position, by=person.name,
                    roles=person.roles, comment=answer.comment, form=answer.form,
                    tenant_id=waiting.tenant_id,
                )  # fmt: skip
                its = WorkflowExecution.objects.using(row._state.db).filter(pk=row.execution_id)
                record(request, done, list(its), step=row.step_id, position=row.position)
        except AutomateError as error:
            if error.code is ErrorCodes.INVALID_ARGUMENT:
                return self._form(request, row, waiting, answer, *problems_in(error))
            messages.error(request, f"{shown_text(str(error)).text}.")
            return HttpResponseRedirect(self.url(_LIST))
        messages.success(request, f"{'Approved' if answer.approved else 'Rejected'}.")
        return HttpResponseRedirect(self.url(_LIST))

    def _waiting(self, row: WorkflowWait) -> PendingApproval:
        found = get_kernel().approvals.get(
            str(row.execution_id), row.step_id, row.position, tenant_id=row.tenant_id
        )
        if found is None:
            raise Http404("Nothing waits for this decision any more.")
        return found

    def _form(
        self,
        request: HttpRequest,
        row: WorkflowWait,
        waiting: PendingApproval,
        answer: SentAnswer | None = None,
        problem: str | None = None,
        problems: Any = None,
    ) -> HttpResponse:
        person = person_of(request)
        may = self.has_change_permission(request, row)
        page = self.page(
            request,
            "approval.html",
            shown_text(waiting.title, 200).text,
            waiting=waiting,
            about=shown_text(waiting.description),
            form_fields=fields_html(
                shown_fields(waiting.form, answer, problems), answer.comment if answer else ""
            ),
            problem=problem,
            may_decide=may and waiting.may_decide(person.name, person.roles),
            decide_url=self.url("automate_approval_decide", row.pk),
            execution_url=self._execution_url(request, row),
            crumbs=[Link("Approvals", self.url(_LIST))],
        )
        page.status_code = 422 if problem else 200
        return page

    def _execution_url(self, request: HttpRequest, row: WorkflowWait) -> str:
        user: Any = request.user
        may = user.has_perm("automate_django.view_workflowexecution")
        name = "automate_django_workflowexecution_change"
        return self.url(name, row.execution_id) if may else ""
