"""The kinds of value that a workflow's fields hold, and how each is checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from automate_kernel.workflows.structure import Path, Problem

__all__ = [
    "Condition",
    "Identifier",
    "JsonTree",
    "OperationName",
    "Part",
    "PlainText",
    "StepInput",
    "json_problem",
]

_DEEPEST = 50
_LARGEST_BITS = 1023  # what a double holds


class Part(BaseModel):
    """A part of a definition: frozen, and strict about its fields and their types."""

    # Errors don't show the input: a definition may hold what should have been a secret.
    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        populate_by_name=True,
        hide_input_in_errors=True,
    )


Identifier = Annotated[
    str, Field(pattern=r"^[a-zA-Z_][a-zA-Z0-9_-]*$", min_length=1, max_length=100)
]
"""A step's id."""

OperationName = Annotated[
    str,
    Field(pattern=r"^[a-zA-Z_][a-zA-Z0-9_-]*(\.[a-zA-Z_][a-zA-Z0-9_-]*)*$", max_length=200),
]
"""What a step calls: ``connector.action``, or an action of the host."""


def json_problem(value: Any, path: Path = ()) -> Problem | None:
    """
    Why *value* can't be stored as JSON, or None if it can.

    Refuses what databases and other JSON readers refuse: NaN, NUL, lone surrogates, keys that
    are not text.
    """
    if len(path) > _DEEPEST:
        return Problem(path, f"is nested more than {_DEEPEST} deep", "flatten it")
    if isinstance(value, str):
        return _text_problem(value, path)
    if isinstance(value, Mapping):
        return _mapping_problem(value, path)
    if isinstance(value, (list, tuple)):
        problems = (json_problem(item, (*path, index)) for index, item in enumerate(value))
        return next(filter(None, problems), None)
    return _plain_problem(value, path)


def _plain_problem(value: Any, path: Path) -> Problem | None:
    if isinstance(value, float) and not math.isfinite(value):
        return Problem(path, "is not a number that JSON has", "use null, or text")
    if isinstance(value, int) and value.bit_length() > _LARGEST_BITS:
        return Problem(path, "is larger than the numbers that JSON readers take", "make it text")
    if value is None or isinstance(value, (bool, int, float)):
        return None
    return Problem(path, f"is a {type(value).__name__}, which JSON has not", "turn it into text")


def _text_problem(value: str, path: Path) -> Problem | None:
    if "\0" in value:
        return Problem(path, "holds a NUL character, which can't be stored", "take it out")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            return Problem(
                path, "holds half a surrogate pair, which can't be stored", "take it out"
            )
    return None


def _mapping_problem(value: Mapping[Any, Any], path: Path) -> Problem | None:
    for key, item in value.items():
        if not isinstance(key, str):
            return Problem(path, f"has a key that is not text: {key!r}", f"quote it: '{key}'")
        problem = _text_problem(key, path) or json_problem(item, (*path, key))
        if problem:
            return problem
    return None


def _copied(value: Any) -> Any:
    # Lists and mappings of our own: what the author does to theirs later changes nothing here.
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_copied(item) for item in value]
    return value


def _check_json(value: Any) -> Any:
    problem = json_problem(value)
    if problem:
        raise PydanticCustomError(
            "json",
            "it {message}",
            {"message": problem.message, "hint": problem.hint, "at": problem.path},
        )
    return _copied(value)


def _check_input(value: Any) -> Any:
    if isinstance(value, Mapping) or (isinstance(value, str) and "{{" in value):
        return value
    raise PydanticCustomError(
        "step_input",
        "the input must be a mapping of the action's fields",
        {"hint": 'or one template that gives a mapping: "{{ event.payload }}"'},
    )


def _check_condition(value: Any) -> Any:
    if isinstance(value, bool) or (isinstance(value, str) and value.strip()):
        return value
    raise PydanticCustomError(
        "condition",
        "a condition is a template, true or false",
        {"hint": 'for example "{{ event.payload.total > 100 }}"'},
    )


def _check_text(value: str) -> str:
    if value != value.strip() or not value.isprintable():
        raise PydanticCustomError(
            "text",
            "it has spaces around it, or characters that can't be printed",
            {"hint": "take them out"},
        )
    return value


PlainText = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_check_text)]
"""A name: printable, on one line, no spaces around it."""

JsonTree = Annotated[Any, AfterValidator(_check_json)]
"""Any JSON value; text in it may be a template."""

StepInput = Annotated[
    Any,
    BeforeValidator(_check_input),
    AfterValidator(_check_json),
    WithJsonSchema({"anyOf": [{"type": "object"}, {"type": "string", "pattern": r"\{\{"}]}),
]
"""A mapping of the action's fields, or one template that gives one."""

Condition = Annotated[
    bool | str,
    BeforeValidator(_check_condition),
    WithJsonSchema(
        {"anyOf": [{"type": "boolean"}, {"type": "string", "minLength": 1}]},
    ),
]
"""A template whose value decides, or true or false."""
