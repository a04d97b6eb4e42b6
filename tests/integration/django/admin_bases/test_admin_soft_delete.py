"""Rows that are marked as deleted: hidden, kept, restored, and gone only by permission."""

from __future__ import annotations

from typing import Any

import pytest
from automate_django.models import AuditEntry
from backoffice.models import Document, Page, Project
from django.contrib import admin

from .conftest import World, form_of, page, url


@pytest.fixture
def document(world: World) -> Document:
    found = Document.objects.create(tenant=world.ours.tenant, title="our document")
    Page.objects.create(document=found, text="our page")
    return found


def act(client: Any, action: str, *keys: Any, shown: str = "all", **more: Any) -> Any:
    data = {"action": action, "_selected_action": [*keys], "index": 0, **more}
    return client.post(f"{url('document')}?deleted={shown}", data, follow=True)


@pytest.mark.parametrize("how", ["page", "action"])
def test_deleting_keeps_the_row_and_hides_it(world: World, document: Document, how: str) -> None:
    client = world.staff("document", "page")
    if how == "page":
        text = page(client.get(url("document", document.pk, "delete")))
        assert "our document" in text and "our page" in text
        client.post(url("document", document.pk, "delete"), {"post": "yes"})
    else:
        act(client, "delete_selected", document.pk, shown="no", post="yes")
    document.refresh_from_db()
    assert document.is_deleted and document.deleted_at
    assert Page.objects.get().deleted_at == document.deleted_at
    page(client.get(url("document")))  # takes the message of the deletion away
    assert "our document" not in page(client.get(url("document")))
    assert "our document" in page(client.get(f"{url('document')}?deleted=all"))
    assert "our document" in page(client.get(f"{url('document')}?deleted=only"))


def test_toggle_does_not_show_others_rows(world: World, document: Document) -> None:
    Document.objects.create(tenant=world.theirs.tenant, title="their document", is_deleted=True)
    Document.objects.create(tenant=world.ours.tenant, title="our other", is_deleted=True)
    client = world.staff("document")
    for shown, ours in (("only", {"our other"}), ("all", {"our other", "our document"})):
        text = page(client.get(f"{url('document')}?deleted={shown}"))
        assert {each for each in ("our other", "our document") if each in text} == ours
        assert "their" not in text


def test_deleted_row_is_looked_at_and_not_changed(world: World, document: Document) -> None:
    client = world.staff("document", "page")
    address = url("document", document.pk, "change")
    data = form_of(page(client.get(address)))
    Document.objects.update(is_deleted=True)
    assert "our document" in page(client.get(address))
    assert client.post(address, {**data, "title": "x"}).status_code == 403
    assert client.post(url("document", document.pk, "delete"), {"post": "yes"}).status_code == 403


def test_mark_is_not_set_by_a_form(world: World, document: Document) -> None:
    client = world.staff("document", "page")
    address = url("document", document.pk, "change")
    data = form_of(page(client.get(address)))
    client.post(address, {**data, "is_deleted": "on", "title": "x"})
    document.refresh_from_db()
    assert (document.title, document.is_deleted) == ("x", False)


def test_restoring_brings_back_what_went_along(world: World, document: Document) -> None:
    client = world.staff("document", "page")
    act(client, "delete_selected", document.pk, shown="no", post="yes")
    Page.objects.create(document=document, text="before", deleted_at="2020-01-01T00:00Z")
    text = page(act(client, "restore_selected", document.pk))
    assert "1 row restored" in text
    document.refresh_from_db()
    assert not document.is_deleted and document.deleted_at is None
    assert {p.text: p.deleted_at is None for p in Page.objects.all()} == {
        "our page": True,
        "before": False,
    }
    assert [e.action for e in AuditEntry.objects.order_by("id")] == [
        "soft_delete", "soft_delete", "restore", "restore",
    ]  # fmt: skip


def test_restoring_a_taken_name_is_told(world: World, document: Document) -> None:
    Document.objects.update(is_deleted=True)
    Document.objects.create(tenant=world.ours.tenant, title="our document")
    text = page(act(world.staff("document"), "restore_selected", document.pk))
    assert "another row has the same unique value: our document" in text
    assert Document.objects.filter(is_deleted=False).count() == 1


def test_restoring_needs_the_permission(world: World, document: Document) -> None:
    Document.objects.update(is_deleted=True)
    names = ["view_document", "change_document"]
    client = world.client(world.user(*names, tenant=world.ours.tenant))
    act(client, "restore_selected", document.pk)
    assert Document.objects.get().is_deleted


def test_others_rows_are_not_restored(world: World) -> None:
    theirs = Document.objects.create(tenant=world.theirs.tenant, title="x", is_deleted=True)
    act(world.staff("document"), "restore_selected", theirs.pk)
    assert Document.objects.get().is_deleted


def test_deleting_for_good_needs_its_own_permission(world: World, document: Document) -> None:
    alive = Document.objects.create(tenant=world.ours.tenant, title="alive")
    Document.objects.filter(pk=document.pk).update(is_deleted=True)
    client = world.staff("document", "page")
    act(client, "hard_delete_selected", document.pk, alive.pk)
    assert Document.objects.count() == 2
    assert "hard_delete_selected" not in page(client.get(f"{url('document')}?deleted=all"))
    text = page(act(world.root(), "hard_delete_selected", document.pk, alive.pk))
    assert "1 row deleted" in text
    assert list(Document.objects.all()) == [alive]


def test_traps_are_told(world: World) -> None:
    """A model without a mark, and one whose deleted rows keep their unique values."""
    from automate_django.admin import SoftDeleteAdmin

    site = admin.AdminSite()
    assert [e.id for e in SoftDeleteAdmin(Project, site).check()] == ["automate.E102"]

    class Unmarked(SoftDeleteAdmin):
        soft_delete_fields = ["is_active"]

    (told,) = Unmarked(Project, site).check()
    assert told.id == "automate.I102" and "tenant, name" in told.msg
    assert not SoftDeleteAdmin(Document, site).check()

    class Cascading(SoftDeleteAdmin):
        soft_delete_cascade = ["pages", "chapters"]

    (told,) = Cascading(Document, site).check()
    assert told.id == "automate.E103" and "pages" in told.hint
