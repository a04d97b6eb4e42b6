"""Exports: what is in the files, who gets them, and that they stream."""

from __future__ import annotations

import csv
import io
import json
import re
import tracemalloc
from typing import Any

import pytest
from automate_pages.csv_file import csv_lines, unescaped
from automate_django.models import AuditEntry
from backoffice.models import Product, Project, Task

from automate_testing import HOSTILE_VALUES, HostileValuesContract

from .conftest import World, page, url


def export(client: Any, model: str, format: str, *keys: Any, **more: Any) -> Any:
    chosen = {"action": f"export_as_{format}", "_selected_action": [*keys], "index": 0}
    return client.post(url(model), {**chosen, **more})


def rows(response: Any) -> list[dict[str, str]]:
    text = page(response)
    assert text.startswith("\ufeff")
    return list(csv.DictReader(io.StringIO(text[1:])))


def test_export_has_own_rows_and_no_secret(world_anywhere: World) -> None:
    world = world_anywhere
    client = world.staff("project")
    keys = [world.ours.project.pk, world.theirs.project.pk]
    found = rows(export(client, "project", "csv", *keys))
    assert [each["name"] for each in found] == ["our project"]
    assert not {"api_key", "tenant", "margin"} & set(found[0])
    everything = page(export(client, "project", "json", keys[0], select_across=1))
    assert [each["name"] for each in json.loads(everything)] == ["our project"]
    assert "key-of" not in everything


def test_secrets_stay_even_if_listed_and_inside_of_json(world: World) -> None:
    from backoffice.admin import ProjectAdmin, site
    from django.test import RequestFactory

    class Listed(ProjectAdmin):
        export_fields = ["name", "api_key", "config", "category__name", "owner__password"]

    world.ours.project.config = {"retries": 3, "api_key": "inner", "deep": [{"password": "x"}]}
    world.ours.project.save()
    request = RequestFactory().post("/")
    request.user = world.user(is_superuser=True)
    made = Listed(Project, site)
    queryset = Project.objects.filter(pk=world.ours.project.pk)
    (row,) = json.loads(page(made.export(request, queryset, "json")))
    hidden = "[hidden]"
    config = {"retries": 3, "api_key": hidden, "deep": [{"password": hidden}]}
    assert row == {"name": "our project", "config": config, "category__name": "our category"}
    made.not_secret_fields = ("api_key",)
    assert "api_key" in made.get_export_fields(request)


@pytest.mark.parametrize(
    "text",
    [
        "=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "\n=1", "'=1", "''=1", "＝1",
        "plain", "it's", "'quoted'", "", "ünï, \"x\"\nnext", "x;=1+1;", "x\t'=1", "a\n- b;\u200b@c",
        "x;;'' =1;-2", "\n =1", " \n=1",
    ],
)  # fmt: skip
def test_a_spreadsheet_runs_no_cell_and_an_import_reads_it_back(text: str) -> None:
    """A customer called ``=HYPERLINK(...)`` doesn't run on the desk of whoever opens the file."""
    written = b"".join(csv_lines(["name"], [[text]])).decode()[1:]
    (cell,) = list(csv.reader(io.StringIO(written, newline="")))[1:] or [[""]]
    cell = cell[0] if cell else ""
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", " =", "＝"))
    assert unescaped(cell) == text
    # As a spreadsheet reads the file where semicolons separate the cells.
    for part in re.split("[;\t\r\n]", written.removeprefix("name\r\n")):
        assert not re.match('[\\s\u200b"]*[=+@＝-]', part)


def test_numbers_stay_numbers() -> None:
    """A debt of -5 is no formula."""
    assert b"".join(csv_lines(["n"], [[-5]])).decode()[1:] == "n\r\n-5\r\n"


def test_export_needs_the_permission_to_view(world: World) -> None:
    client = world.client(world.user(tenant=world.ours.tenant))
    assert export(client, "project", "csv", world.ours.project.pk).status_code == 403
    viewer = world.client(world.user("view_project", tenant=world.ours.tenant))
    assert len(rows(export(viewer, "project", "csv", world.ours.project.pk))) == 1


