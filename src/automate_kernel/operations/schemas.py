"""
Check data against a pydantic model or a JSON Schema, and say what is wrong without the data.

Both come from plugin authors. A model is the better authority: it also gives typed values.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias, Union

from automate_kernel.errors import AutomateError, ErrorCodes, PluginError
from automate_kernel.secrets.logs import get_logger

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

__all__ = [
    "Problem",
    "Schema",
    "check_model",
    "compile_schema",
    "invalid_input",
    "is_model",
    "json_schema_of",
    "open_model",
    "validation_problems",
]

logger: logging.Logger = get_logger(__name__)

Schema: TypeAlias = Union[Mapping[str, Any], "type[BaseModel]", None]
"""A JSON Schema, a pydantic model, or nothing: any object."""

Check: TypeAlias = Callable[[Any], "list[Problem]"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a value: where (``lines.0.price``) and what. Never the value."""

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


def is_model(schema: object) -> bool:
    """Whether *schema* is a pydantic model class."""
    return isinstance(schema, type) and hasattr(schema, "model_validate_json")


def json_schema_of(schema: Schema, *, output: bool = False) -> dict[str, Any]:
    """The JSON Schema of a model, a plain schema, or nothing."""
    if schema is None:
        return {"type": "object"}
    if isinstance(schema, type):
        return schema.model_json_schema(mode="serialization" if output else "validation")
    return dict(schema)


@lru_cache(maxsize=1)
def open_model() -> type[BaseModel]:
    """The model that takes any object as it is."""
    from pydantic import ConfigDict, create_model

    return create_model("AnyConfig", __config__=ConfigDict(extra="allow"))


def invalid_input(what: str, problems: Iterable[Problem], hint: str | None = None) -> AutomateError:
    """The error for *what* (``input of 'post_message'``), naming every field that is wrong."""
    listed = list(problems)
    return AutomateError(
        ErrorCodes.INVALID_ARGUMENT,
        f"{what} is not valid: " + "; ".join(map(str, listed)),
        hint=hint,
        details={"problems": [{"field": p.field, "message": p.message} for p in listed]},
    )


def check_model(model: type[BaseModel], data: Any) -> tuple[Any, list[Problem]]:
    """
    The model instance that *data* makes, or what is wrong with it.

    As strict as the JSON Schema that the model publishes: ``"3"`` and ``true`` are no integers.
    """
    import pydantic_core
    from pydantic import ValidationError

    if isinstance(data, model):
        return data, []
    try:
        # By way of JSON, since strict mode for Python values refuses a date or an enum member
        # that is written as text, and JSON has no other way to write them.
        text = pydantic_core.to_json(data)
    except (pydantic_core.PydanticSerializationError, ValueError):
        return None, [Problem("", "it can't be written as JSON")]
    try:
        return model.model_validate_json(text, strict=True), []
    except ValidationError as error:
        return None, validation_problems(error, data)


def validation_problems(error: ValidationError, data: Any) -> list[Problem]:
    """What *error* found wrong in *data*, without the values that pydantic would show."""
    found: list[Problem] = []
    for entry in error.errors(include_input=False, include_url=False):
        message = entry["msg"]
        if entry["type"] not in _valueless_errors():
            message = _without_values(message, data)
        found.append(Problem(_dotted(entry["loc"]), message))
    return found


@lru_cache(maxsize=1)
def _valueless_errors() -> frozenset[str]:
    """Pydantic's own kinds of error, less those whose message quotes the input or an author."""
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
    if isinstance(data, Mapping):
        for value in data.values():
            yield from _leaves(value)
    elif isinstance(data, (list, tuple, set, frozenset)):
        for value in data:
            yield from _leaves(value)
    elif data is not None and not isinstance(data, bool):
        yield str(data)


def _dotted(path: Iterable[Any]) -> str:
    return ".".join(str(part) for part in path)


def compile_schema(schema: Mapping[str, Any], what: str) -> Check:
    """
    A check for a plain JSON Schema, complete if the extra ``jsonschema`` is installed.

    Without it the kernel checks ``type``, ``required``, ``properties``, ``additionalProperties``,
    ``items``, ``enum`` and ``const``, and warns once of a schema that says more.
    """
    try:
        import jsonschema
        from jsonschema_specifications import REGISTRY  # type: ignore[import-untyped]
    except ImportError:
        more = _keywords(schema) - _CHECKED - _ANNOTATIONS
        if more:
            logger.warning(
                "the schema for %s uses %s, which only automate-kernel[jsonschema] can check",
                what,
                ", ".join(sorted(more)),
            )
        return lambda data: list(_walk(schema, data, ()))
    chosen = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        chosen.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise PluginError(
            f"the JSON Schema for {what} is wrong at {_dotted(error.path) or 'its top'}",
            hint="check it against the JSON Schema draft that it names",
        ) from None
    # With a closed registry: the default one fetches a `$ref` over the network.
    validator = chosen(schema, registry=REGISTRY)
    return lambda data: _from_jsonschema(validator, data, what)


