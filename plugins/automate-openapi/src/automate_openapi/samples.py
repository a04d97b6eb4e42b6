"""Samples of inputs and answers, which a plugin's first tests and its example are made of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from automate_kernel.base.errors import AutomateError
from automate_kernel.operations.schemas.checks import compile_schema
from automate_openapi.paging import settled, types_of

_DEEPEST = 8
# A text of a document stands in tests and workflows: of what is no plain word we take none.
_PLAIN = re.compile(r"[\w .,:@/+-]{0,60}", re.ASCII)
_FORMATS = {
    "date": "2026-01-01", "date-time": "2026-01-01T12:00:00Z", "email": "ada@example.com",
    "uri": "https://example.com", "url": "https://example.com", "time": "12:00:00Z",
    "uuid": "00000000-0000-4000-8000-000000000000", "ipv4": "192.0.2.1", "hostname": "example.com",
}  # fmt: skip
_TEXTS = ("text", "abc", "ABC", "a", "1", "123", "12345", "2026-01-01", *_FORMATS.values())


class _NoSampleError(Exception):
    """No value that fits was found."""


def sample_of(schema: Mapping[str, Any], wanted: str = "") -> Any:
    """
    Return a plain value that fits *schema* with little in it. Raises `LookupError`.

    It has what is required, and what the dotted name *wanted* leads to.
    """
    definitions = schema.get("$defs", {})
    try:
        found = _sample(schema, definitions, 0)
        if wanted:
            _add(found, schema, wanted.split("."), definitions)
        if not compile_schema(schema, "the schema")(found):
            return found
    except (_NoSampleError, AutomateError, RecursionError):
        pass
    raise LookupError("no value that fits was found")


def _add(found: Any, schema: Any, names: list[str], definitions: Mapping[str, Any]) -> None:
    """Put a sample of what *names* lead to into *found*, an object."""
    name, *more = names
    properties = settled(schema, definitions).get("properties", {})
    if not isinstance(found, dict) or name not in properties:
        raise _NoSampleError
    if name not in found:
        found[name] = _sample(settled(properties[name], definitions), definitions, 0)
    if more:
        _add(found[name], properties[name], more, definitions)


def _sample(schema: Any, definitions: Mapping[str, Any], depth: int) -> Any:
    if not isinstance(schema, Mapping) or depth > _DEEPEST:
        raise _NoSampleError
    if "$ref" in schema:
        name = str(schema["$ref"]).removeprefix("#/$defs/")
        return _sample(definitions.get(name), definitions, depth + 1)
    for value in (schema.get("const"), schema.get("default"), *schema.get("enum", ())):
        if isinstance(value, (bool, int)) or (isinstance(value, str) and _PLAIN.fullmatch(value)):
            return value
    if "enum" in schema or "const" in schema:
        raise _NoSampleError
    for word in ("anyOf", "oneOf"):
        for each in schema.get(word, ()):
            if not (isinstance(each, Mapping) and each.get("type") == "null"):
                return _sample(each, definitions, depth + 1)
    if "allOf" in schema:
        return _joined(schema, definitions, depth)
    return _of_type(schema, definitions, depth)


def _joined(schema: Mapping[str, Any], definitions: Mapping[str, Any], depth: int) -> Any:
    own = {key: value for key, value in schema.items() if key != "allOf"}
    parts = [_sample(each, definitions, depth + 1) for each in schema["allOf"]]
    parts += [_sample(own, definitions, depth + 1)] if "properties" in own else []
    if all(isinstance(each, dict) for each in parts):
        return {name: value for each in parts for name, value in each.items()}
    return parts[0]


def _of_type(schema: Mapping[str, Any], definitions: Mapping[str, Any], depth: int) -> Any:
    kinds = types_of(schema)
    if "object" in kinds:
        properties = schema.get("properties", {})
        wanted = schema.get("required", ())
        if not all(_PLAIN.fullmatch(name) for name in wanted):
            raise _NoSampleError
        return {each: _sample(properties.get(each, {}), definitions, depth + 1) for each in wanted}
    if "array" in kinds:
        count = schema.get("minItems", int(depth < 2))
        if not count:
            return []
        return [_sample(schema.get("items", {}), definitions, depth + 1)] * min(count, 20)
    if "string" in kinds or not kinds - {"None"}:
        return _text(schema)
    if "boolean" in kinds:
        return True
    return _number(schema) if kinds & {"integer", "number"} else None


def _number(schema: Mapping[str, Any]) -> int:
    step = schema.get("multipleOf", 1)
    step = step if isinstance(step, int) else 1
    least = schema.get("minimum", schema.get("exclusiveMinimum", step))
    least += "minimum" not in schema and "exclusiveMinimum" in schema
    most = schema.get("maximum", schema.get("exclusiveMaximum", least))
    return int(min(-(-least // step) * step, most))


def _text(schema: Mapping[str, Any]) -> str:
    least, most = schema.get("minLength", 0), schema.get("maxLength", 1_000)
    proposals = [*([_FORMATS[f]] if (f := str(schema.get("format"))) in _FORMATS else []), *_TEXTS]
    if least <= 1_000:
        proposals += [letter * least for letter in "a1A"]
    for text in proposals:
        fits = least <= len(text) <= most
        if fits and ("pattern" not in schema or re.search(schema["pattern"], text)):
            return text
    raise _NoSampleError
