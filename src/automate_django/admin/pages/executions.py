"""The executions: which there are, how far each has come, and what can be done about it."""

from __future__ import annotations

import hashlib
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.urls import URLPattern
from django.utils.http import parse_etags, quote_etag

from automate_django.admin.bases import trail
from automate_django.admin.pages.access import reach_of
from automate_django.admin.pages.base import PageAdmin
from automate_django.admin.pages.execution_facts import (
    executions,
    origin_of,
    pinned,
    reconstructed_input,
    workflow_names,
)
from automate_django.admin.pages.execution_filter import Filter
from automate_django.admin.pages.failures import shown_attempts, shown_labels
from automate_django.admin.pages.shown import shown_json, shown_text
from automate_django.admin.pages.slices import PATIENCE, read_page
from automate_django.admin.pages.tracks import SCALE, Track, draw, latest_statuses
from automate_django.kernel import get_kernel
from automate_django.models import OutboxItem, WorkflowExecution, WorkflowStep
from automate_django.templatetags.automate_pages import duration
from automate_kernel.errors import AutomateError
from automate_kernel.workflows.definition.graph import to_svg
from automate_kernel.workflows.execution import ExecutionStatus, StepStatus

__all__ = ["WorkflowExecutionAdmin", "register"]

_CHANGE = "automate_django_workflowexecution_change"
_LIST = "automate_django_workflowexecution_changelist"
# How many of an execution's failed attempts its page shows; a step's page shows all of its own.
_MOST_ATTEMPTS = 20
_BLANK = Track(
    key="", step_id="", position=-1, label="", action="", status="", tone="", attempts="",
    took="", after="", note="", url="",
)  # fmt: skip


