"""Attacks on the wall between tenants, through the real admin. Each test names what would be lost."""

from __future__ import annotations

import json
from typing import Any

import pytest
from backoffice.models import Account, Category, Contract, Project, Task, Tenant
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied

from .conftest import World, errors, form_of, page, url

EVERYTHING = ["project", "category", "label", "task", "account", "tenant"]


def names_of_others(text: str) -> list[str]:
    """Whatever of the other tenant is in *text*."""
    return [line.strip() for line in text.splitlines() if "their" in line]


def change(world: World, client: Any, data: dict[str, Any] | None = None, **more: Any) -> Any:
    """Post our project's page with *more* in it."""
    address = url("project", world.ours.project.pk, "change")
    sent = form_of(page(client.get(address))) if data is None else data
    return client.post(address, {**sent, **more})


# -- reading -------------------------------------------------------------------------------------


def test_list_shows_own_rows_only(world_anywhere: World) -> None:
    text = page(world_anywhere.staff(*EVERYTHING).get(url("project")))
    assert "our project" in text
    assert not names_of_others(text)


@pytest.mark.parametrize("view", ["change", "history", "delete"])
def test_pages_of_others_rows_are_not_there(world: World, view: str) -> None:
    client = world.staff(*EVERYTHING)
    theirs, ours = world.theirs.project, world.ours.project
    assert page(client.get(url("project", ours.pk, view)))
    response = client.get(url("project", theirs.pk, view), follow=True)
    assert "their" not in page(response)
    assert response.redirect_chain


def test_saving_or_deleting_anothers_row_does_nothing(world: World) -> None:
    client = world.staff(*EVERYTHING)
    theirs = world.theirs.project
    data = form_of(page(client.get(url("project", world.ours.project.pk, "change"))))
    client.post(url("project", theirs.pk, "change"), {**data, "name": "taken"})
    client.post(url("project", theirs.pk, "delete"), {"post": "yes"})
    assert Project.objects.get(pk=theirs.pk).name == "their project"


def test_staff_without_a_tenant_see_and_add_nothing(world: World) -> None:
    client = world.client(world.user("view_project", "add_project", "change_project"))
    text = page(client.get(url("project")))
    assert "0 projects" in text
    assert "our project" not in text and not names_of_others(text)
    assert client.get(url("project", "add")).status_code == 403
    assert client.get(url("project", world.ours.project.pk, "change")).status_code == 302


def test_superusers_see_all_tenants_in_a_column(world: World) -> None:
    text = page(world.root().get(url("project")))
    assert "our project" in text and "their project" in text
    assert "their tenant" in text and "column-tenant" in text


def test_names_of_others_are_not_in_selects_inlines_and_labels(world: World) -> None:
    world.user(tenant=world.theirs.tenant)
    User.objects.filter(employment__tenant=world.theirs.tenant).update(username="their user")
    client = world.staff(*EVERYTHING)
    for address in (url("project", "add"), url("project", world.ours.project.pk, "change")):
        text = page(client.get(address))
        assert "our category" in text and "our label" in text
        assert not names_of_others(text)


def test_names_of_others_are_not_in_the_sidebar(world: World) -> None:
    User.objects.create(username="their owner")
    Project.objects.filter(pk=world.theirs.project.pk).update(
        owner=User.objects.get(username="their owner")
    )
    text = page(world.staff(*EVERYTHING).get(url("project")))
    assert "By category" in text and "our category" in text
    assert not names_of_others(text)


def test_autocomplete_finds_own_rows_only(world: World) -> None:
    query = {"app_label": "backoffice", "model_name": "task", "field_name": "category", "term": ""}
    answer = world.staff(*EVERYTHING).get("/backoffice/autocomplete/", query)
    assert [each["text"] for each in json.loads(answer.content)["results"]] == ["our category"]


def test_raw_id_box_does_not_name_anothers_row(world: World) -> None:
    client, theirs = world.staff(*EVERYTHING), world.theirs.project
    text = page(change(world, client, parent=str(theirs.pk)))
    assert errors(text) and not names_of_others(text)
    assert "their" not in page(client.get(url("project", "add"), {"parent": theirs.pk}))


def test_delete_page_does_not_name_others_rows_nor_delete_them(world: World) -> None:
    ours, theirs = world.ours.project, world.theirs.project
    Project.objects.filter(pk=theirs.pk).update(parent=ours)
    client = world.staff(*EVERYTHING)
    text = page(client.get(url("project", ours.pk, "delete")))
    assert "Cannot delete" in text
    assert not names_of_others(text.replace("rows of other tenants", ""))
    assert client.post(url("project", ours.pk, "delete"), {"post": "yes"}).status_code == 403
    selected = {"action": "delete_selected", "_selected_action": [ours.pk], "post": "yes"}
    assert client.post(url("project"), selected).status_code == 403
    assert Project.objects.count() == 2


