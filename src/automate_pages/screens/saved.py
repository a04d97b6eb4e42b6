"""Saved queries: the filters of a list under a name, of the user or shared with the tenant."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

from automate_kernel.access.saved_queries import SavedQuery
from automate_kernel.base.errors import AutomateError
from automate_pages.exchange import OrderAnswer, PageError, PageRequest
from automate_pages.formats import shown_text

_LISTS = ("executions", "executions/grid", "outbox", "approvals", "audit")
# The place in a list is no part of its query, and neither is what opens a single object.
_PASSING = ("after", "id", "a", "b")
_MOST_FIELDS = 50


@dataclass(frozen=True, slots=True)
class SavedBar:
    """The saved queries of a list: each with its address, and the query that is shown now."""

    page: str
    query: str
    saved: list[tuple[SavedQuery, str]]


def saved_bar(request: PageRequest) -> SavedBar | None:
    """Return the saved queries of the list at the request's path; None for another page."""
    page = request.path.strip("/")
    if page not in _LISTS or request.part or not may_save(request):
        return None
    queries = request.kernel.saved_queries.find(
        page, user_name=request.user.name, tenant_id=request.user.tenant
    )
    saved = [(each, _address(request, page, each.query)) for each in queries]
    return SavedBar(page, _clean(urlencode(request.query.lists, doseq=True)), saved)


def may_save(request: PageRequest) -> bool:
    """Return True if the user has a name, under which something can be kept."""
    return bool(request.user.name) and request.may("view")


def save(request: PageRequest) -> OrderAnswer:
    """Keep a query under a name, or in the place of the user's own with that name."""
    form = request.form
    page, query = form.get("page", ""), _clean(form.get("query", "")[:4_000])
    if not may_save(request) or page not in _LISTS:
        raise PageError(403, "no query can be saved here")
    here = _address(request, page, query)
    try:
        request.kernel.saved_queries.save(
            form.get("name", "").strip(), page, query, user_name=request.user.name,
            tenant_id=request.user.tenant, shared=form.get("shared") == "1",
        )  # fmt: skip
    except AutomateError as error:
        return OrderAnswer(here, shown_text(request.kernel, str(error), 300).text, "bad")
    return OrderAnswer(here, "The query is saved.")


def delete(request: PageRequest, query_id: str) -> OrderAnswer:
    """Delete a query of the user's own."""
    page = request.form.get("page", "")
    if page not in _LISTS or not request.kernel.saved_queries.delete(
        query_id, user_name=request.user.name, tenant_id=request.user.tenant
    ):
        raise PageError(404, "you have no such saved query")
    return OrderAnswer(_address(request, page, ""), "The saved query is deleted.")


def _clean(query: str) -> str:
    pairs = parse_qsl(query)[:_MOST_FIELDS]
    return urlencode([(name, text) for name, text in pairs if name not in _PASSING])


def _address(request: PageRequest, page: str, query: str) -> str:
    return request.url(*page.split("/")) + (f"?{query}" if query else "")
