"""OpenAPI 3 of our views and tokens, where drf-spectacular is installed."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

try:
    import drf_spectacular  # noqa: F401
except ImportError:
    INSTALLED = False
else:
    INSTALLED = True

F = TypeVar("F", bound=Callable[..., Any])

PROBLEM: dict[str, Any] = {
    "type": "object",
    "description": "Problem details (RFC 9457).",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "pointer": {"type": "string", "description": "JSON pointer into the body"},
                    "parameter": {"type": "string", "description": "name of a query parameter"},
                    "detail": {"type": "string"},
                    "code": {"type": "string"},
                },
                "required": ["detail", "code"],
            },
        },
    },
    "required": ["type", "title", "status", "code", "detail"],
}

# No NUL anywhere, and one character that is no blank: blanks are cut off at both ends. The class
# has Python's blanks; the \\s of other languages has fewer.
_BLANK = r"\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_TEXT = rf"^[^\x00]*[^\x00{_BLANK}][^\x00]*$"
_TRIMMED = rf"^[^\x00{_BLANK}]([^\x00]*[^\x00{_BLANK}])?$"
# The keys that `IdempotencyMixin` takes; they may stand in quotation marks.
_KEY_SCHEMA = {"type": "string", "pattern": "^[!-~]{1,255}$"}

if TYPE_CHECKING or INSTALLED:
    from drf_spectacular.extensions import (
        OpenApiAuthenticationExtension,
        OpenApiSerializerExtension,
        OpenApiSerializerFieldExtension,
    )
    from drf_spectacular.openapi import AutoSchema
    from drf_spectacular.utils import OpenApiParameter, extend_schema
    from drf_spectacular.views import SpectacularAPIView
    from rest_framework import serializers
    from rest_framework.permissions import IsAuthenticated
    from rest_framework.renderers import JSONRenderer
    from rest_framework.schemas import DefaultSchema

    from automate_django.api.bases.access import Defaults
    from automate_django.api.v1.serializers import Strict
    from automate_kernel import __version__

    class _Problems:
        """A mixin of a project's schema class, for the views of our bases."""

        def _get_response_bodies(self, direction: Any = "response") -> dict[str, Any]:
            bodies: dict[str, Any] = super()._get_response_bodies(direction)  # type: ignore[misc]
            bodies["default"] = {
                "description": "What went wrong.",
                "content": {"application/problem+json": {"schema": PROBLEM}},
            }
            return bodies

        def _map_serializer_field(
            self, field: Any, direction: Any, bypass_extensions: bool = False
        ) -> Any:
            schema: Any = super()._map_serializer_field(  # type: ignore[misc]
                field, direction, bypass_extensions
            )
            lists = (serializers.ListField, serializers.ListSerializer)
            if isinstance(field, lists) and not field.allow_empty and "minItems" not in schema:
                return {**schema, "minItems": 1}
            return schema

        def get_override_parameters(self) -> list[Any]:
            """Return the project's, and the header of a view that carries a POST out once."""
            found = list(super().get_override_parameters())  # type: ignore[misc]
            inspector: Any = self
            if inspector.method == "POST" and getattr(inspector.view, "idempotent", False):
                found.append(
                    OpenApiParameter(
                        "Idempotency-Key",
                        _KEY_SCHEMA,
                        OpenApiParameter.HEADER,
                        description="The same request with the same key is carried out once.",
                    )
                )
            return found

    class ProblemSchema(_Problems, AutoSchema):
        """Describes errors as problem details, and is right whatever schema class others use."""

    @lru_cache(maxsize=64)
    def _with_problems(cls: Any) -> Any:
        return type(cls.__name__, (_Problems, cls), {})

    class HostSchema(DefaultSchema):
        """The schema of a project's views: its class, if drf-spectacular's with problem details."""

        def __get__(self, instance: Any, owner: Any) -> Any:
            found: Any = super().__get__(instance, owner)
            if not isinstance(found, AutoSchema) or isinstance(found, _Problems):
                return found
            cls: Any = type(found)
            made = _with_problems(cls)()
            made.view = instance
            return made

    class ApiTokenScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
        """Our tokens as a security scheme."""

        target_class = "automate_django.api.tokens.ApiTokenAuthentication"
        name = "apiToken"

        def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
            """Return HTTP bearer authentication."""
            return {"type": "http", "scheme": "bearer"}

    class PartExtension(OpenApiSerializerExtension):  # type: ignore[no-untyped-call]
        """The schemas of our serializers, whose names none of the project's has."""

        target_class = "automate_django.api.v1.serializers.Part"
        match_subclasses = True

        def get_name(self, auto_schema: Any, direction: Any) -> str:
            """Return the name of the component."""
            return f"Automate{type(self.target).__name__.removesuffix('Serializer')}"

        def map_serializer(self, auto_schema: Any, direction: Any) -> Any:
            """Return drf-spectacular's schema; that of our input allows no other properties."""
            schema = auto_schema._map_serializer(self.target, direction, bypass_extensions=True)
            if "$ref" in schema or not isinstance(self.target, Strict):
                return schema
            return {**schema, "additionalProperties": False, **self.target.more_schema}

    class InputTextExtension(OpenApiSerializerFieldExtension):  # type: ignore[no-untyped-call]
        """The schema of text in a request: not empty, and without NUL."""

        target_class = "automate_django.api.v1.serializers.Text"
        match_subclasses = True

        def map_serializer_field(self, auto_schema: Any, direction: Any) -> Any:
            """Return a pattern for both, since no keyword of JSON Schema says it."""
            schema = auto_schema._map_serializer_field(
                self.target, direction, bypass_extensions=True
            )
            # A field that does not trim refuses spaces around the text.
            text = _TEXT if self.target.trim_whitespace else _TRIMMED
            if self.target.allow_blank:
                return {**schema, "pattern": rf"^[{_BLANK}]*$|{text}"}
            return {**schema, "minLength": 1, "pattern": text}

    class WordExtension(OpenApiSerializerFieldExtension):  # type: ignore[no-untyped-call]
        """The schema of one of a few words, which can't clash with another field's words."""

        target_class = "automate_django.api.v1.serializers.Word"

        def map_serializer_field(self, auto_schema: Any, direction: Any) -> Any:
            """Return the words, one level down: above, drf-spectacular wants a name for them."""
            return {"oneOf": [{"type": "string", "enum": list(self.target.words)}]}

    class SchemaView(Defaults, SpectacularAPIView):
        """The schema of this API alone, without the project's own views."""

        schema = None  # it is not among what it describes
        permission_classes = [IsAuthenticated]  # noqa: RUF012
        urlconf = "automate_django.api.urls"
        custom_settings = {  # noqa: RUF012
            "TITLE": "Automation",
            "DESCRIPTION": "Workflows, executions, events, the outbox and plugins.",
            "VERSION": __version__,
            "SCHEMA_PATH_PREFIX": "",
        }

        def handle_exception(self, exc: Exception) -> Any:
            """Answer a problem as JSON: the renderers of this view write schemas alone."""
            self.request.accepted_renderer = JSONRenderer()
            self.request.accepted_media_type = JSONRenderer.media_type
            return super().handle_exception(exc)

        def _get_version_parameter(self, request: Any) -> None:
            """Return None: there is one version, and a client's would come back in a header."""

        def _get_schema_response(self, request: Any) -> Any:
            response: Any = super()._get_schema_response(request)  # type: ignore[no-untyped-call]
            response.data["servers"] = [{"url": request.path.rpartition("/")[0] or "/"}]
            return response

    def described(**options: Any) -> Callable[[F], F]:
        """Describe the request and the responses of a view's method."""

        def describe(method: F) -> F:
            # Else it would build on the project's schema class, which may be another library's.
            vars(method).setdefault("kwargs", {}).setdefault("schema", ProblemSchema)
            found: F = extend_schema(**options)(method)
            return found

        return describe

else:
    from rest_framework.schemas import DefaultSchema as ProblemSchema

    HostSchema = ProblemSchema
    SchemaView = None

    def described(**_: Any) -> Callable[[F], F]:
        """Leave the view as it is."""
        return lambda view: view
