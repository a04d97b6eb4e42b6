"""Workflows that are edited here: the editor, versions with their differences, publish, go back."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from automate_kernel.base.errors import AutomateError, ErrorCodes, PayloadError, WorkflowError
from automate_kernel.kernel import Kernel
from automate_kernel.monitoring.diagnosis import workflow_problems
from automate_kernel.storage.values import encode_json, read_json
from automate_kernel.workflows.definition.graph import to_svg
from automate_kernel.workflows.definition.model import Workflow
from automate_kernel.workflows.steer.documents import (
    FORMATS,
    Diagnostic,
    DocumentVersion,
    Format,
    StoredDocument,
    diagnostics,
)
from automate_kernel.workflows.store.catalogue import ALL_TENANTS
from automate_pages.comparison import ChangedLine, changed_lines
from automate_pages.exchange import (
    OrderAnswer,
    PageAnswer,
    PageError,
    PageLink,
    PageRequest,
    sent_text,
)
from automate_pages.formats import shown_text, shown_tree

_VERSIONS = 50
_AROUND = 2
_MOST_EXCERPT = 60
_MOST_SOURCE = 300_000
_PAYLOAD_FIELD = re.compile(r"\bevent\.payload((?:\.[A-Za-z_]\w*)+)(?![\w(])")
_STARTER = """\
name: my-workflow
trigger: {type: event, event: something.happened}
steps:
  - id: first
    action: connector.action
    input: {text: "{{ event.payload.text }}"}
"""


# -- finding -----------------------------------------------------------------------------------


def documents_of(request: PageRequest, name: str | None = None) -> list[StoredDocument]:
    """Return the documents that the user may look into; none if this kernel runs none."""
    documents = request.kernel.documents
    if not documents.running:
        return []
    tenant = ALL_TENANTS if request.user.tenant is None else request.user.tenant
    return documents.find(name, tenant_id=tenant)


def _found(request: PageRequest, document_id: str) -> StoredDocument:
    documents = request.kernel.documents
    found = documents.get(document_id) if documents.running else None
    if found is None or request.user.tenant not in (None, found.tenant_id):
        raise PageError(404, "there is no such workflow")
    return found


def _version(request: PageRequest, document: StoredDocument, number: str) -> DocumentVersion:
    if not (number.isascii() and number.isdigit() and len(number) < 10):
        raise PageError(404, "there is no such version")
    return request.kernel.documents.version(document.id, int(number))


def _source(kernel: Kernel, version: DocumentVersion) -> str:
    """Return the text of a version without secrets: a text may have become one after the save."""
    return kernel.redactor.redact(version.source)


def _read(kernel: Kernel, version: DocumentVersion) -> Workflow | None:
    """Return the workflow of a version; None if its text can't be read any more."""
    try:
        return kernel.documents.checked(version.source, version.format)
    except (AutomateError, ValidationError):
        return None


def _picture(workflow: Workflow | None, former: Workflow | None = None) -> str:
    return to_svg(workflow, former=former, styled=False) if workflow is not None else ""


# -- a document --------------------------------------------------------------------------------


def show(request: PageRequest, document_id: str) -> PageAnswer:
    """Show a workflow's versions: who saved and published each, and why."""
    document = _found(request, document_id)
    before = request.text("before")
    versions = request.kernel.documents.versions(
        document.id,
        before=int(before) if before.isascii() and before.isdigit() and len(before) < 10 else None,
        limit=_VERSIONS + 1,
    )
    older = len(versions) > _VERSIONS
    problem = request.kernel.workflows.problems().get((document.tenant_id, document.name))
    published = document.version is not None and document.enabled
    return PageAnswer(
        "document.html",
        document.name,
        {
            "document": document,
            "here": request.url("documents", document.id),
            "runs": request.url("workflows", document.name, tenant=document.tenant_id or "")
            if published
            else "",
            "versions": versions[:_VERSIONS],
            "older": request.url(
                "documents", document.id, before=str(versions[_VERSIONS - 1].number)
            )
            if older
            else "",
            "problem": shown_text(request.kernel, str(problem) if problem else "", 2_000),
            "edits": request.may("edit", "documents"),
        },
        crumbs=[PageLink("Workflows", request.url("workflows"))],
    )


