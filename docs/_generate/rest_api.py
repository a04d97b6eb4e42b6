"""The page of the REST API, read from its one table of routes."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from _generate.django_facts import facts
from _generate.markdown import NOTE

__all__ = ["rest_api"]

INTRODUCTION = """\
One table of routes makes this page, the OpenAPI 3.1 document at `GET schema`, and the answers of
both hosts: `automate serve --api`, which has them below `/api`, and Django's
`automate_django.api.urls`. [The API for clients](../howto/api.md) shows how to use each part.

A token needs the *scope*. Where Django's users log in, they need the *permission* of
`automate_django` too. What is for operators belongs to no tenant: tokens of all tenants have it,
and Django's operators.

Both hosts have `GET schema` too. Django has `POST webhooks/{connector}/{trigger}` and the pages
`approvals/{token}` below the same address, `automate serve` at its root."""

FIELDS = """\
`?` marks a field that may be left out. Other fields are an error."""


def rest_api() -> str:
    """The page of the REST API."""
    from automate_kernel.http.api.routes import ROUTES

    parts = [NOTE, "# REST API", INTRODUCTION]
    for area, found in groupby(ROUTES, lambda route: route.area):
        parts += [f"## `{area}`", "\n".join(_rows(list(found)))]
    parts += ["## Fields", FIELDS, *_schemas()]
    return "\n\n".join(parts) + "\n"


def _rows(routes: list[Any]) -> Iterator[str]:
    from automate_kernel.http.api.openapi import component_name, path_of

    permissions = facts()["permissions"]
    yield "| request | scope | permission | does | takes | answers |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for route in routes:
        does = inspect.cleandoc(route.handle.__doc__ or "").partition("\n\n")[0].replace("\n", " ")
        does += " For operators." if route.operator else ""
        taken = route.body or route.query
        takes = _link(component_name(taken)) if taken else ""
        gives = "" if route.output is None else _given(component_name(route.output), route)
        status = "" if route.status == 200 else f"{route.status} "
        yield (
            f"| `{route.method} {path_of(route)[1:]}` | `{route.scope}` |"
            f" `{permissions[route.name]}` | {does} | {takes} | {status}{gives} |"
        )


def _link(name: str) -> str:
    return f"[`{_short(name)}`](#{_short(name).lower()})"


def _given(name: str, route: Any) -> str:
    link = _link(name)
    return f"page of {link}" if route.paged else f"list of {link}" if route.many else link


def _short(name: str) -> str:
    return name.removeprefix("Automate")


def _schemas() -> Iterator[str]:
    from automate_kernel.http.api.openapi import schemas

    for name, schema in schemas().items():
        yield f"### `{_short(name)}`"
        if "description" in schema and "enum" not in schema:
            yield " ".join(schema["description"].split())
        if "enum" in schema:
            yield ", ".join(f"`{word}`" for word in schema["enum"])
            continue
        needed = schema.get("required", ())
        rows = [
            f"- `{field}`{'' if field in needed else '?'}: {_type(each)}{_about(each)}"
            for field, each in schema.get("properties", {}).items()
        ]
        if rows:
            yield "\n".join(rows)


def _about(schema: dict[str, Any]) -> str:
    text = schema.get("description", "")
    return f". {text}" if text else ""


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return _link(schema["$ref"].rpartition("/")[2])
    if "anyOf" in schema:
        return " or ".join(_type(each) for each in schema["anyOf"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{word}`" for word in schema["enum"])
    kind = schema.get("type", "any JSON")
    if kind == "array":
        return f"list of {_type(schema['items'])}"
    words = {"string": "text", "integer": "whole number", "boolean": "true or false"}
    formats = {"date-time": "time", "uuid": "UUID"}
    found = formats.get(schema.get("format", ""), words.get(kind, kind))
    least, most = schema.get("minimum"), schema.get("maximum")
    bounds = [f"from {least:,}"] if least is not None else []
    bounds += [f"to {most:,}"] if most is not None else []
    if "maxLength" in schema:
        bounds.append(f"of at most {schema['maxLength']:,} characters")
    return " ".join([found, *bounds])
