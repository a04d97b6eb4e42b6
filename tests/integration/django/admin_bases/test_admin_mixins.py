"""Bulk actions, permissions per object, search and filters."""

from __future__ import annotations

from typing import Any

import pytest
from automate_django import admin as ours
from automate_django.models import AuditEntry
from backoffice.models import Category, Project
from django.contrib import admin
from django.contrib.auth.backends import BaseBackend
from django.test import RequestFactory, override_settings

from .conftest import World, page, url

SITE = admin.AdminSite(name="mixins")


def request_of(user: Any, **query: str) -> Any:
    request = RequestFactory().get("/", query)
    request.user = user
    return request


def act(client: Any, action: str, *keys: Any, **more: Any) -> Any:
    data = {"action": action, "_selected_action": [*keys], "index": 0, **more}
    return client.post(url("project"), data, follow=True)


# -- bulk ------------------------------------------------------------------------------------------


def test_bulk_actions_change_rows_and_are_remembered(world: World) -> None:
    client, project = world.staff("project"), world.ours.project
    before = project.updated_at
    assert "1 row changed" in page(act(client, "bulk_disable", project.pk))
    project.refresh_from_db()
    assert not project.is_active and project.updated_at > before
    assert "0 rows changed" in page(act(client, "bulk_disable", project.pk))
    act(client, "bulk_enable", project.pk)
    found = [(e.action, e.changes) for e in AuditEntry.objects.order_by("id")]
    assert found == [
        ("bulk_update", {"is_active": [True, False]}),
        ("bulk_update", {"is_active": [False, True]}),
    ]


def test_bulk_status_is_asked_for_and_checked(world: World) -> None:
    client, project = world.staff("project"), world.ours.project
    text = page(act(client, "bulk_update_status", project.pk))
    assert "1 row is selected" in text and f'value="{project.pk}"' in text
    wrong = act(client, "bulk_update_status", project.pk, bulk_update="1", **{"bulk-status": "x"})
    assert "valid choice" in page(wrong)
    empty = act(client, "bulk_update_status", project.pk, bulk_update="1", **{"bulk-status": ""})
    assert "Choose a new value" in page(empty)
    assert Project.objects.get(pk=project.pk).status == "open"
    act(client, "bulk_update_status", project.pk, bulk_update="1", **{"bulk-status": "closed"})
    assert Project.objects.get(status="closed") == project


def test_viewers_have_no_bulk_actions(world: World) -> None:
    client = world.client(world.user("view_project", tenant=world.ours.tenant))
    assert "bulk_disable" not in page(client.get(url("project")))
    for name in ("bulk_disable", "bulk_enable"):
        act(client, name, world.ours.project.pk)
    chosen = {"bulk_update": "1", "bulk-status": "closed"}
    act(client, "bulk_update_status", world.ours.project.pk, **chosen)
    project = Project.objects.get(pk=world.ours.project.pk)
    assert (project.is_active, project.status) == (True, "open")


def test_bulk_actions_respect_read_only_rows(world: World) -> None:
    """As in the specification's sample: what is locked is not changed by ticking a box either."""
    locked = Project.objects.create(tenant=world.ours.tenant, name="locked", is_locked=True)
    client = world.staff("project")
    text = page(act(client, "bulk_disable", world.ours.project.pk, locked.pk))
    assert "1 row changed" in text and "1 row was left as it is" in text
    locked.refresh_from_db()
    assert locked.is_active


def test_list_editable_respects_read_only_rows(world: World) -> None:
    from .conftest import form_of

    Project.objects.filter(pk=world.ours.project.pk).update(is_locked=True)
    client = world.staff("project", "category")
    data = form_of(page(client.get(url("project"))))
    assert "form-0-status" not in data and "form-0-category" in data
    client.post(url("project"), {**data, "form-0-status": "closed", "_save": "Save"})
    assert not Project.objects.filter(status="closed").exists()


def test_bulk_choices_are_the_tenants(world: World) -> None:
    from backoffice.admin import ProjectAdmin, site

    class Own(ProjectAdmin):
        bulk_update_fields = ["category", "tenant", "margin", "created_at", "nothing"]

    made = Own(Project, site)
    request = request_of(world.user("change_project", tenant=world.ours.tenant))
    form = made._bulk_form(request)
    assert list(form.fields) == ["category"]
    assert list(form.fields["category"].queryset) == [world.ours.category]


# -- permissions per object ------------------------------------------------------------------------


