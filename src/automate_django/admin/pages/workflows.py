"""The pages of workflows: the list, definitions, versions, changes and starts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern
from django.utils.decorators import method_decorator
from django.views.decorators.csrf import csrf_protect

from automate_django import definitions
from automate_django.admin.pages.access import Reach, reach_of, record
from automate_django.admin.pages.base import PageAdmin
from automate_django.admin.pages.display import shown_text
from automate_django.admin.pages.workflow_editor import RunForm, WorkflowEditor, digest, new_doubts
from automate_django.admin.pages.workflow_list import (
    ListedWorkflow,
    clean,
    crumbs_to,
    current_workflow,
    differences,
    fill,
    listed,
    of_document,
    runs_of,
)
from automate_django.kernel import get_kernel
from automate_django.models import WorkflowDocument, WorkflowVersion
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.triggers.polls.poller import Poll
from automate_kernel.workflows.definition.graph import to_svg, to_text
from automate_kernel.workflows.definition.loader import dumps
from automate_kernel.workflows.definition.model import Workflow
from automate_kernel.workflows.definition.triggers import EventTrigger
from automate_kernel.workflows.steer.schedule import Schedule

_LIST = "automate_workflows"
_RUN = "automate_django.add_workflowexecution"
_STEER = "automate_django.change_workflowexecution"
_SCHEDULE = "automate_django.change_workflowschedule"
_VERSIONS_SHOWN = 50
_NUMBER = re.compile("[0-9]{1,9}")


class WorkflowDocumentAdmin(PageAdmin):
    """
    All workflows: those of files, which are looked at here, and those that are edited here.

    Looking takes ``view_workflowdocument``, editing ``change_`` and ``add_workflowdocument``,
    starting one ``add_workflowexecution``. A user with a tenant reaches the tenant's own alone.
    """

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return True if the user may make a workflow: for the own tenant, or for all."""
        may: bool = request.user.has_perm("automate_django.add_workflowdocument")
        return may and not reach_of(request).nothing

    def pages(self) -> list[URLPattern]:
        """Return the pages below the workflows' own address."""
        one, version = "<uuid:pk>/", "<uuid:pk>/versions/<int:number>/"
        return [
            self.get("", self.changelist_view, _LIST),
            self.get("files/<path:name>/", self.file_view, "automate_workflow_file"),
            self.post("run/<path:name>/", self.run_file_view, "automate_workflow_run_file"),
            self.post("pause/<path:name>/", self.pause_file_view, "automate_workflow_pause_file"),
            self.post(f"{one}pause/", self.pause_view, "automate_workflow_pause"),
            self.post(
                "schedule/<path:name>/", self.schedule_file_view, "automate_workflow_schedule_file"
            ),
            self.post(f"{one}schedule/", self.schedule_view, "automate_workflow_schedule"),
            self.get(one, self.document_view, "automate_workflow"),
            self.post(f"{one}run/", self.run_view, "automate_workflow_run"),
            self.post(f"{one}switch/", self.switch_view, "automate_workflow_switch"),
            self.get(version, self.version_view, "automate_workflow_version"),
            self.post(f"{version}restore/", self.restore_view, "automate_workflow_restore"),
        ]

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        """Show all workflows by name, with the outcomes of their last executions."""
        self.require_view(request)
        reach = reach_of(request)
        search = request.GET.get("q", "").replace("\x00", "").strip()[:200]
        page = Paginator(listed(reach, search), 50).get_page(request.GET.get("page"))
        rows = list(page.object_list)
        fill(rows, reach)
        for row in rows:
            row.url = self._url_of(row)
        return self.page(
            request,
            "workflows.html",
            "Workflows",
            found=page,
            rows=rows,
            search=search,
            reach=reach,
            may_add=self.has_add_permission(request),
            search_query=urlencode({"q": search}) if search else "",
        )

    def _url_of(self, row: ListedWorkflow) -> str:
        if row.document is not None:
            return self.url("automate_workflow", row.document.pk)
        return self.url("automate_workflow_file", row.name)

    def file_view(self, request: HttpRequest, name: str) -> HttpResponse:
        """Show a workflow of a file, which can't be changed here."""
        return self._show(request, self._of_file(request, name))

    def _of_file(self, request: HttpRequest, name: str) -> ListedWorkflow:
        self.require_view(request)
        if reach_of(request).everyone:
            for workflow in get_kernel().workflows.added():
                if workflow.name == name:
                    return ListedWorkflow(name, workflow=workflow)
        raise Http404("There is no such workflow, or it is not yours.")

    def document_view(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """Show a workflow of the database, with its versions."""
        document = self.find(request, pk)
        row = of_document(document, get_kernel().workflows.problems())
        row.workflow = current_workflow(document)
        row.problem = row.problem if document.enabled else ""
        versions = WorkflowVersion.objects.using(document._state.db).filter(document=document)
        return self._show(
            request,
            row,
            versions=versions.defer("source", "definition").order_by("-number")[:_VERSIONS_SHOWN],
            latest=versions.defer("definition").get(number=document.version or document.latest),
            may_change=self.has_change_permission(request, document),
        )

    def _show(
        self,
        request: HttpRequest,
        row: ListedWorkflow,
        run_form: RunForm | None = None,
        **context: Any,
    ) -> HttpResponse:
        kernel, reach = get_kernel(), reach_of(request)
        workflow = row.workflow
        latest = context.get("latest")
        source = latest.source if latest else (dumps(workflow, "json") if workflow else "")
        return self.page(
            request,
            "workflow.html",
            row.name,
            row=row,
            workflow=workflow,
            graph=to_svg(workflow, styled=False) if workflow else "",
            graph_text=to_text(workflow) if workflow else "",
            advice=definitions.advice(workflow, kernel) if workflow and not row.problem else [],
            source=shown_text(source),
            runs=runs_of(reach, row.name, row.tenant_id),
            reach=reach,
            **self._pause_of(request, row),
            run_url=self._run_url(row) if self._may_run(request, row) and workflow else "",
            run_form=run_form or RunForm(),
            schedules=_schedules(row) if workflow and not row.problem else [],
            polls=_polls(row, workflow) if workflow and not row.problem else [],
            schedule_url=self._schedule_url(row),
            may_pause=request.user.has_perm(_SCHEDULE),
            crumbs=crumbs_to(self, None),
            **context,
        )

    def _pause_of(self, request: HttpRequest, row: ListedWorkflow) -> dict[str, Any]:
        """Return the pauses of a workflow, and the address that pauses it or lets it go on."""
        reach, pauses = reach_of(request), get_kernel().workflows.paused()
        seen = [None, row.tenant_id or (None if reach.everyone else reach.tenant)]
        its = [
            each for each in pauses
            if each.workflow == row.name and (reach.everyone or each.tenant_id in seen)
        ]  # fmt: skip
        url = ""
        if request.user.has_perm(_STEER) and row.document is None:
            url = self.url("automate_workflow_pause_file", row.name)
        elif request.user.has_perm(_STEER) and row.document is not None:
            url = self.url("automate_workflow_pause", row.document.pk)
        own = self._paused_tenant(request, row)
        return {
            "pauses": its, "paused": any(each.tenant_id == own for each in its), "pause_url": url
        }  # fmt: skip

    def _paused_tenant(self, request: HttpRequest, row: ListedWorkflow) -> str | None:
        """Return the tenant whose executions a button pauses: None for those of all."""
        reach = reach_of(request)
        return row.tenant_id or (None if reach.everyone else reach.tenant)

    def pause_file_view(self, request: HttpRequest, name: str) -> HttpResponse:
        """Pause a workflow of a file, or let it go on."""
        return self._pause(request, self._of_file(request, name))

    def pause_view(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """Pause a workflow of the database, or let it go on."""
        document = self.find(request, pk)
        return self._pause(request, ListedWorkflow(document.name, document))

    def _pause(self, request: HttpRequest, row: ListedWorkflow) -> HttpResponse:
        if not request.user.has_perm(_STEER) or reach_of(request).nothing:
            raise PermissionDenied
        workflows, tenant = get_kernel().workflows, self._paused_tenant(request, row)
        pauses = request.POST.get("pause") == "yes"
        with get_kernel().storage.begin():
            done = (workflows.pause if pauses else workflows.resume)(row.name, tenant_id=tenant)
            rows = [] if row.document is None else [row.document]
            what = "pause" if pauses else "unpause"
            if done:
                record(
                    request, what, rows, model=WorkflowDocument, workflow=row.name, tenant=tenant
                )
        if not done:
            messages.warning(request, "It is so already.")
        elif pauses:
            messages.success(request, "It is paused: its executions wait, and new ones with them.")
        else:
            messages.success(request, "Its executions go on.")
        return HttpResponseRedirect(self._url_of(row))

    def _run_url(self, row: ListedWorkflow) -> str:
        if row.document is None:
            return self.url("automate_workflow_run_file", row.name)
        return self.url("automate_workflow_run", row.document.pk) if row.document.enabled else ""

    def _may_run(self, request: HttpRequest, row: ListedWorkflow) -> bool:
        may: bool = request.user.has_perm(_RUN)
        return may and not row.problem

    def run_file_view(self, request: HttpRequest, name: str) -> HttpResponse:
        """Start a workflow of a file."""
        return self._run(request, self._of_file(request, name))

    def run_view(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """Start a workflow of the database."""
        document = self.find(request, pk)
        row = ListedWorkflow(document.name, document, current_workflow(document))
        return self._run(request, row)

    def _run(self, request: HttpRequest, row: ListedWorkflow) -> HttpResponse:
        if not self._may_run(request, row):
            raise PermissionDenied
        form = RunForm(request.POST)
        if not form.is_valid():
            return self._show(request, row, form)
        tenant_id = self._tenant_of_run(reach_of(request), row, form)
        try:
            # What is done and that it is written down are one transaction, here and below.
            with get_kernel().storage.begin():
                payload, delay = form.cleaned_data["payload"], form.cleaned_data["delay"]
                begun = get_kernel().start(row.name, payload, tenant_id=tenant_id, delay=delay)
                rows = [] if row.document is None else [row.document]
                record(request, "run", rows, model=WorkflowDocument, workflow=row.name, begun=begun)
        except AutomateError as error:
            messages.error(request, f"{clean(str(error))}.")
            return HttpResponseRedirect(self._url_of(row))
        return HttpResponseRedirect(self.url("automate_django_workflowexecution_change", begun))

    def schedule_file_view(self, request: HttpRequest, name: str) -> HttpResponse:
        """Pause, resume or fire a schedule of a file's workflow."""
        return self._schedule(request, self._of_file(request, name))

    def schedule_view(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """Pause, resume or fire a schedule of a workflow of the database."""
        document = self.find(request, pk)
        row = ListedWorkflow(document.name, document, current_workflow(document))
        return self._schedule(request, row)

    def _schedule(self, request: HttpRequest, row: ListedWorkflow) -> HttpResponse:
        command, number = request.POST.get("command", ""), request.POST.get("number", "")
        needed = _RUN if command == "trigger" else _SCHEDULE
        if command not in ("pause", "resume", "trigger") or not request.user.has_perm(needed):
            raise PermissionDenied
        kernel = get_kernel()
        try:
            with kernel.storage.begin():
                done = getattr(kernel.schedules, command)(
                    row.name, tenant_id=row.tenant_id, number=_schedule_number(number)
                )
                rows = [] if row.document is None else [row.document]
                details = {"begun": done} if command == "trigger" else {}
                record(
                    request, f"{command} schedule", rows, model=WorkflowDocument, about=row.name,
                    workflow=row.name, number=number[:9], **details,
                )  # fmt: skip
        except AutomateError as error:
            messages.error(request, f"{clean(str(error))}.")
        else:
            messages.success(request, _DONE[command])
        return HttpResponseRedirect(self._url_of(row))

    def _schedule_url(self, row: ListedWorkflow) -> str:
        if row.document is None:
            return self.url("automate_workflow_schedule_file", row.name)
        return self.url("automate_workflow_schedule", row.document.pk)

    def _tenant_of_run(self, reach: Reach, row: ListedWorkflow, form: RunForm) -> str | None:
        """Return the workflow's own tenant, else the user's, or the one that an operator chose."""
        chosen: str | None = form.cleaned_data["tenant_id"] or None
        if row.tenant_id is not None:
            return row.tenant_id
        return chosen if reach.everyone else reach.tenant

    @method_decorator(csrf_protect)
    def changeform_view(self, request: Any, object_id: Any = None, *_: Any, **__: Any) -> Any:
        """Show the editor, for a new workflow or for an existing one."""
        document = None if object_id is None else self._changeable(request, object_id)
        if document is None and not self.has_add_permission(request):
            raise PermissionDenied
        return WorkflowEditor(self, request, document).answer()

    def switch_view(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """Turn a workflow on or off."""
        document = self._changeable(request, pk)
        enabled = request.POST.get("enabled") == "yes"
        with get_kernel().storage.begin():
            switched = definitions.switch(document, enabled=enabled)
            if switched:
                record(request, "enable" if enabled else "disable", [document])
        if switched:
            what = "on: the next event starts it" if enabled else "off: nothing starts it"
            messages.success(request, f"It is {what}. What runs goes on.")
        return HttpResponseRedirect(self.url("automate_workflow", pk))

    def _changeable(self, request: HttpRequest, pk: Any) -> WorkflowDocument:
        document: WorkflowDocument = self.find(request, pk)
        self.require_change(request, document)
        return document

    def version_view(
        self, request: HttpRequest, pk: UUID, number: int, doubts: Sequence[str] = ()
    ) -> HttpResponse:
        """Show a version: its text and its changes."""
        document = self.find(request, pk)
        versions = WorkflowVersion.objects.using(document._state.db).filter(document=document)
        version = versions.filter(number=number).first()
        if version is None:
            raise Http404("There is no such version.")
        before = versions.filter(number=number - 1).first()
        current = versions.get(number=document.version or document.latest)
        return self.page(
            request,
            "version.html",
            f"Version {number}",
            document=document,
            version=version,
            source=shown_text(version.source),
            before=before,
            changed=differences(before.source, version.source) if before else [],
            since=differences(version.source, current.source) if version != current else [],
            doubts=doubts,
            agreed=digest(doubts) if doubts else "",
            is_current=version == current,
            may_restore=version != current and self.has_change_permission(request, document),
            restore_url=self.url("automate_workflow_restore", pk, number),
            crumbs=crumbs_to(self, document),
        )

    def restore_view(self, request: HttpRequest, pk: UUID, number: int) -> HttpResponse:
        """Restore a version as a new version; ask for confirmation if it would fail."""
        document = self._changeable(request, pk)
        wanted = current_workflow(document, number)
        if wanted is not None and (doubts := new_doubts(request, wanted, document)):
            return self.version_view(request, pk, number, doubts)
        try:
            with get_kernel().storage.begin():
                author = request.user.get_username()
                about = {"author": author, "comment": f"Back to version {number}"}
                version = definitions.restore(document, number, **about)
                if version is not None:
                    made = version.number
                    record(request, "restore", [document], version=made, restored=number)
        except AutomateError as error:
            messages.error(request, f"It stays as it is: {clean(str(error))}.")
            return HttpResponseRedirect(self.url("automate_workflow_version", pk, number))
        if version is None:
            messages.warning(request, f"It says what version {number} said already.")
        else:
            text = f"Version {version.number} says what version {number} said, and counts."
            messages.success(request, text)
        return HttpResponseRedirect(self.url("automate_workflow", pk))


_DONE = {
    "pause": "It is paused: it fires no more until it is resumed. What runs goes on.",
    "resume": "It fires again.",
    "trigger": "It has fired: a worker runs the execution.",
}


def _polls(row: ListedWorkflow, workflow: Workflow) -> list[Poll]:
    """Return the polls that the workflow listens to, as workers know them."""
    events = [
        (each.event, row.tenant_id) for each in workflow.triggers if isinstance(each, EventTrigger)
    ]
    return get_kernel().polls.find(events) if events else []


def _schedule_number(text: str) -> int | None:
    """Return the position of the trigger that is meant; None without one, for all of them."""
    if text and not _NUMBER.fullmatch(text):
        raise AutomateError(ErrorCodes.INVALID_ARGUMENT, "there is no such schedule")
    return int(text) if text else None


def _schedules(row: ListedWorkflow) -> list[Schedule]:
    """Return the schedules of the workflow as workers know it; none of one that is off."""
    return get_kernel().schedules.find(row.name, tenant_id=row.tenant_id)
