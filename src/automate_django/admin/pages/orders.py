"""
What an operator can order for items, and how an order for very many of them is carried out.

A request does a second's worth of it, and says how far it came. A worker does the rest, if there is
one (see `automate_django.admin.pages.standing`). If there is none, which may be what is wrong at
three in the morning, the browser sends the next request, and it ends when its page is closed. The
items are those that were there when the order was
given, each of them once: one that fails again meanwhile is not taken again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.core import signing
from django.db import transaction
from django.utils import timezone

from automate_django.admin.pages.access import Reach
from automate_django.admin.pages.item_filter import Wanted
from automate_django.admin.pages.slices import SLICES
from automate_django.kernel import get_kernel
from automate_django.models import OutboxItem

__all__ = ["ORDERS", "Order", "OrderKind", "give", "items", "obey", "proceed"]

BATCH = 500
SECONDS = 1.0
"""For how long one request works on an order."""

_SALT = "automate_django.pages.order"
_DAY = 86_400


@dataclass(frozen=True, slots=True)
class OrderKind:
    """
    Something that can be done with items.

    *slices* are the lists whose items it can be done with, *permission* what it needs beside
    ``change``. *safe* orders for one item need no second look.
    """

    name: str
    label: str
    done: str
    explanation: str
    permission: str = ""
    tone: str = ""
    safe: bool = False


ORDERS: dict[str, OrderKind] = {
    one.name: one
    for one in (
        OrderKind(
            "retry",
            "Retry",
            "put back to wait",
            "They wait for a worker again, with all their attempts. A workflow goes on at the step"
            " that failed.",
            safe=True,
        ),
        OrderKind(
            "reschedule",
            "Reschedule",
            "rescheduled",
            "They become due at another time. Their attempts and their priority stay.",
            safe=True,
        ),
        OrderKind(
            "cancel",
            "Cancel",
            "cancelled, or asked to stop",
            "What waits is cancelled, and so are the executions of workflows that it belongs to."
            " What runs is asked to stop; if it succeeds first, that stands. A cancelled item can"
            " be retried.",
            tone="bad",
        ),
        OrderKind(
            "discard",
            "Discard",
            "deleted",
            "They are deleted from the outbox, with their payload and error. This can't be undone.",
            permission="automate_django.delete_outboxitem",
            tone="bad",
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Order:
    """
    An order for all items that a filter finds, as far as it is carried out.

    *last* is the newest item that was there when it was given, *after* the last one that it came
    to. *total* is how many were found then, *seen* how many it came to, *done* how many it changed.
    """

    kind: str
    user: str
    tenant: str | None
    fields: dict[str, str]
    total: int
    last: str
    after: str = ""
    seen: int = 0
    done: int = 0
    delay: float = 0.0
    per_second: float = 0.0
    given_at: str = ""

    @property
    def finished(self) -> bool:
        """Whether it came to the last item."""
        return self.after >= self.last

    def sign(self) -> str:
        """The order as text that only this project can have written."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return signing.dumps(values, salt=_SALT, compress=True)

    @classmethod
    def read(cls, text: str, user: Any) -> Order:
        """What `sign` wrote for the same user; raises `ValueError`."""
        try:
            order = cls(**signing.loads(text, salt=_SALT, max_age=_DAY))
        except (signing.BadSignature, TypeError):
            raise ValueError("this order is not one of ours, or a day old") from None
        if order.user != str(user.pk):
            raise ValueError("this order was given by somebody else")
        return order


def items(reach: Reach) -> Any:
    """The items that *reach* covers."""
    alias = getattr(get_kernel().storage, "alias", "default")
    return reach.filter(OutboxItem.objects.using(alias))


def obey(kind: str, ids: Sequence[str], *, delay: float = 0.0) -> int:
    """Have the kernel do what the order *kind* says with the items *ids*. Returns how many."""
    outbox = get_kernel().outbox
    match kind:
        case "retry":
            return outbox.requeue(ids)
        case "cancel":
            return outbox.cancel(ids)
        case "discard":
            return outbox.discard(ids)
        case "reschedule":
            return outbox.reschedule(ids, delay=delay)
    raise ValueError(f"there is no order {kind!r}")


def give(kind: str, wanted: Wanted, reach: Reach, user: Any, **options: Any) -> Order | None:
    """An order for all that *wanted* finds now; None if that is nothing."""
    found = _matching(wanted, reach)
    last = found.order_by("-id").values_list("id", flat=True).first()
    if last is None:
        return None
    return Order(
        kind,
        str(user.pk),
        reach.tenant,
        wanted.fields,
        total=found.order_by().count(),
        last=str(last),
        given_at=timezone.now().isoformat(),
        **options,
    )


def proceed(order: Order, reach: Reach, *, clock: Callable[[], float] = time.monotonic) -> Order:
    """Carry *order* on for `SECONDS`; returns how far it has come."""
    wanted = Wanted.read(order.fields, reach)
    until = clock() + SECONDS
    while not order.finished:
        found = _matching(wanted, reach).filter(id__lte=UUID(order.last))
        if order.after:
            found = found.filter(id__gt=UUID(order.after))
        ids = [str(one) for one in found.order_by("id").values_list("id", flat=True)[:BATCH]]
        done = _carry_out(order, ids)
        after = ids[-1] if len(ids) == BATCH else order.last
        order = replace(order, after=after, seen=order.seen + len(ids), done=order.done + done)
        if clock() >= until:
            break
    return order


def _matching(wanted: Wanted, reach: Reach) -> Any:
    found = wanted.among(items(reach), reach).filter(SLICES[wanted.slice.name].condition)
    return found.filter(wanted.filters) if wanted.filters is not None else found


def _carry_out(order: Order, ids: Sequence[str]) -> int:
    if order.kind != "retry" or not order.per_second:
        return obey(order.kind, ids, delay=order.delay) if ids else 0
    outbox, done = get_kernel().outbox, 0
    begin = datetime.fromisoformat(order.given_at)
    # Those of one second become due together.
    size = max(1, round(order.per_second))
    alias = getattr(get_kernel().storage, "alias", "default")
    for start in range(0, len(ids), size):
        some = ids[start : start + size]
        due = begin + timedelta(seconds=(order.done + done) / order.per_second)
        # In one transaction, or a worker would take them before their time is set.
        with transaction.atomic(using=alias):
            done += outbox.requeue(some)
            outbox.reschedule(some, run_at=due)
    return done
