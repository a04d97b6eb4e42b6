"""Tenants are never crossed: every way that was found to cross them, one test each."""

from __future__ import annotations

from typing import Any

import pytest
from rest_framework.test import APIClient
from service.models import Country, Note, Organization, Project, Tag, Task

PROJECTS = "/service/projects/"


def names(response: Any) -> list[str]:
    """The names in a page of results."""
    return sorted(row["name"] for row in response.json()["results"])


# -- reading -----------------------------------------------------------------------------------


def test_a_list_has_the_tenants_rows_alone(world: Any) -> None:
    """Each user sees what belongs to the own organization."""
    assert names(world.client().get(PROJECTS)) == ["ours"]
    assert names(world.client(world.roman).get(PROJECTS)) == ["theirs-9a3f"]


@pytest.mark.parametrize("method", ["get", "put", "patch", "delete"])
def test_another_tenants_row_is_not_there(world: Any, method: str) -> None:
    """404, as for a row that never was: not 403, which would say that it exists."""
    path = f"{PROJECTS}{world.theirs.pk}/"
    response = getattr(world.client(), method)(path, {"name": "mine"}, format="json")
    assert response.status_code == 404
    missing = getattr(world.client(), method)(f"{PROJECTS}0/", {"name": "mine"}, format="json")
    assert missing.json() == response.json()
    assert Project.objects.get(pk=world.theirs.pk).name == "theirs-9a3f"


@pytest.mark.parametrize("method", ["get", "post"])
def test_a_user_without_a_tenant_gets_403(world: Any, method: str) -> None:
    """Never everything, and not an empty list that hides what is wrong."""
    response = getattr(world.client(world.nobody), method)(PROJECTS, {"name": "x"}, format="json")
    assert (response.status_code, response.json()["detail"]) == (403, "You belong to no tenant.")
    assert Project.objects.count() == 2


def test_a_superuser_without_a_tenant_gets_403_too(world: Any) -> None:
    """Power over all tenants is not membership of one."""
    world.nobody.is_superuser = world.nobody.is_staff = True
    world.nobody.save()
    assert world.client(world.nobody).get(PROJECTS).status_code == 403


def test_who_is_nobody_is_asked_who_they_are(world: Any) -> None:
    """401, with what to send."""
    response = APIClient().get(PROJECTS)
    assert response.status_code == 401
    assert response["WWW-Authenticate"].startswith("Bearer")


def test_a_tenant_that_is_no_value_of_the_field_sees_nothing(world: Any, token: Any) -> None:
    """A token for "acme" where organizations have numbers: 403, no crash, no rows."""
    assert token(tenant_id="acme").get(PROJECTS).status_code == 403


def test_a_view_with_its_own_queryset_is_filtered_too(world: Any) -> None:
    """`get_queryset` that forgets to call super() gives away nothing."""
    assert names(world.client().get("/service/own-projects/")) == ["ours"]
    assert world.client().get(f"/service/own-projects/{world.theirs.pk}/").status_code == 404


def test_an_object_that_a_view_found_by_itself_is_checked(world: Any) -> None:
    """`check_object_permissions` asks whose it is."""
    assert world.client().get(f"{PROJECTS}{world.ours.pk}/by_hand/").status_code == 200
    assert world.client().get(f"{PROJECTS}{world.theirs.pk}/by_hand/").status_code == 404


def test_mixins_behind_the_base_work(world: Any) -> None:
    """Behind the base class the tenant is filtered as before it."""
    Note.objects.create(tenant_id=str(world.acme.pk), text="ours")
    Note.objects.create(tenant_id=str(world.rival.pk), text="theirs")
    response = world.client().get("/service/notes/")
    assert [row["text"] for row in response.json()["results"]] == ["ours"]


