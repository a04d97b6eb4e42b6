"""JSON Schemas as types of Python: annotations, and the classes that these name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from automate_kernel.plugins.connectors import ActionSpec
from automate_openapi.python_source import apart, camel, literal, told_apart
from automate_openapi.schemas import Direction

SCALARS: Mapping[str, str] = {
    "string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None",
}  # fmt: skip
"""The types of Python by those of JSON Schema."""

_LONGEST_TYPE = 10_000


@dataclass(frozen=True, slots=True)
class TypePlace:
    """A schema's place in the document, and the name of the type for it, if no other wants that."""

    name: str
    path: str

    def inner(self, name: str, path: str) -> TypePlace:
        """Return the place of a schema in this schema."""
        return TypePlace(f"{self.name}{name}", f"{self.path}/{path}")


class PythonTypes(ABC):
    """
    The types of the inputs and outputs of *specs*, and the source of their *classes*.

    Of types that would have one name each gets a digest of its place, so none takes over another's
    when operations come or go. *claims* are those of a first pass: the places by the names. No type
    has a name that is *taken*. A subclass writes the classes.
    """

    def __init__(
        self,
        specs: Iterable[ActionSpec],
        directed: Collection[str],
        taken: Collection[str],
        claims: Mapping[str, set[str]] | None = None,
    ) -> None:
        specs = list(specs)
        self.classes: list[str] = []
        self.claims: dict[str, set[str]] = {}
        self._found_claims = claims or {}
        self._directed, self._taken = directed, taken
        self._definitions: dict[Direction, dict[str, Any]] = {
            "input": _definitions(spec.input_schema for spec in specs),
            "output": _definitions(spec.output_schema for spec in specs),
        }
        self._made: dict[str, str] = {}
        self._open: set[str] = set()
        self._depth = 0
        """The objects around the one that is written."""
        self._kinds: dict[tuple[str, int], str] = {}

    @abstractmethod
    def write(
        self, name: str, schema: Mapping[str, Any], place: TypePlace, direction: Direction
    ) -> None:
        """Add the class *name* for an object to *classes*."""

    def type_of(self, schema: Any, place: TypePlace, direction: Direction) -> str:
        """Return the type of *schema*, as it is written in an annotation."""
        if not isinstance(schema, Mapping):
            return "Any"
        if "$ref" in schema:
            return self._referred(schema["$ref"], direction)
        for word in ("anyOf", "oneOf"):
            if word in schema:
                return _union(
                    self.type_of(
                        each, place.inner(f"{number or ''}", f"{word}/{number}"), direction
                    )
                    for number, each in enumerate(schema[word])
                )
        if "allOf" in schema:
            return self._merged(schema, place, direction)
        if "enum" in schema or "const" in schema:
            values = schema.get("enum", [schema.get("const")])
            if not all(isinstance(each, (str, int, type(None))) for each in values):
                return "Any"
            return _union(
                "None" if each is None else f"Literal[{literal(each)}]" for each in values
            )
        kinds = schema.get("type", "object" if "properties" in schema else None)
        listed = kinds if isinstance(kinds, list) else [kinds]
        return _union(self._of_kind(kind, schema, place, direction) for kind in listed)

    def _of_kind(
        self, kind: Any, schema: Mapping[str, Any], place: TypePlace, direction: Direction
    ) -> str:
        if kind == "array":
            item = self.type_of(schema.get("items", {}), place.inner("Item", "items"), direction)
            return f"list[{item}]"
        if kind == "object":
            if schema.get("properties"):
                return self.object_of(schema, place, direction)
            values = schema.get("additionalProperties", {})
            return f"dict[str, {self.type_of(values, place.inner('Value', 'values'), direction)}]"
        return SCALARS.get(kind, "Any")

    def _referred(self, reference: str, direction: Direction) -> str:
        name = reference.removeprefix("#/$defs/")
        path, wanted = f"definition {name}", camel(name)
        if direction == "input" and name in self._directed:
            path, wanted = f"{path} input", f"{wanted}Input"
        elif name in self._definitions["output"]:
            direction = "output"
        schema = self._definitions[direction].get(name)
        if path in self._made:
            return self._made[path]
        if (path, self._depth) in self._kinds:
            return self._kinds[path, self._depth]
        if not isinstance(schema, Mapping) or path in self._open:
            return "Any"  # a circle of types without names
        place = TypePlace(wanted, path)
        if schema.get("type") == "object" and schema.get("properties"):
            return self.object_of(schema, place, direction)
        self._open.add(path)
        try:
            found = self.type_of(schema, place, direction)
        finally:
            self._open.discard(path)
        # Found once: definitions that refer to the next one twice would double it each time.
        self._kinds[path, self._depth] = found if len(found) <= _LONGEST_TYPE else "Any"
        return self._kinds[path, self._depth]

    def _merged(self, schema: Mapping[str, Any], place: TypePlace, direction: Direction) -> str:
        parts = [schema, *schema["allOf"]] if "properties" in schema else schema["allOf"]
        if len(parts) == 1:
            return self.type_of(parts[0], place, direction)
        properties: dict[str, Any] = {}
        required: set[str] = set()
        for part in parts:
            node, steps = part, 0
            while isinstance(node, Mapping) and "$ref" in node and steps < 20:
                node = self._definitions[direction].get(node["$ref"].removeprefix("#/$defs/"))
                steps += 1
            if not isinstance(node, Mapping) or ("properties" not in node and "type" in node):
                return "Any"
            properties |= node.get("properties", {})
            required |= set(node.get("required", []))
        joined = {"properties": properties, "required": sorted(required)}
        return self.object_of(joined, place, direction) if properties else "Any"

    def object_of(self, schema: Mapping[str, Any], place: TypePlace, direction: Direction) -> str:
        """Write a class for the object, unless it is written, and return its name."""
        found = self._made.get(place.path)  # in a list that several refer to
        if found is None:
            found = self._made[place.path] = self._name(place)
            self.write(found, schema, place, direction)
        return found

    def _name(self, place: TypePlace) -> str:
        # With a capital letter first no type has the name of a method.
        name = apart(place.name or "Item", self._taken, digits="Type")
        self.claims.setdefault(name, set()).add(place.path)
        return name if len(self._found_claims.get(name, ())) < 2 else told_apart(name, place.path)


def _definitions(schemas: Iterable[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for schema in schemas:
        if isinstance(schema, Mapping):
            found |= schema.get("$defs", {})
    return found


def _union(kinds: Iterable[str]) -> str:
    parts = dict.fromkeys(part for kind in kinds for part in _alternatives(kind))
    literals = [part[len("Literal[") : -1] for part in parts if part.startswith("Literal[")]
    found = [part for part in parts if not part.startswith("Literal[")]
    if "Any" in found or not parts:
        return "Any"
    if literals:
        found.insert(0, f"Literal[{', '.join(literals)}]")
    # None last, as people write it.
    return " | ".join(sorted(found, key=lambda kind: kind == "None"))


def _alternatives(kind: str) -> list[str]:
    """Return *kind* without and with the null that it ends with."""
    whole = kind.removesuffix(" | None")
    return [whole, "None"] if whole != kind else [kind]
