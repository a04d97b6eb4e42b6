"""What this project adds of its own: two webhook senders, two actions, a template filter."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from automate_kernel import Call, Connector, Kernel, TriggerSpec
from automate_kernel.triggers.webhooks import GitHubSignature, StripeSignature

NO_PAPER = Path(__file__).with_name("printer-has-no-paper")
"""While this file is there, no invoice is finished."""


class GitHub(Connector):
    """GitHub's webhooks."""

    key = "github"
    display_name = "GitHub"

    @classmethod
    def triggers(cls) -> list[TriggerSpec]:
        """Pushes, proved by GitHub's signature and told apart by its delivery id."""
        return [
            TriggerSpec(
                "push",
                signature=GitHubSignature(),
                delivery_id_header="X-GitHub-Delivery",
            )
        ]


class Shop(Connector):
    """A shop that signs and numbers its webhooks as Stripe does."""

    key = "shop"
    display_name = "Shop"

    @classmethod
    def triggers(cls) -> list[TriggerSpec]:
        """Orders that were paid."""
        return [TriggerSpec("order_paid", signature=StripeSignature("$secret:SHOP_WEBHOOK"))]

    def delivery_id(self, trigger: str, headers: Any, raw_body: bytes) -> str | None:
        """The event's own id: the same when the shop sends it again."""
        found: str | None = json.loads(raw_body).get("id")
        return found


def money(cents: int, currency: str) -> str:
    """An amount for people: 4990 cents are ``49.90 EUR``."""
    return f"{cents / 100:,.2f} {currency.upper()}"


def total(lines: list[dict[str, Any]]) -> dict[str, int]:
    """Add up an order's lines."""
    return {
        "cents": sum(line["quantity"] * line["unit_amount"] for line in lines),
        "pieces": sum(line["quantity"] for line in lines),
    }


def invoice(order: str, cents: int, call: Call) -> dict[str, Any]:
    """Write an invoice: that takes a second, and longer while the printer has no paper."""
    time.sleep(1)
    while NO_PAPER.exists():
        time.sleep(0.05)
    return {"number": f"R-{order[-6:]}", "cents": cents, "attempt": call.attempt}


def automate_configure(kernel: Kernel) -> None:
    """Give the kernel what is above; each process calls it once."""
    kernel.register(GitHub)
    kernel.register(Shop)
    kernel.filter("money")(money)
    kernel.action("orders.total", idempotent=True)(total)
    kernel.action("documents.invoice", idempotent=True)(invoice)
