"""Bulk actions from a button to the kernel: check, confirm, carry out, record, report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, ClassVar
from uuid import UUID

from django.contrib import messages
from django.core import signing
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern

from automate_django import bulk_actions
from automate_django.admin.pages.access import Reach, reach_of, record, uuid_of
from automate_django.admin.pages.base import PageSection
from automate_django.admin.pages.display import shown_text
from automate_django.admin.pages.list_query import ItemQuery
from automate_django.bulk_actions import BULK_ACTIONS, BulkActionKind, BulkProgress, BulkRequest
from automate_django.kernel import get_kernel
from automate_django.models import OutboxItem
from automate_django.outbox_counts import forget_counts
from automate_kernel.errors import AutomateError
from automate_kernel.outbox import BulkAction

_MOST_IDS = 200
_SALT = "automate_django.pages.order"
_DAY = 86_400
RATES: list[tuple[int, str]] = [
    (0, "all at once"),
    (1, "1 a second"),
    (10, "10 a second"),
    (50, "50 a second"),
    (200, "200 a second"),
    (1000, "1,000 a second"),
]
"""The rates to choose from: items, or executions, a second."""


def allowed_actions(request: HttpRequest, names: Iterable[str]) -> list[BulkActionKind]:
    """Return those of the bulk actions *names* that the user may do."""
    return [kind for kind in map(BULK_ACTIONS.__getitem__, names) if kind.allowed(request.user)]


class BulkActionPages(PageSection):
    """
    The addresses that bulk actions are posted to.

    ``order/`` takes an action for ticked items, for one item, or for all that a filter finds. It
    asks for confirmation, unless the action is safe and for one item. ``orders/`` carries a large
    action on.
    """

    current = "outbox"
    DELAYS: ClassVar[list[tuple[int, str]]] = [
        (0, "now"),
        (60, "in a minute"),
        (600, "in 10 minutes"),
        (3600, "in an hour"),
        (43_200, "in 12 hours"),
        (86_400, "tomorrow"),
    ]

    def urls(self) -> list[URLPattern]:
        """Return the addresses."""
        get, post = self.owner.get, self.owner.post
        return [
            post("order/", self.take_view, "automate_bulk_action"),
            post("orders/", self.go_on_view, "automate_bulk_action_continue"),
            get("orders/<uuid:request_id>/", self.progress_view, "automate_bulk_action_progress"),
            get("orders/<uuid:request_id>/now/", self.now_view, "automate_bulk_action_now"),
            post("orders/<uuid:request_id>/stop/", self.stop_view, "automate_bulk_action_stop"),
        ]

    def take_view(self, request: HttpRequest) -> HttpResponse:
        """Take a bulk action."""
        kind = BULK_ACTIONS.get(request.POST.get("order", ""))
        if kind is None:
            return HttpResponse("There is no such action.", status=400)
        if not kind.allowed(request.user):
            raise PermissionDenied
        reach = reach_of(request)
        query = ItemQuery.read(request.POST, reach)
        if request.POST.get("scope") == "all":
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
            done = bulk_actions.run_on_items(get_kernel().outbox, kind.name, ids, delay=delay)
            record(request, kind.name, rows, done=done, of=len(ids))
            self._report(request, kind, done, len(ids))
        except AutomateError as error:
            messages.error(request, f"{error.message}.")
        return HttpResponseRedirect(back)

    # -- for all that a filter finds -----------------------------------------------------------

    def _all(
        self, request: HttpRequest, kind: BulkActionKind, query: ItemQuery, reach: Reach
    ) -> HttpResponse:
        if kind.name not in query.list.actions or not query.list.indexed:
            return HttpResponse("This can't be done with all of these items.", status=400)
        outbox, matching = get_kernel().outbox, query.matching(reach)
        total = outbox.count(**matching)
        if not total:
            messages.warning(request, f"There are no {query.words} any more.")
            return HttpResponseRedirect(self._back(request, query))
        if request.POST.get("sure") != "yes":
            return self._confirm(request, kind, query, total, all_of_them=True)
        delay, per_second = number_in(request, "delay"), number_in(request, "per_second")
        about = f"begun: {total:,} {query.words}"
        pace: dict[str, Any] = {"per_second": per_second, "delay": delay}
        record(request, kind.name, about=about, filter=query.fields, **pace)
        paced = per_second if kind.command == "requeue" and per_second else None
        action = BulkAction(kind.command, matching, delay=delay, per_second=paced)
        user = str(request.user.pk)
        asked = BulkRequest(kind.name, user, reach.tenant, query.words, query.fields, total, action)
        return self._go_on(request, asked)

    def go_on_view(self, request: HttpRequest) -> HttpResponse:
        """Carry a bulk action on."""
        try:
            asked = _read(request.POST.get("progress", ""), request.user)
        except ValueError as error:
            return HttpResponse(str(error), status=400)
        reach = reach_of(request)
        own = asked.tenant == reach.tenant and not reach.nothing
        if not own or not BULK_ACTIONS[asked.kind].allowed(request.user):
            raise PermissionDenied
        return self._go_on(request, asked)

    def _go_on(self, request: HttpRequest, asked: BulkRequest) -> HttpResponse:
        outbox, kind = get_kernel().outbox, BULK_ACTIONS[asked.kind]
        back = self._list_url(ItemQuery.read(asked.fields, reach_of(request)))
        try:
            asked = bulk_actions.carry_on(outbox, asked)
        except AutomateError as error:
            messages.error(request, f"Stopped after {asked.action.done:,} items: {error.message}.")
            return HttpResponseRedirect(back)
        if asked.action.finished:
            record(request, kind.name, about=f"ended: {asked.label}", filter=asked.fields)
            self._report(request, kind, asked.action.done, asked.action.seen)
            return HttpResponseRedirect(back)
        if bulk_actions.has_worker(outbox):
            # It goes on without the browser.
            request_id = bulk_actions.hand_over(outbox, asked)
            return HttpResponseRedirect(self.url("automate_bulk_action_progress", request_id))
        return self.page(
            request,
            "bulk_action_by_page.html",
            f"{kind.label}: {asked.action.seen:,} of {asked.total:,}",
            asked=asked,
            kind=kind,
            progress=signing.dumps(asdict(asked), salt=_SALT, compress=True),
            continue_url=self.url("automate_bulk_action_continue"),
            back=back,
        )

    # -- what a worker does --------------------------------------------------------------------

    def progress_view(self, request: HttpRequest, request_id: UUID) -> HttpResponse:
        """Show how far a bulk action has come that a worker carries out."""
        found = self._find(request, request_id)
        context = self._progress(found)
        query = ItemQuery.read(found.request.fields, reach_of(request))
        return self.page(
            request,
            "bulk_action.html",
            f"{context['kind'].label}: {found.request.total:,} items",
            poll_url=self.url("automate_bulk_action_now", request_id),
            stop_url=self.url("automate_bulk_action_stop", request_id),
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
        if bulk_actions.stop(get_kernel().outbox, request_id):
            record(request, asked.kind, about=f"stopped: {asked.total:,} items")
            messages.success(request, "It is stopped. What is done stays done.")
        else:
            messages.warning(request, "It was over.")
        return HttpResponseRedirect(self.url("automate_bulk_action_progress", request_id))

    def _find(self, request: HttpRequest, request_id: UUID) -> BulkProgress:
        """Find a bulk action, if it is the user's own, or the user sees everything."""
        found = bulk_actions.find_progress(get_kernel().outbox, request_id)
        reach, user = reach_of(request), request.user
        own = found is not None and found.request.user == str(user.pk)
        if found is None or not (own or reach.everyone) or reach.nothing:
            raise Http404("There is no such action, or it is not yours.")
        of_all = found.request.tenant is None
        if not BULK_ACTIONS[found.request.kind].allowed(user) or of_all > reach.everyone:
            raise PermissionDenied
        return found

    def _progress(self, found: BulkProgress) -> dict[str, Any]:
        return {
            "running": found,
            "asked": found.request,
            "problem": shown_text(found.problem, 500),
            "kind": BULK_ACTIONS[found.request.kind],
        }

    # -- confirming, reporting, going back --------------------------------------------------------

    def _confirm(
        self,
        request: HttpRequest,
        kind: BulkActionKind,
        query: ItemQuery,
        total: int,
        **context: Any,
    ) -> HttpResponse:
        return self.page(
            request,
            "confirm.html",
            f"{kind.label} {total:,} item{'' if total == 1 else 's'}?",
            kind=kind,
            query=query,
            total=total,
            action_url=self.url("automate_bulk_action"),
            back=self._back(request, query),
            from_item=request.POST.get("from") == "item",
            delays=self.DELAYS if kind.name == "reschedule" else None,
            rates=RATES if kind.name == "retry" and "all_of_them" in context else None,
            **context,
        )

    def _report(self, request: HttpRequest, kind: BulkActionKind, done: int, asked: int) -> None:
        forget_counts()
        left = asked - done
        text = f"{done:,} item{'' if done == 1 else 's'} {kind.done}."
        if left > 0:
            text += f" {left:,} had changed meanwhile and stay as they are."
        (messages.success if done else messages.warning)(request, text)

    def _back(self, request: HttpRequest, query: ItemQuery) -> str:
        ids = _ids(request)
        if request.POST.get("from") == "item" and ids and request.POST.get("order") != "discard":
            return self.url("automate_django_outboxitem_change", ids[0])
        return self._list_url(query)

    def _list_url(self, query: ItemQuery) -> str:
        return f"{self.url('automate_django_outboxitem_changelist')}?{query.query}"


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
