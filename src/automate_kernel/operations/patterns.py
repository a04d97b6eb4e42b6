"""
Regular expressions of JSON Schemas, which are matched in a time that is linear in the text.

The library of JSON Schema takes those of Python. A few characters of such a pattern, ``^(a+)+$``,
make a search of hours in thirty characters of text, and no other thread runs meanwhile. Pydantic's
engine never goes back in the text, and refuses a pattern whose automaton takes more than 10 MiB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

NOT_LINEAR = (
    "a pattern is matched in linear time: it has no look-around, no reference to what it has"
    " found, and no more than 2,000 characters"
)
"""The hint for a pattern that can't be used."""

_LONGEST = 2_000
_MOST_KEPT = 128


def is_pattern(text: str) -> bool:
    """Return True if *text* is a regular expression that is matched in linear time."""
    try:
        _compiled(text)
    except ValueError:
        return False
    return True


def find_pattern(pattern: str, text: str) -> bool:
    """Return True if *pattern* is found in *text*; raises `ValueError` if it is none."""
    return _compiled(pattern)(text)


@lru_cache(maxsize=_MOST_KEPT)
def _compiled(pattern: str) -> Callable[[str], bool]:
    from pydantic_core import SchemaError, SchemaValidator, core_schema

    if len(pattern) > _LONGEST:
        raise ValueError(NOT_LINEAR)
    try:
        schema = core_schema.str_schema(pattern=pattern, regex_engine="rust-regex")
        return SchemaValidator(schema).isinstance_python
    except SchemaError:
        raise ValueError(NOT_LINEAR) from None


def linear(chosen: Any, schema: Mapping[str, Any]) -> Any:
    """
    Return the validator class *chosen* of jsonschema, for patterns that are matched in linear time.

    Raises `jsonschema.SchemaError` if *schema* is wrong or has others, and `ValueError` if it can't
    be checked in linear time for another reason.
    """
    from jsonschema import FormatChecker

    checker = FormatChecker()
    checker.checks("regex")(lambda value: not isinstance(value, str) or is_pattern(value))
    chosen.check_schema(schema, format_checker=checker)
    if {"patternProperties", "unevaluatedProperties"} <= set(_words(schema)):
        # There the library matches patterns itself, and can't be told to do it otherwise.
        raise ValueError("has unevaluatedProperties beside patternProperties")
    return _extended(chosen)


def _words(schema: Any) -> Iterator[str]:
    waiting = [schema]
    while waiting:
        each = waiting.pop()
        if isinstance(each, Mapping):
            yield from each
            waiting.extend(each.values())
        elif isinstance(each, (list, tuple)):
            waiting.extend(each)


@lru_cache(maxsize=16)
def _extended(chosen: Any) -> Any:
    import attrs
    from jsonschema import validators

    keywords = {
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": _additional_properties,
    }
    known = {name: check for name, check in keywords.items() if name in chosen.VALIDATORS}
    made: Any = validators.extend(chosen, validators=known)
    # Its own takes the library's class for a schema within that names its draft.
    made.evolve = attrs.evolve
    return made


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
