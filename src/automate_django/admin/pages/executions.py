"""The pages of executions: the list, each one's progress, and resuming, cancelling, repeating."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.urls import URLPattern
from django.utils.http import parse_etags, quote_etag

from automate_django.admin.pages.access import Reach, reach_of, record, uuid_of
from automate_django.admin.pages.base import Link, PageAdmin
from automate_django.admin.pages.bulk_actions import ExecutionBulkPages, allowed_actions
from automate_django.admin.pages.display import (
    shown_attempts,
    shown_json,
    shown_labels,
    shown_reasons,
    shown_step_attempts,
    shown_text,
)
from automate_django.admin.pages.list_query import ExecutionQuery, spans
from automate_django.admin.pages.step_tracks import SCALE, StepTrack, TimelineDrawing
from automate_django.kernel import get_kernel
from automate_django.models import OutboxItem, WorkflowExecution, WorkflowStep, WorkflowVersion
from automate_django.outbox_counts import read_execution_groups
from automate_kernel.base.errors import AutomateError
from automate_kernel.monitoring.waiting import why_execution_waits
from automate_kernel.outbox.failed_attempts import FailedAttempt
from automate_kernel.outbox.handover import Handover
from automate_kernel.outbox.labels import joined_labels
from automate_kernel.storage.tables import EXECUTION
from automate_kernel.storage.values import read_json
from automate_kernel.workflows.decide.program import step_input
from automate_kernel.workflows.decide.waits import ADVANCE
from automate_kernel.workflows.definition.graph import to_svg
from automate_kernel.workflows.definition.model import CodeWorkflow
from automate_kernel.workflows.execution import ExecutionStatus, StepRun, StepStatus
from automate_kernel.workflows.steer.attempts import StepAttempt, step_attempts
from automate_kernel.workflows.store.execution_pages import ExecutionPage
from automate_pages.screens.execution import pinned_workflow

_LATELY = 1000
_MOST_HANDED_OVER = 200

_Done = tuple[bool, str, object]
"""The outcome of an action: True if it changed anything, words for the user, what to show."""
_CHANGE = "automate_django_workflowexecution_change"
_LIST = "automate_django_workflowexecution_changelist"
PATIENCE = 1.5
"""The number of seconds that a page looks on while it has found nothing."""
# How many of an execution's failed attempts its page shows; a step's page shows all of its own.
_MOST_ATTEMPTS = 20
# How many attempts of all kinds a page lists.
_MOST_LISTED = 100


def reconstructed_input(
    execution: WorkflowExecution, step_id: str, position: int
) -> tuple[Any, str | None]:
    """
    Return the input of a step, put together from stored values, or the reason why that fails.

    Both texts may hold what the redactor knows; who shows them redacts them.
    """
    kernel = get_kernel()
    stored = kernel.executions.get(str(execution.pk), large_outputs=False)
    if stored is None:
        return None, "the execution is gone"
    try:
        program = kernel.workflows.program(stored.definition_id)
        kernel.executions.outputs.fill(stored, program.reads)
        return step_input(program, stored, step_id, position), None
    except (AutomateError, ValueError) as error:
        return None, kernel.redactor.redact(str(error))


def origin_of(request: HttpRequest, pages: PageAdmin, execution: WorkflowExecution) -> Link:
    """Return the version of the workflow that *execution* began with, and its page."""
    versions = WorkflowVersion.objects.using(execution._state.db).select_related("document")
    its = versions.filter(digest=execution.definition_id, document__name=execution.workflow)
    version, short = its.order_by("-number").first(), execution.definition_id[:12]
    if version is None or version.document.tenant_id not in (None, execution.tenant_id):
        return Link(f"definition {short}")
    may = request.user.has_perm("automate_django.view_workflowdocument")
    url = pages.url("automate_workflow_version", version.document_id, version.number)
    return Link(f"version {version.number} ({short})", url if may else "")


def workflow_names(reach: Reach) -> list[str]:
    """
    Return the names to choose from in a filter.

    Of all workflows that there are or that have run, to who sees all: that costs one look into an
    index per name, not one per execution. Of those that ran lately, to a tenant.
    """
    if not reach.everyone:
        rows = reach.rows(WorkflowExecution).order_by("-created_at")
        return sorted(set(rows.values_list("workflow", flat=True)[:_LATELY]))
    kernel = get_kernel()
    with kernel.storage.begin(atomic=False) as rows:
        found = rows.distinct(EXECUTION, "workflow")
    return sorted({entry.workflow.name for entry in kernel.workflows.entries()} | set(found))


def _handed_over(reach: Reach) -> list[dict[str, Any]]:
    """Return the reasons for which executions wait for another worker."""
    if reach.nothing:
        return []
    items = get_kernel().outbox.handed_over(limit=_MOST_HANDED_OVER, tenant_id=reach.tenant)
    causes: dict[str, list[Handover]] = {}
    for item in items:
        if item.handover is not None and item.kind == ADVANCE:
            causes.setdefault(item.handover.cause, []).append(item.handover)
    return [
        {
            "reason": shown_text(notes[0].reason).text,
            "count": len(notes),
            "since": min(note.since for note in notes),
            "needed": notes[0].needed,
        }
        for notes in causes.values()
    ]


def _reasons(execution: WorkflowExecution) -> str:
    """Return why an execution waits, a line for each reason; empty once it has ended."""
    kernel = get_kernel()
    found = kernel.executions.get(str(execution.pk), large_outputs=False)
    return "" if found is None else shown_reasons(why_execution_waits(kernel, found))


class WorkflowExecutionAdmin(PageAdmin):
    """
    The executions, their timelines, and the buttons that resume, cancel and repeat them.

    Looking takes the permission ``view_workflowexecution``, the buttons
    ``change_workflowexecution``. A user with a tenant reaches that tenant's alone.
    """

    current = "executions"

    def pages(self) -> list[URLPattern]:
        """Return the pages below the executions' own address."""
        one, step = "<uuid:execution_id>/", "<uuid:execution_id>/steps/<str:step_id>/"
        return [
            *ExecutionBulkPages(self).urls(),
            self.get(f"{one}progress/", self.progress_view, "automate_execution_progress"),
            self.post(f"{one}order/", self.action_view, "automate_execution_action"),
            self.get(step, self.step_view, "automate_execution_step"),
            self.get(f"{step}<int:position>/", self.step_view, "automate_execution_element"),
        ]

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        """Show a page of executions, the newest first."""
        self.require_view(request)
        reach = reach_of(request)
        if (execution_id := uuid_of(request.GET.get("id"))) is not None:
            return HttpResponseRedirect(self.url(_CHANGE, execution_id))
        query = ExecutionQuery.read(request.GET, reach)
        return self.page(
            request,
            "executions.html",
            "Executions",
            query=query,
            found=self._read_page(request, query),
            reach=reach,
            unknown_id=request.GET.get("id", ""),
            tabs_of_statuses=query.tabs(),
            times=spans(query.since),
            names=workflow_names(reach),
            first_page="after" not in request.GET,
            actions=allowed_actions(request, query.all_actions, "executions"),
            groups=self._groups(query, reach),
            handed_over=_handed_over(reach),
        )

    def _groups(self, query: ExecutionQuery, reach: Reach) -> list[dict[str, Any]]:
        """Return the groups of errors, with the addresses of the executions that failed so."""
        if reach.nothing or query.status not in ("", "FAILED"):
            return []
        tenant = (query.tenant or None) if reach.everyone else reach.tenant
        groups = read_execution_groups(get_kernel(), query.workflow or None, tenant)
        most = max((group.count for group in groups), default=1)
        return [
            {
                "of": group,
                "share": group.count / most,
                "url": query.url(status="FAILED", workflow=group.kind, group=group.group or ""),
            }
            for group in groups
        ]

    def _read_page(self, request: HttpRequest, query: ExecutionQuery) -> ExecutionPage:
        reach = reach_of(request)
        if reach.nothing:
            return ExecutionPage()
        try:
            asked = {**query.matching(reach), "after": request.GET.get("after", "")}
            return get_kernel().executions.page(**asked, seconds=PATIENCE)
        except AutomateError as error:
            raise Http404(error.message) from None

    def changeform_view(self, request: Any, object_id: Any = None, *_: Any, **__: Any) -> Any:
        """Show an execution: its steps in time, its event and its output."""
        if request.method != "GET":
            raise PermissionDenied
        execution = self.find(request, object_id)
        workflow = pinned_workflow(get_kernel(), execution.definition_id)
        timeline = TimelineDrawing(execution, workflow, self._step_url).timeline()
        failed, attempts = _attempts(execution)
        return self.page(
            request,
            "execution.html",
            _name(execution),
            execution=execution,
            finished=ExecutionStatus(execution.status).finished,
            timeline=timeline,
            scale=SCALE,
            blank=StepTrack(key="", step_id=""),
            graph=workflow and to_svg(workflow, timeline.statuses, styled=False),
            event=shown_json(execution.event.get("payload")),
            output=_output(execution),
            error=shown_text(execution.error),
            reasons=_reasons(execution),
            attempts=shown_attempts(failed[-_MOST_ATTEMPTS:]),
            all_attempts=shown_step_attempts(attempts),
            labels=shown_labels(_labels(execution)),
            predecessor=execution.chain_id and execution.event.get("source"),
            origin=origin_of(request, self, execution),
            item_url=self._item_url(request, execution),
            may_change=self.has_change_permission(request, execution),
            crumbs=[self._crumb],
        )

    @property
    def _crumb(self) -> Link:
        return Link("Executions", self.url(_LIST))

    def _step_url(self, execution: WorkflowExecution, step_id: str, position: int) -> str:
        if position < 0:
            return self.url("automate_execution_step", execution.pk, step_id)
        return self.url("automate_execution_element", execution.pk, step_id, position)

    def _item_url(self, request: HttpRequest, execution: WorkflowExecution) -> str:
        """Return the execution's item in the outbox, if it is there and the user may see it."""
        items = OutboxItem.objects.using(execution._state.db).filter(pk=execution.item_id)
        may = request.user.has_perm("automate_django.view_outboxitem")
        if not may or not items.exists():
            return ""
        return self.url("automate_django_outboxitem_change", execution.item_id)

    def progress_view(self, request: HttpRequest, execution_id: UUID) -> HttpResponse:
        """Return the timeline as JSON, for the script that keeps the page up to date."""
        execution = self.find(request, execution_id)
        # Each checkpoint renews the lease of its item; of the execution's row it changes nothing.
        item = OutboxItem.objects.using(execution._state.db).filter(pk=execution.item_id)
        leased = item.values_list("lease_expires_at", flat=True).first()
        about = (execution.status, execution.updated_at.isoformat(), execution.item_id, leased)
        etag = quote_etag(hashlib.sha256(repr(about).encode()).hexdigest()[:32])
        headers = {"ETag": etag, "Cache-Control": "private, no-store"}
        if etag in parse_etags(request.headers.get("If-None-Match", "")):
            return HttpResponse(status=304, headers=headers)
        timeline = TimelineDrawing(
            execution, pinned_workflow(get_kernel(), execution.definition_id), self._step_url
        ).timeline()
        progress = {
            "status": execution.status,
            "finished": ExecutionStatus(execution.status).finished,
            "took": timeline.took,
            "error": shown_text(execution.error).text,
            "reasons": _reasons(execution),
            "output": str(_output(execution)),
            "tracks": [asdict(track) for track in timeline.tracks],
        }
        return JsonResponse(progress, headers=headers)

    def step_view(
        self, request: HttpRequest, execution_id: UUID, step_id: str, position: int = -1
    ) -> HttpResponse:
        """Show a step, or an element of its list: input, output and errors."""
        execution = self.find(request, execution_id)
        runs = WorkflowStep.objects.using(execution._state.db).filter(execution=execution)
        run = runs.filter(step_id=step_id, position=position).first()
        workflow = pinned_workflow(get_kernel(), execution.definition_id)
        if run is None:
            raise Http404("This step has not begun.")
        given, problem = reconstructed_input(execution, step_id, position)
        failed, attempts = _attempts(execution, step_id, position)
        own = {step.id for step in workflow.steps} if workflow else set()
        if isinstance(workflow, CodeWorkflow):
            own = {step_id}
        # A step inside a block is tried again with its block.
        alone = workflow is None or not workflow.inside_block(step_id)
        may_change = self.has_change_permission(request, execution)
        finished = ExecutionStatus(execution.status).finished
        return self.page(
            request,
            "step.html",
            f"{step_id}[{position}]" if position >= 0 else step_id,
            execution=execution,
            run=run,
            step=workflow.find_step(step_id) if workflow else None,
            given=shown_json(given) if problem is None else "",
            given_problem=problem,
            output=_output(run) if run.status == StepStatus.COMPLETED.value else "",
            error=shown_text(run.error),
            trace=shown_text(run.trace),
            progress=shown_json(run.progress) if run.progress is not None else "",
            attempts=shown_attempts(failed),
            all_attempts=shown_step_attempts(attempts),
            may_resume=step_id in own and finished and may_change,
            may_retry=may_change
            and run.status == ("FAILED" if finished else "RETRY")
            and (alone or not finished),
            may_fork=step_id in own and self._may_add(request),
            action_url=self.url("automate_execution_action", execution.pk),
            crumbs=[self._crumb, Link(_name(execution), self.url(_CHANGE, execution.pk))],
        )

    def action_view(self, request: HttpRequest, execution_id: UUID) -> HttpResponse:
        """Carry out an order for an execution."""
        execution = self.find(request, execution_id)
        self.require_change(request, execution)
        known = {
            "resume": self._resume, "cancel": self._cancel, "again": self._again,
            "pause": self._pause, "unpause": self._unpause, "retry": self._retry,
            "fork": self._fork,
        }  # fmt: skip
        action = known.get(request.POST.get("order", ""))
        if action is None:
            return HttpResponse("There is no such action.", status=400)
        try:
            # What is done and that it is written down are one transaction.
            with get_kernel().storage.begin():
                done, text, target = action(request, execution)
        except AutomateError as error:
            messages.error(request, f"{shown_text(str(error)).text}.")
            return HttpResponseRedirect(self.url(_CHANGE, execution.pk))
        (messages.success if done else messages.warning)(request, text)
        return HttpResponseRedirect(self.url(_CHANGE, target))

    def _resume(self, request: HttpRequest, execution: WorkflowExecution) -> _Done:
        step_id, kernel = request.POST.get("step") or None, get_kernel()
        current = request.POST.get("definition") == "current"
        tenant = execution.tenant_id
        definition = kernel.workflows.get(execution.workflow, tenant) if current else None
        done = kernel.executions.resume(str(execution.pk), step_id=step_id, definition=definition)
        if not done:
            return done, "It has not failed, or is resumed already.", execution.pk
        about = {"definition": definition.hash()} if definition is not None else {}
        record(request, "resume", [execution], step=step_id or "", **about)
        where = f"step {step_id}" if step_id else "where it failed"
        where += ", with the workflow as it is now" if current else ""
        return done, f"It goes on from {where}.", execution.pk

    def _cancel(self, request: HttpRequest, execution: WorkflowExecution) -> _Done:
        store = get_kernel().executions
        done = store.cancel(str(execution.pk))
        if not done:
            return done, "It had ended already.", execution.pk
        record(request, "cancel", [execution])
        text = "It is cancelled. A plain step that runs is not interrupted."
        if store.is_cancelling(str(execution.pk)):
            text = "It is being cancelled: what it has done is undone and cleaned up first."
        return done, text, execution.pk

    def _pause(self, request: HttpRequest, execution: WorkflowExecution) -> _Done:
        done = get_kernel().executions.pause(str(execution.pk))
        if not done:
            return done, "It does not go on, so that it can't be paused.", execution.pk
        record(request, "pause", [execution])
        return done, "It is paused. What runs ends, and nothing follows.", execution.pk

    def _unpause(self, request: HttpRequest, execution: WorkflowExecution) -> _Done:
        done = get_kernel().executions.unpause(str(execution.pk))
        if not done:
            return done, "It is not paused.", execution.pk
        record(request, "unpause", [execution])
        return done, "It goes on.", execution.pk

    def _retry(self, request: HttpRequest, execution: WorkflowExecution) -> _Done:
        step_id, position = request.POST.get("step", ""), request.POST.get("position", "")
        where = int(position) if position.isascii() and position.isdigit() else -1
        done = get_kernel().executions.retry_step(str(execution.pk), step_id, where)
        if not done:
            return done, "The step has not failed, or runs again already.", execution.pk
        record(request, "retry", [execution], step=step_id, position=where)
        return done, f"Step {step_id} runs again.", execution.pk

    def _fork(self, request: HttpRequest, execution: WorkflowExecution) -> _Done:
        if not self._may_add(request):
            raise PermissionDenied
        step_id, text = request.POST.get("step", ""), request.POST.get("payload", "").strip()
        try:
            given = {"payload": read_json(text)} if text else {}
        except ValueError:
            return False, "It has no copy: the payload is not JSON.", execution.pk
        begun = get_kernel().executions.fork(str(execution.pk), step_id, **given)
        record(request, "fork", [execution], step=step_id, begun=begun)
        return True, f"This is a copy, which begins from step {step_id}.", begun

    def _may_add(self, request: HttpRequest) -> bool:
        may: bool = request.user.has_perm("automate_django.add_workflowexecution")
        return may

    def _again(self, request: HttpRequest, execution: WorkflowExecution) -> _Done:
        begun = get_kernel().start_again(str(execution.pk))
        record(request, "start again", [execution], begun=begun)
        return True, "This is another execution, for the same event.", begun