def order(request: PageRequest, document_id: str) -> PageAnswer | OrderAnswer:
    """Turn a workflow on or off."""
    request.require("edit", "documents")
    document, wanted = _found(request, document_id), request.form.get("order")
    if wanted not in ("enable", "disable"):
        raise PageError(400, "there is no such order")
    enabled = wanted == "enable"
    here = request.url("documents", document.id)
    if not request.kernel.documents.switch(document.id, enabled=enabled):
        return OrderAnswer(here, "It is so already.", "warn")
    words = "on: the next event starts it" if enabled else "off: nothing starts it"
    return OrderAnswer(here, f"It is {words}. What runs goes on.")


# -- the editor --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SourceLine:
    """A line of a text near a problem, and the problems of it."""

    number: int
    text: str
    problems: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class EditorForm:
    """The content of the editor, and what was found in it; *based_on* is the version it is of."""

    source: str = _STARTER
    format: Format = "yaml"
    comment: str = ""
    tenant: str = ""
    based_on: int | None = None
    problems: Sequence[str] = ()
    """Those of no line."""
    lines: Sequence[SourceLine] = ()
    """The lines that have problems, with those around."""
    refusal: str = ""
    advice: Sequence[str] = ()
    changes: Sequence[ChangedLine] | None = None
    picture: str = ""
    checked: bool = False


def show_new(request: PageRequest) -> PageAnswer:
    """Show the editor of a new workflow."""
    _require_editor(request)
    return _editor(request, None, EditorForm())


def show_editor(request: PageRequest, document_id: str) -> PageAnswer:
    """Show the editor, with the text of the latest version."""
    _require_editor(request)
    document, kernel = _found(request, document_id), request.kernel
    version = kernel.documents.version(document.id, document.latest)
    form = EditorForm(_source(kernel, version), _format(version.format), based_on=version.number)
    return _editor(request, document, form)


def save_new(request: PageRequest) -> PageAnswer | OrderAnswer:
    """Save the first version of a new workflow as a draft, or check it."""
    _require_editor(request)
    return _saved(request, None)


def save(request: PageRequest, document_id: str) -> PageAnswer | OrderAnswer:
    """Save a draft, or check it."""
    _require_editor(request)
    return _saved(request, _found(request, document_id))


def _require_editor(request: PageRequest) -> None:
    request.require("edit", "documents")
    if not request.kernel.documents.running:
        raise PageError(404, "this application runs no workflows that are edited here")


def _saved(request: PageRequest, document: StoredDocument | None) -> PageAnswer | OrderAnswer:
    form, documents = _sent(request), request.kernel.documents
    about: dict[str, Any] = {
        "format": form.format, "publish": False, "author": request.user.name,
        "comment": form.comment,
    }  # fmt: skip
    try:
        if request.form.get("order") == "check":
            return _editor(request, document, _checked(request, document, form))
        if document is None:
            made = documents.create(
                form.source, tenant_id=request.user.tenant or form.tenant or None, **about
            )
            return OrderAnswer(request.url("documents", made.id, "versions", 1), _SAVED)
        version = documents.save(document.id, form.source, based_on=form.based_on, **about)
    except WorkflowError as error:
        return _editor(request, document, _marked(request.kernel, form, diagnostics(error)))
    except AutomateError as error:
        if document is not None and error.code is ErrorCodes.ABORTED:
            return _editor(request, document, _overtaken(request, document.id, form))
        text = shown_text(request.kernel, str(error), 2_000).text
        return _editor(request, document, replace(form, refusal=text))
    if version is None:
        here = request.url("documents", document.id, "versions", document.latest)
        return OrderAnswer(here, "Nothing was changed.", "warn")
    return OrderAnswer(request.url("documents", document.id, "versions", version.number), _SAVED)


_SAVED = "It is saved as a draft. Look at what it changes, and publish it."


def _sent(request: PageRequest) -> EditorForm:
    sent, based_on = request.form, sent_text(request.form, "based_on")
    # A browser sends CR LF; a text file has LF.
    source = sent.get("source", "").replace("\r\n", "\n").replace("\r", "\n")
    return EditorForm(
        source if source.endswith("\n") or not source else f"{source}\n",
        _format(sent.get("format", "")),
        sent.get("comment", "").strip()[:500],
        sent_text(sent, "tenant"),
        int(based_on) if based_on.isascii() and based_on.isdigit() and len(based_on) < 10 else None,
    )


def _format(text: str) -> Format:
    return next((each for each in FORMATS if each == text), "yaml")


