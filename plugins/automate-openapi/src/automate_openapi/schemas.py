"""
The schemas of a document as JSON Schema 2020-12, each with the definitions that it needs.

What a schema may not have is left out with a note, so that the rest always compiles: of the public
documents one in forty has a pattern that can't be matched in linear time, or a type that doesn't
exist. ``unevaluatedProperties`` is left out too.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from automate_kernel.operations.schemas.patterns import PatternBudget
from automate_kernel.operations.schemas.portable import without_patterns
from automate_openapi.document import ApiDocument, BrokenReferenceError, mapping

Direction = Literal["input", "output"]
_TYPES = ("null", "boolean", "object", "array", "number", "string", "integer")
_DEEPEST, _MOST_NODES, _MOST_DEFINITIONS, _LONGEST = 60, 20_000, 3_000, 2_000
_UNFIT = re.compile(r"[^A-Za-z0-9_.-]+")
_NOT_LINEAR = "it can't be matched in linear time"
# Which side never has the property, by the property's own word.
_OTHERS = {"input": "readOnly", "output": "writeOnly"}


@dataclass(slots=True)
class Closed:
    """A schema with its definitions, and the *problems* that its author would want to know."""

    schema: dict[str, Any]
    problems: list[str]


@dataclass(slots=True)
class _SchemaPart:
    """One rewritten schema: the definitions that it refers to, by reference, and its problems."""

    schema: dict[str, Any] | bool = True
    references: dict[str, None] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


class Schemas:
    """The schemas of a *document*. Each definition is rewritten once, for all that refer to it."""

    def __init__(self, document: ApiDocument) -> None:
        self._document = document
        self._parts: dict[tuple[Direction, str], _SchemaPart] = {}
        self._names: dict[str, str] = {}
        self._budget, self._all_taken = PatternBudget(), True

    def closed(self, node: Any, base: str, direction: Direction) -> Closed:
        """Return the schema *node*, which is in the document *base*, with all that it needs."""
        part = self.part(node, base, direction)
        schema = part.schema if isinstance(part.schema, dict) else {}
        return self.close(schema, part, direction)

    def part(self, node: Any, base: str, direction: Direction) -> _SchemaPart:
        """Return the schema *node* rewritten, and without its definitions."""
        return _Rewriting(self._document, self, base, direction).done(node)

    def close(self, schema: dict[str, Any], part: _SchemaPart, direction: Direction) -> Closed:
        """Return *schema*, made of *part*, with the definitions that it refers to."""
        problems = list(part.problems)
        definitions: dict[str, Any] = {}
        waiting = list(part.references)
        while waiting:
            reference = waiting.pop()
            name = self.name_of(reference)
            if name in definitions:
                continue
            if len(definitions) >= _MOST_DEFINITIONS:
                return Closed({}, [f"it needs more than {_MOST_DEFINITIONS:,} definitions"])
            found = self._definition(reference, direction)
            definitions[name] = found.schema
            problems += found.problems
            waiting += found.references
        if definitions:
            schema = {**schema, "$defs": dict(sorted(definitions.items()))}
        if not self._all_taken:
            schema = self._bounded(schema, problems)
        return Closed(schema, list(dict.fromkeys(problems)))

    def note_patterns(self, schema: Mapping[str, Any]) -> None:
        """Note if one can't be used. Most documents have none; nothing is searched then."""
        for pattern in (*schema.get("patternProperties", ()), schema.get("pattern")):
            if pattern is not None:
                self._all_taken = self._budget.takes(pattern) and self._all_taken

    def _bounded(self, schema: dict[str, Any], problems: list[str]) -> dict[str, Any]:
        budget = PatternBudget()

        def takes(pattern: str) -> bool:
            taken = budget.takes(pattern)
            if not taken:
                problems.append(f"the pattern {pattern[:60]!r} isn't checked: {_NOT_LINEAR}")
            return taken

        return without_patterns(schema, takes)

    def name_of(self, reference: str) -> str:
        """Return the name among ``$defs`` of what a *reference* leads to."""
        found = self._names.get(reference)
        if found is None:
            last = reference.rpartition("/")[2]
            found = _UNFIT.sub("_", last)[:100] or "schema"
            own = reference.startswith(f"{self._document.place}#/components/schemas/")
            if not own or found != last or reference.count("/", reference.rindex("#")) != 3:
                digest = hashlib.sha256(reference.encode("utf-8", "surrogatepass")).hexdigest()
                found = f"{found}_{digest[:8]}"
            self._names[reference] = found
        return found

    def directed(self) -> frozenset[str]:
        """Return the names of the definitions that a request and an answer have in two forms."""
        forms: dict[str, tuple[_SchemaPart, _SchemaPart]] = {}
        waiting = list(self._names)
        while waiting:
            reference = waiting.pop()
            if reference not in forms:
                both = self._definition(reference, "input"), self._definition(reference, "output")
                forms[reference] = both
                waiting += [each for part in both for each in part.references]
        found = {each for each, (one, other) in forms.items() if one.schema != other.schema}
        while more := {
            each
            for each, parts in forms.items()
            if each not in found and any(found & part.references.keys() for part in parts)
        }:
            found |= more
        return frozenset(map(self.name_of, found))

    def _definition(self, reference: str, direction: Direction) -> _SchemaPart:
        key = (direction, reference)
        found = self._parts.get(key)
        if found is None:
            try:
                node = self._document.at(reference)
            except BrokenReferenceError as problem:
                found = _SchemaPart({}, problems=[str(problem)])
            else:
                found = self.part(node, reference.rpartition("#")[0], direction)
            self._parts[key] = found
        return found


