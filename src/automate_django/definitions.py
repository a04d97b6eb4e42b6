"""
Workflows in the database: saved in versions, switched on and off, picked up by every process.

Code can do all that the admin's pages do::

    from automate_django import definitions

    document = definitions.create(text, author="ann")
    definitions.save(document, changed_text, comment="Tell the warehouse too")
    definitions.restore(document, 1)
    definitions.switch(document, enabled=False)

Each change is one transaction, or part of the caller's. It takes the stamp's row first, so changes
stand in a line: of two that would give two workflows one name, the second sees the first. All other
processes notice the new stamp.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args
from uuid import uuid4
from weakref import finalize

from django.db import transaction
from django.utils import timezone

from automate_django.kernel import get_kernel
from automate_django.models import WorkflowDocument, WorkflowStamp, WorkflowVersion
from automate_django.models.definitions import document_key
from automate_django.storage import DjangoStorage
from automate_django.workflow_source import DatabaseWorkflows
from automate_kernel.base.errors import (
    AutomateError,
    ConfigError,
    ErrorCodes,
    PayloadError,
    WorkflowError,
)
from automate_kernel.storage.values import encode_json
from automate_kernel.workflows.definition.document import LARGEST, read_json, read_yaml
from automate_kernel.workflows.definition.loader import loads
from automate_kernel.workflows.definition.model import Workflow
from automate_kernel.workflows.steer.schedule import forget_schedules

if TYPE_CHECKING:
    from automate_kernel.kernel import Kernel

__all__ = [
    "FORMATS",
    "DatabaseWorkflows",
    "Diagnostic",
    "Format",
    "advice",
    "checked",
    "create",
    "diagnostics",
    "restore",
    "save",
    "switch",
]

Format = Literal["yaml", "json"]
FORMATS: tuple[Format, ...] = get_args(Format)


# -- changes -----------------------------------------------------------------------------------


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
        _write_version(document, workflow, text, format, author, comment)
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
        current = _current(document, alias)
        if based_on is not None and based_on != current.version:
            problem = f"somebody has saved version {current.version} meanwhile"
            hint = "look at what it changes, and make your change in it"
            raise AutomateError(ErrorCodes.ABORTED, problem, hint=hint)
        return _revise(current, kernel, text, format, author, comment)


def restore(
    document: WorkflowDocument, number: int, *, author: str = "", comment: str = ""
) -> WorkflowVersion | None:
    """
    Save a new version with the text of version *number*; None if that text counts already.

    Raises `AutomateError` with ``NOT_FOUND``, and `WorkflowError` if the text is wrong today.
    """
    with _changing() as (kernel, alias):
        current = _current(document, alias)
        wanted = _version(current, number)
        return _revise(current, kernel, wanted.source, wanted.format, author, comment, number)


def switch(document: WorkflowDocument, *, enabled: bool) -> bool:
    """
    Turn *document* on or off; False if it was so already.

    A workflow that is off starts nothing; running executions go on. Its schedules count from when
    it is turned on: the times that passed meanwhile are not made up for.
    """
    with _changing() as (kernel, alias):
        current = _current(document, alias)
        if current.enabled == enabled:
            return False
        if enabled:
            workflow = Workflow.from_dict(_version(current, current.version).definition)
            with kernel.storage.begin() as rows:
                forget_schedules(rows, workflow, current.tenant_id)
        current.enabled, current.updated_at = enabled, timezone.now()
        current.save(using=alias, update_fields=["enabled", "updated_at"])
        document.enabled = enabled
        return True


@contextmanager
def _changing() -> Iterator[tuple[Kernel, str]]:
    """Open a transaction that holds the stamp, and change it."""
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
    _look_again_at_the_end(kernel, alias)


def _look_again_at_the_end(kernel: Kernel, alias: str) -> None:
    """Ask for the workflows again once the transaction has ended, in whichever way."""
    # Within the caller's transaction the others see it later, and this process may ask too early.
    look = partial(kernel.workflows.look_again)
    transaction.on_commit(look, using=alias)
    # A rollback calls nobody, and lets go of what it was to call. What this process has read in the
    # transaction would count for a second: it never was.
    finalize(look, kernel.workflows.look_again).atexit = False


def _require_free(
    name: str, tenant_id: str | None, text: str, format: str, kernel: Kernel, alias: str
) -> None:
    owners = WorkflowDocument.objects.using(alias).filter(name=name)
    if any(workflow.name == name for workflow in kernel.workflows.added()):
        problem = "a workflow from a file has this name already"
    elif any(
        None in (tenant_id, other) or tenant_id == other
        for other in owners.values_list("tenant_id", flat=True)
    ):
        problem = "another workflow has this name already"
    else:
        return
    raise _name_error(text, format, problem, "give this one another name")


def _current(document: WorkflowDocument, alias: str) -> WorkflowDocument:
    """Return *document* as it is now; the stamp's row keeps others from changing it."""
    found: WorkflowDocument = WorkflowDocument.objects.using(alias).get(pk=document.pk)
    return found


