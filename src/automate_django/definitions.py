"""
Workflows in the database: saved in versions, switched on and off, picked up by every process.

Code can do all that the admin's pages do::

    from automate_django import definitions

    document = definitions.create(text, author="ann")
    definitions.save(document, changed_text, comment="Tell the warehouse too")
    definitions.restore(document, 1)
    definitions.switch(document, enabled=False)

The rows are the kernel's: see `automate_kernel.workflows.steer.documents`. Each change is one
transaction, or part of the caller's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING
from weakref import finalize

from django.db import transaction

from automate_django.kernel import get_kernel
from automate_django.models import WorkflowDocument, WorkflowVersion
from automate_django.storage import DjangoStorage
from automate_kernel.workflows.definition.model import Workflow
from automate_kernel.workflows.steer.documents import (
    FORMATS,
    Diagnostic,
    DocumentVersion,
    Format,
    StoredWorkflows,
    diagnostics,
)

if TYPE_CHECKING:
    from automate_kernel.kernel import Kernel

__all__ = [
    "FORMATS",
    "Diagnostic",
    "Format",
    "StoredWorkflows",
    "advice",
    "checked",
    "create",
    "diagnostics",
    "restore",
    "save",
    "switch",
]


def create(
    text: str,
    *,
    format: Format = "yaml",
    tenant_id: str | None = None,
    enabled: bool = True,
    author: str = "",
    comment: str = "",
) -> WorkflowDocument:
    """
    Save a new workflow, with *text* as its version 1.

    With a *tenant_id* it belongs to that tenant. Raises `WorkflowError` if the text is no workflow
    or its name is taken; the error's details list each problem with its line.
    """
    with _changing() as (kernel, alias):
        made = kernel.documents.create(
            text, format=format, tenant_id=tenant_id, enabled=enabled, author=author,
            comment=comment,
        )  # fmt: skip
        document: WorkflowDocument = WorkflowDocument.objects.using(alias).get(pk=made.id)
        return document


def save(
    document: WorkflowDocument,
    text: str,
    *,
    format: Format = "yaml",
    author: str = "",
    comment: str = "",
    based_on: int | None = None,
) -> WorkflowVersion | None:
    """
    Save a new version of *document*, which counts from now on; None if the text has not changed.

    *based_on* is the version that the editor saw: if there is a newer one, nothing is saved and
    `AutomateError` with ``ABORTED`` is raised. Raises `WorkflowError` as `create` does, and if the
    text gives the workflow another name: executions are found by it.
    """
    with _changing() as (kernel, alias):
        made = kernel.documents.save(
            str(document.pk), text, format=format, author=author, comment=comment,
            based_on=based_on,
        )  # fmt: skip
        return _version(made, alias)


def restore(
    document: WorkflowDocument, number: int, *, author: str = "", comment: str = ""
) -> WorkflowVersion | None:
    """
    Save a new version with the text of version *number*; None if that text counts already.

    Raises `AutomateError` with ``NOT_FOUND``, and `WorkflowError` if the text is wrong today.
    """
    with _changing() as (kernel, alias):
        made = kernel.documents.restore(str(document.pk), number, author=author, comment=comment)
        return _version(made, alias)


def switch(document: WorkflowDocument, *, enabled: bool) -> bool:
    """
    Turn *document* on or off; False if it was so already.

    A workflow that is off starts nothing; running executions go on. Its schedules count from when
    it is turned on: the times that passed meanwhile are not made up for.
    """
    with _changing() as (kernel, _):
        switched = kernel.documents.switch(str(document.pk), enabled=enabled)
    document.enabled = int(enabled)
    return switched


def checked(text: str, format: str, kernel: Kernel) -> Workflow:
    """Read the workflow in *text*; raises `WorkflowError` with every problem of it."""
    return kernel.documents.checked(text, format)


def advice(workflow: Workflow, kernel: Kernel) -> list[str]:
    """
    List the problems that *workflow* would have here: an uninstalled action, a missing field.

    They do not keep the workflow from being saved: a worker may have what this process lacks.
    """
    from automate_kernel.monitoring.diagnosis import workflow_problems

    return [kernel.redactor.redact(problem) for problem in workflow_problems(kernel, workflow)]


@contextmanager
def _changing() -> Iterator[tuple[Kernel, str]]:
    """Open a transaction on the kernel's database, which its changes are part of."""
    kernel = get_kernel()
    storage = kernel.storage
    alias = storage.alias if isinstance(storage, DjangoStorage) else "default"
    with transaction.atomic(using=alias):
        yield kernel, alias
    kernel.workflows.look_again()
    # Within the caller's transaction the others see it later, and this process may ask too early.
    look = partial(kernel.workflows.look_again)
    transaction.on_commit(look, using=alias)
    # A rollback calls nobody, and lets go of what it was to call. What this process has read in the
    # transaction would count for a second: it never was.
    finalize(look, kernel.workflows.look_again).atexit = False


def _version(made: DocumentVersion | None, alias: str) -> WorkflowVersion | None:
    return None if made is None else WorkflowVersion.objects.using(alias).get(pk=made.id)
