"""A module with typed methods, written from a document, for editors and type checkers."""

from __future__ import annotations

import hashlib
import keyword
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from automate_kernel.plugins.connectors import ActionSpec
from automate_openapi.actions import Actions
from automate_openapi.connector import OpenApiConnector
from automate_openapi.schemas import Direction

_WORD = re.compile(r"[A-Za-z0-9]+")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_FIELD = re.compile(r"(?!__)[A-Za-z_][A-Za-z0-9_]*")
_SCALARS = {
    "string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None",
}  # fmt: skip
_MOST_TEXT = 90


def frozen_module(actions: Actions, *, key: str, only: Iterable[str] = ("*",)) -> str:
    """
    Return the source of a module with a subclass of `OpenApiConnector` for *key*.

    It has a typed method for each of the *actions* whose name fits a pattern of *only*. Text of the
    document comes into it as literals and docstrings alone.
    """
    patterns = list(only)
    wanted = [n for n in actions if any(fnmatchcase(n, pattern) for pattern in patterns)]
    specs = [actions[name] for name in sorted(wanted)]
    # Those of all actions, so that a method has its name whatever else is frozen.
    names, directed = _method_names(actions), actions.directed()
    draft = _Module(specs, key, names, directed)
    for spec in specs:
        draft.method(spec)
    module = _Module(specs, key, names, directed, draft.claims)
    methods = [module.method(spec) for spec in specs]
    title = _line(actions.document.title)
    about = (
        f"{title}, as typed methods.\n\nWritten by ``automate openapi freeze {key}``. Write it "
        "again when the document has changed."
    )
    body = [
        f'"""\n{about}\n"""',
        "# ruff: noqa",
        "",
        "from __future__ import annotations",
        "",
        *module.imports([*module.classes, *methods]),
        "",
        "",
        *[f"{each}\n\n" for each in module.classes],
        f"class {module.name}(OpenApiConnector):",
        f'    """{title}."""',
        "",
        f"    key = {_quoted(key)}",
        f"    display_name = {_quoted(title)}",
        "",
        "\n\n".join(methods),
    ]
    return "\n".join(body).rstrip() + "\n"


# Names of the module itself, which no type may have.
_TAKEN = frozenset(
    {"Any", "Literal", "NotRequired", "OpenApiConnector", "TypedDict", "Unpack", "cast"}
)
# In the class a method called `list` would be what `list[str]` means.
_NO_METHODS = frozenset(
    {*dir(OpenApiConnector), *_SCALARS.values(), "list", "dict", "config", "ctx", "cast"}
)


@dataclass(frozen=True, slots=True)
class _TypePlace:
    """A schema's place in the document, and the name of the type for it, if no other wants that."""

    name: str
    path: str

    def inner(self, name: str, path: str) -> _TypePlace:
        """Return the place of a schema in this one."""
        return _TypePlace(f"{self.name}{name}", f"{self.path}/{path}")