def _from_jsonschema(validator: Any, data: Any, what: str) -> list[Problem]:
    import jsonschema

    try:
        errors = list(validator.iter_errors(data))
    except jsonschema.exceptions._WrappedReferencingError as error:
        raise PluginError(f"the JSON Schema for {what} has a reference to {error.ref!r}") from None
    problems = [
        Problem(_dotted(error.absolute_path), message)
        for error in errors
        for message in _wording(
            error.validator, error.validator_value, error.instance, error.schema
        )
    ]
    # One error per missing field, each worded with all of them.
    return list(dict.fromkeys(problems))


_CHECKED = {"type", "required", "properties", "additionalProperties", "items", "enum", "const"}
_ANNOTATIONS = {"title", "description", "default", "examples", "deprecated", "readOnly"} | {
    "writeOnly",
    "$schema",
    "$id",
    "$comment",
    "format",
}

_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda v: isinstance(v, Mapping),
    "array": lambda v: isinstance(v, (list, tuple)),
    "string": lambda v: isinstance(v, str),
    "boolean": lambda v: isinstance(v, bool),
    "null": lambda v: v is None,
    "number": lambda v: isinstance(v, (int, float)) and not isinstance(v, bool),
    "integer": lambda v: (
        not isinstance(v, bool)
        and (isinstance(v, int) or (isinstance(v, float) and v.is_integer()))
    ),
}


def _keywords(schema: Any) -> set[str]:
    if not isinstance(schema, Mapping):
        return set()
    found = set(schema)
    for inner in (schema.get("properties") or {}).values():
        found |= _keywords(inner)
    return found | _keywords(schema.get("items")) | _keywords(schema.get("additionalProperties"))


def _walk(schema: Any, data: Any, path: tuple[Any, ...]) -> Iterator[Problem]:
    if schema is False:
        yield Problem(_dotted(path), "is not allowed")
    if not isinstance(schema, Mapping):
        return
    for keyword in ("type", "enum", "const", "required", "additionalProperties"):
        if keyword in schema and not _holds(keyword, schema, data):
            for message in _wording(keyword, schema[keyword], data, schema):
                yield Problem(_dotted(path), message)
    if isinstance(data, Mapping):
        properties = schema.get("properties", {})
        rest = schema.get("additionalProperties")
        for name, value in data.items():
            inner = properties.get(name, rest if isinstance(rest, Mapping) else None)
            yield from _walk(inner, value, (*path, name))
    elif isinstance(data, (list, tuple)):
        for index, value in enumerate(data):
            yield from _walk(schema.get("items"), value, (*path, index))


def _holds(keyword: str, schema: Mapping[str, Any], data: Any) -> bool:
    wanted = schema[keyword]
    if keyword == "type":
        names = [wanted] if isinstance(wanted, str) else wanted
        return any(_TYPES.get(name, lambda _: True)(data) for name in names)
    if keyword in ("enum", "const"):
        allowed = wanted if keyword == "enum" else [wanted]
        # In JSON true is not 1, while Python says True == 1.
        return any(v == data and isinstance(v, bool) == isinstance(data, bool) for v in allowed)
    if not isinstance(data, Mapping):
        return True
    if keyword == "required":
        return all(name in data for name in wanted)
    return wanted is not False or not _unknown(schema, data)


def _unknown(schema: Mapping[str, Any], data: Mapping[str, Any]) -> list[str]:
    import re

    patterns = schema.get("patternProperties", {})
    return [
        str(name)
        for name in data
        if name not in schema.get("properties", {})
        and not any(re.search(pattern, str(name)) for pattern in patterns)
    ]


def _wording(keyword: str, wanted: Any, data: Any, schema: Mapping[str, Any]) -> list[str]:
    """What to say of a keyword that does not hold, from the schema's words alone."""
    if keyword == "type":
        return ["must be " + (wanted if isinstance(wanted, str) else " or ".join(wanted))]
    if keyword == "required":
        return [f"{name!r} is required" for name in wanted if name not in data]
    if keyword == "additionalProperties" and wanted is False:
        known = ", ".join(schema.get("properties", {})) or "none"
        return [f"{name!r} is unknown (known: {known})" for name in _unknown(schema, data)]
    if keyword == "enum":
        return ["must be one of " + ", ".join(map(repr, wanted))]
    told = repr(wanted)
    return [f"does not satisfy {keyword}" + (f" {told}" if len(told) <= 80 else "")]
