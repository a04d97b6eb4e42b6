"""
Checks of data against a pydantic model or a JSON Schema, whose messages never quote the data.

Plugin authors write both. A model is the better authority: it also gives typed values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias, Union

from automate_kernel.base.errors import AutomateError, ErrorCodes, PluginError, WorkflowError
from automate_kernel.operations.schemas.bounds import (
    TooManyStepsError,
    bounded,
    bounded_steps,
)
from automate_kernel.operations.schemas.finite import finite_schema
from automate_kernel.operations.schemas.patterns import NOT_LINEAR, find_pattern
from automate_kernel.operations.schemas.unknown_fields import fields_at, unknown
from automate_kernel.storage.values import UnstorableError, plain_json

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

Schema: TypeAlias = Union[Mapping[str, Any], "type[BaseModel]", None]
"""A JSON Schema, a pydantic model, or nothing: any object."""

# The type in pydantic's message.
_UNKNOWN_TYPE = re.compile(r" schema for (?:<class '([^']+)'>|(.{1,500}?))\. Set ")

_LONGEST_NAME = 200
_FILE = re.compile(r"\b\w*IO(\[\w+\])?$")

Check: TypeAlias = Callable[[Any], "list[FieldProblem]"]


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """
    A fault of a value: its field (``lines.0.price``) and a message. Never the value.

    No value can be set for a field that is *unknown*. *missing* names a field that has to be added
    to *field*, where the schema reports the object around it.
    """

    field: str
    message: str
    unknown: bool = False
    missing: str = ""

    @property
    def settable(self) -> str:
        """The field at the top that wants another value, or empty text."""
        return "" if self.unknown else self.field.partition(".")[0] or self.missing

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


@contextmanager
def readable_types(
    what: str, error: type[PluginError | WorkflowError] = PluginError
) -> Iterator[None]:
    """Raise *error* if *what* has a type that nothing reads from JSON: an ORM's model, say."""
    from pydantic import PydanticUndefinedAnnotation, PydanticUserError

    try:
        yield
    except PydanticUndefinedAnnotation as missing:
        raise error(
            f"{what} has a model with the type {missing.name!r}, which is not defined",
            hint="define it at the top level of the model's module",
        ) from None
    except PydanticUserError as refused:
        unknown_type = _UNKNOWN_TYPE.search(str(refused))
        if refused.code != "schema-for-unknown-type" or unknown_type is None:
            # The first line alone: the others lead to pydantic's pages.
            raise error(f"{what} can't be used: {str(refused).partition(chr(10))[0]}") from None
        name = unknown_type[1] or unknown_type[2]
        hint = "take its id, or a pydantic model or dataclass with what is needed of it"
        if "Iterator" in name:
            hint = "make it a list, and write list[…] in the annotation"
        elif _FILE.search(name):
            hint = "take bytes, which are base64 in JSON, or the path of a file"
        raise error(f"{what} has the type {name}, which is not made from JSON", hint=hint) from None


def is_model(schema: object) -> bool:
    """Return True if *schema* is a pydantic model class."""
    return isinstance(schema, type) and hasattr(schema, "model_validate_json")


def json_schema_of(schema: Schema, *, output: bool = False) -> dict[str, Any]:
    """Return the JSON Schema of a model, a plain schema, or nothing."""
    if schema is None:
        return {"type": "object"}
    if isinstance(schema, type):
        return finite_schema(
            schema.model_json_schema(mode="serialization" if output else "validation")
        )
    return finite_schema(dict(schema))


def schema_of_type(returned: Any) -> dict[str, Any]:
    """Return the JSON Schema of what a function puts out that returns this type."""
    from pydantic import TypeAdapter

    return finite_schema(TypeAdapter(returned).json_schema(mode="serialization"))


@lru_cache(maxsize=1)
def open_model() -> type[BaseModel]:
    """Return the model that takes any object as it is."""
    from pydantic import ConfigDict, create_model

    return create_model("AnyConfig", __config__=ConfigDict(extra="allow"))


def invalid(
    what: str, problems: Iterable[FieldProblem], kind: type[AutomateError] = AutomateError
) -> AutomateError:
    """Return the error for *what* (``input of 'post_message'``), with every wrong field."""
    listed = list(problems)
    return kind(
        code=ErrorCodes.INVALID_ARGUMENT,
        message=f"{what} is not valid: " + "; ".join(map(str, listed)),
        details={
            "problems": [{"field": p.field, "message": p.message} for p in listed],
            "settable": list(dict.fromkeys(filter(None, (p.settable for p in listed)))),
            "unknown": [p.field for p in listed if p.unknown],
        },
    )


def check_model(model: type[BaseModel], data: Any) -> tuple[Any, list[FieldProblem]]:
    """
    Return the model instance that *data* makes, and the problems if it makes none.

    As strict as the JSON Schema that the model publishes: ``"3"`` and ``true`` are no integers.
    """
    import pydantic_core

    if isinstance(data, model):
        return data, []
    try:
        # By way of JSON: strict mode for Python values refuses a date or an enum member as text,
        # and JSON has no other way to write them.
        text = pydantic_core.to_json(data)
    except (pydantic_core.PydanticSerializationError, ValueError):
        return None, [unwritable(data)]
    try:
        return model.model_validate_json(text, strict=True), []
    except pydantic_core.ValidationError as error:
        return None, validation_problems(error, data, model)


def unwritable(data: Any) -> FieldProblem:
    """Return the place in *data* that JSON has no way to write, and the reason."""
    try:
        plain_json(data, other=lambda _: None)
    except UnstorableError as error:
        return FieldProblem(_shown_path(error.path), f"it {error.message}")
    return FieldProblem("", "it can't be written as JSON")


