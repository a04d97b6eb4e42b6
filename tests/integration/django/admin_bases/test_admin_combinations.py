"""Every base and mixin with every other, in any order."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from automate_django import admin as ours
from backoffice.models import Document
from django.contrib import admin
from django.test import RequestFactory

from .conftest import World, page

INLINES = {"InlineBaseAdmin", "StackedInlineBaseAdmin"}
NAMES = [name for name in ours.__all__ if name not in INLINES]
CLASSES = [getattr(ours, name) for name in NAMES]


def combined(*classes: type) -> type:
    return type("Combined", classes, {"tenant_field": "tenant"})


@pytest.mark.parametrize("count", [1, 2, 3])
def test_all_combinations_in_any_order_can_be_made(count: int) -> None:
    """No "Cannot create a consistent method resolution order", whatever a project combines."""
    for classes in itertools.permutations(CLASSES, count):
        made = combined(*classes)
        assert issubclass(made, admin.ModelAdmin)
        # Nothing of ours may stand behind Django's own class, where it would do nothing.
        order = made.__mro__
        last = max(i for i, c in enumerate(order) if c.__module__.startswith("automate_django"))
        assert last < order.index(admin.ModelAdmin)


def test_mixins_work_before_a_foreign_base() -> None:
    """A theme's `ModelAdmin`, say, and to its left what we have."""

    class Theme(admin.ModelAdmin):
        list_per_page = 77

        def get_list_display(self, request: Any) -> Any:
            return ("themed", *super().get_list_display(request))

    for classes in itertools.permutations(CLASSES, 2):
        made = combined(*classes, Theme)
        assert Theme in made.__mro__


@pytest.mark.parametrize("order", [1, -1])
def test_everything_together_works_in_both_orders(world: World, order: int) -> None:
    """One class with all of them: list, form, export, import page, delete."""
    classes = CLASSES[::order]
    site = admin.AdminSite(name="together")
    cls = type(
        "Together",
        tuple(classes),
        {
            "tenant_field": "tenant",
            "get_tenant_for_request": lambda self, request: request.user.employment.tenant_id,
        },
    )
    made = cls(Document, site)
    assert not [each for each in made.check() if each.is_serious()]
    mine = Document.objects.create(tenant=world.ours.tenant, title="mine")
    Document.objects.create(tenant=world.ours.tenant, title="gone", is_deleted=True)
    Document.objects.create(tenant=world.theirs.tenant, title="theirs")
    request = RequestFactory().get("/")
    request.user = world.user(
        "view_document", "add_document", "change_document", "delete_document",
        tenant=world.ours.tenant,
    )  # fmt: skip
    assert list(made.get_queryset(request)) == [mine]
    assert {"export_as_csv", "export_as_json"} <= set(made.get_actions(request))
    assert "deleted_at" in made.get_exclude(request)
    assert page(made.export(request, made.get_queryset(request), "csv")).count("\n") == 2
    made.delete_model(request, mine)
    mine.refresh_from_db()
    assert mine.is_deleted
    from automate_django.models import AuditEntry

    assert [e.action for e in AuditEntry.objects.order_by("id")] == ["export", "soft_delete"]


@pytest.mark.parametrize("name", NAMES)
def test_lists_are_lists_in_every_class(world: World, name: str) -> None:
    """``super().get_list_display(request) + […]`` works whichever base it is."""
    made = combined(getattr(ours, name))(Document, admin.AdminSite())
    request = RequestFactory().get("/")
    request.user = world.user(is_superuser=True)
    assert isinstance(made.get_list_display(request), list)
    assert isinstance(made.get_readonly_fields(request), list)
    assert isinstance(made.get_list_filter(request), list)
    assert isinstance(made.get_search_fields(request), list)


def test_lists_are_not_the_classes_own(world: World) -> None:
    """Appending to what came back doesn't change the class for the next request."""

    class Mine(ours.BaseModelAdmin):
        list_display = ["title"]

    made = Mine(Document, admin.AdminSite())
    request = RequestFactory().get("/")
    made.get_list_display(request).append("more")
    assert made.get_list_display(request) == ["title"]


def test_defaults_of_the_bases() -> None:
    """What users of the specification count on."""
    base = ours.BaseModelAdmin
    assert (base.list_per_page, base.save_on_top) == (25, True)
    assert (base.show_timestamps, base.timestamp_readonly) == (True, True)
    assert ours.TenantScopedAdmin.tenant_field == "tenant_id"
    assert list(ours.ImportExportBaseAdmin.import_formats) == ["csv"]
    assert list(ours.ImportExportBaseAdmin.export_formats) == ["csv", "json"]
    for inline in (ours.InlineBaseAdmin, ours.StackedInlineBaseAdmin):
        assert (inline.extra, inline.max_num, inline.show_change_link) == (0, 10, True)
    assert issubclass(ours.InlineBaseAdmin, admin.TabularInline)
    assert issubclass(ours.StackedInlineBaseAdmin, admin.StackedInline)


def test_columns(world: World) -> None:
    """Links, colours and cut texts are safe HTML."""
    from backoffice.admin import ProjectAdmin, site
    from backoffice.models import Project

    made = ProjectAdmin(Project, site)
    project = world.ours.project
    project.name = "<b>"
    link = made.link_to_object(project)
    assert link == f'<a href="/backoffice/backoffice/project/{project.pk}/change/">&lt;b&gt;</a>'
    assert made.link_to_object(None) == "-"
    assert 'fill="green"' in made.colored_status("open", {"open": "green"})
    assert "<svg" not in made.colored_status("open", {"open": '"/><script>'})
    assert made.colored_status("<i>") == "&lt;i&gt;"
    cut = made.truncated_field("<" * 30, max_length=10)
    assert "&lt;" * 30 in cut and "…" in cut
    assert made.truncated_field("short") == "short"


def test_timestamps_are_shown_and_read_only(world: World) -> None:
    from backoffice.models import Project

    class Mine(ours.BaseModelAdmin):
        list_display = ["name"]

    made = Mine(Project, admin.AdminSite())
    request = RequestFactory().get("/")
    assert made.get_list_display(request) == ["name", "created_at", "updated_at"]
    assert made.get_readonly_fields(request) == ["created_at", "updated_at"]
    made.show_timestamps = False
    assert made.get_list_display(request) == ["name"]
    assert made.get_readonly_fields(request) == []


def test_no_two_classes_use_the_same_private_name() -> None:
    """Combined in one class they would call each other's."""
    behaviours = {c for made in CLASSES for c in made.__mro__ if "bases" in c.__module__}
    owners: dict[str, list[str]] = {}
    for each in sorted(behaviours, key=lambda c: c.__name__):
        for name in vars(each):
            if name.startswith("_") and not name.startswith("__"):
                owners.setdefault(name, []).append(each.__name__)
    assert {name: found for name, found in owners.items() if len(found) > 1} == {}
    django = {name for cls in admin.ModelAdmin.__mro__ for name in vars(cls)}
    assert not {name for name in owners if name in django} - {"_abc_impl"}