def test_deleting_does_not_take_others_rows_along_unseen(world: World) -> None:
    """Rows without an admin of their own count too; Django would just delete them."""
    world.theirs.project.labels.add(world.ours.label)
    client, address = world.staff(*EVERYTHING), url("label", world.ours.label.pk, "delete")
    assert "rows of other tenants" in page(client.get(address))
    assert client.post(address, {"post": "yes"}).status_code == 403
    assert world.ours.label in world.theirs.project.labels.all()


def test_deleting_own_rows_works(world: World) -> None:
    client = world.staff(*EVERYTHING)
    text = page(client.get(url("project", world.ours.project.pk, "delete")))
    assert "our task" in text
    client.post(url("project", world.ours.project.pk, "delete"), {"post": "yes"})
    assert list(Project.objects.all()) == [world.theirs.project]


def test_view_on_site_leads_to_own_rows_only(world: World) -> None:
    client = world.staff(*EVERYTHING)
    for model, side in (("project", "ours"), ("project", "theirs"), ("task", "theirs")):
        obj = getattr(getattr(world, side), model)
        kind = ContentType.objects.get_for_model(obj)
        response = client.get(f"/backoffice/r/{kind.pk}/{obj.pk}/")
        assert response.status_code == (302 if side == "ours" else 404)
    assert page(
        world.client(world.user(tenant=world.ours.tenant)).get(
            f"/backoffice/r/{ContentType.objects.get_for_model(Project).pk}/{world.ours.project.pk}/"
        ),
        404,
    )


# -- asking in the address -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        "api_key__startswith=key-of-o",  # a secret of an own row
        "margin__gt=1",  # a field that the form hides
        "tenant__name__startswith=o",
        "parent__api_key__startswith=k",
        "category__tenant__name__contains=t",
        "owner__password__startswith=p",
        "project__api_key__startswith=k",  # the reverse relation
    ],
)
def test_hidden_values_cannot_be_asked_for_letter_by_letter(world: World, query: str) -> None:
    client = world.staff(*EVERYTHING)
    assert client.get(f"{url('project')}?{query}").status_code == 400


def test_lookups_of_shown_fields_work(world: World) -> None:
    client = world.staff(*EVERYTHING)
    category = world.ours.category.pk
    for query in (
        f"category__id__exact={category}",
        "name__startswith=our",
        "is_active__exact=1",
        "created_at__gte=2020-01-01%2000:00:00Z",
        "category__name=our%20category",
    ):
        assert "our project" in page(client.get(f"{url('project')}?{query}"))
    theirs = f"category__id__exact={world.theirs.category.pk}"
    assert "0 projects" in page(client.get(f"{url('project')}?{theirs}"))


def test_rows_are_not_addressed_by_a_secret(world: World) -> None:
    client = world.staff(*EVERYTHING)
    assert client.get(f"{url('project')}?_to_field=api_key").status_code == 400
    address = url("project", "key-of-our", "change")
    assert client.get(f"{address}?_to_field=api_key").status_code == 400


def test_secret_is_not_searched_even_if_listed(world: World) -> None:
    assert "0 projects" in page(world.staff(*EVERYTHING).get(url("project"), {"q": "key-of-our"}))


# -- writing ---------------------------------------------------------------------------------------


def test_new_rows_belong_to_the_users_tenant_whatever_is_posted(world_anywhere: World) -> None:
    world = world_anywhere
    client = world.staff(*EVERYTHING)
    data = form_of(page(client.get(url("project", "add"))))
    theirs = world.theirs.tenant.pk
    response = client.post(
        url("project", "add"), {**data, "name": "new", "tenant": theirs, "tenant_id": theirs}
    )
    assert response.status_code == 302, errors(page(response))
    assert Project.objects.get(name="new").tenant == world.ours.tenant


def test_no_row_moves_to_another_tenant(world: World) -> None:
    client, theirs = world.staff(*EVERYTHING), world.theirs.tenant.pk
    assert change(world, client, tenant=theirs, tenant_id=theirs, name="x").status_code == 302
    project = Project.objects.get(pk=world.ours.project.pk)
    assert (project.name, project.tenant) == ("x", world.ours.tenant)


@pytest.mark.parametrize(
    ("name", "of"),
    [("category", "category"), ("parent", "project"), ("labels", "label"), ("owner", "user")],
)
def test_others_rows_cannot_be_chosen(world: World, name: str, of: str) -> None:
    stranger = world.user(tenant=world.theirs.tenant)
    chosen = stranger if of == "user" else getattr(world.theirs, of)
    client = world.staff(*EVERYTHING)
    text = page(change(world, client, **{name: chosen.pk}))
    assert any("valid choice" in each for each in errors(text))
    project = Project.objects.get(pk=world.ours.project.pk)
    assert project.category == world.ours.category
    assert project.parent is None and project.owner is None
    assert list(project.labels.all()) == [world.ours.label]


