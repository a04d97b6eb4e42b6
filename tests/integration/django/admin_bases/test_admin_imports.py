"""Imports: seen before they are saved, whole or not at all, and never another tenant's row."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from automate_django.admin.bases import imports
from automate_django.admin.bases.import_plan import apply
from automate_django.admin.bases.import_source import ImportFileError, read
from automate_django.models import AuditEntry, StagedImport
from backoffice.models import Category, Product, Project
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import DatabaseError, connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from shopsite.routing import TestedDatabase

from .conftest import World, page, url

IMPORT = url("product", "import")


def upload(client: Any, content: Any, name: str = "products.csv", **more: Any) -> str:
    """What the first page answers to a file."""
    raw = content if isinstance(content, bytes) else content.encode()
    return page(client.post(IMPORT, {"file": SimpleUploadedFile(name, raw), **more}))


def confirm(client: Any, text: str, **data: Any) -> Any:
    """Press the button of the preview *text*."""
    (address,) = re.findall(rf'action="({IMPORT}[^"]+)"', text)
    return client.post(address, data or {"confirm": "Import"})


def problems(text: str) -> list[tuple[str, ...]]:
    """Line, column and reason of each row of the table of problems."""
    (table,) = re.findall(r'id="import-problems".*?</table>', text, re.DOTALL)
    return re.findall(r"<tr><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td></tr>", table)


def run(client: Any, content: Any, name: str = "products.csv") -> None:
    """Both steps."""
    assert confirm(client, upload(client, content, name)).status_code == 302


def product(world: World, **values: Any) -> Product:
    defaults = {"tenant_id": world.ours.tenant.pk, "sku": "A", "name": "Old"}
    return Product.objects.create(**{**defaults, **values})


def test_preview_saves_nothing_and_the_confirmation_does(world_anywhere: World) -> None:
    world = world_anywhere
    client = world.staff("product")
    old = product(world, sku="A", name="Old", webhook_secret="hush")
    text = upload(client, "sku,name,price\nA,New,2.50\nB,Other,3\n")
    assert "rows to add: 1, to change: 1" in text
    assert "tenant_id" not in text
    assert "<del>Old</del> New" in text
    assert Product.objects.get() == old and Product.objects.get().name == "Old"
    assert not AuditEntry.objects.exists()
    assert confirm(client, text).status_code == 302
    found = {each.sku: each for each in Product.objects.all()}
    assert (found["A"].pk, found["A"].name, str(found["A"].price)) == (old.pk, "New", "2.50")
    assert found["A"].webhook_secret == "hush" and found["A"].updated_at > old.updated_at
    assert found["B"].tenant_id == world.ours.tenant.pk and found["B"].active
    assert not StagedImport.objects.exists()


def test_import_where_a_router_sends_our_tables_to_another_database(
    world: World, postgresql_alias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waited for the upload without a transaction; and what fails leaves no entry either."""

    def route(self: Any, model: Any, **hints: Any) -> str:
        ours = model._meta.app_label == "automate_django"
        return postgresql_alias if ours else TestedDatabase.alias

    def refuse(*arguments: Any) -> None:
        apply(*arguments)
        raise DatabaseError("no")

    monkeypatch.setattr(TestedDatabase, "db_for_read", route)
    monkeypatch.setattr(TestedDatabase, "db_for_write", route)
    AuditEntry.objects.all().delete()
    client = world.staff("product")
    with monkeypatch.context() as patch:
        patch.setattr(imports, "apply", refuse)
        run(client, "sku,name\nA,New\n")
    assert not Product.objects.exists() and not AuditEntry.objects.exists()
    run(client, "sku,name\nA,New\n")
    assert Product.objects.get().name == "New"
    assert AuditEntry.objects.filter(action="import").exists()


def test_import_is_remembered_row_by_row(world: World) -> None:
    client = world.staff("product")
    product(world)
    run(client, "sku,name,webhook_secret\nA,New,s3cret\nB,Other,\n")
    summary, *rows = AuditEntry.objects.order_by("id")
    assert summary.action == "import"
    assert (summary.details["created"], summary.details["updated"]) == (1, 1)
    assert {each.action for each in rows} == {"create", "update"}
    (change,) = [each for each in rows if each.action == "update"]
    assert change.changes["name"] == ["Old", "New"]
    assert change.changes["webhook_secret"] == ["[hidden]", "[hidden]"]
    assert "s3cret" not in json.dumps([each.changes for each in AuditEntry.objects.all()])


