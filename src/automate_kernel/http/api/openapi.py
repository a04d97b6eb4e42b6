"""The OpenAPI document of the API, made of its table of routes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from automate_kernel.http.api.outputs import ProblemOutput
from automate_kernel.http.api.routes import ROUTES, ApiRoute

PREFIX = "Automate"
"""The beginning of each component's name: a host's own document has an Item of its own."""
SECURITY = "apiToken"
_REF = "#/components/schemas/"
_KEY = {
    "name": "Idempotency-Key", "in": "header", "schema": {
        "type": "string", "pattern": "^[!-+\\-~]{1,255}$",
    },
    "description": "The same request with the same key is carried out once.",
}  # fmt: skip
_ETAG = {
    "name": "If-None-Match", "in": "header", "schema": {"type": "string"},
    "description": "The ETag of an answer that the client has: 304 if it is still the answer.",
}  # fmt: skip


def openapi(base: str = "/") -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of the API whose root is at the path *base*."""
    from automate_kernel import __version__

    paths: dict[str, Any] = {}
    for route in ROUTES:
        paths.setdefault(path_of(route), {})[route.method.lower()] = operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Automation",
            "version": __version__,
            "description": "Workflows, executions, approvals, events, the outbox and operations.",
        },
        "servers": [{"url": base or "/"}],
        "paths": paths,
        "components": {
            "schemas": dict(components()),
            "securitySchemes": {SECURITY: {"type": "http", "scheme": "bearer"}},
        },
    }


def path_of(route: ApiRoute) -> str:
    """Return a route's path as OpenAPI writes it."""
    return "/" + route.path.replace(":path}", "}")


def operation(route: ApiRoute) -> dict[str, Any]:
    """Return the description of a route."""
    summary, _, more = inspect.cleandoc(route.handle.__doc__ or "").partition("\n\n")
    found: dict[str, Any] = {
        "operationId": f"automate_{route.name.replace('.', '_')}",
        "summary": " ".join(summary.split()),
        "description": " ".join([*more.split(), f"Needs the scope `{route.scope}`."]),
        "tags": [route.area],
        "security": [{SECURITY: []}],
        "parameters": _parameters(route),
        "responses": _responses(route),
    }
    if route.body is not None:
        schema = {"$ref": _REF + component_name(route.body)}
        needed = bool(components()[component_name(route.body)].get("required"))
        content = {"application/json": {"schema": schema}}
        found["requestBody"] = {"required": needed, "content": content}
    return found


def _parameters(route: ApiRoute) -> list[dict[str, Any]]:
    text = {"type": "string", "minLength": 1, "pattern": "^[^/\\x00]+$"}
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": text} for name in route.arguments
    ]
    if route.query is not None:
        query = schemas()[component_name(route.query)]
        for name, schema in query["properties"].items():
            own = {n: v for n, v in schema.items() if n != "description"}
            found.append({
                "name": name, "in": "query", "schema": own,
                "required": name in query.get("required", ()),
                **({"description": schema["description"]} if "description" in schema else {}),
            })  # fmt: skip
    if route.method == "GET":
        return [*found, _ETAG]
    return found if route.secret else [*found, _KEY]


def _responses(route: ApiRoute) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": "Done."}
    if route.output is not None:
        schema: dict[str, Any] = {"$ref": _REF + component_name(route.output)}
        rows = {"type": "array", "items": schema}
        if route.paged:
            link = {"anyOf": [{"type": "string", "format": "uri"}, {"type": "null"}]}
            schema = {
                "type": "object",
                "properties": {"next": link, "previous": link, "results": rows},
                "required": ["next", "previous", "results"],
            }
        elif route.many:
            schema = rows
        answer = {"description": "The answer.", "content": {"application/json": {"schema": schema}}}
    problem = {"schema": {"$ref": _REF + component_name(ProblemOutput)}}
    failed = {"description": "What went wrong.", "content": {"application/problem+json": problem}}
    found = {str(route.status): answer, "default": failed}
    if route.method == "GET":
        found["304"] = {"description": "The client has the answer already."}
    return found


def component_name(model: type[BaseModel]) -> str:
    """Return the name that a model has in the document."""
    return _named(model.__name__)


def _named(name: str) -> str:
    return PREFIX + name.removesuffix("Output").removesuffix("Input")


@cache
def components() -> Mapping[str, dict[str, Any]]:
    """Return the schemas that routes refer to, by their names."""
    queries = {component_name(route.query) for route in ROUTES if route.query is not None}
    return {name: schema for name, schema in schemas().items() if name not in queries}


@cache
def schemas() -> Mapping[str, dict[str, Any]]:
    """Return the schemas of all that is sent and answered, queries too, by their names."""
    models: dict[type[BaseModel], Any] = {ProblemOutput: "serialization"}
    for route in ROUTES:
        models |= dict.fromkeys(filter(None, (route.body, route.query)), "validation")
        models |= {route.output: "serialization"} if route.output is not None else {}
    _, document = models_json_schema(list(models.items()), ref_template=_REF + "{model}")
    found = {_named(name): _clean(schema) for name, schema in document["$defs"].items()}
    return dict(sorted(found.items()))


def _clean(schema: Any) -> Any:
    """Return *schema* with our names, and without titles and defaults that say nothing."""
    if isinstance(schema, list):
        return [_clean(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found: dict[str, Any] = {}
    for name, value in schema.items():
        named = name == "title" and isinstance(value, str)
        if name == "$ref":
            found[name] = _REF + _named(value.removeprefix(_REF))
        elif name == "properties":
            found[name] = {field: _clean(inner) for field, inner in value.items()}
        elif not named and (name, value) != ("default", None):
            found[name] = _clean(value)
    return found