def test_others_rows_cannot_be_chosen_in_autocomplete_fields(world: World) -> None:
    client, task = world.staff(*EVERYTHING), world.ours.task
    sent = {"project": world.ours.project.pk, "title": "x", "category": world.theirs.category.pk}
    text = page(client.post(url("task", task.pk, "change"), sent))
    assert errors(text) and not names_of_others(text)
    sent = {"project": world.theirs.project.pk, "title": "x", "category": ""}
    assert errors(page(client.post(url("task", "add"), sent)))
    assert Task.objects.count() == 2


def test_rows_reached_by_another_row_are_scoped_too(world: World) -> None:
    client = world.staff(*EVERYTHING)
    text = page(client.get(url("task")))
    assert "our task" in text and not names_of_others(text)
    sent = {"project": world.ours.project.pk, "title": "another", "category": ""}
    assert client.post(url("task", "add"), sent).status_code == 302
    assert Task.objects.get(title="another").project == world.ours.project


def test_inline_does_not_take_ids_of_others_rows(world: World) -> None:
    client = world.staff(*EVERYTHING)
    stolen = {"task_set-0-id": world.theirs.task.pk, "task_set-0-title": "stolen"}
    response = change(world, client, **stolen)
    assert response.status_code == 200
    assert Task.objects.get(pk=world.theirs.task.pk).title == "their task"
    gone = {**stolen, "task_set-0-DELETE": "on"}
    change(world, client, **gone)
    assert Task.objects.filter(pk=world.theirs.task.pk).exists()


def test_inline_does_not_choose_others_rows(world: World) -> None:
    client = world.staff(*EVERYTHING)
    text = page(change(world, client, **{"task_set-0-category": world.theirs.category.pk}))
    assert errors(text) and not names_of_others(text)


def test_list_editable_takes_own_rows_only(world: World) -> None:
    client = world.staff(*EVERYTHING)
    data = form_of(page(client.get(url("project"))))
    theirs = {"form-0-id": world.theirs.project.pk, "form-0-status": "closed", "_save": "Save"}
    client.post(url("project"), {**data, **theirs})
    assert not Project.objects.filter(status="closed").exists()
    assert Project.objects.count() == 2
    chosen = {"form-0-category": world.theirs.category.pk, "_save": "Save"}
    text = page(client.post(url("project"), {**data, **chosen}))
    assert errors(text) and not names_of_others(text)
    own = {"form-0-status": "closed", "_save": "Save"}
    assert client.post(url("project"), {**data, **own}).status_code == 302
    assert Project.objects.get(status="closed") == world.ours.project


def test_adding_with_anothers_key_does_not_overwrite_its_row(world: World) -> None:
    Account.objects.create(code="A-1", tenant=world.theirs.tenant, title="theirs")
    client = world.staff(*EVERYTHING)
    text = page(client.post(url("account", "add"), {"code": "A-1", "title": "ours"}))
    assert errors(text)
    assert Account.objects.get(code="A-1").tenant == world.theirs.tenant


def test_unique_per_tenant_is_an_error_at_the_form(world: World) -> None:
    Project.objects.create(tenant=world.ours.tenant, name="taken")
    text = page(change(world, world.staff(*EVERYTHING), name="taken"))
    assert any("already exists" in each for each in errors(text))
    # And nobody is told what others' projects are called.
    assert change(world, world.staff(*EVERYTHING), name="their project").status_code == 302


def test_bulk_action_on_ids_of_others_does_nothing(world: World) -> None:
    client = world.staff(*EVERYTHING)
    keys = [world.ours.project.pk, world.theirs.project.pk]
    client.post(url("project"), {"action": "bulk_disable", "_selected_action": keys, "index": 0})
    assert Project.objects.get(is_active=False) == world.ours.project
    everything = {"action": "bulk_disable", "_selected_action": keys[:1], "select_across": 1}
    client.post(url("project"), {**everything, "index": 0})
    assert Project.objects.get(is_active=True) == world.theirs.project


def test_tenants_themselves_are_scoped(world: World) -> None:
    text = page(world.staff(*EVERYTHING).get(url("tenant")))
    assert "our tenant" in text and not names_of_others(text)


def test_own_form_class_is_narrowed(world: World) -> None:
    """A form that declares its fields and reads all rows doesn't open the wall again."""
    from backoffice.admin import Scoped, site
    from django import forms
    from django.test import RequestFactory

    class Form(forms.ModelForm):
        category = forms.ModelChoiceField(Category.objects.all(), required=False)

        class Meta:
            model = Task
            fields = ["title"]

    class OwnAdmin(Scoped):
        form = Form
        tenant_field = "project__tenant"

    request = RequestFactory().get("/")
    request.user = world.user("add_task", tenant=world.ours.tenant)
    form = OwnAdmin(Task, site).get_form(request)()
    assert list(form.fields["category"].queryset) == [world.ours.category]


