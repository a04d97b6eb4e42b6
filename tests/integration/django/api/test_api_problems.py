"""Errors as problem details: what is told, and what never is."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from django.test import override_settings
from rest_framework.test import APIClient

ERRORS = "/service/errors/"


@pytest.fixture
def client(sqlite: str) -> APIClient:
    """A client that gets an answer to a bug, as a browser does."""
    return APIClient(raise_request_exception=False)


@pytest.mark.parametrize(
    ("kind", "status", "code", "detail"),
    [
        ("missing", 404, "NOT_FOUND", "there is no such thing"),
        ("busy", 429, "RESOURCE_EXHAUSTED", "too many"),
        ("down", 503, "UNAVAILABLE", "Try again later."),
        ("config", 500, "INTERNAL", "It failed. The log of the service says why."),
        ("bug", 500, "INTERNAL", "It failed. The log of the service says why."),
        ("own", 418, "TEAPOT", "A teapot."),
    ],
)
def test_an_error_is_a_problem(
    client: APIClient, kind: str, status: int, code: str, detail: str
) -> None:
    """The type is RFC 9457's, and the code says to programs what it was."""
    response = client.get(ERRORS + kind)
    assert response.status_code == status
    assert response["Content-Type"] == "application/problem+json"
    body = response.json()
    assert (body["type"], body["status"], body["code"]) == ("about:blank", status, code)
    assert body["detail"] == detail
    assert body["title"]


def test_nothing_internal_is_told(client: APIClient, caplog: pytest.LogCaptureFixture) -> None:
    """A bug's text is for the log alone, with its traceback."""
    with caplog.at_level(logging.ERROR):
        response = client.get(ERRORS + "bug")
    assert b"hunter2" not in response.content
    assert "hunter2" in caplog.text
    assert b"db01" not in client.get(ERRORS + "down").content


def test_error_reports_hear_of_a_bug(sqlite: str) -> None:
    """`got_request_exception` is sent, as for any view: the test client raises by it."""
    with pytest.raises(RuntimeError, match="hunter2"):
        APIClient().get(ERRORS + "bug")


def test_with_debug_a_bug_has_its_page(sqlite: str) -> None:
    """Developers see Django's own page."""
    with override_settings(DEBUG=True), pytest.raises(RuntimeError):
        APIClient().get(ERRORS + "bug")


def test_a_known_secret_is_taken_out(client: APIClient) -> None:
    """What a secrets backend gave out does not leave in an error, even one that is told."""
    from automate_django import get_kernel

    get_kernel().redactor.add("tok-51d0")
    response = client.get(ERRORS + "secret")
    assert response.status_code == 400
    assert response.json()["detail"] == "[secret] is no channel"


@pytest.mark.parametrize(("kind", "seconds"), [("busy", "18"), ("down", "5")])
def test_when_to_come_again(client: APIClient, kind: str, seconds: str) -> None:
    """``Retry-After``, rounded up."""
    assert client.get(ERRORS + kind)["Retry-After"] == seconds


def test_headers_of_a_problem(client: APIClient) -> None:
    """A view's own headers go with it."""
    assert client.get(ERRORS + "own")["X-Pot"] == "tea"


def test_validation_errors_point_at_the_field(client: APIClient) -> None:
    """JSON pointers into the body, through lists."""
    given = {"name": "long", "lines": [{"price": "1.00"}, {"price": "x"}]}
    body = client.post(ERRORS + "x", given, format="json").json()
    assert body["detail"] == "The request is not valid."
    told = {error["pointer"]: error["code"] for error in body["errors"]}
    assert told == {"#/name": "max_length", "#/lines/1/price": "invalid"}


def test_an_error_of_the_whole_points_at_the_whole(client: APIClient) -> None:
    """``non_field_errors`` is no name in the body."""
    given = {"name": "bad", "lines": []}
    (error,) = client.post(ERRORS + "x", given, format="json").json()["errors"]
    assert error == {"pointer": "#", "detail": "Bad as a whole.", "code": "invalid"}


def test_pointers_are_escaped() -> None:
    """A name with a slash is one step (RFC 6901)."""
    from automate_django.api.problems import problem_exception_handler
    from rest_framework.exceptions import ValidationError

    response: Any = problem_exception_handler(ValidationError({"a/b~c": ["no"]}), {})
    assert response.data["errors"][0]["pointer"] == "#/a~1b~0c"


def test_broken_json_and_wrong_methods_are_problems(client: APIClient) -> None:
    """What REST framework itself refuses has the same shape."""
    broken = client.post(ERRORS + "x", "{", content_type="application/json")
    assert (broken.status_code, broken["Content-Type"]) == (400, "application/problem+json")
    method = client.delete(ERRORS + "x")
    assert (method.status_code, method.json()["code"]) == (405, "METHOD_NOT_ALLOWED")
    assert method["Allow"] == "GET, POST, HEAD, OPTIONS"


def test_a_page_stays_a_page(client: APIClient) -> None:
    """In the browsable API an error is shown as HTML, and says so."""
    response = client.get(ERRORS + "missing", HTTP_ACCEPT="text/html")
    assert response["Content-Type"].startswith("text/html")


def test_problem_types_lead_to_a_page(client: APIClient) -> None:
    """A project that explains its problems names where."""
    with override_settings(AUTOMATE_API={"PROBLEM_TYPES": "https://api.example/problems/"}):
        body = client.get(ERRORS + "missing").json()
    assert body["type"] == "https://api.example/problems/NOT_FOUND"
