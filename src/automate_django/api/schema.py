"""OpenAPI of a project's views and of our own in the project's document, by drf-spectacular."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from automate_kernel.http.api.openapi import components, operation

try:
    import drf_spectacular  # noqa: F401
except ImportError:
    INSTALLED = False
else:
    INSTALLED = True

# The keys that `IdempotencyMixin` takes; they may stand in quotation marks.
_KEY_SCHEMA = {"type": "string", "pattern": "^[!-~]{1,255}$"}
_PROBLEM = "AutomateProblem"


def before_31(schema: Any, *, inside: bool = False) -> Any:
    """Return a *schema* of OpenAPI 3.1 as 3.0 has it."""
    if isinstance(schema, list):
        return [before_31(each, inside=inside) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if inside:  # names of properties, not keywords
        return {name: before_31(each) for name, each in schema.items()}
    found = {
        name: before_31(each, inside=name == "properties")
        for name, each in schema.items()
        if name != "dependentRequired"
    }
    if "const" in found:
        found["enum"] = [found.pop("const")]
    if {"type": "null"} in found.get("anyOf", ()):
        rest = [each for each in found.pop("anyOf") if each != {"type": "null"}]
        found |= {"nullable": True, **(rest[0] if len(rest) == 1 else {"anyOf": rest})}
    if "$ref" in found and len(found) > 1:
        found["allOf"] = [{"$ref": found.pop("$ref")}]
    return found


def without_names(schema: dict[str, Any]) -> dict[str, Any]:
    """
    Return a component's *schema* with each property's few words one level down.

    Above, drf-spectacular wants a name for them, which the project's own words may have.
    """
    properties = {
        name: {"oneOf": [each]} if {"enum", "const"} & {*each, *each.get("items", ())} else each
        for name, each in schema.get("properties", {}).items()
    }
    return {**schema, "properties": properties} if properties else schema


if TYPE_CHECKING or INSTALLED:
    from drf_spectacular.extensions import OpenApiAuthenticationExtension
    from drf_spectacular.openapi import AutoSchema
    from drf_spectacular.plumbing import ComponentRegistry, ResolvedComponent
    from drf_spectacular.settings import spectacular_settings
    from drf_spectacular.utils import OpenApiParameter
    from rest_framework import serializers
    from rest_framework.schemas import DefaultSchema

    def _fitting(schema: Any) -> Any:
        return schema if str(spectacular_settings.OAS_VERSION) >= "3.1" else before_31(schema)

    def _register(registry: ComponentRegistry) -> None:
        for name, schema in components().items():
            made = _fitting(without_names(schema))
            kind: Any = ResolvedComponent
            component = kind(name=name, type=kind.SCHEMA, schema=made, object=name)
            registry.register_on_missing(component)

    class _Problems:
        """A mixin of a project's schema class, for the views of our bases."""

        def _get_response_bodies(self, direction: Any = "response") -> dict[str, Any]:
            bodies: dict[str, Any] = super()._get_response_bodies(direction)  # type: ignore[misc]
            inspector: Any = self
            _register(inspector.registry)
            problem = {"$ref": f"#/components/schemas/{_PROBLEM}"}
            bodies["default"] = {
                "description": "What went wrong.",
                "content": {"application/problem+json": {"schema": problem}},
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

    class RouteSchema(AutoSchema):
        """The schema of our views: that of the kernel's document, whatever class others use."""

        def get_operation(
            self, path: Any, path_regex: Any, path_prefix: Any, method: Any, registry: Any
        ) -> Any:
            """Return the operation, with the project's security schemes and tags."""
            self.registry, self.method = registry, method
            self.path, self.path_regex, self.path_prefix = path, path_regex, path_prefix
            _register(registry)
            view: Any = self.view
            found = _fitting(operation(view.routes[method]))
            return {**found, "security": self.get_auth(), "tags": self.get_tags()}

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

else:
    from rest_framework.schemas import DefaultSchema as RouteSchema

    HostSchema = RouteSchema