def _checked(request: PageRequest, document: StoredDocument | None, form: EditorForm) -> EditorForm:
    """Return *form* with what saving it would change; raises `WorkflowError`."""
    kernel = request.kernel
    workflow = kernel.documents.checked(form.source, form.format)
    changes, former = None, None
    if document is not None:
        number = document.version or document.latest
        published = kernel.documents.version(document.id, number)
        former = _read(kernel, published)
        changes = changed_lines(_source(kernel, published), kernel.redactor.redact(form.source))
    return replace(
        form, checked=True, changes=changes, picture=_picture(workflow, former),
        advice=_advice(kernel, workflow),
    )  # fmt: skip


def _advice(kernel: Kernel, workflow: Workflow) -> list[str]:
    """Return the problems that a valid workflow would have here, such as an unknown action."""
    return [shown_text(kernel, each, 500).text for each in workflow_problems(kernel, workflow)]


def _marked(kernel: Kernel, form: EditorForm, found: Sequence[Diagnostic]) -> EditorForm:
    """Return *form* with each problem under the line that it is about."""
    lines = kernel.redactor.redact(form.source).splitlines()
    by_line: dict[int, list[str]] = {}
    others: list[str] = []
    for each in found:
        text = shown_text(kernel, str(Diagnostic(each.message, None, each.field, each.hint)), 1_000)
        if each.line is not None and 0 < each.line <= len(lines):
            by_line.setdefault(each.line, []).append(text.text)
        else:
            others.append(text.text)
    near = {
        line
        for number in by_line
        for line in range(max(1, number - _AROUND), min(len(lines), number + _AROUND) + 1)
    }
    shown = [
        SourceLine(number, lines[number - 1][:200], by_line.get(number, ()))
        for number in sorted(near)[:_MOST_EXCERPT]
    ]
    return replace(form, problems=others, lines=shown)


def _overtaken(request: PageRequest, document_id: str, form: EditorForm) -> EditorForm:
    """Return *form* with what somebody else has saved meanwhile, which the next save replaces."""
    kernel, document = request.kernel, _found(request, document_id)
    newest = kernel.documents.version(document.id, document.latest)
    by = f" by {newest.author}" if newest.author else ""
    refusal = (
        f"Nothing is saved: there is a newer version {newest.number}{by}. Below is what your text"
        " changes in it. Take over what you need, and save again"
    )
    changes = changed_lines(_source(kernel, newest), kernel.redactor.redact(form.source))
    return replace(
        form, based_on=newest.number, refusal=kernel.redactor.redact(refusal), changes=changes
    )


def _editor(request: PageRequest, document: StoredDocument | None, form: EditorForm) -> PageAnswer:
    crumbs = [PageLink("Workflows", request.url("workflows"))]
    if document is not None:
        crumbs.append(PageLink(document.name, request.url("documents", document.id)))
    wrong = bool(form.problems or form.lines)
    return PageAnswer(
        "editor.html",
        "New workflow" if document is None else f"Edit {document.name}",
        {
            "document": document,
            "form": form,
            "wrong": wrong,
            "count": len(form.problems) + sum(len(each.problems) for each in form.lines),
            "formats": FORMATS,
            "chooses_tenant": document is None and request.user.tenant is None,
            "here": request.url("documents", "new")
            if document is None
            else request.url("documents", document.id, "edit"),
            "back": crumbs[-1].url,
        },
        crumbs=crumbs,
        status=422 if wrong or form.refusal else 200,
    )


# -- a version ---------------------------------------------------------------------------------


def show_version(request: PageRequest, document_id: str, number: str) -> PageAnswer:
    """Show a version: what it changes, as text and as picture, and how to publish it."""
    document = _found(request, document_id)
    return _version_page(request, document, _version(request, document, number))


def order_version(request: PageRequest, document_id: str, number: str) -> PageAnswer | OrderAnswer:
    """Publish a version, go back to it, or try it without calls."""
    request.require("edit", "documents")
    document, wanted = _found(request, document_id), request.form.get("order")
    version, documents = _version(request, document, number), request.kernel.documents
    if wanted == "dry":
        return _tried(request, document, version)
    about = {"author": request.user.name}
    here = request.url("documents", document.id)
    try:
        if wanted == "publish":
            done = documents.publish(document.id, version.number, **about)
        elif wanted == "restore":
            based_on = sent_text(request.form, "based_on")
            done = documents.restore(
                document.id, version.number, comment=f"Back to version {version.number}",
                based_on=int(based_on) if based_on.isdecimal() and len(based_on) < 10 else None,
                **about,
            )  # fmt: skip
        else:
            raise PageError(400, "there is no such order")
    except AutomateError as error:
        back = request.url("documents", document.id, "versions", version.number)
        return OrderAnswer(back, shown_text(request.kernel, f"{error}.", 400).text, "bad")
    if done is None:
        return OrderAnswer(here, f"Version {version.number} counts already.", "warn")
    text = f"Version {done.number} is published: new executions run it."
    if not document.enabled:
        text = f"Version {done.number} is published. Turn the workflow on to run it."
    return OrderAnswer(here, text)


