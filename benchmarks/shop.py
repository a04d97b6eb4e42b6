"""A tea shop whose operators have a bad day: data that hang together, for walks and pictures."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from automate_kernel import Call, Kernel, OutboxItem
from automate_kernel.outbox import NewItem
from automate_kernel.storage import Storage

SHARES = {
    "mail.send": 0.50,
    "stock.sync": 0.25,
    "invoice.print": 0.12,
    "customer.update": 0.08,
    "label.print": 0.04,
    "discount.share": 0.01,
}
"""The kinds of items, each with a cause of its own, and their shares of all failures."""
ORDER = 4711
"""The number of the order that somebody asks for."""
APPROVER = "role:finance"
_CHUNK = 1_000
_DUE: tuple[dict[str, Any], ...] = ({"waiting_for": "worker"}, {"status": "RUNNING"})
_TEAS = ("Sencha", "Assam", "Earl Grey", "Rooibos", "Darjeeling", "Oolong")


class TeaShop:
    """
    A kernel on *storage* with the workflows of a tea shop, of which parts are *broken*.

    What `mend` mends works from then on; what failed before stays failed until it is tried again.
    """

    def __init__(self, storage: Storage) -> None:
        self.kernel = Kernel(storage, discover=False, secrets={})
        self.broken = {"payments", *SHARES}
        """The parts that fail: the payments of orders, and kinds of items."""
        for kind in SHARES:
            self.kernel.handler(kind)(getattr(self, kind.replace(".", "_")))
        for name in ("check", "reserve", "charge", "ship", "report"):
            self.kernel.action(f"shop.{name}")(getattr(self, name))
        for definition in (_ORDER, _REPORT):
            self.kernel.add_workflow(definition)

    def mend(self, part: str) -> None:
        """Have a part work again: payments, or a kind of items."""
        self.broken.discard(part)

    # -- the steps of an order --

    def check(self, number: int, lines: list[dict[str, Any]]) -> dict[str, Any]:
        """Check that the lines of an order are known."""
        return {"number": number, "lines": len(lines)}

    def reserve(self, lines: list[dict[str, Any]]) -> dict[str, Any]:
        """Reserve the lines in the warehouse."""
        return {"shelf": sum(line["quantity"] for line in lines) % 7}

    def charge(self, call: Call, number: int, amount: float) -> dict[str, Any]:
        """Charge the customer's card."""
        if "payments" in self.broken and number % 10 in (1, 4, 7):
            return self._ask_bank(number, amount)
        return {"paid": amount, "receipt": f"R-{number}"}

    def _ask_bank(self, number: int, amount: float) -> dict[str, Any]:
        if number % 10 == 7:
            raise TimeoutError(f"the bank did not answer for order {number}")
        raise PermissionError(f"the bank refuses our certificate for order {number}")

    def ship(self, number: int) -> dict[str, Any]:
        """Hand the parcel over."""
        return {"parcel": f"P-{number}"}

    def report(self) -> dict[str, Any]:
        """Add up the day."""
        return {"orders": 212, "turnover": 8_312.4}

    # -- items --

    def mail_send(self, item: OutboxItem) -> None:
        """Send a mail."""
        if item.kind in self.broken:
            raise ConnectionError("the mail server mx1 is away")

    def stock_sync(self, item: OutboxItem) -> None:
        """Tell the warehouse."""
        prices = {} if item.kind in self.broken else {"Sencha": 4}
        prices[item.payload["name"]] if item.kind in self.broken else prices.get("")

    def invoice_print(self, item: OutboxItem) -> None:
        """Print an invoice."""
        if item.kind in self.broken:
            int(item.payload["postcode"])

    def customer_update(self, item: OutboxItem) -> None:
        """Tell the customer's record."""
        if item.kind in self.broken:
            raise PermissionError("the token of the CRM is expired")

    def label_print(self, item: OutboxItem) -> None:
        """Print a parcel's label."""
        if item.kind in self.broken:
            raise TimeoutError("the printer in hall 2 did not answer in 10 s")

    def discount_share(self, item: OutboxItem) -> None:
        """Share a discount between the lines."""
        if item.kind in self.broken:
            item.payload["discount"] / item.payload["lines"]

    # -- data --

    def fill(self, items: int, executions: int, report: Callable[[str], object] = print) -> None:
        """
        Have so many items and executions fail, of six causes and of two, and orders wait.

        An order of each ten fails by one cause, two by the other, and the rest is done.
        """
        logging.disable(logging.CRITICAL)  # a line for each of them
        try:
            for some in _chunks(_items(items)):
                self.kernel.outbox.enqueue_many(some)
            self._work()
            report(f"{items:,} items failed")
            first = ORDER - ORDER % 10 - 10
            numbers = range(first, first + -(-executions * 10 // 3))
            for number in numbers:
                self.place_order(number)
            self._work()
            failed = self.kernel.executions.stats().total("FAILED")
            report(f"{failed:,} of {len(numbers):,} orders failed")
        finally:
            logging.disable(logging.NOTSET)

    def _work(self) -> None:
        """Have a worker do all that is due, on its threads."""
        worker = self.kernel.worker(poll_seconds=0.05)
        thread = threading.Thread(target=worker.run)
        thread.start()
        outbox = self.kernel.outbox
        while any(outbox.page(**each, limit=1).items for each in _DUE):
            time.sleep(0.1)
        worker.stop()
        thread.join()
        self.kernel.run_until_idle()

    def place_order(self, number: int, *, approval: bool | None = None) -> str:
        """Start an order of this number; each twentieth is large enough to need an approval."""
        asked = number % 20 == 5 if approval is None else approval
        lines = [
            {"name": _TEAS[(number + place) % len(_TEAS)], "quantity": 1 + (number + place) % 4}
            for place in range(1 + number % 3)
        ]
        amount = 1_200.0 + number % 90 if asked else 12.5 * sum(line["quantity"] for line in lines)
        payload = {"number": number, "amount": amount, "lines": lines}
        labels = {"order": number, "region": ("north", "south")[number % 2]}
        return self.kernel.start("order", payload, labels=labels)


_ORDER = {
    "name": "order",
    "title": "Order",
    "description": "Checks an order, reserves its lines, charges the card and ships it.",
    "trigger": {"type": "event", "event": "order.placed"},
    "steps": [
        {
            "id": "check",
            "action": "shop.check",
            "input": {
                "number": "{{ event.payload.number }}",
                "lines": "{{ event.payload.lines }}",
            },
        },
        {
            "id": "reserve",
            "action": "shop.reserve",
            "input": {"lines": "{{ event.payload.lines }}"},
        },
        {
            "id": "approve",
            "if": "{{ event.payload.amount > 1000 }}",
            "approval": {
                "title": "Accept order {{ event.payload.number }} of {{ event.payload.amount }} €?",
                "description": "Orders above 1,000 € are checked by the finance department.",
                "by": [APPROVER],
                "form": [
                    {"name": "limit", "label": "Credit limit in €", "type": "integer"},
                ],
            },
        },
        {
            "id": "charge",
            "action": "shop.charge",
            "input": {
                "number": "{{ event.payload.number }}",
                "amount": "{{ event.payload.amount }}",
            },
        },
        {"id": "ship", "action": "shop.ship", "input": {"number": "{{ event.payload.number }}"}},
    ],
}
_REPORT = {
    "name": "daily-report",
    "title": "Daily report",
    "description": "Adds up the day at six in the evening.",
    "trigger": {"type": "schedule", "cron": "0 18 * * *"},
    "steps": [{"id": "add", "action": "shop.report"}],
}


def _items(count: int) -> Iterator[NewItem]:
    left = count
    for number, (kind, share) in enumerate(SHARES.items(), 1):
        some = left if number == len(SHARES) else round(count * share)
        left -= some
        for each in range(some):
            payload = {
                "order": each, "name": _TEAS[each % len(_TEAS)], "postcode": f"D-{10_000 + each}",
                "discount": 5, "lines": 0,
            }  # fmt: skip
            yield NewItem(kind, payload, max_attempts=1, labels={"order": each})


def _chunks(items: Iterator[NewItem]) -> Iterator[list[NewItem]]:
    some: list[NewItem] = []
    for each in items:
        some.append(each)
        if len(some) == _CHUNK:
            yield some
            some = []
    if some:
        yield some
