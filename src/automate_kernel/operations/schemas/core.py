"""Readings of pydantic's schema of a type: which of its values JSON does not bring back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Node = Mapping[str, Any]
Problem = tuple[str, str]
"""A thing that is wrong, and a remedy."""

_CLASSES = frozenset({"model", "dataclass"})
_OBJECTS = frozenset({*_CLASSES, "typed-dict", "dict"})
_LISTS = frozenset({"list", "tuple", "set", "frozenset", "named-tuple", "deque"})
_NO_SCHEMAS = frozenset({"metadata", "config", "default", "expected", "members"})
_READ_ONCE: Problem = (
    "has an Iterable, which can be read once",
    "write list[…] in the annotation",
)
_ELSE = "return its id, or a pydantic model or dataclass with what is needed of it"


@dataclass(frozen=True, slots=True)
class Shape:
    """
    Knowledge of the values of a type before there is a value.

    *problem* says why none comes back, if none does. *plain* is True if a valid value of JSON's
    own types needs no further look. With *loose* some place takes anything. With *round_trip*
    pydantic must write no more than it reads.
    """

    problem: Problem | None = None
    plain: bool = True
    loose: bool = False
    round_trip: bool = False


def unmade_inputs(schema: Any) -> Iterator[tuple[str, str]]:
    """Yield the fields of a model's core *schema* that no JSON fills, each with what it wants."""
    fields = schema.get("schema", {}).get("fields", {}) if isinstance(schema, Mapping) else {}
    for name, field in fields.items() if isinstance(fields, Mapping) else ():
        node = field.get("schema", {})
        while node.get("type") in ("default", "nullable"):
            node = node["schema"]
        if what := {"callable": "a function", "is-subclass": "a class"}.get(node.get("type")):
            yield name, what


def shape_of(schema: Any) -> Shape:
    """Return what pydantic's core *schema* says about its values."""
    if not isinstance(schema, Mapping):  # it is made at the first use
        return Shape(plain=False)
    nodes = list(_every(schema))
    kinds = {node["type"] for node in nodes}
    named = {str(node["ref"]): node for node in nodes if "ref" in node}
    return Shape(
        problem=_READ_ONCE
        if "generator" in kinds
        else next(_problems(schema, named, frozenset()), None),
        # Another choice of a union may read what was written.
        plain=kinds.isdisjoint(("json", "union")),
        loose="any" in kinds,
        round_trip="json" in kinds or any(map(_forbids_computed, nodes)),
    )


def _every(schema: Any) -> Iterator[Node]:
    """Yield *schema* and all schemas inside it."""
    left = [schema]
    while left:
        part = left.pop()
        if isinstance(part, Mapping):
            if isinstance(part.get("type"), str):
                yield part
            left += [value for key, value in part.items() if key not in _NO_SCHEMAS]
        elif isinstance(part, (list, tuple)):
            left += part


def _fields(node: Node) -> Iterator[tuple[str, Node]]:
    """Yield the fields of a model, dataclass, dict or named tuple, by their names."""
    inner: Any = node.get("schema") if node["type"] in _CLASSES else node
    while isinstance(inner, Mapping) and "fields" not in inner and "arguments_schema" not in inner:
        inner = inner.get("schema")  # a validator of the whole is around them
    if not isinstance(inner, Mapping):
        return
    fields = inner.get("fields", inner.get("arguments_schema"))
    if isinstance(fields, Mapping):
        yield from fields.items()
    else:
        yield from ((str(field.get("name")), field) for field in fields)


def _forbids_computed(node: Node) -> bool:
    """Return True for a model that writes computed fields, and takes none but its own."""
    inner: Any = node.get("schema") if node["type"] in _CLASSES else None
    while isinstance(inner, Mapping) and "fields" not in inner:
        inner = inner.get("schema")
    if not isinstance(inner, Mapping) or not inner.get("computed_fields"):
        return False
    config = node.get("config") or {}
    extra = inner.get("extra_behavior") or config.get("extra_fields_behavior")
    return bool(extra == "forbid")


