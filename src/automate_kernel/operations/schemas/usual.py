"""
JSON Schemas that are valid at a glance, as most of those are that thousands of tools come with.

The library finds out by its schema of schemas, which takes it over a millisecond for each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

_DRAFTS = frozenset({"Draft7Validator", "Draft201909Validator", "Draft202012Validator"})
_TYPES = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})


def is_surely_valid(draft: str, schema: Any) -> bool:
    """
    Return True if *schema* has only usual keywords, each with a value that its *draft* allows.

    False says nothing. A schema with a regular expression never is: the library counts them.
    """
    if draft not in _DRAFTS:
        return False
    waiting = [schema]
    while waiting:
        each = waiting.pop()
        if isinstance(each, bool):
            continue
        if type(each) is not dict:
            return False
        for name, value in each.items():
            inner = _inner(name, value)
            if inner is None:
                return False
            waiting.extend(inner)
    return True


def _inner(name: Any, value: Any) -> Iterable[Any] | None:
    """Return the schemas within the *value* of a keyword; None if it may be wrong."""
    if name in _SCHEMA:
        return (value,)
    if name in _SCHEMAS_BY_NAME:
        return value.values() if type(value) is dict and _are_texts(value) else None
    if name in _SCHEMA_LISTS:
        return value if type(value) is list and value else None
    return () if _holds(name, value) else None


def _holds(name: Any, value: Any) -> bool:
    allowed = _VALUES.get(name)
    if allowed is None:
        return isinstance(name, str) and name.startswith("x-")
    return allowed(value)


def _is_text(value: Any) -> bool:
    return type(value) is str


def _are_texts(values: Iterable[Any]) -> bool:
    return all(map(_is_text, values))


def _is_type(value: Any) -> bool:
    if type(value) is str:
        return value in _TYPES
    known = type(value) is list and _are_texts(value) and set(value) <= _TYPES
    return known and len(set(value)) == len(value) > 0


def _are_names(value: Any) -> bool:
    return type(value) is list and _are_texts(value) and len(set(value)) == len(value)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _is_flag(value: Any) -> bool:
    return type(value) is bool


def _is_list(value: Any) -> bool:
    return type(value) is list


def _is_anything(value: Any) -> bool:
    return True


_SCHEMA = frozenset({"items", "additionalProperties", "not", "contains", "propertyNames"})
_SCHEMAS_BY_NAME = frozenset({"properties", "$defs", "definitions"})
_SCHEMA_LISTS = frozenset({"allOf", "anyOf", "oneOf"})
_VALUES: Mapping[str, Callable[[Any], bool]] = {
    "type": _is_type,
    "required": _are_names,
    "default": _is_anything,
    "const": _is_anything,
    "enum": _is_list,
    "examples": _is_list,
    **dict.fromkeys(("$ref", "$schema", "title", "description", "format"), _is_text),
    **dict.fromkeys(
        ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"),
        _is_count,
    ),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _is_number),
    **dict.fromkeys(("uniqueItems", "readOnly", "writeOnly"), _is_flag),
}