def test_raw_ids_of_many_rows_are_the_tenants(world: World) -> None:
    from backoffice.admin import Scoped, site
    from django.test import RequestFactory

    class Raw(Scoped):
        raw_id_fields = ["labels"]
        fields = ["name", "labels"]

    request = RequestFactory().get("/")
    request.user = world.user("change_project", tenant=world.ours.tenant)
    form = Raw(Project, site).get_form(request)
    assert "their" not in form(instance=world.ours.project).as_p()
    posted = form({"name": "x", "labels": str(world.theirs.label.pk)}, instance=world.ours.project)
    assert "labels" in posted.errors and "their" not in posted.as_p()


def test_a_raw_id_box_of_the_projects_own_does_not_name_anothers_row(world: World) -> None:
    """Django wraps a widget that `raw_id_fields` doesn't name in its "add another"."""
    from backoffice.admin import Scoped, site
    from django.contrib.admin.widgets import ForeignKeyRawIdWidget
    from django.test import RequestFactory

    class Own(Scoped):
        raw_id_fields = ()
        fields = ["name", "parent"]

        def formfield_for_foreignkey(self, db_field, request, **kwargs):
            widget = ForeignKeyRawIdWidget(db_field.remote_field, site)
            return super().formfield_for_foreignkey(db_field, request, widget=widget, **kwargs)

    request = RequestFactory().get("/")
    request.user = world.user("change_project", tenant=world.ours.tenant)
    form = Own(Project, site).get_form(request)
    shown = form(initial={"parent": world.theirs.project.pk}).as_p()
    assert str(world.theirs.project.pk) in shown and not names_of_others(shown)


def test_keys_written_in_other_ways_are_the_same_tenant(world: World) -> None:
    """A UUID with or without dashes, a number as text: the list and the page agree."""
    from automate_django.admin.bases.scope import Scope

    scope = Scope(name="tenant", tenant=str(world.ours.tenant.pk))
    assert scope.owns(world.ours.project) and not scope.owns(world.theirs.project)
    assert not Scope(name="tenant", tenant="nonsense").owns(world.ours.project)


def test_saving_claims_rows_whatever_form_they_come_from(world: World) -> None:
    """A host that builds its forms itself saves for the user's tenant all the same."""
    from backoffice.admin import site
    from django.core.exceptions import PermissionDenied
    from django.test import RequestFactory

    request = RequestFactory().post("/")
    request.user = world.user("change_project", tenant=world.ours.tenant)
    made = site._registry[Project]
    with pytest.raises(PermissionDenied):
        made.save_model(request, world.theirs.project, None, change=True)
    world.ours.project.tenant = world.theirs.tenant
    made.save_model(request, world.ours.project, None, change=True)
    made.save_model(request, Project(tenant=world.theirs.tenant, name="x"), None, change=False)
    assert Project.objects.filter(tenant=world.ours.tenant).count() == 2
    task = Task(project=world.theirs.project, title="x")
    with pytest.raises(PermissionDenied):
        site._registry[Task].save_model(request, task, None, change=False)


def test_hosts_own_queryset_narrows_further(world: World) -> None:
    """The specification's override of ``get_queryset`` works on top of the tenant's rows."""
    from backoffice.admin import Scoped, site
    from django.test import RequestFactory

    class OwnAdmin(Scoped):
        def get_queryset(self, request):
            qs = super().get_queryset(request)
            if not request.user.is_superuser:
                qs = qs.filter(owner=request.user)
            return qs

    request = RequestFactory().get("/")
    request.user = world.user(tenant=world.ours.tenant)
    mine = Project.objects.create(tenant=world.ours.tenant, owner=request.user, name="mine")
    Project.objects.create(tenant=world.theirs.tenant, owner=request.user, name="foreign")
    assert list(OwnAdmin(Project, site).get_queryset(request)) == [mine]


def test_tenant_field_that_is_not_there_is_told(world: World) -> None:
    from backoffice.admin import Scoped, site

    class Wrong(Scoped):
        tenant_field = "organisation_id"

    assert [each.id for each in Wrong(Project, site).check()] == ["automate.E101"]


# -- whose request ---------------------------------------------------------------------------------


