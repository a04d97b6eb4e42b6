"""The REST API as OpenAPI, and the checks of ``AUTOMATE_API``."""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest
from automate_django.checks import check_api
from automate_django.conf import DEFAULTS, KEYS
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
    """With its methods; webhooks are their connectors' business, and links are for people."""
    from automate_kernel.http.api.openapi import path_of
    from automate_kernel.http.api.routes import ROUTES
    from drf_spectacular.generators import SchemaGenerator

    ours = {(route.method.lower(), path_of(route)) for route in ROUTES}
    urls = SchemaGenerator(urlconf="automate_django.api.urls").get_schema(public=True)["paths"]
    for paths in (schema["paths"], urls):
        assert {(method, path) for path, each in paths.items() for method in each} == ours
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


def test_a_projects_own_views_tell_what_is_enforced(empty: None) -> None:
    """The tenant is read-only, errors are problems, keys and sizes of pages have their bounds."""
    from drf_spectacular.generators import SchemaGenerator
    from drf_spectacular.openapi import AutoSchema
    from drf_spectacular.utils import extend_schema

    from automate_django.api import BaseModelViewSet, IdempotencyMixin, TenantFilterMixin
    from django.urls import path
    from rest_framework import serializers
    from service.models import Project

    class Own(AutoSchema):
        def get_tags(self) -> list[str]:
            return ["own"]

    class NamedProject(serializers.ModelSerializer):
        words = serializers.ListField(child=serializers.CharField(), allow_empty=False)

        class Meta:
            model = Project
            fields = ["name", "organization", "words"]

    with override_settings(REST_FRAMEWORK={"DEFAULT_SCHEMA_CLASS": Own}):

        class Projects(IdempotencyMixin, TenantFilterMixin, BaseModelViewSet):
            queryset = Project.objects.all()
            serializer_class = NamedProject
            tenant_field = "organization_id"
            max_page_size = 70
            page_size = 7

            @extend_schema(operation_id="make")
            def create(self, *args: Any, **kwargs: Any) -> Any:
                """Described by the project itself."""
                return super().create(*args, **kwargs)

        class Offset(Projects):
            pagination_style = "offset"

        patterns = [
            path("projects", Projects.as_view({"get": "list", "post": "create"})),
            path("offset", Offset.as_view({"get": "list"})),
        ]
        found = SchemaGenerator(patterns=patterns).get_schema(public=True)
    listed, made = (found["paths"]["/projects"][method] for method in ("get", "post"))
    for each in (listed, made):
        assert "application/problem+json" in each["responses"]["default"]["content"]
        assert each["tags"] == ["own"]  # the project's own schema class is still asked
    assert made["operationId"] == "make"
    project = found["components"]["schemas"]["NamedProject"]["properties"]
    assert project["organization"]["readOnly"] is True
    assert "readOnly" not in project["name"]
    assert project["words"]["minItems"] == 1
    (key,) = (each for each in made["parameters"] if each["name"] == "Idempotency-Key")
    assert (key["in"], key["schema"]["pattern"]) == ("header", "^[!-~]{1,255}$")
    assert "Idempotency-Key" not in [each["name"] for each in listed["parameters"]]
    size = {"type": "integer", "minimum": 1, "default": 7}
    assert size in [each["schema"] for each in listed["parameters"]]
    told = [each for each in listed["parameters"] if each["name"] == "page_size"]
    assert told[0]["description"] == "Rows on a page; never over 70."
    offset = found["paths"]["/offset"]["get"]["parameters"]
    assert size in [each["schema"] for each in offset]
    assert {"type": "integer", "minimum": 0, "maximum": 10_000} in [e["schema"] for e in offset]


def test_a_projects_own_serializers_keep_their_names(empty: None) -> None:
    """A project has an Item, an Execution and a Step of its own: ours don't take their places."""
    from django.urls import include, path
    from drf_spectacular.generators import SchemaGenerator
    from drf_spectacular.openapi import AutoSchema
    from rest_framework import serializers
    from rest_framework.generics import CreateAPIView

    class ItemSerializer(serializers.Serializer):
        sku = serializers.CharField()

    class Items(CreateAPIView):
        schema = AutoSchema()
        serializer_class = ItemSerializer

    patterns = [
        path("api/item/", Items.as_view()),
        path("api/automate/", include("automate_django.api.urls")),
    ]
    found = SchemaGenerator(patterns=patterns).get_schema(public=True)
    assert list(found["components"]["schemas"]["Item"]["properties"]) == ["sku"]
    body = found["paths"]["/api/item/"]["post"]["requestBody"]["content"]["application/json"]
    assert body["schema"] == {"$ref": "#/components/schemas/Item"}
    ours = set(found["components"]["schemas"]) - {"Item"}
    assert {name for name in ours if "Automate" not in name} == set()
    ids = [each["operationId"] for path in found["paths"].values() for each in path.values()]
    assert len(ids) == len(set(ids))