def _version(document: WorkflowDocument, number: int) -> WorkflowVersion:
    versions = document.versions.using(document._state.db)
    found: WorkflowVersion | None = versions.filter(number=number).first()
    if found is None:
        text = f"workflow {document.name!r} has no version {number}"
        raise AutomateError(ErrorCodes.NOT_FOUND, text)
    return found


def _revise(
    document: WorkflowDocument, kernel: Kernel, text: str, format: str, *about: Any
) -> WorkflowVersion | None:
    former = _version(document, document.version)
    if (former.source, former.format) == (text, format):
        return None
    workflow = checked(text, format, kernel)
    if workflow.name != document.name:
        hint = f"write {document.name}, or make another workflow"
        raise _name_error(text, format, "the name of a workflow stays as it is", hint)
    document.version += 1
    document.updated_at = timezone.now()
    version = _write_version(document, workflow, text, format, *about)
    document.save(using=document._state.db, update_fields=["version", "updated_at"])
    return version


def _write_version(
    document: WorkflowDocument,
    workflow: Workflow,
    text: str,
    format: str,
    author: str,
    comment: str,
    restored_from: int | None = None,
) -> WorkflowVersion:
    version = WorkflowVersion(
        document=document,
        number=document.version,
        format=format,
        source=text,
        definition=workflow.to_dict(),
        digest=workflow.hash(),
        restored_from=restored_from,
        comment=comment[:500],
        author=author[:200],
        created_at=timezone.now(),
    )
    version.save(using=document._state.db, force_insert=True)
    return version


# -- checks ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One problem of a text: its line and field, a message, and a remedy."""

    message: str
    line: int | None = None
    field: str = ""
    hint: str | None = None

    def __str__(self) -> str:
        place = f"Line {self.line}" if self.line else ""
        text = ": ".join(part for part in (place, self.field, self.message) if part)
        return f"{text} ({self.hint})" if self.hint else text


def checked(text: str, format: str, kernel: Kernel) -> Workflow:
    """Read the workflow in *text*; raises `WorkflowError` with every problem of it."""
    known = next((each for each in FORMATS if each == format), None)
    if known is None:
        raise WorkflowError(f"the format must be one of {', '.join(FORMATS)}")
    leaks = list(_leaks(text, kernel))
    if leaks:
        raise _error(*leaks)
    try:
        workflow = loads(text, known, source="", check=kernel.workflows.check)
        encode_json([text, workflow.to_dict()], "the workflow", 8 * LARGEST)
    except (ConfigError, PayloadError) as error:  # PyYAML is not installed, or NUL is in a text
        raise WorkflowError(error.message, hint=error.hint) from None
    return workflow


def advice(workflow: Workflow, kernel: Kernel) -> list[str]:
    """
    List the problems that *workflow* would have here: an uninstalled action, a missing field.

    They do not keep the workflow from being saved: a worker may have what this process lacks.
    """
    from automate_kernel.monitoring.diagnosis import workflow_problems

    return [kernel.redactor.redact(problem) for problem in workflow_problems(kernel, workflow)]


def diagnostics(error: WorkflowError) -> list[Diagnostic]:
    """List every problem in *error*, for a page."""
    problems: list[dict[str, Any]] = error.details.get("problems", [])
    if not problems:
        return [Diagnostic(error.message, hint=error.hint)]
    return [
        Diagnostic(one["message"], one["line"], one["field"] or "", one["hint"]) for one in problems
    ]


def _leaks(text: str, kernel: Kernel) -> Iterator[Diagnostic]:
    """Find the lines that hold the value of a secret, which would be stored and shown to people."""
    redact = kernel.redactor.redact
    if redact(text) == text:
        return
    hint = "write $secret:KEY in its place"
    lines = [number for number, line in enumerate(text.splitlines(), 1) if redact(line) != line]
    for number in lines:
        yield Diagnostic("it holds the value of a secret", number, hint=hint)
    if not lines:
        yield Diagnostic("the text holds the value of a secret, over several lines", hint=hint)


def _error(*problems: Diagnostic) -> WorkflowError:
    """Make the error with *problems*, in the form of the kernel's loader."""
    details = [{"source": "", **asdict(each)} for each in problems]
    return WorkflowError("\n".join(map(str, problems)), details={"problems": details})


def _name_error(text: str, format: str, message: str, hint: str) -> WorkflowError:
    """Make an error about the workflow's name, with the line on which it stands."""
    document = read_json(text) if format == "json" else read_yaml(text)[0]
    return _error(Diagnostic(message, document.line(("name",)), "name", hint))