def _name(execution: WorkflowExecution) -> str:
    return f"{execution.workflow} {str(execution.pk)[:8]}"


def _labels(execution: WorkflowExecution) -> dict[str, str]:
    return joined_labels(execution.labels or {}, execution.event.get("labels") or {})


def _attempts(
    execution: WorkflowExecution, step_id: str | None = None, position: int = -1
) -> tuple[list[FailedAttempt], list[StepAttempt]]:
    """Return the failed attempts of an execution or a step, and the latest ones of all kinds."""
    failed = get_kernel().executions.failed_attempts(str(execution.pk))
    rows = WorkflowStep.objects.using(execution._state.db).filter(execution=execution)
    if step_id is not None:
        failed = [each for each in failed if (each.step_id, each.position) == (step_id, position)]
        rows = rows.filter(step_id=step_id, position=position)
    # Without outputs and errors, which may be large, and of a list with thousands of elements
    # the last ones.
    latest = rows.filter(attempts__gt=0).order_by("-id").values(*_OF_ATTEMPTS)[:_MOST_LISTED]
    runs = [
        StepRun(execution_id=str(execution.pk), **{**row, "status": StepStatus(row["status"])})
        for row in reversed(latest)
    ]
    return failed, step_attempts(runs, failed)[-_MOST_LISTED:]


_OF_ATTEMPTS = (
    "step_id", "position", "status", "attempts", "error_code", "started_at", "completed_at",
    "attempted_at", "worker_id",
)  # fmt: skip


def _output(one: WorkflowExecution | WorkflowStep) -> Any:
    if one.output_ref is not None:
        return shown_text(f"in the output store: {one.output_ref}")
    if one.output is None and isinstance(one, WorkflowExecution):
        return ""
    return shown_json(one.output)