class OwnerBackend(BaseBackend):
    """Whoever owns a project may see and change it; without an object it says "perhaps"."""

    def has_perm(self, user: Any, perm: str, obj: Any = None) -> bool:
        name = perm.rpartition(".")[2]
        if name not in ("view_project", "change_project"):
            return False
        return obj is None or obj.owner_id == user.pk


BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    f"{OwnerBackend.__module__}.OwnerBackend",
]


@pytest.fixture
def per_object(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A backend for objects, as guardian and rules have."""
    from django.contrib import auth

    backends = [(auth.backends.ModelBackend(), BACKENDS[0]), (OwnerBackend(), BACKENDS[1])]
    monkeypatch.setattr(
        auth, "_get_backends", lambda return_tuples=False: (
            backends if return_tuples else [each for each, _path in backends]
        )
    )  # fmt: skip
    return None


class Permitted(ours.PermissionMixin, ours.BulkActionsMixin, ours.BaseModelAdmin):
    list_editable = ["status"]
    list_display = ["name", "status"]


def test_list_has_what_may_be_seen_and_does_not_refuse(world: World, per_object: Any) -> None:
    user = world.user()
    Project.objects.filter(pk=world.ours.project.pk).update(owner=user)
    made = Permitted(Project, SITE)
    request = request_of(user)
    assert made.has_view_permission(request) and made.has_change_permission(request)
    assert list(made.get_queryset(request)) == [world.ours.project]
    ours_, theirs = Project.objects.order_by("pk")
    assert made.has_change_permission(request, ours_)
    assert not made.has_view_permission(request, theirs)
    assert not made.has_delete_permission(request, ours_)
    assert not made.has_add_permission(request)


def test_permission_for_the_model_is_enough_unless_one_per_object_is_required(
    world: World, per_object: Any
) -> None:
    user = world.user("view_project", "change_project")
    Project.objects.filter(pk=world.ours.project.pk).update(owner=user)
    made, request = Permitted(Project, SITE), request_of(user)
    assert made.get_queryset(request).count() == 2
    assert made.has_change_permission(request, world.theirs.project)
    made.object_permission_required = True
    request = request_of(user)
    assert list(made.get_queryset(request)) == [world.ours.project]
    assert not made.has_change_permission(request, world.theirs.project)


def test_bulk_action_asks_for_each_row(world: World, per_object: Any) -> None:
    user = world.user("view_project")
    Project.objects.filter(pk=world.ours.project.pk).update(owner=user)
    made, request = Permitted(Project, SITE), request_of(user)
    made.message_user = lambda *arguments: None  # type: ignore[method-assign]
    assert made.bulk_update(request, Project.objects.all(), {"status": "closed"}) == (1, 1)
    assert Project.objects.get(status="closed") == world.ours.project


def test_list_editable_asks_for_each_row(world: World, per_object: Any) -> None:
    user = world.user("view_project")
    Project.objects.filter(pk=world.ours.project.pk).update(owner=user)
    made, request = Permitted(Project, SITE), request_of(user)
    formset = made.get_changelist_formset(request)(queryset=Project.objects.order_by("pk"))
    assert ["status" in form.fields for form in formset.forms] == [True, False]


def test_tenants_count_beside_permissions_per_object(world: World, per_object: Any) -> None:
    """A permission for another tenant's object doesn't open the wall, in either order."""
    from backoffice.admin import Scoped, site

    user = world.user(tenant=world.ours.tenant)
    Project.objects.update(owner=user)
    mine = Project.objects.get(pk=world.ours.project.pk)
    foreign = Project.objects.get(pk=world.theirs.project.pk)
    for bases in ((ours.PermissionMixin, Scoped), (Scoped, ours.PermissionMixin)):
        made, request = type("Both", bases, {})(Project, site), request_of(user)
        assert list(made.get_queryset(request)) == [mine]
        assert made.has_change_permission(request, mine)
        assert not made.has_change_permission(request, foreign)
        assert not made.has_view_permission(request, foreign)


# -- search and filters ----------------------------------------------------------------------------


def test_a_row_that_is_found_twice_is_listed_once(world: World) -> None:
    """A search over what a row has several of, by words and in the field alone."""
    from backoffice.admin import Scoped, site
    from automate_django.admin import SearchMixin
    from backoffice.models import Label
    from django.contrib.admin.views.main import ChangeList
    from django.test import RequestFactory

    class Searched(SearchMixin, Scoped):
        advanced_search_fields = {"labels__name": "icontains"}

    world.ours.project.labels.add(Label.objects.create(tenant=world.ours.tenant, name="our other"))
    for term in ("labels__name:our", "our", "labels__name:our other", "labels__name:our our"):
        request = RequestFactory().get("/", {"q": term})
        request.user = world.user("view_project", tenant=world.ours.tenant)
        found = Searched(Project, site).get_changelist_instance(request)
        assert list(found.queryset) == [world.ours.project], term
        assert isinstance(found, ChangeList)


def test_search_by_lookup_and_in_one_field(world: World) -> None:
    Project.objects.create(tenant=world.ours.tenant, name="closed plan", margin=3)
    Project.objects.create(tenant=world.ours.tenant, name="other", status="closed")
    client = world.staff("project")

    def found(term: str) -> list[str]:
        text = page(client.get(url("project"), {"q": term}))
        return [name for name in ("our project", "closed plan", "other") if f">{name}<" in text]

    assert found("closed") == ["closed plan", "other"]
    assert found("status:closed") == ["other"]
    assert found("status:CLOSED oth") == ["other"]
    assert found("margin:3") == ["closed plan"]
    assert found("margin:many") == []
    assert found("status:closed plan") == []


def test_filters_follow_from_the_fields(world: World) -> None:
    class Filtered(ours.FilterMixin, ours.BaseModelAdmin):
        list_filter = ["name"]
        raw_id_fields = ["parent"]
        exclude = ["is_locked"]

    made, request = Filtered(Project, SITE), request_of(world.user(is_superuser=True))
    names = [f if isinstance(f, str) else f[0] for f in made.get_list_filter(request)]
    assert names == [
        "name", "tenant", "status", "category", "owner", "is_active", "created_at", "updated_at",
    ]  # fmt: skip
    made.auto_filters, made.date_filters = ["parent"], False
    names = [f if isinstance(f, str) else f[0] for f in made.get_list_filter(request)]
    assert names == ["name", "parent"]


def test_automatic_filters_offer_only_what_rows_point_to(world: World) -> None:
    Category.objects.create(tenant=world.ours.tenant, name="unused category")

    class Filtered(ours.FilterMixin, ours.BaseModelAdmin):
        pass

    made, request = Filtered(Project, SITE), request_of(world.user(is_superuser=True))
    chosen = dict(f for f in made.get_list_filter(request) if isinstance(f, tuple))
    field = Project._meta.get_field("category")
    offered = chosen["category"](field, request, {}, Project, made, "category").lookup_choices
    assert sorted(str(name) for _pk, name in offered) == ["our category", "their category"]


# -- what counts as a secret -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("password", True), ("api_key", True), ("apiKey", True), ("access_token", True),
        ("stripe_secret", True), ("private_key", True), ("pin", True), ("session_key", True),
        ("key", False), ("idempotency_key", False), ("keyboard", False), ("pinned", False),
        ("content_hash", False), ("tokenizer", False), ("passenger", False), ("name", False),
    ],
)  # fmt: skip
def test_names_of_secrets(name: str, secret: bool) -> None:
    from automate_kernel.secrets.masking import is_secret_name

    assert is_secret_name(name) is secret


def test_classes_of_secrets_and_what_only_looks_like_one() -> None:
    from automate_django.secrecy import is_secret
    from django.db import models

    class EncryptedTextField(models.TextField):
        pass

    def named(field: Any, name: str) -> Any:
        field.name = name
        return field

    assert is_secret(named(EncryptedTextField(), "notes"))
    assert not is_secret(named(models.IntegerField(), "tokens_used"))
    assert not is_secret(named(models.DateTimeField(), "password_changed_at"))
    assert not is_secret(named(models.BooleanField(), "has_password"))
    assert not is_secret(named(models.CharField(), "token"), allowed=["token"])


# -- the operator's pages --------------------------------------------------------------------------


def test_pages_can_be_turned_off_and_put_on_another_site(world: World) -> None:
    from automate_django import admin as package
    from automate_django.models import AuditEntry as Entry

    site = admin.AdminSite(name="operators")
    with override_settings(AUTOMATE_ADMIN={"PAGES": False, "SITE": site}):
        package._register_pages()
        assert not site.is_registered(Entry)
    with override_settings(AUTOMATE_ADMIN={"SITE": site}):
        package._register_pages()
        assert site.is_registered(Entry)
