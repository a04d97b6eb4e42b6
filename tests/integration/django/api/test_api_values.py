"""Values that a database can't take, wherever a client can put them: 400 or 404, never 500."""

from __future__ import annotations

import json
from typing import Any

import pytest
from service.models import Article

HUGE = "9" * 30


@pytest.mark.parametrize(
    "path",
    [
        "/service/articles/?code=a%00b",
        "/service/articles/?nothing=%00",
        "/service/articles/?page_size=%00",
        "/service/codes/a%00b/",
        "/service/named-tags/%00/",
        "/service/notes/?ordering=%00",
        "/api/automate/outbox?kind=%00",
        "/api/automate/workflows/%00",
        "/api/automate/outbox/%00",
        "/api/automate/executions?workflow=%00",
    ],
)
def test_nul_in_an_address(world_anywhere: Any, path: str) -> None:
    """PostgreSQL has no text with NUL in it: nothing is there, or can be looked up by it."""
    world_anywhere.alice.is_superuser = world_anywhere.alice.is_staff = True
    world_anywhere.alice.save()
    answer = world_anywhere.client().get(path)
    expected = 400 if "?" in path else 404
    assert (answer.status_code, answer.json()["status"]) == (expected, expected), answer.content


@pytest.mark.parametrize(
    "given",
    [
        {"code": "a\0", "title": "a"},
        {"code": "a", "title": "a", "tag": "a\0b"},
        {"code": "a", "title": "a", "tag": "\ud800"},
        {"code": "a", "title": "a", "place": int(HUGE)},
    ],
)
def test_what_no_database_stores_in_a_body(world_anywhere: Any, given: Any) -> None:
    """In a text, and in the name of a related row."""
    answer = world_anywhere.client().post(
        "/service/articles/", json.dumps(given), content_type="application/json"
    )
    assert (answer.status_code, answer.json()["status"]) == (400, 400), answer.content
    assert not Article.objects.exists()


@pytest.mark.parametrize("extra", ["\ud800", {"a": ["x\udfff"]}, {"\ud83d": 1}])
def test_half_a_surrogate_pair_in_json(world_anywhere: Any, extra: Any) -> None:
    """SQLite would store it, and no answer could show it; a whole pair is a character."""
    given = {"code": "a", "title": "a", "extra": extra}
    client = world_anywhere.client()
    answer = client.post("/service/articles/", json.dumps(given), content_type="application/json")
    assert (answer.status_code, answer.json()["status"]) == (400, 400), answer.content
    assert client.get("/service/articles/").json()["results"] == []
    whole = json.dumps({**given, "extra": "\U0001f600"})
    answer = client.post("/service/articles/", whole, content_type="application/json")
    assert (answer.status_code, answer.json()["extra"]) == (201, "\U0001f600"), answer.content


@pytest.mark.parametrize("extra", [{"a": "\0"}, {"\0": 1}, ["\ud800"]])
def test_what_postgresql_does_not_store_in_json(world_on_postgresql: Any, extra: Any) -> None:
    """``jsonb`` has neither NUL nor half a surrogate pair."""
    given = {"code": "a", "title": "a", "extra": extra}
    client = world_on_postgresql.client()
    answer = client.post("/service/articles/", json.dumps(given), content_type="application/json")
    assert (answer.status_code, answer.json()["status"]) == (400, 400), answer.content
    assert client.get("/service/articles/").json()["results"] == []


@pytest.mark.parametrize("path", [f"?place={HUGE}", f"{HUGE}/", f"?place=-{HUGE}"])
def test_numbers_that_are_too_large(world_anywhere: Any, path: str) -> None:
    """Nothing has such a number: an empty list, 404 or 400, whatever the database and Django."""
    answer = world_anywhere.client().get(f"/service/articles/{path}")
    assert answer.status_code in (200, 400, 404), answer.content
    if answer.status_code == 200:
        assert answer.json()["results"] == []


def test_nul_in_a_form(world_anywhere: Any) -> None:
    """Form data is read by another parser, and is no way round."""
    given = {"code": "a", "title": "a", "tag": "a\0b"}
    answer = world_anywhere.client().post("/service/articles/", given, format="multipart")
    assert answer.status_code == 400, answer.content