class Holder:
    """Something with attributes."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)


@pytest.mark.parametrize(
    ("user", "request_", "found"),
    [
        ({"tenant_id": 1}, {}, 1),
        ({}, {"tenant_id": 2}, 2),
        ({"tenant": 3}, {}, 3),
        ({"tenant_id": 1}, {"tenant_id": "1"}, 1),
        ({"tenant_id": 1}, {"tenant_id": 2}, None),
        ({"tenant_id": None}, {"tenant_id": ""}, None),
        ({"tenant_id": 0}, {}, 0),
    ],
)
def test_whose_request_it_is(user: Any, request_: Any, found: Any, sqlite: str) -> None:
    """A header that says another tenant than the user's makes it nobody's request."""
    from automate_django.tenants import tenant_for_request

    assert tenant_for_request(Holder(user=Holder(**user), **request_)) == found


def test_one_function_may_say_whose_request_it_is(sqlite: str) -> None:
    from automate_django.tenants import tenant_for_request
    from django.test import override_settings

    with override_settings(AUTOMATE_ADMIN={"TENANT": lambda request: request.path}):
        assert tenant_for_request(Holder(user=Holder(tenant_id=1), path="/x")) == "/x"


# -- what a project has not said -------------------------------------------------------------------


def request_of(user: Any) -> Any:
    from django.test import RequestFactory

    request = RequestFactory().get("/")
    request.user = user
    return request


def test_without_tenant_paths_a_user_sees_no_other_users(world: World) -> None:
    """Who works for whom is unknown then: the own name alone is offered, everywhere."""
    from backoffice.admin import Scoped, site

    class Silent(Scoped):
        tenant_paths = {}

    colleague, me = (world.user("change_project", tenant=world.ours.tenant) for _ in range(2))
    stranger = world.user(tenant=world.theirs.tenant)
    made, request = Silent(Project, site), request_of(me)
    form = made.get_form(request)
    assert list(form.base_fields["owner"].queryset) == [me]
    assert list(form(instance=world.ours.project).fields["owner"].queryset) == [me]
    field = Project._meta.get_field("owner")
    assert list(made.get_field_queryset(None, field, request)) == [me]
    assert list(made.own_rows(request, User.objects.all())) == [me]
    for other in (colleague, stranger):
        posted = {"name": "x", "status": "open", "owner": other.pk, "config": "{}"}
        assert "owner" in form(posted, instance=world.ours.project).errors
    # One who may see everything sees everybody.
    root = world.user(is_superuser=True)
    assert (
        stranger in Silent(Project, site).get_form(request_of(root)).base_fields["owner"].queryset
    )


def test_a_protecting_row_of_others_is_not_named(world: World) -> None:
    """Django's page of a deletion lists what stands against it, by name."""
    ours = Contract.objects.create(
        tenant=world.ours.tenant, project=world.ours.project, name="our contract"
    )
    client, address = world.staff(*EVERYTHING), url("project", world.ours.project.pk, "delete")
    assert "our contract" in page(client.get(address))
    ours.delete()
    Contract.objects.create(
        tenant=world.theirs.tenant, project=world.ours.project, name="their contract"
    )
    text = page(client.get(address))
    assert "rows of other tenants" in text
    assert "their contract" not in text
    assert client.post(address, {"post": "yes"}).status_code == 403
    assert Project.objects.filter(pk=world.ours.project.pk).exists()


def test_a_new_row_below_others_rows_is_refused(world: World) -> None:
    """What no form made, such as a row of a file: whose it would be decides."""
    from backoffice.admin import site
    from django.core.exceptions import ValidationError

    made = site._registry[Task]
    request = request_of(world.user("add_task", tenant=world.ours.tenant))
    made.prepare_new(request, Task(project=world.ours.project, title="x"))
    for task in (Task(project=world.theirs.project, title="x"), Task(title="x")):
        with pytest.raises(ValidationError) as refused:
            made.prepare_new(request, task)
        assert list(refused.value.message_dict) == ["project"]
    # For one who sees all tenants each row is fine, and for one of none no row is.
    root = request_of(world.user(is_superuser=True))
    made.prepare_new(root, Task(project=world.theirs.project, title="x"))
    nobody = request_of(world.user("add_task"))
    with pytest.raises(ValidationError):
        made.prepare_new(nobody, Task(project=world.ours.project, title="x"))


def test_a_row_behind_a_missing_one_is_nobodys(world: World) -> None:
    """Whose it is can't be told, so it is not ours: in memory and in the database alike."""
    from automate_django.admin.bases.scope import Scope

    scope = Scope(name="tenant", tenant=world.ours.tenant.pk, tenant_model=Tenant)
    orphan = Project.objects.create(tenant=world.ours.tenant, name="orphan")
    child = Project.objects.create(
        tenant=world.ours.tenant, name="child", parent=world.ours.project
    )
    stray = Project.objects.create(
        tenant=world.ours.tenant, name="stray", parent=world.theirs.project
    )
    for path, ours in (("parent__tenant", {"child"}), ("parent__category__tenant", {"child"})):
        loaded = Project.objects.select_related(path.rpartition("__")[0])
        for rows in (loaded, Project.objects.all()):
            picked = rows.filter(pk__in=[orphan.pk, child.pk, stray.pk])
            assert {row.name for row in picked if scope.owns(row, path)} == ours
        assert {row.name for row in scope.filter(Project.objects.all(), path)} == ours
    Project.objects.filter(pk=world.ours.project.pk).update(category=None)
    loaded = Project.objects.select_related("parent__category").get(pk=child.pk)
    assert not scope.owns(loaded, "parent__category__tenant")