def test_rows_that_belong_through_another_row(world: Any) -> None:
    """``tenant_field = "project__organization_id"`` follows the way."""
    mine = Task.objects.create(project=world.ours, title="a")
    other = Task.objects.create(project=world.theirs, title="b")
    orphan = Task.objects.create(project=None, title="c")
    found = world.client().get("/service/tasks/").json()["results"]
    assert [row["title"] for row in found] == ["a"]
    for task, status in ((mine, 200), (other, 404), (orphan, 404)):
        assert world.client().get(f"/service/tasks/{task.pk}/").status_code == status


# -- writing -----------------------------------------------------------------------------------


def test_what_is_created_gets_the_tenant(world: Any) -> None:
    """Without a word about it."""
    response = world.client().post(PROJECTS, {"name": "new"}, format="json")
    assert response.status_code == 201
    assert response.json()["organization"] == world.acme.pk
    assert Project.objects.get(name="new").organization == world.acme


def test_a_tenant_that_is_sent_is_refused(world: Any) -> None:
    """Mass assignment: the serializer has all fields, and this one can't be set."""
    given = {"name": "new", "organization": world.rival.pk}
    response = world.client().post(PROJECTS, given, format="json")
    assert response.status_code == 400
    assert response.json()["errors"][0]["pointer"] == "#/organization"
    assert not Project.objects.filter(name="new").exists()


def test_a_tenant_that_is_sent_in_a_form_is_refused(world: Any) -> None:
    """Form data is another type than JSON, and no way round."""
    given = {"name": "new", "organization": world.rival.pk}
    assert world.client().post(PROJECTS, given, format="multipart").status_code == 400


@pytest.mark.parametrize("method", ["put", "patch"])
def test_a_row_cant_be_moved(world: Any, method: str) -> None:
    """Not to another tenant, by any method."""
    path, given = f"{PROJECTS}{world.ours.pk}/", {"name": "x", "organization": world.rival.pk}
    assert getattr(world.client(), method)(path, given, format="json").status_code == 400
    world.ours.refresh_from_db()
    assert world.ours.organization == world.acme


def test_what_was_read_can_be_sent_back(world: Any) -> None:
    """The own tenant in the body is no attempt at anything."""
    client, path = world.client(), f"{PROJECTS}{world.ours.pk}/"
    row = client.get(path).json()
    assert row["organization"] == world.acme.pk
    response = client.put(path, {**row, "name": "renamed"}, format="json")
    assert (response.status_code, response.json()["name"]) == (200, "renamed")


def test_a_view_cant_pass_on_another_tenant(world: Any) -> None:
    """`perform_create` that hands over what was sent: the tenant is stamped after it."""
    given = {"name": "new", "organization": world.acme.pk}
    response = world.client().post("/service/own-projects/", given, format="json")
    assert response.status_code == 201, response.content
    created = Project.objects.get(name="new")
    assert (created.organization, created.rank) == (world.acme, 7)


def test_uniqueness_is_checked_within_the_tenant(world: Any) -> None:
    """The same name twice is an error at the field, in another tenant it is free."""
    response = world.client().post(PROJECTS, {"name": "ours"}, format="json")
    assert (response.status_code, response.json()["errors"][0]["code"]) == (400, "unique")
    response = world.client().post(PROJECTS, {"name": "theirs-9a3f"}, format="json")
    assert response.status_code == 201


@pytest.mark.parametrize("field", ["parent", "owner", "tags"])
def test_a_foreign_row_cant_be_named(world: Any, field: str) -> None:
    """A key of another tenant's row is as good as one that there is not."""
    foreign = {"parent": world.theirs.pk, "owner": world.roman.pk, "tags": [world.their_tag.pk]}
    missing = {"parent": 999_999, "owner": 999_999, "tags": [999_999]}
    answers = [
        world.client().post(PROJECTS, {"name": "new", field: given[field]}, format="json")
        for given in (foreign, missing)
    ]
    assert [answer.status_code for answer in answers] == [400, 400]
    told = [answer.json()["errors"][0] for answer in answers]
    assert told[0]["pointer"].startswith(f"#/{field}")
    assert told[0]["code"] == told[1]["code"] == "does_not_exist"
    own = {"parent": world.ours.pk, "owner": world.alice.pk, "tags": [world.our_tag.pk]}
    response = world.client().post(PROJECTS, {"name": "new", field: own[field]}, format="json")
    assert response.status_code == 201, response.content