class _Module:
    """
    The classes of a module.

    Of types that would have one name each gets a digest of its place, so none takes over another's
    when operations come or go. *claims* are those of a first pass: the places by the names.
    """

    def __init__(
        self,
        specs: list[ActionSpec],
        key: str,
        methods: Mapping[str, str],
        directed: frozenset[str],
        claims: Mapping[str, set[str]] | None = None,
    ) -> None:
        self.classes: list[str] = []
        self.name = _apart(_camel(key) or "Api", _TAKEN)
        self.claims: dict[str, set[str]] = {}
        self._found_claims = claims or {}
        self._methods, self._directed = methods, directed
        self._definitions: dict[Direction, dict[str, Any]] = {
            "input": _definitions(spec.input_schema for spec in specs),
            "output": _definitions(spec.output_schema for spec in specs),
        }
        self._made: dict[str, str] = {}
        self._open: set[str] = set()

    def imports(self, parts: list[str]) -> list[str]:
        """Return the import lines for the names that *parts* use."""
        text = "\n".join(parts)

        def used(*names: str) -> str:
            return ", ".join(name for name in names if re.search(rf"\b{name}\b", text))

        typing, extensions = (
            used("Any", "Literal", "cast"),
            used("NotRequired", "TypedDict", "Unpack"),
        )
        return [
            *([f"from typing import {typing}", ""] if typing else []),
            "from automate_openapi import OpenApiConnector",
            *([f"from typing_extensions import {extensions}"] if extensions else []),
        ]

    def method(self, spec: ActionSpec) -> str:
        """Return the source of the method for an action."""
        name, kind = self._methods[spec.name], _camel(spec.name)
        given = spec.input_schema if isinstance(spec.input_schema, Mapping) else {}
        output = spec.output_schema if isinstance(spec.output_schema, Mapping) else {}
        place = _TypePlace(f"{kind}Output", f"{spec.name} output")
        returns = self._type(output, place, "output")
        if given.get("properties"):
            place = _TypePlace(f"{kind}Input", f"{spec.name} input")
            takes = self._typed_dict(given, place, "input")
            # A field may be called self, too; mypy asks for another name, Python for the slash.
            own = "_self, /" if "self" in given["properties"] else "self"
            signature, values = f"{own}, **values: Unpack[{takes}]", "dict(values)"
        else:
            signature, values = "self", "{}"
        called = f"await {signature.split(',')[0]}.call_action({_quoted(spec.name)}, {values})"
        if returns == "None":
            result = called
        else:
            result = (
                f"return {called if returns == 'Any' else f'cast({_quoted(returns)}, {called})'}"
            )
        about = _line(spec.title or spec.description) or f"Call {spec.name}"
        return (
            f"    async def {name}({signature}) -> {returns}:\n"
            f'        """{about.rstrip(".")}."""\n'
            f"        {result}"
        )

    # -- types -------------------------------------------------------------------------------

    def _type(self, schema: Any, place: _TypePlace, direction: Direction) -> str:
        if not isinstance(schema, Mapping):
            return "Any"
        if "$ref" in schema:
            return self._referred(schema["$ref"], direction)
        for word in ("anyOf", "oneOf"):
            if word in schema:
                return _union(
                    self._type(each, place.inner(f"{number or ''}", f"{word}/{number}"), direction)
                    for number, each in enumerate(schema[word])
                )
        if "allOf" in schema:
            return self._merged(schema, place, direction)
        if "enum" in schema or "const" in schema:
            values = schema.get("enum", [schema.get("const")])
            if not all(isinstance(each, (str, int, type(None))) for each in values):
                return "Any"
            return _union(
                "None" if each is None else f"Literal[{_literal(each)}]" for each in values
            )
        kinds = schema.get("type", "object" if "properties" in schema else None)
        listed = kinds if isinstance(kinds, list) else [kinds]
        return _union(self._of_kind(kind, schema, place, direction) for kind in listed)

    def _of_kind(
        self, kind: Any, schema: Mapping[str, Any], place: _TypePlace, direction: Direction
    ) -> str:
        if kind == "array":
            item = self._type(schema.get("items", {}), place.inner("Item", "items"), direction)
            return f"list[{item}]"
        if kind == "object":
            if schema.get("properties"):
                return self._typed_dict(schema, place, direction)
            values = schema.get("additionalProperties", {})
            return f"dict[str, {self._type(values, place.inner('Value', 'values'), direction)}]"
        return _SCALARS.get(kind, "Any")

    def _referred(self, reference: str, direction: Direction) -> str:
        name = reference.removeprefix("#/$defs/")
        path, wanted = f"definition {name}", _camel(name)
        if direction == "input" and name in self._directed:
            path, wanted = f"{path} input", f"{wanted}Input"
        elif name in self._definitions["output"]:
            direction = "output"
        schema = self._definitions[direction].get(name)
        if path in self._made:
            return self._made[path]
        if not isinstance(schema, Mapping) or path in self._open:
            return "Any"  # a circle of types without names
        place = _TypePlace(wanted, path)
        if schema.get("type") == "object" and schema.get("properties"):
            return self._typed_dict(schema, place, direction)
        self._open.add(path)
        try:
            found = self._type(schema, place, direction)
        finally:
            self._open.discard(path)
        return found

    def _merged(self, schema: Mapping[str, Any], place: _TypePlace, direction: Direction) -> str:
        parts = [schema, *schema["allOf"]] if "properties" in schema else schema["allOf"]
        if len(parts) == 1:
            return self._type(parts[0], place, direction)
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
        return self._typed_dict(joined, place, direction) if properties else "Any"

    def _typed_dict(
        self, schema: Mapping[str, Any], place: _TypePlace, direction: Direction
    ) -> str:
        """Write a class for the object, unless there is one, and return its name."""
        if place.path in self._made:  # in a list that several refer to
            return self._made[place.path]
        found = self._made[place.path] = self._name(place)
        required = set(schema.get("required", []))
        number = len(self.classes)
        fields = {}
        for field, each in schema["properties"].items():
            inner = place.inner(_camel(field), f"properties/{field}")
            kind = self._type(each, inner, direction)
            fields[field] = kind if field in required else f"NotRequired[{kind}]"
        if all(_FIELD.fullmatch(each) and not keyword.iskeyword(each) for each in fields):
            lines = [f"    {field}: {kind}" for field, kind in fields.items()]
            text = "\n".join([f"class {found}(TypedDict):", *lines])
        else:
            # Names that are none of Python's.
            lines = [
                f"        {_quoted(field)}: {_quoted(kind)}," for field, kind in fields.items()
            ]
            text = "\n".join(
                [f"{found} = TypedDict(", f"    {_quoted(found)},", "    {", *lines, "    },", ")"]
            )
        self.classes.insert(number, text)
        return found

    def _name(self, place: _TypePlace) -> str:
        # With a capital letter first no type has the name of a method.
        name = _apart(place.name or "Item", _TAKEN | {self.name}, digits="Type")
        self.claims.setdefault(name, set()).add(place.path)
        return name if len(self._found_claims.get(name, ())) < 2 else _told_apart(name, place.path)