class _Rewriting:
    """The rewriting of one schema. A keyword that isn't as it should be is left out."""

    def __init__(
        self, document: ApiDocument, schemas: Schemas, base: str, direction: Direction
    ) -> None:
        self._document, self._schemas, self._base = document, schemas, base
        self._direction = direction
        self._part = _SchemaPart()
        self._nodes = 0

    def done(self, node: Any) -> _SchemaPart:
        self._part.schema = self._schema(node, 0)
        return self._part

    def _note(self, problem: str) -> None:
        self._part.problems.append(problem)

    def _schema(self, node: Any, depth: int) -> dict[str, Any] | bool:
        if isinstance(node, bool):
            return node
        self._nodes += 1
        if self._nodes > _MOST_NODES or depth > _DEEPEST:
            self._note("a schema is too large or too deep, and is cut there")
            return {}
        if not isinstance(node, Mapping):
            self._note("a schema is no object")
            return {}
        found: dict[str, Any] = {}
        if "$ref" in node:
            reference = self._reference(node["$ref"])
            if reference is not None:
                found["$ref"] = reference
            if self._document.old:  # its other keywords don't count
                node = {key: node[key] for key in ("description", "nullable") if key in node}
        for keyword, value in node.items():
            self._keyword(found, keyword, value, depth)
        self._schemas.note_patterns(found)
        self._bounds(found, node)
        if node.get("readOnly") is True or node.get("writeOnly") is True:
            found |= {k: True for k in ("readOnly", "writeOnly") if node.get(k) is True}
        self._without_others(found, node)
        return _nullable(found) if node.get("nullable") is True else found

    def _reference(self, given: Any) -> str | None:
        try:
            absolute = self._document.absolute(given, self._base)
            self._document.at(absolute)
        except BrokenReferenceError as problem:
            self._note(str(problem))
            return None
        self._part.references[absolute] = None
        return f"#/$defs/{self._schemas.name_of(absolute)}"

    def _keyword(self, found: dict[str, Any], keyword: str, value: Any, depth: int) -> None:
        check = _CHECKS.get(keyword)
        if check is not None:
            if check(value):
                found[keyword] = value[:_LONGEST] if isinstance(value, str) else value
            elif not (keyword in _BOUNDS or (keyword == "required" and isinstance(value, bool))):
                self._note(f"the value of {keyword!r} can't be used")
        elif keyword in _ONE:
            found[keyword] = self._schema(value, depth + 1)
        elif keyword in _LISTS and isinstance(value, list) and value:
            found[keyword] = [self._schema(each, depth + 1) for each in value]
        elif keyword in _MAPS and isinstance(value, Mapping):
            found[keyword] = {
                str(name): self._schema(each, depth + 1) for name, each in value.items()
            }
        elif keyword == "type":
            self._type(found, value)
        elif keyword == "items":
            self._items(found, value, depth)
        elif keyword == "pattern" and isinstance(value, str):
            found["pattern"] = value

    def _type(self, found: dict[str, Any], value: Any) -> None:
        types = value if isinstance(value, list) else [value]
        known = list(dict.fromkeys(each for each in types if each in _TYPES))
        if known:
            found["type"] = known if len(known) > 1 else known[0]
        if len(known) != len(types):
            self._note(f"a type is none of JSON Schema's: {str(value)[:60]!r}")

    def _items(self, found: dict[str, Any], value: Any, depth: int) -> None:
        if isinstance(value, list):
            if value:
                found["prefixItems"] = [self._schema(each, depth + 1) for each in value]
        else:
            found["items"] = self._schema(value, depth + 1)

    def _bounds(self, found: dict[str, Any], node: Mapping[str, Any]) -> None:
        for keyword, exclusive in (
            ("minimum", "exclusiveMinimum"),
            ("maximum", "exclusiveMaximum"),
        ):
            if node.get(exclusive) is True and keyword in found:
                found[exclusive] = found.pop(keyword)

    def _without_others(self, found: dict[str, Any], node: Mapping[str, Any]) -> None:
        """Leave out the properties that only the other direction has."""
        word, properties = _OTHERS[self._direction], found.get("properties")
        if not properties:
            return
        others = {
            name for name, each in mapping(node.get("properties")).items() if self._says(each, word)
        }
        if not others:
            return
        if self._direction == "input":
            found["properties"] = {k: v for k, v in properties.items() if k not in others}
        required = [name for name in found.pop("required", []) if name not in others]
        if required:
            found["required"] = required

    def _says(self, node: Any, word: str) -> bool:
        if not isinstance(node, Mapping):
            return False
        if node.get(word) is True:
            return True
        try:
            return "$ref" in node and self._document.resolved(node, self._base)[0].get(word) is True
        except BrokenReferenceError:
            return False


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    """Return *schema* with null among its values."""
    kinds = schema.get("type")
    if kinds is None:
        plain = not any(word in schema for word in ("$ref", "allOf", "anyOf", "oneOf", "enum"))
        return schema if plain else {"anyOf": [schema, {"type": "null"}]}
    listed = kinds if isinstance(kinds, list) else [kinds]
    if "null" not in listed:
        schema["type"] = [*listed, "null"]
    if "enum" in schema and None not in schema["enum"]:
        schema["enum"] = [*schema["enum"], None]
    if any(word in schema for word in ("allOf", "anyOf", "oneOf", "const")):
        return {"anyOf": [schema, {"type": "null"}]}
    return schema


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_texts(value: Any) -> bool:
    return (
        isinstance(value, list)
        and all(isinstance(each, str) for each in value)
        and len(set(value)) == len(value)
    )


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "multipleOf": lambda value: _is_number(value) and value > 0,
    "dependentRequired": lambda value: (
        isinstance(value, Mapping) and all(_is_texts(each) for each in value.values())
    ),
    "enum": lambda value: isinstance(value, list) and bool(value),
    "required": _is_texts,
    "const": lambda value: True,
    "default": lambda value: True,
    **dict.fromkeys(
        ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _is_number
    ),
    **dict.fromkeys(
        (
            "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties",
            "minContains", "maxContains",
        ),
        _is_count,
    ),
    **dict.fromkeys(
        ("title", "description", "format", "contentEncoding", "contentMediaType"), _is_text
    ),
    **dict.fromkeys(("uniqueItems", "deprecated"), _is_flag),
}  # fmt: skip
# Flags in version 3.0.
_BOUNDS = ("exclusiveMinimum", "exclusiveMaximum")
_ONE = (
    "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames",
    "unevaluatedItems", "contentSchema",
)  # fmt: skip
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_MAPS = ("properties", "patternProperties", "dependentSchemas")
