"""Who sees what, and who may do what: whatever a browser is made to send."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import pytest
from automate_kernel.outbox import NewItem
from django.test import override_settings
from django.urls import reverse

BASE = "/admin/automate_django/outboxitem/"
OPERATOR_PAGES = (
    "dashboard/",
    "dashboard/figures/",
    "kinds/",
    "workers/",
    "workers/list/",
    "plugins/",
)
POSTS = ("order/", "orders/", "kinds/steer/", "plugins/load/")


def tenant_by_name(request: Any) -> str | None:
    """A project's own answer: the part of a user's name before the hyphen."""
    name = request.user.get_username()
    return name.partition("-")[0] if name.startswith(("acme-", "globex-")) else None


@pytest.fixture(autouse=True)
def tenants():
    with override_settings(AUTOMATE_ADMIN={"TENANT": tenant_by_name}):
        yield


def statuses(kernel: Any, ids: list[str]) -> list[str]:
    return [str(kernel.outbox.get(item_id).status) for item_id in ids]


def order(client: Any, name: str, ids: list[str], **data: Any) -> Any:
    return client.post(f"{BASE}order/", {"order": name, "id": ids, "sure": "yes", **data})


@pytest.mark.parametrize("path", ["", "figures/", *OPERATOR_PAGES])
def test_nobody_reads_a_page_without_signing_in(kernel, path):
    from django.test import Client

    answer = Client().get(BASE + path)

    assert answer.status_code == 302
    assert answer.url.startswith(reverse("admin:login"))


@pytest.mark.parametrize("path", POSTS)
def test_nobody_posts_without_signing_in_or_without_a_token(kernel, staff, path):
    from django.test import Client

    assert Client().post(BASE + path).status_code == 302
    checked = staff(superuser=True, enforce_csrf_checks=True)
    assert checked.post(BASE + path, {"order": "retry"}).status_code == 403


@pytest.mark.parametrize("path", POSTS)
def test_what_changes_something_is_never_a_get(root, path):
    assert root.get(BASE + path).status_code == 405


def test_staff_without_permissions_see_nothing(staff, fail):
    (item_id,) = fail()
    nobody = staff()

    for path in ("", "figures/", f"{item_id}/change/", *OPERATOR_PAGES):
        assert nobody.get(BASE + path).status_code == 403, path


def test_a_viewer_sees_no_buttons_and_what_is_forged_is_refused(staff, fail, kernel):
    (item_id,) = fail(tenant_id="acme")
    viewer = staff("view_outboxitem", "operate_outbox")

    for path in ("", f"{item_id}/change/", "workers/"):
        html = viewer.get(BASE + path).content.decode()
        assert 'name="order"' not in html
    for name in ("retry", "discard", "cancel", "reschedule"):
        assert order(viewer, name, [item_id]).status_code == 403
        assert order(viewer, name, [], scope="all", slice="failed").status_code == 403
    assert statuses(kernel, [item_id]) == ["FAILED"]


def test_discarding_needs_the_permission_to_delete(staff, fail, kernel):
    (item_id,) = fail()
    helper = staff("view_outboxitem", "change_outboxitem", "operate_outbox")
    page = helper.get(BASE).content.decode()

    assert 'value="retry"' in page
    assert 'value="discard"' not in page
    assert order(helper, "discard", [item_id]).status_code == 403
    assert kernel.outbox.get(item_id) is not None
    assert order(helper, "retry", [item_id]).status_code == 302
    assert statuses(kernel, [item_id]) == ["PENDING"]


def test_djangos_own_forms_change_nothing(root, fail, kernel):
    (item_id,) = fail()

    assert root.post(f"{BASE}{item_id}/change/", {"status": "COMPLETED"}).status_code == 403
    assert root.post(f"{BASE}{item_id}/delete/", {"post": "yes"}).status_code == 403
    assert root.post(f"{BASE}add/", {"kind": "x"}).status_code == 403
    assert root.post(
        BASE, {"action": "delete_selected", "_selected_action": item_id}
    ).status_code in {
        200,
        405,
    }
    assert statuses(kernel, [item_id]) == ["FAILED"]


# -- tenants ---------------------------------------------------------------------------------------


@pytest.fixture
def acme(staff):
    return staff("view_outboxitem", "change_outboxitem", "delete_outboxitem", name="acme-ines")


def test_a_tenant_sees_and_counts_its_own_items_alone(acme, fail):
    mine, theirs = fail(tenant_id="acme", code="MINE"), fail("secret.kind", 3, tenant_id="globex")
    fail("house.kind", 2)

    for query in ("", "?slice=all", "?slice=failed&tenant=globex", "?kind=secret.kind"):
        html = acme.get(BASE + query).content.decode()
        assert theirs[0] not in html
        assert "house.kind" not in html
        assert "globex" not in html
    figures = acme.get(f"{BASE}figures/").content.decode()
    assert "<strong>1</strong>" in figures
    assert "secret.kind" not in figures
    assert acme.get(f"{BASE}{mine[0]}/change/").status_code == 200
    assert mine[0] in acme.get(BASE).content.decode()


def test_a_tenants_items_are_looked_for_among_everybodys(alias, acme, fail, kernel, monkeypatch):
    """No index leads to them: a page looks through so many, and never shows the others."""
    from automate_django.admin.pages import outbox

    monkeypatch.setattr(outbox, "LOOK_FOR_TENANT", 5)
    monkeypatch.setattr(outbox, "PATIENCE", 0.0)
    (mine,) = fail(tenant_id="acme")
    fail("secret.kind", 12, tenant_id="globex")
    query, pages = "", 0
    while True:
        html = acme.get(BASE + query).content.decode()
        assert "secret.kind" not in html
        assert "globex" not in html
        if mine in html:
            break
        assert "None among these 5." in html
        query, pages = unescape(re.search(r'href="([?][^"]+)" rel="next"', html)[1]), pages + 1
    assert pages == 2


def test_a_tenants_due_items_are_listed_at_once(alias, acme, kernel, monkeypatch):
    from automate_django.admin.pages import outbox

    monkeypatch.setattr(outbox, "LOOK_FOR_TENANT", 2)
    mine = kernel.outbox.enqueue("slack.post", tenant_id="acme")
    for tenant_id in (None, "globex"):
        kernel.outbox.enqueue_many([NewItem("a.kind", tenant_id=tenant_id) for _ in range(6)])
    html = acme.get(f"{BASE}?slice=due").content.decode()
    assert str(mine) in html
    assert "a.kind" not in html


def test_a_tenant_cannot_open_the_item_of_another(acme, fail):
    (theirs,) = fail(tenant_id="globex")
    (nobodys,) = fail()

    for item_id in (theirs, nobodys):
        assert acme.get(f"{BASE}{item_id}/change/").status_code == 404
        history = acme.get(f"{BASE}{item_id}/history/")
        assert history.status_code == 302  # to the index: "it doesn't exist"


def test_a_forged_order_of_a_tenant_reaches_its_own_items_alone(acme, fail, kernel):
    mine, theirs = fail(tenant_id="acme", n=2), fail(tenant_id="globex", n=2)

    order(acme, "retry", [*theirs, mine[0]])
    assert statuses(kernel, [*mine, *theirs]) == ["PENDING", "FAILED", "FAILED", "FAILED"]
    order(acme, "discard", theirs)
    order(acme, "retry", [], scope="all", slice="failed", tenant="globex")
    assert statuses(kernel, [*mine, *theirs]) == ["PENDING", "PENDING", "FAILED", "FAILED"]


def test_a_tenant_gets_no_page_that_tells_of_all(acme, kernel):
    html = acme.get(BASE).content.decode()

    for path in OPERATOR_PAGES:
        assert acme.get(BASE + path).status_code == 403, path
        assert f'href="{BASE}{path}"' not in html
    assert acme.post(f"{BASE}kinds/steer/", {"what": "pause", "kind": "k"}).status_code == 403
    assert acme.post(f"{BASE}plugins/load/").status_code == 403
    assert kernel.outbox.stats().paused == ()


def test_staff_without_a_tenant_see_nothing_unless_they_operate(staff, fail, kernel):
    (item_id,) = fail(tenant_id="acme")
    lost = staff("view_outboxitem", "change_outboxitem")

    html = lost.get(BASE).content.decode()
    assert item_id not in html
    assert "you belong to no tenant" in html
    assert lost.get(f"{BASE}{item_id}/change/").status_code == 404
    order(lost, "retry", [item_id])
    assert statuses(kernel, [item_id]) == ["FAILED"]
    operator = staff("view_outboxitem", "operate_outbox")
    assert item_id in operator.get(BASE).content.decode()


def test_an_order_is_carried_on_by_nobody_else(staff, root, fail, kernel, monkeypatch):
    from automate_kernel.workflows.steer import bulk_runner
    from automate_kernel.outbox import operator_commands

    monkeypatch.setattr(bulk_runner, "SECONDS", 0.0)
    monkeypatch.setattr(operator_commands, "BATCH", 1)
    ids = fail(n=3)
    page = root.post(
        f"{BASE}order/", {"order": "retry", "scope": "all", "slice": "failed", "sure": "yes"}
    )
    progress = re.search(r'name="progress" value="([^"]+)"', page.content.decode())[1]

    other = staff(superuser=True)
    assert other.post(f"{BASE}orders/", {"progress": progress}).status_code == 400
    assert root.post(f"{BASE}orders/", {"progress": progress + "x"}).status_code == 400
    assert statuses(kernel, ids) == ["PENDING", "FAILED", "FAILED"]
    root.user.is_superuser = False
    root.user.save()
    assert root.post(f"{BASE}orders/", {"progress": progress}).status_code == 403
    assert statuses(kernel, ids) == ["PENDING", "FAILED", "FAILED"]
