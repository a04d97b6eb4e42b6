"""
Orders for very many items, carried out by a worker whatever becomes of the browser's tab.

How far an order has come is the payload of an outbox item of our own kind. Whoever handles it does
a second's worth, and leaves the rest to the next item in the transaction that completes this one:
so it survives a worker that dies, and is done by one worker at a time.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from django.contrib.auth import get_user_model

from automate_django.admin.bases import trail
from automate_django.admin.pages.access import Reach
from automate_django.admin.pages.orders import ORDERS, Order, proceed
from automate_django.admin.pages.wanted import Wanted
from automate_django.kernel import get_kernel
from automate_django.models import AuditEntry, OutboxItem
from automate_django.order_kind import ORDER_KIND
from automate_django.tenants import OPERATE
from automate_kernel.errors import LeaseLostError
from automate_kernel.outbox import ItemStatus, Outcome
from automate_kernel.outbox import OutboxItem as Item
from automate_kernel.outbox.item import OutcomeRecorded
from automate_kernel.worker import Snooze, cancelling

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Standing", "carry_out", "hand_over", "standing", "stop", "worker_lives"]

_LABEL = "automate-order"
# Before what is merely due: somebody waits for it.
_PRIORITY = 100
_CHANGE = "automate_django.change_outboxitem"


@dataclass(frozen=True, slots=True)
class Standing:
    """How far an order has come: *over* if nothing follows, *problem* if it came to no good end."""

    id: str
    order: Order
    everyone: bool
    over: bool
    item_id: str = ""
    waits: bool = False
    problem: str = ""


def worker_lives() -> bool:
    """Whether a worker is there that carries out orders."""
    workers = get_kernel().outbox.workers()
    return any(ORDER_KIND in one.kinds and not one.lost and not one.stopping for one in workers)


def hand_over(order: Order, reach: Reach) -> str:
    """Let a worker carry *order* on; returns an id to follow it by."""
    order_id = str(uuid4())
    _enqueue(order_id, 0, order, everyone=reach.everyone)
    return order_id


def _enqueue(
    order_id: str, step: int, order: Order, *, everyone: bool, transaction: Any = None
) -> None:
    get_kernel().outbox.enqueue(
        ORDER_KIND,
        {"id": order_id, "step": step, "everyone": everyone, "order": asdict(order)},
        labels={_LABEL: order_id},
        idempotency_key=f"{_LABEL}:{order_id}:{step}",
        priority=_PRIORITY,
        transaction=transaction,
    )


def standing(order_id: UUID) -> Standing | None:
    """How far the order with this id has come; None if there is none."""
    # All steps have the same label; the newest one is where it stands.
    found = get_kernel().outbox.labelled(f"{_LABEL}={order_id}", limit=1)
    if found:
        return _of_item(found[0])
    # What is completed may be deleted at once. That it ended is written down.
    entry = AuditEntry.objects.filter(
        model=OutboxItem._meta.label_lower, object_id=str(order_id)
    ).first()
    if entry is None:
        return None
    return Standing(
        str(order_id),
        Order(**entry.details["order"]),
        bool(entry.details["everyone"]),
        over=True,
        problem=entry.details.get("problem", ""),
    )


def _of_item(item: Item) -> Standing:
    order, problem = Order(**item.payload["order"]), ""
    if item.status is ItemStatus.CANCELLED:
        problem = "It was stopped"
    elif item.status is ItemStatus.FAILED:
        problem = f"It failed: {item.last_error}"
    over = item.status in (ItemStatus.CANCELLED, ItemStatus.FAILED, ItemStatus.COMPLETED)
    if item.status is ItemStatus.COMPLETED:
        entry = AuditEntry.objects.filter(
            model=OutboxItem._meta.label_lower, object_id=item.payload["id"]
        ).first()
        if entry is not None:
            order = Order(**entry.details["order"])
            problem = entry.details.get("problem", "")
    waits = item.status in (ItemStatus.PENDING, ItemStatus.RETRY)
    return Standing(
        item.payload["id"], order, item.payload["everyone"], over, item.id, waits, problem
    )


def stop(order_id: UUID) -> bool:
    """Have nothing more done of an order; False if it was over."""
    # Another step may follow between the look and the change.
    for _ in range(3):
        found = standing(order_id)
        if found is None or found.over:
            return False
        if get_kernel().outbox.cancel([found.item_id]):
            return True
    return False


def carry_out(item: Item) -> OutcomeRecorded | Snooze:
    """Handle an item of an order: a second's worth of it, and the next item for the rest."""
    given = item.payload
    order, everyone = Order(**given["order"]), bool(given["everyone"])
    problem = _objection(order, everyone=everyone)
    if not problem:
        order = proceed(order, Reach(everyone=everyone, tenant=order.tenant))
    if cancelling():
        return Snooze(0)  # which ends it as CANCELLED: what is done stays done
    outbox = get_kernel().outbox
    with outbox.transaction() as transaction:
        outcome = Outcome(item.id, token=item.lease_token)
        if outbox.acknowledge(item.lease_owner or "", [outcome], transaction=transaction):
            raise LeaseLostError(f"the lease of item {item.id} is lost")
        if problem or order.finished:
            _write_down(given["id"], order, problem, everyone=everyone)
        else:
            step = given["step"] + 1
            _enqueue(given["id"], step, order, everyone=everyone, transaction=transaction)
    if problem or order.finished:
        from automate_django.admin.pages.figures import forget

        forget()
    return OutcomeRecorded()


def _objection(order: Order, *, everyone: bool) -> str:
    """Why who gave *order* may not give it any more; empty if they may."""
    user: Any = get_user_model()._default_manager.filter(pk=order.user).first()
    needed = [_CHANGE, *filter(None, [ORDERS[order.kind].permission, OPERATE if everyone else ""])]
    if user is None or not user.is_active or not all(user.has_perm(each) for each in needed):
        return "Who gave it may not give it any more"
    return ""


def _write_down(order_id: str, order: Order, problem: str, *, everyone: bool) -> None:
    user = get_user_model()._default_manager.filter(pk=order.user).first()
    details: Mapping[str, Any] = {
        "filter": order.fields,
        "order": asdict(order),
        "everyone": everyone,
        **({"problem": problem} if problem else {}),
    }
    request: Any = SimpleNamespace(user=user or SimpleNamespace(pk=None, get_username=lambda: ""))
    entry = trail.entry_of(request, order.kind, OutboxItem, tenant=order.tenant, details=details)
    words = Wanted.read(order.fields, Reach(everyone=everyone, tenant=order.tenant)).words
    said = f"{'stopped' if problem else 'ended'}: {order.done:,} of {order.total:,} {words}"
    trail.write([{**entry, "object_repr": said[:200], "object_id": order_id}])