def test_every_bad_row_is_told_and_nothing_is_saved(world: World) -> None:
    client = world.staff("product")
    product(world, sku="A")
    text = upload(
        client,
        "sku,name,price,active,available_from,category\n"
        "A,Fine,1,yes,,\n"
        "B,,1,yes,,\n"
        "C,Name,much,perhaps,,\n"
        "D,Name,1,no,tomorrow,\n"
        f"E,Name,1,no,,{world.theirs.category.pk}\n"
        "F,forbidden,1,no,,\n"
        "A,Again,1,no,,\n"
        "G,Name,123456789.12,no,,\n"
        "H,too few\n",
    )
    found = [(int(line), column) for line, column, _text in problems(text)]
    assert found == [
        (3, "name"), (4, "price"), (4, "active"), (5, "available_from"), (6, "category"),
        (7, "name"), (8, "sku"), (9, "price"), (10, ""),
    ]  # fmt: skip
    reasons = " ".join(reason for *_where, reason in problems(text))
    assert "This name is not sold." in reasons
    assert "the same row as in line 2" in reasons
    assert "2 cells, and 6 columns" in reasons
    assert Product.objects.get().name == "Old"
    assert "action=" not in text.split("import-problems")[1].split("enctype")[0]


def test_anothers_row_is_neither_written_nor_told_of(world: World) -> None:
    client = world.staff("product")
    theirs = product(world, tenant_id=world.theirs.tenant.pk, sku="T", name="theirs")
    by_key = problems(upload(client, f"id,sku,name\n{theirs.pk},T,stolen\n"))
    never = problems(upload(client, "id,sku,name\n99999,T,stolen\n"))
    assert by_key == never == [("2", "id", "there is no such row")]
    run(client, "sku,name\nT,mine\n")
    assert Product.objects.get(pk=theirs.pk).name == "theirs"
    assert Product.objects.get(name="mine").tenant_id == world.ours.tenant.pk


def test_tenant_in_the_file_is_ignored(world: World) -> None:
    client, mine = world.staff("product"), product(world)
    theirs = world.theirs.tenant.pk
    text = upload(client, f"id,tenant_id,name\n{mine.pk},{theirs},New\n,{theirs},x\n")
    assert "not imported: tenant_id" in text
    assert ("3", "sku") in [each[:2] for each in problems(text)]
    run(client, f"id,tenant_id,sku,name\n{mine.pk},{theirs},A,New\n,{theirs},B,More\n")
    assert set(Product.objects.values_list("tenant_id", flat=True)) == {world.ours.tenant.pk}


def test_superuser_gives_the_tenant_in_the_file(world: World) -> None:
    client, theirs = world.root(), world.theirs.tenant.pk
    run(client, f"tenant_id,sku,name\n{theirs},T,New\n")
    assert Product.objects.get().tenant_id == theirs


def test_second_step_trusts_nobody(world: World) -> None:
    """A preview belongs to who made it, for an hour, once."""
    client, colleague = world.staff("product"), world.staff("product")
    text = upload(client, "sku,name\nA,New\n")
    assert confirm(colleague, text).status_code == 302
    assert not Product.objects.exists() and StagedImport.objects.exists()
    confirm(client, text, confirm="Import", file="sku,name\nZ,Forged\n")
    confirm(client, text)
    assert [each.sku for each in Product.objects.all()] == ["A"]


def test_old_upload_is_forgotten(world: World) -> None:
    from datetime import timedelta

    client = world.staff("product")
    text = upload(client, "sku,name\nA,New\n")
    staged = StagedImport.objects.get()
    StagedImport.objects.update(created_at=staged.created_at - timedelta(hours=2))
    confirm(client, text)
    assert not Product.objects.exists()


def test_cancel_forgets_the_upload(world: World) -> None:
    client = world.staff("product")
    confirm(client, upload(client, "sku,name\nA,New\n"), cancel="Cancel")
    assert not StagedImport.objects.exists() and not Product.objects.exists()


def test_what_changed_since_the_preview_is_checked_again(world: World) -> None:
    client = world.staff("product")
    mine = product(world)
    text = upload(client, f"id,name\n{mine.pk},New\n")
    Product.objects.filter(pk=mine.pk).update(tenant_id=world.theirs.tenant.pk)
    answer = page(confirm(client, text))
    assert problems(answer) == [("2", "id", "there is no such row")]
    assert Product.objects.get(pk=mine.pk).name == "Old"


