"""The REST API as OpenAPI, and the checks of ``AUTOMATE_API``."""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest
from automate_django.api.checks import check_api
from automate_django.api.options import DEFAULTS
from automate_django.conf import KEYS
from django.test import override_settings

spectacular = pytest.importorskip("drf_spectacular")

SCHEMA = "/api/automate/schema"


@pytest.fixture
def schema(empty: None, token: Any) -> dict[str, Any]:
    """The schema as a client gets it."""
    response = token("*", tenant_id="acme").get(SCHEMA, HTTP_ACCEPT="application/json")
    assert response.status_code == 200
    found: dict[str, Any] = json.loads(response.content)
    return found


def test_every_path_is_described(schema: dict[str, Any]) -> None:
    """With its methods; webhooks are their connectors' business."""
    assert sorted(schema["paths"]) == [
        "/events", "/executions", "/executions/bulk", "/executions/{execution_id}",
        "/executions/{execution_id}/cancel", "/executions/{execution_id}/resume",
        "/executions/{execution_id}/retry", "/outbox", "/outbox/bulk", "/outbox/stats",
        "/outbox/{item_id}", "/outbox/{item_id}/cancel", "/outbox/{item_id}/discard",
        "/outbox/{item_id}/requeue", "/outbox/{item_id}/reschedule", "/plugins", "/workflows",
        "/workflows/{name}", "/workflows/{name}/start",
    ]  # fmt: skip
    assert schema["servers"] == [{"url": "/api/automate"}]


def test_tokens_and_problems_are_described(schema: dict[str, Any]) -> None:
    """The security scheme, and what an error looks like."""
    assert schema["components"]["securitySchemes"]["apiToken"] == {
        "type": "http",
        "scheme": "bearer",
    }
    emit = schema["paths"]["/events"]["post"]
    assert {"apiToken": []} in emit["security"]
    assert "application/problem+json" in emit["responses"]["default"]["content"]
    assert "202" in emit["responses"]
    page = schema["paths"]["/outbox"]["get"]
    names = {each["name"] for each in page["parameters"]}
    assert {"status", "kind", "cursor", "page_size"} <= names


def test_the_schema_is_made_without_a_warning(empty: None) -> None:
    """It is valid OpenAPI, and drf-spectacular has nothing to say of our views."""
    from drf_spectacular.drainage import GENERATOR_STATS
    from drf_spectacular.generators import SchemaGenerator
    from drf_spectacular.validation import validate_schema

    GENERATOR_STATS.reset()
    with warnings.catch_warnings(), GENERATOR_STATS.silence():
        warnings.simplefilter("error")
        found = SchemaGenerator(urlconf="automate_django.api.urls").get_schema(public=True)
    assert not GENERATOR_STATS._warn_cache
    assert not GENERATOR_STATS._error_cache
    validate_schema(found)


def test_a_projects_own_views_are_described(empty: None) -> None:
    """Views that are made of our bases, in the project's own schema: no warning is due to us."""
    from drf_spectacular.drainage import GENERATOR_STATS
    from drf_spectacular.generators import SchemaGenerator

    from automate_django.api import BaseModelViewSet, RateLimitMixin, TenantFilterMixin
    from django.urls import path
    from service.models import Note
    from service.serializers import NoteSerializer

    class Notes(TenantFilterMixin, RateLimitMixin, BaseModelViewSet):
        queryset = Note.objects.all()
        serializer_class = NoteSerializer

    patterns = [
        path("notes", Notes.as_view({"get": "list", "post": "create"})),
        path("notes/<int:pk>", Notes.as_view({"get": "retrieve", "put": "update"})),
    ]
    spectacular = {"DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema"}
    GENERATOR_STATS.reset()
    with override_settings(REST_FRAMEWORK=spectacular), GENERATOR_STATS.silence():
        found = SchemaGenerator(patterns=patterns).get_schema(public=True)
    assert not GENERATOR_STATS._warn_cache
    assert not GENERATOR_STATS._error_cache
    listed = found["paths"]["/notes"]["get"]
    assert {"apiToken": []} in listed["security"]
    assert [each["name"] for each in listed["parameters"]] == ["cursor", "page_size"]


# -- checks -----------------------------------------------------------------------------------


def ids(**given: Any) -> list[str]:
    """What the check finds in ``AUTOMATE_API``."""
    with override_settings(AUTOMATE_API=given):
        found = check_api()
    assert all(message.hint for message in found), found
    return sorted(str(message.id) for message in found)


def test_keys_are_known_and_documented() -> None:
    """Each has a default, and is listed among the settings."""
    assert set(KEYS["AUTOMATE_API"]) == set(DEFAULTS)


def test_defaults_are_fine(sqlite: str) -> None:
    """Nothing to say of none, nor of a sensible setting."""
    assert ids() == []
    assert ids(CORS_ALLOWED_ORIGINS=["https://app.example", "http://localhost:3000"]) == []
    assert ids(TENANT="service.models.organization_of", TRUSTED_PROXIES=2) == []


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"CORS_ALLOWED_ORIGINS": ["*"], "CORS_ALLOW_CREDENTIALS": True}, "automate.E023"),
        ({"CORS_ALLOWED_ORIGINS": ["https://app.example/"]}, "automate.E024"),
        ({"CORS_ALLOWED_ORIGINS": ["app.example"]}, "automate.E024"),
        ({"CORS_ALLOWED_ORIGINS": ["null"]}, "automate.E024"),
        ({"CORS_ALLOWED_ORIGINS": "https://app.example"}, "automate.E021"),
        ({"PERMISSIONS": ["service.nothing"]}, "automate.E022"),
        ({"AUTHENTICATION": ["service.models.organization_of"]}, "automate.E021"),
        ({"TENANT": "service.models.missing"}, "automate.E022"),
        ({"PAGE_SIZE": 0}, "automate.E021"),
        ({"PAGINATION": "pages"}, "automate.E021"),
        ({"TRUSTED_PROXIES": -1}, "automate.E021"),
        ({"TRUSTED_PROXIES": True}, "automate.E021"),
        ({"RATE_LIMIT_PER_MINUTE": 0}, "automate.E021"),
        ({"RATE_LIMIT_CACHE": "none"}, "automate.E021"),
        ({"THROTTLES": ["rest_framework.throttling.AnonRateThrottle"]}, "automate.W021"),
    ],
)
def test_what_is_wrong_is_told(sqlite: str, given: Any, expected: str) -> None:
    """With a hint."""
    assert ids(**given) == [expected]


@pytest.mark.parametrize("backend", ["dummy.DummyCache", "filebased.FileBasedCache"])
def test_a_cache_that_cant_count(sqlite: str, backend: str) -> None:
    """It would let a race through, or everybody."""
    cache = {"BACKEND": f"django.core.cache.backends.{backend}", "LOCATION": "/tmp/nothing"}
    with override_settings(CACHES={"default": cache}):
        assert ids(PAGE_SIZE=10) == ["automate.W020"]


def test_an_old_framework_on_a_new_django(monkeypatch: pytest.MonkeyPatch) -> None:
    """REST framework 3.17 can't be imported on 6.1, and pip lets it be."""
    monkeypatch.setattr("automate_django.api.checks.django.VERSION", (6, 1, 0, "final", 0))
    monkeypatch.setattr("automate_django.api.checks.version", lambda name: "3.17.2")
    (message,) = check_api()
    assert (message.id, "3.18" in str(message.hint)) == ("automate.E020", True)