def test_what_a_scope_covers(world: World) -> None:
    """Everything, one tenant's rows, or nothing: a row and a queryset are asked alike."""
    from automate_django.admin.bases.scope import Scope
    from django.contrib.auth.models import Group

    group = Group.objects.create(name=f"g{world.ours.tenant.pk}")
    everything, nothing = Scope(name="tenant", everything=True), Scope(name="tenant")
    assert everything.owns(world.theirs.project) and not everything.nothing
    assert everything.filter(Project.objects.all()).count() == 2
    assert nothing.nothing and not nothing.owns(world.ours.project)
    assert not nothing.filter(Project.objects.all()).exists()
    for scope in (everything, nothing, Scope(name="tenant", tenant=world.ours.tenant)):
        # Rows that are nobody's are everybody's: groups, content types.
        assert scope.owns(group) and group in scope.filter(Group.objects.all())
    ours = Scope(name="tenant", tenant=world.ours.tenant, tenant_model=Tenant)
    assert ours.owns(world.ours.project) and not ours.owns(world.theirs.project)
    assert not ours.owns(Project(name="of nobody"))
    assert ours.owns(world.ours.tenant) and not ours.owns(world.theirs.tenant)
    assert ours.owns(world.ours.task) and not ours.owns(world.theirs.task)
    # A path that a project names goes before the field that is found.
    named = Scope(
        name="tenant", tenant=world.ours.tenant, paths={"backoffice.task": "category__tenant"}
    )
    Task.objects.filter(pk=world.ours.task.pk).update(category=world.theirs.category)
    world.ours.task.refresh_from_db()
    assert not named.owns(world.ours.task) and ours.owns(world.ours.task)
    # A row that is not saved yet is asked as it is in memory.
    assert ours.owns(Task(project=world.ours.project))
    assert not ours.owns(Task(project=world.theirs.project))


def test_the_way_to_the_tenant(world: World) -> None:
    """A field of that name, one to the tenants' model, or a required one to a row that has it."""
    from automate_django.admin.bases.scope import field_named, path_to_tenant
    from django.contrib.auth.models import Group

    find = path_to_tenant.__wrapped__
    assert find(Tenant, "tenant", Tenant) == "pk"
    assert find(Project, "tenant", None) == find(Project, "company", Tenant) == "tenant"
    assert find(Task, "tenant", None) == find(Task, "company", Tenant) == "project__tenant"
    assert find(Project, "company", None) is None
    assert find(Group, "tenant", Tenant) is None
    assert find(User, "tenant", Tenant) is None
    assert field_named(Project, "tenant_id").name == "tenant"
    # Neither several rows nor those that point here say whose a row is.
    assert field_named(Project, "labels") is None
    assert field_named(Project, "task") is None


def test_whose_a_new_row_becomes(world: World) -> None:
    """The tenant's, where a field says so; not by way of another row, nor by its own key."""
    from automate_django.admin.bases.scope import Scope
    from django.contrib.auth.models import Group

    ours, theirs = world.ours.tenant, world.theirs.tenant
    scope = Scope(name="tenant", tenant=ours, tenant_model=Tenant)
    project = Project(tenant=theirs)
    for other in (Scope(name="tenant", everything=True), Scope(name="tenant")):
        other.assign(project)
        assert project.tenant_id == theirs.pk
    scope.assign(project)
    assert project.tenant_id == ours.pk
    task = Task(project=world.theirs.project)
    scope.assign(task)
    assert task.project == world.theirs.project
    new = Tenant(name="new")
    for path in (None, "pk", "id"):
        scope.assign(new, path)
        assert new.pk is None
    scope.assign(Group(name="of nobody"))
    project = Project(tenant=theirs)
    scope.assign(project, "parent__tenant")
    assert project.tenant_id == theirs.pk


@pytest.mark.parametrize("field", ["pk", "id"])
def test_the_tenants_own_admin(world: World, field: str) -> None:
    """``tenant_field = "pk"``: the own tenant is seen and changed, no other, and none is added."""
    from backoffice.admin import Scoped, site

    class Own(Scoped):
        tenant_field = field

    me = world.user("view_tenant", "change_tenant", "delete_tenant", tenant=world.ours.tenant)
    made, request = Own(Tenant, site), request_of(me)
    assert list(made.get_queryset(request)) == [world.ours.tenant]
    assert made.has_change_permission(request, world.ours.tenant)
    assert not made.has_change_permission(request, world.theirs.tenant)
    assert not made.has_delete_permission(request, world.theirs.tenant)
    assert made.get_audit_tenant(request, world.theirs.tenant) == world.theirs.tenant.pk
    assert made.get_audit_tenant(request) == world.ours.tenant.pk
    form = made.get_form(request, world.ours.tenant, change=True)
    changed = form({"name": "renamed"}, instance=world.ours.tenant)
    assert changed.is_valid(), changed.errors
    made.save_model(request, changed.instance, changed, change=True)
    assert {each.name for each in Tenant.objects.all()} == {"renamed", "their tenant"}
    with pytest.raises(PermissionDenied):
        made.save_model(request, world.theirs.tenant, None, change=True)
    assert made.check() == []