@pytest.mark.parametrize(
    ("permissions", "line"),
    [(["view_product", "add_product"], "2"), (["view_product", "change_product"], "3")],
)
def test_each_row_needs_the_permission(world: World, permissions: list[str], line: str) -> None:
    """Who may only add changes nothing, and who may only change adds nothing."""
    product(world, sku="A")
    client = world.client(world.user(*permissions, tenant=world.ours.tenant))
    text = upload(client, "sku,name\nA,New\nB,Other\n") if len(line) else ""
    assert [each[0] for each in problems(text)] == [line]


def test_viewers_do_not_import(world: World) -> None:
    client = world.client(world.user("view_product", tenant=world.ours.tenant))
    assert client.get(IMPORT).status_code == 403
    assert "/import/" not in page(client.get(url("product")))
    assert "/import/" in page(world.staff("product").get(url("product")))
    staged = url("product", "import", "00000000-0000-0000-0000-000000000000")
    assert client.post(staged).status_code == 403


def test_export_can_be_imported_again(world: World) -> None:
    client = world.staff("product")
    product(world, sku="A", name="=cmd|' /C calc'!A0", category=world.ours.category)
    product(world, sku="B", name='Bäcker; "x"', price="-0.50")
    chosen = {"action": "export_as_csv", "_selected_action": [1], "select_across": 1, "index": 0}
    content = b"".join(client.post(url("product"), chosen))
    assert "The file changes nothing." in upload(client, content)
    run(client, content.replace("Bäcker".encode(), "Konditor".encode()))
    assert Product.objects.get(sku="B").name == 'Konditor; "x"'


@pytest.mark.parametrize("ending", ["csv", "json"])
def test_text_is_imported_as_it_stands(world: World, ending: str) -> None:
    """Blanks at the ends are part of a text, and of nothing else; a blank cell is empty."""
    client = world.staff("product")
    kept = product(world, sku=" lead", name="  two  ")
    chosen = {"action": f"export_as_{ending}", "_selected_action": [1], "select_across": 1}
    content = b"".join(client.post(url("product"), {**chosen, "index": 0}))
    assert "The file changes nothing." in upload(client, content, f"p.{ending}")
    run(client, content.replace(b"  two  ", b" new "), f"p.{ending}")
    kept.refresh_from_db()
    assert (kept.sku, kept.name) == (" lead", " new ")
    run(client, "sku,name,price,active, category \n B , b , 3.5 , yes ,  \n")
    found = Product.objects.get(sku=" B ")
    assert (found.name, str(found.price), found.active, found.category) == (
        " b ", "3.50", True, None,
    )  # fmt: skip
    assert problems(upload(client, "sku,name\nC,   \n"))[0][1] == "name"


def test_words_of_choices_are_found_despite_blanks(world: World) -> None:
    """No choice is written with blanks around it, so these are slips."""
    from automate_django.admin.bases.import_source import column_of, converted

    assert converted(column_of(Project, "status"), " open ") == "open"
    assert converted(column_of(Project, "name"), " open ") == " open "
    assert converted(column_of(Category, "slug"), " a-b ") == "a-b"


def test_json_is_imported_too(world: World) -> None:
    client = world.staff("product")
    rows = [{"sku": "A", "name": "New", "price": 2.5, "active": False, "category": None}]
    run(client, json.dumps(rows), "products.json")
    found = Product.objects.get()
    assert (str(found.price), found.active) == ("2.50", False)


def test_relations_are_found_by_their_own_names(world: World) -> None:
    Category.objects.filter(pk=world.ours.category.pk).update(slug="ours")
    Category.objects.filter(pk=world.theirs.category.pk).update(slug="theirs")
    client = world.staff("product")
    run(client, "sku,name,category__slug\nA,New,ours\n")
    assert Product.objects.get().category == world.ours.category
    text = upload(client, "sku,name,category__slug\nB,New,theirs\n")
    assert problems(text) == [("2", "category__slug", "there is no such row to choose")]


def test_relations_are_not_found_by_secrets_or_by_names_of_several(world: World) -> None:
    client = world.staff("product")
    Category.objects.create(tenant=world.ours.tenant, name="our category")
    text = upload(client, "sku,name,category__name\nA,New,our category\n")
    assert problems(text) == [("2", "category__name", "there is no such row to choose")]
    from automate_django.admin.bases.import_source import column_of

    assert column_of(Project, "owner__username") and not column_of(Project, "owner__password")
    assert not column_of(Project, "parent__api_key")