def _shown_path(place: Iterable[object]) -> str:
    """Return the path of a field. Strangers may have written its names."""
    names = [str(each)[:_LONGEST_NAME] for each in place]
    return ".".join(name if name.isprintable() else repr(name)[1:-1] for name in names)


def schema_problems(schema: Schema, data: Any, what: str) -> list[FieldProblem]:
    """Return the problems of *data* with a model or a JSON Schema; none without a schema."""
    if is_model(schema):
        return check_model(schema, data)[1]  # type: ignore[arg-type]
    return compile_schema(schema, what)(data) if isinstance(schema, Mapping) else []


def validation_problems(
    error: ValidationError, data: Any, model: type[BaseModel] | None = None
) -> list[FieldProblem]:
    """
    Return the problems that *error* found, without the values that pydantic would show.

    With *model*, for which *data* was meant, an unknown field comes with the nearest known name.
    """
    found: list[FieldProblem] = []
    for entry in error.errors(include_input=False, include_url=False):
        message, place = entry["msg"], entry["loc"]
        extra = model is not None and entry["type"] == "extra_forbidden"
        if model is not None and extra:
            message = unknown(fields_at(model, place[:-1]), place[-1])
        elif entry["type"] not in _valueless_errors():
            message = _without_values(message, data)
        # After an assertion without a text nothing follows the comma.
        words = message.rstrip(", ") if entry["type"] == "assertion_error" else message
        found.append(FieldProblem(_shown_path(place), words, unknown=extra))
    return found


@lru_cache(maxsize=1)
def _valueless_errors() -> frozenset[str]:
    """Return pydantic's own kinds of error, less those that quote the input or an author."""
    from typing import get_args

    from pydantic_core.core_schema import ErrorType

    quoting = {"value_error", "assertion_error", "union_tag_invalid", "get_attribute_error"}
    return frozenset(get_args(ErrorType)) - quoting


def _without_values(message: str, data: Any) -> str:
    # A validator's author often writes f"{value!r} is no …", and the value may be a password.
    leaves = {text for text in _leaves(data) if len(text) > 3}
    for text in sorted(leaves, key=len, reverse=True):
        message = message.replace(text, "[input]").replace(repr(text)[1:-1], "[input]")
    return message


def _leaves(data: Any) -> Iterator[str]:
    if isinstance(data, (Mapping, list, tuple, set, frozenset)):
        for value in data.values() if isinstance(data, Mapping) else data:
            yield from _leaves(value)
    elif data is not None and not isinstance(data, bool):
        yield str(data)


def compile_schema(schema: Mapping[str, Any], what: str) -> Check:
    """
    Return a check for a plain JSON Schema, of the draft that it names.

    Raises `PluginError` for a wrong schema, and for a pattern that can't be matched in linear time.
    Its messages use the schema's words alone.
    """
    try:
        import jsonschema
        from jsonschema_specifications import REGISTRY  # type: ignore[import-untyped]
    except ImportError as error:
        raise PluginError(
            f"{what} has a plain JSON Schema, and the package jsonschema is not installed",
            hint="pip install jsonschema, or describe it with a pydantic model",
        ) from error
    chosen = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        checking = bounded(chosen, schema)
    except jsonschema.SchemaError as error:
        draft = "check it against the JSON Schema draft that it names"
        raise PluginError(
            f"the JSON Schema for {what} is wrong at {'.'.join(map(str, error.path)) or 'its top'}",
            hint=NOT_LINEAR if error.validator == "format" else draft,
        ) from None
    except ValueError as error:
        raise PluginError(
            f"the JSON Schema for {what} {error}, which nothing bounds in time",
            hint="write additionalProperties in its place",
        ) from None
    # With a closed registry: the default one fetches a `$ref` over the network.
    validator = checking(schema, registry=REGISTRY)
    return lambda data: _problems(validator, data, what)


def _problems(validator: Any, data: Any, what: str) -> list[FieldProblem]:
    from referencing.exceptions import Unresolvable

    try:
        with bounded_steps(data):
            errors = list(validator.iter_errors(data))
    except Unresolvable as error:
        raise PluginError(f"the JSON Schema for {what} has a reference to {error.ref!r}") from None
    except (TooManyStepsError, RecursionError):
        raise PluginError(
            f"the JSON Schema for {what} takes too many steps to check it",
            hint="look for references that go in circles, or to each other in several ways",
        ) from None
    problems = [
        replace(found, field=".".join(map(str, error.absolute_path)))
        for error in errors
        for found in _wording(error.validator, error.validator_value, error.instance, error.schema)
    ]
    # One error per missing field, each worded with all of them.
    return list(dict.fromkeys(problems))


def _wording(keyword: str, wanted: Any, data: Any, schema: Mapping[str, Any]) -> list[FieldProblem]:
    """Return the problems of a keyword that does not hold, in the schema's words alone."""
    if keyword == "required":
        return [
            FieldProblem("", f"{name!r} is required", missing=name)
            for name in wanted
            if name not in data
        ]
    if keyword == "additionalProperties" and wanted is False:
        known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
        return [
            FieldProblem("", f"{str(name)!r} {unknown(known, name)}", unknown=True)
            for name in data
            if name not in known and not any(find_pattern(each, str(name)) for each in patterns)
        ]
    return [FieldProblem("", _words(keyword, wanted))]


def _words(keyword: str, wanted: Any) -> str:
    if keyword == "type":
        return "must be " + (wanted if isinstance(wanted, str) else " or ".join(wanted))
    if keyword == "enum":
        return "must be one of " + ", ".join(map(repr, wanted))
    shown = repr(wanted)
    return f"does not satisfy {keyword}" + (f" {shown}" if len(shown) <= 80 else "")
