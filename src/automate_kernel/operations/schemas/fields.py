"""The fields of an operation's input, read from its JSON Schema: for options and forms."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

from automate_kernel.secrets.masking import is_secret_name
from automate_kernel.storage.values import is_too_large, read_json

__all__ = ["FieldTextError", "InputField", "assembled", "input_fields", "takes_more_fields"]

FieldKind = Literal["text", "integer", "number", "boolean", "choice", "json"]

_DEEPEST = 4
_MOST_FIELDS = 500
_SCALARS: Mapping[str, FieldKind] = {
    "string": "text",
    "integer": "integer",
    "number": "number",
    "boolean": "boolean",
}
_INTEGER = re.compile(r"[+-]?[0-9]{1,400}")
_NUMBER = re.compile(r"[+-]?([0-9]+(?:\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
_Schema = Mapping[str, Any]


class FieldTextError(ValueError):
    """A text is no value of a field. Its message doesn't quote the text."""


@dataclass(frozen=True, slots=True)
class InputField:
    """
    One field of an input. *path* has the names that lead to it: ``("customer", "name")``.

    With *many* it takes a list of values of its kind. A *required* field is needed whatever else is
    given; *within_optional* means that it is in an object that may be left out. *default* is None
    where the schema has none. The value of a *secret* field is never shown.
    """

    path: tuple[str, ...]
    kind: FieldKind
    many: bool = False
    required: bool = False
    nullable: bool = False
    within_optional: bool = False
    title: str = ""
    description: str = ""
    default: Any = field(default=None, hash=False)
    has_default: bool = False
    choices: tuple[Any, ...] = field(default=(), hash=False)
    secret: bool = False
    schema: _Schema = field(default_factory=dict, repr=False, hash=False)

    @property
    def name(self) -> str:
        """Its name with those of the objects around it: ``customer.name``."""
        return ".".join(self.path)

    @property
    def label(self) -> str:
        """Its title for people; by default made of its name."""
        return self.title or " ".join(self.path).replace("_", " ").capitalize()

    @property
    def type_words(self) -> str:
        """Its type for people: ``text``, ``list of integer``, ``one of a, b``."""
        words = "JSON" if self.kind == "json" else str(self.kind)
        if self.kind == "choice":
            words = "one of " + ", ".join(map(self.choice_text, self.choices))
        elif self.kind == "text" and (form := self.schema.get("format")):
            words = f"text ({form})"
        return f"list of {words}" if self.many else words

    def choice_text(self, value: Any) -> str:
        """
        Return the text that stands for the choice *value*, and for no other choice.

        It is JSON for empty text, which looks like a field that is left out in any form, and where
        another choice is written alike: ``1`` and ``"1"``.
        """
        text = written(value)
        others = [each for each in self.choices if (type(each), each) != (type(value), value)]
        taken = {written(each) for each in others} | set(map(_json_text, others))
        return text if text and text not in taken else _json_text(value)

    def read(self, text: str) -> Any:
        """Return the value that *text* stands for; raises `FieldTextError`."""
        if self.kind == "text":
            return text
        if self.kind == "choice":
            exact = [each for each in self.choices if self.choice_text(each) == text]
            found = exact or [each for each in self.choices if written(each) == text]
            if not found:
                raise FieldTextError("must be " + self.type_words.removeprefix("list of "))
            return found[0]
        return _READERS[self.kind](self, text.strip())

    def read_many(self, texts: Sequence[str]) -> Any:
        """Return the value of several texts: a list, or for a field of one value the last."""
        if not self.many:
            return self.read(texts[-1])
        if len(texts) == 1 and texts[0].lstrip().startswith("["):
            try:
                whole = _json(texts[0])
            except FieldTextError:
                pass
            else:
                return whole  # a list at once, as JSON
        return [self.read(text) for text in texts]


def written(value: Any) -> str:
    """Return the text that `InputField.read` takes for *value*."""
    return value if isinstance(value, str) else _json_text(value)