def test_rows_reached_by_another_row_are_imported_for_the_tenant(world: World) -> None:
    from automate_django.admin import ImportExportBaseAdmin
    from automate_django.admin.bases.import_plan import ImportPlanner
    from backoffice.admin import TaskAdmin, site
    from backoffice.models import Task
    from django.test import RequestFactory

    class Importing(ImportExportBaseAdmin, TaskAdmin):
        pass

    request = RequestFactory().get("/")
    request.user = world.user("add_task", "change_task", tenant=world.ours.tenant)
    ours, theirs = world.ours, world.theirs
    content = (
        f"id,project,title\n{ours.task.pk},{ours.project.pk},x\n,{ours.project.pk},new\n"
        f"{theirs.task.pk},{ours.project.pk},stolen\n,{theirs.project.pk},planted\n,,none\n"
        f"{ours.task.pk + 1000},{ours.project.pk},x\n"
    )
    made = Importing(Task, site)
    source = read(content.encode(), "csv", max_rows=10)
    with CaptureQueriesContext(connections[TestedDatabase.alias]) as queries:
        plan = ImportPlanner(made, request, source).plan()
    assert [row.line for row in plan.rows] == [2, 3]
    assert sorted(problem.line for problem in plan.problems) == [4, 5, 6, 7]
    assert len(queries) < 12


def test_unique_values_are_checked_over_all_rows(world: World) -> None:
    """Also where the key is not what is unique: told at the row, not by a crash."""
    client = world.staff("product")
    one, two = product(world, sku="A"), product(world, sku="B")
    text = upload(client, f"id,sku\n{one.pk},B\n{two.pk},B\n")
    assert problems(text) == [("2", "tenant_id, sku", "another row has this value already")]
    text = upload(client, f"id,sku\n{one.pk},C\n{two.pk},C\n")
    assert problems(text) == [("3", "tenant_id, sku", "the same value as in line 2")]


def test_rows_that_the_database_refuses_are_told(world: World) -> None:
    """What only the database knows (a trigger, a condition) is found before the confirmation."""
    client = world.staff("product")
    with connections[TestedDatabase.alias].cursor() as cursor:
        cursor.execute(
            "CREATE TRIGGER no_evil BEFORE INSERT ON backoffice_product WHEN NEW.name = 'evil' "
            "BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
    try:
        rows = "".join(f"S{n},{'evil' if n == 5 else 'good'}\n" for n in range(9))
        text = upload(client, f"sku,name\n{rows}")
    finally:
        with connections[TestedDatabase.alias].cursor() as cursor:
            cursor.execute("DROP TRIGGER no_evil")
    assert [each[0] for each in problems(text)] == ["7"]
    assert not Product.objects.exists()


def test_read_only_of_a_single_row_counts(world: World) -> None:
    """As in the specification's sample: a locked row's fields are read-only."""
    from backoffice.admin import ProjectAdmin, site
    from automate_django.admin import ImportExportBaseAdmin
    from automate_django.admin.bases.import_plan import ImportPlanner
    from django.test import RequestFactory

    class Importing(ImportExportBaseAdmin, ProjectAdmin):
        pass

    Project.objects.filter(pk=world.ours.project.pk).update(is_locked=True)
    request = RequestFactory().get("/")
    request.user = world.user("change_project", "view_project", tenant=world.ours.tenant)
    made = Importing(Project, site)
    for column, count in (("status", 1), ("name", 0)):
        value = "closed" if column == "status" else "x"
        content = f"id,{column}\n{world.ours.project.pk},{value}\n".encode()
        plan = ImportPlanner(made, request, read(content, "csv", max_rows=10)).plan()
        assert len(plan.problems) == count


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"\xef\xbb\xbfsku,name\nA,B\xc3\xa4cker\n", "mark of Excel"),
        ("sku;name\nA;Bäcker\n".encode(), "semicolons"),
        ("sku\tname\r\nA\tBäcker\r\n".encode(), "tabs"),
        ("sku,name\nA,Bäcker\n".encode("utf-16"), "UTF-16"),
        ("sku;name\nA;Bäcker\n".encode("cp1252"), "Windows"),
        (b'sku,name\n\n"A","B\xc3\xa4cker"\n,\n', "quotes and empty lines"),
    ],
)
def test_files_as_they_come_are_read(content: bytes, name: str) -> None:
    source = read(content, "csv", max_rows=10, known=["sku", "name"])
    assert [row for _line, row in source.rows] == [{"sku": "A", "name": "Bäcker"}]
    assert bool(source.notes) == (name == "Windows")


