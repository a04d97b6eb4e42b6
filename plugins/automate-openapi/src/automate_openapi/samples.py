"""Samples of inputs and answers, which a plugin's first tests and its example are made of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from automate_kernel.base.errors import AutomateError
from automate_kernel.operations.schemas.checks import compile_schema
from automate_openapi.paging import settled, types_of

_DEEPEST, _MOST_VALUES = 8, 500
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
    try:
        made = _Samples(schema.get("$defs", {}))
        found = made.sample(schema, 0)
        if wanted:
            made.add(found, schema, wanted.split("."))
        if not compile_schema(schema, "the schema")(found):
            return found
    except (_NoSampleError, AutomateError, RecursionError):
        pass
    raise LookupError("no value that fits was found")


class _Samples:
    """Samples of schemas with *definitions*, which together have no more than so many values."""

    def __init__(self, definitions: Mapping[str, Any]) -> None:
        self._definitions, self._left = definitions, _MOST_VALUES

    def add(self, found: Any, schema: Any, names: list[str]) -> None:
        """Put a sample of what *names* lead to into *found*, an object."""
        name, *more = names
        properties = settled(schema, self._definitions).get("properties", {})
        if not isinstance(found, dict) or name not in properties:
            raise _NoSampleError
        if name not in found:
            found[name] = self.sample(settled(properties[name], self._definitions), 0)
        if more:
            self.add(found[name], properties[name], more)

    def sample(self, schema: Any, depth: int) -> Any:
        """Return a sample of *schema*."""
        self._left -= 1
        if not isinstance(schema, Mapping) or depth > _DEEPEST or self._left < 0:
            raise _NoSampleError
        if "$ref" in schema:
            name = str(schema["$ref"]).removeprefix("#/$defs/")
            return self.sample(self._definitions.get(name), depth + 1)
        for value in (schema.get("const"), schema.get("default"), *schema.get("enum", ())):
            plain = isinstance(value, str) and _PLAIN.fullmatch(value)
            if plain or isinstance(value, (bool, int)):
                return value
        if "enum" in schema or "const" in schema:
            raise _NoSampleError
        for word in ("anyOf", "oneOf"):
            for each in schema.get(word, ()):
                if not (isinstance(each, Mapping) and each.get("type") == "null"):
                    return self.sample(each, depth + 1)
        return self._joined(schema, depth) if "allOf" in schema else self._of_type(schema, depth)

    def _joined(self, schema: Mapping[str, Any], depth: int) -> Any:
        own = {key: value for key, value in schema.items() if key != "allOf"}
        parts = [self.sample(each, depth + 1) for each in schema["allOf"]]
        parts += [self.sample(own, depth + 1)] if "properties" in own else []
        if all(isinstance(each, dict) for each in parts):
            return {name: value for each in parts for name, value in each.items()}
        return parts[0]

    def _of_type(self, schema: Mapping[str, Any], depth: int) -> Any:
        kinds = types_of(schema)
        if "object" in kinds:
            properties = schema.get("properties", {})
            wanted = schema.get("required", ())
            if not all(_PLAIN.fullmatch(name) for name in wanted):
                raise _NoSampleError
            return {each: self.sample(properties.get(each, {}), depth + 1) for each in wanted}
        if "array" in kinds:
            count = schema.get("minItems", int(depth < 2))
            items = schema.get("items", {})
            return [self.sample(items, depth + 1) for _ in range(min(count, 20))]
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
