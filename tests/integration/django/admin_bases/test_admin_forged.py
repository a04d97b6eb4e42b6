"""What a browser can be made to send: posts without a token, pop-ups, counts, odd file names."""

from __future__ import annotations

import json
import re
from typing import Any

import django
import pytest
from backoffice.models import Category, Product, Project
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from .conftest import World, page, url

IMPORT = url("product", "import")


def upload(client: Any, name: str = "products.csv") -> Any:
    file = SimpleUploadedFile(name, b"sku,name\nA,Tea\n")
    return client.post(IMPORT, {"file": file})


def test_nothing_is_done_for_a_post_from_elsewhere(world: World) -> None:
    """Another site's form has no token, and changes, exports and imports nothing."""
    user = world.user(
        *(f"{do}_{of}" for do in ("view", "add", "change", "delete") for of in ("project", "product")),
        tenant=world.ours.tenant,
    )  # fmt: skip
    trusted, forged = world.client(user), Client(enforce_csrf_checks=True)
    forged.force_login(user)
    (confirm,) = re.findall(rf'action="({IMPORT}[^"]+)"', page(upload(trusted)))
    key = world.ours.project.pk
    chosen = {"_selected_action": [key], "index": 0}
    posts: list[tuple[str, dict[str, Any]]] = [
        (url("project"), {"action": "export_as_csv", **chosen}),
        (url("project"), {"action": "bulk_disable", **chosen}),
        (url("project"), {"action": "delete_selected", "post": "yes", **chosen}),
        (url("project", key, "change"), {"name": "taken"}),
        (url("project", key, "delete"), {"post": "yes"}),
        (url("project", "add"), {"name": "planted", "status": "open"}),
        (confirm, {"confirm": "Import"}),
    ]
    for address, data in posts:
        assert forged.post(address, data).status_code == 403, address
    assert upload(forged).status_code == 403
    project = Project.objects.get(tenant=world.ours.tenant)
    assert (project.name, project.is_active) == ("our project", True)
    assert not Product.objects.exists()


def test_what_changes_something_is_no_link(world: World) -> None:
    """An image in a mail, say, whose address a browser just gets."""
    client = world.staff("project", "product")
    (confirm,) = re.findall(rf'action="({IMPORT}[^"]+)"', page(upload(client)))
    key = world.ours.project.pk
    assert client.get(confirm).status_code == 405
    client.get(url("project"), {"action": "bulk_disable", "_selected_action": key, "index": 0})
    client.get(url("project", key, "delete"), {"post": "yes"})
    assert Project.objects.get(pk=key).is_active
    assert not Product.objects.exists()


def test_the_pop_up_that_chooses_a_raw_id_has_own_rows(world: World) -> None:
    text = page(world.staff("project").get(url("project"), {"_popup": "1", "_to_field": "id"}))
    assert "our project" in text
    assert "their" not in text


@pytest.mark.skipif(django.VERSION < (5, 0), reason="filters have counts from Django 5.0 on")
def test_counts_in_the_sidebar_are_of_own_rows(world: World) -> None:
    Category.objects.filter(pk=world.theirs.category.pk).update(name=world.ours.category.name)
    text = page(world.staff("project", "category").get(url("project"), {"_facets": "True"}))
    assert "our category (1)" in text
    assert "(2)" not in text
    assert "their" not in text


def test_an_export_is_no_way_to_ask_about_hidden_values(world: World) -> None:
    client = world.staff("project")
    data = {"action": "export_as_csv", "_selected_action": [1], "select_across": 1, "index": 0}
    for query in ("api_key__startswith=key", "margin__gt=1", "owner__password__startswith=p"):
        assert client.post(f"{url('project')}?{query}", data).status_code == 400


@pytest.mark.parametrize("field", ["owner", "labels", "tenant", "api_key", "nothing"])
def test_autocomplete_tells_of_no_model_that_the_user_may_not_view(
    world: World, field: str
) -> None:
    """Whatever field is named: the form of that field may have no such widget at all."""
    User.objects.create(username="their user")
    query = {"app_label": "backoffice", "model_name": "project", "field_name": field, "term": ""}
    answer = world.staff("project").get("/backoffice/autocomplete/", query)
    assert answer.status_code in (403, 404)
    assert b"their" not in answer.content


def test_autocomplete_pages_through_own_rows_alone(world: World) -> None:
    for side in (world.ours, world.theirs):
        for n in range(25):
            Category.objects.create(tenant=side.tenant, name=f"{side.tenant.name} {n}")
    query = {"app_label": "backoffice", "model_name": "task", "field_name": "category", "term": ""}
    client, found = world.staff("category", "task"), []
    for number in (1, 2):
        answer = client.get("/backoffice/autocomplete/", {**query, "page": number})
        found += [each["text"] for each in json.loads(answer.content)["results"]]
    assert len(found) == 26
    assert not [each for each in found if "their" in each]


def test_the_name_of_a_file_is_text(world: World) -> None:
    response = upload(world.staff("product"), "<img src=x>.csv")
    assert b"<img src=x>" not in response.content
    assert b"&lt;img src=x&gt;.csv" in response.content


def test_pages_hold_nothing_that_a_strict_policy_forbids(world: World, markup_of: Any) -> None:
    """``default-src 'self'`` refuses what stands in the page itself: styles, scripts, handlers."""
    client, key = world.staff("project", "product", "category", "document"), world.ours.project.pk
    chosen = {"_selected_action": [key], "index": 0}
    wrong = SimpleUploadedFile("products.csv", b"sku,name,price\nA,Tea,dear\n")
    answers = [
        client.get(url("project")),
        client.get(url("project", key, "change")),
        client.get(url("project", "add")),
        client.get(url("project", key, "delete")),
        client.get(url("project", key, "history")),
        client.post(url("project"), {"action": "bulk_update_status", **chosen}),
        client.post(url("project"), {"action": "delete_selected", **chosen}),
        client.get(url("document"), {"deleted": "all"}),
        client.get(url("product")),
        client.get(IMPORT),
        client.post(IMPORT, {"file": wrong}),
        upload(client),
    ]
    for answer in answers:
        assert answer.status_code == 200
        assert markup_of(answer.content.decode()).wrong == []