def test_what_the_automation_enforces_is_in_its_schema(schema: dict[str, Any]) -> None:
    """Words, lengths, names that nobody reads, one of two: as the serializers ask."""
    parts = schema["components"]["schemas"]
    for name in ("AutomateEvent", "AutomateBulk", "AutomateStart", "AutomateResume"):
        assert parts[name]["additionalProperties"] is False, name
    event = parts["AutomateEvent"]["properties"]
    assert (event["name"]["minLength"], event["name"]["maxLength"]) == (1, 200)
    assert event["idempotency_key"]["minLength"] == 1
    words = parts["AutomateBulk"]["properties"]["action"]
    assert words["enum"] == ["requeue", "cancel", "discard"]
    assert parts["AutomateBulk"]["properties"]["ids"]["minItems"] == 1
    assert (
        parts["AutomateReschedule"]["minProperties"],
        parts["AutomateReschedule"]["maxProperties"],
    ) == (1, 1)
    parameters = {
        each["name"]: each["schema"] for each in schema["paths"]["/outbox"]["get"]["parameters"]
    }
    assert parameters["status"] == {"$ref": "#/components/schemas/AutomateItemStatus"}
    assert "PENDING" in parts["AutomateItemStatus"]["enum"]
    assert parameters["page_size"]["minimum"] == 1
    headers = schema["paths"]["/events"]["post"]["parameters"]
    assert [each["name"] for each in headers] == ["Idempotency-Key"]


def test_the_schemas_own_errors_are_problems(empty: None, token: Any) -> None:
    """As JSON, whatever is accepted; and no parameter of it breaks it."""
    from rest_framework.test import APIClient

    answer = APIClient().get(SCHEMA, HTTP_ACCEPT="application/vnd.oai.openapi")
    assert (answer.status_code, answer["Content-Type"]) == (401, "application/problem+json")
    assert json.loads(answer.content)["code"] == "UNAUTHENTICATED"
    client = token("*", tenant_id="acme")
    assert client.get(f"{SCHEMA}?lang=%00").status_code == 400
    assert client.post(SCHEMA, {}).status_code == 405
    for query in ("version=a%0Ab", "lang=xx", "lang=../../x", "version=1"):
        answer = client.get(f"{SCHEMA}?{query}")
        assert answer.status_code == 200, (query, answer.content)


def test_values_of_all_tenants_are_no_part_of_a_schema(empty: None) -> None:
    """django-filter can collect a filter's choices from a table; a schema is public."""
    pytest.importorskip("django_filters")
    from django_filters import AllValuesFilter
    from django_filters.rest_framework import DjangoFilterBackend, FilterSet
    from drf_spectacular.generators import SchemaGenerator

    from automate_django.api import BaseModelViewSet, TenantFilterMixin
    from django.urls import path
    from service.models import Note
    from service.serializers import NoteSerializer

    class Texts(FilterSet):
        text = AllValuesFilter()

        class Meta:
            model = Note
            fields = ["text"]

    class Notes(TenantFilterMixin, BaseModelViewSet):
        queryset = Note.objects.all()
        serializer_class = NoteSerializer
        filter_backends = [DjangoFilterBackend]
        filterset_class = Texts

    Note.objects.create(tenant_id="acme", text="secret-9a3f")
    spectacular = {"DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema"}
    with override_settings(REST_FRAMEWORK=spectacular):
        patterns = [path("notes", Notes.as_view({"get": "list"}))]
        found = SchemaGenerator(patterns=patterns).get_schema(public=True)
    assert "text" in [each["name"] for each in found["paths"]["/notes"]["get"]["parameters"]]
    assert "9a3f" not in json.dumps(found, default=str)


# -- checks -----------------------------------------------------------------------------------


def ids(**given: Any) -> list[str]:
    """What the check finds in ``AUTOMATE_API``."""
    with override_settings(AUTOMATE_API=given):
        found = check_api()
    assert all(message.hint for message in found), found
    return sorted(str(message.id) for message in found)


def test_keys_are_known_and_documented() -> None:
    """Each has a default, and is listed among the settings."""
    assert set(KEYS["AUTOMATE_API"]) == set(DEFAULTS["AUTOMATE_API"])


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
    monkeypatch.setattr("automate_django.checks.django.VERSION", (6, 1, 0, "final", 0))
    monkeypatch.setattr("automate_django.checks.version", lambda name: "3.17.2")
    (message,) = check_api()
    assert (message.id, "3.18" in str(message.hint)) == ("automate.E020", True)
