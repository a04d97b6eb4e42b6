"""
Changes of the workflows in the database. Each is one transaction, or part of the caller's.

Every change takes the stamp's row first, so changes stand in a line: of two that would give two
workflows one name, the second sees the first. The new stamp is what tells all other processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from django.db import transaction
from django.utils import timezone

from automate_django.definitions.checking import Format, checked, name_problem
from automate_kernel.errors import AutomateError, ConfigError, ErrorCodes
from automate_kernel.workflows.definition.model import Workflow
from automate_kernel.workflows.engine.schedule import forget_schedules

if TYPE_CHECKING:
    from automate_django.models import WorkflowDocument, WorkflowVersion
    from automate_kernel.kernel import Kernel

__all__ = ["create", "restore", "save", "switch"]


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
    A new workflow from its *text*, which is its version 1.

    With a *tenant_id* it is that tenant's own. Raises `WorkflowError` if the text is no workflow
    or its name is taken; the error's details tell each problem with its line.
    """
    from automate_django.models import WorkflowDocument
    from automate_django.models.definitions import document_key

    if tenant_id == "":
        # Most likely a tenant that somebody failed to find, and not everybody.
        raise ConfigError("a tenant's id can't be empty", hint="None means: for all tenants")
    with _changing() as (kernel, alias):
        workflow = checked(text, format, kernel)
        _require_free(workflow.name, tenant_id, text, format, kernel, alias)
        now = timezone.now()
        document = WorkflowDocument(
            key=document_key(workflow.name, tenant_id),
            name=workflow.name,
            tenant_id=tenant_id,
            enabled=enabled,
            created_at=now,
            updated_at=now,
        )
        document.save(using=alias, force_insert=True)
        _write_version(document, 1, workflow, text, format, author, comment, alias)
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
    A new version of *document*, which counts from now on; None if the text is as it was.

    *based_on* is the version that the editor saw: if there is a newer one, nothing is saved and
    `AutomateError` with ``ABORTED`` is raised. Raises `WorkflowError` as `create` does, and if the
    text gives the workflow another name: executions are found by it.
    """
    with _changing() as (kernel, alias):
        current = _locked(document, alias)
        if based_on is not None and based_on != current.version:
            raise AutomateError(
                ErrorCodes.ABORTED,
                f"somebody has saved version {current.version} meanwhile",
                hint="look at what it changes, and make your change in it",
            )
        former = _version(current, current.version)
        if (former.source, former.format) == (text, format):
            return None
        workflow = checked(text, format, kernel)
        if workflow.name != current.name:
            raise name_problem(
                text,
                format,
                "the name of a workflow stays as it is",
                f"write {current.name}, or make another workflow",
            )
        return _add_version(current, workflow, text, format, author, comment, alias)


def restore(
    document: WorkflowDocument, number: int, *, author: str = "", comment: str = ""
) -> WorkflowVersion | None:
    """
    A new version that says what version *number* said; None if that is what counts now.

    Raises `AutomateError` with ``NOT_FOUND``, and `WorkflowError` if what it says is wrong today.
    """
    with _changing() as (kernel, alias):
        current = _locked(document, alias)
        wanted, former = _version(current, number), _version(current, current.version)
        if (former.source, former.format) == (wanted.source, wanted.format):
            return None
        workflow = checked(wanted.source, wanted.format, kernel)
        return _add_version(
            current, workflow, wanted.source, wanted.format, author, comment, alias, number
        )


def switch(document: WorkflowDocument, *, enabled: bool) -> bool:
    """
    Turn *document* on or off; False if it was so already.

    One that is off starts nothing; what runs goes on. Its schedules count from when it is turned
    on: what would have fired meanwhile is not made up for.
    """
    with _changing() as (kernel, alias):
        current = _locked(document, alias)
        if current.enabled == enabled:
            return False
        if enabled:
            said = Workflow.from_dict(_version(current, current.version).definition)
            with kernel.storage.begin() as rows:
                forget_schedules(rows, said, current.tenant_id)
        current.enabled, current.updated_at = enabled, timezone.now()
        current.save(using=alias, update_fields=["enabled", "updated_at"])
        document.enabled = enabled
        return True


@contextmanager
def _changing() -> Iterator[tuple[Kernel, str]]:
    """A transaction that holds the stamp, and changes it."""
    from automate_django.kernel import get_kernel
    from automate_django.models import WorkflowStamp
    from automate_django.storage import DjangoStorage

    kernel = get_kernel()
    storage = kernel.storage
    alias = storage.alias if isinstance(storage, DjangoStorage) else "default"
    stamps, token = WorkflowStamp.objects.using(alias), uuid4().hex
    with transaction.atomic(using=alias):
        # Written before anything is read: SQLite then waits for other writers, here and not later.
        if not stamps.filter(pk=1).update(token=token):
            stamps.bulk_create([WorkflowStamp(pk=1, token=token)], ignore_conflicts=True)
            stamps.filter(pk=1).update(token=token)
        yield kernel, alias
    kernel.workflows.look_again()
    # Within the caller's transaction the others see it later, and this process may ask too early.
    transaction.on_commit(kernel.workflows.look_again, using=alias)


def _require_free(
    name: str, tenant_id: str | None, text: str, format: Format, kernel: Kernel, alias: str
) -> None:
    from automate_django.models import WorkflowDocument

    if any(workflow.name == name for workflow in kernel.workflows.added()):
        where = "a workflow from a file has this name already"
    elif any(
        None in (tenant_id, other) or tenant_id == other
        for other in WorkflowDocument.objects.using(alias)
        .filter(name=name)
        .values_list("tenant_id", flat=True)
    ):
        where = "another workflow has this name already"
    else:
        return
    raise name_problem(text, format, where, "give this one another name")


def _locked(document: WorkflowDocument, alias: str) -> WorkflowDocument:
    """*document* as it is now; the stamp's row keeps others from changing it."""
    from automate_django.models import WorkflowDocument

    found: WorkflowDocument = WorkflowDocument.objects.using(alias).get(pk=document.pk)
    return found


def _version(document: WorkflowDocument, number: int) -> WorkflowVersion:
    versions = document.versions.using(document._state.db)
    found: WorkflowVersion | None = versions.filter(number=number).first()
    if found is None:
        raise AutomateError(
            ErrorCodes.NOT_FOUND, f"workflow {document.name!r} has no version {number}"
        )
    return found


def _add_version(document: WorkflowDocument, workflow: Workflow, *rest: Any) -> WorkflowVersion:
    alias = document._state.db or "default"
    document.version += 1
    document.updated_at = timezone.now()
    version = _write_version(document, document.version, workflow, *rest)
    document.save(using=alias, update_fields=["version", "updated_at"])
    return version


def _write_version(
    document: WorkflowDocument,
    number: int,
    workflow: Workflow,
    text: str,
    format: Format,
    author: str,
    comment: str,
    alias: str,
    restored_from: int | None = None,
) -> WorkflowVersion:
    from automate_django.models import WorkflowVersion

    version = WorkflowVersion(
        document=document,
        number=number,
        format=format,
        source=text,
        definition=workflow.to_dict(),
        digest=workflow.hash(),
        restored_from=restored_from,
        comment=comment[:500],
        author=author[:200],
        created_at=timezone.now(),
    )
    version.save(using=alias, force_insert=True)
    return version
