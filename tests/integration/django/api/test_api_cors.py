"""Cross-origin requests, as browsers send them."""

from __future__ import annotations

from typing import Any

import pytest
from automate_django.api import BaseAPIView, CORSMixin
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from rest_framework.test import APIClient

APP, ADMIN, EVIL = "https://app.example", "https://admin.example", "https://evil.example"


@pytest.fixture
def client(sqlite: str) -> APIClient:
    """A browser, as it were."""
    return APIClient(raise_request_exception=False)


def preflight(client: APIClient, path: str, origin: str = APP) -> Any:
    """What a browser asks before it sends anything."""
    return client.options(
        path,
        HTTP_ORIGIN=origin,
        HTTP_ACCESS_CONTROL_REQUEST_METHOD="POST",
        HTTP_ACCESS_CONTROL_REQUEST_HEADERS="content-type",
    )


def test_one_allowed_origin_is_echoed(client: APIClient) -> None:
    """Never a list of origins, which no browser takes."""
    for origin in (APP, ADMIN):
        response = client.get("/service/credentials", HTTP_ORIGIN=origin)
        assert response["Access-Control-Allow-Origin"] == origin
        assert response["Access-Control-Allow-Credentials"] == "true"


@pytest.mark.parametrize(
    "origin", [EVIL, "null", "https://app.example.evil.example", "http://app.example", ""]
)
def test_another_origin_is_not(client: APIClient, origin: str) -> None:
    """Nor one that only looks alike."""
    response = client.get("/service/credentials", HTTP_ORIGIN=origin)
    assert response.status_code == 200
    assert not response.has_header("Access-Control-Allow-Origin")
    assert not response.has_header("Access-Control-Allow-Credentials")


@pytest.mark.parametrize("origin", [APP, EVIL, None])
def test_caches_are_told_that_it_varies(client: APIClient, origin: str | None) -> None:
    """Else one origin's answer would be another's, and the one without any everybody's."""
    headers = {"HTTP_ORIGIN": origin} if origin else {}
    response = client.get("/service/credentials", **headers)
    assert "Origin" in response["Vary"]


@pytest.mark.parametrize("kind", ["missing", "bug"])
def test_errors_have_the_headers_too(client: APIClient, kind: str) -> None:
    """Else the browser hides what went wrong from the app."""
    response = client.get(f"/service/errors/{kind}", HTTP_ORIGIN=APP)
    assert response.status_code in (404, 500)
    assert response["Access-Control-Allow-Origin"] == APP
    assert "retry-after" in response["Access-Control-Expose-Headers"]


def test_a_preflight_needs_no_authentication(client: APIClient) -> None:
    """Browsers send none with it; who is refused here never comes to authenticate."""
    allow = {"CORS_ALLOWED_ORIGINS": [APP], "CORS_ALLOWED_METHODS": ["GET", "POST"]}
    with override_settings(AUTOMATE_API=allow):
        response = preflight(client, "/api/automate/executions")
        assert client.get("/api/automate/executions", HTTP_ORIGIN=APP).status_code == 401
    assert response.status_code == 204
    assert response["Access-Control-Allow-Origin"] == APP
    assert response["Access-Control-Allow-Methods"] == "GET, POST"
    assert "idempotency-key" in response["Access-Control-Allow-Headers"]
    assert response["Access-Control-Max-Age"] == "600"
    assert {"Origin", "Access-Control-Request-Method"} <= set(response["Vary"].split(", "))


def test_a_401_has_the_headers(client: APIClient) -> None:
    """An app sees that its token has ended."""
    with override_settings(AUTOMATE_API={"CORS_ALLOWED_ORIGINS": [APP]}):
        response = client.get("/api/automate/executions", HTTP_ORIGIN=APP)
    assert (response.status_code, response["Access-Control-Allow-Origin"]) == (401, APP)


def test_a_preflight_of_another_origin_allows_nothing(client: APIClient) -> None:
    """And tells it nothing either."""
    response = preflight(client, "/service/credentials", EVIL)
    assert response.status_code == 204
    allowed = [name for name in response.headers if name.startswith("Access-Control")]
    assert allowed == []


def test_a_views_own_age(client: APIClient) -> None:
    """``cors_max_age`` of the view."""
    assert preflight(client, "/service/credentials")["Access-Control-Max-Age"] == "30"


def test_options_without_an_origin_is_the_views(client: APIClient) -> None:
    """REST framework's description of a view is no preflight."""
    assert client.options("/service/credentials").json()["name"] == "Credentials"


def test_any_origin_is_without_credentials(client: APIClient) -> None:
    """``*`` for what is public; no cookie goes with it."""
    response = client.get("/service/any-origin", HTTP_ORIGIN=EVIL)
    assert response["Access-Control-Allow-Origin"] == "*"
    assert not response.has_header("Access-Control-Allow-Credentials")


def test_any_origin_with_credentials_is_refused() -> None:
    """At the class, when the project starts."""
    with pytest.raises(ImproperlyConfigured, match="every site"):
        type(
            "Open",
            (CORSMixin, BaseAPIView),
            {"cors_allowed_origins": ["*"], "cors_allow_credentials": True},
        )
    with pytest.raises(ImproperlyConfigured, match="list"):
        type("Text", (CORSMixin, BaseAPIView), {"cors_allowed_origins": "https://a.example"})


def test_any_origin_with_credentials_in_settings_allows_nothing(client: APIClient) -> None:
    """A check says so; whoever runs without checks is closed, not open."""
    wrong = {"CORS_ALLOWED_ORIGINS": ["*"], "CORS_ALLOW_CREDENTIALS": True}
    with override_settings(AUTOMATE_API=wrong):
        response = client.get("/api/automate/executions", HTTP_ORIGIN=EVIL)
    assert not response.has_header("Access-Control-Allow-Origin")


def test_without_origins_it_is_closed(client: APIClient) -> None:
    """The default: no header at all."""
    response = client.get("/api/automate/executions", HTTP_ORIGIN=APP)
    assert not response.has_header("Access-Control-Allow-Origin")
    assert "Origin" not in response.get("Vary", "")