def test_whose_entries_the_trail_has(world: World) -> None:
    """The row's tenant if it says so; by way of another row, that of the request."""
    from backoffice.admin import site

    root = request_of(world.user(is_superuser=True))
    me = request_of(world.user(tenant=world.ours.tenant))
    projects, tasks = site._registry[Project], site._registry[Task]
    assert projects.get_audit_tenant(root, world.theirs.project) == world.theirs.tenant.pk
    assert projects.get_audit_tenant(me, world.ours.project) == world.ours.tenant.pk
    assert tasks.get_audit_tenant(me, world.ours.task) == world.ours.tenant.pk
    assert tasks.get_audit_tenant(root, world.theirs.task) is None


def test_the_tenants_column(world: World) -> None:
    """For those who see several tenants, unless it is switched off, and once."""
    from backoffice.admin import Scoped, site

    root, me = world.user(is_superuser=True), world.user(tenant=world.ours.tenant)

    class Column(Scoped):
        list_display = ["name", "tenant"]

    class Hidden(Scoped):
        show_tenant_column = False

    class Nobody(Scoped):
        superusers_see_all = False

    tasks = site._registry[Task]
    assert Column(Project, site).get_list_display(request_of(root)).count("tenant") == 1
    assert "tenant" in Scoped(Project, site).get_list_display(request_of(root))
    assert "tenant" not in Scoped(Project, site).get_list_display(request_of(me))
    assert "tenant" not in Hidden(Project, site).get_list_display(request_of(root))
    assert "tenant_of_row" in tasks.get_list_display(request_of(root))
    assert tasks.tenant_of_row(world.theirs.task) == world.theirs.tenant
    orphan = Task(title="x")
    assert tasks.tenant_of_row(orphan) is None
    # A superuser who is treated as everybody has no tenant, and sees nothing.
    assert not Nobody(Project, site).get_queryset(request_of(root)).exists()
    root.is_active = False
    assert not Scoped(Project, site).get_queryset(request_of(root)).exists()


def test_many_rows_that_go_along_are_all_asked(world: World) -> None:
    """More than fit into one query; the foreign one may be the last."""
    from backoffice.admin import site

    ours = world.ours.project
    Task.objects.bulk_create(Task(project=ours, title="t") for _ in range(600))
    made = site._registry[Project]
    request = request_of(world.user(tenant=world.ours.tenant))
    assert made.deletion_refusals(request, [ours]) == set()
    child = Project.objects.create(tenant=world.theirs.tenant, name="last", parent=ours)
    assert made.deletion_refusals(request, [ours]) == {"rows of other tenants"}
    child.delete()
    last = Project.objects.bulk_create(
        Project(tenant=world.ours.tenant, name=f"p{n}", parent=ours) for n in range(600)
    )[-1]
    assert made.deletion_refusals(request, [ours]) == set()
    Project.objects.filter(pk=last.pk).update(tenant=world.theirs.tenant)
    assert made.deletion_refusals(request, [ours]) == {"rows of other tenants"}
    root = request_of(world.user(is_superuser=True))
    assert made.deletion_refusals(root, [world.theirs.project]) == set()


# -- checks ----------------------------------------------------------------------------------------


def test_an_autocomplete_to_a_plain_admin_is_told(world: World) -> None:
    """Django's autocomplete shows what the *other* admin shows: all tenants' names."""
    from backoffice.admin import Scoped, TaskInline
    from django.contrib import admin
    from django.contrib.auth.admin import UserAdmin

    site = admin.AdminSite(name="other")

    class Plain(admin.ModelAdmin):
        search_fields = ["name"]

    class Inline(TaskInline):
        autocomplete_fields = ["category"]

    class Owned(Scoped):
        autocomplete_fields = ["category", "owner"]
        inlines = [Inline]

    site.register(User, UserAdmin)
    site.register(Category, Plain)
    found = [each for each in Owned(Project, site).check() if each.id == "automate.W103"]
    assert sorted(each.msg.split()[1] for each in found) == ["'category'", "'category'", "'owner'"]
    assert all("TenantScopedAdmin" in each.hint for each in found)
    site.unregister(Category)
    site.register(Category, type("Kept", (Scoped,), {"search_fields": ["name"]}))
    found = [each for each in Owned(Project, site).check() if each.id == "automate.W103"]
    assert [each.msg.split()[1] for each in found] == ["'owner'"]


