"""In a real browser, under a strict policy: export, and import with a bad row."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

PRODUCTS = "/backoffice/backoffice/product/"


@pytest.fixture(autouse=True)
def no_complaints(operator: Any) -> Iterator[None]:
    """Nothing on the console of any page of the test."""
    yield
    assert [one.complaints for one in operator.made if one.complaints] == []


@pytest.fixture
def clerk(staff: Any) -> Iterator[Any]:
    """The name of somebody who keeps the products of one tenant."""
    from backoffice.models import Employment, Product, Tenant
    from django.contrib.auth.models import Permission

    tenant = Tenant.objects.create(name="Acme")
    user = staff(name=f"clerk-{uuid4().hex[:6]}").user
    user.user_permissions.set(
        Permission.objects.filter(
            content_type__app_label="backoffice", content_type__model="product"
        )
    )
    Employment.objects.create(user=user, tenant=tenant)
    for n in range(3):
        Product.objects.create(tenant_id=tenant.pk, sku=f"A-{n}", name=f"=cmd{n}", price=n)
    other = Product.objects.create(tenant_id=tenant.pk + 1, sku="X-1", name="Theirs")
    yield user
    Product.objects.filter(tenant_id=tenant.pk).delete()
    other.delete()
    tenant.delete()


def test_selected_rows_are_exported_safe_for_a_spreadsheet(operator, clerk, tmp_path):
    one = operator(clerk.username, accept_downloads=True)
    page = one.open(PRODUCTS)
    page.check("#action-toggle")
    labels = page.locator("select[name=action] option").all_inner_texts()
    page.select_option("select[name=action]", label=next(text for text in labels if "CSV" in text))
    with page.expect_download() as download:
        one.press("button[name=index]")
    file = tmp_path / "products.csv"
    download.value.save_as(file)

    with file.open(newline="", encoding="utf-8-sig") as opened:
        rows = list(csv.DictReader(opened))
    assert sorted(row["sku"] for row in rows) == ["A-0", "A-1", "A-2"]
    assert all(not row["name"].startswith("=") for row in rows)
    assert "webhook_secret" not in rows[0]


def test_a_file_with_a_bad_row_saves_nothing_and_the_mended_one_does(
    operator, clerk, tmp_path: Path
):
    from backoffice.models import Product

    def upload(text: str) -> Any:
        file = tmp_path / "products.csv"
        file.write_text(text, encoding="utf-8")
        page = one.open(PRODUCTS)
        one.press(".object-tools >> text=Import")
        page.set_input_files("input[type=file]", file)
        one.press("input[value=Preview]")
        return page

    one = operator(clerk.username)
    page = upload("sku,name,price\nA-0,Tea,2.50\nB-9,Milk,dear\n")
    table = page.locator("#import-problems").inner_text()
    assert "3" in table
    assert "price" in table
    assert "Nothing was saved" in page.content()
    assert not Product.objects.filter(name="Tea").exists()

    page = upload("sku,name,price\nA-0,Tea,2.50\nB-9,Milk,1\n")
    preview = page.locator("#import-preview").inner_text()
    assert "Tea" in preview
    assert "Milk" in preview
    one.press("input[name=confirm]")
    one.waits_for(".messagelist")
    assert {"Tea", "Milk"} <= set(Product.objects.values_list("name", flat=True))
