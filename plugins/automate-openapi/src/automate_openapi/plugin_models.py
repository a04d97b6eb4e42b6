"""The pydantic models of a plugin that is written from a document."""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Annotated, Any

from pydantic import BaseModel, Field, TypeAdapter

from automate_openapi.python_source import (
    WIDTH,
    Bracket,
    camel,
    docstring,
    line,
    literal,
    names_in,
    snake,
    words,
)
from automate_openapi.python_types import SCALARS, PythonTypes, TypePlace
from automate_openapi.schemas import Direction

OWN_DEFAULT = "x-default"
"""The key of a default of our own: no document's schema has it any more."""

_DEEPEST: Mapping[Direction, int] = {"input": 6, "output": 2}
_MOST_CLASSES, _MOST_CHOICES, _LONGEST_CHOICE, _LONGEST_UNION = 150, 60, 80, 60
_LONGEST_NAME = 40
_PLAIN = re.compile(r"[a-z][A-Za-z0-9_]*")
_UNFIT = frozenset({*dir(BaseModel), *SCALARS.values(), "dict", "list", "l", "self"})
_TAKEN = frozenset(
    {"Any", "BaseModel", "ConfigDict", "Field", "Literal", "RootModel", *dir(builtins)}
)
_TEXTS = {"minLength": "min_length", "maxLength": "max_length"}
_LISTS = {"minItems": "min_length", "maxItems": "max_length"}
_NUMBERS = {
    "minimum": "ge", "maximum": "le", "exclusiveMinimum": "gt", "exclusiveMaximum": "lt",
}  # fmt: skip
_MOST_BOUND = 2**53
_HEAD = '''\
"""The inputs and outputs of the actions, by the service's own names."""

from __future__ import annotations

{imports}


class _Input(BaseModel):
    model_config = ConfigDict(extra="forbid", {options})


class _Output(BaseModel):
    model_config = ConfigDict({options})'''


def field_names(properties: Iterable[str]) -> dict[str, str]:
    """Return the name in Python for each field; those that fit as they are keep theirs."""
    given = list(properties)
    found: dict[str, str] = {}
    for name in sorted(given, key=lambda each: not _fits(each)):
        plain = name if _fits(name) else (snake(name) or "field")[:_LONGEST_NAME].strip("_")
        if not _fits(plain):
            plain = f"field_{plain}"
        free, number = plain, 2
        while free in found.values():
            free, number = f"{plain}_{number}", number + 1
        found[name] = free
    return {name: found[name] for name in given}


def _fits(name: str) -> bool:
    fits = _PLAIN.fullmatch(name) and len(name) <= _LONGEST_NAME
    return bool(fits) and not (
        keyword.iskeyword(name) or name in _UNFIT or name.startswith("model_")
    )


class PluginModels(PythonTypes):
    """The models of the inputs and outputs of a plugin's actions."""

    def __init__(self, specs: Any, directed: Any, claims: Any = None) -> None:
        super().__init__(specs, directed, _TAKEN, claims)
        self.choices: set[str] = set()
        """The names that are no models."""

    def source(self) -> str:
        """Return the source of the module."""
        classes = "\n\n\n".join(self.classes)
        read = names_in(classes)
        from_typing = [name for name in ("Any", "Literal") if name in read]
        from_pydantic = ["BaseModel", "ConfigDict"] + [
            name for name in ("Field", "RootModel") if name in read
        ]
        imports = f"from typing import {', '.join(from_typing)}\n\n" if from_typing else ""
        imports += f"from pydantic import {', '.join(from_pydantic)}"
        head = _HEAD.format(imports=imports, options="use_attribute_docstrings=True")
        return f"{head}\n\n\n{classes}\n" if classes else f"{head}\n"

    def root(self, kind: str, place: TypePlace, about: str) -> str:
        """Write a model for a value of the type *kind*, and return its name."""
        name = self._name(TypePlace(place.name, f"{place.path} root"))
        kind = kind if len(f"class {name}(RootModel[{kind}]):") <= WIDTH else "Any"
        lines = [f"class {name}(RootModel[{kind}]):", *docstring(about, "    ")]
        self.classes.append("\n".join(lines))
        return name

    def type_of(self, schema: Any, place: TypePlace, direction: Direction) -> str:
        """Return the type of *schema*. A long choice gets a name, but not if it is too long."""
        if not isinstance(schema, Mapping) or "enum" not in schema:
            return super().type_of(schema, place, direction)
        kind = super().type_of(schema, place, direction)
        if len(kind) <= _LONGEST_UNION or not kind.startswith("Literal["):
            return kind
        values = [each for each in schema["enum"] if each is not None]
        null = " | None" if None in schema["enum"] else ""
        parts = list(dict.fromkeys(map(literal, values)))
        if len(parts) > _MOST_CHOICES or max(map(len, parts)) > _LONGEST_CHOICE:
            return f"{_joint_type(values)}{null}"
        if place.path not in self._made:
            self._made[place.path] = self._name(place)
            head = f"{self._made[place.path]} = Literal["
            self.classes.append(Bracket(head, parts, "]").written())
            self.choices.add(self._made[place.path])
        return self._made[place.path] + null

    def object_of(self, schema: Mapping[str, Any], place: TypePlace, direction: Direction) -> str:
        """Return the model for an object. What is far down is a dictionary."""
        deep = self._depth >= _DEEPEST[direction] or len(self.classes) >= _MOST_CLASSES
        if deep and self._depth and place.path not in self._made:
            return "dict[str, Any]"
        self._depth += 1
        try:
            return super().object_of(schema, place, direction)
        finally:
            self._depth -= 1

    def write(
        self, name: str, schema: Mapping[str, Any], place: TypePlace, direction: Direction
    ) -> None:
        """Add a model, after those in it."""
        base = "_Input" if direction == "input" else "_Output"
        about = schema.get("description") or schema.get("title") or ""
        about = line(about, 300) or f"{' '.join(words(name))}."
        lines = [f"class {name}({base}):", *docstring(about, "    "), ""]
        if schema.get("additionalProperties", False) is not False:
            lines += ['    model_config = ConfigDict(extra="allow")', ""]
        required = set(schema.get("required", ()))
        names = field_names(schema["properties"])
        for field, each in schema["properties"].items():
            inner = TypePlace(
                f"{place.name}{camel(field)}"[:_LONGEST_NAME], f"{place.path}/properties/{field}"
            )
            kind = self.type_of(each, inner, direction)
            lines += _field(names[field], field, kind, each, field in required, direction)
        self.classes.append("\n".join(lines).rstrip())


