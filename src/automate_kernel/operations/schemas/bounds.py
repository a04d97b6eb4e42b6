"""
Bounds in time for checks by JSON Schemas, which may be a stranger's, and so may the data.

Regular expressions are matched in a time that is linear in the text (`patterns`), where the library
takes Python's.

Each schema that is looked at for a value is a step, and a check has only so many: a few references
to each other, two from each, make more of them than there are atoms. And whether the elements of a
list are unique is found by their hashes, where the library compares each one with each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

from automate_kernel.operations.schemas.patterns import (
    NOT_LINEAR,
    PatternBudget,
    find_pattern,
)
from automate_kernel.operations.schemas.usual import is_surely_valid

_STEPS, _STEPS_PER_VALUE = 200_000, 30

_left: ContextVar[list[int]] = ContextVar("automate_schema_steps")


class TooManyStepsError(Exception):
    """A check took more steps than a check may."""


@contextmanager
def bounded_steps(data: Any) -> Iterator[None]:
    """Bound the steps of a check of *data* in the block, by `TooManyStepsError`."""
    token = _left.set([_STEPS + _STEPS_PER_VALUE * sum(1 for _ in _nodes(data))])
    try:
        yield
    finally:
        _left.reset(token)


def bounded(chosen: Any, schema: Mapping[str, Any]) -> Any:
    """
    Return the validator class *chosen* of jsonschema with bounds, for use in `bounded_steps`.

    Raises `jsonschema.SchemaError` if *schema* is wrong, or has patterns that can't be matched in
    linear time or are too much together. Raises `ValueError` if something else can't be bounded.
    """
    from jsonschema import FormatChecker, SchemaError

    if is_surely_valid(chosen.__name__, schema):
        return _extended(chosen)
    checker, budget = FormatChecker(["regex"]), PatternBudget()
    checker.checks("regex")(lambda value: not isinstance(value, str) or budget.takes(value))
    chosen.check_schema(schema, format_checker=checker)
    words: set[str] = set()
    for each in _nodes(schema):
        if isinstance(each, Mapping):
            words.update(each)
            patterns = each.get("patternProperties")
            # Drafts before the sixth have no format for the keys.
            if isinstance(patterns, Mapping) and not all(map(budget.takes, patterns)):
                raise SchemaError(NOT_LINEAR, validator="format", path=["patternProperties"])
    if {"patternProperties", "unevaluatedProperties"} <= words:
        # There the library matches patterns itself, and has no option to do it otherwise.
        raise ValueError("has unevaluatedProperties beside patternProperties")
    return _extended(chosen)


def _nodes(data: Any) -> Iterator[Any]:
    waiting = [data]
    while waiting:
        each = waiting.pop()
        yield each
        if isinstance(each, Mapping):
            waiting.extend(each.values())
        elif isinstance(each, (list, tuple)):
            waiting.extend(each)


@lru_cache(maxsize=16)
def _extended(chosen: Any) -> Any:
    from jsonschema import validators

    keywords = {
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": _additional_properties,
        "uniqueItems": _unique_items,
    }
    known = {name: check for name, check in keywords.items() if name in chosen.VALIDATORS}
    made: Any = validators.extend(chosen, validators=known)
    made.evolve = _evolved
    return made


def _evolved(validator: Any, **changes: Any) -> Any:
    """Return *validator* for a schema within its own; the library calls it for each."""
    import attrs

    left = _left.get()
    left[0] -= 1
    if left[0] < 0:
        raise TooManyStepsError
    # The library's own takes another class for a schema that names its draft.
    return attrs.evolve(validator, **changes)


def _pattern(validator: Any, pattern: str, data: Any, schema: Any) -> Iterator[Any]:
    from jsonschema import ValidationError

    if validator.is_type(data, "string") and not find_pattern(pattern, data):
        yield ValidationError("the pattern is not found")


def _pattern_properties(validator: Any, patterns: Any, data: Any, schema: Any) -> Iterator[Any]:
    if not validator.is_type(data, "object"):
        return
    for pattern, inner in patterns.items():
        for name, value in data.items():
            if find_pattern(pattern, name):
                yield from validator.descend(value, inner, path=name, schema_path=pattern)


def _additional_properties(validator: Any, inner: Any, data: Any, schema: Any) -> Iterator[Any]:
    from jsonschema import ValidationError

    if not validator.is_type(data, "object"):
        return
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    more = [
        name
        for name in data
        if name not in known and not any(find_pattern(each, name) for each in patterns)
    ]
    if validator.is_type(inner, "object"):
        for name in more:
            yield from validator.descend(data[name], inner, path=name)
    elif not inner and more:
        yield ValidationError("there are additional properties")


def _unique_items(validator: Any, wanted: Any, data: Any, schema: Any) -> Iterator[Any]:
    from jsonschema import ValidationError

    if wanted and validator.is_type(data, "array") and len(set(map(_key, data))) < len(data):
        yield ValidationError("the elements are not unique")


def _key(value: Any) -> Any:
    """Return what two values have in common if they are equal in JSON, and else have not."""
    if isinstance(value, Mapping):
        return "object", frozenset((name, _key(each)) for name, each in value.items())
    if isinstance(value, (list, tuple)):
        return "array", tuple(map(_key, value))
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    # As text: who chooses numbers can choose their hashes.
    return type(value).__name__, repr(value)
