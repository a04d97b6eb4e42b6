"""Values that a database can't take or has already: told by a page, never a crash."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from backoffice.models import Account, Document, Project
from django.db.models.signals import pre_save

from .conftest import World, errors, form_of, page, url

HUGE = "9" * 30


@pytest.mark.parametrize(
    "path",
    [
        "project/?name__startswith=a%00",
        "project/?nothing=%00",
        "account/?code__exact=%00",
        "account/a%00/change/",
        "account/a%00/delete/",
        "account/a%00/history/",
        "project/export/?q=%00",
        "document/?deleted=%00",
    ],
)
def test_nul_in_an_address(world_anywhere: World, path: str) -> None:
    """PostgreSQL has no text with NUL in it, so nothing can be looked up by it."""
    client = world_anywhere.staff("project", "account", "document")
    assert client.get(f"/backoffice/backoffice/{path}").status_code == 400


def test_nul_in_a_search(world_anywhere: World) -> None:
    """The list says so in its own way; the choices of an autocomplete are asked for by a script."""
    client = world_anywhere.staff("project", "task", "category")
    assert client.get(f"{url('project')}?q=%00").status_code == 400
    where = "app_label=backoffice&model_name=task&field_name=category"
    assert client.get(f"/backoffice/autocomplete/?{where}&term=%00").status_code == 400


def test_nul_in_what_is_chosen(world_anywhere: World) -> None:
    """The key of a row that an action is for, and one that is typed in."""
    Account.objects.create(code="a", tenant=world_anywhere.ours.tenant)
    client = world_anywhere.staff("account")
    data = {"action": "delete_selected", "_selected_action": ["a\0"], "index": 0}
    assert client.post(url("account"), data, follow=True).status_code in (200, 400)
    answer = client.post(url("account", "add"), {"code": "a\0", "title": ""})
    assert any("Null characters" in each for each in errors(page(answer)))
    assert Account.objects.count() == 1


@pytest.mark.parametrize(
    "path",
    [
        f"project/?category__id__exact={HUGE}",
        f"project/?id={HUGE}",
        f"project/?id__in={HUGE}",
        f"project/?id__gt={HUGE}",
        f"project/{HUGE}/change/",
        f"project/{HUGE}/delete/",
        f"task/?project__id__exact=-{HUGE}",
        f"project/?created_at__year={HUGE}",
        "project/?created_at__year=0",
    ],
)
def test_numbers_that_are_too_large(world_anywhere: World, path: str) -> None:
    """Nothing has such a number, whatever the database and Django: no crash."""
    answer = world_anywhere.staff("project", "task").get(f"/backoffice/backoffice/{path}")
    assert answer.status_code in (200, 302, 400)
    if answer.status_code == 200:
        assert "our" not in page(answer).replace("your", "").partition("<tbody>")[2]


@pytest.mark.parametrize("who", ["staff", "root"])
def test_what_is_unique_among_rows_that_are_not_deleted(world_anywhere: World, who: str) -> None:
    """The condition's field is in no form, and yet the form says it."""
    tenant = world_anywhere.ours.tenant
    Document.objects.create(tenant=tenant, title="taken")
    Document.objects.create(tenant=tenant, title="free", is_deleted=True)
    other = Document.objects.create(tenant=tenant, title="other")
    client = world_anywhere.root() if who == "root" else world_anywhere.staff("document", "page")
    for address in (url("document", "add"), url("document", other.pk, "change")):
        data = form_of(page(client.get(address)))
        data.update({"title": "taken", "tenant": tenant.pk})
        text = page(client.post(address, data))
        assert any("already" in each for each in errors(text)), errors(text)
        assert client.post(address, {**data, "title": "free"}).status_code == 302
        Document.objects.filter(title="free").update(is_deleted=True)


def test_rows_of_others_are_free(world: World) -> None:
    """Unique per tenant: what others have is no error, and so nobody is told."""
    Document.objects.create(tenant=world.theirs.tenant, title="taken")
    client = world.staff("document", "page")
    data = form_of(page(client.get(url("document", "add"))))
    answer = client.post(url("document", "add"), {**data, "title": "taken"})
    assert answer.status_code == 302, errors(page(answer))


@pytest.fixture
def overtaken() -> Iterator[Any]:
    """Have somebody else save a row with the same name just before."""

    def overtake(instance: Any, raw: bool = False, **_: Any) -> None:
        if not Project.objects.filter(name=instance.name).exists():
            Project.objects.bulk_create([Project(tenant=instance.tenant, name=instance.name)])

    pre_save.connect(overtake, sender=Project)
    yield
    pre_save.disconnect(overtake, sender=Project)


def test_whoever_comes_second_is_told(world_anywhere: World, overtaken: Any) -> None:
    """Between the form's check and the saving: a page with 409, and nothing is saved."""
    client = world_anywhere.staff("project", "task", "category", "label")
    address = url("project", "add")
    data = {**form_of(page(client.get(address))), "name": "new"}
    text = page(client.post(address, data), 409)
    assert "another row has a value that must be unique" in text.lower()
    assert "backoffice_" not in text
    assert client.get(address).status_code == 200


@pytest.mark.parametrize("column", ["id", "category_id"])
def test_a_number_in_a_file_that_is_too_large(world_anywhere: World, column: str) -> None:
    """A key, and that of another row."""
    from django.core.files.uploadedfile import SimpleUploadedFile

    text = f"sku,name,price,{column}\nA,a,1,{HUGE}\n"
    upload = {"file": SimpleUploadedFile("rows.csv", text.encode())}
    client = world_anywhere.staff("product", "category")
    shown = page(client.post(url("product", "import"), upload))
    assert column in shown and "Line" in shown
