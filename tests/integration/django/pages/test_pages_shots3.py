from pathlib import Path
from automate_kernel.outbox import NewItem

BASE = "/admin/automate_django/outboxitem/"


def test_shots3(kernel, fail, alive, operator):
    fail(
        "orders.total",
        12,
        code="INVALID_ARGUMENT",
        error="lines.0.price: Input should be a valid number",
        tenant_id="globex",
    )
    fail("mail.send", 431, code="UNAVAILABLE", error="SMTP 421: try again later", tenant_id="acme")
    fail(
        "slack.post",
        39_800,
        error="POST https://slack.com/api/chat.postMessage: no answer within 30 s",
    )
    kernel.outbox.enqueue_many(
        [NewItem("mail.send", {"to": "a@example.org"}, tenant_id="acme") for _ in range(130)]
    )
    alive("web-1:4711:a3", minutes=60, in_flight=3)
    alive("web-2:812:7f", in_flight=1, seen_seconds_ago=2)
    kernel.outbox.claim_batch("web-1:4711:a3", 3, kinds=["mail.send"])
    one = operator(viewport={"width": 1120, "height": 900})
    one.context.add_init_script("localStorage.setItem('django.admin.navSidebarIsOpen', 'false')")
    page = one.open(BASE)
    page.screenshot(path="/work/main/docs/images/django-outbox.png")
    page = one.open(BASE + "dashboard/")
    page.screenshot(path="/work/main/docs/images/django-dashboard.png")
