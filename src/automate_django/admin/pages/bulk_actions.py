"""Bulk actions from a button to the kernel: check, confirm, carry out, record, report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from django.contrib import messages
from django.core import signing
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern

from automate_django.admin.pages.access import Reach, reach_of, record, uuid_of
from automate_django.admin.pages.base import PageSection
from automate_django.admin.pages.display import shown_text
from automate_django.admin.pages.list_query import ExecutionQuery, ItemQuery
from automate_django.bulk_actions import (
    MODELS,
    allowed,
    bulk_runner,
    follows_from_user,
    kind_of,
    run_on_items,
)
from automate_django.kernel import get_kernel
from automate_django.models import OutboxItem
from automate_django.outbox_counts import forget_counts
from automate_kernel.base.errors import AutomateError
from automate_kernel.outbox import BulkAction
from automate_kernel.workflows.steer.bulk_runner import BulkProgress, BulkRequest, BulkRunner
from automate_pages.bulk import BULK_ACTIONS, DELAYS, RATES, BulkActionKind

_MOST_IDS = 200
_SALT = "automate_django.pages.order"
_DAY = 86_400


def allowed_actions(
    request: HttpRequest, names: Iterable[str], target: str = "items"
) -> list[BulkActionKind]:
    """Return those of the bulk actions *names* on *target* that the user may do."""
    return [
        kind for kind in map(BULK_ACTIONS[target].__getitem__, names) if allowed(kind, request.user)
    ]


def _runner() -> BulkRunner:
    return bulk_runner(get_kernel())


class BulkActionPages(PageSection):
    """
    The addresses that bulk actions on items are posted to.

    ``order/`` takes an action for ticked items, for one item, or for all that a filter finds. It
    asks for confirmation, unless the action is safe and for one item. ``orders/`` carries a large
    action on.
    """

    current = "outbox"
    target = "items"
    prefix = "automate_bulk_action"
    query: ClassVar[type[ItemQuery | ExecutionQuery]] = ItemQuery
    DELAYS: ClassVar[list[tuple[int, str]]] = DELAYS

    def urls(self) -> list[URLPattern]:
        """Return the addresses."""
        get, post, name = self.owner.get, self.owner.post, self.prefix
        return [
            post("order/", self.take_view, name),
            post("orders/", self.go_on_view, f"{name}_continue"),
            get("orders/<uuid:request_id>/", self.progress_view, f"{name}_progress"),
            get("orders/<uuid:request_id>/now/", self.now_view, f"{name}_now"),
            post("orders/<uuid:request_id>/stop/", self.stop_view, f"{name}_stop"),
        ]

    def take_view(self, request: HttpRequest) -> HttpResponse:
        """Take a bulk action."""
        kind = BULK_ACTIONS[self.target].get(request.POST.get("order", ""))
        if kind is None:
            return HttpResponse("There is no such action.", status=400)
        if not allowed(kind, request.user):
            raise PermissionDenied
        reach = reach_of(request)
        query = self.query.read(request.POST, reach)
        if isinstance(query, ExecutionQuery) or request.POST.get("scope") == "all":
            return self._all(request, kind, query, reach)
        return self._some(request, kind, query, reach)

    # -- for some items ------------------------------------------------------------------------

    def _some(
        self, request: HttpRequest, kind: BulkActionKind, query: ItemQuery, reach: Reach
    ) -> HttpResponse:
        asked = reach.rows(OutboxItem).filter(pk__in=_ids(request)[:_MOST_IDS])
        found = asked.only("id", "kind", "status", "tenant_id")
        rows = sorted(found, key=lambda row: str(row.pk))
        back = self._back(request, query)
        if not rows:
            messages.warning(request, "No items were selected.")
            return HttpResponseRedirect(back)
        sure = request.POST.get("sure") == "yes" or (kind.safe and len(rows) == 1)
        if not sure:
            return self._confirm(request, kind, query, len(rows), rows=rows)
        ids = [str(row.pk) for row in rows]
        try:
            delay = number_in(request, "delay")
            done = run_on_items(get_kernel().outbox, kind.name, ids, delay=delay)
            record(request, kind.name, rows, done=done, of=len(ids))
            self._report(request, kind, done, len(ids))
        except AutomateError as error:
            messages.error(request, f"{error.message}.")
        return HttpResponseRedirect(back)

    # -- for all that a filter finds -----------------------------------------------------------

    def _all(
        self,
        request: HttpRequest,
        kind: BulkActionKind,
        query: ItemQuery | ExecutionQuery,
        reach: Reach,
    ) -> HttpResponse:
        if kind.name not in query.all_actions or reach.nothing:
            return HttpResponse(f"This can't be done with all of these {kind.target}.", status=400)
        delay, per_second = number_in(request, "delay"), number_in(request, "per_second")
        paced = per_second if kind.paced and per_second else None
        # Times as text, which a bulk action takes along.
        matching = {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in query.matching(reach).items()
        }
        action = BulkAction(
            kind.command, matching, delay=delay, per_second=paced, target=kind.target
        )
        total = _runner().total(action)
        if not total:
            messages.warning(request, f"There are no {query.words} any more.")
            return HttpResponseRedirect(self._back(request, query))
        if request.POST.get("sure") != "yes":
            return self._confirm(request, kind, query, total, all_of_them=True)
        pace: dict[str, Any] = {"per_second": per_second, "delay": delay}
        about = f"begun: {total:,} {query.words}"
        self._record(request, kind, about, filter=query.fields, **pace)
        asked = BulkRequest(
            kind.name, str(request.user.pk), reach.tenant, query.words, query.fields, total, action,
            tied=follows_from_user(request.user, reach.tenant),
        )  # fmt: skip
        return self._go_on(request, asked)

    def _record(
        self, request: HttpRequest, kind: BulkActionKind, about: str, **details: Any
    ) -> None:
        record(request, kind.name, model=MODELS[self.target], about=about, **details)

    def go_on_view(self, request: HttpRequest) -> HttpResponse:
        """Carry a bulk action on."""
        try:
            asked = _read(request.POST.get("progress", ""), request.user)
        except ValueError as error:
            return HttpResponse(str(error), status=400)
        reach = reach_of(request)
        own = asked.tenant == reach.tenant and not reach.nothing
        if not own or not allowed(kind_of(asked), request.user):
            raise PermissionDenied
        return self._go_on(request, asked)

    def _go_on(self, request: HttpRequest, asked: BulkRequest) -> HttpResponse:
        runner, kind = _runner(), kind_of(asked)
        back = self._list_url(self.query.read(asked.fields, reach_of(request)))
        try:
            asked = runner.carry_on(asked)
        except AutomateError as error:
            done = f"{asked.action.done:,} {kind.target}"
            messages.error(request, f"Stopped after {done}: {shown_text(error.message).text}.")
            return HttpResponseRedirect(back)
        if asked.action.finished:
            self._record(request, kind, f"ended: {asked.label}", filter=asked.fields)
            self._report(request, kind, asked.action.done, asked.action.seen)
            return HttpResponseRedirect(back)
        if runner.has_worker():
            # It goes on without the browser.
            request_id = runner.hand_over(asked)
            return HttpResponseRedirect(self.url(f"{self.prefix}_progress", request_id))
        return self.page(
            request,
            "bulk_action_by_page.html",
            f"{kind.label}: {asked.action.seen:,} of {asked.total:,}",
            asked=asked,
            kind=kind,
            progress=signing.dumps(asdict(asked), salt=_SALT, compress=True),
            continue_url=self.url(f"{self.prefix}_continue"),
            back=back,
        )

    # -- what a worker does --------------------------------------------------------------------

    def progress_view(self, request: HttpRequest, request_id: UUID) -> HttpResponse:
        """Show how far a bulk action has come that a worker carries out."""
        found = self._find(request, request_id)
        context = self._progress(found)
        query = self.query.read(found.request.fields, reach_of(request))
        return self.page(
            request,
            "bulk_action.html",
            f"{context['kind'].label}: {found.request.total:,} {self.target}",
            poll_url=self.url(f"{self.prefix}_now", request_id),
            stop_url=self.url(f"{self.prefix}_stop", request_id),
            back=self._list_url(query),
            **context,
        )

    def now_view(self, request: HttpRequest, request_id: UUID) -> HttpResponse:
        """Return the same alone, for the script that keeps it up to date."""
        found = self._find(request, request_id)
        context = self._progress(found)
        return self.owner.fragment(request, "_bulk_action.html", stop=found.over, **context)

    def stop_view(self, request: HttpRequest, request_id: UUID) -> HttpResponse:
        """Stop a bulk action."""
        asked = self._find(request, request_id).request
        if _runner().stop(request_id):
            self._record(request, kind_of(asked), f"stopped: {asked.total:,} {self.target}")
            messages.success(request, "It is stopped. What is done stays done.")
        else:
            messages.warning(request, "It was over.")
        return HttpResponseRedirect(self.url(f"{self.prefix}_progress", request_id))

    def _find(self, request: HttpRequest, request_id: UUID) -> BulkProgress:
        """Find a bulk action, if it is the user's own, or the user sees everything."""
        found = _runner().find_progress(request_id)
        if found is not None and found.request.action.target != self.target:
            found = None
        reach, user = reach_of(request), request.user
        own = found is not None and found.request.user == str(user.pk)
        if found is None or not (own or reach.everyone) or reach.nothing:
            raise Http404("There is no such action, or it is not yours.")
        of_all = found.request.tenant is None
        if not allowed(kind_of(found.request), user) or of_all > reach.everyone:
            raise PermissionDenied
        return found

    def _progress(self, found: BulkProgress) -> dict[str, Any]:
        return {
            "running": found,
            "asked": found.request,
            "problem": shown_text(found.problem, 500),
            "kind": kind_of(found.request),
        }

    # -- confirming, reporting, going back --------------------------------------------------------

    def _confirm(
        self,
        request: HttpRequest,
        kind: BulkActionKind,
        query: ItemQuery | ExecutionQuery,
        total: int,
        **context: Any,
    ) -> HttpResponse:
        return self.page(
            request,
            "confirm.html",
            f"{kind.label} {total:,} {kind.noun}{'' if total == 1 else 's'}?",
            kind=kind,
            query=query,
            total=total,
            action_url=self.url(self.prefix),
            back=self._back(request, query),
            from_item=request.POST.get("from") == "item",
            delays=self.DELAYS if kind.name == "reschedule" else None,
            rates=RATES if kind.paced and "all_of_them" in context else None,
            **context,
        )

    def _report(self, request: HttpRequest, kind: BulkActionKind, done: int, asked: int) -> None:
        forget_counts()
        left = asked - done
        text = f"{done:,} {kind.noun}{'' if done == 1 else 's'} {kind.done}."
        if left > 0:
            text += f" {left:,} had changed meanwhile and stay as they are."
        (messages.success if done else messages.warning)(request, text)

    def _back(self, request: HttpRequest, query: ItemQuery | ExecutionQuery) -> str:
        ids = _ids(request)
        if request.POST.get("from") == "item" and ids and request.POST.get("order") != "discard":
            return self.url("automate_django_outboxitem_change", ids[0])
        return self._list_url(query)

    def _list_url(self, query: ItemQuery | ExecutionQuery) -> str:
        changelist = f"automate_django_{MODELS[self.target]._meta.model_name}_changelist"
        return f"{self.url(changelist)}?{query.query}"


class ExecutionBulkPages(BulkActionPages):
    """The same for executions: for all that a filter finds."""

    current = "executions"
    target = "executions"
    prefix = "automate_executions_bulk_action"
    query = ExecutionQuery


def _ids(request: HttpRequest) -> list[UUID]:
    return [found for text in request.POST.getlist("id") if (found := uuid_of(text))]


def number_in(request: HttpRequest, name: str) -> float:
    """Return the number of seconds, or per second, that was posted; 0 for what is absurd."""
    try:
        value = float(request.POST.get(name) or 0)
    except ValueError:
        return 0.0
    # NaN compares as false, and becomes 0 here as well.
    return value if 0 < value <= 366 * 86_400 else 0.0


def _read(progress: str, user: Any) -> BulkRequest:
    """Return what `BulkActionPages` signed for the same user; raises `ValueError`."""
    try:
        asked = BulkRequest.read(signing.loads(progress, salt=_SALT, max_age=_DAY))
    except (signing.BadSignature, TypeError, KeyError):
        raise ValueError("this action is not one of ours, or a day old") from None
    if asked.user != str(user.pk):
        raise ValueError("this action is somebody else's")
    return asked
