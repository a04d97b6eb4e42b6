"""The workflows of files and of the database, as the pages list and show them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from django.db.models import F
from django.utils.html import format_html
from django.utils.safestring import SafeString
from pydantic import ValidationError

from automate_django.admin.pages.access import Reach, database
from automate_django.admin.pages.base import Link, PageAdmin
from automate_django.definitions import Diagnostic
from automate_django.kernel import get_kernel
from automate_django.models import WorkflowDocument, WorkflowExecution, WorkflowVersion
from automate_kernel.workflows.definition.graph import describe_trigger
from automate_kernel.workflows.definition.model import Workflow
from automate_kernel.workflows.execution import ExecutionStatus
from automate_pages.comparison import ChangedLine, changed_lines

_LAST = 100
"""The number of last executions of which the share of failures is shown."""


@dataclass(frozen=True, slots=True)
class RecentRuns:
    """The last executions of a workflow, and how many of them failed."""

    last: Sequence[Any] = ()
    ended: int = 0
    failed: int = 0

    @property
    def share(self) -> str:
        """``3 of 100 failed``."""
        return f"{self.failed:,} of {self.ended:,} failed" if self.ended else ""

    @property
    def picture(self) -> SafeString | str:
        """The share as a bar; it says nothing that `share` doesn't."""
        if not self.ended:
            return ""
        bad = max(round(self.failed / self.ended * 100), 4) if self.failed else 0
        return format_html(
            '<svg class="automate-share" viewBox="0 0 100 6" preserveAspectRatio="none" '
            'aria-hidden="true" focusable="false"><rect class="all" width="{}" height="6"/>'
            '<rect class="bad" x="{}" width="{}" height="6"/></svg>',
            100 - bad, 100 - bad, bad,
        )  # fmt: skip


@dataclass(slots=True)
class ListedWorkflow:
    """A line of the list. *document* is None for a workflow of a file."""

    name: str
    document: WorkflowDocument | None = None
    workflow: Workflow | None = None
    problem: str = ""
    url: str = ""
    runs: RecentRuns = field(default_factory=RecentRuns)

    @property
    def state(self) -> str:
        """``ON``, ``OFF`` or ``BROKEN``."""
        if self.document is not None and not self.document.enabled:
            return "OFF"
        return "BROKEN" if self.problem else "ON"

    @property
    def tenant_id(self) -> str | None:
        """The tenant that the workflow belongs to."""
        return None if self.document is None else self.document.tenant_id

    @property
    def triggers(self) -> list[str]:
        """The triggers of the workflow, in words."""
        triggers = () if self.workflow is None else self.workflow.triggers
        return [describe_trigger(each) for each in triggers]


def listed(reach: Reach, search: str = "") -> list[ListedWorkflow]:
    """Return the workflows that *reach* covers, by name: a tenant sees its own, an operator all."""
    documents = reach.rows(WorkflowDocument).filter(name__icontains=search)
    problems = get_kernel().workflows.problems()
    rows = [of_document(document, problems) for document in documents]
    if reach.everyone:
        rows += [
            ListedWorkflow(workflow.name, workflow=workflow)
            for workflow in get_kernel().workflows.added()
            if search.lower() in workflow.name.lower()
        ]
    return sorted(rows, key=lambda row: (row.name, row.tenant_id or ""))


def of_document(document: WorkflowDocument, problems: Mapping[Any, Any]) -> ListedWorkflow:
    """Return the line of *document*, with its problem; what it says is not read yet."""
    problem = problems.get((document.tenant_id, document.name))
    return ListedWorkflow(document.name, document, problem=clean(str(problem or "")))


def crumbs_to(pages: PageAdmin, document: WorkflowDocument | None) -> list[Link]:
    """Return the way to the pages of *document*; of a new workflow if that is None."""
    crumbs = [Link("Workflows", pages.url("automate_workflows"))]
    if document is not None:
        crumbs.append(Link(document.name, pages.url("automate_workflow", document.pk)))
    return crumbs


def fill(rows: Sequence[ListedWorkflow], reach: Reach) -> None:
    """Look up the definitions and the recent runs of *rows*, which are those of one page."""
    pks = [row.document.pk for row in rows if row.document is not None]
    current = WorkflowVersion.objects.using(database()).filter(
        document_id__in=pks, number=F("document__version")
    )
    said = dict(current.values_list("document_id", "definition"))
    for row in rows:
        if row.document is not None:
            row.workflow = _read(said.get(row.document.pk))
        row.runs = runs_of(reach, row.name, row.tenant_id, shown=1)


def current_workflow(document: WorkflowDocument, number: int | None = None) -> Workflow | None:
    """Return *document*'s definition, of now or of version *number*; None if it can't be read."""
    versions = WorkflowVersion.objects.using(document._state.db).filter(document=document)
    wanted = versions.filter(number=document.version if number is None else number)
    return _read(wanted.values_list("definition", flat=True).first())


def _read(definition: Any) -> Workflow | None:
    try:
        return Workflow.from_dict(definition) if definition else None
    except ValidationError:
        return None


def runs_of(reach: Reach, name: str, tenant_id: str | None, *, shown: int = 10) -> RecentRuns:
    """Return the last runs of a workflow: *shown* of them, and how many of the last 100 failed."""
    rows = reach.rows(WorkflowExecution).filter(workflow=name).order_by("-created_at", "-id")
    if tenant_id is not None:
        rows = rows.filter(tenant_id=tenant_id)
    last = list(rows.defer("event", "output", "error")[:_LAST])
    ended = Counter(row.status for row in last if ExecutionStatus(row.status).finished)
    return RecentRuns(last[:shown], ended.total(), ended[ExecutionStatus.FAILED.value])


class TextProblem(NamedTuple):
    """A problem of a workflow's text, and the line that is meant."""

    text: str
    line: int | None = None
    excerpt: str = ""


def clean(text: str) -> str:
    """Return *text* without secrets: a key may have become one after it was saved."""
    return get_kernel().redactor.redact(text)


def differences(before: str, after: str) -> list[ChangedLine]:
    """Return the lines that changed from *before* to *after*, with three lines around."""
    return changed_lines(clean(before), clean(after))


def explained(problems: Iterable[Diagnostic], source: str) -> list[TextProblem]:
    """Return *problems*, each with the line of *source* that it is about."""
    lines = clean(source).splitlines()
    return [
        TextProblem(
            clean(str(each)),
            each.line,
            lines[each.line - 1][:200] if each.line and each.line <= len(lines) else "",
        )
        for each in problems
    ]
