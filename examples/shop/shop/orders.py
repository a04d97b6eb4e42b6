"""
What can be done with an order.

Workflow steps run at least once: a worker may die after it did the work and before it could say so.
So every function here does nothing the second time. It sees by the order's status that it ran, and
the status changes in the transaction of the work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from django.conf import settings
from django.db import transaction
from django.db.models import F

from automate_django import emit
from automate_kernel import AutomateError, ErrorCodes
from shop.models import Customer, Invoice, Order, OrderLine, Product

Status = Order.Status


class OutOfStockError(Exception):
    """There is not enough of a product."""


class NewLine(TypedDict):
    """A line that is ordered."""

    product: Product
    quantity: int


def place(customer: Customer, lines: Sequence[NewLine], card_reference: str = "") -> Order:
    """Take an order. It and the event that starts its workflow are committed together."""
    with transaction.atomic():
        order: Order = Order.objects.create(
            store_id=customer.store_id,
            customer=customer,
            card_reference=card_reference,
            total=sum(line["product"].price * line["quantity"] for line in lines),
        )
        OrderLine.objects.bulk_create(
            OrderLine(order=order, price=line["product"].price, **line) for line in lines
        )
        # The worker sees the event when the order is committed, and never without the order.
        emit("order.placed", {"order": order.pk}, tenant_id=order.store_id)
    return order


def _advance(order: Order, after: str, *before: str) -> bool:
    """
    Move *order* on to *after*; False if it isn't at *before*: that was done already.

    One UPDATE, first in its transaction: who comes second waits for it, and then changes nothing.
    """
    return bool(Order.objects.filter(pk=order.pk, status__in=before).update(status=after))


def reserve(order: Order) -> bool:
    """Take what is ordered from the stock; False, and a backorder, if there is not enough."""
    try:
        with transaction.atomic():
            if _advance(order, Status.RESERVED, Status.PLACED, Status.BACKORDER):
                _take_from_stock(order)
    except OutOfStockError:
        _advance(order, Status.BACKORDER, Status.PLACED)
    order.refresh_from_db()
    if order.status == Status.FAILED:
        raise AutomateError(ErrorCodes.FAILED_PRECONDITION, f"order {order} has failed before")
    return order.status != Status.BACKORDER


def _take_from_stock(order: Order) -> None:
    # In one order of all workers, or two of them could wait for each other.
    for line in order.lines.order_by("product"):
        enough = Product.objects.filter(pk=line.product_id, stock__gte=line.quantity)
        if not enough.update(stock=F("stock") - line.quantity):
            raise OutOfStockError(line.product)  # takes back what was done to the lines before


def release(order: Order) -> None:
    """Give back what was reserved, and leave the order as failed."""
    with transaction.atomic():
        if _advance(order, Status.FAILED, Status.RESERVED):
            for line in order.lines.order_by("product"):
                Product.objects.filter(pk=line.product_id).update(stock=F("stock") + line.quantity)


def expect_payment(order: Order) -> None:
    """Look again later whether the money came: a delayed event is how to wait without a worker."""
    emit(
        "order.payment_due",
        {"order": order.pk},
        tenant_id=order.store_id,
        delay=settings.SHOP_REMIND_AFTER_SECONDS,
        idempotency_key=f"payment-due-{order.pk}",
    )


def pay(order: Order) -> None:
    """Note that the money is there, and start what follows from it."""
    with transaction.atomic():
        if _advance(order, Status.PAID, Status.RESERVED):
            emit("order.paid", {"order": order.pk}, tenant_id=order.store_id)
            return
    order.refresh_from_db()
    if order.status not in (Status.PAID, Status.SENT):
        # The step fails, and an operator finds it under "Executions": money needs a person here.
        raise AutomateError(
            ErrorCodes.FAILED_PRECONDITION, f"order {order} is {order.status} and awaits no money"
        )


def write_invoice(order: Order, text: str) -> Invoice:
    """Keep the invoice; the one that is there, if there is one."""
    invoice: Invoice
    invoice, _ = Invoice.objects.get_or_create(order=order, defaults={"text": text})
    return invoice


def send(order: Order) -> None:
    """Note that the parcel left."""
    _advance(order, Status.SENT, Status.PAID)
