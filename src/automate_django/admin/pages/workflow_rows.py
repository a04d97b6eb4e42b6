"""The workflows as the pages list them: those of files and those of the database, in one form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db.models import F
from django.utils.html import format_html
from django.utils.safestring import SafeString
from pydantic import ValidationError

from automate_django.admin.pages.access import Reach
from automate_django.admin.pages.execution_facts import executions
from automate_django.kernel import get_kernel
from automate_django.models import WorkflowDocument, WorkflowVersion
from automate_kernel.workflows.definition.graph import describe_trigger
from automate_kernel.workflows.definition.model import Workflow
from automate_kernel.workflows.execution import ExecutionStatus

__all__ = ["Listed", "Runs", "current_workflow", "documents", "listed", "runs_of"]

_LAST = 100
"""From how many of the last executions the share of failures is told."""


@dataclass(frozen=True, slots=True)
class Runs:
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
        bad = round(self.failed / self.ended * 100)
        bad = max(bad, 4) if self.failed else 0
        return format_html(
            '<svg class="automate-share" viewBox="0 0 100 6" preserveAspectRatio="none" '
            'aria-hidden="true" focusable="false"><rect class="all" width="{}" height="6"/>'
            '<rect class="bad" x="{}" width="{}" height="6"/></svg>',
            100 - bad, 100 - bad, bad,
        )  # fmt: skip


@dataclass(slots=True)
class Listed:
    """A line of the list. *document* is None for a workflow of a file."""

    name: str
    document: WorkflowDocument | None = None
    workflow: Workflow | None = None
    problem: str = ""
    url: str = ""
    runs: Runs = field(default_factory=Runs)

    @property
    def state(self) -> str:
        """``ON``, ``OFF`` or ``BROKEN``."""
        if self.document is not None and not self.document.enabled:
            return "OFF"
        return "BROKEN" if self.problem else "ON"

    @property
    def tenant_id(self) -> str | None:
        """Whose it is."""
        return None if self.document is None else self.document.tenant_id

    @property
    def triggers(self) -> list[str]:
        """What starts it, in words."""
        return (
            [] if self.workflow is None else [describe_trigger(t) for t in self.workflow.triggers]
        )


def documents(reach: Reach) -> Any:
    """The workflows of the database that *reach* covers."""
    alias = getattr(get_kernel().storage, "alias", "default")
    return reach.filter(WorkflowDocument.objects.using(alias))


def listed(reach: Reach, search: str = "") -> list[Listed]:
    """The workflows that *reach* covers, by name: a tenant sees its own, an operator all."""
    kernel = get_kernel()
    rows = [
        Listed(document.name, document)
        for document in documents(reach).filter(name__icontains=search)
    ]
    if reach.everyone:
        rows += [
            Listed(workflow.name, workflow=workflow)
            for workflow in kernel.workflows.added()
            if search.lower() in workflow.name.lower()
        ]
    problems = kernel.workflows.problems()
    for row in rows:
        error = problems.get((row.tenant_id, row.name)) if row.document else None
        row.problem = kernel.redactor.redact(str(error)) if error else ""
    return sorted(rows, key=lambda row: (row.name, row.tenant_id or ""))


def fill(rows: Sequence[Listed], reach: Reach) -> None:
    """Look up for *rows*, which are those of one page, what they say and how their runs went."""
    pks = [row.document.pk for row in rows if row.document is not None]
    alias = getattr(get_kernel().storage, "alias", "default")
    current = WorkflowVersion.objects.using(alias).filter(
        document_id__in=pks, number=F("document__version")
    )
    said = dict(current.values_list("document_id", "definition"))
    for row in rows:
        if row.document is not None:
            row.workflow = _read(said.get(row.document.pk))
        row.runs = runs_of(reach, row.name, row.tenant_id, shown=1)


def current_workflow(document: WorkflowDocument, number: int | None = None) -> Workflow | None:
    """What *document* says now, or said in version *number*; None if it can't be read any more."""
    versions = WorkflowVersion.objects.using(document._state.db).filter(document=document)
    wanted = versions.filter(number=document.version if number is None else number)
    return _read(wanted.values_list("definition", flat=True).first())


def _read(definition: Any) -> Workflow | None:
    try:
        return Workflow.from_dict(definition) if definition else None
    except ValidationError:
        return None


def runs_of(reach: Reach, name: str, tenant_id: str | None, *, shown: int = 10) -> Runs:
    """The last runs of a workflow: *shown* of them, and how many of the last 100 failed."""
    rows = executions(reach).filter(workflow=name).order_by("-created_at", "-id")
    if tenant_id is not None:
        rows = rows.filter(tenant_id=tenant_id)
    last = list(rows.defer("event", "output", "error")[:_LAST])
    ended = Counter(row.status for row in last if ExecutionStatus(row.status).finished)
    return Runs(last[:shown], ended.total(), ended[ExecutionStatus.FAILED.value])
