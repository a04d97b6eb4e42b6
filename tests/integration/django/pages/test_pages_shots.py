from __future__ import annotations
import os
from pathlib import Path
from typing import Any
import pytest
from automate_kernel.outbox import NewItem

BASE = "/admin/automate_django/outboxitem/"


def seed(kernel, fail, alive):
    fail(
        "slack.post",
        398,
        error="POST https://slack.com/api/chat.postMessage: no answer within 30 s",
    )
    fail("mail.send", 57, code="UNAVAILABLE", error="SMTP 421: try again later", tenant_id="acme")
    fail(
        "orders.total",
        6,
        code="INVALID_ARGUMENT",
        error="lines.0.price: Input should be a valid number\n  Traceback (most recent call last):\n    File \"orders.py\", line 12, in total\n      return sum(line['price'] for line in lines)\nTypeError: unsupported operand",
        payload={
            "lines": [{"price": "x", "quantity": 3}],
            "api_key": "sk-live-1",
            "note": "<script>alert(1)</script>",
        },
        tenant_id="globex",
    )
    kernel.outbox.enqueue_many(
        [NewItem("mail.send", {"to": "a@example.org"}, tenant_id="acme") for _ in range(130)]
    )
    kernel.outbox.enqueue_many(
        [NewItem("report.build", {"n": i}, delay=3600 + i) for i in range(25)]
    )
    kernel.outbox.pause("report.build", "Warehouse is being moved, until 05:00. Ask Ines.")
    alive(
        "web-1:4711:a3", minutes=60, in_flight=3, kinds=["slack.post", "mail.send", "orders.total"]
    )
    alive("web-2:812:7f", in_flight=1, seen_seconds_ago=2)
    alive("batch-1:90:cc", seen_seconds_ago=900, pid=90)
    kernel.outbox.claim_batch("web-1:4711:a3", 3, kinds=["mail.send"])
    kernel.outbox.claim_batch("batch-1:90:cc", 1, kinds=["mail.send"])


PAGES = {
    "dashboard": "dashboard/",
    "outbox": "",
    "kinds": "kinds/",
    "workers": "workers/",
    "plugins": "plugins/",
}


@pytest.mark.parametrize("look", ["light", "dark", "phone"])
def test_shots(kernel, fail, alive, operator, look):
    seed(kernel, fail, alive)
    options = {"color_scheme": "dark" if look == "dark" else "light"}
    options["viewport"] = (
        {"width": 390, "height": 844} if look == "phone" else {"width": 1280, "height": 860}
    )
    one = operator(**options)
    shots = Path("/tmp/shots")
    for name, path in PAGES.items():
        page = one.open(BASE + path)
        page.wait_for_timeout(300)
        page.screenshot(path=shots / f"{name}-{look}.png", full_page=name != "outbox")
    page = one.open(BASE + "?slice=failed&kind=orders.total")
    page.click(".automate tbody th a")
    page.screenshot(path=shots / f"item-{look}.png", full_page=True)
    page = one.open(BASE + "?slice=failed&kind=slack.post&code=TIMEOUT")
    page.screenshot(path=shots / f"filtered-{look}.png")
    page.click("text=Retry all…")
    page.screenshot(path=shots / f"confirm-{look}.png", full_page=True)
    print(one.complaints)
