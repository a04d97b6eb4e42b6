"""What drf-spectacular, where it is installed, is told of our views and tokens."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

__all__ = ["INSTALLED", "HostSchema", "ProblemSchema", "described"]

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

# No NUL anywhere, and one character that is no blank: those are cut off at both ends. The class has
# what Python takes for a blank, which the \\s of other languages has not.
_BLANK = r"\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_TEXT = rf"^[^\x00]*[^\x00{_BLANK}][^\x00]*$"
_TRIMMED = rf"^[^\x00{_BLANK}]([^\x00]*[^\x00{_BLANK}])?$"
# What `IdempotencyMixin` takes; it may stand in quotation marks.
_KEY_SCHEMA = {"type": "string", "pattern": "^[!-~]{1,255}$"}

if TYPE_CHECKING or INSTALLED:
    from drf_spectacular.extensions import (
        OpenApiAuthenticationExtension,
        OpenApiSerializerExtension,
        OpenApiSerializerFieldExtension,
    )
    from drf_spectacular.openapi import AutoSchema
    from drf_spectacular.utils import OpenApiParameter, extend_schema
    from rest_framework import serializers
    from rest_framework.schemas import DefaultSchema

    class _Problems:
        """What is mixed into a project's schema class for the views of our bases."""

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
            """The project's, and the header of a view that carries a POST out once."""
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
        """
        The schema of a project's own views: that of the project, which also tells of problems.

        A schema class of another library than drf-spectacular is left as it is.
        """

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
            """HTTP bearer authentication."""
            return {"type": "http", "scheme": "bearer"}

    class StrictExtension(OpenApiSerializerExtension):  # type: ignore[no-untyped-call]
        """Input of ours, with all that is asked of it."""

        target_class = "automate_django.api.v1.serializers.Strict"
        match_subclasses = True

        def map_serializer(self, auto_schema: Any, direction: Any) -> Any:
            """What drf-spectacular finds, and that there is nothing else."""
            schema = auto_schema._map_serializer(self.target, direction, bypass_extensions=True)
            if "$ref" in schema:
                return schema
            return {**schema, "additionalProperties": False, **self.target.more_schema}

    class InputTextExtension(OpenApiSerializerFieldExtension):  # type: ignore[no-untyped-call]
        """Text that goes in: not empty, and without NUL."""

        target_class = "automate_django.api.v1.serializers.Text"
        match_subclasses = True

        def map_serializer_field(self, auto_schema: Any, direction: Any) -> Any:
            """A pattern says both, as the words of JSON Schema can't."""
            schema = auto_schema._map_serializer_field(
                self.target, direction, bypass_extensions=True
            )
            # What is not trimmed is refused with spaces around it.
            text = _TEXT if self.target.trim_whitespace else _TRIMMED
            if self.target.allow_blank:
                return {**schema, "pattern": rf"^[{_BLANK}]*$|{text}"}
            return {**schema, "minLength": 1, "pattern": text}

    class WordExtension(OpenApiSerializerFieldExtension):  # type: ignore[no-untyped-call]
        """One of a few words, in a way that no other field's words can get in the way of."""

        target_class = "automate_django.api.v1.serializers.Word"

        def map_serializer_field(self, auto_schema: Any, direction: Any) -> Any:
            """The words, one level down: above, drf-spectacular wants a name for them."""
            return {"oneOf": [{"type": "string", "enum": list(self.target.words)}]}

    def described(**options: Any) -> Callable[[F], F]:
        """Say what a method of a view takes and gives."""

        def describe(method: F) -> F:
            # Else it would build on the project's schema class, which may be another library's.
            vars(method).setdefault("kwargs", {}).setdefault("schema", ProblemSchema)
            found: F = extend_schema(**options)(method)
            return found

        return describe

else:
    from rest_framework.schemas import DefaultSchema as ProblemSchema

    HostSchema = ProblemSchema

    def described(**_: Any) -> Callable[[F], F]:
        """Leave the view as it is."""
        return lambda view: view
