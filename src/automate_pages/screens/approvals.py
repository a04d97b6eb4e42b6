"""The approvals: what waits for the user's decision, and the form of each."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.http.approvals import SentAnswer, fields_html, problems_in, shown_fields
from automate_kernel.workflows.steer.approvals import ROLE, PendingApproval
from automate_pages.exchange import (
    OrderAnswer,
    PageAnswer,
    PageError,
    PageLink,
    PageRequest,
    read_position,
)
from automate_pages.formats import shown_text


def show_list(request: PageRequest) -> PageAnswer:
    """Show the approvals for the user, with ``of=all`` everybody's, or those that are decided."""
    if request.query.get("of") == "decided":
        return _decided(request)
    everybody = request.query.get("of") == "all"
    user = request.user
    by, roles = (None, ()) if everybody or user.stands_in else (user.name, user.asked_as)
    found = request.kernel.approvals.pending(
        by=by, roles=roles, tenant_id=request.user.tenant, after=request.query.get("after", "")
    )
    others = not everybody and not found.approvals and request.kernel.approvals.pending(
        tenant_id=request.user.tenant, limit=1
    ).approvals  # fmt: skip
    return PageAnswer(
        "approvals.html",
        "Approvals",
        {
            "rows": [_row(request, each) for each in found.approvals],
            "of": "all" if everybody else "",
            "others": bool(others),
            "everybody": everybody,
            "lists": _lists(request, "all" if everybody else ""),
            "next": request.url("approvals", of=request.query.get("of", ""), after=found.after)
            if found.after
            else "",
        },
        live=True,
    )


@dataclass(frozen=True, slots=True)
class AskedRow:
    """An approval in the inbox, with its form if the user may decide it: no HTML if it has none."""

    of: PendingApproval
    url: str
    decides: bool
    form: Any


def _row(request: PageRequest, waiting: PendingApproval) -> AskedRow:
    place = waiting.position if waiting.position >= 0 else "whole"
    decides = request.may("decide") and waiting.may_decide(*_person(request, waiting))
    form: Any = ""
    if decides and waiting.form:
        form = fields_html(shown_fields(waiting.form), of=f"{waiting.id}-")
    url = request.url("approvals", waiting.execution_id, waiting.step_id, place)
    return AskedRow(waiting, url, decides, form)


def _lists(request: PageRequest, of: str) -> list[PageLink]:
    lists = (("For you", ""), ("Everybody's", "all"), ("Decided", "decided"))
    return [PageLink(label, request.url("approvals", of=name), name == of) for label, name in lists]


def _decided(request: PageRequest) -> PageAnswer:
    """Show who decided what, on the pages, by a link or by the API."""
    found = request.kernel.approvals.decided(
        tenant_id=request.user.tenant, after=request.query.get("after", "")
    )
    later = request.url("approvals", of="decided", after=found.after) if found.after else ""
    context = {"found": found, "lists": _lists(request, "decided"), "next": later}
    return PageAnswer("decided.html", "Approvals", context, live=True)


def _waiting(request: PageRequest, execution_id: str, step: str, position: str) -> PendingApproval:
    place = read_position(position)
    found = request.kernel.approvals.get(execution_id, step, place, tenant_id=request.user.tenant)
    if found is None:
        raise PageError(404, "nothing waits for this decision any more")
    return found


def show(request: PageRequest, execution_id: str, step: str, position: str) -> PageAnswer:
    """Show what is asked, with its form."""
    return _form(request, _waiting(request, execution_id, step, position))


def _form(
    request: PageRequest,
    waiting: PendingApproval,
    answer: SentAnswer | None = None,
    problem: str = "",
    problems: Mapping[str, str] | None = None,
) -> PageAnswer:
    kernel = request.kernel
    return PageAnswer(
        "approval.html",
        shown_text(kernel, waiting.title, 200).text,
        {
            "waiting": waiting,
            "about": shown_text(kernel, waiting.description),
            "form_fields": fields_html(
                shown_fields(waiting.form, answer, problems), answer.comment if answer else ""
            ),
            "problem": problem,
            "decides": request.may("decide") and waiting.may_decide(*_person(request, waiting)),
        },
        crumbs=[PageLink("Approvals", request.url("approvals"))],
        status=422 if problem else 200,
    )


def _person(request: PageRequest, waiting: PendingApproval) -> tuple[str, Collection[str]]:
    """Return who decides, and in which roles: the user, or whomever the user stands in for."""
    user = request.user
    if not user.stands_in or waiting.may_decide(user.name, user.asked_as):
        return user.name, user.asked_as
    roles = [each.removeprefix(ROLE) for each in waiting.by if each.startswith(ROLE)]
    return (user.name, [*user.roles, *roles]) if roles else (waiting.by[0], user.roles)


def decide(
    request: PageRequest, execution_id: str, step: str, position: str
) -> PageAnswer | OrderAnswer:
    """Approve or reject."""
    request.require("decide")
    waiting = _waiting(request, execution_id, step, position)
    answer = SentAnswer.read(request.form.items())
    if answer.approved is None:
        return _form(request, waiting, answer, "Choose to approve or to reject.")
    approvals, (by, roles) = request.kernel.approvals, _person(request, waiting)
    try:
        (approvals.approve if answer.approved else approvals.reject)(
            waiting.execution_id,
            waiting.step_id,
            waiting.position,
            by=by,
            roles=roles,
            comment=answer.comment,
            form=answer.form,
            tenant_id=request.user.tenant,
        )
    except AutomateError as error:
        if error.code is ErrorCodes.INVALID_ARGUMENT:
            return _form(request, waiting, answer, *problems_in(error))
        raise
    inbox = request.url("approvals", of="all" if request.form.get("of") == "all" else "")
    return OrderAnswer(inbox, "Approved." if answer.approved else "Rejected.")