def _json_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _read_integer(of: InputField, text: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise FieldTextError("must be a whole number")
    return _held(int(text))


def _read_number(of: InputField, text: str) -> float:
    if _INTEGER.fullmatch(text):
        return _held(int(text))
    # float() would also read 1_000, and the digits of all scripts.
    number = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not math.isfinite(number):
        raise FieldTextError("must be a number")
    return number


def _held(number: int) -> int:
    if is_too_large(number):
        raise FieldTextError("must be a number that JSON's readers take")
    return number


def _read_boolean(of: InputField, text: str) -> bool:
    known = {**dict.fromkeys(_TRUE, True), **dict.fromkeys(_FALSE, False)}
    if text.lower() not in known:
        raise FieldTextError("must be true or false")
    return known[text.lower()]


def _read_json(of: InputField, text: str) -> Any:
    try:
        value = _json(text)
    except FieldTextError:
        if _takes_text(of.schema):
            return text
        raise
    # A decimal is written as a number or as text, and only text keeps all its digits.
    if isinstance(value, float) and _takes_text(of.schema) and not _is_exact(value, text):
        return text
    return value


def _is_exact(number: float, text: str) -> bool:
    """Return True if *number* is exactly what *text* means, and not only near it."""
    try:
        return Decimal(text) == Decimal(repr(number))
    except InvalidOperation:  # an exponent of 20 digits
        return False


_READERS = {
    "integer": _read_integer,
    "number": _read_number,
    "boolean": _read_boolean,
    "json": _read_json,
}


def _json(text: str) -> Any:
    try:
        return read_json(text)
    except ValueError:
        raise FieldTextError("must be JSON") from None


def _takes_text(schema: _Schema) -> bool:
    kinds = _kinds(schema)
    if any(kind == "string" for kind in kinds):
        return True
    alternatives = [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
    if alternatives:
        return any(isinstance(each, Mapping) and _takes_text(each) for each in alternatives)
    return not kinds and not any(key in schema for key in ("$ref", "properties", "enum", "const"))


def bound_text(bound: object) -> str:
    """Return a bound as HTML writes numbers, exactly; empty if no form can have it."""
    if not isinstance(bound, (int, float)) or not is_finite(bound):
        return ""
    return str(bound) if isinstance(bound, int) else repr(bound).removesuffix(".0")


def is_finite(number: float) -> bool:
    """Return True unless JSON's readers make *number* infinite."""
    return not is_too_large(number) if isinstance(number, int) else math.isfinite(number)


def input_fields(schema: _Schema) -> list[InputField]:
    """
    Return the fields of the object that *schema* describes, those of inner objects by their paths.

    What has no simple shape, a union or a list of objects, is one field of the kind ``json``. No
    more than 500 fields are returned, and none deeper than 4 objects.
    """
    found: list[InputField] = []
    for each in _Reader(schema).fields(schema, (), required=True):
        found.append(each)
        if len(found) == _MOST_FIELDS:
            break
    return found


def takes_more_fields(schema: _Schema) -> bool:
    """Return True if the object may have fields that *schema* doesn't name."""
    more = schema.get("additionalProperties")
    return bool(more) if more is not None else not schema.get("properties")


def field_description(schema: _Schema) -> str:
    """Return the description of a field, or else of the only value that it takes beside null."""
    some = [each for each in schema.get("anyOf", ()) if not _is_null(each)]
    inner = some[0] if len(some) == 1 and isinstance(some[0], Mapping) else {}
    return " ".join(str(schema.get("description") or inner.get("description") or "").split())


def assembled(values: Mapping[tuple[str, ...], Any]) -> dict[str, Any]:
    """Return the object that has each of *values* at its path; inner objects are made."""
    whole: dict[str, Any] = {}
    for path, value in values.items():
        place = whole
        for length, name in enumerate(path[:-1], 1):
            if path[:length] in values:
                raise FieldTextError(f"{'.'.join(path)}: {name} is given as a whole, too")
            place = place.setdefault(name, {})
        place[path[-1]] = value
    return whole


class _Reader:
    """Reads the fields of a schema, whose local references it follows."""

    def __init__(self, root: _Schema) -> None:
        self._root = root

    def fields(
        self, schema: _Schema, path: tuple[str, ...], *, required: bool
    ) -> Iterator[InputField]:
        """Yield the fields of an object at *path*, which itself is *required* or not."""
        needed = schema.get("required", ())
        for name, given in schema.get("properties", {}).items():
            inner, nullable = self._plain(given)
            here, must = (*path, name), required and name in needed
            if self._is_object(inner) and len(here) < _DEEPEST:
                # An object that may be left out needs no field.
                yield from self.fields(inner, here, required=must)
            else:
                yield self._field(inner, here, required=must, nullable=nullable, within=required)

    def _is_object(self, schema: _Schema) -> bool:
        kinds = _kinds(schema)
        return bool(schema.get("properties")) and kinds in ([], ["object"])

    def _field(
        self,
        schema: _Schema,
        path: tuple[str, ...],
        *,
        required: bool,
        nullable: bool,
        within: bool,
    ) -> InputField:
        kind, choices = _kind_of(schema)
        many, of = False, schema
        if _kinds(schema) == ["array"] and isinstance(schema.get("items"), Mapping):
            of, _ = self._plain(schema["items"])
            inner, inner_choices = _kind_of(of)
            if inner != "json":
                kind, choices, many = inner, inner_choices, True
        title = str(schema.get("title") or "")
        return InputField(
            path,
            kind,
            many=many,
            required=required and "default" not in schema,
            nullable=nullable,
            within_optional=len(path) > 1 and not within,
            # pydantic's own title is the name again.
            title="" if title.lower() == path[-1].replace("_", " ").lower() else title,
            description=field_description(schema),
            default=schema.get("default"),
            has_default="default" in schema,
            choices=choices,
            secret=_is_secret(of, path[-1]),
            schema=of if many else schema,
        )

    def _plain(self, schema: Any) -> tuple[_Schema, bool]:
        """Return *schema* without reference and without null, and if it had null."""
        nullable = False
        for _ in range(20):  # a chain of references ends, unless it is a circle
            schema = schema if isinstance(schema, Mapping) else {}
            if "$ref" in schema:
                rest = {key: value for key, value in schema.items() if key != "$ref"}
                schema = {**self._target(str(schema["$ref"])), **rest}
                continue
            key = next((each for each in ("anyOf", "oneOf", "allOf") if schema.get(each)), None)
            if key is None:
                break
            some = [each for each in schema[key] if not _is_null(each)]
            nullable = nullable or len(some) < len(schema[key])
            if len(some) != 1:
                break
            rest = {name: value for name, value in schema.items() if name != key}
            schema = {**some[0], **rest} if isinstance(some[0], Mapping) else rest
        kinds = schema.get("type")
        if isinstance(kinds, list) and "null" in kinds:
            others = [each for each in kinds if each != "null"]
            return {**schema, "type": others[0] if len(others) == 1 else others}, True
        return schema, nullable

    def _target(self, reference: str) -> _Schema:
        place: Any = self._root
        for part in reference.removeprefix("#").split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            place = place.get(name) if isinstance(place, Mapping) else None
        return place if isinstance(place, Mapping) and reference.startswith("#") else {}


def _is_null(schema: Any) -> bool:
    return isinstance(schema, Mapping) and schema.get("type") == "null"


def _kinds(schema: _Schema) -> list[Any]:
    kinds = schema.get("type", [])
    return kinds if isinstance(kinds, list) else [kinds]


def _kind_of(schema: _Schema) -> tuple[FieldKind, tuple[Any, ...]]:
    """Return the kind of a value, and what it may be where it is a choice."""
    if "const" in schema:
        return "choice", (schema["const"],)
    if schema.get("enum"):
        return "choice", tuple(each for each in schema["enum"] if each is not None)
    kinds = _kinds(schema)
    alternatives = any(schema.get(key) for key in ("anyOf", "oneOf", "allOf"))
    if len(kinds) != 1 or alternatives:
        return "json", ()
    return _SCALARS.get(str(kinds[0]), "json"), ()


def _is_secret(schema: _Schema, name: str) -> bool:
    hidden = schema.get("format") == "password" or schema.get("writeOnly") is True
    return hidden or (_kinds(schema) == ["string"] and is_secret_name(name))
