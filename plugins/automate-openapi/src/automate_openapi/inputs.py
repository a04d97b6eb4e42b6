"""An action's input: parameters and body as the fields of one JSON object."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from automate_openapi.bodies import Body, concrete, file_schema, is_binary, kind_of, preferred
from automate_openapi.document import ApiDocument, BrokenReferenceError, mapping
from automate_openapi.names import OperationPlace
from automate_openapi.parameters import STYLES, Parameter, template_names
from automate_openapi.schemas import Closed, Schemas

_LOCATIONS = ("path", "query", "header", "cookie")
# The client's own, and those that the document's security schemes and media types decide on.
_OURS = {"accept", "authorization", "content-type"}
# A body whose schema says no more than this is taken apart into fields.
_PLAIN = {
    "type", "properties", "required", "additionalProperties", "title", "description", "example",
    "examples", "default", "deprecated", "externalDocs", "xml",
}  # fmt: skip
_MOST_DESCRIPTION = 1_000


@dataclass(slots=True)
class Input:
    """The fields of an action: their schema, and the parts of a request that they become."""

    parameters: list[Parameter] = field(default_factory=list)
    body: Body | None = None
    schema: Closed = field(default_factory=lambda: Closed({}, []))
    max_items: str | None = None
    """The field that asks for the items of many pages."""


class InputReader:
    """Reads the input of one action at *place*. *files_from* is the folder of files to send."""

    def __init__(
        self,
        document: ApiDocument,
        schemas: Schemas,
        place: OperationPlace,
        *,
        files_from: str | None,
        max_items: int | None,
    ) -> None:
        self._document, self._schemas, self._place = document, schemas, place
        self._files_from, self._max_items = files_from, max_items
        self._properties: dict[str, Any] = {}
        self._required: list[str] = []
        self._dependent: dict[str, list[str]] = {}
        self._references: dict[str, None] = {}
        self._problems: list[str] = []
        self._open: Any = False

    def read(self) -> Input:
        """Return the input. Raises `BrokenReferenceError` for a parameter that can't be known."""
        found = Input(self._parameters())
        for each in found.parameters:
            self._add(each.key, each.schema, each.base, each.description, each.required)
        found.body = self._body()
        if self._max_items is not None:
            found.max_items = self._free("max_items", "list")
            self._properties[found.max_items] = {
                "type": "integer",
                "minimum": 1,
                "maximum": self._max_items,
                "description": "Return up to so many items of the list, of all its pages.",
            }
        found.schema = self._closed()
        return found

    def _closed(self) -> Closed:
        schema: dict[str, Any] = {
            "type": "object",
            "properties": self._properties,
            "additionalProperties": self._open,
        }
        if self._required:
            schema["required"] = self._required
        if self._dependent:
            schema["dependentRequired"] = self._dependent
        part = self._schemas.part({}, self._place.base, "input")
        part.references, part.problems = self._references, self._problems
        return self._schemas.close(schema, part, "input")

    # -- parameters --------------------------------------------------------------------------

    def _parameters(self) -> list[Parameter]:
        place, base = self._place, self._place.base
        found: dict[tuple[str, str], tuple[Mapping[str, Any], str]] = {}
        for holder in (place.item, place.operation):
            listed = holder.get("parameters")
            for given in listed if isinstance(listed, list) else []:
                node, where = self._document.resolved(given, base)
                key = (str(node.get("in")), str(node.get("name")))
                if "name" not in node:
                    self._problems.append("a parameter has no name")
                elif self._counts(*key):
                    found[key] = (node, where)
        for name in template_names(place.path):
            if ("path", name) not in found:
                self._problems.append(f"the path's {name!r} is not among the parameters")
                node = {"name": name, "in": "path", "schema": {"type": "string"}}
                found["path", name] = (node, base)
        ordered = sorted(found.values(), key=lambda each: _LOCATIONS.index(each[0]["in"]))
        taken: set[str] = set()
        return [self._parameter(node, where, taken) for node, where in ordered]

    def _counts(self, location: str, name: str) -> bool:
        if location not in _LOCATIONS:
            self._problems.append(f"a parameter is in {location[:40]!r}, which is no place")
            return False
        if location == "path" and name not in template_names(self._place.path):
            self._problems.append(f"the parameter {name!r} is not in the path")
            return False
        return location != "header" or name.lower() not in _OURS

    def _parameter(self, node: Mapping[str, Any], base: str, taken: set[str]) -> Parameter:
        name, location = str(node["name"]), node["in"]
        free = _free_name(name, location, taken)
        taken.add(free)
        style = node.get("style", STYLES[location][0])
        if style not in STYLES[location]:
            self._problems.append(f"the style {str(style)[:40]!r} is none of a {location}'s")
            style = STYLES[location][0]
        content = mapping(node.get("content"))
        schema, json = node.get("schema", {}), False
        if content:
            media_type = next(iter(content))
            json = kind_of(media_type) == "json"
            schema = mapping(content[media_type]).get("schema", {})
        explode = node.get("explode")
        return Parameter(
            name,
            location,
            free,
            style,
            explode if isinstance(explode, bool) else style in ("form", "deepObject"),
            required=location == "path" or node.get("required") is True,
            reserved=node.get("allowReserved") is True,
            json=json,
            schema=schema,
            base=base,
            description=str(node.get("description") or ""),
        )

    # -- the body ----------------------------------------------------------------------------

    def _body(self) -> Body | None:
        given = self._place.operation.get("requestBody")
        if given is None or self._place.method in ("get", "head", "trace"):
            return None
        node, base = self._document.resolved(given, self._place.base)
        content = mapping(node.get("content"))
        media_type = preferred(content)
        if media_type is None:
            return None
        kind, media = kind_of(media_type), mapping(content[media_type])
        schema, required = media.get("schema", {}), node.get("required") is True
        encoding = mapping(media.get("encoding"))
        written = concrete(media_type)
        if kind == "binary":
            whole = self._free("body", "body")
            self._set(whole, file_schema(self._files_from), required)
            return Body(kind, written, required, whole, files_from=self._files_from)
        if kind == "text":
            whole = self._free("body", "body")
            self._set(whole, {"type": "string"}, required)
            return Body(kind, written, required, whole)
        plain, where = self._plain(schema, base)
        if plain is not None:
            return self._fields(plain, where, Body(kind, written, required, encoding=encoding))
        whole = self._free("body", "body")
        self._add(whole, schema, base, str(node.get("description") or ""), required)
        return Body(kind, written, required, whole, encoding=encoding)

    def _plain(self, schema: Any, base: str) -> tuple[Mapping[str, Any] | None, str]:
        """Return the schema of a body that is an object of known fields, or None."""
        try:
            node, where = self._document.resolved(schema, base)
        except BrokenReferenceError as problem:
            self._problems.append(str(problem))
            return None, base
        words = {word for word in node if not word.startswith("x-")}
        plain = (
            words <= _PLAIN
            and node.get("type", "object") == "object"
            and bool(mapping(node.get("properties")))
        )
        return (node, where) if plain else (None, base)

    def _fields(self, node: Mapping[str, Any], base: str, body: Body) -> Body:
        part = self._schemas.part(node, base, "input")
        schema = mapping(part.schema)
        binary = {
            name for name, each in mapping(node.get("properties")).items()
            if body.kind == "multipart" and is_binary(self._resolved(each, base))
        }  # fmt: skip
        fields = {}
        for name, each in mapping(schema.get("properties")).items():
            fields[name] = self._free(name, "body")
            self._properties[fields[name]] = self._file_of(each) if name in binary else each
        needed = [fields[name] for name in schema.get("required", []) if name in fields]
        if body.required:
            self._required += needed
        elif needed:
            # The body may be left out, but not a part of it.
            self._dependent = dict.fromkeys(fields.values(), needed)
        self._references |= part.references
        self._problems += part.problems
        more = schema.get("additionalProperties", False)
        self._open = more
        return Body(
            body.kind,
            body.media_type,
            body.required,
            fields=fields,
            others=more is not False,
            binary=frozenset(binary),
            encoding=body.encoding,
            files_from=self._files_from,
        )

    def _file_of(self, schema: Any) -> dict[str, Any]:
        one = file_schema(self._files_from)
        return {"type": "array", "items": one} if mapping(schema).get("type") == "array" else one

    def _resolved(self, node: Any, base: str) -> Mapping[str, Any]:
        try:
            return self._document.resolved(node, base)[0]
        except BrokenReferenceError:
            return {}

    # -- fields ------------------------------------------------------------------------------

    def _free(self, name: str, location: str) -> str:
        return _free_name(name, location, self._properties)

    def _add(self, name: str, node: Any, base: str, description: str, required: bool) -> None:
        part = self._schemas.part(node, base, "input")
        self._references |= part.references
        self._problems += part.problems
        schema = dict(part.schema) if isinstance(part.schema, dict) else {}
        if description and "description" not in schema:
            schema["description"] = description[:_MOST_DESCRIPTION]
        self._set(name, schema, required)

    def _set(self, name: str, schema: dict[str, Any], required: bool) -> None:
        self._properties[name] = schema
        if required:
            self._required.append(name)


def _free_name(name: str, location: str, taken: Iterable[str]) -> str:
    """Return *name*, or with its location before it where another field has it."""
    free, number = name, 2
    while free in taken:
        free = f"{location}_{name}" if number == 2 else f"{location}_{name}_{number}"
        number += 1
    return free
