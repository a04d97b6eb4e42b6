"""The workflows: which there are, the picture of each, and a start by hand."""

from __future__ import annotations

from automate_kernel.base.errors import AutomateError
from automate_kernel.storage.values import read_json
from automate_kernel.workflows.definition.graph import describe_trigger, to_svg
from automate_kernel.workflows.store.catalogue import Entry
from automate_pages.exchange import OrderAnswer, PageAnswer, PageError, PageLink, PageRequest
from automate_pages.formats import shown_json, shown_text

_LATEST = 20


def show_list(request: PageRequest) -> PageAnswer:
    """Show the workflows that the user's tenant has, with their last runs."""
    kernel = request.kernel
    rows = [
        {
            "entry": entry,
            "triggers": [describe_trigger(each) for each in entry.workflow.triggers],
            "problem": shown_text(kernel, str(entry.error) if entry.error else "", 500),
            "runs": kernel.executions.page(
                workflow=entry.workflow.name, limit=_LATEST,
                tenant_id=request.user.tenant or entry.tenant_id,
            ).executions[::-1],
        }
        for entry in _visible(request)
    ]  # fmt: skip
    broken = [
        (name, shown_text(kernel, str(error), 2_000))
        for (tenant, name), error in kernel.workflows.problems().items()
        if request.user.tenant in (None, tenant)
    ]
    return PageAnswer("workflows.html", "Workflows", {"rows": rows, "broken": broken}, live=True)


def _visible(request: PageRequest) -> list[Entry]:
    found = [
        entry for entry in request.kernel.workflows.entries()
        if request.user.tenant is None or entry.visible_to(request.user.tenant)
    ]  # fmt: skip
    return sorted(found, key=lambda entry: (entry.workflow.name, entry.tenant_id or ""))


def workflow_names(request: PageRequest) -> list[str]:
    """Return the names of the workflows that the user's tenant has."""
    return sorted({entry.workflow.name for entry in _visible(request)})


def _entry(request: PageRequest, name: str) -> Entry:
    tenant = request.query.get("tenant")
    for entry in _visible(request):
        if entry.workflow.name == name and tenant in (None, entry.tenant_id):
            return entry
    raise PageError(404, f"there is no workflow {name!r}")


def show(request: PageRequest, name: str) -> PageAnswer:
    """Show a workflow: its picture, its text, and the form that starts it."""
    return _page(request, _entry(request, name))


def _page(request: PageRequest, entry: Entry, payload: str = "{}", refusal: str = "") -> PageAnswer:
    kernel, workflow = request.kernel, entry.workflow
    schema = kernel.workflows.payload_schema(workflow)
    return PageAnswer(
        "workflow.html",
        workflow.name,
        {
            "here": request.url("workflows", workflow.name, tenant=entry.tenant_id or ""),
            "refusal": refusal,
            "entry": entry,
            "problem": shown_text(kernel, str(entry.error) if entry.error else ""),
            "triggers": [describe_trigger(each) for each in workflow.triggers],
            "graph": to_svg(workflow, styled=False),
            "text": shown_json(
                kernel, workflow.model_dump(mode="json", exclude_defaults=True, by_alias=True)
            ),
            "schema": shown_json(kernel, schema) if schema else None,
            "payload": payload,
            "starts": request.user.may("start") and entry.error is None,
            "runs": kernel.executions.page(
                workflow=workflow.name,
                limit=_LATEST,
                tenant_id=request.user.tenant or entry.tenant_id,
            ).executions,
        },
        crumbs=[PageLink("Workflows", request.url("workflows"))],
        status=422 if refusal else 200,
    )


def order(request: PageRequest, name: str) -> PageAnswer | OrderAnswer:
    """Start a workflow by hand, with the payload that the form has."""
    request.require("start")
    entry = _entry(request, name)
    text = request.form.get("payload", "").strip()
    try:
        payload = read_json(text) if text else None
    except ValueError as error:
        # Not by an address, which a log of accesses keeps: a payload may hold a secret.
        return _page(request, entry, text, f"the payload is not JSON ({error})")
    tenant = request.user.tenant or entry.tenant_id
    try:
        begun = request.kernel.start(name, payload, tenant_id=tenant)
    except AutomateError as error:
        return _page(request, entry, text, shown_text(request.kernel, str(error), 2_000).text)
    return OrderAnswer(request.url("executions", begun), "It is started.")
