import pytest
from pathlib import Path
from automate_kernel.outbox import NewItem
from automate_django import definitions
from automate_kernel.errors import AutomateError, ErrorCodes

BASE = "/admin/automate_django/outboxitem/"
OUT = Path("/tmp/k/admin/shots")
SHIP = """\
name: order-ship
title: Ship what is paid
trigger: {type: event, event: order.paid, if: "{{ event.payload.total > 0 }}"}
steps:
  - {id: load, action: orders.load}
  - {id: charge, action: cards.charge, needs: [load], retry: {attempts: 5}}
  - {id: pack, action: orders.load, needs: [load]}
  - {id: labels, action: orders.load, for_each: "{{ [1, 2, 3] }}", needs: [pack]}
  - {id: notify, action: slack.say, needs: [charge, labels]}
"""

def seed(kernel, fail, alive, many):
    fail("orders.total", 12, code="INVALID_ARGUMENT", error="lines.0.price: Input should be a valid number\n  Traceback (most recent call last):\n    File \"orders.py\", line 12, in total\n      return sum(line['price'] for line in lines)\nTypeError: unsupported operand",
        payload={"lines": [{"price": "x", "quantity": 3}], "api_key": "sk-live-1", "note": "<script>alert(1)</script>"}, tenant_id="globex")
    fail("mail.send", 431 if many else 57, code="UNAVAILABLE", error="SMTP 421: try again later", tenant_id="acme")
    fail("slack.post", 39_800 if many else 398, error="POST https://slack.com/api/chat.postMessage: no answer within 30 s")
    kernel.outbox.enqueue_many([NewItem("mail.send", {"to": "a@example.org"}, tenant_id="acme") for _ in range(130)])
    kernel.outbox.enqueue_many([NewItem("report.build", {"n": i}, delay=3600 + i) for i in range(25)])
    kernel.outbox.pause("report.build", "Warehouse is being moved, until 05:00. Ask Ines.")
    kernel.outbox.limit("slack.post", concurrency=4, rate=50)
    alive("web-1:4711:a3", minutes=60, in_flight=3, kinds=["slack.post", "mail.send", "orders.total"])
    alive("web-2:812:7f", in_flight=1, seen_seconds_ago=2)
    alive("batch-1:90:cc", seen_seconds_ago=900, pid=90)
    kernel.outbox.claim_batch("web-1:4711:a3", 3, kinds=["mail.send"])
    kernel.outbox.claim_batch("batch-1:90:cc", 1, kinds=["mail.send"])

def flows(kernel):
    import time
    @kernel.action("orders.load")
    def load() -> dict:
        time.sleep(0.12)
        return {"order": {"id": 7, "total": 129.5, "api_key": "x"}}
    @kernel.action("cards.charge")
    def charge() -> dict:
        time.sleep(0.3)
        return {"ok": True}
    @kernel.action("slack.say")
    def say() -> dict:
        raise AutomateError(ErrorCodes.INVALID_ARGUMENT, "channel #orders is archived")
    doc = definitions.create(SHIP, author="ines", comment="Ship what is paid")
    x = [kernel.start("order-ship", {"n": i, "total": 3}) for i in range(3)][-1]
    kernel.run_until_idle()
    definitions.save(doc, SHIP.replace("attempts: 5", "attempts: 8"), author="ines", comment="The bank is slow")
    return doc, x

@pytest.mark.parametrize("look", ["light", "dark", "phone", "phonedark"])
def test_shots(kernel, fail, alive, operator, look):
    doc, x = flows(kernel)
    seed(kernel, fail, alive, False)
    options = {"color_scheme": "dark" if "dark" in look else "light"}
    options["viewport"] = {"width": 390, "height": 844} if "phone" in look else {"width": 1280, "height": 860}
    one = operator(**options)
    A = "/admin/automate_django/"
    for name, path in {
        "dashboard": BASE + "dashboard/", "outbox": BASE, "kinds": BASE + "kinds/", "workers": BASE + "workers/", "plugins": BASE + "plugins/",
        "executions": A + "workflowexecution/", "execution": A + f"workflowexecution/{x}/change/", "step": A + f"workflowexecution/{x}/steps/notify/",
        "workflows": A + "workflowdocument/", "workflow": A + f"workflowdocument/{doc.pk}/", "version": A + f"workflowdocument/{doc.pk}/versions/2/", "edit": A + f"workflowdocument/{doc.pk}/change/",
        "audit": A + "auditentry/", "tokens": A + "apitoken/", "token-add": A + "apitoken/add/", "empty": BASE + "?slice=done&kind=nothing", "index": "/admin/", "dash24": BASE + "dashboard/?span=24h",
    }.items():
        page = one.open(path)
        page.wait_for_timeout(250)
        page.screenshot(path=OUT / f"{name}-{look}.png", full_page=name not in ("outbox",))
    page = one.open(BASE + "?slice=failed&kind=orders.total")
    page.click(".automate tbody th a")
    page.screenshot(path=OUT / f"item-{look}.png", full_page=True)
    page = one.open(BASE + "?slice=failed&kind=slack.post&code=TIMEOUT")
    page.click("text=Retry all…")
    page.screenshot(path=OUT / f"confirm-{look}.png", full_page=True)
    page = one.open(BASE)
    for _ in range(22 if "phone" in look else 30): page.keyboard.press("Tab")
    page.screenshot(path=OUT / f"focus-{look}.png")
    print(one.complaints)

def test_docs(kernel, fail, alive, operator):
    doc, x = flows(kernel)
    seed(kernel, fail, alive, True)
    one = operator(viewport={"width": 1120, "height": 900})
    one.context.add_init_script("localStorage.setItem('django.admin.navSidebarIsOpen', 'false')")
    A = "/admin/automate_django/"
    for name, path in {"outbox": BASE, "dashboard": BASE + "dashboard/", "execution": A + f"workflowexecution/{x}/change/", "workflow": A + f"workflowdocument/{doc.pk}/"}.items():
        page = one.open(path); page.wait_for_timeout(200)
        page.screenshot(path=OUT / f"docs-{name}.png")