def test_an_autocomplete_is_warned_of_where_only_a_path_leads_to_the_tenant(world: World) -> None:
    """A model counts as the tenant's if ``tenant_paths`` or the setting names its way there."""
    from backoffice.admin import Scoped
    from django.contrib import admin
    from django.test import override_settings

    site = admin.AdminSite(name="other")
    site.register(Category, type("Plain", (admin.ModelAdmin,), {"search_fields": ["name"]}))
    paths = {"backoffice.Category": "tenant__employment__user"}

    class OfOwner(Scoped):
        tenant_field = "owner"
        tenant_paths = {}
        autocomplete_fields = ["category"]

    class WithPath(OfOwner):
        tenant_paths = paths

    assert OfOwner(Project, site).check() == []
    assert [each.id for each in WithPath(Project, site).check()] == ["automate.W103"]
    with override_settings(AUTOMATE_ADMIN={"TENANT_PATHS": paths}):
        assert [each.id for each in OfOwner(Project, site).check()] == ["automate.W103"]


def test_what_else_is_checked(world: World) -> None:
    """Django's own checks stay, and a way that ends too early is told as one that is wrong."""
    from backoffice.admin import Scoped, site

    class Wrong(Scoped):
        list_display = ["nothing"]

    class Further(Scoped):
        tenant_field = "name__tenant"

    assert [each.id for each in Wrong(Project, site).check()] == ["admin.E108"]
    assert [each.id for each in Further(Project, site).check()] == ["automate.E101"]
    tasks = site._registry[Task]
    assert tasks.check() == []
    for way in ("project__tenant", "project__tenant__pk", "project__tenant_id"):
        made = type("Way", (Scoped,), {"tenant_field": way})(Task, site)
        assert (made.check(), made._tenant_model()) == ([], Tenant), way
    assert Further(Project, site)._tenant_model() is None
    made = type("Deep", (Scoped,), {"tenant_field": "parent__config__tenant"})(Project, site)
    assert made.check() == []
    assert type("Json", (Scoped,), {"tenant_field": "config__tenant"})(Project, site).check() == []


def test_colleagues_are_offered_where_a_project_says_who_they_are(world: World) -> None:
    """``tenant_paths`` names a model as Django does, ``auth.User``."""
    from backoffice.admin import site

    me, colleague = (world.user("change_project", tenant=world.ours.tenant) for _ in range(2))
    world.user(tenant=world.theirs.tenant)
    form = site._registry[Project].get_form(request_of(me))
    assert set(form.base_fields["owner"].queryset) == {me, colleague}


def test_a_hosts_own_refusal_is_kept(world: World) -> None:
    """What else stands against a deletion is told beside others' rows."""
    from automate_django.admin.bases.base import AdminRoot
    from backoffice.admin import Scoped, site

    class Archive(AdminRoot):
        def deletion_refusals(self, request: Any, objs: Any) -> set[str]:
            return {"it is archived"}

    made = type("Archived", (Scoped, Archive), {})(Project, site)
    request = request_of(world.user(tenant=world.ours.tenant))
    assert made.deletion_refusals(request, [world.ours.project]) == {"it is archived"}
    Project.objects.filter(pk=world.theirs.project.pk).update(parent=world.ours.project)
    both = {"it is archived", "rows of other tenants"}
    assert made.deletion_refusals(request, [world.ours.project]) == both


def test_one_who_sees_everything_saves_what_a_list_hides(world: World) -> None:
    """The check of whose a row is, is for the others."""
    from backoffice.admin import Scoped, site

    class Hiding(Scoped):
        def get_queryset(self, request: Any) -> Any:
            return super().get_queryset(request).none()

    made = Hiding(Project, site)
    world.theirs.project.name = "renamed"
    made.save_model(request_of(world.user(is_superuser=True)), world.theirs.project, None, True)
    assert Project.objects.filter(name="renamed").exists()
    with pytest.raises(PermissionDenied):
        me = request_of(world.user(tenant=world.ours.tenant))
        made.save_model(me, world.ours.project, None, True)


def test_a_long_way_with_nothing_at_its_begin(world: World) -> None:
    """A new row without the row by way of which it would be somebody's: refused, no crash."""
    from backoffice.admin import Scoped, site

    made = type("Long", (Scoped,), {"tenant_field": "project__category__tenant"})(Task, site)
    request = request_of(world.user("add_task", tenant=world.ours.tenant))
    with pytest.raises(PermissionDenied):
        made.save_model(request, Task(title="x"), None, False)
    made.save_model(request, Task(title="x", project=world.ours.project), None, False)


def test_rows_of_a_file_are_asked_whose_they_are_in_one_query(world: World) -> None:
    """The way to the tenant is read along with them, not row by row."""
    from backoffice.admin import site
    from django.db import connections
    from django.test.utils import CaptureQueriesContext
    from shopsite.routing import TestedDatabase

    Task.objects.bulk_create(Task(project=world.ours.project, title="t") for _ in range(5))
    request = request_of(world.user("change_task", tenant=world.ours.tenant))
    made = site._registry[Task]
    with CaptureQueriesContext(connections[TestedDatabase.alias]) as queries:
        found = [
            made.scope(request).owns(row, "project__tenant")
            for row in made.get_import_queryset(request)
        ]
    assert found == [True] * 6
    assert len([each for each in queries if "backoffice_task" in each["sql"]]) == 1