def test_what_is_everybodys_can_be_named(world: Any) -> None:
    """``tenant_related = {"country": None}`` says so."""
    country = Country.objects.create(name="Peru")
    given = {"name": "new", "country": country.pk}
    assert world.client().post(PROJECTS, given, format="json").status_code == 201


def test_a_related_model_that_is_nobodys_must_be_declared(
    world: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Rows whose owner is unknown are not offered: the developer is told what to write."""
    given = {"name": "new", "owner": world.roman.pk}
    response = world.client().post("/service/undeclared/", given, format="json")
    assert response.status_code == 500
    assert "tenant_related = {'owner': 'path__to__tenant_id' or None}" in caplog.text
    assert "tenant_related" not in response.content.decode()


def test_the_browsable_form_shows_no_foreign_names(world: Any) -> None:
    """Selects of the HTML form: projects, users and tags of the tenant alone."""
    page = world.client().get(PROJECTS, HTTP_ACCEPT="text/html").content.decode()
    assert "our-tag" in page
    assert "<select" in page
    assert "9a3f" not in page
    assert "roman" not in page
    assert 'name="organization"' not in page
    assert "Rival" not in page


def test_a_nested_serializer_is_limited_too(world: Any) -> None:
    """A related field two levels down names rows of the tenant alone; the top is stamped."""
    path = "/service/nested/"
    given: dict[str, Any] = {"name": "new", "tasks": [{"title": "a", "depends_on": "theirs-9a3f"}]}
    response = world.client().post(path, given, format="json")
    assert response.status_code == 400
    assert response.json()["errors"][0]["pointer"] == "#/tasks/0/depends_on"
    given["tasks"][0]["depends_on"] = "ours"
    response = world.client().post(path, given, format="json")
    assert response.status_code == 201, response.content


def test_a_row_can_be_attached_to_an_own_row_alone(world: Any) -> None:
    """Where rows belong through another one, that one must be the tenant's, and be given."""
    client, path = world.client(), "/service/tasks/"
    for given, status in (
        ({"title": "a", "project": world.theirs.pk}, 400),
        ({"title": "a"}, 400),
        ({"title": "a", "project": None}, 400),
        ({"title": "a", "project": world.ours.pk}, 201),
    ):
        assert client.post(path, given, format="json").status_code == status, given
    task = Task.objects.get()
    for project in (world.theirs.pk, None):
        response = client.patch(f"{path}{task.pk}/", {"project": project}, format="json")
        assert response.status_code == 400
    assert client.patch(f"{path}{task.pk}/", {"title": "b"}, format="json").status_code == 200
    task.refresh_from_db()
    assert (task.project, task.title) == (world.ours, "b")


def test_a_foreign_key_as_tenant_field(world: Any) -> None:
    """``tenant_field = "organization"`` works as ``"organization_id"`` does."""
    client, path = world.client(), "/service/tags/"
    assert names(client.get(path)) == ["our-tag"]
    assert client.post(path, {"name": "new"}, format="json").status_code == 201
    assert Tag.objects.get(name="new").organization == world.acme
    assert client.get(f"{path}{world.our_tag.pk}/").status_code == 200
    given = {"name": "x", "organization": world.rival.pk}
    assert client.post(path, given, format="json").status_code == 400


def test_plain_tenant_ids(world: Any) -> None:
    """A text field is stamped, kept and refused like a foreign key."""
    client, path = world.client(), "/service/notes/"
    assert client.post(path, {"text": "a"}, format="json").json()["tenant_id"] == str(world.acme.pk)
    other = {"text": "a", "tenant_id": str(world.rival.pk)}
    assert client.post(path, other, format="json").status_code == 400
    own = {"text": "a", "tenant_id": str(world.acme.pk)}
    assert client.post(path, own, format="json").status_code == 201


def test_a_token_works_for_its_tenant(world: Any, token: Any) -> None:
    """The token's tenant counts, whoever its user is."""
    client = token("api:*", tenant_id=str(world.rival.pk), user=world.alice)
    assert names(client.get(PROJECTS)) == ["theirs-9a3f"]
    response = client.post(PROJECTS, {"name": "new"}, format="json")
    assert response.json()["organization"] == world.rival.pk
    assert token("api:*", user=world.alice).get(PROJECTS).json()["results"][0]["name"] == "ours"
    assert token("api:*").get(PROJECTS).status_code == 403


def test_a_tenant_in_the_request_lends_a_token_none(world: Any, token: Any) -> None:
    """What a middleware reads off a host name makes no service a member."""
    from automate_django.api import tenant_of
    from automate_django.api.tokens import ServiceUser
    from django.test import RequestFactory, override_settings

    request = RequestFactory().get("/")
    request.tenant_id = str(world.rival.pk)
    request.auth = token("*").token
    request.user = ServiceUser(request.auth)
    with override_settings(AUTOMATE_API={}):
        assert tenant_of(request) is None
    request.auth = token("*", tenant_id="acme").token
    assert tenant_of(request) == "acme"


def test_many_rows_at_once(world: Any) -> None:
    """A list of rows is stamped and checked row by row."""
    path = "/service/projects/many/"
    given = [{"name": "a"}, {"name": "b", "organization": world.acme.pk}]
    assert world.client().post(path, given, format="json").status_code == 201
    assert Project.objects.filter(organization=world.acme).count() == 3
    for wrong in ({"organization": world.rival.pk}, {"parent": world.theirs.pk}):
        given = [{"name": "c"}, {"name": "d", **wrong}]
        assert world.client().post(path, given, format="json").status_code == 400
    assert not Project.objects.filter(name__in="cd").exists()


def test_what_an_options_request_tells(world: Any) -> None:
    """The description of the fields offers no rows of others, and nothing without a tenant."""
    text = world.client().options(PROJECTS).content.decode()
    assert '"organization":{"type":"field","required":false,"read_only":true' in text
    assert "9a3f" not in text
    assert world.client(world.nobody).options(PROJECTS).status_code == 403


def test_the_tenants_own_model(world: Any) -> None:
    """A serializer of the tenant's field by itself offers one organization."""
    page = world.client().get("/service/tags/", HTTP_ACCEPT="text/html").content.decode()
    assert "Rival" not in page
    assert Organization.objects.count() == 2


# -- whose request -----------------------------------------------------------------------------


def view_of(model: Any, **names: Any) -> Any:
    """A view set of *model* with these attributes."""
    from automate_django.api.v1.base import BaseModelViewSet, TenantFilterMixin
    from rest_framework import serializers

    meta = type("Meta", (), {"model": model, "fields": "__all__"})
    serializer = type(f"{model.__name__}Rows", (serializers.ModelSerializer,), {"Meta": meta})
    base = {"queryset": model.objects.all(), "serializer_class": serializer, **names}
    mixins = (*base.pop("mixins", ()), TenantFilterMixin, BaseModelViewSet)
    return type("Rows", mixins, base)


def ask(view: Any, method: str, action: str, user: Any, data: Any = None, **kwargs: Any) -> Any:
    """What *view* answers to *user*; None is nobody."""
    from rest_framework.test import APIRequestFactory, force_authenticate

    request = getattr(APIRequestFactory(), method)("/", data, format="json")
    if user is not None:
        force_authenticate(request, user)
    return view.as_view({method: action})(request, **kwargs)


def test_without_a_tenant_nobody_is_asked_who_they_are(world: Any) -> None:
    """Even where the view asks nobody: 401, since a token would help; 403 who has none anyway."""
    from automate_django.api.v1.base import PublicAPIMixin

    view = view_of(Project, tenant_field="organization_id", mixins=[PublicAPIMixin])
    for method, action in (("get", "list"), ("post", "create")):
        nobody = ask(view, method, action, None, {"name": "x"} if method == "post" else None)
        assert (nobody.status_code, nobody["WWW-Authenticate"].split()[0]) == (401, "Bearer")
        assert ask(view, method, action, world.nobody).status_code == 403
    assert ask(view, "get", "list", world.alice).status_code == 200
    assert Project.objects.count() == 2


@pytest.mark.parametrize("field", ["pk", "id"])
def test_the_tenants_themselves(world: Any, field: str) -> None:
    """A request reads and renames its own tenant, sees no other, and makes none."""
    view = view_of(Organization, tenant_field=field)
    listed = ask(view, "get", "list", world.alice)
    assert [row["name"] for row in listed.data["results"]] == ["Acme"]
    assert ask(view, "get", "retrieve", world.alice, pk=world.rival.pk).status_code == 404
    renamed = ask(view, "patch", "partial_update", world.alice, {"name": "New"}, pk=world.acme.pk)
    assert renamed.status_code == 200
    stolen = ask(view, "patch", "partial_update", world.alice, {"name": "x"}, pk=world.rival.pk)
    assert stolen.status_code == 404
    made = ask(view, "post", "create", world.alice, {"name": "Third"})
    assert (made.status_code, made.data["detail"]) == (403, "A tenant can't make another one.")
    assert sorted(Organization.objects.values_list("name", flat=True)) == ["New", "Rival"]
    made = view()
    made.request, made.action = Holder(user=world.alice, auth=None, method="GET"), "list"
    for organization, ours in ((world.acme, True), (world.rival, False)):
        assert made._is_ours(organization) is ours


class Holder:
    """Something with attributes."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)


@pytest.mark.parametrize("field", ["pk", "id", "organization__id", "organization__pk"])
def test_a_users_own_key_is_no_tenants(world: Any, field: str) -> None:
    """Where no function says whose a request is, ``user.pk`` must not be taken for a tenant."""
    from django.contrib.auth.models import User
    from django.test import override_settings

    model = Project if "__" in field else Organization
    twin = User.objects.create(pk=world.rival.pk + 1000, username="twin")
    Organization.objects.create(pk=twin.pk, name="twin's")
    Project.objects.create(organization_id=twin.pk, name="twin's")
    with override_settings(AUTOMATE_API={}):
        assert ask(view_of(model, tenant_field=field), "get", "list", twin).status_code == 403
        twin.tenant_id = world.acme.pk
        found = ask(view_of(model, tenant_field=field), "get", "list", twin)
    assert [row["name"] for row in found.data["results"]] in (["ours"], ["Acme"])


def test_what_is_ours_by_way_of_a_missing_row(world: Any) -> None:
    """An object without the row that would say whose it is is nobody's."""
    view = view_of(Task, tenant_field="project__organization_id")()
    view.request = Holder(user=world.alice, auth=None, method="GET")
    for project, ours in ((world.ours, True), (world.theirs, False), (None, False)):
        assert view._is_ours(Task.objects.create(project=project, title="x")) is ours
    # Rows of another kind are not what the view is about.
    assert view._is_ours(world.acme) is True


def test_a_field_that_is_not_there_is_told(world: Any) -> None:
    """The developer reads which, and what to set."""
    from django.core.exceptions import ImproperlyConfigured

    view = view_of(Country, tenant_field="organization_id")()
    view.request = Holder(user=world.alice, auth=None, method="GET")
    with pytest.raises(ImproperlyConfigured, match="Country has no field 'organization_id'"):
        view.get_queryset()


def test_what_can_be_no_tenant_is_none(world: Any) -> None:
    """A value that the field can't hold finds nothing, whatever the field says of it."""
    from backoffice.models import Document
    from django.test import override_settings
    from rest_framework.exceptions import NotAuthenticated, PermissionDenied

    for tenant, rows in (("acme", Document), ("acme", Project), ({"a": 1}, Project)):
        view = view_of(Project, tenant_field="organization_id")()
        view._tenant = tenant
        with pytest.raises(PermissionDenied):
            view.filter_by_tenant(rows.objects.all(), "pk")
    view = view_of(Project, tenant_field="organization_id")()
    view.request = Holder(user=None, auth=None, method="GET")
    # REST_FRAMEWORK = {"UNAUTHENTICATED_USER": None}
    with override_settings(AUTOMATE_API={}), pytest.raises(NotAuthenticated):
        view.get_tenant_id()


def test_the_key_of_the_tenant_is_refused_by_any_name(world: Any) -> None:
    """A serializer may call the field as its column: mass assignment by another name."""
    from rest_framework import serializers

    class ByKey(serializers.ModelSerializer):
        organization_id = serializers.IntegerField(required=False)

        class Meta:
            model = Project
            fields = ["name", "organization_id"]

    view = view_of(Project, tenant_field="organization_id", serializer_class=ByKey)
    given = {"name": "new", "organization_id": world.rival.pk}
    assert ask(view, "post", "create", world.alice, given).status_code == 400
    assert ask(view, "post", "create", world.alice, {"name": "new"}).status_code == 201
    assert Project.objects.get(name="new").organization == world.acme


def test_rows_of_another_kind_are_not_stamped(world: Any) -> None:
    """A serializer says by its model which rows it saves; without one, those of the view."""
    from rest_framework import serializers

    view = view_of(Project, tenant_field="organization_id")()
    view.request = Holder(user=world.alice, auth=None, method="POST")
    meta = type("Meta", (), {"model": Country, "fields": ["name"]})
    other = type("Countries", (serializers.ModelSerializer,), {"Meta": meta})
    assert view._stamp(other()).attribute is None
    assert view._stamp(serializers.Serializer()).attribute == "organization_id"


def test_a_way_through_json_leads_to_no_related_row(world: Any) -> None:
    """``tenant_field = "extra__organization"``: there is nothing below a column."""
    from service.models import Article

    for model, path, target, way in (
        (Article, "extra__organization", Tag, None),
        (Project, "organization__name", Organization, "name"),
    ):
        view = view_of(model, tenant_field=path)()
        view.request = Holder(user=world.alice, auth=None, method="GET")
        assert view._way_from(target) == way


def test_the_page_of_the_tenants_themselves(world: Any) -> None:
    """The browsable API shows the own tenant, though it makes none."""
    from rest_framework.test import APIRequestFactory, force_authenticate

    request = APIRequestFactory().get("/", HTTP_ACCEPT="text/html")
    force_authenticate(request, world.alice)
    methods = {"get": "list", "post": "create"}
    page = view_of(Organization, tenant_field="pk").as_view(methods)(request).render()
    assert page.status_code == 200
    assert "Acme" in page.content.decode()
    assert "Rival" not in page.content.decode()


def test_the_base_without_tenants_binds_nothing(world: Any) -> None:
    """Without the mixin any row can be named, and nothing is stamped."""
    from automate_django.api.v1.base import BaseModelViewSet
    from service.serializers import TaskSerializer

    names = {"queryset": Task.objects.all(), "serializer_class": TaskSerializer}
    view = type("All", (BaseModelViewSet,), {**names, "tenant_field": "project__organization_id"})
    given = {"title": "x", "project": world.theirs.pk}
    assert ask(view, "post", "create", world.alice, given).status_code == 201