def test_export_permission_of_its_own(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the model declares ``export_project``, whoever may look may not carry away."""
    from backoffice.admin import ProjectAdmin, site
    from django.test import RequestFactory

    monkeypatch.setattr(Project._meta, "permissions", [("export_project", "export")])
    request = RequestFactory().post("/")
    request.user = world.user("view_project", tenant=world.ours.tenant)
    made = ProjectAdmin(Project, site)
    assert not made.has_export_permission(request)
    assert "export_as_csv" not in made.get_actions(request)


def test_export_is_remembered(world: World) -> None:
    client = world.staff("project")
    export(client, "project", "csv", world.ours.project.pk)
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.model) == ("export", "backoffice.project")
    assert entry.details["rows"] == 1 and "api_key" not in entry.details["fields"]
    assert entry.tenant_id == str(world.ours.tenant.pk)
    assert entry.actor.startswith("user")


def test_methods_can_be_columns(world: World) -> None:
    from backoffice.admin import TaskAdmin, site
    from django.test import RequestFactory

    class Listed(TaskAdmin):
        export_fields = ["title", "shout", "get_absolute_url", "project"]

        def shout(self, obj: Any) -> str:
            return obj.title.upper()

    request = RequestFactory().post("/")
    request.user = world.user(is_superuser=True)
    made = Listed(Task, site).export(request, Task.objects.filter(title="our task"), "csv")
    (row,) = rows(made)
    assert row["shout"] == "OUR TASK"
    assert row["get_absolute_url"] == "/tasks/our task/"
    assert row["project"] == str(world.ours.project.pk)


@pytest.mark.slow
@pytest.mark.long
def test_a_hundred_thousand_rows_stream_with_flat_memory(world: World) -> None:
    """The file is sent while it is read: no list of all rows, no text of all of it."""
    tenant = world.ours.tenant.pk
    made = [Product(tenant_id=tenant, sku=f"S{n}", name=f"Product {n}") for n in range(100_000)]
    Product.objects.bulk_create(made, batch_size=5000)
    del made
    response = export(world.staff("product"), "product", "csv", 1, select_across=1)
    assert response.streaming
    parts = iter(response)
    size, count, lines = len(next(parts)), 1, 0
    tracemalloc.start()
    try:
        for part in parts:
            size, count, lines = size + len(part), count + 1, lines + part.count(b"\n")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count > 400 and lines > 99_000
    assert peak < 4_000_000 < size


def test_export_streams_under_asgi_too(world: World) -> None:
    """An asynchronous server gets parts one by one, not a list of all of them."""
    import asyncio

    from django.test import AsyncClient

    tenant = world.ours.tenant.pk
    Product.objects.bulk_create(
        [Product(tenant_id=tenant, sku=f"S{n}", name="x") for n in range(1000)], batch_size=500
    )
    client = AsyncClient()
    client.force_login(world.user("view_product", tenant=world.ours.tenant))
    data = {"action": "export_as_json", "_selected_action": [1], "select_across": 1, "index": 0}

    async def read() -> list[bytes]:
        response = await client.post(url("product"), data)
        assert response.is_async
        return [part async for part in response]

    parts = asyncio.run(read())
    assert len(parts) > 3
    assert len(json.loads(b"".join(parts))) == 1000


class TestCsv(HostileValuesContract):
    """A cell runs nothing in a spreadsheet, and is read back."""

    places = ("cell",)
    accepts = {"cell": set(HOSTILE_VALUES)}

    def carry(self, place: str, value: str) -> tuple[Any, Any]:
        raw = b"".join(csv_lines(["a", "b"], [["x", value], ["y", "z"]])).decode("utf-8-sig")
        (names, (x, cell), last) = csv.reader(io.StringIO(raw, newline=""))
        # Some programs skip what can't be seen before they look for a formula.
        seen = re.sub(
            r"^[\s\x00-\x20\xad\u061c\u180e\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufeff]+",
            "",
            cell,
        )
        assert not seen.startswith(("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20"))
        return unescaped(cell), (names, x, last)

    def same(self, place: str, value: str, arrived: Any) -> bool:
        written = value.encode("utf-8", "replace").decode().replace("\0", "\ufffd")
        return bool(arrived == written)
