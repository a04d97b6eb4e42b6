"""The form of an operation or a payload: made from its JSON Schema, and read back from a form."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from automate_kernel.http.operations import OperationProblem
from automate_kernel.operations.field_options import FieldOption
from automate_kernel.operations.schemas.fields import (
    FieldTextError,
    InputField,
    assembled,
    bound_text,
    input_fields,
    takes_more_fields,
    written,
)

_PREFIX = "input."
# No property is called that, where a schema that takes others has properties.
_MORE = "*"
_LONG = 200
_LONG_NAMES = {"text", "body", "message", "content", "html", "comment", "prompt", "query"}
_DATES = {
    "date": re.compile(r"\d{4}-\d\d-\d\d"),
    "time": re.compile(r"\d\d:\d\d(:\d\d(\.\d{1,3})?)?"),
}


@dataclass(frozen=True, slots=True)
class SchemaField:
    """
    A field as a page shows it: what is filled in, what is wrong with it, and its choices.

    *found* are choices that the plugin has given; with *lists* it can be asked for them.
    """

    field: InputField
    texts: tuple[str, ...] = ()
    problem: str | None = None
    found: Sequence[FieldOption] | None = None
    lists: bool = False

    @property
    def name(self) -> str:
        """Its name in what a browser sends."""
        return _PREFIX + self.field.name

    @property
    def value(self) -> str:
        """The text that is filled in; a secret is never shown again."""
        return "" if self.field.secret else "\n".join(self.texts)

    @property
    def checked(self) -> bool:
        """True for a box that is ticked."""
        return self.texts[-1:] == ("true",)

    @property
    def widget(self) -> str:
        """Its control: ``select``, ``checkbox``, ``textarea``, or the type of an input."""
        field = self.field
        if self.options:
            return "select"
        if field.kind == "boolean" and not field.many:
            return "select" if self._may_be_absent else "checkbox"
        if field.many or field.kind == "json" or self._is_long:
            return "textarea"
        if field.secret:
            return "password"
        if field.kind in ("integer", "number"):
            return "number"
        kind = str(field.schema.get("format"))
        # A browser leaves out what its control can't show: a time with a zone, or no time at all.
        shown = kind in _DATES and all(_DATES[kind].fullmatch(each) for each in self.texts if each)
        return kind if shown else "text"

    @property
    def _may_be_absent(self) -> bool:
        return self.field.nullable or (self.field.within_optional and not self.field.has_default)

    @property
    def _is_long(self) -> bool:
        schema, name = self.field.schema, self.field.path[-1]
        long = schema.get("maxLength", 0) > _LONG or (
            name in _LONG_NAMES and "maxLength" not in schema
        )
        return self.field.kind == "text" and not self.field.secret and long

    @property
    def options(self) -> list[tuple[str, str, bool]]:
        """The text, the label and the state of each choice; none for a field of any value."""
        field = self.field
        given = [each for each in self.texts if each] if field.many else [self.value]
        if self.found is not None:
            known = [(written(each.value), each.label) for each in self.found]
            # What is filled in stays, though the service doesn't list it.
            known += [(one, one) for one in given if one and one not in {k for k, _ in known}]
        elif field.kind == "choice":
            texts = map(field.choice_text, field.choices)
            known = [(text, "(empty)" if text == '""' else text) for text in texts]
        elif field.kind == "boolean" and self._may_be_absent and not field.many:
            known = [("true", "Yes"), ("false", "No")]
        else:
            return []
        blank = not field.many and (not field.required or not self.value)
        return [
            *([("", "", False)] if blank else []),
            *((text, label, text in given) for text, label in known),
        ]

    @property
    def help(self) -> str:
        """The words below it: its description, and how a list or JSON is written."""
        how = ""
        if self.widget == "textarea" and self.field.kind == "json":
            how = "As JSON."
        elif self.widget == "textarea" and self.field.many:
            how = "One in each line."
        return " ".join(filter(None, (self.field.description, how)))

    @property
    def step(self) -> str:
        """The step of a number."""
        return "1" if self.field.kind == "integer" else "any"

    @property
    def least(self) -> str:
        """The least number, as HTML has it; empty if there is none."""
        return bound_text(self.field.schema.get("minimum"))

    @property
    def greatest(self) -> str:
        """The greatest number, as HTML has it; empty if there is none."""
        return bound_text(self.field.schema.get("maximum"))

    @property
    def most(self) -> str:
        """The number of characters that it takes; empty if there is no limit."""
        one = self.field.kind == "text" and not self.field.many
        return bound_text(self.field.schema.get("maxLength")) if one else ""


class SchemaForm:
    """The form of values with *schema*; *dynamic* are the fields whose choices can be listed."""

    def __init__(self, schema: Mapping[str, Any], dynamic: Iterable[str] = ()) -> None:
        self.inputs: list[InputField] = input_fields(schema)
        self._more: InputField | None = None
        if takes_more_fields(schema):
            description = "Further fields, as a JSON object." if self.inputs else ""
            self._more = InputField((_MORE,), "json", title="Input", description=description)
            self.inputs.append(self._more)
        self._dynamic = frozenset(dynamic)

    def blank(self) -> list[SchemaField]:
        """Return the fields with their defaults."""
        return [
            SchemaField(field, _default(field), lists=field.name in self._dynamic)
            for field in self.inputs
        ]

    def sent(
        self,
        posted: Mapping[str, Sequence[str]],
        problems: Mapping[str, str] | None = None,
        found: Mapping[str, Sequence[FieldOption]] | None = None,
    ) -> list[SchemaField]:
        """Return the fields as a browser has *posted* them, with *problems* and choices *found*."""
        return [
            SchemaField(
                field,
                tuple(_texts(posted, field)),
                (problems or {}).get(field.name),
                (found or {}).get(field.name),
                field.name in self._dynamic,
            )
            for field in self.inputs
        ]

    def read(self, posted: Mapping[str, Sequence[str]]) -> tuple[dict[str, Any], dict[str, str]]:
        """Return the input that was *posted*, and what is wrong with single fields."""
        values: dict[tuple[str, ...], Any] = {}
        problems: dict[str, str] = {}
        more: Any = {}
        for field in self.inputs:
            texts = _texts(posted, field)
            # An object with nothing but defaults in it is left out, if it may be.
            untouched = field.within_optional and tuple(texts) == _default(field)
            if untouched or not _is_given(field, texts):
                continue
            try:
                value = field.read_many(texts)
                if field is not self._more:
                    values[field.path] = value
                elif isinstance(value, dict):
                    more = value
                else:
                    raise FieldTextError("must be a JSON object")
            except FieldTextError as error:
                problems[field.name] = str(error)
        return {**more, **assembled(values)}, problems


def _default(field: InputField) -> tuple[str, ...]:
    default = field.default
    if default is None or field.secret:
        return ()
    if field.kind == "choice":
        values = default if field.many and isinstance(default, list) else [default]
        return tuple(map(field.choice_text, values))
    if field.many and isinstance(default, list):
        return tuple(written(each) for each in default)
    return (written(default),)


def _texts(posted: Mapping[str, Sequence[str]], field: InputField) -> list[str]:
    # Browsers send a line's end as two characters.
    texts = [each.replace("\r\n", "\n") for each in posted.get(_PREFIX + field.name, ())]
    if field.many and len(texts) == 1:
        return [each for each in texts[0].split("\n") if each.strip()]
    # Of a box and the hidden field before it the last one counts.
    return texts if field.many else texts[-1:]


def _is_given(field: InputField, texts: Sequence[str]) -> bool:
    """Return True unless a field was left blank, and means its default by that."""
    if field.many:
        return bool(texts) or bool(field.default)
    if not texts or texts == [""]:
        # A text whose default was deleted is meant to be empty.
        return bool(texts) and field.kind == "text" and bool(field.default) and not field.secret
    return True


def placed(
    fields: Sequence[SchemaField], problem: OperationProblem
) -> tuple[list[SchemaField], str]:
    """Return the *fields* with their errors, and the errors that belong to none of them."""
    errors: Mapping[str, str] = {
        each["pointer"].removeprefix("#/input").strip("/").replace("/", "."): each["detail"]
        for each in problem.errors
    }
    names = {each.field.name for each in fields}
    problems: dict[str, list[str]] = {}
    others: list[str] = []
    for path, text in errors.items():
        # One inside of a list or a union stands at the field that has it, with its place there.
        inside = (path[:end] for end in range(len(path), 0, -1) if path[end : end + 1] in ("", "."))
        name = next((each for each in inside if each in names), None)
        if name is None:
            others.append(f"{path}: {text}" if path else text)
        else:
            rest = path[len(name) + 1 :]
            problems.setdefault(name, []).append(f"{rest}: {text}" if rest else text)
    placed = [
        replace(each, problem="; ".join(problems.get(each.field.name, ())) or None)
        for each in fields
    ]
    return placed, "; ".join(others)
