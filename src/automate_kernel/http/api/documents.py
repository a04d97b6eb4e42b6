"""``/documents``: the workflows that people edit: their versions, drafts and state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from automate_kernel.base.errors import WorkflowError
from automate_kernel.http.api.exchange import ApiRequest, WholeValue, require, without
from automate_kernel.http.api.problems import NOT_VALID, ApiError, NotThereError, pointer_to
from automate_kernel.monitoring.diagnosis import workflow_problems
from automate_kernel.workflows.steer.documents import (
    Documents,
    DocumentVersion,
    StoredDocument,
    diagnostics,
)
from automate_kernel.workflows.store.catalogue import ALL_TENANTS

_Change = Callable[..., DocumentVersion | None]
# So many of the latest versions are listed.
_VERSIONS = 200


def list_documents(request: ApiRequest) -> Sequence[StoredDocument]:
    """List the workflows that are edited here, by name: the tenant's own, for an operator all."""
    tenant = ALL_TENANTS if request.client.operator else request.client.own_tenant
    return _documents(request).find(tenant_id=tenant)


def create(request: ApiRequest) -> StoredDocument:
    """Save a new workflow: published, or a draft."""
    given = without(request.command, "source")
    try:
        return _documents(request).create(
            request.body["source"], author=request.client.name, **given
        )
    except WorkflowError as error:
        raise _not_valid(request, error) from None


def check(request: ApiRequest) -> Any:
    """Say what is wrong with a text, and what would be missing here; nothing is saved."""
    try:
        workflow = _documents(request).checked(
            request.body["source"], request.body.get("format", "yaml")
        )
    except WorkflowError as error:
        raise _not_valid(request, error) from None
    return {
        "name": workflow.name, "definition_id": workflow.hash(),
        "missing": workflow_problems(request.kernel, workflow),
    }  # fmt: skip


def show(request: ApiRequest, document_id: str) -> Any:
    """Read a workflow, with the text of its latest version."""
    document = _found(request, document_id)
    latest = request.kernel.documents.version(document.id, document.latest)
    return WholeValue(document, source=latest.source, format=latest.format)


def list_versions(request: ApiRequest, document_id: str) -> Sequence[DocumentVersion]:
    """List the latest 200 versions without their texts, the latest first."""
    return _documents(request).versions(_found(request, document_id).id, limit=_VERSIONS)


def show_version(request: ApiRequest, document_id: str, number: str) -> DocumentVersion:
    """Read a version, with its text."""
    document = _found(request, document_id)
    return request.kernel.documents.version(document.id, _number(number))


def save(request: ApiRequest, document_id: str) -> DocumentVersion:
    """Save a new version: published, or a draft."""
    document, given = _found(request, document_id), without(request.body, "source")
    try:
        saved = request.kernel.documents.save(
            document.id, request.body["source"], author=request.client.name, **given
        )
    except WorkflowError as error:
        raise _not_valid(request, error) from None
    return _changed(saved, "Nothing would change.")


def publish(request: ApiRequest, document_id: str, number: str) -> DocumentVersion:
    """Let the latest version, a draft, count from now on."""
    return _published(request, document_id, number, request.kernel.documents.publish)


def restore(request: ApiRequest, document_id: str, number: str) -> DocumentVersion:
    """Publish a new version with the text of a former one."""
    return _published(request, document_id, number, request.kernel.documents.restore)


def enable(request: ApiRequest, document_id: str) -> StoredDocument:
    """Turn a workflow on: events and schedules start it."""
    return _switched(request, document_id, enabled=True)


def disable(request: ApiRequest, document_id: str) -> StoredDocument:
    """Turn a workflow off: nothing starts it, and what runs goes on."""
    return _switched(request, document_id, enabled=False)


# -- finding -----------------------------------------------------------------------------------


def _documents(request: ApiRequest) -> Documents:
    documents = request.kernel.documents
    if not documents.running:
        raise ApiError(
            404, "This service runs no workflows that are edited here.", code="NOT_FOUND"
        )
    return documents


def _found(request: ApiRequest, document_id: str) -> StoredDocument:
    return request.client.visible(_documents(request).get(document_id))


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise NotThereError
    return int(text)


# -- changing ----------------------------------------------------------------------------------


def _published(
    request: ApiRequest, document_id: str, number: str, carry_out: _Change
) -> DocumentVersion:
    document = _found(request, document_id)
    try:
        done = carry_out(document.id, _number(number), author=request.client.name, **request.body)
    except WorkflowError as error:
        raise _not_valid(request, error) from None
    return _changed(done, "This version counts already.")


def _switched(request: ApiRequest, document_id: str, *, enabled: bool) -> StoredDocument:
    document = _found(request, document_id)
    require(request.kernel.documents.switch(document.id, enabled=enabled), "It is so already.")
    return _found(request, document.id)


def _changed(version: DocumentVersion | None, refusal: str) -> DocumentVersion:
    if version is None:
        raise ApiError(409, refusal, code="FAILED_PRECONDITION")
    return version


def _not_valid(request: ApiRequest, error: WorkflowError) -> ApiError:
    """Return the 400 of a text that is no workflow: an entry for each problem, with its line."""
    redact = request.kernel.redactor.redact
    errors = [
        {"pointer": pointer_to("source"), "detail": redact(str(each)), "code": "invalid"}
        for each in diagnostics(error)
    ]
    return ApiError(400, NOT_VALID, errors=errors)