class WorkflowExecutionAdmin(PageAdmin):
    """
    The executions, their timelines, and the buttons that resume, cancel and repeat them.

    Looking takes the permission ``view_workflowexecution``, the buttons
    ``change_workflowexecution``. A user with a tenant reaches that tenant's alone.
    """

    current = "executions"

    def pages(self) -> list[URLPattern]:
        """The pages below the executions' own address."""
        one, step = "<uuid:execution_id>/", "<uuid:execution_id>/steps/<str:step_id>/"
        return [
            self.get(f"{one}progress/", self.progress_view, "automate_execution_progress"),
            self.post(f"{one}order/", self.order_view, "automate_execution_order"),
            self.get(step, self.step_view, "automate_execution_step"),
            self.get(f"{step}<int:position>/", self.step_view, "automate_execution_element"),
        ]

    def get_queryset(self, request: HttpRequest) -> Any:
        """The executions that the user may see."""
        return executions(reach_of(request))

    def require_view(self, request: HttpRequest) -> None:
        """Raise `PermissionDenied` unless the user may look at executions."""
        if not self.has_view_permission(request):
            raise PermissionDenied

    def _find(self, request: HttpRequest, execution_id: UUID | None) -> WorkflowExecution:
        self.require_view(request)
        found: WorkflowExecution | None = None
        if execution_id is not None:
            found = self.get_queryset(request).filter(pk=execution_id).first()
        if found is None:
            raise Http404("There is no such execution, or it is not yours.")
        return found

    # -- the list ------------------------------------------------------------------------------

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        """The newest first, a page at a time."""
        self.require_view(request)
        reach = reach_of(request)
        if (execution_id := _uuid(request.GET.get("id", ""))) is not None:
            return HttpResponseRedirect(self.url(_CHANGE, execution_id))
        wanted = Filter.read(request.GET, reach)
        try:
            found = read_page(
                wanted.among(executions(reach)).defer("event", "output"),
                wanted.slice,
                wanted.rest,
                after=request.GET.get("after", ""),
                patience=PATIENCE,
            )
        except ValueError as error:
            raise Http404(str(error)) from None
        for row in found.rows:
            row.shown_error = shown_text(row.error, 300)
            ended = row.completed_at
            row.took = duration((ended - row.created_at).total_seconds()) if ended else ""
        return self.page(
            request,
            "executions.html",
            "Executions",
            wanted=wanted,
            found=found,
            reach=reach,
            unknown_id=request.GET.get("id", ""),
            tabs_of_statuses=wanted.tabs(),
            times=wanted.times(),
            names=workflow_names(reach),
            next_url=f"?{urlencode({**wanted.fields, 'after': found.following})}",
            first_page="after" not in request.GET,
        )

    # -- one execution -------------------------------------------------------------------------

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: Any = None,
    ) -> Any:
        """One execution: its steps in time, what came in, what came out."""
        if request.method != "GET":
            raise PermissionDenied
        execution = self._find(request, _uuid(object_id or ""))
        workflow = pinned(execution)
        timeline = draw(execution, workflow, self._step_url)
        finished = ExecutionStatus(execution.status).finished
        return self.page(
            request,
            "execution.html",
            f"{execution.workflow} {str(execution.pk)[:8]}",
            execution=execution,
            finished=finished,
            timeline=timeline,
            scale=SCALE,
            blank=_BLANK,
            graph=to_svg(workflow, latest_statuses(timeline.tracks), styled=False)
            if workflow is not None
            else "",
            event=shown_json(execution.event.get("payload")),
            output=shown_json(execution.output) if execution.output is not None else "",
            error=shown_text(execution.error),
            attempts=shown_attempts(
                get_kernel().executions.failed_attempts(str(execution.pk))[-_MOST_ATTEMPTS:]
            ),
            labels=shown_labels(execution.event.get("labels")),
            origin=origin_of(request, self, execution),
            item_url=self._item_url(request, execution),
            may_change=self.has_change_permission(request, execution),
            crumbs=[{"label": "Executions", "url": self.url(_LIST)}],
        )

    def _step_url(self, execution: WorkflowExecution, step_id: str, position: int) -> str:
        if position < 0:
            return self.url("automate_execution_step", execution.pk, step_id)
        return self.url("automate_execution_element", execution.pk, step_id, position)

    def _item_url(self, request: HttpRequest, execution: WorkflowExecution) -> str:
        """The execution's wake-up in the outbox, if it is still there and the user may see it."""
        items = OutboxItem.objects.using(execution._state.db).filter(pk=execution.item_id)
        may = request.user.has_perm("automate_django.view_outboxitem")
        if not may or not items.exists():
            return ""
        return self.url("automate_django_outboxitem_change", execution.item_id)

    def progress_view(self, request: HttpRequest, execution_id: UUID) -> HttpResponse:
        """The state of the timeline as JSON, for the script that keeps the page up to date."""
        execution = self._find(request, execution_id)
        about = f"{execution.status} {execution.updated_at.isoformat()} {execution.item_id}"
        etag = quote_etag(hashlib.sha256(about.encode()).hexdigest()[:32])
        headers = {"ETag": etag, "Cache-Control": "private, no-store"}
        if etag in parse_etags(request.headers.get("If-None-Match", "")):
            return HttpResponse(status=304, headers=headers)
        timeline = draw(execution, pinned(execution), self._step_url)
        finished = ExecutionStatus(execution.status).finished
        shown = shown_json(execution.output).text if execution.output is not None else ""
        return JsonResponse(
            {
                "status": execution.status,
                "finished": finished,
                "took": timeline.took,
                "error": shown_text(execution.error).text,
                "output": shown,
                "tracks": [track.data() for track in timeline.tracks],
            },
            headers=headers,
        )

    # -- one step ------------------------------------------------------------------------------

    def step_view(
        self, request: HttpRequest, execution_id: UUID, step_id: str, position: int = -1
    ) -> HttpResponse:
        """One step, or one element of its list: what it was given, gave, and where it failed."""
        execution = self._find(request, execution_id)
        steps = WorkflowStep.objects.using(execution._state.db)
        run = steps.filter(execution=execution, step_id=step_id, position=position).first()
        workflow = pinned(execution)
        if run is None:
            raise Http404("This step has not begun.")
        given, problem = reconstructed_input(execution, step_id, position)
        followers = step_id in {step.id for step in workflow.steps} if workflow else False
        return self.page(
            request,
            "step.html",
            f"{step_id}[{position}]" if position >= 0 else step_id,
            execution=execution,
            run=run,
            step=workflow.step(step_id) if workflow and _knows(workflow, step_id) else None,
            given=shown_json(given) if problem is None else "",
            given_problem=problem,
            output=shown_json(run.output) if run.status == StepStatus.COMPLETED.value else "",
            error=shown_text(run.error),
            trace=shown_text(run.trace),
            attempts=shown_attempts(
                each
                for each in get_kernel().executions.failed_attempts(str(execution.pk))
                if (each.step_id, each.position) == (step_id, position)
            ),
            may_resume=(
                followers
                and ExecutionStatus(execution.status).finished
                and self.has_change_permission(request, execution)
            ),
            order_url=self.url("automate_execution_order", execution.pk),
            crumbs=[
                {"label": "Executions", "url": self.url(_LIST)},
                {
                    "label": f"{execution.workflow} {str(execution.pk)[:8]}",
                    "url": self.url(_CHANGE, execution.pk),
                },
            ],
        )

    # -- orders --------------------------------------------------------------------------------

    def order_view(self, request: HttpRequest, execution_id: UUID) -> HttpResponse:
        """Resume, cancel or repeat an execution."""
        execution = self._find(request, execution_id)
        if not self.has_change_permission(request, execution):
            raise PermissionDenied
        order = request.POST.get("order", "")
        give = {"resume": self._resume, "cancel": self._cancel, "again": self._again}.get(order)
        if give is None:
            return HttpResponse("There is no such order.", status=400)
        try:
            # What is done and that it is written down are one transaction.
            with get_kernel().storage.begin():
                done, text, target = give(request, execution)
        except AutomateError as error:
            messages.error(request, f"{shown_text(str(error)).text}.")
            return HttpResponseRedirect(self.url(_CHANGE, execution.pk))
        (messages.success if done else messages.warning)(request, text)
        return HttpResponseRedirect(self.url(_CHANGE, target))

    def _resume(
        self, request: HttpRequest, execution: WorkflowExecution
    ) -> tuple[bool, str, object]:
        step_id = request.POST.get("step") or None
        done = get_kernel().executions.resume(str(execution.pk), step_id=step_id)
        if not done:
            return done, "It has not failed, or is resumed already.", execution.pk
        self._record(request, "resume", execution, step=step_id or "")
        where = f"step {step_id}" if step_id else "where it failed"
        return done, f"It goes on from {where}.", execution.pk

    def _cancel(
        self, request: HttpRequest, execution: WorkflowExecution
    ) -> tuple[bool, str, object]:
        done = get_kernel().executions.cancel(str(execution.pk))
        if not done:
            return done, "It had ended already.", execution.pk
        self._record(request, "cancel", execution)
        return done, "It is cancelled. A step that runs is not interrupted.", execution.pk

    def _again(
        self, request: HttpRequest, execution: WorkflowExecution
    ) -> tuple[bool, str, object]:
        begun = get_kernel().start_again(str(execution.pk))
        self._record(request, "start again", execution, begun=begun)
        return True, "This is another execution, for the same event.", begun

    def _record(
        self, request: HttpRequest, action: str, execution: WorkflowExecution, **details: Any
    ) -> None:
        entry = trail.entry_of(
            request, action, WorkflowExecution, execution,
            tenant=execution.tenant_id, details=details,
        )  # fmt: skip
        trail.write([entry])


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text.strip())
    except ValueError:
        return None


def _knows(workflow: Any, step_id: str) -> bool:
    return any(step.id == step_id for step in (*workflow.steps, *workflow.on_failure))


def register(site: admin.AdminSite) -> None:
    """Put the executions on *site*."""
    if not site.is_registered(WorkflowExecution):
        site.register(WorkflowExecution, WorkflowExecutionAdmin)
