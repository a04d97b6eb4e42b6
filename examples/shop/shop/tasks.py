"""A task of Django's, which the worker of the workflows runs too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import django
from django.core.mail import send_mail

from automate_django.tasks import retry
from shop.models import Customer

if TYPE_CHECKING or django.VERSION >= (6, 0):
    from django.tasks import task
else:
    from django_tasks import task


@task(queue_name="mail")
@retry(max_attempts=5, give_up_on=Customer.DoesNotExist)
def send_statement(customer_id: int) -> int:
    """Mail a customer all orders and how far they are; gives their number."""
    customer = Customer.objects.get(pk=customer_id)
    lines = [
        f"{order.number}: {order.get_status_display()}, {order.total} {customer.store.currency}"
        for order in customer.order_set.order_by("pk")
    ]
    send_mail("Your orders", "\n".join(lines) or "None yet.", None, [customer.email])
    return len(lines)
