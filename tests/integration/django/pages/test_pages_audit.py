"""The audit trail's page: it opens at once however long the trail is, and says where it ends."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import django
import pytest
from automate_django.admin.pages import audit
from automate_django.models import AuditEntry
from django.db import connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

BASE = "/admin/automate_django/auditentry/"


@pytest.fixture
def trail(database: str) -> list[AuditEntry]:
    """Five entries, the oldest first."""
    now = timezone.now()
    return [
        AuditEntry.objects.create(
            created_at=now - timedelta(minutes=10 - n),
            actor=("mia", "ines")[n % 2],
            action=("update", "export")[n % 2],
            model="shop.order",
            object_repr=f"order {n}.",
        )
        for n in range(5)
    ]


def listed(client: Any, query: str = "") -> list[int]:
    """The numbers of the orders that are listed, as they stand there."""
    html = client.get(BASE + query).content.decode()
    found = [(html.find(f"order {n}."), n) for n in range(5)]
    return [n for place, n in sorted(found) if place >= 0]


def test_filters_offer_what_the_latest_entries_have(alias: str, root: Any, trail: Any) -> None:
    html = root.get(BASE).content.decode()
    assert "?action=export" in html
    assert "?model=shop.order" in html
    assert listed(root) == [4, 3, 2, 1, 0]
    assert listed(root, "?action=export") == [3, 1]
    assert listed(root, "?action=update&q=mia") == [4, 2, 0]
    assert listed(root, "?action=gone") == []
    assert listed(root, "?action=exp%00ort") == [3, 1]


def test_nothing_counts_or_sorts_the_whole_trail(
    alias: str, root: Any, trail: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit.AuditEntryAdmin, "list_per_page", 1)
    # Django 4.2 has no facets, and takes their name for a filter that there is not.
    facets = ["?_facets=True"] if django.VERSION >= (5, 0) else []
    for query in ("", "?action=export", "?q=mia", *facets, "?model=shop.order&p=1"):
        with CaptureQueriesContext(connections[alias]) as captured:
            assert root.get(BASE + query).status_code == 200
        for one in captured:
            if '"automate_audit"' in one["sql"]:
                assert "LIMIT" in one["sql"]
                assert "DISTINCT" not in one["sql"]


def test_pages_end_and_say_so(root: Any, trail: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "There are more" not in root.get(BASE).content.decode()
    monkeypatch.setattr(audit, "_COUNTED", 3)
    monkeypatch.setattr(audit.AuditEntryAdmin, "list_per_page", 2)
    assert "There are more. The pages end with these 3" in root.get(BASE).content.decode()
    assert listed(root) == [4, 3]
    assert listed(root, "?p=2") == [2]
    assert "There are more" not in root.get(f"{BASE}?action=export").content.decode()


def test_a_search_looks_through_the_latest(
    alias: str, root: Any, trail: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert listed(root, "?q=mia") == [4, 2, 0]
    monkeypatch.setattr(audit, "_SEARCHED", 2)
    assert listed(root, "?q=mia") == [4, 2]
    assert listed(root, "?q=mia&action=update") == [4, 2, 0]


@pytest.mark.parametrize("query", ["changes__icontains=x", "details__icontains=x", "actor_id=1"])
def test_what_is_not_shown_is_not_asked_for(root: Any, trail: Any, query: str) -> None:
    assert root.get(f"{BASE}?{query}").status_code == 400


def test_an_operator_without_a_tenant_sees_what_it_did(staff: Any, fail: Any, kernel: Any) -> None:
    """And what others did with the automation; not what was done with the project's own rows."""
    AuditEntry.objects.create(
        actor="ines", action="update", model="shop.order", object_repr="row-9"
    )
    operator = staff("operate_outbox", "view_outboxitem", "change_outboxitem", "view_auditentry")
    (item_id,) = fail(tenant_id="acme")
    order = {"order": "retry", "id": [item_id], "sure": "yes"}
    operator.post("/admin/automate_django/outboxitem/order/", order)
    (entry,) = AuditEntry.objects.filter(object_id=item_id)
    html = operator.get(BASE).content.decode()
    assert item_id in html
    assert "row-9" not in html
    assert operator.get(f"{BASE}{entry.pk}/change/").status_code == 200
    foreign = AuditEntry.objects.get(object_repr="row-9")
    assert operator.get(f"{BASE}{foreign.pk}/change/").status_code == 302
    # Who steers nothing sees what it did itself for no tenant, and no more.
    clerk = staff("view_auditentry")
    own = AuditEntry.objects.create(
        actor_id=str(clerk.user.pk), action="update", model="shop.order", object_repr="row-10"
    )
    html = clerk.get(BASE).content.decode()
    assert "row-10" in html
    assert item_id not in html
    assert clerk.get(f"{BASE}{own.pk}/change/").status_code == 200
    assert clerk.get(f"{BASE}{entry.pk}/change/").status_code == 302
    assert staff().get(BASE).status_code == 403


def test_the_search_box_has_a_label(root: Any, trail: Any) -> None:
    """In words: an icon alone is nothing to who can't see it."""
    assert '<label for="searchbar">Search</label>' in root.get(BASE).content.decode()
