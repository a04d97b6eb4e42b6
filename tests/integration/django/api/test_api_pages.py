"""Pages: nothing lost, nothing twice, and never more than is good."""

from __future__ import annotations

from typing import Any

import pytest
from rest_framework.test import APIClient
from service.models import Note

NOTES, OFFSET = "/service/notes/", "/service/offset-notes/"


@pytest.fixture
def client(world: Any) -> APIClient:
    """Alice's client, and seven notes of hers."""
    tenant = str(world.acme.pk)
    Note.objects.bulk_create(Note(tenant_id=tenant, text=f"{n % 2}") for n in range(7))
    return world.client()


def texts(client: APIClient, path: str) -> list[list[int]]:
    """The ids on each page, followed by their links."""
    pages = []
    while path:
        body = client.get(path).json()
        pages.append([row["id"] for row in body["results"]])
        path = body["next"]
    return pages


def ids() -> list[int]:
    """All ids, the newest first."""
    return list(Note.objects.order_by("-pk").values_list("pk", flat=True))


def test_cursor_pages_hold_every_row_once(client: APIClient) -> None:
    """The newest first, in pages of the size that is asked for."""
    pages = texts(client, f"{NOTES}?page_size=3")
    assert [len(page) for page in pages] == [3, 3, 1]
    assert sum(pages, []) == ids()


def test_rows_that_come_or_go_move_no_page(client: APIClient) -> None:
    """Between two pages one is added and one on the first is deleted."""
    before = ids()
    first = client.get(f"{NOTES}?page_size=3").json()
    Note.objects.create(tenant_id=Note.objects.first().tenant_id, text="new")
    Note.objects.filter(pk=before[1]).delete()
    second = client.get(first["next"]).json()
    assert [row["id"] for row in second["results"]] == before[3:6]


def test_equal_rows_have_an_order(client: APIClient) -> None:
    """Ordered by a column of two values, no row is lost at the border of a page."""
    pages = texts(client, f"{NOTES}?page_size=2&ordering=text")
    assert sorted(sum(pages, [])) == sorted(ids())
    assert [len(page) for page in pages] == [2, 2, 2, 1]


def test_back_again(client: APIClient) -> None:
    """``previous`` leads to what came before."""
    first = client.get(f"{NOTES}?page_size=3").json()
    second = client.get(first["next"]).json()
    assert client.get(second["previous"]).json()["results"] == first["results"]


@pytest.mark.parametrize("cursor", ["x", "cD14", "cD0xMDAwMDAwMDAwMDAwMDAwMDAwMDAwMA==", "%00"])
def test_a_cursor_that_nobody_gave_out(client: APIClient, cursor: str) -> None:
    """404: no crash for what is no number, or too big a one; 400 for what is no text."""
    response = client.get(f"{NOTES}?cursor={cursor}")
    assert response.status_code in (200, 404) or (cursor, response.status_code) == ("%00", 400), (
        response.content
    )
    if response.status_code == 200:
        assert len(response.json()["results"]) <= 7


def test_a_page_is_bounded(client: APIClient, world: Any) -> None:
    """``MAX_PAGE_SIZE`` whoever asks for more, and ``PAGE_SIZE`` for who asks for none."""
    tenant = str(world.acme.pk)
    Note.objects.bulk_create(Note(tenant_id=tenant, text="x") for _ in range(210))
    assert len(client.get(f"{NOTES}?page_size=500000").json()["results"]) == 200
    assert len(client.get(NOTES).json()["results"]) == 50


@pytest.mark.parametrize("path", [NOTES, OFFSET])
@pytest.mark.parametrize("asked", ["0", "-1", "x", "", "1.5", "9" * 5000, "\u0661"])
def test_a_size_that_is_none(client: APIClient, path: str, asked: str) -> None:
    """400, as for any parameter that is misspelt; and it is told which."""
    name = "page_size" if path == NOTES else "limit"
    response = client.get(path, {name: asked})
    assert (response.status_code, response.json()["errors"][0]["parameter"]) == (400, name)
    assert client.get(OFFSET, {"offset": "-1"}).status_code == 400


def test_offset_pages(client: APIClient) -> None:
    """By page number, with a count, in an order that stays though the queryset has none."""
    body = client.get(OFFSET).json()
    assert (body["count"], len(body["results"])) == (7, 2)
    assert len(client.get(f"{OFFSET}?limit=100").json()["results"]) == 5
    assert sum(texts(client, OFFSET), []) == sorted(ids())


def test_a_far_offset_is_no_page(client: APIClient) -> None:
    """The database would read and drop as many rows."""
    assert client.get(f"{OFFSET}?offset=10001").status_code == 404
