"""From a button to the kernel: check, ask again where it matters, carry out, record, tell."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, cast
from uuid import UUID

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseBadRequest,
    HttpResponseRedirect,
)
from django.urls import URLPattern

from automate_django.admin.pages.access import Reach, reach_of, record
from automate_django.admin.pages.base import Section
from automate_django.admin.pages.counts import forget
from automate_django.admin.pages.display import shown_text
from automate_django.admin.pages.item_filter import Wanted
from automate_django.admin.pages.orders import ORDERS, Order, OrderKind, give, items, obey, proceed
from automate_django.admin.pages.slices import SLICES
from automate_django.admin.pages.standing import (
    Standing,
    hand_over,
    standing,
    stop,
    worker_lives,
)
from automate_kernel.errors import AutomateError

__all__ = ["Ordering", "allowed_orders"]

_CHANGE = "automate_django.change_outboxitem"
_MOST_IDS = 200


def allowed_orders(request: HttpRequest, names: Iterable[str]) -> list[OrderKind]:
    """Those of the orders *names* that the user may give."""
    return [ORDERS[name] for name in names if _may(request, ORDERS[name])]


def _may(request: HttpRequest, kind: OrderKind) -> bool:
    user: Any = request.user
    return user.has_perm(_CHANGE) and (not kind.permission or user.has_perm(kind.permission))


class Ordering(Section):
    """
    The addresses that orders are posted to.

    ``order/`` takes an order for items that are ticked, for one, or for all that a filter finds. It
    asks again unless the order is safe and for one item. ``orders/`` carries a large one on.
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
    RATES: ClassVar[list[tuple[int, str]]] = [
        (0, "all at once"),
        (1, "1 a second"),
        (10, "10 a second"),
        (50, "50 a second"),
        (200, "200 a second"),
        (1000, "1,000 a second"),
    ]

    def urls(self) -> list[URLPattern]:
        """The addresses."""
        get, post = self.owner.get, self.owner.post
        return [
            post("order/", self.order_view, "automate_outbox_order"),
            post("orders/", self.proceed_view, "automate_outbox_orders"),
            get("orders/<uuid:order_id>/", self.standing_view, "automate_outbox_standing"),
            get("orders/<uuid:order_id>/now/", self.now_view, "automate_outbox_standing_now"),
            post("orders/<uuid:order_id>/stop/", self.stop_view, "automate_outbox_standing_stop"),
        ]

    def order_view(self, request: HttpRequest) -> HttpResponse:
        """Take an order."""
        kind = ORDERS.get(request.POST.get("order", ""))
        if kind is None:
            return HttpResponseBadRequest("There is no such order.")
        if not _may(request, kind):
            raise PermissionDenied
        reach = reach_of(request)
        wanted = Wanted.read(request.POST, reach)
        if request.POST.get("scope") == "all":
            return self._all(request, kind, wanted, reach)
        return self._some(request, kind, wanted, reach)

    # -- for some items ------------------------------------------------------------------------

    def _some(
        self, request: HttpRequest, kind: OrderKind, wanted: Wanted, reach: Reach
    ) -> HttpResponse:
        asked = list(_ids(request.POST.getlist("id")))[:_MOST_IDS]
        found = items(reach).filter(pk__in=asked).only("id", "kind", "status", "tenant_id")
        rows = sorted(found, key=lambda row: str(row.pk))
        back = self._back(request, wanted)
        if not rows:
            messages.warning(request, "No items were selected.")
            return HttpResponseRedirect(back)
        sure = request.POST.get("sure") == "yes" or (kind.safe and len(rows) == 1)
        if not sure:
            return self._ask(request, kind, wanted, len(rows), rows=rows)
        ids = [str(row.pk) for row in rows]
        try:
            done = obey(kind.name, ids, delay=_number(request, "delay"))
        except AutomateError as error:
            messages.error(request, f"{error.message}.")
            return HttpResponseRedirect(back)
        record(request, kind.name, rows, done=done, of=len(ids))
        self._tell(request, kind, done, len(ids))
        return HttpResponseRedirect(back)

    # -- for all that a filter finds -----------------------------------------------------------

    def _all(
        self, request: HttpRequest, kind: OrderKind, wanted: Wanted, reach: Reach
    ) -> HttpResponse:
        fits = kind.name in wanted.slice.actions and wanted.slice.indexed
        if not fits or wanted.slice.name not in SLICES:
            return HttpResponseBadRequest("This can't be done with all of these items.")
        order = give(
            kind.name,
            wanted,
            reach,
            request.user,
            delay=_number(request, "delay"),
            per_second=_number(request, "per_second"),
        )
        if order is None:
            messages.warning(request, f"There are no {wanted.words} any more.")
            return HttpResponseRedirect(self._back(request, wanted))
        if request.POST.get("sure") != "yes":
            return self._ask(request, kind, wanted, order.total, all_of_them=True)
        record(
            request, kind.name, about=f"begun: {order.total:,} {wanted.words}",
            filter=wanted.fields, per_second=order.per_second, delay=order.delay,
        )  # fmt: skip
        return self._go_on(request, order, reach)

    def proceed_view(self, request: HttpRequest) -> HttpResponse:
        """Carry an order on."""
        try:
            order = Order.read(request.POST.get("progress", ""), request.user)
        except ValueError as error:
            return HttpResponseBadRequest(str(error))
        reach = reach_of(request)
        if not _may(request, ORDERS[order.kind]) or order.tenant != reach.tenant:
            raise PermissionDenied
        return self._go_on(request, order, reach)

    def _go_on(self, request: HttpRequest, order: Order, reach: Reach) -> HttpResponse:
        kind, wanted = ORDERS[order.kind], Wanted.read(order.fields, reach)
        back = f"{self.url('automate_django_outboxitem_changelist')}?{wanted.query}"
        try:
            order = proceed(order, reach)
        except AutomateError as error:
            messages.error(request, f"Stopped after {order.done:,} items: {error.message}.")
            return HttpResponseRedirect(back)
        if order.finished:
            record(
                request,
                kind.name,
                about=f"ended: {order.done:,} of {order.total:,} {wanted.words}",
                filter=wanted.fields,
            )
            self._tell(request, kind, order.done, order.seen)
            return HttpResponseRedirect(back)
        if worker_lives():
            # It goes on without the browser.
            order_id = hand_over(order, reach)
            return HttpResponseRedirect(self.url("automate_outbox_standing", order_id))
        return self.page(
            request,
            "progress.html",
            f"{kind.label}: {order.seen:,} of {order.total:,}",
            order=order,
            kind=kind,
            wanted=wanted,
            progress=order.sign(),
            orders_url=self.url("automate_outbox_orders"),
            back=back,
        )

    # -- what a worker does --------------------------------------------------------------------

    def standing_view(self, request: HttpRequest, order_id: UUID) -> HttpResponse:
        """How far an order has come that a worker carries out."""
        found = self._standing(request, order_id)
        back = self.url("automate_django_outboxitem_changelist")
        context = self._told(request, found)
        return self.page(
            request,
            "standing.html",
            f"{context['kind'].label}: {found.order.total:,} items",
            poll_url=self.url("automate_outbox_standing_now", order_id),
            stop_url=self.url("automate_outbox_standing_stop", order_id),
            back=f"{back}?{context['wanted'].query}",
            **context,
        )

    def now_view(self, request: HttpRequest, order_id: UUID) -> HttpResponse:
        """The same alone, for the script that keeps it up to date."""
        found = self._standing(request, order_id)
        return self.owner.fragment(
            request, "_order.html", stop=found.over, **self._told(request, found)
        )

    def stop_view(self, request: HttpRequest, order_id: UUID) -> HttpResponse:
        """Stop an order."""
        found = self._standing(request, order_id)
        if stop(order_id):
            record(request, found.order.kind, about=f"stopped: {found.order.total:,} items")
            messages.success(request, "It is stopped. What is done stays done.")
        else:
            messages.warning(request, "It was over.")
        return HttpResponseRedirect(self.url("automate_outbox_standing", order_id))

    def _standing(self, request: HttpRequest, order_id: UUID) -> Standing:
        """The order, if it is the user's own, or the user sees everything."""
        found, reach = standing(order_id), reach_of(request)
        own = found is not None and found.order.user == str(cast("Any", request.user).pk)
        if found is None or not (own or reach.everyone) or reach.nothing:
            raise Http404("There is no such order, or it is not yours.")
        if not _may(request, ORDERS[found.order.kind]) or found.everyone > reach.everyone:
            raise PermissionDenied
        return found

    def _told(self, request: HttpRequest, found: Standing) -> dict[str, Any]:
        return {
            "standing": found,
            "order": found.order,
            "problem": shown_text(found.problem, 500),
            "kind": ORDERS[found.order.kind],
            "wanted": Wanted.read(found.order.fields, reach_of(request)),
        }

    # -- asking, telling, going back -----------------------------------------------------------

    def _ask(
        self,
        request: HttpRequest,
        kind: OrderKind,
        wanted: Wanted,
        total: int,
        **context: Any,
    ) -> HttpResponse:
        return self.page(
            request,
            "confirm.html",
            f"{kind.label} {total:,} item{'' if total == 1 else 's'}?",
            kind=kind,
            wanted=wanted,
            total=total,
            order_url=self.url("automate_outbox_order"),
            back=self._back(request, wanted),
            from_item=request.POST.get("from") == "item",
            delays=self.DELAYS if kind.name == "reschedule" else None,
            rates=self.RATES if kind.name == "retry" and "all_of_them" in context else None,
            **context,
        )

    def _tell(self, request: HttpRequest, kind: OrderKind, done: int, asked: int) -> None:
        forget()
        left = asked - done
        text = f"{done:,} item{'' if done == 1 else 's'} {kind.done}."
        if left > 0:
            text += f" {left:,} had changed meanwhile and stay as they are."
        (messages.success if done else messages.warning)(request, text)

    def _back(self, request: HttpRequest, wanted: Wanted) -> str:
        ids = list(_ids(request.POST.getlist("id")))
        if request.POST.get("from") == "item" and ids and request.POST.get("order") != "discard":
            return self.url("automate_django_outboxitem_change", ids[0])
        return f"{self.url('automate_django_outboxitem_changelist')}?{wanted.query}"


def _ids(given: Iterable[str]) -> Iterable[UUID]:
    for text in given:
        try:
            yield UUID(text)
        except ValueError:
            continue


def _number(request: HttpRequest, name: str) -> float:
    try:
        value = float(request.POST.get(name) or 0)
    except ValueError:
        return 0.0
    # NaN compares as false, and becomes 0 here as well.
    return value if 0 < value <= 366 * 86_400 else 0.0
