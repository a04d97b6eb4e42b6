"""Values that are unique per tenant, and rows that others need: told as the client's, never 500."""

from __future__ import annotations

from typing import Any

import pytest
from service.models import Article, Profile

ARTICLES = "/service/articles/"


def told(response: Any) -> tuple[int, list[tuple[str, str]]]:
    """The status, and where which error is."""
    errors = response.json().get("errors", [])
    return response.status_code, [(each["pointer"], each["code"]) for each in errors]


def test_a_value_that_is_taken_is_an_error_at_its_field(world_anywhere: Any) -> None:
    """The tenant is no field of the serializer, and the constraint has a condition."""
    client = world_anywhere.client()
    first = client.post(ARTICLES, {"code": "A-1", "title": "one"}, format="json")
    assert first.status_code == 201, first.content
    again = client.post(ARTICLES, {"code": "A-1", "title": "two"}, format="json")
    assert told(again) == (400, [("#/code", "unique")])
    assert "organization" not in again.content.decode()
    # Another tenant's values are free, and those of rows that the condition leaves out.
    theirs = world_anywhere.client(world_anywhere.roman)
    assert theirs.post(ARTICLES, {"code": "A-1", "title": "one"}, format="json").status_code == 201
    Article.objects.update(is_deleted=True)
    new = client.post(ARTICLES, {"code": "A-1", "title": "two"}, format="json")
    assert new.status_code == 201


@pytest.mark.parametrize("method", ["put", "patch"])
def test_a_change_is_checked_as_a_new_row_is(world_anywhere: Any, method: str) -> None:
    """To another row's value: refused. To its own: a change like any other."""
    client = world_anywhere.client()
    paths = []
    for name in ("a", "b"):
        row = client.post(ARTICLES, {"code": name, "title": name}, format="json").json()
        paths.append(f"{ARTICLES}{row['id']}/")
    send = getattr(client, method)
    taken = send(paths[1], {"code": "a", "title": "c"}, format="json")
    assert told(taken) == (400, [("#/code", "unique")])
    own = send(paths[1], {"code": "b", "title": "B"}, format="json")
    assert (own.status_code, own.json()["title"]) == (200, "B")


def test_what_is_unique_by_an_expression(world_anywhere: Any) -> None:
    """``UniqueConstraint("organization", Lower("title"))`` is checked as the database does."""
    client = world_anywhere.client()
    assert client.post(ARTICLES, {"code": "a", "title": "Tea"}, format="json").status_code == 201
    again = client.post(ARTICLES, {"code": "b", "title": "TEA"}, format="json")
    assert told(again) == (400, [("#/title", "unique")])


def test_what_is_unique_together(world_anywhere: Any) -> None:
    """Several fields with the tenant: an error of the whole. NULL is equal to nothing."""
    client = world_anywhere.client()
    for code, place, status in (("a", 1, 201), ("b", 1, 400), ("c", 2, 201), ("d", None, 201)):
        given = {"code": code, "title": code, "place": place}
        response = client.post(ARTICLES, given, format="json")
        assert response.status_code == status, response.content
        if status == 400:
            assert told(response) == (400, [("#", "unique")])
            assert "shelf" in response.json()["errors"][0]["detail"]
    assert client.post(ARTICLES, {"code": "e", "title": "e", "place": None}, format="json")
    changed = Article.objects.get(code="c")
    answer = client.patch(f"{ARTICLES}{changed.pk}/", {"place": 1}, format="json")
    assert told(answer) == (400, [("#", "unique")])


def test_one_row_for_each_tenant(world_anywhere: Any) -> None:
    """A one-to-one field to the tenant: the second row is refused."""
    client = world_anywhere.client()
    assert client.post("/service/profiles/", {"motto": "a"}, format="json").status_code == 201
    again = client.post("/service/profiles/", {"motto": "b"}, format="json")
    assert told(again) == (400, [("#", "unique")])
    assert Profile.objects.count() == 1
    path = f"/service/profiles/{Profile.objects.get().pk}/"
    assert client.patch(path, {"motto": "b"}, format="json").status_code == 200


def test_rows_of_a_list_are_checked_against_each_other(world_anywhere: Any) -> None:
    """The row that repeats another's value is named, and none is written."""
    client = world_anywhere.client()
    rows = [{"code": "a", "title": "a"}, {"code": "b", "title": "b"}, {"code": "a", "title": "c"}]
    answer = client.post(f"{ARTICLES}many/", rows, format="json")
    assert told(answer) == (400, [("#/2/code", "unique")])
    Article.objects.create(organization=world_anywhere.acme, code="b", title="there")
    answer = client.post(f"{ARTICLES}many/", rows[:2], format="json")
    assert told(answer) == (400, [("#/1/code", "unique")])
    # What no validation sees of it is still all or nothing.
    rows = [{"code": "x", "title": "Tea"}, {"code": "y", "title": "TEA"}]
    assert client.post(f"{ARTICLES}many/", rows, format="json").status_code in (400, 409)
    assert Article.objects.count() == 1


def test_what_only_the_database_sees_is_a_conflict(world_anywhere: Any) -> None:
    """Two clients at once, or a view that writes by itself: 409, in the form of all problems."""
    client = world_anywhere.client()
    row = {"code": "a", "title": "a"}
    assert client.post(f"{ARTICLES}unseen/", row, format="json").status_code == 201
    answer = client.post(f"{ARTICLES}unseen/", row, format="json")
    assert (answer.status_code, answer.json()["code"]) == (409, "ALREADY_EXISTS")
    assert answer["Content-Type"] == "application/problem+json"
    assert "service_article" not in answer.content.decode()
    # Afterwards the connection is as it was.
    assert client.get(ARTICLES).status_code == 200


def test_a_row_that_breaks_a_check_is_the_clients(world_anywhere: Any) -> None:
    """A check constraint says what values there may be: 400, not 500."""
    client = world_anywhere.client()
    answer = client.post(ARTICLES, {"code": "a", "title": "a", "price": -1}, format="json")
    assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_ARGUMENT")


def test_a_row_that_others_need_stays(world_anywhere: Any) -> None:
    """PROTECT answers a DELETE with 409, and names no row."""
    Article.objects.create(
        organization=world_anywhere.acme, code="secret-9a3f", title="a", tag=world_anywhere.our_tag
    )
    client = world_anywhere.client()
    answer = client.delete(f"/service/tags/{world_anywhere.our_tag.pk}/")
    assert (answer.status_code, answer.json()["code"]) == (409, "FAILED_PRECONDITION")
    assert "9a3f" not in answer.content.decode()


def test_who_only_reads_has_broken_nothing(world_anywhere: Any) -> None:
    """A constraint that a GET breaks is a bug of the view: 500, and the log has it."""
    answer = world_anywhere.client().get(f"{ARTICLES}careless/")
    assert answer.status_code == 500