def _field(
    name: str, field: str, kind: str, schema: Any, required: bool, direction: Direction
) -> Iterator[str]:
    """Yield the lines of a field."""
    schema = schema if isinstance(schema, Mapping) else {}
    kind = kind if len(f"    {name}: {kind} | None = Field(") <= WIDTH else "Any"
    options = [f"{key}={value}" for key, value in _bounds(schema, kind, direction)]
    if OWN_DEFAULT in schema:
        default: str | None = repr(schema[OWN_DEFAULT])
    else:
        default = None if required else "None"
        if not required and kind != "Any" and not re.search(r"(\A| )None\Z", kind):
            kind = f"{kind} | None"
    if name != field:
        options.insert(0, f"alias={literal(field)}")
    if options and default is not None:
        options.insert(0, f"default={default}")
    if options:
        yield Bracket(f"{name}: {kind} = Field(", options).written("    ")
    else:
        yield f"    {name}: {kind}" + (f" = {default}" if default is not None else "")
    about = schema.get("description") or schema.get("title")
    about = line(about, 300) if isinstance(about, str) else ""
    if about or direction == "input":
        yield from docstring(about or f"The {' '.join(words(field)).lower() or 'value'}.", "    ")


def _bounds(
    schema: Mapping[str, Any], kind: str, direction: Direction
) -> Iterator[tuple[str, str]]:
    """Yield the options of an input's field. A service may give what its document forbids."""
    plain = kind.removesuffix(" | None")
    if direction != "input":
        return
    if plain == "str":
        yield from _counts(schema, _TEXTS)
        if "pattern" in schema and _is_taken(schema["pattern"]):
            yield "pattern", literal(schema["pattern"])
    elif plain.startswith("list["):
        yield from _counts(schema, _LISTS)
    elif plain in ("int", "float"):
        for key, option in _NUMBERS.items():
            value = schema.get(key)
            fits = plain == "float" or (isinstance(value, int) or (value or 0.5) % 1 == 0)
            if value is not None and fits and abs(value) <= _MOST_BOUND:
                yield option, repr(int(value) if plain == "int" else value)


def _counts(schema: Mapping[str, Any], options: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for key, option in options.items():
        if 0 < schema.get(key, 0) < 2**31:
            yield option, repr(schema[key])


@lru_cache(1_000)
def _is_taken(pattern: str) -> bool:
    """Return True for a pattern of JSON Schema that pydantic's own engine takes too."""
    try:
        TypeAdapter(Annotated[str, Field(pattern=pattern)])
    except Exception:
        return False
    return True


def _joint_type(values: Iterable[Any]) -> str:
    kinds = {type(each).__name__ for each in values}
    return kinds.pop() if len(kinds) == 1 and kinds <= set(SCALARS.values()) else "Any"