def _method_names(actions: Iterable[str]) -> dict[str, str]:
    """Return the name of the method for each action."""
    names = {each: _apart(_snake(each) or "action", _NO_METHODS) for each in actions}
    claims = Counter(names.values())
    return {
        each: name if claims[name] == 1 else _told_apart(name, each) for each, name in names.items()
    }


def _apart(name: str, taken: Collection[str], *, digits: str = "_") -> str:
    """Return *name* as one that Python takes, with *digits* before some, and that isn't *taken*."""
    if name[:1].isdigit():
        return f"{digits}{name}"
    return f"{name}_" if keyword.iskeyword(name) or name in taken else name


def _told_apart(name: str, place: str) -> str:
    digest = hashlib.sha256(place.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{name.rstrip('_')}_{digest[:6]}"


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


def _words(text: str) -> list[str]:
    return [word for part in _WORD.findall(text) for word in _HUMP.split(part) if word]


def _camel(text: str) -> str:
    return "".join(word[:1].upper() + word[1:] for word in _words(text))


def _snake(text: str) -> str:
    return "_".join(word.lower() for word in _words(text))


def _quoted(text: str) -> str:
    """Return *text* as a literal in double quotes."""
    escaped = "".join(map(_escaped, text))
    return f'"{escaped}"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    # Not as JSON has it: its pairs of surrogates are two characters for Python.
    return character if character.isprintable() else f"\\U{ord(character):08x}"


def _literal(value: Any) -> str:
    return _quoted(value) if isinstance(value, str) else repr(value)


def _line(text: str) -> str:
    """Return *text* in one line that may stand in a docstring."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    line = line.replace("\\", "/").replace('"', "'")
    return line if len(line) <= _MOST_TEXT else line[: _MOST_TEXT - 1].rstrip() + "…"