@dataclass(frozen=True, slots=True)
class TriedVersion:
    """The payload of a dry run, and what the run gave; or why there is none."""

    payload: str
    tree: Any = None
    problems: Sequence[str] = ()
    refusal: str = ""


def _tried(request: PageRequest, document: StoredDocument, version: DocumentVersion) -> PageAnswer:
    kernel, text = request.kernel, request.form.get("payload", "").strip()
    try:
        workflow = kernel.documents.checked(version.source, version.format)
        try:
            payload = read_json(text) if text else None
        except ValueError as error:
            raise PayloadError(f"the payload is not JSON ({error})") from None
        encode_json(payload, "payload")
        run = kernel.dry_run(workflow, payload, tenant_id=document.tenant_id)
    except AutomateError as error:
        refusal = shown_text(kernel, str(error), 2_000).text
        return _version_page(request, document, version, TriedVersion(text, refusal=refusal))
    problems = [shown_text(kernel, each, 500).text for each in run.problems]
    tried = TriedVersion(text, shown_tree(kernel, run.to_json()), problems)
    return _version_page(request, document, version, tried)


def _version_page(
    request: PageRequest,
    document: StoredDocument,
    version: DocumentVersion,
    tried: TriedVersion | None = None,
) -> PageAnswer:
    kernel, workflow = request.kernel, _read(request.kernel, version)
    other = _compared(request, document, version)
    former = _read(kernel, other) if other is not None else None
    source, edits = _source(kernel, version), request.may("edit", "documents")
    is_draft = version.number == document.latest and document.is_draft
    return PageAnswer(
        "document_version.html",
        f"{document.name}, version {version.number}",
        {
            "document": document,
            "version": version,
            "other": other,
            "changes": changed_lines(_source(kernel, other), source) if other is not None else [],
            "picture": _picture(workflow, former),
            "readable": workflow is not None,
            "advice": _advice(kernel, workflow) if workflow is not None else [],
            "text": shown_text(kernel, source, _MOST_SOURCE),
            "here": request.url("documents", document.id, "versions", version.number),
            "editor": request.url("documents", document.id, "edit") if edits else "",
            "publishes": edits and is_draft,
            "restores": edits and not is_draft and version.number != document.version,
            "is_draft": is_draft,
            "numbers": range(max(1, document.latest - _VERSIONS + 1), document.latest + 1),
            "edits": edits,
            "tried": tried or TriedVersion(_example(workflow)),
            "done": tried is not None,
        },
        crumbs=[
            PageLink("Workflows", request.url("workflows")),
            PageLink(document.name, request.url("documents", document.id)),
        ],
        status=422 if tried is not None and tried.refusal else 200,
    )


def _compared(
    request: PageRequest, document: StoredDocument, version: DocumentVersion
) -> DocumentVersion | None:
    """Return the version to compare with: the chosen one, the published one, or the one before."""
    chosen = request.text("with")
    if chosen:
        return _version(request, document, chosen)
    number = document.version
    if number in (None, version.number):
        number = version.number - 1
    return request.kernel.documents.version(document.id, number) if number else None


def _example(workflow: Workflow | None) -> str:
    """Return a payload with the fields that the text of *workflow* takes from it."""
    found: dict[str, Any] = {}
    if workflow is None:
        return "{}"
    for path in _paths(json.dumps(workflow.to_dict())):
        *outer, last = path
        inner = found
        for name in outer:
            value = inner.get(name)
            inner[name] = inner = value if isinstance(value, dict) else {}
        inner.setdefault(last, f"[{last}]")
    return json.dumps(found, indent=2, ensure_ascii=False)


def _paths(text: str) -> Iterator[list[str]]:
    for each in _PAYLOAD_FIELD.findall(text):
        yield each[1:].split(".")
