"""Orders for very many items, which a worker carries out whatever becomes of the browser."""

from __future__ import annotations

from typing import Any

import pytest

BASE = "/admin/automate_django/outboxitem/"


@pytest.fixture(autouse=True)
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten items a step."""
    from automate_kernel.workflows.steer import bulk_runner
    from automate_kernel.outbox import operator_commands

    monkeypatch.setattr(bulk_runner, "SECONDS", 0.0)
    monkeypatch.setattr(operator_commands, "BATCH", 10)


@pytest.fixture
def order(alive: Any) -> Any:
    """Gives an order for all failed items while a worker lives; the page that follows it."""
    alive(kinds=["automate.order"])

    def order(client: Any, name: str = "retry", **data: Any) -> str:
        answer = client.post(
            f"{BASE}order/",
            {"order": name, "scope": "all", "slice": "failed", "sure": "yes", **data},
        )
        assert answer.status_code == 302
        return str(answer.url)

    return order


def work(kernel: Any) -> None:
    kernel.run_until_idle()


def statuses(kernel: Any, ids: list[str]) -> set[str]:
    return {str(kernel.outbox.get(item_id).status) for item_id in ids}


def test_a_worker_carries_an_order_out(alias, kernel, root, fail, order):
    """The browser's part ends with the first step; the page tells how far it is, and when it ended."""
    from automate_django.models import AuditEntry

    ids = fail(n=35)
    page = order(root)
    html = root.get(page).content.decode()
    assert "<strong>10</strong> of <strong>35</strong>" in html
    assert "It waits for a worker" in html
    # Nobody looks on, and the worker does the rest.
    work(kernel)
    assert statuses(kernel, ids) == {"PENDING"}
    html = root.get(page).content.decode()
    assert "<strong>35</strong> of <strong>35</strong>" in html
    assert "It is done" in html
    answer = root.get(f"{page}now/")
    assert answer["X-Automate-Fragment"] == "stop"
    ended = AuditEntry.objects.order_by("id").last()
    assert ended.object_repr.startswith("ended: 35 of 35 failed items")
    assert ended.actor == root.user.username


def test_an_order_ends_where_finished_items_are_deleted_at_once(kernel, root, fail, order):
    """Its page still tells that it has ended."""
    ids = fail(n=25)
    page = order(root)
    kernel.outbox.retention_seconds = 0
    work(kernel)
    assert statuses(kernel, ids) == {"PENDING"}
    assert "It is done" in root.get(page).content.decode()


def test_an_order_is_followed_where_pages_read_from_a_replica(replica, kernel, root, fail, order):
    """Which hears of it later: the page would say that there is no such order."""
    fail(n=25)
    page = order(root)
    assert "<strong>10</strong> of <strong>25</strong>" in root.get(page).content.decode()
    kernel.outbox.retention_seconds = 0
    work(kernel)
    assert "It is done" in root.get(page).content.decode()


def test_a_worker_that_dies_leaves_the_order_to_the_next(kernel, root, fail, order):
    """What was claimed and not finished is done by another, from where it stood."""
    ids = fail(n=25)
    order(root)
    (item,) = kernel.outbox.claim_batch("dead", 1, kinds=["automate.order"])
    kernel.outbox.release([item.id], "dead")
    work(kernel)
    assert statuses(kernel, ids) == {"PENDING"}


def test_an_order_is_stopped(alias, kernel, root, fail, order):
    """What is done stays done, and nothing more is."""
    ids = fail(n=25)
    page = order(root)
    assert root.post(f"{page}stop/").status_code == 302
    work(kernel)
    assert [str(kernel.outbox.get(item_id).status) for item_id in ids].count("FAILED") == 15
    assert "It was stopped" in root.get(page).content.decode()
    assert "It was over" in root.get(root.post(f"{page}stop/").url).content.decode()


def test_who_lost_the_permission_has_no_order_carried_on(kernel, root, fail, order):
    """The worker asks again, since it does it in their name."""
    ids = fail(n=25)
    page = order(root)
    root.user.is_superuser = False
    root.user.save()
    work(kernel)
    assert [str(kernel.outbox.get(item_id).status) for item_id in ids].count("FAILED") == 15
    assert root.get(page).status_code in (403, 404)


def test_a_tenants_order_reaches_its_own_items_alone(kernel, staff, fail, order):
    """A worker sees everything, and does what the one who ordered may do."""
    from django.test import override_settings

    acme, globex = fail(n=15, tenant_id="acme"), fail(n=15, tenant_id="globex")
    with override_settings(AUTOMATE_ADMIN={"TENANT": lambda request: "acme"}):
        from automate_django import get_kernel

        client = staff("view_outboxitem", "change_outboxitem")
        page = order(client)
        work(get_kernel())
        assert "It is done" in client.get(page).content.decode()
        other = staff("view_outboxitem", "change_outboxitem")
        assert other.get(page).status_code == 404
        assert other.post(f"{page}stop/").status_code == 404
        assert statuses(get_kernel(), acme) == {"PENDING"}
        assert statuses(get_kernel(), globex) == {"FAILED"}


def test_what_is_no_order_is_not_there(root, kernel):
    """An id that nobody was given."""
    unknown = "01890000-0000-7000-8000-000000000000"
    assert root.get(f"{BASE}orders/{unknown}/").status_code == 404
