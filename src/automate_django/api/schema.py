"""What drf-spectacular, where it is installed, is told of our views and tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

__all__ = ["INSTALLED", "ProblemSchema", "described"]

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

if TYPE_CHECKING or INSTALLED:
    from drf_spectacular.extensions import OpenApiAuthenticationExtension
    from drf_spectacular.openapi import AutoSchema
    from drf_spectacular.utils import extend_schema

    class ProblemSchema(AutoSchema):
        """Describes errors as problem details, and is right whatever schema class others use."""

        def _get_response_bodies(self, direction: Any = "response") -> dict[str, Any]:
            bodies: dict[str, Any] = super()._get_response_bodies(direction)
            bodies["default"] = {
                "description": "What went wrong.",
                "content": {"application/problem+json": {"schema": PROBLEM}},
            }
            return bodies

    class ApiTokenScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
        """Our tokens as a security scheme."""

        target_class = "automate_django.api.tokens.ApiTokenAuthentication"
        name = "apiToken"

        def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
            """HTTP bearer authentication."""
            return {"type": "http", "scheme": "bearer"}

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

    def described(**_: Any) -> Callable[[F], F]:
        """Leave the view as it is."""
        return lambda view: view
