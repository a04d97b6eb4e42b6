"""What the pages of executions look up: the rows, the pinned definition, where it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.http import HttpRequest

from automate_django.admin.pages.access import Reach
from automate_django.kernel import get_kernel
from automate_django.models import WorkflowExecution, WorkflowVersion
from automate_kernel.errors import AutomateError, TemplateError
from automate_kernel.workflows.definition.model import Workflow
from automate_kernel.workflows.engine.program import step_input

if TYPE_CHECKING:
    from automate_django.admin.pages.base import PageAdmin

__all__ = ["Origin", "executions", "origin_of", "pinned", "reconstructed_input", "workflow_names"]

_MOST_NAMES = 200
_LATELY = 1000


def executions(reach: Reach) -> Any:
    """The executions that *reach* covers."""
    alias = getattr(get_kernel().storage, "alias", "default")
    return reach.filter(WorkflowExecution.objects.using(alias))


def pinned(execution: WorkflowExecution) -> Workflow | None:
    """The definition that *execution* began with; None if this process can't read it."""
    kernel = get_kernel()
    try:
        return kernel.workflows.program(execution.definition_id).workflow
    except TemplateError:
        pass  # a filter that is gone: the workflow can be shown all the same
    except (AutomateError, ValueError):  # pydantic's error is a ValueError
        return None
    return kernel.executions.definition(execution.definition_id)


def reconstructed_input(
    execution: WorkflowExecution, step_id: str, position: int
) -> tuple[Any, str | None]:
    """
    What a step was given, put together from what is stored, and why that is not possible.

    Both texts may hold what the redactor knows; who shows them redacts them.
    """
    kernel = get_kernel()
    stored = kernel.executions.get(str(execution.pk))
    if stored is None:
        return None, "the execution is gone"
    try:
        program = kernel.workflows.program(stored.definition_id)
        return step_input(program, stored, step_id, position), None
    except (AutomateError, ValueError) as error:
        return None, kernel.redactor.redact(str(error))


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a definition comes from, in words, and the page that shows it."""

    text: str
    url: str = ""


def origin_of(request: HttpRequest, pages: PageAdmin, execution: WorkflowExecution) -> Origin:
    """Which version of which workflow *execution* began with."""
    alias = execution._state.db
    version = (
        WorkflowVersion.objects.using(alias)
        .filter(
            digest=execution.definition_id,
            document__name=execution.workflow,
        )
        .select_related("document")
        .order_by("-number")
        .first()
    )
    short = execution.definition_id[:12]
    if version is None or version.document.tenant_id not in (None, execution.tenant_id):
        return Origin(f"definition {short}")
    may = request.user.has_perm("automate_django.view_workflowdocument")
    url = pages.url("automate_workflow_version", version.document_id, version.number)
    return Origin(f"version {version.number} ({short})", url if may else "")


def workflow_names(reach: Reach) -> list[str]:
    """
    The names to choose from in a filter.

    Of all workflows that there are or that have run, to who sees all: that costs one look into an
    index per name, not one per execution. Of those that ran lately, to a tenant.
    """
    rows = executions(reach).order_by("workflow").values_list("workflow", flat=True)
    if not reach.everyone:
        return sorted(set(rows.order_by("-created_at")[:_LATELY]))
    names = {entry.workflow.name for entry in get_kernel().workflows.entries()}
    found: list[str] = []
    while len(found) < _MOST_NAMES:
        following = rows.filter(workflow__gt=found[-1]) if found else rows
        name = following.first()
        if name is None:
            break
        found.append(name)
    return sorted(names | set(found))
