"""An example of a value, made up from its JSON Schema."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

_DEEPEST = 8
_FORMATS = {
    "date": "2026-01-01",
    "date-time": "2026-01-01T12:00:00Z",
    "email": "someone@example.com",
    "time": "12:00:00Z",
    "uri": "https://example.com",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


def example_of(schema: Mapping[str, Any], name: str) -> Any:
    """
    Return a value that fits *schema* roughly: constraints beside the type don't count.

    Texts in it say where they stand, beginning with *name*: ``[steps.post.output.ts]``.
    """
    return _Maker(schema).value(schema, name, _DEEPEST)


class _Maker:
    def __init__(self, root: Mapping[str, Any]) -> None:
        self._definitions = root.get("$defs", root.get("definitions", {}))
        self._makers: dict[str, Callable[[Mapping[str, Any], str, int], Any]] = {
            "object": self._object,
            "array": self._array,
            "string": lambda schema, name, depth: _FORMATS.get(
                str(schema.get("format")), f"[{name}]"
            ),
            "integer": lambda schema, name, depth: schema.get("minimum", 1),
            "number": lambda schema, name, depth: schema.get("minimum", 1),
            "boolean": lambda schema, name, depth: True,
        }

    def value(self, schema: Any, name: str, depth: int) -> Any:
        if not isinstance(schema, Mapping) or not depth:
            return f"[{name}]"
        for found in _proposed(schema):
            return found
        if "$ref" in schema:
            target = str(schema["$ref"]).rpartition("/")[2]
            return self.value(self._definitions.get(target), name, depth - 1)
        for one in _alternatives(schema):
            return self.value(one, name, depth - 1)
        kinds = schema.get("type", "object" if "properties" in schema else None)
        kinds = kinds if isinstance(kinds, list) else [kinds]
        kind = next((each for each in kinds if each != "null"), None)
        maker = self._makers.get(str(kind))
        if maker is not None:
            return maker(schema, name, depth)
        return None if kinds == ["null"] else f"[{name}]"

    def _object(self, schema: Mapping[str, Any], name: str, depth: int) -> dict[str, Any]:
        fields = schema.get("properties", {})
        return {key: self.value(one, f"{name}.{key}", depth - 1) for key, one in fields.items()}

    def _array(self, schema: Mapping[str, Any], name: str, depth: int) -> list[Any]:
        return [self.value(schema.get("items"), f"{name}[0]", depth - 1)]


def _proposed(schema: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the values that a schema names itself."""
    yield from (schema[key] for key in ("const", "default") if schema.get(key) is not None)
    yield from (schema[key][0] for key in ("examples", "enum") if schema.get(key))


def _alternatives(schema: Mapping[str, Any]) -> Iterator[Any]:
    for key in ("anyOf", "oneOf", "allOf"):
        for one in schema.get(key, ()):
            if not (isinstance(one, Mapping) and one.get("type") == "null"):
                yield one
