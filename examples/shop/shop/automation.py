"""
What the workflows can do: the shop's own actions.

An action gets an order's key from the workflow, and the tenant from the call. It looks for the
order among that tenant's: an event that names another store's order finds none.
"""

from __future__ import annotations

import logging
from typing import Any

from django.core.mail import send_mail

from automate_kernel import AutomateError, Call, ErrorCodes, Kernel, hookimpl
from shop import orders
from shop.models import Order

logger = logging.getLogger("shop")


def _find(order: int, call: Call) -> Order:
    orders_of_tenant = Order.objects.filter(store_id=call.tenant_id).select_related()
    found: Order | None = orders_of_tenant.filter(pk=order).first()
    if found is None:
        raise AutomateError(ErrorCodes.NOT_FOUND, f"store {call.tenant_id} has no order {order}")
    return found


def order(order: int, call: Call) -> dict[str, Any]:
    """Give what the templates of the workflows need."""
    found = _find(order, call)
    return {
        "number": found.number,
        "status": found.status,
        "card": found.card_reference,
        "total": found.total,
        "currency": found.store.currency,
        "store": found.store.name,
        "customer": {"name": found.customer.name, "email": found.customer.email},
        "lines": [
            {"name": line.product.name, "quantity": line.quantity, "price": line.price}
            for line in found.lines.select_related("product")
        ],
    }


def reserve(order: int, call: Call) -> dict[str, bool]:
    """Take what is ordered from the stock."""
    return {"available": orders.reserve(_find(order, call))}


def release(order: int, call: Call) -> None:
    """Give back what was taken from the stock."""
    orders.release(_find(order, call))


def expect_payment(order: int, call: Call) -> None:
    """Look again later whether the money came."""
    orders.expect_payment(_find(order, call))


def pay(order: int, call: Call) -> None:
    """Note that the money is there."""
    orders.pay(_find(order, call))


def write_invoice(order: int, text: str, call: Call) -> dict[str, int]:
    """Keep the invoice of an order."""
    return {"invoice": orders.write_invoice(_find(order, call), text).pk}


def send(order: int, call: Call) -> None:
    """Note that the parcel left."""
    orders.send(_find(order, call))


def mail(to: str, subject: str, text: str) -> None:
    """Send a mail by Django's backend; twice, should the worker die right after it."""
    send_mail(subject, text, None, [to])


ACTIONS = (order, reserve, release, expect_payment, pay, write_invoice, send)


@hookimpl
def automate_configure(kernel: Kernel) -> None:
    """Called once, when the project's kernel is made. The settings name this module."""
    for function in ACTIONS:
        # Idempotent: see shop/orders.py.
        kernel.action(f"shop.{function.__name__}", idempotent=True)(function)
    kernel.action("shop.mail")(mail)


@hookimpl
def automate_after_call(call: Call, output: Any, error: AutomateError | None) -> None:
    """Called after each attempt of each step. This one writes the lines that the demo shows."""
    outcome = "done" if error is None else f"{error.code}: {error.message}"
    logger.info("%s %s, attempt %s: %s", call.tenant_id, call.operation, call.attempt, outcome)