@pytest.mark.parametrize(
    ("content", "format"),
    [
        (b"", "csv"),
        (b"a,a\n1,2\n", "csv"),
        (b"a\n1\n2\n3\n4\n", "csv"),
        (b"a\n\0\n", "csv"),
        (b'a\n"' + b"x" * 200_000, "csv"),
        (b"{}", "json"),
        (b"[1", "json"),
        (b"[{}, {}, {}, {}]", "json"),
        (b'[{"a": NaN}]', "json"),
        (b"[" * 100_000, "json"),
        (b"\xff\xfe\x00\xd8", "csv"),
    ],
)
def test_files_that_cannot_be_read_are_refused(content: bytes, format: str) -> None:
    with pytest.raises(ImportFileError):
        read(content, format, max_rows=3)


def test_bounds_and_unknown_columns_are_told_at_the_form(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from backoffice.admin import ProductAdmin

    client = world.staff("product")
    assert "There is no field: colour" in upload(client, "sku,colour\nA,red\n")
    assert "key's column is missing: sku" in upload(client, "name\nA\n")
    monkeypatch.setattr(ProductAdmin, "import_max_rows", 2)
    assert "more than 2 rows" in upload(client, "sku,name\n" + "A,B\n" * 3)
    monkeypatch.setattr(ProductAdmin, "import_max_bytes", 10)
    assert "larger than 10 bytes" in upload(client, "sku,name\nA,New\n")
    assert not StagedImport.objects.exists()


def test_statements_do_not_grow_with_the_rows(world: World) -> None:
    """Thousands of rows take few statements: this is what keeps a large import short."""
    client = world.staff("product")

    def statements(count: int, name: str) -> int:
        rows = "".join(f"S{n},{name},{world.ours.category.pk}\n" for n in range(count))
        text = upload(client, f"sku,name,category\n{rows}")
        with CaptureQueriesContext(connections[TestedDatabase.alias]) as queries:
            assert confirm(client, text).status_code == 302
        assert Product.objects.filter(name=name).count() == count
        return len(queries)

    few = statements(10, "few")
    assert statements(400, "many") <= few + 30


def test_what_a_database_asks_at_the_end_is_asked_in_the_rehearsal(world_anywhere: World) -> None:
    """Foreign keys are checked when a transaction commits, which a rehearsal never does."""
    from automate_django.admin.bases.import_plan import rehearse
    from automate_django.admin.bases.import_plan import ImportPlan, RowPlan
    from backoffice.admin import site

    def row(line: int, **values: Any) -> RowPlan:
        fields = {"tenant_id": world_anywhere.ours.tenant.pk, "name": "x", **values}
        return RowPlan(line, Product(**fields), {}, {"name": "x"})

    good, gone = row(2, sku="A"), row(3, sku="B", category_id=999_999)
    plan = ImportPlan(rows=[good, gone, row(4, sku="C")])
    rehearse(site._registry[Product], plan)
    assert [(each.line, each.column) for each in plan.problems] == [(3, "")]
    assert "IntegrityError" in plan.problems[0].text
    assert [each.line for each in plan.rows] == [2, 4]
    # Nothing is left of it: no row, and no key that a row would have had.
    assert not Product.objects.exists()
    assert (good.obj.pk, good.obj._state.adding) == (None, True)


def test_rows_that_clash_with_each_other_alone(world_anywhere: World) -> None:
    """Each is fine by itself: the last of them is told, and what the clash is."""
    from automate_django.admin.bases.import_plan import rehearse
    from automate_django.admin.bases.import_plan import ImportPlan, RowPlan
    from backoffice.admin import site

    tenant = world_anywhere.ours.tenant.pk
    rows = [
        RowPlan(line, Product(tenant_id=tenant, sku=sku, name="x"), {}, {"name": "x"})
        for line, sku in ((2, "A"), (3, "B"), (4, "A"))
    ]
    plan = ImportPlan(rows=rows)
    rehearse(site._registry[Product], plan)
    assert [(each.line, "clash" in each.text) for each in plan.problems] == [(4, True)]
    assert [each.line for each in plan.rows] == [2, 3]


def test_what_is_counted_and_touched(world_anywhere: World) -> None:
    """Added and changed rows are counted apart, and a change moves ``updated_at``."""
    world = world_anywhere
    old, other = product(world, sku="A"), product(world, sku="B", name="Same")
    Product.objects.update(updated_at="2020-01-01T00:00Z")
    run(world.staff("product"), "sku,name\nA,New\nB,Same\nC,Other\n")
    for each in (old, other):
        each.refresh_from_db()
    assert (old.name, old.updated_at.year > 2020) == ("New", True)
    assert other.updated_at.year == 2020
    (entry,) = AuditEntry.objects.filter(action="import")
    assert (entry.details["created"], entry.details["updated"]) == (1, 1)
    actions = AuditEntry.objects.exclude(action="import").values_list("action", "details__line")
    assert sorted(actions) == [("create", 4), ("update", 2)]


@pytest.mark.parametrize("upserts", [True, False])
def test_a_change_moves_the_time_of_the_row_on_every_kind_of_database(
    world: World, monkeypatch: pytest.MonkeyPatch, upserts: bool
) -> None:
    """Changed rows get a new ``updated_at``, also on databases without "on conflict" by a key."""
    features = type(connections[TestedDatabase.alias].features)
    monkeypatch.setattr(features, "supports_update_conflicts_with_target", upserts)
    for sku in "ABC":
        product(world, sku=sku)
    Product.objects.update(updated_at="2020-01-01T00:00Z")
    start = timezone.now()
    run(world.staff("product"), "sku,name\nA,New\nB,Newer\nC,Old\n")
    found = {each.sku: each for each in Product.objects.all()}
    assert [found[sku].name for sku in "ABC"] == ["New", "Newer", "Old"]
    moved = {sku: each.updated_at for sku, each in found.items() if each.updated_at.year > 2020}
    assert set(moved) == {"A", "B"}
    assert all(start <= each <= timezone.now() for each in moved.values())


def test_mariadb_changes_the_row_of_the_key_alone(world_mariadb: World) -> None:
    """An import on MariaDB writes by primary key; no other row is hit by its unique values."""
    from automate_django.admin.bases.import_plan import ImportPlan, RowPlan, apply
    from backoffice.admin import site

    world = world_mariadb
    mine, other = product(world, sku="A"), product(world, sku="B")
    run(world.staff("product"), f"id,sku,name\n{mine.pk},C,New\n")
    rows = Product.objects.order_by("sku").values_list("pk", "sku", "name")
    assert list(rows) == [(other.pk, "B", "Old"), (mine.pk, "C", "New")]
    # There "on duplicate key" would write to whichever row has the SKU, if this one is gone.
    gone = Product(pk=mine.pk + 1000, tenant_id=world.ours.tenant.pk, sku="B", name="Taken")
    row = RowPlan(2, gone, before={"name": "Old"}, after={"name": "Taken"})
    request = Holder(user=world.user(tenant=world.ours.tenant), META={})
    apply(site._registry[Product], request, ImportPlan(rows=[row]), {})
    assert list(rows.all()) == [(other.pk, "B", "Old"), (mine.pk, "C", "New")]


def test_rows_are_saved_one_by_one_where_it_is_wanted(world: World) -> None:
    """``import_via_save`` calls ``save()`` once for each row, so that receivers hear of it."""
    from automate_django.admin.bases.import_plan import apply
    from automate_django.admin.bases.import_plan import ImportPlan, RowPlan
    from backoffice.admin import ProductAdmin, site
    from backoffice.models import Task
    from django.db.models.signals import post_save

    heard: list[Any] = []

    def hear(instance: Any, **_: Any) -> None:
        heard.append(instance)

    class ViaSave(ProductAdmin):
        import_via_save = True

    request = Holder(user=world.user(tenant=world.ours.tenant), META={})
    rows = [
        RowPlan(line, Product(tenant_id=world.ours.tenant.pk, sku=str(line), name="x"), {}, {})
        for line in (2, 3)
    ]
    post_save.connect(hear)
    try:
        apply(ViaSave(Product, site), request, ImportPlan(rows=rows), {})
        saved = [each for each in heard if isinstance(each, Product)]
        assert [each.sku for each in saved] == ["2", "3"]
        assert Product.objects.count() == 2
        # In bulk nobody hears of it; a model without a time of its change is fine too.
        heard.clear()
        task = RowPlan(2, Task(project=world.ours.project, title="new"), {}, {})
        bulk = type("Bulk", (ProductAdmin,), {"tenant_field": "project__tenant"})
        apply(bulk(Task, site), request, ImportPlan(rows=[task]), {})
        assert not [each for each in heard if isinstance(each, Task)]
        assert Task.objects.filter(title="new").count() == 1
    finally:
        post_save.disconnect(hear)


class Holder:
    """Something with attributes."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)