def _unread_fields(node: Node) -> Iterator[tuple[str, Node, str | None]]:
    """Yield the fields that aren't read by the name that they are written under, which is None."""
    if node["type"] not in ("model", "dataclass", "typed-dict"):
        return
    config = node.get("config") or {}
    by_name = config.get("populate_by_name") or config.get("validate_by_name")
    for name, field in _fields(node):
        if field.get("serialization_exclude"):
            yield name, field, None
            continue
        alias = field.get("validation_alias")
        read = (
            [alias] if isinstance(alias, str) else [one[0] for one in alias or () if one[1:] == []]
        )
        if alias is None or by_name:
            read.append(name)
        written = field.get("serialization_alias") or name
        if written not in read:
            yield name, field, written


def _problems(node: Node, named: Mapping[str, Node], seen: frozenset[str]) -> Iterator[Problem]:
    """Yield the reasons for which no value of *node* comes back."""
    kind = node["type"]
    if str((node.get("serialization") or {}).get("type")).startswith("function"):
        return
    if kind in ("callable", "is-subclass", "is-instance"):
        cls = node.get("cls")
        what = {"callable": "a function", "is-subclass": "a class"}.get(kind)
        what = what or f"the type {getattr(cls, '__qualname__', cls)}"
        yield f"has {what}, which is not made from JSON", _ELSE
    elif kind in ("enum", "literal"):
        yield from _problems_of_members(node)
    elif kind == "definition-ref":
        ref = node["schema_ref"]
        if ref in named and ref not in seen:
            yield from _problems(named[ref], named, seen | {ref})
    elif kind in ("json-or-python", "lax-or-strict"):
        inner = node["json_schema"] if kind == "json-or-python" else node["strict_schema"]
        yield from _problems(inner, named, seen)
    elif kind not in ("nullable", "default", "union", "tagged-union"):  # each has other values
        yield from _problems_inside(node, named, seen)


def _problems_inside(
    node: Node, named: Mapping[str, Node], seen: frozenset[str]
) -> Iterator[Problem]:
    if node["type"] == "dict" and "keys_schema" in node:
        yield from _problems_of_keys(node["keys_schema"])
    for name, field, written in _unread_fields(node):
        if field.get("required", True) and field["schema"]["type"] != "default":
            yield _problem_of_field(name, written)
    parts: list[Any] = [node.get("schema"), node.get("values_schema")]
    items = node.get("items_schema")
    parts += items if isinstance(items, (list, tuple)) else [items]
    if node["type"] in (*_CLASSES, "typed-dict", "call"):
        parts = [field for _, field in _fields(node)]
    for part in parts:
        if isinstance(part, Mapping) and isinstance(part.get("type"), str):
            yield from _problems(part, named, seen)


def _problem_of_field(name: str, written: str | None) -> Problem:
    if written is None:
        return f"is written without its field {name!r}, which it needs", "give it a default"
    return (
        f"has a field that is written as {written!r}, and is not read by that name",
        f"give {name!r} one alias for both, or take it by its name (populate_by_name)",
    )


def _problems_of_keys(keys: Node) -> Iterator[Problem]:
    hint = "JSON has text as keys: return a list of pairs"
    if keys["type"] in (*_LISTS, *_OBJECTS, "none"):
        yield f"has keys of the type {keys['type']}, which JSON has not", hint
    elif keys["type"] in ("enum", "literal") and not _brings_back_any(keys, as_keys=True):
        yield "has keys that do not come back from JSON", hint


def _problems_of_members(node: Node) -> Iterator[Problem]:
    if _brings_back_any(node):
        return
    if node["type"] == "enum":
        hint = "give its members text or whole numbers as values"
        yield f"has {node['cls'].__name__}, whose values do not come back from JSON", hint
    else:
        yield "has a Literal that does not come back from JSON", "write text in it, or a bare enum"


def _brings_back_any(node: Node, *, as_keys: bool = False) -> bool:
    """Return True if at least one member of *node* comes back from JSON."""
    from pydantic_core import (
        PydanticSerializationError,
        SchemaSerializer,
        SchemaValidator,
        ValidationError,
    )

    schema: Any = {"type": "dict", "keys_schema": node} if as_keys else node
    writes, reads = SchemaSerializer(schema), SchemaValidator(schema)
    for member in node.get("members") or node.get("expected") or ():
        value = {member: None} if as_keys else member
        try:
            if reads.validate_json(writes.to_json(value), strict=True) == value:
                return True
        except (PydanticSerializationError, ValidationError):
            continue
    return False
